/* thin.cuh: the kernels of LoRA's gradients: products of a tall matrix with a thin one over the rows, and, on
 * the same trip through the matrix, its product with the other thin one.
 *
 *   sums[cols, width]  = matrix[rows, cols]ᵀ · thin[rows, width]     dB = dyᵀ·u, dAᵀ = xᵀ·v
 *   inner[rows, width] = matrix[rows, cols] · factors[cols, width]   v = dy·sB
 *
 * A block owns COLS columns of one task's matrix and one run of rows (a slice), and walks down the slice in
 * chunks of ROWS rows, STAGES chunks at a time in shared memory. Its warps stand WARP_ROWS deep: with 8 each
 * takes 16 rows of a chunk, and the sums of those over the same columns are added at the end; with 1 (INNER)
 * each has columns of its own, so that a chunk's inner products are complete, over the block's columns, when
 * all warps are added up. What goes beyond the block is written as partial sums and added in order by the
 * kernels at the end: the same bits in every run. bf16 in, fp32 sums.
 */
#ifndef TN_OP_CUDA_THIN_CUH
#define TN_OP_CUDA_THIN_CUH

#include "op/cuda/mma.cuh"

typedef __nv_bfloat16 bf16;

enum { THIN_WARPS = 16, THIN_THREADS = THIN_WARPS * 32, THIN_TASKS = 2 * TN_MAX_PARTS };

/* Columns first … first+count-1 of the sums belong to `to`: [cols, count], or [count, cols] where transposed.
 */
struct thin_output {
    float *to;
    int first, count;
};
struct thin_task {
    const bf16 *matrix, *thin, *factors; /* all rows begin on 16 bytes */
    int64_t matrix_stride, thin_stride, factors_stride, cols;
    int width;  /* multiple of 8 */
    int border; /* where thin begins in the border it is part of */
    int first_tile;
    bool transposed;
    float scale;
    thin_output output[TN_MAX_PARTS];
};
/* partials [slices, tiles, COLS·THIN], not needed for one slice; inner [tiles, rows, THIN]. */
struct thin_pass {
    int tasks, tiles, slices;
    int64_t rows;
    float *partials, *inner;
    thin_task task[THIN_TASKS];
};

/* NT: eights of columns of the thin matrix; MT: sixteens of columns of the matrix that a warp owns. */
template <int NT, int MT, int WARP_ROWS_, int STAGES_, bool INNER_>
struct thin_shape {
    static constexpr int WARP_ROWS = WARP_ROWS_, STAGES = STAGES_;
    static constexpr bool INNER = INNER_;
    static constexpr int EIGHTS = NT, SIXTEENS = MT, THIN = NT * 8;
    static constexpr int GROUPS = THIN_WARPS / WARP_ROWS, ROWS = WARP_ROWS * 16, COLS = GROUPS * MT * 16;
    /* Eight rows of 16 bytes must lie in different banks for ldmatrix: one access more than the row. */
    static constexpr int PITCH = COLS + 8, THIN_PITCH = THIN + 8;
    static constexpr int STAGE = ROWS * (PITCH + THIN_PITCH), SUMS = 16 * THIN_PITCH;
    static constexpr int FACTOR_BYTES = INNER ? COLS * THIN * 2 : 0;
    static constexpr int INNER_BYTES = INNER ? 2 * THIN_WARPS * SUMS * 4 : 0;
    static constexpr int EXTRA_BYTES = FACTOR_BYTES > INNER_BYTES ? FACTOR_BYTES : INNER_BYTES;
    static constexpr int BYTES = STAGES * STAGE * 2 + EXTRA_BYTES;
    static_assert(INNER || THIN_WARPS * SUMS * 4 <= STAGES * STAGE * 2, "the warps' sums lie over the stages");
};

/* The task that a tile belongs to. */
__device__ inline int thin_index(const thin_pass &pass, int tile) {
    int index = 0;
    for (int i = 1; i < pass.tasks; i++)
        if (tile >= pass.task[i].first_tile) index = i;
    return index;
}

/* Where the sum (col, j) is accumulated; NULL for columns of neighbours and padding. */
__device__ inline float *thin_target(const thin_task &task, int64_t col, int j) {
    float *to = nullptr;
#pragma unroll
    for (int i = 0; i < TN_MAX_PARTS; i++) {
        const thin_output &o = task.output[i];
        if (j >= o.first && j < o.first + o.count)
            to = o.to + (task.transposed ? (j - o.first) * task.cols + col : col * o.count + j - o.first);
    }
    return col < task.cols ? to : nullptr;
}

