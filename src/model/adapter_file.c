/* adapter_file.c: PEFT adapter directories. Reading accounts for every tensor both ways before a single value
 * is taken: a parameter without a tensor, a tensor without a parameter, a wrong shape, a non-finite value or a
 * copy of some other base's weight is an error that lists them, never a silent skip.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/adapter.h"
#include "quant/quant.h"

/* The module path behind the prefixes in use: "base_model.model.", then optionally "model." pieces that VLMs
 * and transformers 5 insert ("model.language_model.layers…"). */
static const char *tail_of(const char *name) {
    static const char *const prefixes[] = {"base_model.model.", "model.language_model.",
                                           "language_model.model.", "model.text_model.", "model."};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (tn_starts_with(name, prefixes[i])) name += strlen(prefixes[i]);
    return name;
}

/* Without the pieces that stand in a state dictionary, not in what PEFT writes: the adapter's name, where a
 * module that trains in full is held ("lm_head.modules_to_save.default.weight"), and the end of
 * "lora_magnitude_vector.default.weight". */
static const char *plain_name(const char *name, char out[256]) {
    static const char *const pieces[] = {".modules_to_save", ".default"};
    snprintf(out, 256, "%s", tail_of(name));
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        const size_t length = strlen(pieces[i]);
        char *found = strstr(out, pieces[i]);
        if (found && (found[length] == '.' || !found[length]))
            memmove(found, found + length, strlen(found + length) + 1);
    }
    if (tn_ends_with(out, ".lora_magnitude_vector.weight")) out[strlen(out) - strlen(".weight")] = '\0';
    return out;
}

const tn_tensor_info *tn_adapter_tensor(const tn_param *param, const tn_safetensors *file) {
    const tn_tensor_info *exact = tn_safetensors_find(file, param->name);
    if (exact) return exact;
    const char *tail = tail_of(param->name);
    const tn_tensor_info *other = NULL;
    char plain[256];
    for (int64_t i = 0; i < tn_safetensors_count(file); i++) {
        const tn_tensor_info *t = tn_safetensors_at(file, i);
        if (strcmp(tail_of(t->name), tail) == 0) return t;
        if (!other && strcmp(plain_name(t->name, plain), tail) == 0) other = t;
    }
    return other;
}

static bool shape_fits(const tn_param *p, const tn_tensor_info *t) {
    return t->rank == p->rank && t->shape[0] == p->shape[0] && (p->rank == 1 || t->shape[1] == p->shape[1]) &&
           tn_dtype_is_float(t->dtype);
}

const char *tn_adapter_file_name(const tn_adapter *adapter) {
    return adapter->full ? "model.safetensors" : "adapter_model.safetensors";
}

bool tn_tensor_finite(const tn_tensor_info *t) {
    float block[1024];
    if (!tn_dtype_is_float(t->dtype)) return true;
    for (int64_t at = 0; at < t->elements; at += 1024) {
        int64_t n = t->elements - at < 1024 ? t->elements - at : 1024;
        tn_dequantize(t->dtype, t->data, at, n, block);
        for (int64_t i = 0; i < n; i++)
            if (!isfinite(block[i])) return false;
    }
    return true;
}

/* Everything one accounting looks at. */
typedef struct account {
    const tn_adapter *adapter;
    const tn_base *base;
    const tn_safetensors *file;
    tn_arena *arena;
    tn_accounting *result;
} account;

static tn_status note(const account *a, const char ***list, int64_t *count, const char *text) {
    const int64_t most = a->adapter->param_count + tn_safetensors_count(a->file) + 1;
    if (!*list) *list = tn_arena_take(a->arena, most * (int64_t)sizeof **list);
    if (!*list || !text) return tn_fail_memory(most * 8, "an accounting");
    (*list)[(*count)++] = text;
    return TN_OK;
}

static tn_status account_for_parameter(const account *a, const tn_param *p, const tn_tensor_info *t) {
    const tn_tensor_info expected = {.rank = p->rank, .shape = {p->shape[0], p->shape[1]}};
    tn_accounting *result = a->result;
    char shape[128], wanted[128];
    if (!t) return note(a, &result->missing, &result->missing_count, p->name);
    if (!shape_fits(p, t)) {
        const bool by_token = p->module >= TN_MODULE_EMBED && p->shape[0] == a->base->arch->vocab;
        if (by_token && t->rank == 2 && t->shape[0] != p->shape[0]) result->other_rows = t->shape[0];
        return note(
            a, &result->mismatched, &result->mismatched_count,
            tn_arena_printf(a->arena, "%s: %s %s in the file, %s expected", t->name, tn_dtype_name(t->dtype),
                            tn_shape_text(t, shape), tn_shape_text(&expected, wanted)));
    }
    return tn_tensor_finite(t) ? TN_OK : note(a, &result->nonfinite, &result->nonfinite_count, t->name);
}

/* PEFT asked to save embeddings that are in modules_to_save as well writes them twice, and reads
 * "lm_head.weight" alone: "lm_head.modules_to_save.weight" has its bytes. */
