/* gguf_pre.h: the pre-tokenizers that GGUF files call by name (tokenizer.ggml.pre; llama.cpp:
 * src/llama-vocab.cpp), one table for reading and writing.
 */
#ifndef TN_TEXT_GGUF_PRE_H
#define TN_TEXT_GGUF_PRE_H

#include "base/json.h"

/* One kind of pre-tokenizer and the names it goes by. */
typedef struct tn_gguf_pre {
    const char *names; /* each between commas, the one that is written first */
    const char *expression;
    bool single_digits; /* every digit is split off first */
    bool nfc, ignore_merges, add_bos;
} tn_gguf_pre;

/* NULL for an unknown name. */
const tn_gguf_pre *tn_gguf_pre_named(const char *name);
/* The kind that a tokenizer.json has, so that both cut and merge alike (add_bos has a key of its own); NULL
 * where no name stands for it. */
const tn_gguf_pre *tn_gguf_pre_of(const tn_json *tokenizer);
/* The name to write, into `out`. */
const char *tn_gguf_pre_name(const tn_gguf_pre *pre, char out[64]);

#endif
