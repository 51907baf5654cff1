/* dequantize.cu: GGUF block types to the compute dtype, for whole matrices and for rows of the embedding, and
 * the embedding itself. Formulas: ggml-quants.c. A thread decodes 8 neighbouring elements, which share
 * one scale in every type, and stores them at once.
 */
#include "op/cuda/kernel.cuh"

enum { PIECE = 8 };

__device__ static inline float half_at(const uint8_t *p) {
    return __half2float(__ushort_as_half((unsigned short)(p[0] | p[1] << 8)));
}

__constant__ int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* Nibble of element t of a 32-element block: low ones are 0 … 15, high ones 16 … 31. */
__device__ static inline int nibble(const uint8_t *qs, int t) { return t < 16 ? qs[t] & 15 : qs[t - 16] >> 4; }

__device__ static inline int bit32(const uint8_t *p, int t) { return p[t / 8] >> t % 8 & 1; }

/* 6-bit scale and minimum k of the 12 packed bytes of Q4_K and Q5_K. */
__device__ static inline void unpack6(const uint8_t *s, int k, int *scale, int *minimum) {
    *scale = k < 4 ? s[k] & 63 : (s[k + 4] & 15) | s[k - 4] >> 6 << 4;
    *minimum = k < 4 ? s[k + 4] & 63 : s[k + 4] >> 4 | s[k] >> 6 << 4;
}

/* Elements t … t+7 of the block at b; t is a multiple of 8. */
template <int TYPE>
__device__ static inline void decode(const uint8_t *b, int t, float (&y)[PIECE]) {
    constexpr bool five = TYPE == TN_DTYPE_Q5_0 || TYPE == TN_DTYPE_Q5_1;
    constexpr bool with_minimum = TYPE == TN_DTYPE_Q4_1 || TYPE == TN_DTYPE_Q5_1;
    if constexpr (TYPE == TN_DTYPE_Q8_0) {
        float d = half_at(b);
        for (int i = 0; i < PIECE; i++) y[i] = d * (float)(int8_t)b[2 + t + i];
    } else if constexpr (TYPE == TN_DTYPE_Q4_0 || TYPE == TN_DTYPE_Q4_1 || five) {
        float d = half_at(b), m = with_minimum ? half_at(b + 2) : 0;
        const uint8_t *qh = b + (with_minimum ? 4 : 2), *qs = five ? qh + 4 : qh;
        for (int i = 0; i < PIECE; i++) {
            int q = nibble(qs, t + i) | (five ? bit32(qh, t + i) << 4 : 0);
            y[i] = with_minimum ? __fadd_rn(__fmul_rn(d, (float)q), m) : d * (float)(q - (five ? 16 : 8));
        }
    } else if constexpr (TYPE == TN_DTYPE_IQ4_NL) {
        float d = half_at(b);
        for (int i = 0; i < PIECE; i++) y[i] = d * (float)iq4_values[nibble(b + 2, t + i)];
    } else if constexpr (TYPE == TN_DTYPE_IQ4_XS) {
        int g = t / 32, high = b[2] | b[3] << 8;
        int ls = (b[4 + g / 2] >> 4 * (g & 1) & 15) | (high >> 2 * g & 3) << 4;
        float d = half_at(b) * (float)(ls - 32);
        for (int i = 0; i < PIECE; i++) y[i] = d * (float)iq4_values[nibble(b + 8 + 16 * g, t % 32 + i)];
    } else if constexpr (TYPE == TN_DTYPE_Q2_K) {
        int s = b[t / 16], shift = t % 128 / 32 * 2;
        const uint8_t *qs = b + 16 + t / 128 * 32 + t % 32;
        float d = half_at(b + 80) * (float)(s & 15), m = half_at(b + 82) * (float)(s >> 4);
        for (int i = 0; i < PIECE; i++) y[i] = __fsub_rn(__fmul_rn(d, (float)(qs[i] >> shift & 3)), m);
    } else if constexpr (TYPE == TN_DTYPE_Q3_K) {
        const uint8_t *hmask = b + t % 32, *qs = b + 32 + t / 128 * 32 + t % 32, *scales = b + 96;
        int g = t / 16, shift = t % 128 / 32 * 2, low = g < 8 ? scales[g] & 15 : scales[g - 8] >> 4;
        int scale = (low | (scales[8 + g % 4] >> 2 * (g / 4) & 3) << 4) - 32;
        float d = half_at(b + 108) * (float)scale;
        for (int i = 0; i < PIECE; i++)
            y[i] = d * (float)((qs[i] >> shift & 3) - (hmask[i] >> t / 32 & 1 ? 0 : 4));
    } else if constexpr (TYPE == TN_DTYPE_Q4_K || TYPE == TN_DTYPE_Q5_K) {
        int g = t / 32, scale, minimum;
        unpack6(b + 4, g, &scale, &minimum);
        const uint8_t *qs = b + (TYPE == TN_DTYPE_Q4_K ? 16 : 48) + 32 * (g / 2) + t % 32,
                      *qh = b + 16 + t % 32;
        float d = half_at(b) * (float)scale, m = half_at(b + 2) * (float)minimum;
        for (int i = 0; i < PIECE; i++) {
            int q = (g & 1 ? qs[i] >> 4 : qs[i] & 15) | (TYPE == TN_DTYPE_Q5_K ? (qh[i] >> g & 1) << 4 : 0);
            y[i] = __fsub_rn(__fmul_rn(d, (float)q), m);
        }
    } else { /* Q6_K */
        int n = t / 128, j = t % 128 / 32, l = t % 32;
        const uint8_t *ql = b + 64 * n + l + 32 * (j & 1), *qh = b + 128 + 32 * n + l;
        float d = half_at(b + 208) * (float)(int8_t)b[192 + t / 16];
        for (int i = 0; i < PIECE; i++) {
            int q = (j >= 2 ? ql[i] >> 4 : ql[i] & 15) | (qh[i] >> 2 * j & 3) << 4;
            y[i] = d * (float)(q - 32);
        }
    }
}

