/* safetensors.c: reading. A file is accepted only if its header obeys every rule of the format (safetensors:
 * README, src/tensor.rs), so
 * that no later code has to doubt an offset. Duplicate names, which the reference library lets pass, are
 * refused.
 */
#include "format/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "format/name_table.h"

enum { LARGEST_HEADER = 100000000 };

struct tn_safetensors {
    tn_arena arena;
    tn_map map;
    const char *path;
    const tn_json *metadata;
    tn_tensor_info *tensors; /* in the order of their data */
    int64_t count;
    tn_name_table names;
};

static tn_status damaged(const tn_safetensors *f, const char *what) {
    return tn_fail(TN_BAD_DATA, "%s: %s", f->path, what);
}

static bool find_dtype(const tn_json *name, tn_dtype *dtype) {
    for (int d = 0; d < TN_DTYPE_Q4_0; d++) /* the plain numbers */
        if (tn_json_is_string(name, tn_dtype_code((tn_dtype)d))) {
            *dtype = (tn_dtype)d;
            return true;
        }
    return false;
}

static tn_status read_shape(const tn_json *shape, tn_tensor_info *t) {
    t->elements = 1;
    if (!shape || shape->type != TN_JSON_ARRAY || shape->count > TN_MAX_RANK)
        return tn_fail(TN_BAD_DATA, "%s: tensor %s: its shape is not a list of up to %d numbers", t->file,
                       t->name, TN_MAX_RANK);
    t->rank = (int)shape->count;
    for (int i = 0; i < t->rank; i++) {
        const tn_json *item = &shape->items[i];
        t->shape[i] = item->type == TN_JSON_INTEGER ? item->integer : -1;
        if (!tn_mul(t->elements, t->shape[i], &t->elements))
            return tn_fail(TN_BAD_DATA,
                           "%s: tensor %s: dimension %d of its shape is no size or makes it too large", t->file,
                           t->name, i);
    }
    return TN_OK;
}

/* [begin, end) within the `area` bytes of tensor data. */
static tn_status read_offsets(const tn_json *offsets, int64_t area, const tn_tensor_info *t, int64_t *begin,
                              int64_t *end) {
    const bool pair = offsets && offsets->type == TN_JSON_ARRAY && offsets->count == 2 &&
                      offsets->items[0].type == TN_JSON_INTEGER && offsets->items[1].type == TN_JSON_INTEGER;
    if (!pair)
        return tn_fail(TN_BAD_DATA, "%s: tensor %s: data_offsets is not a pair of integers", t->file, t->name);
    *begin = offsets->items[0].integer;
    *end = offsets->items[1].integer;
    if (*begin >= 0 && *begin <= *end && *end <= area) return TN_OK;
    return tn_fail(TN_BAD_DATA,
                   "%s: tensor %s: data_offsets [%lld, %lld] lie outside the %lld bytes of tensor data",
                   t->file, t->name, (long long)*begin, (long long)*end, (long long)area);
}

/* One header entry. `data` is the tensor area of `area` bytes. */
static tn_status read_entry(const tn_safetensors *f, const tn_member *m, const unsigned char *data,
                            int64_t area, tn_tensor_info *t) {
    const tn_json *dtype = tn_json_get(&m->value, "dtype");
    int64_t begin = 0, end = 0;
    char shape[128];
    tn_status status;
    *t = (tn_tensor_info){.name = m->key, .file = f->path};
    if ((int64_t)strlen(m->key) != m->key_length) return damaged(f, "a tensor name holds a NUL byte");
    if (m->value.type != TN_JSON_OBJECT)
        TN_THROW(TN_BAD_DATA, "%s: tensor %s: its entry is not an object", f->path, t->name);
    if (!find_dtype(dtype, &t->dtype))
        TN_THROW(TN_BAD_DATA, "%s: tensor %s: dtype \"%s\" is not supported", f->path, t->name,
                 tn_json_string(dtype, "(none)"));
    TN_TRY(read_shape(tn_json_get(&m->value, "shape"), t));
    TN_TRY(read_offsets(tn_json_get(&m->value, "data_offsets"), area, t, &begin, &end));
    if (!tn_dtype_bytes(t->dtype, t->elements, &t->bytes) || t->bytes != end - begin)
        TN_THROW(TN_BAD_DATA, "%s: tensor %s: its data_offsets span %lld bytes, which is not what %s %s takes",
                 f->path, t->name, (long long)(end - begin), tn_dtype_code(t->dtype), tn_shape_text(t, shape));
    t->data = data + begin;
done:
    return status;
}

static int by_data(const void *x, const void *y) {
    const tn_tensor_info *a = x, *b = y;
    if (a->data != b->data) return a->data < b->data ? -1 : 1;
    return a->bytes != b->bytes ? (a->bytes < b->bytes ? -1 : 1) : strcmp(a->name, b->name);
}

