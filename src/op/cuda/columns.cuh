/* columns.cuh: sums over rows in a fixed order: out[col] += scale · Σ term(row, col). The rows are cut into
 * CHUNKS runs whose partial sums [CHUNKS, cols] lie in scratch and are added in order by a second kernel.
 */
#ifndef TN_OP_CUDA_COLUMNS_CUH
#define TN_OP_CUDA_COLUMNS_CUH

#include "op/cuda/kernel.cuh"

enum { COLUMN_CHUNKS = 256 };

template <int V, typename Term>
static __global__ void column_partials(int64_t rows, int64_t cols, Term term, float *partials) {
    int64_t col = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * V;
    int64_t first = rows * blockIdx.y / gridDim.y, last = rows * (blockIdx.y + 1) / gridDim.y;
    float total[V] = {}, value[V];
    if (col >= cols) return;
    for (int64_t row = first; row < last; row++) {
        term(row, col, value);
#pragma unroll
        for (int i = 0; i < V; i++) total[i] += value[i];
    }
#pragma unroll
    for (int i = 0; i < V; i++) partials[blockIdx.y * cols + col + i] = total[i];
}

static __global__ void column_totals(int chunks, int64_t cols, const float *partials, float scale, float *out) {
    int64_t col = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    float total = 0;
    if (col >= cols) return;
    for (int chunk = 0; chunk < chunks; chunk++) total += partials[chunk * cols + col];
    out[col] += scale * total;
}

/* term(row, col, float value[V]) gives the V values from `col` on; it may write what it alone reads. out NULL: it
 * does that and no more. */
template <int V, typename Term>
static tn_status sum_columns(tn_device *device, int64_t rows, int64_t cols, Term term, float scale,
                             float *out) {
    cudaStream_t stream = tn_cuda(device)->stream;
    int chunks = (int)(rows < COLUMN_CHUNKS ? rows : COLUMN_CHUNKS);
    float *partials = (float *)tn_cuda_take(device, chunks * cols * (int64_t)sizeof(float));
    if (!partials) return TN_FAILED;
    dim3 grid((unsigned)blocks_for(cols, 128 * V), (unsigned)chunks);
    column_partials<V><<<grid, 128, 0, stream>>>(rows, cols, term, partials);
    if (out) column_totals<<<(unsigned)blocks_for(cols, 128), 128, 0, stream>>>(chunks, cols, partials, scale, out);
    return tn_cuda_launched("column sums");
}

#endif
