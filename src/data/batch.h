/* batch.h: samples in their order for one epoch, put together into micro-batches: rows of tokens with
 * document boundaries, no padding. A micro-batch is `batch_size` records (no packing) or `batch_size` rows of
 * up to max_length tokens filled with whole records in order (packing: the next record opens a new row where it
 * does not fit); either way its documents stand one behind another in one line of tokens, since nothing attends
 * across documents.
 */
#ifndef TN_DATA_BATCH_H
#define TN_DATA_BATCH_H

#include "data/dataset.h"

/* A picture of a batch: tokens `first` … of the line, patches `patch` … of the pixels. */
typedef struct tn_batch_picture {
    int64_t first, rows, columns; /* merged patches, as in tn_sample_picture */
    int64_t patch;
} tn_batch_picture;

typedef struct tn_batch {
    int64_t tokens, documents;
    int64_t labelled;    /* targets ≥ 0 */
    int64_t longest;     /* tokens of the longest document */
    int32_t *ids;        /* [tokens] */
    int32_t *targets;    /* [tokens] shifted: the id after this one where that has a label, else -100 (also at a
                            document's end) */
    int32_t *positions;  /* [tokens] from 0 in each document */
    int32_t *cu_seqlens; /* [documents + 1] */
    int32_t *axes[3];    /* [tokens] rope positions by frame, row and column: all `positions` where nothing is a
                            picture */
    tn_batch_picture *pictures; /* [picture_count] */
    float *pixels;              /* [patches, patch_values] of all pictures, tn_image_patches' rows */
    int64_t picture_count, patches, patch_values;
    int64_t *samples; /* [documents] dataset index of each, for per-token reports */
    int64_t capacity_tokens, capacity_documents, capacity_pictures, capacity_values;
} tn_batch;
void tn_batch_free(tn_batch *batch);
/* Fills a batch from ready-made ids (bench, generate, tests): one document; labels NULL = every token. */
tn_status tn_batch_set(tn_batch *batch, const int32_t *ids, const int32_t *labels, int64_t tokens);
/* The same from a sample whose pictures are read as `pictures` says (NULL: it has none). */
tn_status tn_batch_set_sample(tn_batch *batch, tn_sample sample, const tn_picture_tokens *pictures);

typedef struct tn_loader_options {
    int64_t batch_size, max_length;
    bool packing, shuffle;
    bool skip_unlabelled; /* training leaves out samples without a label */
    uint64_t seed;
    /* Only these samples (ascending indices), e.g. one side of a train/eval split; NULL = all. Copied. */
    const int64_t *subset;
    int64_t subset_count;
} tn_loader_options;

typedef struct tn_loader tn_loader;
tn_status tn_loader_new(const tn_dataset *dataset, const tn_loader_options *options, tn_loader **loader);
void tn_loader_free(tn_loader *loader);
/* Micro-batches of epoch `epoch` (with shuffling their number may differ between epochs when packing). */
tn_status tn_loader_epoch_batches(tn_loader *loader, int64_t epoch, int64_t *batches);
/* Micro-batch `index` of epoch `epoch`. A pure function of its arguments: calling order does not matter. The
 * epoch's last one may be smaller. */
tn_status tn_loader_get(tn_loader *loader, int64_t epoch, int64_t index, tn_batch *batch);
/* The most tokens and documents any micro-batch of any epoch can have, and the longest document: what the plan
 * sizes by. */
void tn_loader_limits(const tn_loader *loader, int64_t *tokens, int64_t *documents, int64_t *longest);

#endif
