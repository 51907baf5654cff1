/* attention.cu: our own attention, forward. One block takes ROWS queries of one head and walks over their keys
 * KEYS at a time, with a running maximum and sum (Milakov and Gimelshein, 2018; Dao et al., FlashAttention,
 * 2022). fp32 arithmetic throughout; no T×T matrix.
 *
 *   q, o [q_rows, heads·head_dim]   k, v [kv_rows, kv_heads·head_dim]   lse [q_rows, heads]
 */
#include "op/cuda/attention.cuh"

enum { KEYS = 32 };
template <int D>
__host__ __device__ constexpr int rows_for() {
    return D == 256 ? 32 : 64;
}
template <int D>
__host__ __device__ constexpr int shared_bytes() {
    return ((rows_for<D>() + KEYS) * (D + PAD) + rows_for<D>() * (KEYS + 1)) * (int)sizeof(float);
}

template <typename T, int D>
static __global__ void __launch_bounds__(ATTENTION_THREADS)
    forward_kernel(int q_rows, heads h, const T *q, int64_t q_stride, const T *k, int64_t k_stride, const T *v,
                   int64_t v_stride, T *o, int64_t o_stride, float *lse, bool quads) {
    constexpr int ROWS = rows_for<D>(), R = ROWS / GRID, C = KEYS / GRID;
    extern __shared__ float4 aligned[];
    float *queries = reinterpret_cast<float *>(aligned), *tile = queries + ROWS * (D + PAD),
          *p = tile + KEYS * (D + PAD);
    int ty = threadIdx.x / GRID, tx = threadIdx.x % GRID;
    int first = blockIdx.x * ROWS, head = blockIdx.y, count = min(ROWS, q_rows - first);
    span seen[R];
    float top[R], total[R], sum[R][D / GRID] = {}, s[R][C], slope;
#pragma unroll
    for (int i = 0; i < R; i++) {
        int row = first + ty * R + i;
        seen[i] = row < q_rows ? keys_of(h, row) : span{0, 0};
        top[i] = -INFINITY, total[i] = 0;
    }
    int begin = keys_of(h, first).first, end = keys_of(h, first + count - 1).last;
    q += head * h.dim, k += head / h.per_kv * h.dim, v += head / h.per_kv * h.dim, o += head * h.dim;
    load_tile<T, D, ROWS>(queries, q, q_stride, first, count, h.dim, quads);
    for (int key = begin; key < end; key += KEYS) {
        __syncthreads(); /* the tile before is no longer needed */
        load_tile<T, D, KEYS>(tile, k, k_stride, key, min(KEYS, end - key), h.dim, quads);
        __syncthreads();
        dots<D, R, C>(queries, tile, s);
#pragma unroll
        for (int i = 0; i < R; i++) {
            float largest = top[i];
#pragma unroll
            for (int j = 0; j < C; j++) {
                int column = key + tx + GRID * j;
                s[i][j] =
                    column >= seen[i].first && column < seen[i].last ? score_of(h, s[i][j], &slope) : -INFINITY;
                largest = fmaxf(largest, s[i][j]);
            }
#pragma unroll
            for (int lane = GRID / 2; lane > 0; lane /= 2)
                largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, lane));
            float shrink = largest == -INFINITY ? 1.0f : expf(top[i] - largest), mass = 0;
#pragma unroll
            for (int j = 0; j < C; j++) {
                float weight = largest == -INFINITY ? 0.0f : expf(s[i][j] - largest);
                p[(ty * R + i) * (KEYS + 1) + tx + GRID * j] = weight;
                mass += weight;
            }
            total[i] = total[i] * shrink + warp_sum<GRID>(mass);
            top[i] = largest;
#pragma unroll
            for (int j = 0; j < D / GRID; j++) sum[i][j] *= shrink;
        }
        __syncthreads();
        load_tile<T, D, KEYS>(tile, v, v_stride, key, min(KEYS, end - key), h.dim, quads);
        __syncthreads();
        accumulate<D, R, KEYS>(p, KEYS + 1, 1, tile, sum);
    }
    float factor[R];
#pragma unroll
    for (int i = 0; i < R; i++) {
        int row = first + ty * R + i;
        factor[i] = total[i] > 0 ? 1 / total[i] : 0;
        if (lse && tx == 0 && row < q_rows) lse[(int64_t)row * h.count + head] = top[i] + logf(total[i]);
    }
    store_rows<T, D, R>(sum, factor, o, o_stride, first, q_rows, h.dim);
}

template <typename T, int D>
static tn_status forward(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v, tn_view o,
                         float *lse) {
    dim3 grid((unsigned)blocks_for(a->q_rows, rows_for<D>()), (unsigned)a->heads);
    bool quads = a->head_dim % 4 == 0 && quads_of<T>(q) && quads_of<T>(k) && quads_of<T>(v);
    cudaError_t error = cudaFuncSetAttribute(forward_kernel<T, D>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             shared_bytes<D>());
    if (error != cudaSuccess) return tn_cuda_check(error, "attention_forward");
    forward_kernel<T, D><<<grid, ATTENTION_THREADS, shared_bytes<D>(), tn_cuda(device)->stream>>>(
        (int)a->q_rows, heads_of(a), at<T>(q), q.stride, at<T>(k), k.stride, at<T>(v), v.stride, at<T>(o),
        o.stride, lse, quads);
    return tn_cuda_launched("attention_forward");
}

tn_status tn_cuda_flash_forward(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v,
                                tn_view o, float *lse) {
    WITH_TYPE(device, WITH_HEAD(a->head_dim, return (forward<T, D>(device, a, q, k, v, o, lse))));
}
