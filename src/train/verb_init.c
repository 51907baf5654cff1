/* verb_init.c: writes a randomly initialised model directory: config.json as given, model.safetensors (sharded
 * above 5 GB), and a copy of a tokenizer. The values are those `bench` and a fresh model with the same seed
 * have.
 */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "export/model_write.h"
#include "export/pack.h"
#include "model/model.h"
#include "train/config.h"

typedef struct tensor {
    const char *name;
    int rank;
    int64_t shape[2], count;
    float std; /* as tn_source.std */
} tensor;

typedef struct writer {
    tn_arena arena;
    const tn_arch *arch;
    tensor *list;
    int64_t count, capacity;
    tn_dtype dtype;
    uint64_t seed;
    float *values;
    uint16_t *narrow;
} writer;

static tn_status add(void *user, tn_module module, int64_t layer, bool bias) {
    writer *w = user;
    char name[128];
    int64_t rows, cols;
    tn_status status = tn_grow(&w->list, &w->capacity, w->count + 1, (int64_t)sizeof *w->list, "tensors");
    if (status != TN_OK) return status;
    tn_module_shape(w->arch, module, &rows, &cols);
    if (bias) cols = 1;
    tensor *t = &w->list[w->count++];
    *t = (tensor){.rank = bias || tn_module_is_norm(module) ? 1 : 2,
                  .shape = {rows, cols},
                  .count = rows * cols,
                  .std = tn_tensor_std(w->arch, module, bias)};
    t->name = tn_arena_printf(&w->arena, "%s", tn_tensor_name(module, layer, bias, name));
    return t->name ? TN_OK : tn_fail_memory(128, "a name");
}

static tn_status give(void *user, int64_t declared, const void **bytes) {
    writer *w = user;
    const tensor *t = &w->list[declared];
    tn_random_weights(w->seed ^ tn_random_name(t->name), t->std, t->count, w->values);
    *bytes = w->values;
    if (w->dtype == TN_DTYPE_F32) return TN_OK;
    *bytes = w->narrow;
    return tn_pack(t->name, w->dtype, w->values, t->shape[0], t->shape[1], w->narrow);
}

static tn_status write_weights(writer *w, const char *directory) {
    tn_model_writer *files = NULL;
    tn_status status;
    TN_TRY(tn_model_writer_new(&files));
    for (int64_t i = 0; i < w->count; i++) {
        const tensor *t = &w->list[i];
        TN_TRY(tn_model_writer_add(files, t->name, w->dtype, t->rank, t->shape, NULL));
    }
    status = tn_model_writer_save(files, directory, give, w);
done:
    tn_model_writer_free(files);
    return status;
}

static tn_status copy_tokenizer(const char *from, const char *to) {
    static const char *const names[] = {"tokenizer.json",          "tokenizer_config.json",
                                        "special_tokens_map.json", "chat_template.jinja",
                                        "chat_template.json",      "generation_config.json"};
    return tn_copy_files(from, to, names, sizeof names / sizeof *names);
}

/* The configuration's text: of a file, of the config.json in a directory, or of a well-known shape. */
static tn_status read_config(tn_arena *arena, const char *model, tn_str *text) {
    if (tn_is_directory(model)) model = tn_path_join(arena, model, "config.json");
    const bool file = tn_is_file(model);
    const char *shape = file ? NULL : tn_shape_config(model);
    if (file && tn_ends_with(model, ".json")) return tn_read_file(model, 1 << 24, text);
    if (shape) {
        tn_str_puts(text, shape);
        return tn_str_check(text, "a configuration");
    }
    if (file) tn_fail(TN_USAGE, "%s is no config.json, which is what init makes a model from", model);
    else tn_fail(TN_USAGE, "the configuration %s does not exist", model);
    return tn_remedy("give a config.json, a directory that has one, or one of: %s", tn_shape_names());
}

static tn_status check_tokenizer(tn_arena *arena, const char *directory) {
    if (!directory || tn_is_file(tn_path_join(arena, directory, "tokenizer.json"))) return TN_OK;
    tn_fail(TN_USAGE, "%s holds no tokenizer.json", directory);
    return tn_remedy("--tokenizer takes the directory of a model whose tokenizer is copied");
}

tn_status tn_init(tn_config *config, tn_doc **doc) {
    writer w = {0};
    tn_str text = {0}, answer = {0};
    const tn_settings *s;
    const tn_json *tree;
    tn_arch arch;
    int64_t largest = 0;
    tn_status status;
    *doc = NULL;
    TN_TRY(tn_config_resolve(config, &s));
    TN_TRY(read_config(&w.arena, s->model, &text));
    TN_TRY(tn_json_parse(&w.arena, tn_str_text(&text), text.length, TN_JSON_DEFAULT, s->model, &tree));
    TN_TRY(tn_arch_read(&w.arena, tree, NULL, s->model, &arch));
    if (arch.vision) {
        status = tn_fail(TN_USAGE, "%s: init does not make a vision tower yet", s->model);
        tn_remedy("make such a model with Transformers");
        goto done;
    }
    w.seed = s->seed;
    w.dtype = arch.stored_dtype;
    if (strcmp(s->dtype, "auto") != 0) tn_dtype_from_name(s->dtype, &w.dtype);
    if (tn_is_file(tn_path_join(&w.arena, s->output_dir, "config.json"))) {
        status = tn_fail(TN_USAGE, "%s already holds a model", s->output_dir);
        tn_remedy("choose another output_dir");
        goto done;
    }
    TN_TRY(check_tokenizer(&w.arena, s->tokenizer)); /* before anything is written */
    w.arch = &arch;
    TN_TRY(tn_each_tensor(&arch, add, &w));
    for (int64_t i = 0; i < w.count; i++)
        if (w.list[i].count > largest) largest = w.list[i].count;
    TN_TRY(tn_alloc(&w.values, largest, (int64_t)sizeof *w.values, "random weights"));
    if (w.dtype != TN_DTYPE_F32)
        TN_TRY(tn_alloc(&w.narrow, largest, (int64_t)sizeof *w.narrow, "random weights"));
    TN_TRY(tn_make_directories(s->output_dir));
    TN_TRY(write_weights(&w, s->output_dir));
    if (s->tokenizer) TN_TRY(copy_tokenizer(s->tokenizer, s->output_dir));
    TN_TRY(tn_save_text(tn_path_join(&w.arena, s->output_dir, "config.json"), tn_str_text(&text), text.length));
    tn_json_writer j = tn_json_write_to(&answer, 0);
    tn_json_begin(&j, '{');
    tn_json_string_member(&j, "output", s->output_dir);
    tn_json_integer_member(&j, "parameters", tn_arch_parameters(&arch));
    tn_json_integer_member(&j, "tensors", w.count);
    tn_json_string_member(&j, "dtype", tn_dtype_name(w.dtype));
    tn_json_end(&j, '}');
    status = tn_doc_from(&answer, doc);
done:
    free(w.list);
    free(w.values);
    free(w.narrow);
    tn_str_free(&text);
    tn_str_free(&answer);
    tn_arena_free(&w.arena);
    return status;
}