static bool is_second_writing(const account *a, const tn_tensor_info *t) {
    static const char infix[] = ".modules_to_save.weight";
    char name[256];
    const size_t length = strlen(t->name);
    if (!tn_ends_with(t->name, infix) || length >= sizeof name) return false;
    snprintf(name, sizeof name, "%.*s.weight", (int)(length - strlen(infix)), t->name);
    const tn_tensor_info *first = tn_safetensors_find(a->file, name);
    return first && first->bytes == t->bytes && first->dtype == t->dtype &&
           memcmp(first->data, t->data, (size_t)t->bytes) == 0;
}

/* Of a tied model PEFT, asked to save embeddings, writes the trained rows under the head's name as well. */
static bool is_tied_rows(const account *a, const tn_tensor_info *t) {
    const tn_param *rows = tn_adapter_tokens(a->adapter, a->base->arch, TN_MODULE_HEAD);
    const tn_tensor_info *first = rows ? tn_adapter_tensor(rows, a->file) : NULL;
    return first && strcmp(tail_of(t->name), "lm_head.token_adapter.trainable_tokens_delta") == 0 &&
           first->bytes == t->bytes && first->dtype == t->dtype &&
           memcmp(first->data, t->data, (size_t)t->bytes) == 0;
}

/* A weight of the embedding or head that is no parameter. Where it is not the base's and stands under the name
 * of a module that trains in full, nothing explains it. */
static tn_status account_for_table(const account *a, const tn_tensor_info *t, tn_module module) {
    tn_accounting *result = a->result;
    const char *difference;
    tn_status status = tn_base_copy_compare(t, module, a->base, a->arena, &difference);
    if (status != TN_OK) return status;
    if (!difference) return note(a, &result->base_copies, &result->base_copies_count, t->name);
    result->other_base++;
    if (t->rank == 2 && t->shape[0] != a->base->arch->vocab) result->other_rows = t->shape[0];
    if (strstr(t->name, ".base_layer.") || strstr(t->name, ".original_module."))
        return note(a, &result->mismatched, &result->mismatched_count, difference);
    return note(a, &result->unexpected, &result->unexpected_count, t->name);
}

/* A tensor that no parameter stands for. */
static tn_status account_for_rest(const account *a, const tn_tensor_info *t) {
    tn_accounting *result = a->result;
    tn_module module;
    if (a->adapter->full) return note(a, &result->unexpected, &result->unexpected_count, t->name);
    if (tn_base_copy_module(tail_of(t->name), &module)) return account_for_table(a, t, module);
    if (is_second_writing(a, t) || is_tied_rows(a, t))
        return note(a, &result->base_copies, &result->base_copies_count, t->name);
    return note(a, &result->unexpected, &result->unexpected_count, t->name);
}

tn_status tn_adapter_account(const tn_adapter *adapter, const tn_base *base, const tn_safetensors *file,
                             tn_arena *arena, tn_accounting *result) {
    const account a = {adapter, base, file, arena, result};
    tn_status status = TN_OK;
    int64_t n = tn_safetensors_count(file);
    bool *used = tn_arena_take(arena, n > 0 ? n : 1);
    *result = (tn_accounting){0};
    if (!used) return tn_fail_memory(n, "an accounting");
    for (int64_t i = 0; i < adapter->param_count; i++) {
        const tn_tensor_info *t = tn_adapter_tensor(&adapter->params[i], file);
        for (int64_t j = 0; j < n; j++)
            if (tn_safetensors_at(file, j) == t) used[j] = true;
        TN_TRY(account_for_parameter(&a, &adapter->params[i], t));
    }
    for (int64_t j = 0; j < n; j++)
        if (!used[j]) TN_TRY(account_for_rest(&a, tn_safetensors_at(file, j)));
done:
    return status;
}

static void describe(tn_str *out, const char *what, const char *const *list, int64_t count) {
    if (count == 0) return;
    tn_str_printf(out, "%s%lld %s:", out->length ? "; " : "", (long long)count, what);
    for (int64_t i = 0; i < count && i < 4; i++) tn_str_printf(out, "%s %s", i ? "," : "", list[i]);
    if (count > 4) tn_str_puts(out, ", …");
}

/* PEFT puts these tensors in the base's place, so that base can be written. */
static tn_status tell_of_base(const tn_accounting *a) {
    const long long rows = (long long)a->other_rows;
    static const char write[] = "PeftModel.from_pretrained(model, ADAPTER).unload().save_pretrained(DIR)";
    if (rows > 0)
        return tn_remedy(
            "the adapter was made on a base with a vocabulary of %lld: give that one as model, or write it in "
            "Python, where model is this base: model.resize_token_embeddings(%lld); %s",
            rows, rows, write);
    return tn_remedy(
        "%sthe adapter was made on another base: give that one as model, or write it in Python, where model is "
        "this base: %s",
        a->unexpected_count ? "modules that were trained in full are named by modules_to_save in "
                              "adapter_config.json; else "
                            : "",
        write);
}

