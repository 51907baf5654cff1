/* safetensors_write.c: writing, in the reference library's order (by dtype, then name) and with its padding.
 */
#include <stdlib.h>
#include <string.h>

#include "format/safetensors.h"

typedef struct declared {
    const char *name;
    tn_dtype dtype;
    int rank;
    int64_t shape[TN_MAX_RANK], bytes, index; /* index of declaration */
} declared;

struct tn_safetensors_writer {
    tn_arena arena;
    declared *tensors;
    int64_t count, capacity;
    tn_str metadata; /* members of __metadata__ as JSON text */
};

tn_status tn_safetensors_writer_new(tn_safetensors_writer **writer) {
    *writer = calloc(1, sizeof **writer);
    return *writer ? TN_OK : tn_fail_memory((int64_t)sizeof **writer, "a safetensors writer");
}

void tn_safetensors_writer_free(tn_safetensors_writer *w) {
    if (!w) return;
    free(w->tensors);
    tn_str_free(&w->metadata);
    tn_arena_free(&w->arena);
    free(w);
}

tn_status tn_safetensors_declare(tn_safetensors_writer *w, const char *name, tn_dtype dtype, int rank, const int64_t *shape) {
    tn_status status = tn_grow(&w->tensors, &w->capacity, w->count + 1, (int64_t)sizeof *w->tensors, "tensors");
    if (status != TN_OK) return status;
    declared *t = &w->tensors[w->count];
    int64_t elements = 1;
    *t = (declared){.dtype = dtype, .rank = rank, .index = w->count};
    for (int i = 0; i < rank; i++) {
        t->shape[i] = shape[i];
        if (!tn_mul(elements, shape[i], &elements)) return tn_fail(TN_FAILED, "tensor %s is too large", name);
    }
    if (tn_dtype_is_block(dtype) || !tn_dtype_bytes(dtype, elements, &t->bytes))
        return tn_fail(TN_FAILED, "tensor %s cannot be written as %s", name, tn_dtype_name(dtype));
    t->name = tn_arena_text(&w->arena, name, (int64_t)strlen(name));
    if (!t->name) return tn_fail_memory((int64_t)strlen(name), "a tensor name");
    w->count++;
    return TN_OK;
}

tn_status tn_safetensors_metadata_add(tn_safetensors_writer *w, const char *key, const char *value) {
    if (w->metadata.length) tn_str_putc(&w->metadata, ',');
    tn_json_quote(&w->metadata, key, (int64_t)strlen(key));
    tn_str_putc(&w->metadata, ':');
    tn_json_quote(&w->metadata, value, (int64_t)strlen(value));
    return tn_str_check(&w->metadata, "metadata");
}

static int dtype_rank(tn_dtype dtype) {
    static const tn_dtype order[] = {TN_DTYPE_U64, TN_DTYPE_I64, TN_DTYPE_F64, TN_DTYPE_C64, TN_DTYPE_F32, TN_DTYPE_U32,
                                     TN_DTYPE_I32, TN_DTYPE_BF16, TN_DTYPE_F16, TN_DTYPE_U16, TN_DTYPE_I16, TN_DTYPE_F8_E4M3,
                                     TN_DTYPE_F8_E5M2, TN_DTYPE_I8, TN_DTYPE_U8, TN_DTYPE_BOOL};
    int at = 0;
    while (at < (int)(sizeof order / sizeof *order) && order[at] != dtype) at++;
    return at;
}

static int in_file_order(const void *x, const void *y) {
    const declared *a = x, *b = y;
    int difference = dtype_rank(a->dtype) - dtype_rank(b->dtype);
    return difference ? difference : strcmp(a->name, b->name);
}

static tn_status build_header(const tn_safetensors_writer *w, tn_str *header) {
    int64_t at = 0;
    tn_str_putc(header, '{');
    if (w->metadata.length) tn_str_printf(header, "\"__metadata__\":{%s}", w->metadata.data);
    for (int64_t i = 0; i < w->count; i++) {
        const declared *t = &w->tensors[i];
        if (i > 0 && strcmp(t->name, w->tensors[i - 1].name) == 0 && t->dtype == w->tensors[i - 1].dtype)
            return tn_fail(TN_FAILED, "tensor %s is declared twice", t->name);
        if (header->length > 1) tn_str_putc(header, ',');
        tn_json_quote(header, t->name, (int64_t)strlen(t->name));
        tn_str_printf(header, ":{\"dtype\":\"%s\",\"shape\":[", tn_dtype_code(t->dtype));
        for (int d = 0; d < t->rank; d++) tn_str_printf(header, "%s%lld", d ? "," : "", (long long)t->shape[d]);
        tn_str_printf(header, "],\"data_offsets\":[%lld,%lld]}", (long long)at, (long long)(at + t->bytes));
        at += t->bytes;
    }
    tn_str_putc(header, '}');
    while (header->length % 8) tn_str_putc(header, ' ');
    return tn_str_check(header, "a header");
}

tn_status tn_safetensors_write(tn_safetensors_writer *w, const char *path, tn_tensor_source *data, void *user) {
    tn_save save = {0};
    tn_str header = {0};
    unsigned char length[8];
    tn_status status;
    if (w->count) qsort(w->tensors, (size_t)w->count, sizeof *w->tensors, in_file_order);
    TN_TRY(build_header(w, &header));
    TN_TRY(tn_save_begin(&save, path));
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)header.length >> (8 * i));
    fwrite(length, 1, 8, save.file);
    fwrite(header.data, 1, (size_t)header.length, save.file);
    for (int64_t i = 0; i < w->count; i++) {
        const void *bytes;
        TN_TRY(data(user, w->tensors[i].index, &bytes));
        if (fwrite(bytes, 1, (size_t)w->tensors[i].bytes, save.file) != (size_t)w->tensors[i].bytes) {
            status = tn_fail_errno("write", path);
            goto done;
        }
    }
    status = tn_save_commit(&save);
done:
    tn_save_abort(&save);
    tn_str_free(&header);
    return status;
}
