/* gguf_merges.h: what gguf_tokens.c and gguf_merges.c share. */
#ifndef TN_TEXT_GGUF_MERGES_H
#define TN_TEXT_GGUF_MERGES_H

#include <stdio.h>

#include "text/pipeline.h"

enum { GGUF_NORMAL = 1, GGUF_UNKNOWN, GGUF_CONTROL, GGUF_USER_DEFINED, GGUF_UNUSED, GGUF_BYTE };

typedef struct gguf_keys {
    const tn_json *metadata, *tokens, *scores;
    const char *path;
    char *types; /* GGUF_NORMAL … */
    int64_t count;
    bool sentencepiece;
    tn_special_ids special;
    tn_str text; /* scratch */
} gguf_keys;

/* Writes "merges": every pair of tokens whose joined text is a token, in the order of that token's score. */
tn_status tn_gguf_put_merges(gguf_keys *keys, const char *(*content_of)(gguf_keys *, int64_t, int64_t *),
                             tn_json_writer *w);

#endif