/* Starts the copy of rows [row, row + ROWS) ∩ [0, last) into a stage. */
template <typename S>
__device__ inline void thin_fetch(const thin_task &task, int64_t col, int64_t row, int64_t last, bf16 *stage) {
    constexpr int PIECES = S::COLS / 8;
#pragma unroll
    for (int k = 0; k < S::ROWS * PIECES / THIN_THREADS; k++) {
        int i = k * THIN_THREADS + (int)threadIdx.x, r = i / PIECES, c = i % PIECES * 8;
        bool valid = row + r < last && col + c < task.cols;
        copy_async(stage + r * S::PITCH + c,
                   task.matrix + (valid ? (row + r) * task.matrix_stride + col + c : 0), valid);
    }
    stage += S::ROWS * S::PITCH;
    for (int i = (int)threadIdx.x; i < S::ROWS * S::EIGHTS; i += THIN_THREADS) {
        int r = i / S::EIGHTS, c = i % S::EIGHTS * 8;
        bool valid = row + r < last && c < task.width;
        copy_async(stage + r * S::THIN_PITCH + c, task.thin + (valid ? (row + r) * task.thin_stride + c : 0),
                   valid);
    }
}

template <typename S>
__device__ inline void thin_fetch_factors(const thin_task &task, int64_t col, bf16 *to) {
    for (int i = (int)threadIdx.x; i < S::COLS * S::EIGHTS; i += THIN_THREADS) {
        int r = i / S::EIGHTS, c = i % S::EIGHTS * 8;
        bool valid = col + r < task.cols && c < task.width;
        copy_async(to + r * S::THIN + c, task.factors + (valid ? (col + r) * task.factors_stride + c : 0),
                   valid);
    }
}

/* A warp's columns of the factors, as fragments that stay in registers. */
template <typename S>
__device__ inline void thin_load_factors(const bf16 *from, uint32_t (&to)[S::SIXTEENS][S::EIGHTS / 2][4]) {
    int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < S::SIXTEENS; m++)
#pragma unroll
        for (int n = 0; n < S::EIGHTS / 2; n++)
            load_transposed(to[m][n], from + (m * 16 + lane % 16) * S::THIN + n * 16 + lane / 16 * 8);
}

/* A fragment of sums [16, 8] into rows of THIN_PITCH floats. */
template <typename S>
__device__ inline void thin_put(float *to, int n, const float (&sum)[4]) {
    int lane = (int)threadIdx.x % 32;
    float *at = to + lane / 4 * S::THIN_PITCH + n * 8 + lane % 4 * 2;
    *reinterpret_cast<float2 *>(at) = make_float2(sum[0], sum[1]);
    *reinterpret_cast<float2 *>(at + 8 * S::THIN_PITCH) = make_float2(sum[2], sum[3]);
}

/* The shares of COUNT warps in element (row, j), in order. */
template <typename S, int COUNT>
__device__ inline float thin_total(const float *shares, int row, int j) {
    float total = 0;
#pragma unroll
    for (int warp = 0; warp < COUNT; warp++) total += shares[warp * S::SUMS + row * S::THIN_PITCH + j];
    return total;
}

/* One chunk: a warp's 16 rows times its columns. */
template <typename S>
__device__ inline void thin_multiply(const bf16 *matrix, const bf16 *thin,
                                     const uint32_t (&factors)[S::SIXTEENS][S::EIGHTS / 2][4],
                                     float (&sums)[S::SIXTEENS][S::EIGHTS][4], float (&inner)[S::EIGHTS][4]) {
    int lane = (int)threadIdx.x % 32;
    uint32_t t[S::EIGHTS / 2][4], a[4];
#pragma unroll
    for (int n = 0; n < S::EIGHTS / 2; n++)
        load_transposed(t[n], thin + lane % 16 * S::THIN_PITCH + n * 16 + lane / 16 * 8);
#pragma unroll
    for (int m = 0; m < S::SIXTEENS; m++) {
        load_transposed(a, matrix + (lane % 8 + lane / 16 * 8) * S::PITCH + m * 16 + lane / 8 % 2 * 8);
#pragma unroll
        for (int n = 0; n < S::EIGHTS; n++)
            multiply_add(sums[m][n], a, t[n / 2][n % 2 * 2], t[n / 2][n % 2 * 2 + 1]);
        if constexpr (!S::INNER) continue;
        load_matrices(a, matrix + lane % 16 * S::PITCH + m * 16 + lane / 16 * 8);
#pragma unroll
        for (int n = 0; n < S::EIGHTS; n++)
            multiply_add(inner[n], a, factors[m][n / 2][n % 2 * 2], factors[m][n / 2][n % 2 * 2 + 1]);
    }
}

