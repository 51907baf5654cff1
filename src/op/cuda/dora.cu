/* dora.cu: what DoRA (op/dora.h) needs of the GPU: norms of the rows of W + scale·B·A, and steps over matrices
 * that lie in the scratch.
 *
 * No row of W + scale·B·A is ever written: a block makes NORM_ROWS rows, NORM_WIDE columns at a time, in
 * registers. Every element of A that is read serves all of these rows, every element of B all columns of a
 * thread. W is in the compute dtype; a quantised one is decoded into the scratch first, as for a product. Sums
 * in fp32 over a thread's columns, in double beyond, in a fixed order.
 */
#include "op/cuda/columns.cuh"
#include "op/cuda/dora.h"

enum {
    NORM_ROWS = 8,
    NORM_THREADS = 256,
    NORM_COLUMNS = 4, /* of a thread, NORM_THREADS apart */
    NORM_WIDE = NORM_THREADS * NORM_COLUMNS,
    NORM_RANKS = 64 /* rows of A met in one round */
};

/* ---- Norms ------------------------------------------------------------------------------------------- */

/* One part: its rows of W (`stride` elements apart), fp32 A [r, cols] and B [rows, r]. */
struct part {
    int64_t rows, cols, stride, r;
    float scale;
    const float *a, *b, *magnitude;
    float *norm, *ratio;
};

/* scale·B of this block's rows, ranks first … first+NORM_RANKS-1, transposed; zeros beyond its edges. */
__device__ static inline void fetch_b(const part &p, int64_t first_row, int64_t first, float (*b)[NORM_ROWS]) {
    __syncthreads();
    for (int i = threadIdx.x; i < NORM_ROWS * NORM_RANKS; i += NORM_THREADS) {
        int64_t row = first_row + i / NORM_RANKS, j = first + i % NORM_RANKS;
        b[i % NORM_RANKS][i / NORM_RANKS] = row < p.rows && j < p.r ? p.scale * p.b[row * p.r + j] : 0;
    }
    __syncthreads();
}

/* value += scale·B·A over ranks first … first+count-1, columns k, k + NORM_THREADS, … */
__device__ static inline void add_ranks(const part &p, int64_t k, int64_t first, int count,
                                        const float (*b)[NORM_ROWS], float (&value)[NORM_ROWS][NORM_COLUMNS]) {
    for (int j = 0; j < count; j++) {
        float a[NORM_COLUMNS];
#pragma unroll
        for (int c = 0; c < NORM_COLUMNS; c++) {
            const int64_t column = k + c * NORM_THREADS;
            a[c] = column < p.cols ? p.a[(first + j) * p.cols + column] : 0;
        }
#pragma unroll
        for (int i = 0; i < NORM_ROWS; i++)
#pragma unroll
            for (int c = 0; c < NORM_COLUMNS; c++) value[i][c] += b[j][i] * a[c];
    }
}

template <typename T>
static __global__ void norm_kernel(part p, const T *w) {
    __shared__ alignas(16) float b[NORM_RANKS][NORM_ROWS];
    __shared__ double shared[32];
    const int64_t first_row = (int64_t)blockIdx.x * NORM_ROWS;
    float squares[NORM_ROWS] = {};
    if (p.r <= NORM_RANKS) fetch_b(p, first_row, 0, b);
    for (int64_t start = 0; start < p.cols; start += NORM_WIDE) {
        const int64_t k = start + threadIdx.x;
        float value[NORM_ROWS][NORM_COLUMNS];
#pragma unroll
        for (int i = 0; i < NORM_ROWS; i++)
#pragma unroll
            for (int c = 0; c < NORM_COLUMNS; c++) {
                const int64_t row = first_row + i, column = k + c * NORM_THREADS;
                value[i][c] = row < p.rows && column < p.cols ? widen(w[row * p.stride + column]) : 0;
            }
        for (int64_t first = 0; first < p.r; first += NORM_RANKS) {
            if (p.r > NORM_RANKS) fetch_b(p, first_row, first, b);
            add_ranks(p, k, first, (int)(p.r - first < NORM_RANKS ? p.r - first : NORM_RANKS), b, value);
        }
#pragma unroll
        for (int i = 0; i < NORM_ROWS; i++)
#pragma unroll
            for (int c = 0; c < NORM_COLUMNS; c++) squares[i] += value[i][c] * value[i][c];
    }
#pragma unroll
    for (int i = 0; i < NORM_ROWS; i++) {
        const int64_t row = first_row + i;
        const double total = block_sum((double)squares[i], shared);
        if (threadIdx.x != 0 || row >= p.rows) continue;
        const float norm = (float)sqrt(total);
        p.norm[row] = norm;
        p.ratio[row] = norm > 0 ? p.magnitude[row] / norm : 1;
    }
}

