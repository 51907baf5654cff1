/* fp8.cu: rows of activations to E4M3 with a scale each, absmax / 448, for a product with a weight that is held
 * so (linear.c). A block takes a row: it is read twice, the second time out of the cache. Formulas and roundings
 * are those of quant/scaled_encode.c.
 */
#include <cuda_fp8.h>
#include <float.h>

#include "op/cuda/kernel.cuh"

enum { THREADS = 256 };

__device__ static inline float block_max(float x, float *shared) {
    x = warp_max(x);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    for (int warp = 0; warp < THREADS / 32; warp++) x = fmaxf(x, shared[warp]);
    return x;
}

template <typename T, int V>
static __global__ void encode_kernel(int64_t cols, const T *x, int64_t stride, uint8_t *codes, float *scales) {
    __shared__ float shared[THREADS / 32];
    int64_t row = blockIdx.x;
    float absmax = 0;
    x += row * stride, codes += row * cols;
    for (int64_t col = threadIdx.x * V; col < cols; col += THREADS * V) {
        float value[V];
        load<T, V>(x + col, value);
#pragma unroll
        for (int i = 0; i < V; i++) absmax = fmaxf(absmax, fabsf(value[i]));
    }
    float scale = __fdiv_rn(block_max(absmax, shared), 448.0f);
    if (scale < FLT_MIN) scale = 0;
    if (threadIdx.x == 0) scales[row] = scale;
    for (int64_t col = threadIdx.x * V; col < cols; col += THREADS * V) {
        float value[V];
        vec<uint8_t, V> code;
        load<T, V>(x + col, value);
#pragma unroll
        for (int i = 0; i < V; i++)
            code.v[i] = scale > 0 ? __nv_cvt_float_to_fp8(__fdiv_rn(value[i], scale), __NV_SATFINITE, __NV_E4M3)
                                  : (uint8_t)0;
        *reinterpret_cast<vec<uint8_t, V> *>(codes + col) = code;
    }
}

tn_status tn_cuda_encode_fp8(tn_device *device, int64_t rows, int64_t cols, tn_view x, uint8_t *codes,
                             float *scales) {
    WITH_TYPE(device, {
        bool fast = cols % width<T>() == 0 && wide<T>(x) && wide(codes);
        auto kernel = fast ? encode_kernel<T, width<T>()> : encode_kernel<T, 1>;
        kernel<<<(unsigned)rows, THREADS, 0, tn_cuda(device)->stream>>>(cols, at<T>(x), x.stride, codes, scales);
    });
    return tn_cuda_launched("rounding to FP8");
}
