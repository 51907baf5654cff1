/* gguf_model.h: a GGUF model in Hugging Face's terms: configuration keys and tensor names
 * (llama.cpp: gguf-py/gguf/constants.py, tensor_mapping.py).
 */
#ifndef TN_FORMAT_GGUF_MODEL_H
#define TN_FORMAT_GGUF_MODEL_H

#include "format/gguf.h"

/* config.json as text, made from the metadata. TN_USAGE for an architecture we do not know. */
tn_status tn_gguf_config(const tn_gguf *file, const char *path, tn_str *json);
/* Hugging Face's name of a GGUF tensor into `out`; false where it has none (rope factors). */
bool tn_gguf_hf_name(const char *name, char out[128]);
/* Are q and k rows stored in llama.cpp's interleaved order? */
bool tn_gguf_permutes(const tn_gguf *file);

#endif
