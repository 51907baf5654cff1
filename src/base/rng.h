/* rng.h: random numbers by counter (Philox 4x32-10; Salmon et al., "Parallel random numbers: as easy as
 * 1, 2, 3", 2011). A number is a pure function of (seed, stream, index), so nothing has to be saved to
 * resume, and any thread or device can make any part of a sequence. A stream is one purpose at one
 * place: TN_STREAM(purpose, step, site).
 */
#ifndef TN_BASE_RNG_H
#define TN_BASE_RNG_H

#include <stdint.h>

typedef enum tn_purpose {
    TN_PURPOSE_INIT = 1, /* initial values; site = tensor number */
    TN_PURPOSE_SHUFFLE,  /* order of an epoch; step = epoch */
    TN_PURPOSE_DROPOUT,  /* site = (layer, module) */
    TN_PURPOSE_SAMPLE,   /* generation; step = position */
    TN_PURPOSE_BENCH,    /* random tokens and weights */
} tn_purpose;

/* 8 bits of purpose, 32 of step, 24 of site. */
#define TN_STREAM(purpose, step, site) \
    ((uint64_t)(purpose) << 56 | ((uint64_t)(step)&0xFFFFFFFFu) << 24 | ((uint64_t)(site)&0xFFFFFFu))

/* Block `index` of the stream: four independent 32-bit words. */
void tn_random4(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4]);
/* Element `index` as a uniform float in [0, 1): 24 bits of word index % 4 of block index / 4. */
float tn_random_uniform(uint64_t seed, uint64_t stream, uint64_t index);
/* Standard normal by Box-Muller: elements 2j and 2j+1 come from block j. */
float tn_random_normal(uint64_t seed, uint64_t stream, uint64_t index);
/* Position `index` of a pseudo-random permutation of 0 … count-1, in O(1) time and memory
 * (a four-round Feistel network over the next power of four, walked until it lands inside). */
int64_t tn_random_permute(uint64_t seed, uint64_t stream, int64_t count, int64_t index);

#endif
