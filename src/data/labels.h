/* labels.h: which tokens of a rendered conversation carry a loss.
 *
 * Templates with {% generation %} blocks say it themselves: tokens that overlap a block. For the others the
 * two texts that open a user's and an assistant's turn are found by rendering a probe conversation, and
 * the ids are scanned for them as Unsloth's train_on_responses_only does, its quirks included.
 */
#ifndef TN_DATA_LABELS_H
#define TN_DATA_LABELS_H

#include "text/chat.h"

enum { TN_NO_LABEL = -100 };

typedef struct tn_markers {
    bool generation;        /* the template has generation blocks: the markers below are not used */
    tn_str user, assistant; /* "<|im_start|>user\n", "<|im_start|>assistant\n" */
    tn_ids user_ids, assistant_ids;
} tn_markers;

/* Finds how this template marks the assistant's turns, and proves it on the probe. Errors: TN_BAD_DATA where no
 * pair of markers tells the turns of the probe apart. */
tn_status tn_markers_find(const tn_chat *chat, tn_markers *markers);
void tn_markers_free(tn_markers *markers);

/* labels[i] = ids[i] from behind each assistant marker to the next user marker or the end, else -100. */
void tn_label_responses(const tn_markers *markers, const int32_t *ids, int64_t count, int32_t *labels);
/* Takes the labels of the assistant's messages that are silent [answers], each of which begins with a marker in
 * the ids [whole]; labels has the first `count` of them. False where there are not as many markers as messages.
 */
bool tn_label_silence(const tn_markers *markers, const int32_t *ids, int64_t whole, int64_t count,
                      const bool *silent, int64_t answers, int32_t *labels);
/* labels[i] = ids[i] for tokens whose bytes overlap one of the ranges, else -100. starts_ends: as tn_spans. */
void tn_label_ranges(const tn_text_range *ranges, int64_t range_count, const int64_t *starts_ends,
                     const int32_t *ids, int64_t count, int32_t *labels);

#endif
