/* loss.cu: cross-entropy over a row of logits, [rows, vocab]: one block a row. The first pass keeps a running
 * maximum and sum per thread (online softmax), so the logits are read once from memory; the second, which
 * writes the gradient, finds them in the L2 cache. The gradient may overwrite the logits.
 */
#include "op/cuda/kernel.cuh"

enum { THREADS = 512 };

/* c·tanh(x/c), or x. */
__device__ static inline float capped(float x, float softcap) {
    return softcap > 0 ? softcap * tanhf(x / softcap) : x;
}

/* (maximum, sum of exp(x − maximum)) of two parts; order of the operands does not change the bits. */
__device__ static inline void merge(float *maximum, float *sum, float other_maximum, float other_sum) {
    float top = fmaxf(*maximum, other_maximum);
    if (top == -INFINITY) return;
    *sum = *sum * expf(*maximum - top) + other_sum * expf(other_maximum - top);
    *maximum = top;
}

template <typename T, int V>
static __global__ void __launch_bounds__(THREADS)
    loss_kernel(int64_t vocab, const T *logits, int64_t stride, const int32_t *targets, float softcap,
                float grad_scale, float *loss, T *d_logits, int64_t d_stride) {
    __shared__ float maxima[32], sums[32], at_target;
    int64_t row = blockIdx.x, target = targets[row];
    const T *from = logits + row * stride;
    float maximum = -INFINITY, sum = 0, a[V];
    for (int64_t col = threadIdx.x * V; col < vocab; col += THREADS * V) {
        load<T, V>(from + col, a);
        float top = maximum;
#pragma unroll
        for (int i = 0; i < V; i++) {
            a[i] = capped(a[i], softcap);
            top = fmaxf(top, a[i]);
            if (col + i == target) at_target = a[i];
        }
        if (top == -INFINITY) continue;
        sum *= expf(maximum - top);
#pragma unroll
        for (int i = 0; i < V; i++) sum += expf(a[i] - top);
        maximum = top;
    }
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2)
        merge(&maximum, &sum, __shfl_xor_sync(0xFFFFFFFFu, maximum, lane),
              __shfl_xor_sync(0xFFFFFFFFu, sum, lane));
    if (threadIdx.x % 32 == 0) maxima[threadIdx.x / 32] = maximum, sums[threadIdx.x / 32] = sum;
    __syncthreads();
    maximum = maxima[0], sum = sums[0];
    for (int warp = 1; warp < THREADS / 32; warp++) merge(&maximum, &sum, maxima[warp], sums[warp]);
    if (threadIdx.x == 0) loss[row] = logf(sum) + maximum - at_target;
    if (!d_logits) return;
    float scale = grad_scale / sum;
    T *to = d_logits + row * d_stride;
    for (int64_t col = threadIdx.x * V; col < vocab; col += THREADS * V) {
        load<T, V>(from + col, a);
#pragma unroll
        for (int i = 0; i < V; i++) {
            float value = capped(a[i], softcap), d = expf(value - maximum) * scale;
            if (col + i == target) d -= grad_scale;
            if (softcap > 0) d *= 1.0f - value / softcap * (value / softcap);
            a[i] = d;
        }
        store<T, V>(to + col, a);
    }
}

tn_status tn_cuda_cross_entropy(tn_device *device, int64_t rows, int64_t vocab, tn_view logits,
                                const int32_t *targets, float softcap, float grad_scale, float *loss,
                                tn_view d_logits) {
    if (rows == 0) return TN_OK;
    WITH_TYPE(device, {
        constexpr int V = width<T>();
        bool fast = vocab % V == 0 && wide<T>(logits) && wide<T>(d_logits);
        auto kernel = fast ? loss_kernel<T, V> : loss_kernel<T, 1>;
        kernel<<<(unsigned)rows, THREADS, 0, tn_cuda(device)->stream>>>(vocab, at<T>(logits), logits.stride,
                                                                        targets, softcap, grad_scale, loss,
                                                                        at<T>(d_logits), d_logits.stride);
    });
    return tn_cuda_launched("cross_entropy");
}