static tn_status require_complete(const tn_accounting *a, const char *path) {
    tn_str text = {0};
    if (a->missing_count + a->unexpected_count + a->mismatched_count + a->nonfinite_count == 0) return TN_OK;
    describe(&text, "tensors missing", a->missing, a->missing_count);
    describe(&text, "tensors that nothing in adapter_config.json explains", a->unexpected, a->unexpected_count);
    describe(&text, "tensors that do not fit", a->mismatched, a->mismatched_count);
    describe(&text, "tensors with NaN or Inf", a->nonfinite, a->nonfinite_count);
    tn_fail(TN_BAD_DATA, "%s: %s", path, tn_str_text(&text));
    tn_str_free(&text);
    if (a->missing_count + a->unexpected_count + a->mismatched_count == 0)
        return tn_remedy("the run that wrote it has diverged; take one of its earlier checkpoints");
    if (a->other_base > 0 || a->other_rows > 0) return tell_of_base(a);
    return tn_remedy(
        "nothing is dropped silently: check that the adapter belongs to this base model and that its "
        "adapter_config.json is the one it was trained with");
}

tn_status tn_adapter_open(const tn_adapter *adapter, const tn_base *base, const char *directory,
                          tn_safetensors **file) {
    tn_arena arena = {0};
    tn_accounting accounting;
    tn_status status = TN_OK;
    const char *path = tn_path_join(&arena, directory, tn_adapter_file_name(adapter));
    *file = NULL;
    if (!path) return tn_fail_memory(256, "a path");
    if (!tn_is_file(path)) {
        status = tn_fail(TN_USAGE, "%s is not there", path);
        tn_remedy(tn_is_file(tn_path_join(&arena, directory, "adapter_model.bin"))
                      ? "this adapter is a pickle (.bin), which tenon never reads; convert it to safetensors "
                        "with PEFT"
                      : "give the directory that holds adapter_config.json and adapter_model.safetensors");
        goto done;
    }
    TN_TRY(tn_safetensors_open(path, file));
    TN_TRY(tn_adapter_account(adapter, base, *file, &arena, &accounting));
    status = require_complete(&accounting, path);
done:
    if (status != TN_OK) tn_safetensors_close(*file), *file = NULL;
    tn_arena_free(&arena);
    return status;
}

tn_status tn_adapter_load(tn_adapter *adapter, const tn_base *base, tn_device *device, const char *directory) {
    tn_safetensors *file;
    float *values = NULL;
    tn_status status;
    TN_TRY(tn_adapter_open(adapter, base, directory, &file));
    for (int64_t i = 0; i < adapter->param_count; i++) {
        const tn_param *p = &adapter->params[i];
        const tn_tensor_info *t = tn_adapter_tensor(p, file);
        float *grown = realloc(values, (size_t)p->count * sizeof *values);
        if (!grown) TN_THROW(TN_FAILED, "out of memory reading %s", t->name);
        values = grown;
        tn_dequantize(t->dtype, t->data, 0, p->count, values);
        TN_TRY(device->backend->upload(device, adapter->values + p->offset, values,
                                       p->count * (int64_t)sizeof *values));
    }
done:
    free(values);
    tn_safetensors_close(file);
    return status;
}

typedef struct saver {
    const tn_adapter *adapter;
    tn_device *device;
    float *values;
    uint16_t *narrow;
} saver;

static tn_status give_values(void *user, int64_t index, const void **bytes) {
    saver *s = user;
    const tn_param *p = &s->adapter->params[index];
    tn_status status = s->device->backend->download(s->device, s->values, s->adapter->values + p->offset,
                                                    p->count * (int64_t)sizeof *s->values);
    *bytes = s->values;
    if (status != TN_OK || p->dtype == TN_DTYPE_F32) return status;
    *bytes = s->narrow;
    return tn_quantize(p->dtype, s->values, p->count, s->narrow);
}

tn_status tn_adapter_save(const tn_adapter *adapter, tn_device *device, const char *directory) {
    tn_arena arena = {0};
    tn_safetensors_writer *writer = NULL;
    saver s = {.adapter = adapter, .device = device};
    int64_t largest = 1;
    tn_status status;
    const char *path = tn_path_join(&arena, directory, tn_adapter_file_name(adapter));
    if (!path) return tn_fail_memory(256, "a path");
    TN_TRY(tn_safetensors_writer_new(&writer));
    TN_TRY(tn_safetensors_metadata_add(writer, "format", "pt"));
    for (int64_t i = 0; i < adapter->param_count; i++) {
        const tn_param *p = &adapter->params[i];
        TN_TRY(tn_safetensors_declare(writer, p->name, p->dtype, p->rank, p->shape));
        if (p->count > largest) largest = p->count;
    }
    TN_TRY(tn_alloc(&s.values, largest, (int64_t)sizeof *s.values, "adapter values"));
    TN_TRY(tn_alloc(&s.narrow, largest, (int64_t)sizeof *s.narrow, "adapter values"));
    TN_TRY(tn_safetensors_write(writer, path, give_values, &s));
    if (adapter->config) status = tn_peft_config_write(adapter->config, directory);
done:
    free(s.values);
    free(s.narrow);
    tn_safetensors_writer_free(writer);
    tn_arena_free(&arena);
    return status;
}
