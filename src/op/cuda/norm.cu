/* norm.cu: RMS normalisation, forward and backward. A row has `groups` segments of `cols` columns, each
 * normalised on its own (1 for the block norms, heads for q/k norms); TEAM threads share a segment: a warp
 * for short ones, a block for long ones. The second pass over a segment reads it from the L1 cache.
 */
#include "op/cuda/columns.cuh"

enum { THREADS = 256, WARP_COLS = 1024 };

template <int TEAM>
__device__ static inline float team_sum(float x, float *shared) {
    if constexpr (TEAM == 32) return warp_sum(x);
    else return block_sum(x, shared);
}

/* Segment of this thread's team, counted through rows and groups. */
template <int TEAM>
__device__ static inline int64_t team_segment() {
    return ((int64_t)blockIdx.x * THREADS + threadIdx.x) / TEAM;
}

template <typename T, int V, int TEAM, bool OFFSET>
static __global__ void __launch_bounds__(THREADS)
    forward_kernel(int64_t segments, int groups, int cols, const T *x, int64_t x_stride, const T *w, float eps,
                   T *y, int64_t y_stride, float *rstd) {
    __shared__ float shared[32];
    int64_t segment = team_segment<TEAM>();
    if (segment >= segments) return; /* whole teams leave */
    int64_t row = segment / groups, first = segment % groups * cols;
    const T *from = x + row * x_stride + first;
    T *to = y + row * y_stride + first;
    float squares = 0, a[V], b[V];
    for (int col = threadIdx.x % TEAM * V; col < cols; col += TEAM * V) {
        load<T, V>(from + col, a);
#pragma unroll
        for (int i = 0; i < V; i++) squares += a[i] * a[i];
    }
    float r = rsqrtf(team_sum<TEAM>(squares, shared) / cols + eps);
    if (rstd && threadIdx.x % TEAM == 0) rstd[segment] = r;
    for (int col = threadIdx.x % TEAM * V; col < cols; col += TEAM * V) {
        load<T, V>(from + col, a);
        load<T, V>(w + col, b);
#pragma unroll
        for (int i = 0; i < V; i++) a[i] = OFFSET ? a[i] * r * (1.0f + b[i]) : rounded<T>(a[i] * r) * b[i];
        store<T, V>(to + col, a);
    }
}

/* dx = r·(g − x·r²·mean(g·x)), g = dy·w. dx may be dy: a thread overwrites what it alone has read. */
template <typename T, int V, int TEAM, bool OFFSET>
static __global__ void __launch_bounds__(THREADS)
    backward_kernel(int64_t segments, int groups, int cols, const T *x, int64_t x_stride, const T *w,
                    const float *rstd, const T *dy, int64_t dy_stride, T *dx, int64_t dx_stride,
                    bool accumulate) {
    __shared__ float shared[32];
    int64_t segment = team_segment<TEAM>();
    if (segment >= segments) return;
    int64_t row = segment / groups, first = segment % groups * cols;
    const T *from = x + row * x_stride + first, *grad = dy + row * dy_stride + first;
    T *to = dx + row * dx_stride + first;
    float dot = 0, a[V], b[V], g[V], old[V];
    for (int col = threadIdx.x % TEAM * V; col < cols; col += TEAM * V) {
        load<T, V>(from + col, a);
        load<T, V>(w + col, b);
        load<T, V>(grad + col, g);
#pragma unroll
        for (int i = 0; i < V; i++) dot += g[i] * (OFFSET ? 1.0f + b[i] : b[i]) * a[i];
    }
    float r = rstd[segment], mean = team_sum<TEAM>(dot, shared) / cols * r * r;
    for (int col = threadIdx.x % TEAM * V; col < cols; col += TEAM * V) {
        load<T, V>(from + col, a);
        load<T, V>(w + col, b);
        load<T, V>(grad + col, g);
        if (accumulate) load<T, V>(to + col, old);
#pragma unroll
        for (int i = 0; i < V; i++) {
            float d = r * (g[i] * (OFFSET ? 1.0f + b[i] : b[i]) - a[i] * mean);
            g[i] = accumulate ? old[i] + d : d;
        }
        store<T, V>(to + col, g);
    }
}

/* Summed over rows and groups: segments are the rows of the column sum. */
template <typename T, int V>
struct weight_term {
    const T *x, *dy;
    int64_t x_stride, dy_stride, cols;
    int groups;
    const float *rstd;
    __device__ void operator()(int64_t segment, int64_t col, float (&value)[V]) const {
        int64_t row = segment / groups, first = segment % groups * cols + col;
        float a[V], r = rstd[segment];
        load<T, V>(x + row * x_stride + first, a);
        load<T, V>(dy + row * dy_stride + first, value);
#pragma unroll
        for (int i = 0; i < V; i++) value[i] *= a[i] * r;
    }
};

