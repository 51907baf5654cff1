/* weights.cu: kernels that write weights and their compute copies (the LoRA border, rounded masters, random
 * values, biases), and the dropout mask of the LoRA path.
 */
#include "base/rng.h"
#include "op/cuda/kernel.cuh"
#include "op/cuda/philox.cuh"

/* The LoRA pairs of a group, by value: where each part starts in rows of B and in columns of the border. */
struct pairs {
    int parts;
    const float *a[TN_MAX_PARTS], *b[TN_MAX_PARTS];
    float scale[TN_MAX_PARTS];
    int64_t r[TN_MAX_PARTS], row[TN_MAX_PARTS + 1], column[TN_MAX_PARTS + 1];
};

static pairs pairs_of(const tn_linear *linear) {
    pairs p = {};
    p.parts = linear->parts;
    for (int i = 0; i < linear->parts; i++) {
        const tn_lora *lora = &linear->part[i].lora;
        p.a[i] = lora->a, p.b[i] = lora->b, p.scale[i] = lora->scale, p.r[i] = lora->r;
        p.row[i + 1] = p.row[i] + linear->part[i].weight.rows;
        p.column[i + 1] = p.column[i] + lora->r;
    }
    return p;
}

/* copy[row, column] = scale·B where row and column belong to one part, else 0. */
template <typename T>
static __global__ void b_kernel(int64_t rows, int64_t border, pairs p, T *copy, int64_t stride) {
    int64_t row = TILE_ROW, column = TILE_ITEM;
    if (row >= rows || column >= border) return;
    float value = 0;
#pragma unroll
    for (int i = 0; i < TN_MAX_PARTS; i++)
        if (i < p.parts && row >= p.row[i] && row < p.row[i + 1] && column >= p.column[i] &&
            column < p.column[i + 1])
            value = p.scale[i] * p.b[i][(row - p.row[i]) * p.r[i] + column - p.column[i]];
    copy[row * stride + column] = narrow<T>(value);
}

/* copy[row, column] = A of the part whose row this is, 0 in the padding. */
template <typename T>
static __global__ void a_kernel(int64_t border, int64_t in, pairs p, T *copy, int64_t stride) {
    int64_t row = TILE_ROW, column = TILE_ITEM;
    if (row >= border || column >= in) return;
    float value = 0;
#pragma unroll
    for (int i = 0; i < TN_MAX_PARTS; i++)
        if (i < p.parts && row >= p.column[i] && row < p.column[i + 1])
            value = p.a[i][(row - p.column[i]) * in + column];
    copy[row * stride + column] = narrow<T>(value);
}

tn_status tn_cuda_refresh_border(tn_device *device, const tn_linear *linear, void *b_copy, int64_t b_stride,
                                 void *a_copy, int64_t a_stride) {
    cudaStream_t stream = tn_cuda(device)->stream;
    pairs p = pairs_of(linear);
    tile b(linear->out, linear->border), a(linear->border, linear->in);
    WITH_TYPE(device, {
        b_kernel<T><<<b.grid, b.block, 0, stream>>>(linear->out, linear->border, p, (T *)b_copy, b_stride);
        a_kernel<T><<<a.grid, a.block, 0, stream>>>(linear->border, linear->in, p, (T *)a_copy, a_stride);
    });
    return tn_cuda_launched("refreshing LoRA copies");
}

template <typename T>
static __global__ void round_kernel(int64_t rows, int64_t cols, const float *from, T *to, int64_t stride) {
    int64_t step = (int64_t)gridDim.x * blockDim.x, count = rows * cols;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step)
        to[i / cols * stride + i % cols] = narrow<T>(from[i]);
}

tn_status tn_cuda_round_rows(tn_device *device, int64_t rows, int64_t cols, const float *from, void *to,
                             int64_t stride) {
    unsigned blocks = (unsigned)tn_cuda(device)->multiprocessors * 16;
    WITH_TYPE(device,
              round_kernel<T><<<blocks, 256, 0, tn_cuda(device)->stream>>>(rows, cols, from, (T *)to, stride));
    return tn_cuda_launched("rounding masters");
}

/* Elements first … of a matrix as rows of `cols`; first is even. */
template <typename T>
static __global__ void random_kernel(int64_t first, int64_t rows, int64_t cols, uint64_t seed, uint64_t stream,
                                     float std, T *to, int64_t stride) {
    int64_t step = (int64_t)gridDim.x * blockDim.x, count = rows * cols;
    for (int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 2; i < count; i += step * 2) {
        float value[2] = {std < 0 ? 1.0f : 0.0f, std < 0 ? 1.0f : 0.0f};
        if (std > 0) random_normals(seed, stream, (uint64_t)(first + i) / 2, &value[0], &value[1]);
        for (int k = 0; k < 2 && i + k < count; k++)
            to[(i + k) / cols * stride + (i + k) % cols] = narrow<T>(std > 0 ? value[k] * std : value[k]);
    }
}

