/* rows.cu: operations that move or combine rows element by element: add, gather, scatter, copy, widen,
 * the activation, gated and alone, and the rotary embedding. All are bound by memory: one thread moves one 16-byte
 * piece of a row [rows, cols].
 */
#include "op/cuda/kernel.cuh"

template <typename T, int V>
static __global__ void add_kernel(int64_t rows, int64_t cols, const T *a, int64_t a_stride, const T *b,
                                  int64_t b_stride, T *y, int64_t y_stride) {
    int64_t row = TILE_ROW, col = TILE_ITEM * V;
    if (row >= rows || col >= cols) return;
    float p[V], q[V];
    load<T, V>(a + row * a_stride + col, p);
    load<T, V>(b + row * b_stride + col, q);
#pragma unroll
    for (int i = 0; i < V; i++) p[i] += q[i];
    store<T, V>(y + row * y_stride + col, p);
}

template <typename T, int V>
static tn_status add(int64_t rows, int64_t cols, tn_view a, tn_view b, tn_view y, cudaStream_t stream) {
    tile t(rows, blocks_for(cols, V));
    add_kernel<T, V><<<t.grid, t.block, 0, stream>>>(rows, cols, at<T>(a), a.stride, at<T>(b), b.stride,
                                                     at<T>(y), y.stride);
    return tn_cuda_launched("add");
}

tn_status tn_cuda_add(tn_device *device, int64_t rows, int64_t cols, tn_view a, tn_view b, tn_view y) {
    cudaStream_t stream = tn_cuda(device)->stream;
    if (rows == 0) return TN_OK;
    WITH_TYPE(device, constexpr int V = width<T>();
              return cols % V == 0 && wide<T>(a) && wide<T>(b) && wide<T>(y)
                         ? add<T, V>(rows, cols, a, b, y, stream)
                         : add<T, 1>(rows, cols, a, b, y, stream));
}

/* to[TO ? index[row] : row] = from[FROM ? index[row] : row] */
template <typename T, int V, bool FROM, bool TO>
static __global__ void move_kernel(int64_t rows, int64_t cols, const int32_t *index, const T *from,
                                   int64_t from_stride, T *to, int64_t to_stride) {
    int64_t row = TILE_ROW, col = TILE_ITEM * V;
    if (row >= rows || col >= cols) return;
    int64_t source = FROM ? index[row] : row, target = TO ? index[row] : row;
    *reinterpret_cast<vec<T, V> *>(to + target * to_stride + col) =
        *reinterpret_cast<const vec<T, V> *>(from + source * from_stride + col);
}

template <bool FROM, bool TO>
static tn_status move_rows(tn_device *device, int64_t rows, int64_t cols, const int32_t *index, tn_view from,
                           tn_view to) {
    cudaStream_t stream = tn_cuda(device)->stream;
    if (rows == 0) return TN_OK;
    WITH_TYPE(device, {
        constexpr int V = width<T>();
        bool fast = cols % V == 0 && wide<T>(from) && wide<T>(to);
        tile t(rows, fast ? cols / V : cols);
        auto kernel = fast ? move_kernel<T, V, FROM, TO> : move_kernel<T, 1, FROM, TO>;
        kernel<<<t.grid, t.block, 0, stream>>>(rows, cols, index, at<T>(from), from.stride, at<T>(to),
                                               to.stride);
    });
    return tn_cuda_launched("moving rows");
}

tn_status tn_cuda_gather_rows(tn_device *device, int64_t rows, int64_t cols, const int32_t *index, tn_view from,
                              tn_view to) {
    return move_rows<true, false>(device, rows, cols, index, from, to);
}
tn_status tn_cuda_scatter_rows(tn_device *device, int64_t rows, int64_t cols, const int32_t *index,
                               tn_view from, tn_view to) {
    return move_rows<false, true>(device, rows, cols, index, from, to);
}
tn_status tn_cuda_copy_rows(tn_device *device, int64_t rows, int64_t cols, tn_view from, tn_view to) {
    return move_rows<false, false>(device, rows, cols, NULL, from, to);
}

template <typename T>
static __global__ void widen_kernel(int64_t rows, int64_t cols, const T *from, int64_t stride, float *to) {
    int64_t row = TILE_ROW, col = TILE_ITEM;
    if (row < rows && col < cols) to[row * cols + col] = widen(from[row * stride + col]);
}

