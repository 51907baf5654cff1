/* tokenizer.h: text to token ids and back, exactly as Hugging Face's tokenizers library does it.
 *
 * A tokenizer is a pipeline: added tokens → normalizer → pre-tokenizer → model (BPE) → post-processor,
 * and a decoder for the way back. It is immutable once loaded. (The public type tn_tokenizer wraps it
 * together with its chat template.)
 */
#ifndef TN_TEXT_TOKENIZER_H
#define TN_TEXT_TOKENIZER_H

#include "base/json.h"

typedef struct tn_text tn_text; /* a loaded tokenizer */

typedef struct tn_ids {
    int32_t *ids;
    int64_t count, capacity;
} tn_ids;
tn_status tn_ids_push(tn_ids *ids, int32_t id);
void tn_ids_free(tn_ids *ids);

/* From tokenizer.json. Errors: TN_USAGE (missing), TN_BAD_DATA (damaged, or an unknown component, named). */
tn_status tn_text_from_json(const char *path, tn_text **text);
/* From a GGUF's tokenizer.ggml.* keys; `metadata` as tn_gguf_metadata gives it, kept alive by the caller only
 * during the call. */
tn_status tn_text_from_gguf(const tn_json *metadata, const char *path, tn_text **text);
void tn_text_free(tn_text *text);

/* Appends the ids of `bytes` of text. Invalid UTF-8 is replaced by U+FFFD first. `add_special_tokens` adds
 * what the post-processor adds. `spans`, where not NULL, gets two int64 for each id: byte range in the
 * input text (start, end) that the token came from (0,0 for added special tokens). */
typedef struct tn_spans {
    int64_t *starts_ends;
    int64_t count /* pairs */, capacity;
} tn_spans;
tn_status tn_text_encode(const tn_text *text, const char *input, int64_t bytes, bool add_special_tokens,
                         tn_ids *out, tn_spans *spans);
/* Appends the text of ids. Ids without a token give nothing. */
tn_status tn_text_decode(const tn_text *text, const int32_t *ids, int64_t count, bool skip_special,
                         tn_str *out);

/* Streaming decode: each call gives the bytes that can no longer change (never half a character). */
typedef struct tn_text_stream tn_text_stream;
tn_status tn_text_stream_new(const tn_text *text, bool skip_special, tn_text_stream **stream);
tn_status tn_text_stream_push(tn_text_stream *stream, int32_t id, tn_str *out);
tn_status tn_text_stream_end(tn_text_stream *stream, tn_str *out); /* what is held back, lossy */
void tn_text_stream_free(tn_text_stream *stream);

int32_t tn_text_vocab_size(const tn_text *text); /* largest id + 1 */
/* Id of a token's content (added tokens first), -1 where there is none. */
int32_t tn_text_id(const tn_text *text, const char *content);
/* Content of an id (for byte-level BPE the raw mapped form), NULL where there is none. */
const char *tn_text_token(const tn_text *text, int32_t id, int64_t *length);
bool tn_text_is_special(const tn_text *text, int32_t id);
/* GGUF: bos/eos/pad/unk/eot ids as the file gives them, -1 where absent. Not for tokenizer.json. */
typedef struct tn_special_ids {
    int32_t bos, eos, pad, unk, eot;
    bool add_bos, add_eos;
} tn_special_ids;
void tn_text_special_ids(const tn_text *text, tn_special_ids *ids);
/* The tokenizer.json that stands for a GGUF's keys (it lives as long as `text`), NULL where the tokenizer
 * was read from a tokenizer.json. */
const char *tn_text_json(const tn_text *text, int64_t *length);

#endif
