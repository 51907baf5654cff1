/* gguf.c: the GGUF container (ggml: docs/gguf.md). A cursor with checked reads walks the mapped header;
 * metadata becomes a JSON tree in the file's arena, so 128,000 vocabulary entries cost one pass. Nothing is
 * allocated for a count before the file was seen to have room for it.
 */
#include "format/gguf.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json_keys.h"
#include "format/name_table.h"

struct tn_gguf {
    tn_arena arena;
    tn_map map;
    const char *path;
    tn_json metadata;
    tn_tensor_info *tensors;
    int64_t count, alignment;
    tn_name_table names;
};

typedef struct cursor {
    tn_gguf *file;
    int64_t at;
} cursor;

enum { LARGEST_COUNT = 1 << 30, LARGEST_ALIGNMENT = 1 << 20 };
static tn_status damaged(const cursor *c, const char *what) {
    return tn_fail(TN_BAD_DATA, "%s: at byte %lld: %s", c->file->path, (long long)c->at, what);
}

/* A little-endian integer of `width` bytes. */
static tn_status take(cursor *c, int width, uint64_t *value) {
    *value = 0;
    if (c->at > c->file->map.bytes - width) return damaged(c, "the file ends inside its header");
    for (int i = width - 1; i >= 0; i--) *value = *value << 8 | c->file->map.data[c->at + i];
    c->at += width;
    return TN_OK;
}

static tn_status take_count(cursor *c, int64_t *count, const char *what) {
    uint64_t value;
    tn_status status = take(c, 8, &value);
    if (status != TN_OK) return status;
    if (value > LARGEST_COUNT || (int64_t)value > c->file->map.bytes)
        return damaged(c, what); /* each item has at least a byte */
    *count = (int64_t)value;
    return TN_OK;
}

static tn_status take_string(cursor *c, const char **text, int64_t *length) {
    tn_status status = take_count(c, length, "an impossible string length");
    if (status != TN_OK) return status;
    if (c->at > c->file->map.bytes - *length) return damaged(c, "the file ends inside a string");
    *text = tn_arena_text(&c->file->arena, (const char *)c->file->map.data + c->at, *length);
    if (!*text) return tn_fail_memory(*length, "a string");
    c->at += *length;
    return TN_OK;
}

/* Names end up in messages and in JSON. */
static bool is_name(const char *text, int64_t length) {
    return length > 0 && (int64_t)strlen(text) == length && tn_utf8_valid(text, length);
}