/* What warps one behind another have summed: added up, then to the gradients or to the partial sums. */
template <typename S>
__device__ inline void thin_finish(const thin_pass &pass, const thin_task &task, int64_t col, float *shares,
                                   float *partials, const float (&sums)[S::SIXTEENS][S::EIGHTS][4]) {
    int warp = (int)threadIdx.x / 32;
#pragma unroll
    for (int m = 0; m < S::SIXTEENS; m++) {
        __syncthreads();
#pragma unroll
        for (int n = 0; n < S::EIGHTS; n++) thin_put<S>(shares + warp * S::SUMS, n, sums[m][n]);
        __syncthreads();
        for (int i = (int)threadIdx.x; i < S::GROUPS * 16 * S::THIN; i += THIN_THREADS) {
            int group = i / (16 * S::THIN), e = i % (16 * S::THIN);
            int c = task.transposed ? e % 16 : e / S::THIN, j = task.transposed ? e / 16 : e % S::THIN;
            float total = thin_total<S, S::WARP_ROWS>(shares + group * S::WARP_ROWS * S::SUMS, c, j);
            c += (group * S::SIXTEENS + m) * 16;
            float *to = pass.slices == 1 ? thin_target(task, col + c, j) : nullptr;
            if (to) *to += task.scale * total;
            if (pass.slices > 1) partials[task.transposed ? j * S::COLS + c : c * S::THIN + j] = total;
        }
    }
}

/* The same of warps side by side, which share no sums: partial sums only. */
template <typename S>
__device__ inline void thin_finish_apart(float *partials, const float (&sums)[S::SIXTEENS][S::EIGHTS][4]) {
    int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < S::SIXTEENS; m++)
#pragma unroll
        for (int n = 0; n < S::EIGHTS; n++) {
            float *to = partials + (m * 16 + lane / 4) * S::THIN + n * 8 + lane % 4 * 2;
            *reinterpret_cast<float2 *>(to) = make_float2(sums[m][n][0], sums[m][n][1]);
            *reinterpret_cast<float2 *>(to + 8 * S::THIN) = make_float2(sums[m][n][2], sums[m][n][3]);
        }
}

/* Inner products of 16 rows from `row` on, over the block's columns. */
template <typename S>
__device__ inline void thin_store_inner(const float *shares, int64_t row, int64_t last, float *inner) {
    for (int i = (int)threadIdx.x; i < 16 * S::THIN; i += THIN_THREADS)
        if (row + i / S::THIN < last)
            inner[row * S::THIN + i] = thin_total<S, THIN_WARPS>(shares, i / S::THIN, i % S::THIN);
}

