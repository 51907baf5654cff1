/* scaled.cu: NF4, FP4 and LLM.int8, whose scales lie apart from their codes, to the compute dtype. A thread
 * decodes 8 neighbouring elements of a row; where rows are whole eights these share one scale and one load.
 * Formulas: quant/scaled.c, in the same order of roundings.
 */
#include "op/cuda/kernel.cuh"

enum { PIECE = 8, BOOK = 16 };

/* Where the codes and their scales are, as kernels want it: blocks of four-bit formats are powers of two, and
 * their number fits 32 bits on any card. */
struct coded {
    const uint8_t *codes;
    tn_scales scales;
    int shift;
    float book[BOOK];
};

/* Of block b; of bytes a block is a row. */
template <bool BYTES>
__device__ static inline float scale_of(const tn_scales &s, int64_t b) {
    if constexpr (BYTES) return __fmul_rn(s.absmax[b], 1.0f / 127.0f);
    if (s.absmax) return s.absmax[b];
    return __fadd_rn(__fmul_rn(s.map[s.codes[b]], s.nested[(uint32_t)b / (uint32_t)s.nested_block]), s.offset);
}

/* Elements at … at+7, a multiple of 8, of one block. */
template <bool BYTES>
__device__ static inline void decode_eight(const coded &from, const float *book, int64_t row, int64_t at,
                                           float (&y)[PIECE]) {
    float scale = scale_of<BYTES>(from.scales, BYTES ? row : at >> from.shift);
    if constexpr (BYTES) {
        uint2 raw = *reinterpret_cast<const uint2 *>(from.codes + at);
#pragma unroll
        for (int i = 0; i < PIECE; i++) y[i] = (float)(int8_t)((i < 4 ? raw.x : raw.y) >> 8 * (i % 4)) * scale;
    } else {
        uint32_t raw = *reinterpret_cast<const uint32_t *>(from.codes + at / 2);
#pragma unroll
        for (int i = 0; i < PIECE; i++) y[i] = book[raw >> (8 * (i / 2) + (i % 2 ? 0 : 4)) & 15] * scale;
    }
}

template <bool BYTES>
__device__ static inline float decode_one(const coded &from, const float *book, int64_t row, int64_t at) {
    float scale = scale_of<BYTES>(from.scales, BYTES ? row : at >> from.shift);
    if constexpr (BYTES) return (float)(int8_t)from.codes[at] * scale;
    else return book[at % 2 ? from.codes[at / 2] & 15 : from.codes[at / 2] >> 4] * scale;
}

/* to[row, …] = factor · from[ids ? ids[row] : row, …]; WHOLE: rows are whole eights. */
template <typename T, bool BYTES, bool WHOLE, int V>
static __global__ void decode_kernel(int64_t rows, int64_t cols, coded from, const int32_t *ids, float factor,
                                     T *to, int64_t stride) {
    __shared__ float book[BOOK];
    int64_t row = TILE_ROW, col = TILE_ITEM * PIECE;
    int thread = threadIdx.y * blockDim.x + threadIdx.x;
    if (thread < BOOK) book[thread] = from.book[thread];
    __syncthreads();
    if (row >= rows || col >= cols) return;
    int64_t source = ids ? ids[row] : row, at = source * cols + col;
    to += row * stride + col;
    if constexpr (WHOLE) {
        float y[PIECE];
        decode_eight<BYTES>(from, book, source, at, y);
#pragma unroll
        for (int i = 0; i < PIECE; i += V) {
            float part[V];
#pragma unroll
            for (int k = 0; k < V; k++) part[k] = factor * y[i + k];
            store<T, V>(to + i, part);
        }
    } else {
        for (int i = 0; i < PIECE && col + i < cols; i++)
            to[i] = narrow<T>(factor * decode_one<BYTES>(from, book, source, at + i));
    }
}

template <typename T, bool BYTES>
static void launch(cudaStream_t stream, const tn_weight *w, const coded &from, int64_t rows, const int32_t *ids,
                   float factor, tn_view to) {
    bool whole = w->cols % PIECE == 0;
    tile t(rows, blocks_for(w->cols, PIECE));
    auto kernel = !whole        ? decode_kernel<T, BYTES, false, 1>
                  : wide<T>(to) ? decode_kernel<T, BYTES, true, width<T>()>
                                : decode_kernel<T, BYTES, true, 1>;
    kernel<<<t.grid, t.block, 0, stream>>>(rows, w->cols, from, ids, factor, at<T>(to), to.stride);
}

tn_status tn_cuda_decode_scaled(tn_device *device, const tn_weight *w, int64_t rows, const int32_t *ids,
                                float scale, tn_view to) {
    coded from = {(const uint8_t *)w->data, w->scales, 0, {0}};
    bool bytes = w->dtype == TN_DTYPE_LLM_INT8;
    while (!bytes && (int64_t)1 << from.shift < w->scales.block) from.shift++;
    for (int i = 0; i < BOOK && !bytes; i++) from.book[i] = tn_dtype_code_book(w->dtype)[i];
    WITH_TYPE(device, (bytes ? launch<T, true> : launch<T, false>)(tn_cuda(device)->stream, w, from, rows, ids,
                                                                   scale, to));
    return tn_cuda_launched("decoding a quantised weight");
}