static __global__ void ones_kernel(int64_t rows, float *norm, float *ratio) {
    int64_t row = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (row < rows) norm[row] = ratio[row] = 1;
}

static tn_status part_norms(tn_device *device, const tn_part *given, float *norm, float *ratio) {
    cudaStream_t stream = tn_cuda(device)->stream;
    const tn_weight *w = &given->weight;
    const tn_lora *l = &given->lora;
    const void *data = w->data;
    part p = {w->rows, w->cols, w->stride, l->r, l->scale, l->a, l->b, l->magnitude, norm, ratio};
    if (!l->dora) {
        ones_kernel<<<(unsigned)blocks_for(w->rows, 256), 256, 0, stream>>>(w->rows, norm, ratio);
        return tn_cuda_launched("DoRA's norms");
    }
    if (tn_dtype_is_block(w->dtype)) {
        tn_cuda_begin(device);
        void *decoded = tn_cuda_take(device, w->rows * w->cols * tn_cuda_size(device->dtype));
        tn_status status = decoded ? tn_cuda_dequantize(device, w, decoded, w->cols) : TN_FAILED;
        if (status != TN_OK) return status;
        data = decoded, p.stride = w->cols;
    }
    WITH_TYPE(device, norm_kernel<T>
              <<<(unsigned)blocks_for(w->rows, NORM_ROWS), NORM_THREADS, 0, stream>>>(p, (const T *)data));
    return tn_cuda_launched("DoRA's norms");
}

tn_status tn_cuda_dora_refresh(tn_device *device, tn_linear *linear) {
    int64_t output = 0;
    tn_status status = TN_OK;
    for (int i = 0; linear->norm && i < linear->parts && status == TN_OK; i++) {
        status = part_norms(device, &linear->part[i], linear->norm + output, linear->ratio + output);
        output += linear->part[i].weight.rows;
    }
    return status;
}

/* ---- Steps ------------------------------------------------------------------------------------------- */

/* Rows of one part; every view, and `bias` [cols] or NULL, begins at its first column. */
template <typename T>
struct result {
    int64_t rows, cols;
    const float *ratio;
    const T *bias, *z, *c, *residual; /* all but z may be NULL */
    T *y;
    int64_t z_stride, c_stride, residual_stride, y_stride;
    float alpha;
};

template <typename T, int V>
static __global__ void finish_kernel(result<T> p) {
    int64_t row = TILE_ROW, col = TILE_ITEM * V;
    float value[V], c[V] = {}, bias[V] = {}, residual[V] = {};
    if (row >= p.rows || col >= p.cols) return;
    load<T, V>(p.z + row * p.z_stride + col, value);
    if (p.c) load<T, V>(p.c + row * p.c_stride + col, c);
    if (p.bias) load<T, V>(p.bias + col, bias);
    if (p.residual) load<T, V>(p.residual + row * p.residual_stride + col, residual);
#pragma unroll
    for (int i = 0; i < V; i++) {
        const float g = p.ratio[col + i];
        value[i] = p.alpha * (g * value[i] + (g - 1) * c[i] + bias[i]) + residual[i];
    }
    store<T, V>(p.y + row * p.y_stride + col, value);
}

