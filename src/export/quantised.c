/* quantised.c: writing in two rounds. The first quantises every projection and keeps the scales, because what a
 * state says (nested_offset) belongs into the file's header; the second quantises again when the codes are
 * asked for. So nothing but one weight's codes is held beside scales of 1.6 % of the weights' number in bytes.
 */
#include "export/quantised.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "export/model_write.h"
#include "model/module.h"
#include "op/source.h"
#include "quant/dynamic_map.h"

/* A tensor of the file that is written: the codes of a weight (data NULL), or bytes at hand. */
typedef struct written {
    int64_t weight; /* index into the model's tensors */
    const void *data;
} written;

typedef struct job {
    tn_arena arena; /* names, states and scales */
    const tn_model_files *files;
    const tn_staging *staging;
    tn_dtype to;
    bool *quantised; /* of the model's tensors */
    tn_model_writer *writer;
    written *list;
    int64_t count, capacity;
    unsigned char *image; /* one quantised weight */
    const float *map;     /* of the scales */
} job;

static const uint8_t row_format = 0; /* X.weight_format: rows of codes in order */

static tn_status add(job *j, const char *name, tn_dtype dtype, int rank, const int64_t *shape, int64_t weight,
                     const void *data) {
    tn_status status =
        tn_grow(&j->list, &j->capacity, j->count + 1, (int64_t)sizeof *j->list, "a list of tensors");
    if (status != TN_OK) return status;
    j->list[j->count++] = (written){weight, data};
    return tn_model_writer_add(j->writer, name, dtype, rank, shape, NULL);
}

/* A companion of weight `w` called `stem`+`suffix`. */
static tn_status add_companion(job *j, int64_t w, const char *stem, const char *suffix, tn_dtype dtype,
                               int rank, int64_t count, const void *data) {
    const char *name = tn_arena_printf(&j->arena, "%s%s", stem, suffix);
    return name ? add(j, name, dtype, rank, &count, w, data) : tn_fail_memory(256, "a name");
}

/* ---- First round: scales ------------------------------------------------------------------------------- */

static tn_status encode(job *j, const tn_tensor_info *t, tn_scaled_layout *layout, float *offset) {
    const tn_source source = {.tensor = t, .quantise_to = j->to};
    if (!tn_source_layout(&source, t->shape[0], t->shape[1], layout))
        return tn_fail(TN_BAD_DATA, "%s: tensor %s is too large", t->file, t->name);
    return tn_source_encode(&source, t->shape[0], t->shape[1], layout, j->image, offset);
}

/* The state as bitsandbytes writes it (functional.py: QuantState.as_dict). */
static tn_status put_state(const tn_tensor_info *t, const tn_scaled_layout *l, float offset, tn_str *text) {
    tn_json_writer w = tn_json_write_to(text, 0);
    tn_json_begin(&w, '{');
    tn_json_string_member(&w, "quant_type", tn_dtype_name(l->dtype));
    tn_json_integer_member(&w, "blocksize", l->block);
    tn_json_string_member(&w, "dtype", tn_dtype_name(t->dtype));
    tn_json_key(&w, "shape");
    tn_json_begin(&w, '[');
    for (int i = 0; i < 2; i++) tn_json_put_integer(&w, t->shape[i]);
    tn_json_end(&w, ']');
    tn_json_integer_member(&w, "nested_blocksize", l->nested_block);
    tn_json_string_member(&w, "nested_dtype", "float32");
    tn_json_real_member(&w, "nested_offset", (double)offset);
    tn_json_end(&w, '}');
    return tn_str_check(text, "a state");
}

