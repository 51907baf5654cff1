/* safetensors_write.c: writing, in the reference library's order (by dtype, then name) and with its padding, so
 * that the same tensors give the same bytes. Data is asked for tensor by tensor: nothing is held but the
 * header.
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

tn_status tn_safetensors_declare(tn_safetensors_writer *w, const char *name, tn_dtype dtype, int rank,
                                 const int64_t *shape) {
    tn_status status = tn_grow(&w->tensors, &w->capacity, w->count + 1, (int64_t)sizeof *w->tensors, "tensors");
    if (status != TN_OK) return status;
    declared *t = &w->tensors[w->count];
    int64_t elements = 1;
    if (rank < 0 || rank > TN_MAX_RANK) return tn_fail(TN_FAILED, "tensor %s has %d dimensions", name, rank);
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
    static const tn_dtype order[] = {TN_DTYPE_U64,     TN_DTYPE_I64, TN_DTYPE_F64, TN_DTYPE_C64,
                                     TN_DTYPE_F32,     TN_DTYPE_U32, TN_DTYPE_I32, TN_DTYPE_BF16,
                                     TN_DTYPE_F16,     TN_DTYPE_U16, TN_DTYPE_I16, TN_DTYPE_F8_E4M3,
                                     TN_DTYPE_F8_E5M2, TN_DTYPE_I8,  TN_DTYPE_U8,  TN_DTYPE_BOOL};
    int at = 0;
    while (at < (int)(sizeof order / sizeof *order) && order[at] != dtype) at++;
    return at;
}

static int in_file_order(const void *x, const void *y) {
    const declared *a = x, *b = y;
    int difference = dtype_rank(a->dtype) - dtype_rank(b->dtype);
    return difference ? difference : strcmp(a->name, b->name);
}

static int by_name(const void *x, const void *y) {
    return strcmp(((const declared *)x)->name, ((const declared *)y)->name);
}

static tn_status sort_tensors(tn_safetensors_writer *w) {
    if (w->count == 0) return TN_OK;
    qsort(w->tensors, (size_t)w->count, sizeof *w->tensors, by_name);
    for (int64_t i = 1; i < w->count; i++)
        if (by_name(&w->tensors[i - 1], &w->tensors[i]) == 0)
            return tn_fail(TN_FAILED, "tensor %s is declared twice", w->tensors[i].name);
    qsort(w->tensors, (size_t)w->count, sizeof *w->tensors, in_file_order);
    return TN_OK;
}

static tn_status build_header(const tn_safetensors_writer *w, tn_str *header) {
    int64_t at = 0;
    tn_str_putc(header, '{');
    if (w->metadata.length) tn_str_printf(header, "\"__metadata__\":{%s}", w->metadata.data);
    for (int64_t i = 0; i < w->count; i++) {
        const declared *t = &w->tensors[i];
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

static tn_status write_tensors(const tn_safetensors_writer *w, FILE *file, const char *path,
                               tn_tensor_source *data, void *user) {
    for (int64_t i = 0; i < w->count; i++) {
        const size_t size = (size_t)w->tensors[i].bytes;
        const void *bytes = NULL;
        tn_status status = data(user, w->tensors[i].index, &bytes);
        if (status != TN_OK) return status;
        if (size > 0 && fwrite(bytes, 1, size, file) != size) return tn_fail_errno("write", path);
    }
    return TN_OK;
}

tn_status tn_safetensors_write(tn_safetensors_writer *w, const char *path, tn_tensor_source *data, void *user) {
    tn_save save = {0};
    tn_str header = {0};
    unsigned char length[8];
    tn_status status;
    TN_TRY(sort_tensors(w));
    TN_TRY(build_header(w, &header));
    TN_TRY(tn_save_begin(&save, path));
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)header.length >> (8 * i));
    fwrite(length, 1, 8, save.file); /* a failure is found at commit */
    fwrite(header.data, 1, (size_t)header.length, save.file);
    TN_TRY(write_tensors(w, save.file, path, data, user));
    status = tn_save_commit(&save);
done:
    tn_save_abort(&save);
    tn_str_free(&header);
    return status;
}