tn_status tn_cuda_widen(tn_device *device, int64_t rows, int64_t cols, tn_view from, float *to) {
    if (rows == 0) return TN_OK;
    tile t(rows, cols);
    WITH_TYPE(device, widen_kernel<T>
              <<<t.grid, t.block, 0, tn_cuda(device)->stream>>>(rows, cols, at<T>(from), from.stride, to));
    return tn_cuda_launched("widen");
}

/* ---- Activation -------------------------------------------------------------------------------------- */

/* act(x) and its derivative. silu: x·σ(x). gelu: x·Φ(x), exact or by tanh. */
__device__ static inline float activate(tn_activation activation, float x, float *slope) {
    if (activation == TN_SILU) {
        float s = 1.0f / (1.0f + expf(-x));
        *slope = s * (1.0f + x * (1.0f - s));
        return x * s;
    }
    if (activation == TN_GELU) {
        float phi = 0.5f * (1.0f + erff(x * 0.70710678118654752f));
        *slope = phi + x * 0.39894228040143268f * expf(-0.5f * x * x);
        return x * phi;
    }
    const float a = 0.79788456080286536f, b = 0.044715f;
    float t = tanhf(a * (x + b * x * x * x));
    *slope = 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * a * (1.0f + 3.0f * b * x * x);
    return 0.5f * x * (1.0f + t);
}

/* y may be x. */
template <typename T, int V>
static __global__ void activate_kernel(int64_t rows, int64_t cols, tn_activation activation, const T *x,
                                       int64_t stride, T *y, int64_t y_stride) {
    int64_t row = TILE_ROW, col = TILE_ITEM * V;
    if (row >= rows || col >= cols) return;
    float value[V], slope;
    load<T, V>(x + row * stride + col, value);
#pragma unroll
    for (int i = 0; i < V; i++) value[i] = activate(activation, value[i], &slope);
    store<T, V>(y + row * y_stride + col, value);
}

tn_status tn_cuda_activate(tn_device *device, int64_t rows, int64_t cols, tn_activation activation, tn_view x,
                           tn_view y) {
    if (rows == 0) return TN_OK;
    WITH_TYPE(device, {
        constexpr int V = width<T>();
        bool fast = cols % V == 0 && wide<T>(x) && wide<T>(y);
        tile t(rows, fast ? cols / V : cols);
        auto kernel = fast ? activate_kernel<T, V> : activate_kernel<T, 1>;
        kernel<<<t.grid, t.block, 0, tn_cuda(device)->stream>>>(rows, cols, activation, at<T>(x), x.stride,
                                                                at<T>(y), y.stride);
    });
    return tn_cuda_launched("activate");
}

template <typename T, int V>
static __global__ void gated_kernel(int64_t rows, int64_t cols, tn_activation activation, const T *gate_up,
                                    int64_t stride, T *y, int64_t y_stride) {
    int64_t row = TILE_ROW, col = TILE_ITEM * V;
    if (row >= rows || col >= cols) return;
    float gate[V], up[V], slope;
    load<T, V>(gate_up + row * stride + col, gate);
    load<T, V>(gate_up + row * stride + cols + col, up);
#pragma unroll
    for (int i = 0; i < V; i++) gate[i] = activate(activation, gate[i], &slope) * up[i];
    store<T, V>(y + row * y_stride + col, gate);
}

tn_status tn_cuda_gated_forward(tn_device *device, int64_t rows, int64_t cols, tn_activation activation,
                                tn_view gate_up, tn_view y) {
    if (rows == 0) return TN_OK;
    WITH_TYPE(device, {
        constexpr int V = width<T>();
        bool fast = cols % V == 0 && wide<T>(gate_up) && wide<T>(y);
        tile t(rows, fast ? cols / V : cols);
        auto kernel = fast ? gated_kernel<T, V> : gated_kernel<T, 1>;
        kernel<<<t.grid, t.block, 0, tn_cuda(device)->stream>>>(rows, cols, activation, at<T>(gate_up),
                                                                gate_up.stride, at<T>(y), y.stride);
    });
    return tn_cuda_launched("gated_forward");
}

/* d may be gate_up: each thread reads what it overwrites, and nothing else. */
template <typename T, int V>
static __global__ void gated_backward_kernel(int64_t rows, int64_t cols, tn_activation activation,
                                             const T *gate_up, int64_t stride, const T *dy, int64_t dy_stride,
                                             T *d, int64_t d_stride) {
    int64_t row = TILE_ROW, col = TILE_ITEM * V;
    if (row >= rows || col >= cols) return;
    float gate[V], up[V], g[V];
    load<T, V>(gate_up + row * stride + col, gate);
    load<T, V>(gate_up + row * stride + cols + col, up);
    load<T, V>(dy + row * dy_stride + col, g);
#pragma unroll
    for (int i = 0; i < V; i++) {
        float slope, value = activate(activation, gate[i], &slope), weight = up[i];
        up[i] = g[i] * value;
        gate[i] = g[i] * weight * slope;
    }
    store<T, V>(d + row * d_stride + col, gate);
    store<T, V>(d + row * d_stride + cols + col, up);
}

