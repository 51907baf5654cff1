/* region.c: the bump allocator behind the memory plan. */
#include "model/region.h"

#include <stddef.h>

#include "base/mem.h"

static const char *const names[TN_SEGMENTS] = {
    "weights",   "adapter", "gradients", "optimizer", "saved_activations",
    "workspace", "logits",  "batch",     "kv_cache",  "scratch",
};

const char *tn_segment_name(tn_segment segment) { return names[segment]; }

int64_t tn_region_bytes(int64_t rows, int64_t columns, int64_t width) {
    int64_t bytes;
    return tn_mul(rows, columns, &bytes) && tn_mul(bytes, width, &bytes) && bytes < TN_REGION_MOST
               ? bytes
               : TN_REGION_MOST;
}

void *tn_region_take(tn_region *region, tn_segment segment, int64_t bytes) {
    if (bytes < 0 || bytes > TN_REGION_MOST - 255) bytes = TN_REGION_MOST - 255;
    bytes = (bytes + 255) & ~(int64_t)255;
    if (bytes > TN_REGION_MOST - region->next) bytes = TN_REGION_MOST - region->next;
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