static tn_status add_nf4(job *j, int64_t w, const tn_tensor_info *t, const tn_scaled_layout *l,
                         const unsigned char *scales, float offset) {
    const int64_t codes[2] = {(l->elements + 1) / 2, 1};
    tn_str text = {0};
    tn_status status;
    TN_TRY(put_state(t, l, offset, &text));
    const char *state = tn_arena_text(&j->arena, text.data, text.length);
    if (!state) TN_THROW(TN_FAILED, "out of memory for a state");
    TN_TRY(add(j, t->name, TN_DTYPE_U8, 2, codes, w, NULL));
    TN_TRY(add_companion(j, w, t->name, ".absmax", TN_DTYPE_U8, 1, l->blocks, scales));
    TN_TRY(add_companion(j, w, t->name, ".nested_absmax", TN_DTYPE_F32, 1, l->nested_blocks,
                         scales + (l->nested - l->absmax)));
    TN_TRY(add_companion(j, w, t->name, ".nested_quant_map", TN_DTYPE_F32, 1, 256, j->map));
    TN_TRY(add_companion(j, w, t->name, ".quant_map", TN_DTYPE_F32, 1, 16, tn_dtype_code_book(TN_DTYPE_NF4)));
    status = add_companion(j, w, t->name, ".quant_state.bitsandbytes__nf4", TN_DTYPE_U8, 1, text.length, state);
done:
    tn_str_free(&text);
    return status;
}

static tn_status add_int8(job *j, int64_t w, const tn_tensor_info *t, const unsigned char *scales) {
    const char *stem = tn_arena_text(&j->arena, t->name, (int64_t)(strlen(t->name) - strlen("weight")));
    tn_status status;
    if (!stem) return tn_fail_memory(256, "a name");
    TN_TRY(add(j, t->name, TN_DTYPE_I8, 2, t->shape, w, NULL));
    TN_TRY(add_companion(j, w, stem, "SCB", TN_DTYPE_F32, 1, t->shape[0], scales));
    status = add_companion(j, w, stem, "weight_format", TN_DTYPE_U8, 0, 1, &row_format);
done:
    return status;
}

static tn_status add_tensor(job *j, int64_t w) {
    const tn_tensor_info *t = tn_model_files_at(j->files, w);
    tn_scaled_layout l;
    float offset;
    tn_status status = tn_staging_go_on(j->staging);
    if (status != TN_OK) return status;
    if (!j->quantised[w]) return add(j, t->name, t->dtype, t->rank, t->shape, w, t->data);
    status = encode(j, t, &l, &offset);
    if (status != TN_OK) return status;
    /* the map behind them is the same for all */
    int64_t bytes = (l.nested_block ? l.map : l.bytes) - l.absmax;
    unsigned char *scales = tn_arena_take(&j->arena, bytes);
    if (!scales) return tn_fail_memory(bytes, "scales");
    memcpy(scales, j->image + l.absmax, (size_t)bytes);
    return j->to == TN_DTYPE_NF4 ? add_nf4(j, w, t, &l, scales, offset) : add_int8(j, w, t, scales);
}

/* ---- Second round: bytes ------------------------------------------------------------------------------- */

static tn_status give(void *user, int64_t declared, const void **bytes) {
    job *j = user;
    const written *what = &j->list[declared];
    tn_scaled_layout layout;
    float offset;
    tn_status status = tn_staging_go_on(j->staging);
    if (status != TN_OK) return status;
    *bytes = what->data ? what->data : j->image;
    return what->data ? TN_OK : encode(j, tn_model_files_at(j->files, what->weight), &layout, &offset);
}

/* Marks the projections, and makes room for the largest. */
static tn_status mark(void *user, tn_module module, int64_t layer, bool bias) {
    job *j = user;
    char name[128];
    if (module >= TN_MODULES_PER_LAYER || bias) return TN_OK;
    const tn_tensor_info *t = tn_model_files_find(j->files, tn_tensor_name(module, layer, false, name));
    if (!t || t->rank != 2 || !tn_dtype_is_float(t->dtype))
        return tn_fail(TN_BAD_DATA, "%s: %s is %s", tn_model_files_path(j->files), name,
                       t ? "no plain matrix" : "missing");
    j->quantised[t - tn_model_files_at(j->files, 0)] = true;
    return TN_OK;
}

static tn_status take_image(job *j) {
    int64_t largest = 1;
    for (int64_t i = 0; i < tn_model_files_count(j->files); i++) {
        const tn_tensor_info *t = tn_model_files_at(j->files, i);
        tn_scaled_layout l;
        if (!j->quantised[i]) continue;
        if (tn_scaled_layout_usual(j->to, t->shape[0], t->shape[1], &l) && l.bytes > largest) largest = l.bytes;
    }
    return tn_alloc_aligned(&j->image, largest, "a quantised weight");
}

