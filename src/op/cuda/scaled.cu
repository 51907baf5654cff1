/* scaled.cu: NF4, FP4, LLM.int8 and FP8, whose scales lie apart from their codes, to the compute dtype. A thread
 * decodes 8 neighbouring elements of a row; where rows and blocks are whole eights these share one scale and
 * one load. Formulas: quant/scaled.c, in the same order of roundings.
 */
#include "op/cuda/kernel.cuh"

enum { PIECE = 8, BOOK = 16 };
enum kind { NIBBLES, BYTES, E4M3 };

/* Where the codes and their scales are, as kernels want it: blocks of four-bit formats are powers of two, and
 * their number fits 32 bits on any card. */
struct coded {
    const uint8_t *codes;
    tn_scales scales;
    int shift;
    float book[BOOK];
};

/* Of element `at` of the flat matrix, which is in this row and column; of bytes a block is a row, of E4M3 a
 * tile. */
template <kind KIND>
__device__ static inline float scale_of(const coded &from, int64_t row, int64_t col, int64_t at) {
    const tn_scales &s = from.scales;
    if constexpr (KIND == BYTES) return __fmul_rn(s.absmax[row], 1.0f / 127.0f);
    if constexpr (KIND == E4M3) {
        if (s.tile == 1 && s.block == s.cols) return s.absmax[row];
        uint32_t across = ((uint32_t)s.cols + (uint32_t)s.block - 1) / (uint32_t)s.block;
        return s.absmax[(int64_t)((uint32_t)row / (uint32_t)s.tile) * across + (uint32_t)col / (uint32_t)s.block];
    }
    int64_t b = at >> from.shift;
    if (s.absmax) return s.absmax[b];
    return __fadd_rn(__fmul_rn(s.map[s.codes[b]], s.nested[(uint32_t)b / (uint32_t)s.nested_block]), s.offset);
}

/* Of a byte: E4M3's exponent and mantissa in fp32's places are the value · 2^-120, subnormals too. */
template <kind KIND>
__device__ static inline float byte_value(uint32_t code) {
    if constexpr (KIND == BYTES) return (float)(int8_t)code;
    uint32_t rest = code & 0x7F;
    return __uint_as_float((code & 0x80) << 24 | (rest == 0x7F ? 0x7FC00000u : rest << 20)) * 0x1p120f;
}

/* Elements at … at+7, a multiple of 8, of one block. */
template <kind KIND>
__device__ static inline void decode_eight(const coded &from, const float *book, int64_t row, int64_t col,
                                           int64_t at, float (&y)[PIECE]) {
    float scale = scale_of<KIND>(from, row, col, at);
    if constexpr (KIND != NIBBLES) {
        uint2 raw = *reinterpret_cast<const uint2 *>(from.codes + at);
#pragma unroll
        for (int i = 0; i < PIECE; i++)
            y[i] = byte_value<KIND>((i < 4 ? raw.x : raw.y) >> 8 * (i % 4) & 0xFF) * scale;
    } else {
        uint32_t raw = *reinterpret_cast<const uint32_t *>(from.codes + at / 2);
#pragma unroll
        for (int i = 0; i < PIECE; i++) y[i] = book[raw >> (8 * (i / 2) + (i % 2 ? 0 : 4)) & 15] * scale;
    }
}

template <kind KIND>
__device__ static inline float decode_one(const coded &from, const float *book, int64_t row, int64_t col,
                                          int64_t at) {
    float scale = scale_of<KIND>(from, row, col, at);
    if constexpr (KIND != NIBBLES) return byte_value<KIND>(from.codes[at]) * scale;
    else return book[at % 2 ? from.codes[at / 2] & 15 : from.codes[at / 2] >> 4] * scale;
}

/* to[row, …] = factor · from[ids ? ids[row] : row, …]; WHOLE: rows and blocks are whole eights. */
template <typename T, kind KIND, bool WHOLE, int V>
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
        decode_eight<KIND>(from, book, source, col, at, y);
#pragma unroll
        for (int i = 0; i < PIECE; i += V) {
            float part[V];
#pragma unroll
            for (int k = 0; k < V; k++) part[k] = factor * y[i + k];
            store<T, V>(to + i, part);
        }
    } else {
        for (int i = 0; i < PIECE && col + i < cols; i++)
            to[i] = narrow<T>(factor * decode_one<KIND>(from, book, source, col + i, at + i));
    }
}

template <typename T, kind KIND>
static void launch(cudaStream_t stream, const tn_weight *w, const coded &from, int64_t rows, const int32_t *ids,
                   float factor, tn_view to) {
    bool whole = w->cols % PIECE == 0 && (KIND != E4M3 || w->scales.block % PIECE == 0);
    tile t(rows, blocks_for(w->cols, PIECE));
    auto kernel = !whole        ? decode_kernel<T, KIND, false, 1>
                  : wide<T>(to) ? decode_kernel<T, KIND, true, width<T>()>
                                : decode_kernel<T, KIND, true, 1>;
    kernel<<<t.grid, t.block, 0, stream>>>(rows, w->cols, from, ids, factor, at<T>(to), to.stride);
}

tn_status tn_cuda_decode_scaled(tn_device *device, const tn_weight *w, int64_t rows, const int32_t *ids,
                                float scale, tn_view to) {
    coded from = {(const uint8_t *)w->data, w->scales, 0, {0}};
    bool fp8 = w->dtype == TN_DTYPE_FP8, bytes = fp8 || w->dtype == TN_DTYPE_LLM_INT8;
    while (!bytes && (int64_t)1 << from.shift < w->scales.block) from.shift++;
    for (int i = 0; i < BOOK && !bytes; i++) from.book[i] = tn_dtype_code_book(w->dtype)[i];
    WITH_TYPE(device, {
        auto run = fp8 ? launch<T, E4M3> : bytes ? launch<T, BYTES> : launch<T, NIBBLES>;
        run(tn_cuda(device)->stream, w, from, rows, ids, scale, to);
    });
    return tn_cuda_launched("decoding a quantised weight");
}
