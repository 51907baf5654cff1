/* gguf.h: reading of GGUF v2/v3 containers (ggml: docs/gguf.md): metadata as a tree, tensors mapped.
 * Shapes are turned into row-major order, so a torch [out, in] weight reads as [out, in] here.
 */
#ifndef TN_FORMAT_GGUF_H
#define TN_FORMAT_GGUF_H

#include "base/json.h"
#include "format/tensor.h"

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
