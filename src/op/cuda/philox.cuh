/* philox.cuh: base/rng.h on the device: the same numbers for the same (seed, stream, index). */
#ifndef TN_OP_CUDA_PHILOX_CUH
#define TN_OP_CUDA_PHILOX_CUH

#include <stdint.h>

__device__ static inline void random4(uint64_t seed, uint64_t stream, uint64_t index, uint32_t (&out)[4]) {
    uint32_t c0 = (uint32_t)index, c1 = (uint32_t)(index >> 32), c2 = (uint32_t)stream,
             c3 = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        uint32_t n0 = __umulhi(0xCD9E8D57u, c2) ^ c1 ^ k0, n2 = __umulhi(0xD2511F53u, c0) ^ c3 ^ k1;
        c1 = 0xCD9E8D57u * c2, c3 = 0xD2511F53u * c0, c0 = n0, c2 = n2;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* Elements 2·pair and 2·pair + 1 of a stream of standard normal numbers (Box-Muller, in double as on the host).
 */
__device__ static inline void random_normals(uint64_t seed, uint64_t stream, uint64_t pair, float *even,
                                             float *odd) {
    uint32_t words[4];
    random4(seed, stream, pair, words);
    double radius = sqrt(-2.0 * log(((double)words[0] + 1.0) / 4294967296.0)), sine, cosine;
    sincospi(2.0 * ((double)words[1] / 4294967296.0), &sine, &cosine);
    *even = (float)(radius * cosine), *odd = (float)(radius * sine);
}

#endif