static tn_status finish_part(tn_device *device, const tn_part *given, const float *ratio, int64_t rows,
                             tn_view z, tn_view c, tn_view y, tn_view residual, float alpha) {
    const int64_t cols = given->weight.rows;
    WITH_TYPE(device, {
        constexpr int V = width<T>();
        result<T> p = {
            rows,     cols,     ratio,    (const T *)given->bias, at<T>(z), at<T>(c), at<T>(residual),
            at<T>(y), z.stride, c.stride, residual.stride,        y.stride, alpha};
        bool fast =
            cols % V == 0 && wide<T>(z) && wide<T>(c) && wide<T>(y) && wide<T>(residual) && wide(given->bias);
        tile t(rows, fast ? cols / V : cols);
        auto kernel = fast ? finish_kernel<T, V> : finish_kernel<T, 1>;
        kernel<<<t.grid, t.block, 0, tn_cuda(device)->stream>>>(p);
    });
    return tn_cuda_launched("DoRA's result");
}

static tn_status finish(tn_device *device, const tn_linear *linear, int64_t rows, tn_view z, tn_view c,
                        tn_view y, tn_view residual, float alpha) {
    int64_t output = 0;
    tn_status status = TN_OK;
    for (int p = 0; p < linear->parts && status == TN_OK; p++) {
        status = finish_part(device, &linear->part[p], linear->ratio + output, rows, tn_view_at(device, z, 0, output),
                             tn_view_at(device, c, 0, output), tn_view_at(device, y, 0, output),
                             tn_view_at(device, residual, 0, output), alpha);
        output += linear->part[p].weight.rows;
    }
    return status;
}

/* dy·(z + c) / norm, leaving g·dy in z and (g−1)·dy in c. */
template <typename T, int V>
struct turn_term {
    const T *dy;
    T *z, *c;
    int64_t dy_stride, z_stride, c_stride;
    const float *norm, *ratio;
    __device__ void operator()(int64_t row, int64_t col, float (&value)[V]) const {
        float gradient[V], sum[V], dropped[V] = {};
        load<T, V>(dy + row * dy_stride + col, gradient);
        load<T, V>(z + row * z_stride + col, sum);
        if (c) load<T, V>(c + row * c_stride + col, dropped);
#pragma unroll
        for (int i = 0; i < V; i++) {
            const float length = norm[col + i], g = ratio[col + i];
            value[i] = length > 0 ? gradient[i] * (sum[i] + dropped[i]) / length : 0;
            sum[i] = g * gradient[i], dropped[i] = (g - 1) * gradient[i];
        }
        store<T, V>(z + row * z_stride + col, sum);
        if (c) store<T, V>(c + row * c_stride + col, dropped);
    }
};

template <typename T, int V>
static tn_status turn_part(tn_device *device, int64_t rows, int64_t cols, tn_view dy, tn_view z, tn_view c,
                           const float *norm, const float *ratio, float alpha, float *dmagnitude) {
    turn_term<T, V> term = {at<T>(dy), at<T>(z), at<T>(c), dy.stride, z.stride, c.stride, norm, ratio};
    return sum_columns<V>(device, rows, cols, term, alpha, dmagnitude);
}

static tn_status turn(tn_device *device, int64_t rows, int64_t cols, tn_view dy, tn_view z, tn_view c,
                      const float *norm, const float *ratio, float alpha, float *dmagnitude) {
    tn_cuda_begin(device);
    WITH_TYPE(device, {
        constexpr int V = width<T>();
        bool fast = cols % V == 0 && wide<T>(dy) && wide<T>(z) && wide<T>(c);
        return fast ? turn_part<T, V>(device, rows, cols, dy, z, c, norm, ratio, alpha, dmagnitude)
                    : turn_part<T, 1>(device, rows, cols, dy, z, c, norm, ratio, alpha, dmagnitude);
    });
    return TN_OK;
}

const tn_dora_steps tn_cuda_dora = {tn_cuda_dropout_less, finish, turn};
