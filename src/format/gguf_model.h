/* gguf_model.h: a GGUF model in Hugging Face's terms, and the other way round: its configuration. Names stand
 * in gguf_names.h.
 */
#ifndef TN_FORMAT_GGUF_MODEL_H
#define TN_FORMAT_GGUF_MODEL_H

#include "format/gguf.h"
#include "format/gguf_names.h"
#include "format/gguf_write.h"

/* config.json as text, made from the metadata. TN_USAGE for an architecture we do not know. */
tn_status tn_gguf_config(const tn_gguf *file, const char *path, tn_str *json);
/* Are q and k rows stored in llama.cpp's interleaved order? */
bool tn_gguf_permutes(const tn_gguf *file);
/* The metadata of a configuration that leaves nothing to defaults: the keys of gguf_names.h, vocab_size, and
 * where rope is scaled a rope_scaling of type linear, yarn or longrope. */
void tn_gguf_put_config(tn_gguf_writer *writer, const tn_gguf_family *family, const tn_json *config);

#endif
