/* batch.c: growing and filling of micro-batches. */
#include "data/batch.h"

#include <stdlib.h>

#include "data/batch_internal.h"

void tn_batch_free(tn_batch *b) {
    free(b->ids);
    free(b->targets);
    free(b->positions);
    free(b->cu_seqlens);
    free(b->samples);
    *b = (tn_batch){0};
}

/* tn_grow doubles one capacity for one array; here three arrays share one, so each grows from the old value. */
static tn_status grow_all(tn_batch *b, int64_t tokens, int64_t documents) {
    int64_t a, c, d;
    tn_status status = TN_OK;
    if (tokens > b->capacity_tokens) {
        a = c = d = b->capacity_tokens;
        TN_TRY(tn_grow(&b->ids, &a, tokens, (int64_t)sizeof *b->ids, "a batch"));
        TN_TRY(tn_grow(&b->targets, &c, tokens, (int64_t)sizeof *b->targets, "a batch"));
        TN_TRY(tn_grow(&b->positions, &d, tokens, (int64_t)sizeof *b->positions, "a batch"));
        b->capacity_tokens = a;
    }
    if (documents + 1 > b->capacity_documents) {
        a = c = b->capacity_documents;
        TN_TRY(tn_grow(&b->cu_seqlens, &a, documents + 1, (int64_t)sizeof *b->cu_seqlens, "a batch"));
        TN_TRY(tn_grow(&b->samples, &c, documents + 1, (int64_t)sizeof *b->samples, "a batch"));
        b->capacity_documents = a;
    }
done:
    return status;
}

void tn_batch_begin(tn_batch *b) { b->tokens = b->documents = b->labelled = b->longest = 0; }

/* The target of a token is the label of the one after it; a document's last token has none. */
tn_status tn_batch_add(tn_batch *b, tn_sample sample, int64_t index) {
    tn_status status = grow_all(b, b->tokens + sample.length, b->documents + 1);
    if (status != TN_OK) return status;
    int64_t at = b->tokens;
    for (int64_t i = 0; i < sample.length; i++) {
        int32_t target = i + 1 < sample.length ? sample.labels[i + 1] : -100;
        b->ids[at + i] = sample.ids[i];
        b->positions[at + i] = (int32_t)i;
        b->targets[at + i] = target < 0 ? -100 : target;
        b->labelled += target >= 0;
    }
    b->cu_seqlens[b->documents] = (int32_t)at;
    b->samples[b->documents] = index;
    b->tokens += sample.length;
    b->cu_seqlens[++b->documents] = (int32_t)b->tokens;
    if (sample.length > b->longest) b->longest = sample.length;
    return TN_OK;
}

tn_status tn_batch_set(tn_batch *b, const int32_t *ids, const int32_t *labels, int64_t tokens) {
    tn_batch_begin(b);
    return tn_batch_add(b, (tn_sample){.ids = ids, .labels = labels ? labels : ids, .length = tokens}, 0);
}
