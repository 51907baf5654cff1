/* gguf_builder.h: small GGUF files for tests, put together field by field so that each field can lie. Keys and
 * tensors are appended; build_gguf puts header, padding and data around them. */
#ifndef TN_TESTS_GGUF_BUILDER_H
#define TN_TESTS_GGUF_BUILDER_H

#include <string.h>

#include "base/str.h"

typedef struct gguf_builder {
    tn_str keys, tensors, data;
    int64_t key_count, tensor_count, alignment; /* alignment 0 = 32 */
    uint32_t version;                           /* 0 = 3 */
} gguf_builder;

enum {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64
};

static inline void put_int(tn_str *s, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) tn_str_putc(s, (char)(value >> (8 * i)));
}

static inline void put_string(tn_str *s, const char *text) {
    put_int(s, strlen(text), 8);
    tn_str_puts(s, text);
}

/* Key and type; the value follows. */
static inline void add_key(gguf_builder *b, const char *key, int type) {
    put_string(&b->keys, key);
    put_int(&b->keys, (uint64_t)type, 4);
    b->key_count++;
}

static inline void add_string(gguf_builder *b, const char *key, const char *value) {
    add_key(b, key, GGUF_STRING);
    put_string(&b->keys, value);
}

static inline void add_u32(gguf_builder *b, const char *key, uint32_t value) {
    add_key(b, key, GGUF_U32);
    put_int(&b->keys, value, 4);
}

static inline void add_f32(gguf_builder *b, const char *key, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    add_key(b, key, GGUF_F32);
    put_int(&b->keys, bits, 4);
}

/* One entry with whatever it claims. */
static inline void add_entry(gguf_builder *b, const char *name, int rank, const int64_t *ne, uint32_t type,
                             uint64_t offset) {
    put_string(&b->tensors, name);
    put_int(&b->tensors, (uint64_t)rank, 4);
    for (int i = 0; i < rank; i++) put_int(&b->tensors, (uint64_t)ne[i], 8);
    put_int(&b->tensors, type, 4);
    put_int(&b->tensors, offset, 8);
    b->tensor_count++;
}

/* An entry and `bytes` bytes of data behind the tensors before it; ne[0] is the fastest dimension. */
static inline void add_tensor(gguf_builder *b, const char *name, int rank, const int64_t *ne, uint32_t type,
                              const void *data, int64_t bytes) {
    while (b->data.length % (b->alignment ? b->alignment : 32)) tn_str_putc(&b->data, 0);
    add_entry(b, name, rank, ne, type, (uint64_t)b->data.length);
    tn_str_add(&b->data, data, bytes);
}

/* The whole file in `out`; frees the parts. */
static inline void build_gguf(gguf_builder *b, tn_str *out) {
    tn_str_clear(out);
    tn_str_puts(out, "GGUF");
    put_int(out, b->version ? b->version : 3, 4);
    put_int(out, (uint64_t)b->tensor_count, 8);
    put_int(out, (uint64_t)b->key_count, 8);
    tn_str_add(out, tn_str_text(&b->keys), b->keys.length);
    tn_str_add(out, tn_str_text(&b->tensors), b->tensors.length);
    if (b->tensor_count)
        while (out->length % (b->alignment ? b->alignment : 32)) tn_str_putc(out, 0);
    tn_str_add(out, tn_str_text(&b->data), b->data.length);
    tn_str_free(&b->keys);
    tn_str_free(&b->tensors);
    tn_str_free(&b->data);
    *b = (gguf_builder){0};
}

#endif