template <typename T, int V, int TEAM>
static tn_status forward(tn_device *device, int64_t segments, int64_t groups, int64_t cols, tn_view x,
                         const void *w, bool offset, float eps, tn_view y, float *rstd) {
    auto kernel = offset ? forward_kernel<T, V, TEAM, true> : forward_kernel<T, V, TEAM, false>;
    kernel<<<(unsigned)blocks_for(segments, THREADS / TEAM), THREADS, 0, tn_cuda(device)->stream>>>(
        segments, (int)groups, (int)cols, at<T>(x), x.stride, (const T *)w, eps, at<T>(y), y.stride, rstd);
    return tn_cuda_launched("rmsnorm_forward");
}

template <typename T, int V>
static tn_status forward(tn_device *device, int64_t rows, int64_t groups, int64_t cols, tn_view x,
                         const void *w, bool offset, float eps, tn_view y, float *rstd) {
    return cols <= WARP_COLS
               ? forward<T, V, 32>(device, rows * groups, groups, cols, x, w, offset, eps, y, rstd)
               : forward<T, V, THREADS>(device, rows * groups, groups, cols, x, w, offset, eps, y, rstd);
}

tn_status tn_cuda_rmsnorm_forward(tn_device *device, int64_t rows, int64_t groups, int64_t cols, tn_view x,
                                  const void *w, bool offset, float eps, tn_view y, float *rstd) {
    if (rows == 0) return TN_OK;
    WITH_TYPE(device, {
        constexpr int V = width<T>();
        bool fast = cols % V == 0 && wide<T>(x) && wide<T>(y) && wide(w);
        return fast ? forward<T, V>(device, rows, groups, cols, x, w, offset, eps, y, rstd)
                    : forward<T, 1>(device, rows, groups, cols, x, w, offset, eps, y, rstd);
    });
}

template <typename T, int V, int TEAM>
static tn_status backward(tn_device *device, int64_t segments, int64_t groups, int64_t cols, tn_view x,
                          const void *w, bool offset, const float *rstd, tn_view dy, tn_view dx,
                          bool accumulate) {
    auto kernel = offset ? backward_kernel<T, V, TEAM, true> : backward_kernel<T, V, TEAM, false>;
    kernel<<<(unsigned)blocks_for(segments, THREADS / TEAM), THREADS, 0, tn_cuda(device)->stream>>>(
        segments, (int)groups, (int)cols, at<T>(x), x.stride, (const T *)w, rstd, at<T>(dy), dy.stride,
        at<T>(dx), dx.stride, accumulate);
    return tn_cuda_launched("rmsnorm_backward");
}

/* The weight's gradient comes first: dx may overwrite dy. */
template <typename T, int V>
static tn_status backward(tn_device *device, int64_t rows, int64_t groups, int64_t cols, tn_view x,
                          const void *w, bool offset, const float *rstd, tn_view dy, tn_view dx,
                          bool accumulate, float *dw) {
    if (dw) {
        weight_term<T, V> term = {at<T>(x), at<T>(dy), x.stride, dy.stride, cols, (int)groups, rstd};
        tn_status status = sum_columns<V>(device, rows * groups, cols, term, 1.0f, dw);
        if (status != TN_OK) return status;
    }
    return cols <= WARP_COLS
               ? backward<T, V, 32>(device, rows * groups, groups, cols, x, w, offset, rstd, dy, dx, accumulate)
               : backward<T, V, THREADS>(device, rows * groups, groups, cols, x, w, offset, rstd, dy, dx,
                                         accumulate);
}

tn_status tn_cuda_rmsnorm_backward(tn_device *device, int64_t rows, int64_t groups, int64_t cols, tn_view x,
                                   const void *w, bool offset, const float *rstd, tn_view dy, tn_view dx,
                                   bool accumulate, float *dw) {
    if (rows == 0) return TN_OK;
    tn_cuda_begin(device);
    WITH_TYPE(device, {
        constexpr int V = width<T>();
        bool fast = cols % V == 0 && wide<T>(x) && wide<T>(dy) && wide<T>(dx) && wide(w);
        return fast ? backward<T, V>(device, rows, groups, cols, x, w, offset, rstd, dy, dx, accumulate, dw)
                    : backward<T, 1>(device, rows, groups, cols, x, w, offset, rstd, dy, dx, accumulate, dw);
    });
}
