/* encode.h: one record to ids and labels. The rules are those of product.md, "What people's curves depend on":
 *
 *   text        what the post-processor adds (BOS), the text, one EOS; every token has a label
 *   ids         taken as they are; without labels every token has one
 *   chat        the rendered conversation, nothing added; the assistant's turns have labels (labels.h)
 *   completion  no chat template: as text, but only the completion and EOS have labels; prompt and
 *               completion are joined as they are, and a token that reaches over the seam belongs to the
 *               completion
 *
 * A picture of a chat becomes as many image tokens as the model sees of it (pictures.h), which never have a
 * label.
 *
 * train_on_responses_only false gives every token a label, save where the record brings its own. Stage sft cuts
 * at max_length, before the labels are looked for.
 */
#ifndef TN_DATA_ENCODE_H
#define TN_DATA_ENCODE_H

#include "data/dataset.h"
#include "data/labels.h"
#include "data/records.h"

typedef struct tn_encoder {
    const tn_chat *chat; /* may be NULL */
    const tn_dataset_options *options;
    bool marked; /* `markers` were found */
    tn_markers markers;
} tn_encoder;

/* Makes the encoder ready for records of this shape: finds the chat markers once. Errors: TN_USAGE without a
 * tokenizer. */
tn_status tn_encoder_prepare(tn_encoder *encoder, tn_shape shape);
void tn_encoder_free(tn_encoder *encoder);

/* What a record became; the buffers are used again by the next one. */
typedef struct tn_encoding {
    int32_t *labels; /* [ids.count] */
    tn_ids ids;
    bool cut;
    int64_t label_capacity;
    tn_spans spans;
    tn_str text;
    tn_sample_picture *pictures; /* [picture_count] */
    int64_t picture_count, picture_capacity;
    tn_str paths; /* of the picture files, each terminated */
} tn_encoding;
/* `file` is that of the record, beside which its pictures lie. Safe to call from several threads with encodings
 * of their own. Errors: TN_BAD_DATA (ids outside the vocabulary, a conversation the template rejects),
 * TN_USAGE. */
tn_status tn_encode(const tn_encoder *encoder, tn_arena *arena, const tn_json *json, tn_shape shape,
                    const char *file, tn_encoding *out);
void tn_encoding_free(tn_encoding *encoding);

#endif
