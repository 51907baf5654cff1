/* attention.cuh: what our own attention kernels share: which keys a query sees, tiles in shared memory, and the
 * products of two tiles. They serve fp32, soft-capped scores and whatever cuDNN has no plan for.
 *
 * Rows of all documents are cut into tiles regardless of document borders: every query has its own interval of
 * keys (rows of k, over all documents), neither end ever falls from query to query, so a tile of queries needs the
 * keys from its first query's first to its last query's last, and a comparison masks the rest. For keys and
 * their queries it is the same the other way round. Threads form a 16×16 grid (ty, tx).
 */
#ifndef TN_OP_CUDA_ATTENTION_CUH
#define TN_OP_CUDA_ATTENTION_CUH

#include "op/cuda/kernel.cuh"

enum { GRID = 16, ATTENTION_THREADS = GRID * GRID, PAD = 4 };

/* tn_attention's numbers for a kernel, with rows of q, k, v, o and so on as the caller keeps them. */
struct heads {
    int documents, count, per_kv, dim;
    const int32_t *cu_q, *cu_kv;
    float scale, softcap;
    int64_t window;
    bool bidirectional;
};

static inline heads heads_of(const tn_attention *a) {
    return heads{(int)a->documents, (int)a->heads, (int)(a->heads / a->kv_heads),
                 (int)a->head_dim,  a->cu_q,       a->cu_kv,
                 a->scale,          a->softcap,    a->window,
                 a->bidirectional};
}

struct span { /* [first, last) */
    int first, last;
};

/* The document of a row: the last one that starts at or before it. */
__device__ static inline int document_of(const int32_t *starts, int documents, int row) {
    int low = 0, high = documents;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (starts[middle] <= row) low = middle;
        else high = middle;
    }
    return low;
}

__device__ static inline span keys_of(const heads &h, int query) {
    int document = document_of(h.cu_q, h.documents, query), start = h.cu_kv[document];
    int queries = h.cu_q[document + 1] - h.cu_q[document], keys = h.cu_kv[document + 1] - start;
    if (h.bidirectional) return span{start, start + keys};
    int last = query - h.cu_q[document] + keys - queries + 1, first = 0;
    if (h.window && last > h.window) first = last - (int)h.window;
    return span{start + first, start + max(first, last)};
}

__device__ static inline span queries_of(const heads &h, int key) {
    int document = document_of(h.cu_kv, h.documents, key), start = h.cu_q[document];
    int queries = h.cu_q[document + 1] - start, keys = h.cu_kv[document + 1] - h.cu_kv[document];
    if (h.bidirectional) return span{start, start + queries};
    int first = key - h.cu_kv[document] - (keys - queries), last = queries;
    if (h.window && first + h.window < last) last = first + (int)h.window;
    first = max(first, 0);
    return span{start + first, start + max(first, last)};
}

/* Scaled and capped score of a dot product; *slope is d score / d dot. */
__device__ static inline float score_of(const heads &h, float dot, float *slope) {
    float s = dot * h.scale;
    *slope = h.scale;
    if (h.softcap <= 0) return s;
    float t = tanhf(s / h.softcap);
    *slope = h.scale * (1 - t * t);
    return h.softcap * t;
}

/* tile[ROWS][D + PAD] = rows first … first+count of one head; zeros beyond them and beyond head_dim. `quads`:
 * four elements can be read at once. */
template <typename T, int D, int ROWS>
__device__ static inline void load_tile(float *tile, const T *from, int64_t stride, int first, int count,
                                        int dim, bool quads) {
    for (int i = threadIdx.x; i < ROWS * (D / 4); i += ATTENTION_THREADS) {
        int row = i / (D / 4), col = i % (D / 4) * 4;
        float value[4] = {0, 0, 0, 0};
        const T *p = from + (int64_t)(first + row) * stride + col;
        if (row < count) {
            if (quads) {
                if (col < dim) load<T, 4>(p, value);
            } else {
                for (int k = 0; k < 4; k++)
                    if (col + k < dim) value[k] = widen(p[k]);
            }
        }
        store<float, 4>(tile + row * (D + PAD) + col, value);
    }
}

/* out[i][j] = a[ty·R + i] · b[tx + 16·j] over D columns. */
template <int D, int R, int C>
__device__ static inline void dots(const float *a, const float *b, float (&out)[R][C]) {
    int ty = threadIdx.x / GRID, tx = threadIdx.x % GRID;
#pragma unroll
    for (int i = 0; i < R; i++)
#pragma unroll
        for (int j = 0; j < C; j++) out[i][j] = 0;
#pragma unroll 4
    for (int d = 0; d < D; d += 4) {
        float x[R][4], y[C][4];
#pragma unroll
        for (int i = 0; i < R; i++) load<float, 4>(a + (ty * R + i) * (D + PAD) + d, x[i]);
#pragma unroll
        for (int j = 0; j < C; j++) load<float, 4>(b + (tx + GRID * j) * (D + PAD) + d, y[j]);
#pragma unroll
        for (int i = 0; i < R; i++)
#pragma unroll
            for (int j = 0; j < C; j++)
#pragma unroll
                for (int k = 0; k < 4; k++) out[i][j] += x[i][k] * y[j][k];
    }
}

/* sum[i][j·4 + k] += Σ_n weight(ty·R + i, n) · values[n][tx·4 + 64·j + k]; weight of (row, n) lies at
 * weights[row·by_row + n·by_n]. */
template <int D, int R, int N>
__device__ static inline void accumulate(const float *weights, int by_row, int by_n, const float *values,
                                         float (&sum)[R][D / GRID]) {
    int ty = threadIdx.x / GRID, tx = threadIdx.x % GRID;
#pragma unroll 4
    for (int n = 0; n < N; n++) {
        float w[R];
#pragma unroll
        for (int i = 0; i < R; i++) w[i] = weights[(ty * R + i) * by_row + n * by_n];
#pragma unroll
        for (int j = 0; j < D / 64; j++) {
            float v[4];
            load<float, 4>(values + n * (D + PAD) + tx * 4 + 64 * j, v);
#pragma unroll
            for (int i = 0; i < R; i++)
#pragma unroll
                for (int k = 0; k < 4; k++) sum[i][j * 4 + k] += w[i] * v[k];
        }
    }
}

/* to[first + ty·R + i][…] = sum · factor[i] */
template <typename T, int D, int R>
__device__ static inline void store_rows(const float (&sum)[R][D / GRID], const float (&factor)[R], T *to,
                                         int64_t stride, int first, int rows, int dim) {
    int ty = threadIdx.x / GRID, tx = threadIdx.x % GRID;
#pragma unroll
    for (int i = 0; i < R; i++) {
        int row = first + ty * R + i;
        if (row >= rows) continue;
#pragma unroll
        for (int j = 0; j < D / GRID; j++) {
            int col = tx * 4 + 64 * (j / 4) + j % 4;
            if (col < dim) to[row * stride + col] = narrow<T>(sum[i][j] * factor[i]);
        }
    }
}

/* Runs `...` with D as the padded head size. */
#define WITH_HEAD(dim, ...)    \
    if ((dim) <= 64) {         \
        constexpr int D = 64;  \
        __VA_ARGS__;           \
    } else if ((dim) <= 128) { \
        constexpr int D = 128; \
        __VA_ARGS__;           \
    } else {                   \
        constexpr int D = 256; \
        __VA_ARGS__;           \
    }

template <typename T>
static inline bool quads_of(tn_view view) {
    return reinterpret_cast<uintptr_t>(view.data) % (4 * sizeof(T)) == 0 && view.stride % 4 == 0;
}

#endif
