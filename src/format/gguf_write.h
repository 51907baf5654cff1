/* gguf_write.h: writing of GGUF v3 containers (ggml: docs/gguf.md). Metadata is appended value by value,
 * tensors are declared, and their bytes are asked for one tensor at a time. Saves atomically.
 */
#ifndef TN_FORMAT_GGUF_WRITE_H
#define TN_FORMAT_GGUF_WRITE_H

#include "format/safetensors.h" /* tn_tensor_source */

typedef struct tn_gguf_writer tn_gguf_writer;
tn_status tn_gguf_writer_new(tn_gguf_writer **writer);
void tn_gguf_writer_free(tn_gguf_writer *writer);

/* One key each, which must not have been written before. Running out of memory is found at tn_gguf_write. */
void tn_gguf_put_string(tn_gguf_writer *w, const char *key, const char *text, int64_t length /* -1: strlen */);
void tn_gguf_put_u32(tn_gguf_writer *w, const char *key, int64_t value);
void tn_gguf_put_f32(tn_gguf_writer *w, const char *key, double value);
void tn_gguf_put_bool(tn_gguf_writer *w, const char *key, bool value);
/* An array of `count` elements of a TN_GGUF_… type, which follow by the calls below. */
void tn_gguf_begin_array(tn_gguf_writer *w, const char *key, int type, int64_t count);
void tn_gguf_add_string(tn_gguf_writer *w, const char *text, int64_t length);
void tn_gguf_add_i32(tn_gguf_writer *w, int32_t value);
void tn_gguf_add_f32(tn_gguf_writer *w, float value);

/* `shape` in row-major order. Errors: TN_USAGE for a name of 64 bytes or more, TN_FAILED for a dtype that GGUF
 * does not have or rows that are no whole blocks. */
tn_status tn_gguf_declare(tn_gguf_writer *w, const char *name, tn_dtype dtype, int rank, const int64_t *shape);
/* Calls data(user, index of declaration, …) for each tensor in order. */
tn_status tn_gguf_write(tn_gguf_writer *w, const char *path, tn_tensor_source *data, void *user);

#endif
