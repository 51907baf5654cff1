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
    void *piece = region->base ? region->base + region->next : NULL;
    region->next += bytes;
    if (region->next > region->used) {
        region->segment[segment] += region->next - region->used;
        region->used = region->next;
    }
    return piece;
}

void tn_region_back_to(tn_region *region, int64_t place) { region->next = place; }
void tn_region_go_on(tn_region *region) { region->next = region->used; }
