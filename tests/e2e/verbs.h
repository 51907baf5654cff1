/* verbs.h: what the tests of merge and export share: a verb run in this process, and copies of the tiny golden
 * models in another storage. */
#ifndef TN_TESTS_VERBS_H
#define TN_TESTS_VERBS_H

#include <math.h>

#include "format/safetensors.h"
#include "quant/quant.h"
#include "testing.h"

#define GOLDEN "tests/parity/golden/"

typedef tn_status verb_function(tn_config *config, const tn_hooks *hooks, tn_doc **doc);

/* Runs a verb with keys and values up to a NULL. */
static inline tn_status run_verb(const char *verb, verb_function *function, const char *const *keys,
                                 tn_doc **doc) {
    tn_config *config;
    *doc = NULL;
    must(tn_config_new(verb, &config));
    must(tn_config_set(config, "device", "cpu"));
    for (; *keys; keys += 2) must(tn_config_set(config, keys[0], keys[1]));
    tn_status status = function(config, NULL, doc);
    tn_config_free(config);
    return status;
}
#define VERB(name, doc, ...) run_verb(#name, tn_##name, (const char *const[]){__VA_ARGS__, NULL}, doc)

/* Loss of a model, with an adapter or without (NULL), on records of ids, in fp32. */
static inline double loss_of(const char *model, const char *adapter, const char *dataset) {
    tn_doc *doc;
    must(run_verb("eval", tn_eval,
                  (const char *const[]){"model", model, "dataset", dataset, "dtype", "float32",
                                        adapter ? "adapter" : NULL, adapter, NULL},
                  &doc));
    const double loss = tn_doc_number(doc, "loss", NAN);
    tn_doc_free(doc);
    return loss;
}

static inline void copy_file(const char *from, const char *to) {
    tn_map map;
    must(tn_map_open(from, &map));
    must(tn_save_text(to, (const char *)map.data, map.bytes));
    tn_map_close(&map);
}

static inline const char *joined(const char *directory, const char *name) {
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

typedef struct copying {
    const tn_tensor_info *tensors[256];
    float values[1 << 14];
} copying;

static inline tn_status give_widened(void *user, int64_t declared, const void **bytes) {
    copying *c = user;
    const tn_tensor_info *t = c->tensors[declared];
    assert_in_range(t->elements, 0, sizeof c->values / sizeof *c->values);
    tn_dequantize(t->dtype, t->data, 0, t->elements, c->values);
    *bytes = c->values;
    return TN_OK;
}

static inline tn_status give_as_it_is(void *user, int64_t declared, const void **bytes) {
    *bytes = ((copying *)user)->tensors[declared]->data;
    return TN_OK;
}

/* The tensors of `file` with index ≡ part (mod parts), in fp32 or in their own dtype. */
static inline void write_part(const tn_safetensors *file, int64_t part, int64_t parts, bool widened,
                              const char *path) {
    static copying c;
    tn_safetensors_writer *writer;
    int64_t count = 0;
    must(tn_safetensors_writer_new(&writer));
    for (int64_t i = part; i < tn_safetensors_count(file); i += parts) {
        const tn_tensor_info *t = c.tensors[count++] = tn_safetensors_at(file, i);
        must(tn_safetensors_declare(writer, t->name, widened ? TN_DTYPE_F32 : t->dtype, t->rank, t->shape));
    }
    must(tn_safetensors_write(writer, path, widened ? give_widened : give_as_it_is, &c));
    tn_safetensors_writer_free(writer);
}

/* A scratch copy of a golden model with its weights in fp32. */
static inline const char *widened_model(const char *name) {
    const char *directory = scratch(name);
    char model[256];
    tn_safetensors *file;
    snprintf(model, sizeof model, GOLDEN "%s/model", name);
    must(tn_make_directories(directory));
    copy_file(joined(model, "config.json"), joined(directory, "config.json"));
    must(tn_safetensors_open(joined(model, "model.safetensors"), &file));
    write_part(file, 0, 1, true, joined(directory, "model.safetensors"));
    tn_safetensors_close(file);
    return directory;
}

#endif
