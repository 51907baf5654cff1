/* thin.cu: the gradients of LoRA's A and B, for all projections of a group together (kernels: thin.cuh).
 *
 * Two ways. TN_THIN_ALL, for a dy that the cache cannot hold and r ≤ 16: a pass over dy makes dB and v on one
 * trip, then one over x makes dA. TN_THIN_SUMS, for smaller ones, where launches are what counts: v is there
 * already, and one launch goes over dy and x. Either reads x once, however many projections it feeds. The
 * partial sums lie in cublasLt's workspace, which is free between two products: it sets how many slices the
 * rows are cut into, and how many rows go at once. What else there is, the library does no worse (TN_THIN_NONE;
 * docs/speed.md).
 */
#include "op/cuda/thin.cuh"

static const int64_t worth_one_trip = 24 << 20; /* bytes of dy */
static const int64_t inner_room = TN_CUDA_WORKSPACE / 2, partials_room = TN_CUDA_WORKSPACE / 2;
/* What starting a block, and adding partial sums up in a kernel of their own, takes: in rows of one block. */
static const int64_t start_rows = 96, adding_rows = 2048;

enum { WIDEST = 96 };
using trip = thin_shape<2, 4, 1, 3, true>;
template <int NT>
using sums_of = thin_shape<NT, NT <= 4 ? 4 : 2, 8, 3, false>;
static_assert(sums_of<4>::BYTES <= sums_of<12>::BYTES && trip::BYTES <= 160 << 10, "compute capability 8.0");

/* ---- What there is to do ------------------------------------------------------------------------------- */

/* Columns [first, first + count) of a border, widened to whole eights. */
struct run {
    int first, skipped, width;
};
static run run_of(int64_t first, int64_t count) {
    int64_t start = first / 8 * 8;
    return {(int)start, (int)(first - start), (int)((first + count + 7) / 8 * 8 - start)};
}

static thin_task *add_task(thin_pass *pass, const bf16 *matrix, int64_t stride, int64_t cols, float scale) {
    thin_task *task = &pass->task[pass->tasks++];
    *task = {};
    task->matrix = matrix, task->matrix_stride = stride, task->cols = cols, task->scale = scale;
    return task;
}

/* dB of every part: dyᵀ·u, and the part's columns of B for v. */
static void add_b(thin_pass *pass, const tn_linear *linear, tn_view x, tn_view dy, const void *b,
                  int64_t b_stride, float alpha) {
    int64_t output = 0, column = 0;
    for (int p = 0; p < linear->parts; p++) {
        const tn_lora *lora = &linear->part[p].lora;
        int64_t rows = linear->part[p].weight.rows;
        if (lora->r) {
            run r = run_of(column, lora->r);
            thin_task *task = add_task(pass, at<bf16>(dy) + output, dy.stride, rows, alpha * lora->scale);
            task->thin = at<bf16>(x) + linear->in + r.first, task->thin_stride = x.stride;
            task->factors = static_cast<const bf16 *>(b) + output * b_stride + r.first;
            task->factors_stride = b_stride, task->width = r.width, task->border = r.first;
            task->output[0] = {lora->db, r.skipped, (int)lora->r};
        }
        output += rows, column += lora->r;
    }
}

/* dAᵀ = xᵀ·v of parts first … last, whose columns of v stand side by side. */
static void add_a(thin_pass *pass, const tn_linear *linear, int first, int last, tn_view x, tn_view dy,
                  float alpha) {
    int64_t column = 0, count = 0;
    for (int p = 0; p < first; p++) column += linear->part[p].lora.r;
    for (int p = first; p <= last; p++) count += linear->part[p].lora.r;
    if (count == 0) return;
    run r = run_of(column, count);
    thin_task *task = add_task(pass, at<bf16>(x), x.stride, linear->in, alpha);
    task->thin = at<bf16>(dy) + linear->out + r.first, task->thin_stride = dy.stride;
    task->width = r.width, task->border = r.first, task->transposed = true;
    for (int p = first, j = r.skipped; p <= last; j += (int)linear->part[p].lora.r, p++)
        task->output[p - first] = {linear->part[p].lora.da, j, (int)linear->part[p].lora.r};
}

static void add_all_a(thin_pass *pass, const tn_linear *linear, tn_view x, tn_view dy, float alpha) {
    if (linear->rank <= WIDEST) return add_a(pass, linear, 0, linear->parts - 1, x, dy, alpha);
    for (int p = 0; p < linear->parts; p++) add_a(pass, linear, p, p, x, dy, alpha);
}

static int widest(const thin_pass *pass) {
    int width = 0;
    for (int i = 0; i < pass->tasks; i++)
        if (pass->task[i].width > width) width = pass->task[i].width;
    return width;
}

/* ---- Running a pass ------------------------------------------------------------------------------------ */

static int64_t time_of(int64_t rows, int64_t blocks, int64_t places) {
    return blocks_for(blocks, places) * (rows + start_rows);
}

/* The number of slices, at most `most`, with which the last block is done soonest. */
static int slices_for(int64_t rows, int64_t tiles, int64_t places, int64_t most, int64_t adding) {
    int64_t best = 1, least = time_of(rows, tiles, places);
    for (int64_t slices = 2; slices <= most && slices * 64 <= rows; slices++) {
        int64_t time = time_of(blocks_for(rows, slices), tiles * slices, places) + adding;
        if (time < least) best = slices, least = time;
    }
    return (int)best;
}