/* What a row of blocks looks like. */
struct blocks {
    const uint8_t *data;
    int elements, bytes; /* of one block */
    int64_t row_bytes;
};

static blocks blocks_of(tn_dtype dtype, int64_t cols, const void *data) {
    blocks b = {(const uint8_t *)data, (int)tn_dtype_block(dtype), (int)tn_dtype_block_bytes(dtype), 0};
    b.row_bytes = cols / b.elements * b.bytes;
    return b;
}

/* to[row, …] = scale · from[ids ? ids[row] : row, …] */
template <typename T, int TYPE, int V>
static __global__ void decode_kernel(int64_t rows, int64_t cols, blocks from, const int32_t *ids, float scale,
                                     T *to, int64_t stride) {
    int64_t row = TILE_ROW, col = TILE_ITEM * PIECE, source;
    if (row >= rows || col >= cols) return;
    float y[PIECE];
    source = ids ? ids[row] : row;
    decode<TYPE>(from.data + source * from.row_bytes + col / from.elements * from.bytes,
                 (int)(col % from.elements), y);
#pragma unroll
    for (int i = 0; i < PIECE; i += V) {
        float part[V];
#pragma unroll
        for (int k = 0; k < V; k++) part[k] = scale * y[i + k];
        store<T, V>(to + row * stride + col + i, part);
    }
}

template <typename T, int TYPE>
static void launch(cudaStream_t stream, int64_t rows, int64_t cols, blocks from, const int32_t *ids,
                   float scale, tn_view to) {
    tile t(rows, cols / PIECE);
    auto kernel = wide<T>(to) ? decode_kernel<T, TYPE, width<T>()> : decode_kernel<T, TYPE, 1>;
    kernel<<<t.grid, t.block, 0, stream>>>(rows, cols, from, ids, scale, at<T>(to), to.stride);
}

template <typename T>
static void launch(cudaStream_t stream, tn_dtype dtype, int64_t rows, int64_t cols, blocks from,
                   const int32_t *ids, float scale, tn_view to) {
    switch (dtype) {
        case TN_DTYPE_Q4_0: launch<T, TN_DTYPE_Q4_0>(stream, rows, cols, from, ids, scale, to); break;
        case TN_DTYPE_Q4_1: launch<T, TN_DTYPE_Q4_1>(stream, rows, cols, from, ids, scale, to); break;
        case TN_DTYPE_Q5_0: launch<T, TN_DTYPE_Q5_0>(stream, rows, cols, from, ids, scale, to); break;
        case TN_DTYPE_Q5_1: launch<T, TN_DTYPE_Q5_1>(stream, rows, cols, from, ids, scale, to); break;
        case TN_DTYPE_Q8_0: launch<T, TN_DTYPE_Q8_0>(stream, rows, cols, from, ids, scale, to); break;
        case TN_DTYPE_Q2_K: launch<T, TN_DTYPE_Q2_K>(stream, rows, cols, from, ids, scale, to); break;
        case TN_DTYPE_Q3_K: launch<T, TN_DTYPE_Q3_K>(stream, rows, cols, from, ids, scale, to); break;
        case TN_DTYPE_Q4_K: launch<T, TN_DTYPE_Q4_K>(stream, rows, cols, from, ids, scale, to); break;
        case TN_DTYPE_Q5_K: launch<T, TN_DTYPE_Q5_K>(stream, rows, cols, from, ids, scale, to); break;
        case TN_DTYPE_Q6_K: launch<T, TN_DTYPE_Q6_K>(stream, rows, cols, from, ids, scale, to); break;
        case TN_DTYPE_IQ4_NL: launch<T, TN_DTYPE_IQ4_NL>(stream, rows, cols, from, ids, scale, to); break;
        default: launch<T, TN_DTYPE_IQ4_XS>(stream, rows, cols, from, ids, scale, to);
    }
}

