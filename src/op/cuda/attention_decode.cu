/* attention_decode.cu: attention of few queries over many keys (generation). The keys of a query are cut into
 * SPLITS pieces, one block each, so that one token keeps the whole card busy; a second kernel joins the
 * pieces in order. A warp takes one key at a time; lane i holds columns i, i + 32, ….
 */
#include "op/cuda/attention.cuh"

enum { WARPS = 8, SPLITS = 32, KEYS_PER_SPLIT = 256 };

/* One piece: maximum, sum and weighted values, [rows, heads, splits, D + 2] in scratch. */
template <typename T, int D>
static __global__ void __launch_bounds__(WARPS * 32)
    piece_kernel(heads h, const T *q, int64_t q_stride, const T *k, int64_t k_stride, const T *v,
                 int64_t v_stride, float *pieces) {
    constexpr int N = D / 32;
    __shared__ float shared[WARPS][D + 2];
    int split = blockIdx.x, splits = gridDim.x, head = blockIdx.y, row = blockIdx.z;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    span seen = keys_of(h, row);
    int64_t length = seen.last - seen.first;
    int begin = seen.first + (int)(length * split / splits),
        end = seen.first + (int)(length * (split + 1) / splits);
    float query[N], sum[N] = {}, top = -INFINITY, total = 0, slope;
    q += row * q_stride + head * h.dim, k += head / h.per_kv * h.dim, v += head / h.per_kv * h.dim;
#pragma unroll
    for (int i = 0; i < N; i++) query[i] = lane + 32 * i < h.dim ? widen(q[lane + 32 * i]) : 0;
#pragma unroll 2
    for (int key = begin + warp; key < end; key += WARPS) {
        float dot = 0;
#pragma unroll
        for (int i = 0; i < N; i++)
            if (lane + 32 * i < h.dim) dot += query[i] * widen(k[key * k_stride + lane + 32 * i]);
        float s = score_of(h, warp_sum(dot), &slope), largest = fmaxf(top, s);
        float shrink = expf(top - largest), weight = expf(s - largest);
        total = total * shrink + weight, top = largest;
#pragma unroll
        for (int i = 0; i < N; i++)
            if (lane + 32 * i < h.dim)
                sum[i] = sum[i] * shrink + weight * widen(v[key * v_stride + lane + 32 * i]);
    }
#pragma unroll
    for (int i = 0; i < N; i++) shared[warp][lane + 32 * i] = sum[i];
    if (lane == 0) shared[warp][D] = top, shared[warp][D + 1] = total;
    __syncthreads();
    float *piece = pieces + (((int64_t)row * h.count + head) * splits + split) * (D + 2);
    for (int w = 0; w < WARPS; w++) top = fmaxf(top, shared[w][D]);
    for (int d = threadIdx.x; d < D + 2; d += WARPS * 32) {
        float value = 0;
        for (int w = 0; w < WARPS; w++)
            if (shared[w][D] > -INFINITY) value += expf(shared[w][D] - top) * shared[w][d];
        piece[d] = d == D ? top : value;
    }
}

template <typename T, int D>
static __global__ void join_kernel(heads h, int splits, const float *pieces, T *o, int64_t o_stride,
                                   float *lse) {
    int head = blockIdx.x, row = blockIdx.y;
    const float *piece = pieces + ((int64_t)row * h.count + head) * splits * (D + 2);
    float top = -INFINITY, total = 0;
    for (int s = 0; s < splits; s++) top = fmaxf(top, piece[s * (D + 2) + D]);
    for (int s = 0; s < splits; s++)
        if (piece[s * (D + 2) + D] > -INFINITY)
            total += expf(piece[s * (D + 2) + D] - top) * piece[s * (D + 2) + D + 1];
    for (int d = threadIdx.x; d < h.dim; d += blockDim.x) {
        float sum = 0;
        for (int s = 0; s < splits; s++)
            if (piece[s * (D + 2) + D] > -INFINITY)
                sum += expf(piece[s * (D + 2) + D] - top) * piece[s * (D + 2) + d];
        o[row * o_stride + head * h.dim + d] = narrow<T>(total > 0 ? sum / total : 0);
    }
    if (lse && threadIdx.x == 0) lse[(int64_t)row * h.count + head] = top + logf(total);
}

template <typename T, int D>
static tn_status decode(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v, tn_view o,
                        float *lse) {
    cudaStream_t stream = tn_cuda(device)->stream;
    heads h = heads_of(a);
    int64_t wanted = blocks_for(a->longest_kv, KEYS_PER_SPLIT), splits = wanted < 1        ? 1
                                                                         : wanted > SPLITS ? SPLITS
                                                                                           : wanted;
    float *pieces =
        (float *)tn_cuda_take(device, a->q_rows * a->heads * splits * (D + 2) * (int64_t)sizeof(float));
    if (!pieces) return TN_FAILED;
    dim3 grid((unsigned)splits, (unsigned)a->heads, (unsigned)a->q_rows),
        joined((unsigned)a->heads, (unsigned)a->q_rows);
    piece_kernel<T, D><<<grid, WARPS * 32, 0, stream>>>(h, at<T>(q), q.stride, at<T>(k), k.stride, at<T>(v),
                                                        v.stride, pieces);
    join_kernel<T, D><<<joined, 128, 0, stream>>>(h, (int)splits, pieces, at<T>(o), o.stride, lse);
    return tn_cuda_launched("attention_forward");
}

tn_status tn_cuda_decode_attention(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v,
                                   tn_view o, float *lse) {
    WITH_TYPE(device, WITH_HEAD(a->head_dim, return (decode<T, D>(device, a, q, k, v, o, lse))));
}

/* Of the larger of the two: pieces of a decode, delta of a backward pass. */
int64_t tn_cuda_flash_scratch(const tn_limits *limits) {
    int64_t padded = limits->head_dim <= 64 ? 64 : limits->head_dim <= 128 ? 128 : 256;
    int64_t pieces = TN_CUDA_DECODE_ROWS * limits->heads * SPLITS * (padded + 2) * (int64_t)sizeof(float);
    int64_t delta = limits->backward ? limits->rows * limits->heads * (int64_t)sizeof(float) : 0;
    return tn_cuda_round(pieces > delta ? pieces : delta);
}
