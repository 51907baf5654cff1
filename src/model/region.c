/* region.c: the bump allocator behind the memory plan. */
#include "model/region.h"

#include <stddef.h>

static const char *const names[TN_SEGMENTS] = {
    "weights",   "adapter", "gradients", "optimizer", "saved_activations",
    "workspace", "logits",  "batch",     "kv_cache",  "scratch",
};

const char *tn_segment_name(tn_segment segment) { return names[segment]; }

void *tn_region_take(tn_region *region, tn_segment segment, int64_t bytes) {
    bytes = (bytes + 255) & ~(int64_t)255;
    void *piece = region->base ? region->base + region->used : NULL;
    region->used += bytes;
    region->segment[segment] += bytes;
    return piece;
}