tn_status tn_cuda_random_rows(tn_device *device, const tn_source *source, int64_t rows, int64_t cols, void *to,
                              int64_t stride) {
    unsigned blocks = (unsigned)tn_cuda(device)->multiprocessors * 16;
    uint64_t stream = TN_STREAM(TN_PURPOSE_BENCH, 0, 0);
    WITH_TYPE(device, random_kernel<T><<<blocks, 256, 0, tn_cuda(device)->stream>>>(
                          0, rows, cols, source->seed, stream, source->std, (T *)to, stride));
    return tn_cuda_launched("random weights");
}

tn_status tn_cuda_random_values(tn_device *device, const tn_source *source, int64_t first, int64_t count,
                                float *to) {
    unsigned blocks = (unsigned)tn_cuda(device)->multiprocessors * 16;
    random_kernel<float><<<blocks, 256, 0, tn_cuda(device)->stream>>>(
        first, 1, count, source->seed, TN_STREAM(TN_PURPOSE_BENCH, 0, 0), source->std, to, count);
    return tn_cuda_launched("random values");
}

struct biases {
    int parts;
    const void *bias[TN_MAX_PARTS];
    int64_t row[TN_MAX_PARTS + 1];
};

template <typename T>
static __global__ void bias_kernel(int64_t out, biases b, float alpha, T *to) {
    int64_t row = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= out) return;
    float value = 0;
#pragma unroll
    for (int i = 0; i < TN_MAX_PARTS; i++)
        if (i < b.parts && b.bias[i] && row >= b.row[i] && row < b.row[i + 1])
            value = alpha * widen(((const T *)b.bias[i])[row - b.row[i]]);
    to[row] = narrow<T>(value);
}

tn_status tn_cuda_collect_bias(tn_device *device, const tn_linear *linear, float alpha, void *to) {
    biases b = {};
    b.parts = linear->parts;
    for (int i = 0; i < linear->parts; i++) {
        b.bias[i] = linear->part[i].bias;
        b.row[i + 1] = b.row[i] + linear->part[i].weight.rows;
    }
    WITH_TYPE(device,
              bias_kernel<T><<<(unsigned)blocks_for(linear->out, 256), 256, 0, tn_cuda(device)->stream>>>(
                  linear->out, b, alpha, (T *)to));
    return tn_cuda_launched("collecting biases");
}

/* to (+)= (drop − less) ⊙ from. One thread masks the V columns that share a block of four random numbers (V = 4),
 * or one column. */
template <typename T, int V>
static __global__ void dropout_kernel(int64_t rows, int64_t cols, uint64_t seed, uint64_t stream,
                                      int64_t first_row, float p, float less, const T *from,
                                      int64_t from_stride, T *to, int64_t to_stride, bool accumulate) {
    int64_t row = TILE_ROW, col = TILE_ITEM * V;
    if (row >= rows || col >= cols) return;
    uint64_t index = (uint64_t)((first_row + row) * cols + col);
    uint32_t words[4];
    float value[V], old[V], keep = 1 / (1 - p);
    random4(seed, stream, index / 4, words);
    load<T, V>(from + row * from_stride + col, value);
    if (accumulate) load<T, V>(to + row * to_stride + col, old);
#pragma unroll
    for (int i = 0; i < V; i++) {
        int k = V == 4 ? i : (int)(index % 4);
        uint32_t word = k == 0 ? words[0] : k == 1 ? words[1] : k == 2 ? words[2] : words[3];
        float factor = ((float)(word >> 8) * (1.0f / 16777216.0f) < p ? 0.0f : keep) - less;
        float dropped = value[i] * factor;
        value[i] = accumulate ? old[i] + dropped : dropped;
    }
    store<T, V>(to + row * to_stride + col, value);
}

static tn_status drop(tn_device *device, const tn_linear *linear, int part, const tn_dropout *dropout, float less,
                      int64_t rows, tn_view from, tn_view to, bool accumulate) {
    uint64_t stream = TN_STREAM(TN_PURPOSE_DROPOUT, dropout->step, (uint64_t)linear->site * 4 + (uint64_t)part);
    int64_t cols = linear->in;
    WITH_TYPE(device, {
        bool fast = cols % 4 == 0 && wide<T>(from) && wide<T>(to);
        tile t(rows, fast ? cols / 4 : cols);
        auto kernel = fast ? dropout_kernel<T, 4> : dropout_kernel<T, 1>;
        kernel<<<t.grid, t.block, 0, tn_cuda(device)->stream>>>(rows, cols, dropout->seed, stream,
                                                                dropout->first_row, dropout->p, less, at<T>(from),
                                                                from.stride, at<T>(to), to.stride, accumulate);
    });
    return tn_cuda_launched("dropout");
}

tn_status tn_cuda_dropout(tn_device *device, const tn_linear *linear, int part, const tn_dropout *dropout,
                          int64_t rows, tn_view from, tn_view to, bool accumulate) {
    return drop(device, linear, part, dropout, 0, rows, from, to, accumulate);
}

tn_status tn_cuda_dropout_less(tn_device *device, const tn_linear *linear, int part, const tn_dropout *dropout,
                               int64_t rows, tn_view from, tn_view to, bool accumulate) {
    return drop(device, linear, part, dropout, 1, rows, from, to, accumulate);
}
