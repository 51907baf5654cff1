/* kernel.cuh: what the kernels share: 16-byte vectors, conversions, sums over warps and blocks, and the
 * dispatch on the compute dtype.
 *
 * A kernel is a template on the element type T and on V, the elements one thread moves at once: 16 bytes'
 * worth where every pointer, stride and width allows it, else 1 (odd shapes of tests). Arithmetic is fp32.
 */
#ifndef TN_OP_CUDA_KERNEL_CUH
#define TN_OP_CUDA_KERNEL_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "op/cuda/cuda.h"

template <typename T, int N>
struct alignas(sizeof(T) * N) vec {
    T v[N];
};

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(__half x) { return __half2float(x); }
__device__ inline float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
template <typename T>
__device__ inline T narrow(float x);
template <>
__device__ inline float narrow<float>(float x) {
    return x;
}
template <>
__device__ inline __half narrow<__half>(float x) {
    return __float2half_rn(x);
}
template <>
__device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float x) {
    return __float2bfloat16_rn(x);
}
/* The value after a trip through T: where the model's definition rounds. */
template <typename T>
__device__ inline float rounded(float x) {
    return widen(narrow<T>(x));
}

template <typename T, int V>
__device__ inline void load(const T *from, float (&to)[V]) {
    vec<T, V> raw = *reinterpret_cast<const vec<T, V> *>(from);
#pragma unroll
    for (int i = 0; i < V; i++) to[i] = widen(raw.v[i]);
}
template <typename T, int V>
__device__ inline void store(T *to, const float (&from)[V]) {
    vec<T, V> raw;
#pragma unroll
    for (int i = 0; i < V; i++) raw.v[i] = narrow<T>(from[i]);
    *reinterpret_cast<vec<T, V> *>(to) = raw;
}

template <int THREADS>
__device__ inline float warp_sum(float x) {
#pragma unroll
    for (int lane = THREADS / 2; lane > 0; lane /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, lane);
    return x;
}
__device__ inline double warp_sum(double x) {
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, lane);
    return x;
}
__device__ inline float warp_max(float x) {
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, lane));
    return x;
}
/* Sum over a block of whole warps; every thread gets it. `shared` holds 32 values and may be used again
 * after the next barrier of the caller's own. */
template <typename F>
__device__ inline F block_sum(F x, F *shared) {
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    F total = 0;
    for (int warp = 0; warp < (int)blockDim.x / 32; warp++) total += shared[warp];
    __syncthreads();
    return total;
}
__device__ inline float warp_sum(float x) { return warp_sum<32>(x); }

/* ---- Host side --------------------------------------------------------------------------------------- */

template <typename T>
static inline T *at(tn_view view) {
    return static_cast<T *>(view.data);
}
/* Whether rows of this view can be moved 16 bytes at a time. */
template <typename T>
static inline bool wide(tn_view view) {
    return !view.data ||
           (reinterpret_cast<uintptr_t>(view.data) % 16 == 0 && view.stride * sizeof(T) % 16 == 0);
}
static inline bool wide(const void *pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }
template <typename T>
constexpr int width() {
    return 16 / sizeof(T);
}

static inline int64_t blocks_for(int64_t items, int64_t per_block) {
    return (items + per_block - 1) / per_block;
}

/* Threads over a [rows, items] grid, one item each: block.x along the row, block.y over rows. */
struct tile {
    dim3 grid, block;
    tile(int64_t rows, int64_t items) {
        unsigned x = 1;
        while (x < 256 && x < items) x *= 2;
        block = dim3(x, 256 / x);
        grid = dim3((unsigned)blocks_for(rows, block.y), (unsigned)blocks_for(items, x));
    }
};
#define TILE_ROW ((int64_t)blockIdx.x * blockDim.y + threadIdx.y)
#define TILE_ITEM ((int64_t)blockIdx.y * blockDim.x + threadIdx.x)

/* Runs `...` with T as the device's compute type. */
#define WITH_TYPE(device, ...)       \
    switch ((device)->dtype) {       \
        case TN_DTYPE_BF16: {        \
            using T = __nv_bfloat16; \
            __VA_ARGS__;             \
            break;                   \
        }                            \
        case TN_DTYPE_F16: {         \
            using T = __half;        \
            __VA_ARGS__;             \
            break;                   \
        }                            \
        default: {                   \
            using T = float;         \
            __VA_ARGS__;             \
        }                            \
    }

#endif
