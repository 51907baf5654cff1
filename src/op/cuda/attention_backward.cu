/* attention_backward.cu: our own attention, backward. Scores are computed again from q, k and lse. Two kernels
 * instead of one with atomics, so that the sums have a fixed order: one block takes ROWS keys of a kv head
 * and walks over the queries of all its heads (dk, dv); another takes ROWS queries and walks over their keys
 * (dq).
 *
 *   p = exp(score − lse), ds = p·(d_o·v − delta)·slope, delta = Σ d_o·o of the query
 */
#include "op/cuda/attention.cuh"

template <int D>
__host__ __device__ constexpr int rows_for() {
    return D == 256 ? 16 : 32;
}
/* Four tiles of rows and two of weights. */
template <int D>
__host__ __device__ constexpr int shared_bytes() {
    return (4 * rows_for<D>() * (D + PAD) + 2 * rows_for<D>() * (rows_for<D>() + 1)) * (int)sizeof(float);
}

/* delta[row, head] = Σ d_o·o, one warp each. */
template <typename T>
static __global__ void delta_kernel(int64_t q_rows, int count, int dim, const T *o, int64_t o_stride,
                                    const T *d_o, int64_t d_stride, float *delta) {
    int64_t item = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32, row = item / count,
            head = item % count;
    if (row >= q_rows) return;
    float sum = 0;
    for (int i = threadIdx.x % 32; i < dim; i += 32)
        sum += widen(o[row * o_stride + head * dim + i]) * widen(d_o[row * d_stride + head * dim + i]);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) delta[item] = sum;
}

/* p and ds of query rows (ty) and keys (tx) from the two tile products. */
template <int R>
__device__ static inline void weights(const heads &h, const float (&s)[R][R], const float (&dp)[R][R],
                                      const span (&seen)[R], int key, const float (&lse)[R],
                                      const float (&delta)[R], float *p, float *ds) {
    int ty = threadIdx.x / GRID, tx = threadIdx.x % GRID;
#pragma unroll
    for (int i = 0; i < R; i++)
#pragma unroll
        for (int j = 0; j < R; j++) {
            int column = key + tx + GRID * j, place = (ty * R + i) * (R * GRID + 1) + tx + GRID * j;
            bool visible = column >= seen[i].first && column < seen[i].last;
            float slope, score = score_of(h, s[i][j], &slope), weight = visible ? expf(score - lse[i]) : 0;
            if (p) p[place] = weight;
            ds[place] = weight * (dp[i][j] - delta[i]) * slope;
        }
}

/* What a query contributes to its weights; nothing visible for rows beyond `last`. */
template <int R>
__device__ static inline void query_numbers(const heads &h, int first, int last, int head, const float *lse,
                                            const float *delta, span (&seen)[R], float (&l)[R], float (&d)[R]) {
#pragma unroll
    for (int i = 0; i < R; i++) {
        int row = first + threadIdx.x / GRID * R + i;
        seen[i] = row < last ? keys_of(h, row) : span{0, 0};
        l[i] = row < last ? lse[(int64_t)row * h.count + head] : 0;
        d[i] = row < last ? delta[(int64_t)row * h.count + head] : 0;
    }
}

template <typename T, int D>
static __global__ void __launch_bounds__(ATTENTION_THREADS)
    query_kernel(int q_rows, heads h, const T *q, int64_t q_stride, const T *k, int64_t k_stride, const T *v,
                 int64_t v_stride, const float *lse, const float *delta, const T *d_o, int64_t d_stride, T *dq,
                 int64_t dq_stride, bool quads) {
    constexpr int ROWS = rows_for<D>(), R = ROWS / GRID, TILE = ROWS * (D + PAD);
    extern __shared__ float4 aligned[];
    float *queries = reinterpret_cast<float *>(aligned), *gradients = queries + TILE, *keys = gradients + TILE,
          *values = keys + TILE, *ds = values + TILE;
    int first = blockIdx.x * ROWS, head = blockIdx.y, count = min(ROWS, q_rows - first);
    int begin = keys_of(h, first).first, end = keys_of(h, first + count - 1).last;
    span seen[R];
    float l[R], d[R], s[R][R], dp[R][R], sum[R][D / GRID] = {}, one[R];
    query_numbers<R>(h, first, q_rows, head, lse, delta, seen, l, d);
    k += head / h.per_kv * h.dim, v += head / h.per_kv * h.dim;
    load_tile<T, D, ROWS>(queries, q + head * h.dim, q_stride, first, count, h.dim, quads);
    load_tile<T, D, ROWS>(gradients, d_o + head * h.dim, d_stride, first, count, h.dim, quads);
    for (int key = begin; key < end; key += ROWS) {
        __syncthreads();
        load_tile<T, D, ROWS>(keys, k, k_stride, key, min(ROWS, end - key), h.dim, quads);
        load_tile<T, D, ROWS>(values, v, v_stride, key, min(ROWS, end - key), h.dim, quads);
        __syncthreads();
        dots<D, R, R>(queries, keys, s);
        dots<D, R, R>(gradients, values, dp);
        weights<R>(h, s, dp, seen, key, l, d, NULL, ds);
        __syncthreads();
        accumulate<D, R, ROWS>(ds, ROWS + 1, 1, keys, sum);
    }
#pragma unroll
    for (int i = 0; i < R; i++) one[i] = 1;
    store_rows<T, D, R>(sum, one, dq + head * h.dim, dq_stride, first, q_rows, h.dim);
}

