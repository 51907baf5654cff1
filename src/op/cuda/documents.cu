/* documents.cu: small arrays that cuDNN wants beside q, k and v: lengths and offsets of packed documents, and
 * the statistics of a dense batch head by head.
 */
#include "op/cuda/kernel.cuh"

static __global__ void offsets_kernel(int documents, int length, const int32_t *starts, tn_cuda_offsets lists) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= length) return;
    int start = starts[min(i, documents)];
#pragma unroll
    for (int list = 0; list < TN_CUDA_LISTS; list++)
        if (list < lists.count) lists.to[list][i] = start * lists.factor[list];
}

tn_status tn_cuda_document_offsets(tn_device *device, const tn_attention *a, int64_t length,
                                   const tn_cuda_offsets *lists) {
    offsets_kernel<<<(unsigned)blocks_for(length, 128), 128, 0, tn_cuda(device)->stream>>>(
        (int)a->documents, (int)length, a->cu_q, *lists);
    return tn_cuda_launched("document offsets");
}

static __global__ void lengths_kernel(int count, int batch, const int32_t *starts, int32_t *lengths) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < batch) lengths[i] = i < count ? starts[i + 1] - starts[i] : 0;
}

tn_status tn_cuda_document_lengths(tn_device *device, const tn_attention *a, int64_t first, int64_t count,
                                   int64_t batch, int32_t *lengths) {
    lengths_kernel<<<(unsigned)blocks_for(batch, 128), 128, 0, tn_cuda(device)->stream>>>(
        (int)count, (int)batch, a->cu_q + first, lengths);
    return tn_cuda_launched("document lengths");
}

enum { SIDE = 32, DEEP = 8 };

/* to[document][column][row] = from[document][row][column] through a tile in shared memory. */
static __global__ void swap_kernel(int rows, int columns, const float *from, float *to) {
    __shared__ float tile[SIDE][SIDE + 1];
    int64_t document = (int64_t)blockIdx.z * rows * columns;
    int row = blockIdx.x * SIDE, column = blockIdx.y * SIDE;
    for (int i = threadIdx.y; i < SIDE; i += DEEP)
        if (row + i < rows && column + (int)threadIdx.x < columns)
            tile[i][threadIdx.x] = from[document + (int64_t)(row + i) * columns + column + threadIdx.x];
    __syncthreads();
    for (int i = threadIdx.y; i < SIDE; i += DEEP)
        if (column + i < columns && row + (int)threadIdx.x < rows)
            to[document + (int64_t)(column + i) * rows + row + threadIdx.x] = tile[threadIdx.x][i];
}

tn_status tn_cuda_swap_statistics(tn_device *device, int64_t batch, int64_t length, int64_t heads,
                                  const float *from, float *to, bool by_head) {
    int64_t rows = by_head ? length : heads, columns = by_head ? heads : length;
    dim3 grid((unsigned)blocks_for(rows, SIDE), (unsigned)blocks_for(columns, SIDE), (unsigned)batch);
    swap_kernel<<<grid, dim3(SIDE, DEEP), 0, tn_cuda(device)->stream>>>((int)rows, (int)columns, from, to);
    return tn_cuda_launched("attention statistics");
}
