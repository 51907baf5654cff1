/* loader.c: the order of samples in an epoch and their grouping into micro-batches. The order is a seeded
 * permutation, so any position is found in O(1); packing lays whole samples into rows in that order, and the
 * layout of the epoch in hand is kept.
 */
#include <stdlib.h>

#include "base/rng.h"
#include "data/batch_internal.h"

struct tn_loader {
    const tn_dataset *dataset;
    tn_loader_options options;
    int64_t *used; /* dataset indices that take part, ascending */
    int64_t count;
    int64_t *lengths; /* [count] of these samples, sorted: what bounds a batch */
    /* Packing: row r of `packed_epoch` holds positions starts[r] … starts[r+1]-1 of the order. */
    int64_t *starts, rows, packed_epoch;
};

static bool has_label(tn_sample s) {
    for (int64_t i = 1; i < s.length; i++)
        if (s.labels[i] >= 0) return true;
    return false;
}

static int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* A sample without tokens is never a document: there is nothing to feed. */
static tn_status choose(tn_loader *l) {
    const tn_loader_options *o = &l->options;
    int64_t n = o->subset ? o->subset_count : tn_dataset_samples(l->dataset);
    tn_status status;
    TN_TRY(tn_alloc(&l->used, n, (int64_t)sizeof *l->used, "sample order"));
    TN_TRY(tn_alloc(&l->lengths, n, (int64_t)sizeof *l->lengths, "sample lengths"));
    for (int64_t i = 0; i < n; i++) {
        int64_t index = o->subset ? o->subset[i] : i;
        tn_sample s = tn_dataset_at(l->dataset, index);
        if (s.length == 0 || (o->skip_unlabelled && !has_label(s))) continue;
        l->lengths[l->count] = s.length;
        l->used[l->count++] = index;
    }
    if (l->count == 0) {
        tn_fail(TN_BAD_DATA, "none of the %lld samples can be used: no token of them carries a loss",
                (long long)n);
        status = tn_remedy("tenon data shows how records become tokens and labels");
        goto done;
    }
    qsort(l->lengths, (size_t)l->count, sizeof *l->lengths, by_value);
done:
    return status;
}

tn_status tn_loader_new(const tn_dataset *dataset, const tn_loader_options *options, tn_loader **loader) {
    tn_loader *l = calloc(1, sizeof *l);
    tn_status status;
    *loader = NULL;
    if (!l) return tn_fail_memory((int64_t)sizeof *l, "a loader");
    l->dataset = dataset;
    l->options = *options;
    l->packed_epoch = -1;
    TN_TRY(choose(l));
    l->options.subset = NULL; /* copied into `used` */
    const int64_t longest = l->lengths[l->count - 1];
    if (options->packing && longest > options->max_length)
        TN_THROW(TN_BAD_DATA, "a sample of %lld tokens is longer than a row of %lld", (long long)longest,
                 (long long)options->max_length);
    *loader = l;
    l = NULL;
done:
    tn_loader_free(l);
    return status;
}

void tn_loader_free(tn_loader *l) {
    if (!l) return;
    free(l->used);
    free(l->lengths);
    free(l->starts);
    free(l);
}

/* Dataset index at `position` of the epoch's order. */
static int64_t sample_at(const tn_loader *l, int64_t epoch, int64_t position) {
    if (!l->options.shuffle) return l->used[position];
    return l
        ->used[tn_random_permute(l->options.seed, TN_STREAM(TN_PURPOSE_SHUFFLE, epoch, 0), l->count, position)];
}

static tn_status pack(tn_loader *l, int64_t epoch) {
    int64_t filled = 0;
    tn_status status = TN_OK;
    if (!l->options.packing || l->packed_epoch == epoch) return TN_OK;
    if (!l->starts) TN_TRY(tn_alloc(&l->starts, l->count + 1, (int64_t)sizeof *l->starts, "packed rows"));
    l->rows = 0;
    for (int64_t i = 0; i < l->count; i++) {
        int64_t length = tn_dataset_at(l->dataset, sample_at(l, epoch, i)).length;
        if (i == 0 || filled + length > l->options.max_length) {
            l->starts[l->rows++] = i;
            filled = 0;
        }
        filled += length;
    }
    l->starts[l->rows] = l->count;
    l->packed_epoch = epoch;
done:
    return status;
}

static int64_t rows_of(const tn_loader *l) { return l->options.packing ? l->rows : l->count; }

tn_status tn_loader_epoch_batches(tn_loader *l, int64_t epoch, int64_t *batches) {
    tn_status status = pack(l, epoch);
    *batches = status == TN_OK ? (rows_of(l) + l->options.batch_size - 1) / l->options.batch_size : 0;
    return status;
}

tn_status tn_loader_get(tn_loader *l, int64_t epoch, int64_t index, tn_batch *batch) {
    tn_status status = pack(l, epoch);
    if (status != TN_OK) return status;
    int64_t first = index * l->options.batch_size, last = first + l->options.batch_size;
    if (index < 0 || first >= rows_of(l))
        return tn_fail(TN_FAILED, "epoch %lld has no batch %lld", (long long)epoch, (long long)index);
    if (last > rows_of(l)) last = rows_of(l);
    if (l->options.packing) first = l->starts[first], last = l->starts[last];
    tn_batch_begin(batch);
    for (int64_t i = first; status == TN_OK && i < last; i++) {
        int64_t sample = sample_at(l, epoch, i);
        status =
            tn_batch_add(batch, tn_dataset_at(l->dataset, sample), tn_dataset_pictures(l->dataset), sample);
    }
    return status;
}

/* No packing: a batch is at most the longest samples together. Packed: a row holds at most max_length tokens,
 * and all rows of a batch at most as many documents as the shortest samples fill them with. */
void tn_loader_limits(const tn_loader *l, int64_t *tokens, int64_t *documents, int64_t *longest) {
    const int64_t rows = l->options.batch_size < l->count ? l->options.batch_size : l->count;
    int64_t room = rows * l->options.max_length, filled = 0;
    *longest = l->lengths[l->count - 1];
    *tokens = 0;
    *documents = rows;
    for (int64_t i = l->count - (l->options.packing ? l->count : rows); i < l->count; i++)
        *tokens += l->lengths[i];
    if (!l->options.packing) return;
    if (*tokens > room) *tokens = room;
    for (*documents = 0; *documents < l->count && filled + l->lengths[*documents] <= room; ++*documents)
        filled += l->lengths[*documents];
}
