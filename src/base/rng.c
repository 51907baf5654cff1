/* rng.c: Philox 4x32-10 and what is derived from it. */
#include "base/rng.h"

#include <math.h>

void tn_random4(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4]) {
    uint32_t c0 = (uint32_t)index, c1 = (uint32_t)(index >> 32), c2 = (uint32_t)stream,
             c3 = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(b >> 32) ^ c1 ^ k0, n2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)b, c3 = (uint32_t)a, c0 = n0, c2 = n2;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

float tn_random_uniform(uint64_t seed, uint64_t stream, uint64_t index) {
    uint32_t words[4];
    tn_random4(seed, stream, index / 4, words);
    return (float)(words[index % 4] >> 8) * (1.0f / 16777216.0f);
}

float tn_random_normal(uint64_t seed, uint64_t stream, uint64_t index) {
    uint32_t words[4];
    tn_random4(seed, stream, index / 2, words);
    double radius = sqrt(-2.0 * log(((double)words[0] + 1.0) / 4294967296.0)); /* (0, 1] */
    double angle = 6.283185307179586 * ((double)words[1] / 4294967296.0);
    return (float)(radius * (index % 2 ? sin(angle) : cos(angle)));
}

int64_t tn_random_permute(uint64_t seed, uint64_t stream, int64_t count, int64_t index) {
    int half = 1; /* bits of each half of the Feistel network */
    while (half < 31 && ((int64_t)1 << (2 * half)) < count) half++;
    uint32_t mask = ((uint32_t)1 << half) - 1;
    uint64_t x = (uint64_t)index;
    do {
        uint32_t left = (uint32_t)(x >> half) & mask, right = (uint32_t)x & mask, words[4];
        for (uint32_t round = 0; round < 4; round++) {
            tn_random4(seed, stream, (uint64_t)round << 32 | right, words);
            uint32_t next = left ^ (words[0] & mask);
            left = right, right = next;
        }
        x = (uint64_t)left << half | right;
    } while (x >= (uint64_t)count);
    return (int64_t)x;
}