template <typename S>
static int64_t sums_bytes(const thin_pass *pass) {
    return (int64_t)pass->tiles * S::COLS * S::THIN * 4;
}

/* Numbers the tiles, cuts the rows into slices, and goes down the matrices. */
template <typename S>
static tn_status go_down(tn_device *device, thin_pass *pass) {
    tn_cuda_device *cuda = tn_cuda(device);
    pass->tiles = 0;
    for (int i = 0; i < pass->tasks; i++) {
        pass->task[i].first_tile = pass->tiles;
        pass->tiles += (int)blocks_for(pass->task[i].cols, S::COLS);
    }
    pass->slices = slices_for(pass->rows, pass->tiles, cuda->multiprocessors,
                              partials_room / sums_bytes<S>(pass), S::INNER ? 0 : adding_rows);
    pass->inner = static_cast<float *>(device->scratch);
    pass->partials = pass->inner + inner_room / 4;
    dim3 grid((unsigned)pass->tiles, (unsigned)pass->slices);
    cudaFuncSetAttribute(thin_kernel<S>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::BYTES);
    thin_kernel<S><<<grid, THIN_THREADS, S::BYTES, cuda->stream>>>(*pass);
    if (S::INNER || pass->slices > 1)
        thin_add_kernel<S><<<(unsigned)blocks_for(sums_bytes<S>(pass) / 4, 256), 256, 0, cuda->stream>>>(*pass);
    return tn_cuda_launched("LoRA's gradients");
}

static tn_status sums(tn_device *device, thin_pass *pass) {
    int width = widest(pass);
    if (width <= 16) return go_down<sums_of<2>>(device, pass);
    if (width <= 32) return go_down<sums_of<4>>(device, pass);
    if (width <= 48) return go_down<sums_of<6>>(device, pass);
    if (width <= 64) return go_down<sums_of<8>>(device, pass);
    return go_down<sums_of<12>>(device, pass);
}

/* dB and v, as many rows at once as there is room for their inner products. */
static tn_status one_trip(tn_device *device, const tn_linear *linear, int64_t rows, thin_pass pass,
                          tn_view dy) {
    bf16 *v = at<bf16>(dy) + linear->out;
    int64_t tiles = 0, most;
    for (int i = 0; i < pass.tasks; i++) tiles += blocks_for(pass.task[i].cols, trip::COLS);
    most = inner_room / (tiles * trip::THIN * 4) / 16 * 16;
    for (int64_t row = 0; row < rows; row += pass.rows) {
        pass.rows = rows - row < most ? rows - row : most;
        tn_status status = go_down<trip>(device, &pass);
        if (status != TN_OK) return status;
        unsigned blocks = (unsigned)blocks_for(pass.rows * linear->border, 256);
        thin_inner_kernel<trip::THIN>
            <<<blocks, 256, 0, tn_cuda(device)->stream>>>(pass, linear->border, v + row * dy.stride, dy.stride);
        for (int i = 0; i < pass.tasks; i++)
            pass.task[i].matrix += pass.rows * pass.task[i].matrix_stride,
                pass.task[i].thin += pass.rows * pass.task[i].thin_stride;
    }
    return tn_cuda_launched("v");
}

/* ---- The way ------------------------------------------------------------------------------------------- */

/* Whether all widths are whole eights and everything begins on 16 bytes. */
static bool aligned(const tn_linear *linear, tn_view x, tn_view dy, const void *b, int64_t b_stride) {
    bool even = linear->in % 8 == 0 && b_stride % 8 == 0 && wide(b) && wide<bf16>(x) && wide<bf16>(dy);
    for (int p = 0; p < linear->parts; p++) even &= linear->part[p].weight.rows % 8 == 0;
    return even;
}

tn_cuda_thin_way tn_cuda_thin_way_of(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x,
                                     tn_view dy, const void *b, int64_t b_stride) {
    int64_t column = 0, width = 0;
    if (device->dtype != TN_DTYPE_BF16 || !aligned(linear, x, dy, b, b_stride)) return TN_THIN_NONE;
    for (int p = 0; p < linear->parts; p++) {
        const tn_lora *lora = &linear->part[p].lora;
        if (lora->r == 0) continue;
        if (!lora->da || !lora->db) return TN_THIN_NONE;
        int64_t w = run_of(column, lora->r).width;
        if (w > width) width = w;
        column += lora->r;
    }
    int64_t columns = linear->out + TN_MAX_PARTS * trip::COLS; /* at most, in whole tiles */
    bool fits = trip::BYTES <= tn_cuda(device)->shared_limit && columns * trip::THIN * 4 <= partials_room;
    if (width == 0 || width > WIDEST || sums_of<12>::BYTES > tn_cuda(device)->shared_limit) return TN_THIN_NONE;
    if (rows * linear->out * 2 < worth_one_trip) return TN_THIN_SUMS;
    return width <= trip::THIN && fits ? TN_THIN_ALL : TN_THIN_NONE;
}

tn_status tn_cuda_thin_gradients(tn_device *device, tn_cuda_thin_way way, const tn_linear *linear, int64_t rows,
                                 tn_view x, tn_view dy, const void *b, int64_t b_stride, float alpha) {
    thin_pass pass = {};
    pass.rows = rows;
    add_b(&pass, linear, x, dy, b, b_stride, alpha);
    if (way == TN_THIN_ALL) {
        tn_status status = one_trip(device, linear, rows, pass, dy);
        if (status != TN_OK) return status;
        pass.tasks = 0;
    }
    add_all_a(&pass, linear, x, dy, alpha);
    return sums(device, &pass);
}
