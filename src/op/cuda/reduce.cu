/* reduce.cu: sums in a fixed order: over a flat range in double (loss, gradient norm), and over rows
 * (gradients of biases). No atomics: partial sums lie in scratch and one block adds them in order.
 */
#include "op/cuda/columns.cuh"

enum { SUM_BLOCKS = 512, SUM_THREADS = 256 };

template <bool SQUARES>
static __global__ void partial_kernel(int64_t count, const float *values, double *partials) {
    __shared__ double shared[32];
    double total = 0;
    int64_t step = (int64_t)gridDim.x * SUM_THREADS, i = (int64_t)blockIdx.x * SUM_THREADS + threadIdx.x;
    int64_t quads = reinterpret_cast<uintptr_t>(values) % 16 == 0 ? count / 4 : 0;
    for (int64_t quad = i; quad < quads; quad += step) {
        float v[4];
        load<float, 4>(values + quad * 4, v);
#pragma unroll
        for (int k = 0; k < 4; k++) total += SQUARES ? (double)v[k] * v[k] : v[k];
    }
    for (int64_t k = quads * 4 + i; k < count; k += step)
        total += SQUARES ? (double)values[k] * values[k] : values[k];
    total = block_sum(total, shared);
    if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

static __global__ void total_kernel(int blocks, const double *partials, double *total) {
    __shared__ double shared[32];
    double sum = 0;
    for (int i = threadIdx.x; i < blocks; i += SUM_THREADS) sum += partials[i];
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) *total += sum;
}

template <bool SQUARES>
static tn_status sum(tn_device *device, int64_t count, const float *values, double *total) {
    if (count == 0) return TN_OK;
    tn_cuda_begin(device);
    double *partials = (double *)tn_cuda_take(device, SUM_BLOCKS * sizeof(double));
    if (!partials) return TN_FAILED;
    int blocks = (int)blocks_for(count, SUM_THREADS * 4);
    if (blocks > SUM_BLOCKS) blocks = SUM_BLOCKS;
    cudaStream_t stream = tn_cuda(device)->stream;
    partial_kernel<SQUARES><<<blocks, SUM_THREADS, 0, stream>>>(count, values, partials);
    total_kernel<<<1, SUM_THREADS, 0, stream>>>(blocks, partials, total);
    return tn_cuda_launched("sum");
}

tn_status tn_cuda_sum(tn_device *device, int64_t count, const float *values, double *total) {
    return sum<false>(device, count, values, total);
}
tn_status tn_cuda_sum_squares(tn_device *device, int64_t count, const float *values, double *total) {
    return sum<true>(device, count, values, total);
}

template <typename T, int V>
struct plain_term {
    const T *values;
    int64_t stride;
    __device__ void operator()(int64_t row, int64_t col, float (&value)[V]) const {
        load<T, V>(values + row * stride + col, value);
    }
};

tn_status tn_cuda_column_sums(tn_device *device, int64_t rows, int64_t cols, tn_view dy, float alpha,
                              float *sums) {
    WITH_TYPE(device, {
        constexpr int V = width<T>();
        if (cols % V == 0 && wide<T>(dy))
            return sum_columns<V>(device, rows, cols, plain_term<T, V>{at<T>(dy), dy.stride}, alpha, sums);
        return sum_columns<1>(device, rows, cols, plain_term<T, 1>{at<T>(dy), dy.stride}, alpha, sums);
    });
}

int64_t tn_cuda_column_scratch(int64_t cols) {
    return tn_cuda_round(COLUMN_CHUNKS * cols * (int64_t)sizeof(float));
}
