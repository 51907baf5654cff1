/* region.h: planning and placing with the same code. A tn_region hands out consecutive pieces of one block of
 * device memory and counts bytes by named segment. Run over a NULL base it only counts: that is the memory
 * plan. Run again over the real block it gives the pointers. So the plan cannot disagree with what is used.
 */
#ifndef TN_MODEL_REGION_H
#define TN_MODEL_REGION_H

#include <stdint.h>

typedef enum tn_segment {
    TN_SEGMENT_WEIGHTS,
    TN_SEGMENT_ADAPTER,
    TN_SEGMENT_GRADIENTS,
    TN_SEGMENT_OPTIMIZER,
    TN_SEGMENT_SAVED,     /* activations kept for the backward pass, per layer */
    TN_SEGMENT_WORKSPACE, /* activations and gradients of one layer */
    TN_SEGMENT_LOGITS,
    TN_SEGMENT_BATCH,
    TN_SEGMENT_CACHE, /* keys and values of generation */
    TN_SEGMENT_SCRATCH,
    TN_SEGMENTS
} tn_segment;
const char *tn_segment_name(tn_segment segment);

typedef struct tn_region {
    unsigned char *base;          /* NULL: only counting */
    int64_t next;                 /* where the next piece begins */
    int64_t used;                 /* where the furthest piece ends: what the block must hold */
    int64_t segment[TN_SEGMENTS]; /* their sum is `used`: a piece over older ones counts where it reaches beyond
                                     them */
} tn_region;

/* More than any device has: what does not fit into 64 bits ends here while it is counted, and does not fit. */
#define TN_REGION_MOST ((int64_t)1 << 60)
/* rows·columns·width, at most TN_REGION_MOST. */
int64_t tn_region_bytes(int64_t rows, int64_t columns, int64_t width);

/* `bytes` aligned to 256; a pointer into the block, or while counting one that must not be followed. */
void *tn_region_take(tn_region *region, tn_segment segment, int64_t bytes);
/* Pieces that are never needed at the same time share memory: take the first ones, go back to where they began,
 * take the others, and go on behind all of them. */
void tn_region_back_to(tn_region *region, int64_t place);
void tn_region_go_on(tn_region *region);

#endif