template <typename T, int D>
static __global__ void __launch_bounds__(ATTENTION_THREADS)
    key_kernel(int kv_rows, heads h, const T *q, int64_t q_stride, const T *k, int64_t k_stride, const T *v,
               int64_t v_stride, const float *lse, const float *delta, const T *d_o, int64_t d_stride, T *dk,
               int64_t dk_stride, T *dv, int64_t dv_stride, bool quads) {
    constexpr int ROWS = rows_for<D>(), R = ROWS / GRID, TILE = ROWS * (D + PAD);
    extern __shared__ float4 aligned[];
    float *queries = reinterpret_cast<float *>(aligned), *gradients = queries + TILE, *keys = gradients + TILE,
          *values = keys + TILE, *p = values + TILE, *ds = p + ROWS * (ROWS + 1);
    int first = blockIdx.x * ROWS, kv_head = blockIdx.y, count = min(ROWS, kv_rows - first);
    int begin = queries_of(h, first).first, end = queries_of(h, first + count - 1).last;
    span seen[R];
    float l[R], d[R], s[R][R], dp[R][R], k_sum[R][D / GRID] = {}, v_sum[R][D / GRID] = {}, one[R];
    load_tile<T, D, ROWS>(keys, k + kv_head * h.dim, k_stride, first, count, h.dim, quads);
    load_tile<T, D, ROWS>(values, v + kv_head * h.dim, v_stride, first, count, h.dim, quads);
    for (int head = kv_head * h.per_kv; head < (kv_head + 1) * h.per_kv; head++)
        for (int query = begin; query < end; query += ROWS) {
            __syncthreads();
            load_tile<T, D, ROWS>(queries, q + head * h.dim, q_stride, query, min(ROWS, end - query), h.dim,
                                  quads);
            load_tile<T, D, ROWS>(gradients, d_o + head * h.dim, d_stride, query, min(ROWS, end - query), h.dim,
                                  quads);
            query_numbers<R>(h, query, end, head, lse, delta, seen, l, d);
            __syncthreads();
            dots<D, R, R>(queries, keys, s);
            dots<D, R, R>(gradients, values, dp);
            weights<R>(h, s, dp, seen, first, l, d, p, ds);
            __syncthreads();
            accumulate<D, R, ROWS>(p, 1, ROWS + 1, gradients, v_sum);
            accumulate<D, R, ROWS>(ds, 1, ROWS + 1, queries, k_sum);
        }
#pragma unroll
    for (int i = 0; i < R; i++) one[i] = 1;
    store_rows<T, D, R>(k_sum, one, dk + kv_head * h.dim, dk_stride, first, kv_rows, h.dim);
    store_rows<T, D, R>(v_sum, one, dv + kv_head * h.dim, dv_stride, first, kv_rows, h.dim);
}

template <typename T, int D>
static tn_status backward(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v, tn_view o,
                          const float *lse, tn_view d_o, tn_view dq, tn_view dk, tn_view dv, float *delta) {
    cudaStream_t stream = tn_cuda(device)->stream;
    heads h = heads_of(a);
    bool quads = a->head_dim % 4 == 0 && quads_of<T>(q) && quads_of<T>(k) && quads_of<T>(v) && quads_of<T>(d_o);
    constexpr int bytes = shared_bytes<D>(), ROWS = rows_for<D>();
    cudaError_t error =
        cudaFuncSetAttribute(query_kernel<T, D>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error == cudaSuccess)
        error = cudaFuncSetAttribute(key_kernel<T, D>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) return tn_cuda_check(error, "attention_backward");
    delta_kernel<T><<<(unsigned)blocks_for(a->q_rows * a->heads, 8), 256, 0, stream>>>(
        a->q_rows, h.count, h.dim, at<T>(o), o.stride, at<T>(d_o), d_o.stride, delta);
    dim3 keys((unsigned)blocks_for(a->kv_rows, ROWS), (unsigned)a->kv_heads);
    key_kernel<T, D><<<keys, ATTENTION_THREADS, bytes, stream>>>(
        (int)a->kv_rows, h, at<T>(q), q.stride, at<T>(k), k.stride, at<T>(v), v.stride, lse, delta, at<T>(d_o),
        d_o.stride, at<T>(dk), dk.stride, at<T>(dv), dv.stride, quads);
    dim3 queries((unsigned)blocks_for(a->q_rows, ROWS), (unsigned)a->heads);
    query_kernel<T, D><<<queries, ATTENTION_THREADS, bytes, stream>>>(
        (int)a->q_rows, h, at<T>(q), q.stride, at<T>(k), k.stride, at<T>(v), v.stride, lse, delta, at<T>(d_o),
        d_o.stride, at<T>(dq), dq.stride, quads);
    return tn_cuda_launched("attention_backward");
}

tn_status tn_cuda_flash_backward(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v,
                                 tn_view o, const float *lse, tn_view d_o, tn_view dq, tn_view dk, tn_view dv) {
    float *delta = (float *)tn_cuda_take(device, a->q_rows * a->heads * (int64_t)sizeof(float));
    if (!delta) return TN_FAILED;
    WITH_TYPE(device, WITH_HEAD(a->head_dim,
                                return (backward<T, D>(device, a, q, k, v, o, lse, d_o, dq, dk, dv, delta))));
}