/* ---- The rest of the directory --------------------------------------------------------------------------- */

/* As Transformers 5 saves its BitsAndBytesConfig. */
static void put_quantisation(tn_json_writer *w, tn_dtype to, tn_dtype stored) {
    bool four = to == TN_DTYPE_NF4;
    tn_json_key(w, "quantization_config");
    tn_json_begin(w, '{');
    tn_json_boolean_member(w, "_load_in_4bit", four);
    tn_json_boolean_member(w, "_load_in_8bit", !four);
    tn_json_string_member(w, "bnb_4bit_compute_dtype", tn_dtype_name(stored));
    tn_json_string_member(w, "bnb_4bit_quant_storage", "uint8");
    tn_json_string_member(w, "bnb_4bit_quant_type", "nf4");
    tn_json_boolean_member(w, "bnb_4bit_use_double_quant", four);
    tn_json_boolean_member(w, "llm_int8_enable_fp32_cpu_offload", false);
    tn_json_boolean_member(w, "llm_int8_has_fp16_weight", false);
    tn_json_key(w, "llm_int8_skip_modules");
    tn_json_put_null(w);
    tn_json_real_member(w, "llm_int8_threshold", 6.0);
    tn_json_boolean_member(w, "load_in_4bit", four);
    tn_json_boolean_member(w, "load_in_8bit", !four);
    tn_json_string_member(w, "quant_method", "bitsandbytes");
    tn_json_end(w, '}');
}

static tn_status write_config(const job *j, const tn_arch *arch, const char *path) {
    const tn_json *config = tn_model_files_config(j->files);
    tn_str text = {0};
    tn_json_writer w = tn_json_write_to(&text, 2);
    tn_json_begin(&w, '{');
    for (int64_t i = 0; i < config->count; i++) {
        if (strcmp(config->members[i].key, "quantization_config") == 0) continue; /* null */
        tn_json_key(&w, config->members[i].key);
        tn_json_put(&w, &config->members[i].value);
    }
    put_quantisation(&w, j->to, arch->stored_dtype);
    tn_json_end(&w, '}');
    tn_str_putc(&text, '\n');
    tn_status status = tn_str_check(&text, "config.json");
    if (status == TN_OK) status = tn_save_text(path, text.data, text.length);
    tn_str_free(&text);
    return status;
}

static tn_status write_rest(job *j, const tn_arch *arch, const char *directory) {
    static const char *const names[] = {
        "generation_config.json",  "tokenizer.json",      "tokenizer_config.json",
        "special_tokens_map.json", "chat_template.jinja", "chat_template.json",
        "added_tokens.json",       "vocab.json",          "merges.txt",
        "tokenizer.model"};
    const char *path = tn_path_join(&j->arena, directory, "config.json");
    if (!path) return tn_fail_memory(256, "a path");
    tn_status status =
        tn_copy_files(tn_model_files_path(j->files), directory, names, sizeof names / sizeof *names);
    return status == TN_OK ? write_config(j, arch, path) : status;
}

tn_status tn_write_quantised(const tn_arch *arch, const tn_model_files *files, tn_dtype to,
                             const tn_staging *staging) {
    job j = {.files = files, .staging = staging, .to = to};
    tn_status status;
    j.quantised = tn_arena_take(&j.arena, tn_model_files_count(files) + 1);
    if (!j.quantised) return tn_fail_memory(tn_model_files_count(files), "a list of tensors");
    j.map = tn_dynamic_map(true);
    TN_TRY(tn_each_tensor(arch, mark, &j));
    TN_TRY(take_image(&j));
    TN_TRY(tn_model_writer_new(&j.writer));
    for (int64_t i = 0; i < tn_model_files_count(files); i++) TN_TRY(add_tensor(&j, i));
    TN_TRY(tn_model_writer_save(j.writer, staging->directory, give, &j));
    status = write_rest(&j, arch, staging->directory);
done:
    tn_model_writer_free(j.writer);
    free(j.list);
    free(j.image);
    tn_arena_free(&j.arena);
    return status;
}