static tn_status decode_rows(tn_device *device, const tn_weight *w, int64_t rows, const int32_t *ids,
                             float scale, tn_view to) {
    if (tn_dtype_has_scales(w->dtype)) return tn_cuda_decode_scaled(device, w, rows, ids, scale, to);
    blocks b = blocks_of(w->dtype, w->cols, w->data);
    WITH_TYPE(device, launch<T>(tn_cuda(device)->stream, w->dtype, rows, w->cols, b, ids, scale, to));
    return tn_cuda_launched("decoding blocks");
}

tn_status tn_cuda_dequantize(tn_device *device, const tn_weight *weight, void *to, int64_t stride) {
    return decode_rows(device, weight, weight->rows, NULL, 1.0f, (tn_view){to, stride});
}

/* ---- Embedding --------------------------------------------------------------------------------------- */

template <typename T, int V>
static __global__ void embed_kernel(int64_t rows, int64_t cols, const int32_t *ids, const T *table,
                                    int64_t table_stride, float scale, T *y, int64_t stride) {
    int64_t row = TILE_ROW, col = TILE_ITEM * V;
    if (row >= rows || col >= cols) return;
    float value[V];
    load<T, V>(table + ids[row] * table_stride + col, value);
#pragma unroll
    for (int i = 0; i < V; i++) value[i] *= scale;
    store<T, V>(y + row * stride + col, value);
}

tn_status tn_cuda_embed_forward(tn_device *device, int64_t rows, const int32_t *ids, const tn_weight *table,
                                float scale, tn_view y) {
    int64_t cols = table->cols;
    tn_view from = {(void *)(uintptr_t)table->data, table->stride};
    if (rows == 0) return TN_OK;
    if (tn_dtype_is_block(table->dtype))
        return decode_rows(device, table, rows, ids, scale, y);
    WITH_TYPE(device, {
        constexpr int V = width<T>();
        bool fast = cols % V == 0 && wide<T>(from) && wide<T>(y);
        tile t(rows, fast ? cols / V : cols);
        auto kernel = fast ? embed_kernel<T, V> : embed_kernel<T, 1>;
        kernel<<<t.grid, t.block, 0, tn_cuda(device)->stream>>>(rows, cols, ids, at<T>(from), from.stride,
                                                                scale, at<T>(y), y.stride);
    });
    return tn_cuda_launched("embed_forward");
}

/* A block sums one token's rows in order, so that no two blocks meet in dtable. */
template <typename T>
static __global__ void embed_backward_kernel(int64_t cols, const int32_t *ids, const int32_t *order,
                                             const int32_t *starts, float scale, const T *dy, int64_t stride,
                                             float *dtable) {
    int64_t col = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
    int first = starts[blockIdx.x], last = starts[blockIdx.x + 1];
    float sum = 0;
    if (col >= cols) return;
    for (int i = first; i < last; i++) sum += widen(dy[order[i] * stride + col]);
    dtable[ids[order[first]] * cols + col] += scale * sum;
}

tn_status tn_cuda_embed_backward(tn_device *device, int64_t rows, int64_t cols, int64_t segments,
                                 const int32_t *ids, const int32_t *order, const int32_t *starts, float scale,
                                 tn_view dy, float *dtable) {
    if (rows == 0 || segments == 0) return TN_OK;
    dim3 grid((unsigned)segments, (unsigned)blocks_for(cols, 256));
    WITH_TYPE(device, embed_backward_kernel<T><<<grid, 256, 0, tn_cuda(device)->stream>>>(
                          cols, ids, order, starts, scale, at<T>(dy), dy.stride, dtable));
    return tn_cuda_launched("embed_backward");
}