static int width_of(uint64_t type) {
    static const int widths[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < sizeof widths / sizeof *widths ? widths[type] : 0;
}

/* An UINT64 beyond INT64_MAX reads as the nearest double. */
static void number(uint64_t type, uint64_t bits, tn_json *node) {
    float single;
    uint32_t low = (uint32_t)bits;
    node->type = TN_JSON_INTEGER;
    switch (type) {
        case TN_GGUF_I8: node->integer = (int8_t)bits; break;
        case TN_GGUF_I16: node->integer = (int16_t)bits; break;
        case TN_GGUF_I32: node->integer = (int32_t)bits; break;
        case TN_GGUF_F32:
            memcpy(&single, &low, sizeof single);
            node->type = TN_JSON_REAL, node->real = (double)single;
            break;
        case TN_GGUF_F64: node->type = TN_JSON_REAL, memcpy(&node->real, &bits, sizeof bits); break;
        case TN_GGUF_BOOL: node->type = TN_JSON_BOOLEAN, node->boolean = bits != 0; break;
        case TN_GGUF_U64:
            if (bits > INT64_MAX) node->type = TN_JSON_REAL, node->real = (double)bits;
            else node->integer = (int64_t)bits;
            break;
        default: node->integer = (int64_t)bits; break;
    }
}

static tn_status take_scalar(cursor *c, uint64_t type, tn_json *node) {
    uint64_t bits;
    if (type == TN_GGUF_STRING) {
        node->type = TN_JSON_STRING;
        return take_string(c, &node->string, &node->count);
    }
    if (!width_of(type)) return damaged(c, "an unknown value type");
    tn_status status = take(c, width_of(type), &bits);
    if (status == TN_OK) number(type, bits, node);
    return status;
}

static tn_status take_value(cursor *c, tn_json *node) {
    uint64_t type, element;
    tn_status status = take(c, 4, &type);
    if (status != TN_OK || type != TN_GGUF_ARRAY) return status == TN_OK ? take_scalar(c, type, node) : status;
    tn_json *items;
    node->type = TN_JSON_ARRAY;
    TN_TRY(take(c, 4, &element));
    TN_TRY(take_count(c, &node->count, "an impossible array length"));
    int64_t least = element == TN_GGUF_STRING ? 8 : width_of(element);
    if (least == 0) return damaged(c, "an array of an unknown type");
    if (node->count > (c->file->map.bytes - c->at) / least) return damaged(c, "an array longer than the file");
    items = tn_arena_take(&c->file->arena, (node->count + 1) * (int64_t)sizeof *items);
    if (!items) return tn_fail_memory(node->count * (int64_t)sizeof *items, "an array");
    node->items = items;
    for (int64_t i = 0; i < node->count; i++) TN_TRY(take_scalar(c, element, &items[i]));
done:
    return status;
}

static tn_status take_member(cursor *c, tn_member *m) {
    tn_status status = take_string(c, &m->key, &m->key_length);
    if (status != TN_OK) return status;
    if (!is_name(m->key, m->key_length)) return damaged(c, "a key is not UTF-8 text");
    return take_value(c, &m->value);
}

static tn_status take_metadata(cursor *c, int64_t count) {
    tn_gguf *f = c->file;
    tn_member *members;
    tn_key_set keys = {0};
    tn_status status = TN_OK;
    if (count > f->map.bytes / 12) return damaged(c, "more keys than the file has room for");
    members = tn_arena_take(&f->arena, (count + 1) * (int64_t)sizeof *members);
    if (!members) return tn_fail_memory(count * (int64_t)sizeof *members, f->path);
    f->metadata = (tn_json){.type = TN_JSON_OBJECT, .members = members};
    TN_TRY(tn_key_set_begin(&keys, members, count));
    for (int64_t i = 0; i < count; i++, f->metadata.count++) {
        TN_TRY(take_member(c, &members[i]));
        if (!tn_key_set_add(&keys, i))
            TN_THROW(TN_BAD_DATA, "%s: the key %s stands twice", f->path, members[i].key);
    }
    const tn_json *alignment = tn_json_get(&f->metadata, "general.alignment");
    f->alignment = alignment ? tn_json_integer(alignment, 0) : 32;
    if (f->alignment < 1 || f->alignment > LARGEST_ALIGNMENT || (f->alignment & (f->alignment - 1)))
        TN_THROW(TN_BAD_DATA, "%s: general.alignment (%lld) is no power of two up to %d", f->path,
                 (long long)f->alignment, LARGEST_ALIGNMENT);
done:
    tn_key_set_end(&keys);
    return status;
}

/* ggml's number of each type (ggml.h: enum ggml_type). */
static const struct {
    int id;
    tn_dtype dtype;
} types[] = {{0, TN_DTYPE_F32},     {1, TN_DTYPE_F16},     {2, TN_DTYPE_Q4_0},  {3, TN_DTYPE_Q4_1},
             {6, TN_DTYPE_Q5_0},    {7, TN_DTYPE_Q5_1},    {8, TN_DTYPE_Q8_0},  {10, TN_DTYPE_Q2_K},
             {11, TN_DTYPE_Q3_K},   {12, TN_DTYPE_Q4_K},   {13, TN_DTYPE_Q5_K}, {14, TN_DTYPE_Q6_K},
             {20, TN_DTYPE_IQ4_NL}, {23, TN_DTYPE_IQ4_XS}, {24, TN_DTYPE_I8},   {25, TN_DTYPE_I16},
             {26, TN_DTYPE_I32},    {27, TN_DTYPE_I64},    {28, TN_DTYPE_F64},  {30, TN_DTYPE_BF16}};
enum { TYPES = sizeof types / sizeof *types };

static bool dtype_of(uint64_t type, tn_dtype *dtype) {
    for (int i = 0; i < TYPES; i++)
        if ((uint64_t)types[i].id == type) {
            *dtype = types[i].dtype;
            return true;
        }
    return false;
}

int tn_gguf_type(tn_dtype dtype) {
    for (int i = 0; i < TYPES; i++)
        if (types[i].dtype == dtype) return types[i].id;
    return -1;
}

/* Types that exist but that we do not decode (i-quants, ternary, FP4) are no damage. */
static tn_status refuse_type(const tn_tensor_info *t, uint64_t type) {
    enum { NEWEST_TYPE = 40 };
    if (type > NEWEST_TYPE)
        return tn_fail(TN_BAD_DATA, "%s: tensor %s has the unknown ggml type %llu", t->file, t->name,
                       (unsigned long long)type);
    tn_fail(TN_USAGE, "%s: tensor %s has the ggml type %llu, which is not supported", t->file, t->name,
            (unsigned long long)type);
    return tn_remedy("supported: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, IQ4_NL, IQ4_XS");
}

static tn_status take_shape(cursor *c, tn_tensor_info *t) {
    uint64_t rank, value;
    tn_status status = take(c, 4, &rank);
    if (status != TN_OK) return status;
    if (rank > 4)
        return tn_fail(TN_BAD_DATA, "%s: tensor %s claims %llu dimensions; at most 4 are allowed", t->file,
                       t->name, (unsigned long long)rank);
    t->rank = (int)rank;
    t->elements = 1;
    for (int i = t->rank - 1; i >= 0; i--) { /* the file's first dimension is the fastest: our last */
        TN_TRY(take(c, 8, &value));
        t->shape[i] = value > INT64_MAX ? -1 : (int64_t)value;
        if (!tn_mul(t->elements, t->shape[i], &t->elements))
            TN_THROW(TN_BAD_DATA, "%s: tensor %s: a dimension of %llu is impossible", t->file, t->name,
                     (unsigned long long)value);
    }
done:
    return status;
}

/* One tensor entry; `offset` is its declared place behind the header. */
static tn_status take_tensor(cursor *c, tn_tensor_info *t, int64_t *offset) {
    uint64_t type, value;
    int64_t length;
    tn_status status;
    t->file = c->file->path;
    TN_TRY(take_string(c, &t->name, &length));
    if (!is_name(t->name, length) || length >= TN_GGUF_NAME_BYTES)
        return damaged(c, "a tensor name is not UTF-8 text of less than 64 bytes");
    TN_TRY(take_shape(c, t));
    TN_TRY(take(c, 4, &type));
    TN_TRY(take(c, 8, &value));
    if (!dtype_of(type, &t->dtype)) return refuse_type(t, type);
    int64_t row = t->rank ? t->shape[t->rank - 1] : 1;
    if (row % tn_dtype_block(t->dtype) || !tn_dtype_bytes(t->dtype, t->elements, &t->bytes))
        TN_THROW(TN_BAD_DATA, "%s: tensor %s: rows of %lld elements are no whole %s blocks of %lld", t->file,
                 t->name, (long long)row, tn_dtype_name(t->dtype), (long long)tn_dtype_block(t->dtype));
    *offset = value > INT64_MAX ? -1 : (int64_t)value;
done:
    return status;
}

static int64_t padded(int64_t bytes, int64_t alignment) { return (bytes + alignment - 1) & ~(alignment - 1); }

static tn_status take_tensors(cursor *c, int64_t count) {
    tn_gguf *f = c->file;
    int64_t *offsets, expected = 0;
    tn_status status = TN_OK;
    if (count > f->map.bytes / 24) return damaged(c, "more tensors than the file has room for");
    f->tensors = tn_arena_take(&f->arena, (count + 1) * (int64_t)sizeof *f->tensors);
    offsets = tn_arena_take(&f->arena, (count + 1) * (int64_t)sizeof *offsets);
    if (!f->tensors || !offsets) return tn_fail_memory(count * (int64_t)sizeof *f->tensors, f->path);
    for (int64_t i = 0; i < count; i++) TN_TRY(take_tensor(c, &f->tensors[i], &offsets[i]));
    const int64_t start = padded(c->at, f->alignment), room = f->map.bytes - start;
    for (int64_t i = 0; i < count; i++) {
        tn_tensor_info *t = &f->tensors[i];
        if (offsets[i] != expected)
            TN_THROW(TN_BAD_DATA, "%s: tensor %s lies at offset %lld; the tensors before it end at %lld",
                     f->path, t->name, (long long)offsets[i], (long long)expected);
        if (room < 0 || t->bytes > room || expected > room - t->bytes)
            TN_THROW(TN_BAD_DATA, "%s: tensor %s reaches beyond the end of the file (truncated?)", f->path,
                     t->name);
        t->data = f->map.data + start + expected;
        expected += padded(t->bytes, f->alignment);
    }
    f->count = count;
    status = tn_name_table_build(&f->names, &f->arena, f->tensors, count);
done:
    return status;
}

static tn_status read_file(tn_gguf *f) {
    cursor c = {f, 0};
    uint64_t magic, version;
    int64_t tensors, keys;
    tn_status status;
    TN_TRY(take(&c, 4, &magic));
    if (magic != 0x46554747) TN_THROW(TN_BAD_DATA, "%s: the magic GGUF is missing at its beginning", f->path);
    TN_TRY(take(&c, 4, &version));
    if (version != 2 && version != 3)
        TN_THROW(TN_BAD_DATA, "%s: GGUF version %llu; 2 and 3 are supported", f->path,
                 (unsigned long long)version);
    TN_TRY(take_count(&c, &tensors, "an impossible number of tensors"));
    TN_TRY(take_count(&c, &keys, "an impossible number of keys"));
    TN_TRY(take_metadata(&c, keys));
    status = take_tensors(&c, tensors);
done:
    if (status == TN_BAD_DATA) tn_remedy("the file is damaged or no GGUF file; fetch it again");
    return status;
}

tn_status tn_gguf_open(const char *path, tn_gguf **file) {
    tn_gguf *f = calloc(1, sizeof *f);
    tn_status status;
    *file = NULL;
    if (!f) return tn_fail_memory((int64_t)sizeof *f, path);
    f->path = tn_arena_text(&f->arena, path, (int64_t)strlen(path));
    if (!f->path) TN_THROW(TN_FAILED, "out of memory opening %s", path);
    TN_TRY(tn_map_open(path, &f->map));
    TN_TRY(read_file(f));
    *file = f;
    f = NULL;
done:
    tn_gguf_close(f);
    return status;
}

void tn_gguf_close(tn_gguf *f) {
    if (!f) return;
    tn_map_close(&f->map);
    tn_arena_free(&f->arena);
    free(f);
}

int64_t tn_gguf_count(const tn_gguf *f) { return f->count; }
const tn_tensor_info *tn_gguf_at(const tn_gguf *f, int64_t index) { return &f->tensors[index]; }
const tn_tensor_info *tn_gguf_find(const tn_gguf *f, const char *name) {
    return tn_name_table_find(&f->names, name);
}
const tn_json *tn_gguf_metadata(const tn_gguf *f) { return &f->metadata; }
const tn_json *tn_gguf_get(const tn_gguf *f, const char *key) { return tn_json_get(&f->metadata, key); }