tn_status tn_cuda_gated_backward(tn_device *device, int64_t rows, int64_t cols, tn_activation activation,
                                 tn_view gate_up, tn_view dy, tn_view d_gate_up) {
    if (rows == 0) return TN_OK;
    WITH_TYPE(device, {
        constexpr int V = width<T>();
        bool fast = cols % V == 0 && wide<T>(gate_up) && wide<T>(dy) && wide<T>(d_gate_up);
        tile t(rows, fast ? cols / V : cols);
        auto kernel = fast ? gated_backward_kernel<T, V> : gated_backward_kernel<T, 1>;
        kernel<<<t.grid, t.block, 0, tn_cuda(device)->stream>>>(rows, cols, activation, at<T>(gate_up),
                                                                gate_up.stride, at<T>(dy), dy.stride,
                                                                at<T>(d_gate_up), d_gate_up.stride);
    });
    return tn_cuda_launched("gated_backward");
}

/* ---- Rotary embedding -------------------------------------------------------------------------------- */

static __global__ void rope_table_kernel(int64_t rows, int64_t half, const int32_t *positions,
                                         const int32_t *row_table, const float *inv_freq, float scaling,
                                         float *cosines, float *sines) {
    int64_t row = TILE_ROW, i = TILE_ITEM;
    if (row >= rows || i >= half) return;
    float angle = (float)positions[row] * inv_freq[(row_table ? row_table[row] : 0) * half + i], s, c;
    sincosf(angle, &s, &c);
    cosines[row * half + i] = c * scaling;
    sines[row * half + i] = s * scaling;
}

tn_status tn_cuda_rope_table(tn_device *device, int64_t rows, int64_t half, const int32_t *positions,
                             const int32_t *row_table, const float *inv_freq, float scaling, float *cosines,
                             float *sines) {
    if (rows == 0) return TN_OK;
    tile t(rows, half);
    rope_table_kernel<<<t.grid, t.block, 0, tn_cuda(device)->stream>>>(rows, half, positions, row_table,
                                                                       inv_freq, scaling, cosines, sines);
    return tn_cuda_launched("rope_table");
}

/* An item is V pairs of one head; `pieces` = half / V of them make a head. */
template <typename T, int V>
static __global__ void rope_kernel(int64_t rows, int heads, int64_t head_dim, int half, T *x, int64_t stride,
                                   const float *cosines, const float *sines, float sign) {
    int64_t row = TILE_ROW;
    int pieces = half / V, item = (int)TILE_ITEM, head = item / pieces, i = item % pieces * V;
    if (row >= rows || head >= heads) return;
    T *low = x + row * stride + head * head_dim + i, *high = low + half;
    float a[V], b[V], c[V], s[V], p[V], q[V];
    load<T, V>(low, a);
    load<T, V>(high, b);
    load<float, V>(cosines + row * half + i, c);
    load<float, V>(sines + row * half + i, s);
#pragma unroll
    for (int k = 0; k < V; k++) {
        float turn = sign * s[k];
        p[k] = a[k] * c[k] - b[k] * turn;
        q[k] = b[k] * c[k] + a[k] * turn;
    }
    store<T, V>(low, p);
    store<T, V>(high, q);
}

tn_status tn_cuda_rope(tn_device *device, int64_t rows, int64_t heads, int64_t head_dim, int64_t half,
                       tn_view x, const float *cosines, const float *sines, bool inverse) {
    if (rows == 0 || half == 0) return TN_OK;
    WITH_TYPE(device, {
        constexpr int V = width<T>();
        bool fast = half % V == 0 && head_dim % V == 0 && wide<T>(x) && wide(cosines) && wide(sines);
        tile t(rows, heads * (fast ? half / V : half));
        auto kernel = fast ? rope_kernel<T, V> : rope_kernel<T, 1>;
        kernel<<<t.grid, t.block, 0, tn_cuda(device)->stream>>>(
            rows, (int)heads, head_dim, (int)half, at<T>(x), x.stride, cosines, sines, inverse ? -1.0f : 1.0f);
    });
    return tn_cuda_launched("rope");
}
