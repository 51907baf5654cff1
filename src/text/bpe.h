/* bpe.h: what bpe_load.c (tables) and bpe.c (encoding) share. */
#ifndef TN_TEXT_BPE_H
#define TN_TEXT_BPE_H

#include "text/pipeline.h"

/* The merge of two symbols; NULL: they do not merge. */
static inline const tn_bpe_merge *tn_merge_find(const tn_bpe *bpe, int32_t left, int32_t right) {
    uint64_t hash = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    uint64_t mask = (uint64_t)(bpe->slot_count - 1);
    for (uint64_t at = (hash ^ hash >> 29) >> 8 & mask; bpe->merges[at].left >= 0; at = (at + 1) & mask)
        if (bpe->merges[at].left == left && bpe->merges[at].right == right) return &bpe->merges[at];
    return NULL;
}

/* Slot of a pair of characters in the table of neighbours: where it is, or where it would go. */
static inline uint64_t tn_neighbour_slot(const uint64_t *table, int64_t slots, uint64_t pair) {
    uint64_t mask = (uint64_t)(slots - 1), at = (pair * 0x9E3779B97F4A7C15u) >> 20 & mask;
    while (table[at] != 0 && table[at] != pair) at = (at + 1) & mask;
    return at;
}
/* Never 0: two characters, the first one shifted, and a bit. */
static inline uint64_t tn_neighbour_pair(uint32_t left, uint32_t right) {
    return (uint64_t)left << 32 | (uint64_t)right << 1 | 1;
}

#endif
