/* gguf.h: reading of GGUF v2/v3 containers (ggml: docs/gguf.md): metadata as a tree, tensors mapped.
 * Shapes are turned into row-major order, so a torch [out, in] weight reads as [out, in] here.
 */
#ifndef TN_FORMAT_GGUF_H
#define TN_FORMAT_GGUF_H

#include "base/json.h"
#include "format/tensor.h"

/* Types of metadata values. */
enum {
    TN_GGUF_U8,
    TN_GGUF_I8,
    TN_GGUF_U16,
    TN_GGUF_I16,
    TN_GGUF_U32,
    TN_GGUF_I32,
    TN_GGUF_F32,
    TN_GGUF_BOOL,
    TN_GGUF_STRING,
    TN_GGUF_ARRAY,
    TN_GGUF_U64,
    TN_GGUF_I64,
    TN_GGUF_F64
};
enum { TN_GGUF_NAME_BYTES = 64 }; /* names of tensors are shorter */
/* ggml's number of a storage format; -1 where it has none. */
int tn_gguf_type(tn_dtype dtype);

typedef struct tn_gguf tn_gguf;

tn_status tn_gguf_open(const char *path, tn_gguf **file);
void tn_gguf_close(tn_gguf *file);
int64_t tn_gguf_count(const tn_gguf *file);
const tn_tensor_info *tn_gguf_at(const tn_gguf *file, int64_t index);
const tn_tensor_info *tn_gguf_find(const tn_gguf *file, const char *name);
/* All metadata as one object: key → number, boolean, string or array of them. FLOAT32 values are REAL. */
const tn_json *tn_gguf_metadata(const tn_gguf *file);
/* Shorthand: tn_json_get(metadata, key). Array of 128k strings included. */
const tn_json *tn_gguf_get(const tn_gguf *file, const char *key);

#endif
