/* optim_8bit.cu: AdamW whose two moments are kept in 8 bits, in blocks of 256 elements that share a scale. A
 * thread block is one of them: it decodes, steps, finds the new scales and encodes, with both maps in shared
 * memory.
 */
#include <string.h>

#include "op/cuda/optimizer.cuh"

extern "C" {
#include "quant/dynamic_map.h"
}

enum { BLOCK = TN_DYNAMIC_BLOCK };

struct map_pair { /* travels with the launch: 2 KiB */
    float means[BLOCK], squares[BLOCK];
};

/* The larger of all threads' values, in each of them. */
__device__ static float largest(float value, float *room) {
    for (int lane = 16; lane; lane /= 2) value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFu, value, lane));
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = value;
    __syncthreads();
    value = room[0];
    for (int warp = 1; warp < BLOCK / 32; warp++) value = fmaxf(value, room[warp]);
    return value;
}

/* As tn_dynamic_encode. */
__device__ static uint8_t nearest(const float *map, float x) {
    int low = 0, high = TN_DYNAMIC_VALUES - 1;
    for (int step = 0; step < 8; step++) {
        int middle = (low + high) / 2;
        if (x > map[middle]) low = middle;
        else high = middle;
    }
    const int code = fabsf(x - map[low]) <= fabsf(x - map[high]) ? low : high;
    return (uint8_t)(code == 0 && x > 0 ? 1 : code);
}

static __global__ void adamw_8bit_kernel(int64_t count, float *p, const float *g, tn_codes m, tn_codes v,
                                         const map_pair maps, scalars s) {
    __shared__ float means[BLOCK], squares[BLOCK], room[2][BLOCK / 32];
    const int64_t block = blockIdx.x, i = block * BLOCK + threadIdx.x;
    const bool here = i < count;
    float scale, mean = 0, square = 0;
    if (!gradient_scale(s, &scale)) return;
    means[threadIdx.x] = maps.means[threadIdx.x], squares[threadIdx.x] = maps.squares[threadIdx.x];
    __syncthreads();
    if (here) {
        float value = p[i];
        mean = means[m.codes[i]] * m.absmax[block], square = squares[v.codes[i]] * v.absmax[block];
        adamw_rule::apply(s, value, g[i] * scale, mean, square);
        p[i] = value;
    }
    const float most_mean = largest(fabsf(mean), room[0]), most_square = largest(square, room[1]);
    if (here) {
        m.codes[i] = nearest(means, most_mean > 0 ? mean / most_mean : 0);
        v.codes[i] = nearest(squares, most_square > 0 ? square / most_square : 0);
    }
    if (threadIdx.x == 0) m.absmax[block] = most_mean, v.absmax[block] = most_square;
}

tn_status tn_cuda_adamw_8bit(tn_device *device, int64_t count, float *p, const float *g, tn_codes m, tn_codes v,
                             const tn_optimizer_step *how) {
    map_pair maps;
    if (count == 0) return TN_OK;
    memcpy(maps.means, tn_dynamic_map(true), sizeof maps.means);
    memcpy(maps.squares, tn_dynamic_map(false), sizeof maps.squares);
    adamw_8bit_kernel<<<(unsigned)blocks_for(count, BLOCK), BLOCK, 0, tn_cuda(device)->stream>>>(
        count, p, g, m, v, maps, scalars_of(how));
    return tn_cuda_launched("optimizer step");
}