/* Sorted by place, tensors must tile the area: no hole, no overlap, nothing behind the last. */
static tn_status check_tiling(const tn_safetensors *f, const unsigned char *data, int64_t area) {
    int64_t at = 0;
    for (int64_t i = 0; i < f->count; i++) {
        const tn_tensor_info *t = &f->tensors[i];
        int64_t begin = (const unsigned char *)t->data - data;
        if (begin != at)
            return tn_fail(TN_BAD_DATA,
                           "%s: tensor %s begins at byte %lld of the data, the one before it ends at %lld (%s)",
                           f->path, t->name, (long long)begin, (long long)at,
                           begin > at ? "a hole" : "an overlap");
        at += t->bytes;
    }
    if (at != area)
        return tn_fail(TN_BAD_DATA, "%s: %lld bytes stand behind the last tensor", f->path,
                       (long long)(area - at));
    return TN_OK;
}

static tn_status check_metadata(const tn_safetensors *f, const tn_json *metadata) {
    if (metadata->type == TN_JSON_NULL) return TN_OK;
    if (metadata->type != TN_JSON_OBJECT) return damaged(f, "__metadata__ is not an object");
    for (int64_t i = 0; i < metadata->count; i++)
        if (metadata->members[i].value.type != TN_JSON_STRING)
            return damaged(f, "a value of __metadata__ is not a string");
    return TN_OK;
}

static tn_status read_header(tn_safetensors *f) {
    uint64_t length = 0;
    const tn_json *root;
    tn_status status = TN_OK;
    if (f->map.bytes < 8) return damaged(f, "shorter than the 8 bytes of a header length");
    for (int i = 7; i >= 0; i--) length = length << 8 | f->map.data[i];
    if (length > LARGEST_HEADER) return damaged(f, "the header claims more than 100,000,000 bytes");
    if ((int64_t)length > f->map.bytes - 8)
        return damaged(f, "the header is longer than the file (truncated?)");
    const char *text = (const char *)f->map.data + 8;
    const unsigned char *data = f->map.data + 8 + length;
    const int64_t area = f->map.bytes - 8 - (int64_t)length;
    if (length == 0 || text[0] != '{') return damaged(f, "the header does not begin with '{'");
    if (!tn_utf8_valid(text, (int64_t)length)) return damaged(f, "the header is not valid UTF-8");
    TN_TRY(tn_json_parse(&f->arena, text, (int64_t)length, TN_JSON_UNIQUE_KEYS, f->path, &root));
    f->tensors = tn_arena_take(&f->arena, (root->count + 1) * (int64_t)sizeof *f->tensors);
    if (!f->tensors) return tn_fail_memory(root->count * (int64_t)sizeof *f->tensors, f->path);
    for (int64_t i = 0; i < root->count; i++) {
        const tn_member *m = &root->members[i];
        if (strcmp(m->key, "__metadata__") == 0) {
            TN_TRY(check_metadata(f, &m->value));
            f->metadata = m->value.type == TN_JSON_OBJECT ? &m->value : NULL;
        } else TN_TRY(read_entry(f, m, data, area, &f->tensors[f->count++]));
    }
    qsort(f->tensors, (size_t)f->count, sizeof *f->tensors, by_data);
    TN_TRY(check_tiling(f, data, area));
    status = tn_name_table_build(&f->names, &f->arena, f->tensors, f->count);
done:
    return status;
}

tn_status tn_safetensors_open(const char *path, tn_safetensors **file) {
    tn_safetensors *f = calloc(1, sizeof *f);
    tn_status status;
    *file = NULL;
    if (!f) return tn_fail_memory((int64_t)sizeof *f, path);
    f->path = tn_arena_text(&f->arena, path, (int64_t)strlen(path));
    if (!f->path) TN_THROW(TN_FAILED, "out of memory opening %s", path);
    TN_TRY(tn_map_open(path, &f->map));
    status = read_header(f);
    if (status == TN_BAD_DATA) tn_remedy("the file is damaged or no safetensors file; fetch it again");
    if (status != TN_OK) goto done;
    *file = f;
    f = NULL;
done:
    tn_safetensors_close(f);
    return status;
}

void tn_safetensors_close(tn_safetensors *f) {
    if (!f) return;
    tn_map_close(&f->map);
    tn_arena_free(&f->arena);
    free(f);
}

int64_t tn_safetensors_count(const tn_safetensors *f) { return f->count; }
const tn_tensor_info *tn_safetensors_at(const tn_safetensors *f, int64_t index) { return &f->tensors[index]; }
const tn_tensor_info *tn_safetensors_find(const tn_safetensors *f, const char *name) {
    return tn_name_table_find(&f->names, name);
}
const tn_json *tn_safetensors_metadata(const tn_safetensors *f) { return f->metadata; }
