/* decoder.h: one text on its way through a decoder's steps. Private to src/text. */
#ifndef TN_TEXT_DECODER_H
#define TN_TEXT_DECODER_H

#include "text/pipeline.h"

typedef struct tn_decoding tn_decoding;

/* `work` (for regular expressions) stays the caller's and must outlive the decoding. */
tn_status tn_decoding_new(const tn_decoder *decoder, tn_work *work, tn_decoding **decoding);
void tn_decoding_free(tn_decoding *decoding);
/* The next token's string; what can no longer change is appended to `out`. */
tn_status tn_decoding_push(tn_decoding *decoding, const char *text, int64_t length, tn_str *out);
/* The rest. */
tn_status tn_decoding_end(tn_decoding *decoding, tn_str *out);

#endif