template <typename S>
static __global__ __launch_bounds__(THIN_THREADS, 1) void thin_kernel(const __grid_constant__ thin_pass pass) {
    extern __shared__ __align__(128) char memory[];
    bf16 *stages = reinterpret_cast<bf16 *>(memory);
    bf16 *extra = stages + S::STAGES * S::STAGE; /* the factors, then two chunks' shares of inner products */
    float *shares = reinterpret_cast<float *>(S::INNER ? extra : stages);
    const int tile = (int)blockIdx.x, slice = (int)blockIdx.y, warp = (int)threadIdx.x / 32;
    const thin_task &task = pass.task[thin_index(pass, tile)];
    const int64_t col = (int64_t)(tile - task.first_tile) * S::COLS, units = (pass.rows + 15) / 16;
    const int64_t first = units * slice / pass.slices * 16, end = units * (slice + 1) / pass.slices * 16;
    const int64_t last = end < pass.rows ? end : pass.rows;
    const int chunks = (int)((last - first + S::ROWS - 1) / S::ROWS);
    const int warp_row = warp % S::WARP_ROWS * 16, warp_col = warp / S::WARP_ROWS * S::SIXTEENS * 16;
    float *partials = pass.partials + ((int64_t)slice * pass.tiles + tile) * S::COLS * S::THIN;
    float *inner_sums = pass.inner + (int64_t)tile * pass.rows * S::THIN;
    float sums[S::SIXTEENS][S::EIGHTS][4] = {}, inner[S::EIGHTS][4];
    uint32_t factors[S::SIXTEENS][S::EIGHTS / 2][4];

    auto fetch = [&](int chunk) {
        if (chunk < chunks)
            thin_fetch<S>(task, col, first + (int64_t)chunk * S::ROWS, last,
                          stages + chunk % S::STAGES * S::STAGE);
        copy_commit();
    };
    auto store_inner = [&](int chunk) {
        thin_store_inner<S>(shares + chunk % 2 * THIN_WARPS * S::SUMS, first + (int64_t)chunk * 16, last,
                            inner_sums);
    };

    if constexpr (S::INNER) {
        thin_fetch_factors<S>(task, col, extra);
        copy_commit();
    }
    for (int chunk = 0; chunk < S::STAGES - 1; chunk++) fetch(chunk);
    if constexpr (S::INNER) {
        copy_wait<S::STAGES - 1>();
        __syncthreads();
        thin_load_factors<S>(extra + warp_col * S::THIN, factors);
    }
    for (int chunk = 0; chunk < chunks; chunk++) {
        copy_wait<S::STAGES - 2>();
        __syncthreads(); /* this chunk is there for all, and all are done with the one before */
        fetch(chunk + S::STAGES - 1);
        const bf16 *stage = stages + chunk % S::STAGES * S::STAGE;
        if constexpr (S::INNER) {
            if (chunk > 0) store_inner(chunk - 1);
#pragma unroll
            for (int n = 0; n < S::EIGHTS; n++) inner[n][0] = inner[n][1] = inner[n][2] = inner[n][3] = 0;
        }
        thin_multiply<S>(stage + warp_row * S::PITCH + warp_col,
                         stage + S::ROWS * S::PITCH + warp_row * S::THIN_PITCH, factors, sums, inner);
        if constexpr (S::INNER) {
#pragma unroll
            for (int n = 0; n < S::EIGHTS; n++)
                thin_put<S>(shares + (chunk % 2 * THIN_WARPS + warp) * S::SUMS, n, inner[n]);
        }
    }
    copy_wait<0>();
    if constexpr (S::INNER) {
        __syncthreads();
        if (chunks > 0) store_inner(chunks - 1);
        thin_finish_apart<S>(partials + warp_col * S::THIN, sums);
    } else thin_finish<S>(pass, task, col, shares, partials, sums);
}

/* gradients += scale · partial sums of all slices, in order. */
template <typename S>
static __global__ void thin_add_kernel(const __grid_constant__ thin_pass pass) {
    constexpr int TILE = S::COLS * S::THIN;
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    int tile = (int)(i / TILE), e = (int)(i % TILE);
    if (tile >= pass.tiles) return;
    const thin_task &task = pass.task[thin_index(pass, tile)];
    int c = task.transposed ? e % S::COLS : e / S::THIN, j = task.transposed ? e / S::COLS : e % S::THIN;
    float *to = thin_target(task, (int64_t)(tile - task.first_tile) * S::COLS + c, j), total = 0;
    if (!to) return;
    for (int slice = 0; slice < pass.slices; slice++)
        total += pass.partials[(int64_t)slice * pass.tiles * TILE + i];
    *to += task.scale * total;
}

/* v [rows, width], the border of dy: a column belongs to one task, whose tiles' inner products are added in
 * order; zeros where it belongs to none. */
template <int THIN>
static __global__ void thin_inner_kernel(const __grid_constant__ thin_pass pass, int64_t width, bf16 *v,
                                         int64_t stride) {
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, row = i / width;
    int c = (int)(i % width);
    float total = 0;
    if (row >= pass.rows) return;
    for (int k = 0; k < pass.tasks; k++) {
        const thin_task &task = pass.task[k];
        int j = c - task.border, end = k + 1 < pass.tasks ? pass.task[k + 1].first_tile : pass.tiles;
        if (j < task.output[0].first || j >= task.output[0].first + task.output[0].count) continue;
        for (int tile = task.first_tile; tile < end; tile++)
            total += pass.inner[((int64_t)tile * pass.rows + row) * THIN + j];
    }
    v[row * stride + c] = narrow<bf16>(total);
}

#endif
