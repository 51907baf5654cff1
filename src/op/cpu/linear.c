/* linear.c: a group of projections with LoRA through the matrix-product library.
 *
 *   u = drop(x)·Aᵀ          into the border of x, part behind part
 *   y = residual + alpha·(x·Wᵀ + bias + scale·u·Bᵀ)
 *   v = scale·dy·B          into the border of dy
 *   dx = alpha·(dy·W + drop(v·A)),  dA += alpha·vᵀ·drop(x),  dB += alpha·scale·dyᵀ·u,  dW += alpha·dyᵀ·x
 *
 * Weights stay where they are (the mapped file, at best). In BF16, where W is packed for its product anyway,
 * the product is one of stacked matrices, [x|u]·[W|sB]ᵀ and [dy|v]·[W;A], summed in fp32 and rounded once, and
 * u and v are made on the way, of rows that are in cache for it. In F32 they are products of their own, LoRA's
 * before W's, so the rounding between the two hits the small summand. Block weights are decoded in tiles of
 * rows right before their product, and dx is then summed in fp32: in a scratch for BF16. Up to FEW rows
 * (generation) bypass the products: every output is a dot product, decoded on the way.
 *
 * In BF16 the products want A and B in bf16: `fused` points to those copies, A [r, in] of all parts, then sB
 * [out, r] of each.
 */
#include <stddef.h>

#include "base/rng.h"
#include "op/cpu/cpu.h"
#include "op/cpu/gemm.h"

enum {
    FEW = 8,        /* rows up to which dot products beat a prepared product */
    TILE = 1 << 22, /* elements of a decoded tile */
    CHUNK = 256,    /* elements decoded at a time */
    STRIP = 64      /* columns of a bias gradient per task */
};

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* LoRA's products are joined to W's. */
static bool joins(const tn_device *device) { return tn_is_bf16(device); }

static bool drops(const tn_dropout *dropout) { return dropout && dropout->p > 0; }

static tn_view shifted(tn_dtype dtype, tn_view view, int64_t columns) {
    return (tn_view){tn_at(dtype, view, 0, columns), view.stride};
}

/* ---- Compute copies of A and B ---------------------------------------------------------------------- */

/* Ranks of the parts before part p. */
static int64_t ranks_before(const tn_linear *linear, int p) {
    int64_t ranks = 0;
    while (p-- > 0) ranks += linear->part[p].lora.r;
    return ranks;
}

static int64_t copy_bytes(const tn_device *device, const tn_linear *linear, int parts) {
    int64_t bytes = tn_scratch_room(2 * ranks_before(linear, linear->parts) * linear->in);
    for (int p = 0; p < parts; p++)
        bytes += tn_scratch_room(2 * linear->part[p].lora.r * linear->part[p].weight.rows);
    return tn_is_bf16(device) ? bytes : 0;
}

/* A [r, in] of part p in the compute dtype; in BF16 those of all parts stand one behind the other. */
static const void *a_of(const tn_device *device, const tn_linear *linear, int p) {
    if (!tn_is_bf16(device)) return linear->part[p].lora.a;
    return (const uint16_t *)linear->fused + ranks_before(linear, p) * linear->in;
}

/* B [out, r], in BF16 scale·B. */
static const void *b_of(const tn_device *device, const tn_linear *linear, int p) {
    if (!tn_is_bf16(device)) return linear->part[p].lora.b;
    return (const char *)linear->fused + copy_bytes(device, linear, p);
}

static void scale_rounded(const tn_device *device, int64_t count, float factor, const float *from, void *to) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i += CHUNK)
        tn_kernels_of(device)->scale[1](smaller(CHUNK, count - i), factor, from + i, (uint16_t *)to + i);
}

int64_t tn_cpu_linear_bytes(tn_device *device, const tn_linear *linear, const tn_source *const sources[]) {
    return tn_ref_linear_bytes(device, linear, sources) + copy_bytes(device, linear, linear->parts);
}

tn_status tn_cpu_linear_load(tn_device *device, tn_linear *linear, const tn_source *const sources[],
                             void *region) {
    int64_t before = tn_ref_linear_bytes(device, linear, sources);
    tn_status status = tn_ref_linear_load(device, linear, sources, region);
    linear->fused = copy_bytes(device, linear, linear->parts) ? (char *)region + before : NULL;
    return status;
}

tn_status tn_cpu_linear_refresh(tn_device *device, tn_linear *linear) {
    for (int p = 0; p < linear->parts; p++) {
        const tn_part *part = &linear->part[p];
        int64_t rows = part->weight.rows, r = part->lora.r;
        if (part->master && part->weight.data != part->master)
            tn_cpu_weight_refresh(device, rows * linear->in, part->master,
                                  (void *)(uintptr_t)part->weight.data);
        if (r == 0 || !tn_is_bf16(device)) continue;
        tn_cpu_weight_refresh(device, r * linear->in, part->lora.a, (void *)(uintptr_t)a_of(device, linear, p));
        scale_rounded(device, rows * r, part->lora.scale, part->lora.b,
                      (void *)(uintptr_t)b_of(device, linear, p));
    }
    return TN_OK;
}

/* ---- Scratch ------------------------------------------------------------------------------------------ */

static int64_t tile_rows(int64_t rows, int64_t cols) { return smaller(rows, larger(1, TILE / cols)); }

int64_t tn_cpu_linear_scratch(const tn_device *device, const tn_limits *limits) {
    int64_t body = larger(larger(limits->hidden, limits->intermediate), limits->heads * limits->head_dim);
    int64_t inputs = larger(limits->rows * body, limits->head_rows * limits->hidden);
    int64_t size = tn_element_bytes(device->dtype), bytes = tn_scratch_room(FEW * body * 4);
    if (limits->block_weights)
        bytes += tn_scratch_room(larger(smaller(limits->largest_weight, TILE), body) * size);
    if (limits->dropout) bytes += 2 * tn_scratch_room(inputs * 4); /* masked x, and v·A before its mask */
    if (limits->backward && tn_is_bf16(device)) bytes += tn_scratch_room(inputs * 4); /* dx, not yet rounded */
    return bytes;
}

/* ---- Dropout -------------------------------------------------------------------------------------------- */

/* Factors of elements column … column+count-1 of a row for part p; count ≤ TN_MASK. */
static void mask_of(const tn_device *device, const tn_linear *linear, int p, int64_t row, int64_t column,
                    int64_t count, const tn_dropout *dropout, float factors[TN_MASK]) {
    uint64_t stream = TN_STREAM(TN_PURPOSE_DROPOUT, dropout->step, (uint64_t)linear->site * 4 + (uint64_t)p);
    uint64_t index = (uint64_t)((dropout->first_row + row) * linear->in + column);
    tn_kernels_of(device)->dropout(count, dropout->p, dropout->seed, stream, index, factors);
}

/* to [rows, in] = x·mask. */
static void drop_rows(const tn_device *device, const tn_linear *linear, int p, int64_t rows, tn_view x,
                      void *to, const tn_dropout *dropout) {
    const tn_kernels *kernels = tn_kernels_of(device);
    tn_view result = {to, linear->in};
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t k = 0; k < linear->in; k += TN_MASK) {
            float factors[TN_MASK];
            int64_t count = smaller(TN_MASK, linear->in - k);
            mask_of(device, linear, p, row, k, count, dropout, factors);
            kernels->multiply[tn_is_bf16(device)](count, factors, tn_at(device->dtype, x, row, k),
                                                  tn_at(device->dtype, result, row, k));
        }
}

/* to += from·mask; from [rows, in] dense, to the same in rows of `stride`. */
static void add_dropped(const tn_device *device, const tn_linear *linear, int p, int64_t rows,
                        const float *from, float *to, int64_t stride, const tn_dropout *dropout) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t k = 0; k < linear->in; k += TN_MASK) {
            float factors[TN_MASK];
            int64_t count = smaller(TN_MASK, linear->in - k);
            mask_of(device, linear, p, row, k, count, dropout, factors);
            tn_kernels_of(device)->add_product(count, factors, from + row * linear->in + k,
                                               to + row * stride + k);
        }
}

/* x itself, or part p's dropped copy of it in `buffer`. */
static tn_view lora_source(const tn_device *device, const tn_linear *linear, int p, int64_t rows, tn_view x,
                           void *buffer, const tn_dropout *dropout) {
    if (!drops(dropout)) return x;
    drop_rows(device, linear, p, rows, x, buffer, dropout);
    return (tn_view){buffer, linear->in};
}

static tn_status take_dropped(const tn_device *device, const tn_linear *linear, int64_t rows,
                              const tn_dropout *dropout, tn_scratch *scratch, void **buffer) {
    *buffer = NULL;
    if (!drops(dropout) || linear->rank == 0) return TN_OK;
    return tn_scratch_take(scratch, rows * linear->in * tn_element_bytes(device->dtype), buffer);
}

/* ---- Weights as operands ------------------------------------------------------------------------- */

/* Rows first … first+count-1 of the weight, in the compute dtype: in place, or decoded into `tile`. */
static tn_view weight_rows(const tn_device *device, const tn_weight *w, int64_t first, int64_t count,
                           void *tile) {
    if (!tn_dtype_is_block(w->dtype))
        return (tn_view){(char *)(uintptr_t)w->data + first * w->stride * tn_element_bytes(device->dtype),
                         w->stride};
    const tn_kernels *kernels = tn_kernels_of(device);
    tn_view view = {tile, w->cols};
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < count; row++)
        for (int64_t k = 0; k < w->cols; k += CHUNK) {
            float values[CHUNK];
            int64_t width = smaller(CHUNK, w->cols - k);
            tn_cpu_decode_row(kernels, w, first + row, k, width, values);
            kernels->narrow[tn_is_bf16(device)](width, values, tn_at(device->dtype, view, row, k));
        }
    return view;
}

/* Rows taken at a time: all of a plain weight. */
static int64_t step_of(const tn_weight *w) {
    return tn_dtype_is_block(w->dtype) ? tile_rows(w->rows, w->cols) : w->rows;
}

static tn_status take_tile(const tn_device *device, const tn_linear *linear, tn_scratch *scratch, void **tile) {
    int64_t elements = 0;
    for (int p = 0; p < linear->parts; p++) {
        const tn_weight *w = &linear->part[p].weight;
        if (tn_dtype_is_block(w->dtype)) elements = larger(elements, step_of(w) * w->cols);
    }
    *tile = NULL;
    return elements ? tn_scratch_take(scratch, elements * tn_element_bytes(device->dtype), tile) : TN_OK;
}

/* ---- Few rows: dot products ---------------------------------------------------------------------- */

/* out[i] = Σ_k x[i, k]·W[n, k] for `rows` ≤ FEW rows of floats. */
static void dot_rows(const tn_kernels *kernels, const tn_weight *w, int64_t n, int64_t rows, const float *x,
                     float out[FEW]) {
    int64_t bytes = tn_dtype_block_bytes(w->dtype);
    bool plain = w->dtype == TN_DTYPE_F32 || w->dtype == TN_DTYPE_BF16;
    for (int64_t i = 0; i < rows; i++) out[i] = 0;
    for (int64_t k = 0; k < w->cols; k += CHUNK) {
        float values[CHUNK];
        const void *piece = values;
        int64_t width = smaller(CHUNK, w->cols - k);
        if (plain) piece = (const char *)w->data + (n * w->stride + k) * bytes;
        else tn_cpu_decode_row(kernels, w, n, k, width, values);
        for (int64_t i = 0; i < rows; i++)
            out[i] += kernels->dot[plain && w->dtype == TN_DTYPE_BF16](width, piece, x + i * w->cols + k);
    }
}

static tn_status few_rows(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x, tn_view y,
                          tn_view residual, float alpha, const tn_dropout *dropout) {
    const tn_kernels *kernels = tn_kernels_of(device);
    tn_dtype dtype = device->dtype;
    tn_scratch scratch = tn_scratch_of(device);
    int64_t output = 0, border = linear->in;
    float *wide;
    tn_status status = tn_scratch_take(&scratch, rows * linear->in * 4, &wide);
    if (status != TN_OK) return status;
    tn_ref_linear_inner(device, linear, rows, x, dropout);
    for (int64_t row = 0; row < rows; row++)
        kernels->widen[tn_is_bf16(device)](linear->in, tn_at(dtype, x, row, 0), wide + row * linear->in);
    for (int p = 0; p < linear->parts; p++) {
        const tn_part *part = &linear->part[p];
        const tn_lora *lora = &part->lora;
#pragma omp parallel for schedule(static)
        for (int64_t n = 0; n < part->weight.rows; n++) {
            float sums[FEW];
            dot_rows(kernels, &part->weight, n, rows, wide, sums);
            for (int64_t i = 0; i < rows; i++) {
                const void *u = tn_at(dtype, x, i, border);
                float value = sums[i] + (part->bias ? tn_load(dtype, part->bias, n) : 0), delta = 0;
                for (int64_t j = 0; j < lora->r; j++) delta += tn_load(dtype, u, j) * lora->b[n * lora->r + j];
                value = alpha * (value + lora->scale * delta);
                if (residual.data) value += tn_load(dtype, tn_at(dtype, residual, i, output + n), 0);
                tn_store(dtype, tn_at(dtype, y, i, output + n), 0, value);
            }
        }
        output += part->weight.rows;
        border += lora->r;
    }
    return TN_OK;
}

/* ---- Forward ------------------------------------------------------------------------------------- */

/* u of all parts as columns to be made behind x. Without LoRA it has no columns. */
static tn_gemm_inner inner_of_x(const tn_device *device, const tn_linear *linear) {
    return (tn_gemm_inner){.d = a_of(device, linear, 0),
                           .ld = linear->in,
                           .k = linear->in,
                           .to = linear->in,
                           .r = ranks_before(linear, linear->parts),
                           .transposed = true};
}

static tn_status make_u(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x) {
    const tn_gemm_inner u = inner_of_x(device, linear);
    const tn_gemm_stack stack = {NULL, 0, &u, u.r > 0};
    const tn_gemm none = {.in = TN_DTYPE_BF16, .m = rows, .lda = x.stride};
    return tn_gemm_stacked(&none, &stack, x.data, NULL, NULL, NULL);
}

tn_status tn_cpu_linear_inner(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x,
                              const tn_dropout *dropout) {
    if (rows <= FEW) return tn_ref_linear_inner(device, linear, rows, x, dropout);
    if (joins(device) && !drops(dropout)) return make_u(device, linear, rows, x);
    tn_dtype dtype = device->dtype;
    tn_scratch scratch = tn_scratch_of(device);
    int64_t border = linear->in;
    void *buffer;
    tn_status status;
    TN_TRY(take_dropped(device, linear, rows, dropout, &scratch, &buffer));
    for (int p = 0; p < linear->parts; p++) {
        const tn_lora *lora = &linear->part[p].lora;
        if (lora->r == 0) continue;
        tn_view from = lora_source(device, linear, p, rows, x, buffer, dropout);
        tn_gemm gemm = {.in = dtype,
                        .out = dtype,
                        .b_transposed = true,
                        .m = rows,
                        .n = lora->r,
                        .k = linear->in,
                        .lda = from.stride,
                        .ldb = linear->in,
                        .ldc = x.stride,
                        .alpha = 1};
        TN_TRY(tn_gemm_run(&gemm, from.data, a_of(device, linear, p), tn_at(dtype, x, 0, border), NULL, NULL));
        border += lora->r;
    }
done:
    return status;
}

/* One part of a forward product on its way. */
typedef struct product {
    const tn_part *part;
    tn_view x, u, y, residual;
    float alpha;
    bool makes_u; /* its first product makes u of all parts */
} product;

/* y = alpha·scale·u·Bᵀ, or added to it, where LoRA does not join the base product. */
static tn_status lora_share(tn_device *device, const product *t, int64_t rows, bool accumulate) {
    const tn_lora *lora = &t->part->lora;
    tn_gemm gemm = {.in = device->dtype,
                    .out = device->dtype,
                    .b_transposed = true,
                    .m = rows,
                    .n = t->part->weight.rows,
                    .k = lora->r,
                    .lda = t->u.stride,
                    .ldb = lora->r,
                    .ldc = t->y.stride,
                    .alpha = t->alpha * lora->scale,
                    .accumulate = accumulate};
    return tn_gemm_run(&gemm, t->u.data, lora->b, t->y.data, NULL, NULL);
}

/* y = [x|u]·[W|sB]ᵀ. */
static tn_status joined_share(tn_device *device, const tn_linear *linear, int p, const product *t,
                              tn_gemm *gemm, int64_t n, tn_view rows_of_w, tn_view added, const void *bias) {
    int64_t r = t->part->lora.r, border = linear->in + ranks_before(linear, p);
    const tn_gemm_inner u = inner_of_x(device, linear);
    const tn_gemm_rows rows[] = {{rows_of_w.data, 0, linear->in, rows_of_w.stride},
                                 {(const uint16_t *)b_of(device, linear, p) + n * r, border, r, r}};
    const tn_gemm_stack stack = {rows, r ? 2 : 1, &u, t->makes_u && n == 0};
    if (r) gemm->k = border + r;
    return tn_gemm_stacked(gemm, &stack, t->x.data, tn_at(device->dtype, t->y, 0, n), added.data, bias);
}

/* Adds base product and bias, and LoRA's where it joins, to columns n … n+count-1 of y, which hold what
 * `accumulate` says; `added` is one more summand. */
static tn_status base_share(tn_device *device, const tn_linear *linear, int p, const product *t, int64_t rows,
                            int64_t n, tn_view rows_of_w, int64_t count, tn_view added, bool accumulate) {
    tn_dtype dtype = device->dtype;
    const tn_part *part = t->part;
    const void *bias = part->bias ? (const char *)part->bias + n * tn_element_bytes(dtype) : NULL;
    tn_gemm gemm = {.in = dtype,
                    .out = dtype,
                    .b_transposed = true,
                    .m = rows,
                    .n = count,
                    .k = part->weight.cols,
                    .lda = t->x.stride,
                    .ldb = rows_of_w.stride,
                    .ldc = t->y.stride,
                    .alpha = t->alpha,
                    .accumulate = accumulate,
                    .biased = bias != NULL,
                    .added = dtype,
                    .ld_added = added.data ? added.stride : 0};
    if (joins(device) && (part->lora.r || t->makes_u))
        return joined_share(device, linear, p, t, &gemm, n, rows_of_w, added, bias);
    return tn_gemm_run(&gemm, t->x.data, rows_of_w.data, tn_at(dtype, t->y, 0, n), added.data, bias);
}

static tn_status part_forward(tn_device *device, const tn_linear *linear, int p, int64_t rows, const product *t,
                              void *tile) {
    const tn_weight *w = &t->part->weight;
    bool in_place = t->residual.data == t->y.data, apart = t->part->lora.r > 0 && !joins(device);
    tn_view none = {NULL, 0};
    tn_status status = TN_OK;
    if (apart) TN_TRY(lora_share(device, t, rows, in_place));
    for (int64_t n = 0, step = step_of(w); n < w->rows; n += step) {
        int64_t count = smaller(step, w->rows - n);
        tn_view rows_of_w = weight_rows(device, w, n, count, tile);
        tn_view added = t->residual.data && !in_place ? shifted(device->dtype, t->residual, n) : none;
        TN_TRY(base_share(device, linear, p, t, rows, n, rows_of_w, count, added, apart || in_place));
    }
done:
    return status;
}

tn_status tn_cpu_linear_forward(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x, tn_view y,
                                tn_view residual, float alpha, const tn_dropout *dropout) {
    if (rows <= FEW) return few_rows(device, linear, rows, x, y, residual, alpha, dropout);
    tn_dtype dtype = device->dtype;
    tn_scratch scratch = tn_scratch_of(device);
    int64_t output = 0, border = linear->in;
    bool makes_u = joins(device) && !drops(dropout) && ranks_before(linear, linear->parts) > 0;
    void *tile;
    tn_status status = TN_OK;
    if (!makes_u) TN_TRY(tn_cpu_linear_inner(device, linear, rows, x, dropout));
    TN_TRY(take_tile(device, linear, &scratch, &tile));
    for (int p = 0; p < linear->parts; p++) {
        product t = {.part = &linear->part[p],
                     .x = x,
                     .u = shifted(dtype, x, border),
                     .y = shifted(dtype, y, output),
                     .residual = residual.data ? shifted(dtype, residual, output) : residual,
                     .alpha = alpha,
                     .makes_u = makes_u && p == 0};
        TN_TRY(part_forward(device, linear, p, rows, &t, tile));
        output += linear->part[p].weight.rows;
        border += linear->part[p].lora.r;
    }
done:
    return status;
}

/* ---- Backward ------------------------------------------------------------------------------------ */

/* to[m, n] += factor·aᵀ·b in fp32, over `rows` rows. */
static tn_status add_products(tn_dtype dtype, int64_t rows, tn_view a, int64_t m, tn_view b, int64_t n,
                              float factor, float *to) {
    tn_gemm gemm = {.in = dtype,
                    .out = TN_DTYPE_F32,
                    .a_transposed = true,
                    .m = m,
                    .n = n,
                    .k = rows,
                    .lda = a.stride,
                    .ldb = b.stride,
                    .ldc = n,
                    .alpha = factor,
                    .accumulate = true};
    return tn_gemm_run(&gemm, a.data, b.data, to, NULL, NULL);
}

/* Adds to gradients of LoRA's matrices, whose shares of l [rows, Σr] lie side by side; x [rows, n]. */
static tn_status add_gradients(tn_dtype dtype, int64_t rows, tn_view l, const tn_gradient *gradients, int count,
                               tn_view x, int64_t n) {
    tn_status status = TN_OK;
    if (dtype == TN_DTYPE_BF16 && tn_gemm_gradients_here(gradients, count))
        return tn_gemm_gradients(gradients, count, rows, l.data, l.stride, x.data, x.stride, n);
    for (int i = 0; i < count; i++) {
        const tn_gradient *g = &gradients[i];
        if (g->transposed) TN_TRY(add_products(dtype, rows, x, n, l, g->r, g->factor, g->to));
        else TN_TRY(add_products(dtype, rows, l, g->r, x, n, g->factor, g->to));
        l = shifted(dtype, l, g->r);
    }
done:
    return status;
}

/* dA of all parts where they share x: in runs of parts that train. `v` is the border of dy. */
static tn_status shared_gradients(const tn_device *device, const tn_linear *linear, int64_t rows, tn_view x,
                                  tn_view v, float alpha) {
    tn_status status = TN_OK;
    for (int p = 0, count; p < linear->parts; p += count) {
        tn_gradient run[TN_MAX_PARTS];
        int64_t columns = 0;
        for (count = 0; p + count < linear->parts && linear->part[p + count].lora.da; count++) {
            const tn_lora *lora = &linear->part[p + count].lora;
            run[count] = (tn_gradient){lora->r, alpha, lora->da, false};
            columns += lora->r;
        }
        if (count) TN_TRY(add_gradients(device->dtype, rows, v, run, count, x, linear->in));
        else columns = linear->part[p].lora.r, count = 1;
        v = shifted(device->dtype, v, columns);
    }
done:
    return status;
}

static void bias_gradient(const tn_device *device, int64_t rows, tn_view dy, int64_t out, float alpha,
                          float *dbias) {
    const tn_kernels *kernels = tn_kernels_of(device);
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < out; n += STRIP) {
        float sums[STRIP] = {0};
        int64_t count = smaller(STRIP, out - n);
        for (int64_t row = 0; row < rows; row++)
            kernels->accumulate[tn_is_bf16(device)](count, tn_at(device->dtype, dy, row, n), sums);
        for (int64_t i = 0; i < count; i++) dbias[n + i] += alpha * sums[i];
    }
}

/* v = scale·dy·B of part p alone. */
static tn_status make_v_of_part(tn_device *device, const tn_part *part, int64_t rows, tn_view dy, tn_view v) {
    tn_gemm gemm = {.in = device->dtype,
                    .out = device->dtype,
                    .m = rows,
                    .n = part->lora.r,
                    .k = part->weight.rows,
                    .lda = dy.stride,
                    .ldb = part->lora.r,
                    .ldc = v.stride,
                    .alpha = part->lora.scale};
    return tn_gemm_run(&gemm, dy.data, part->lora.b, v.data, NULL, NULL);
}

static tn_status parameter_gradients(tn_device *device, const tn_linear *linear, int p, int64_t rows, tn_view x,
                                     tn_view u, tn_view dy, tn_view v, float alpha, void *buffer,
                                     const tn_dropout *dropout) {
    tn_dtype dtype = device->dtype;
    const tn_part *part = &linear->part[p];
    const tn_lora *lora = &part->lora;
    int64_t out = part->weight.rows, in = linear->in;
    tn_status status = TN_OK;
    if (lora->da && drops(dropout)) {
        tn_view from = lora_source(device, linear, p, rows, x, buffer, dropout);
        tn_gradient da = {lora->r, alpha, lora->da, false};
        TN_TRY(add_gradients(dtype, rows, v, &da, 1, from, in));
    }
    if (lora->db) {
        tn_gradient db = {lora->r, alpha * lora->scale, lora->db, true};
        TN_TRY(add_gradients(dtype, rows, u, &db, 1, dy, out));
    }
    if (part->dweight) TN_TRY(add_products(dtype, rows, dy, out, x, in, alpha, part->dweight));
    if (part->dbias) bias_gradient(device, rows, dy, out, alpha, part->dbias);
done:
    return status;
}

/* From dy and its border. */
static tn_status all_gradients(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x, tn_view dy,
                               float alpha, void *buffer, const tn_dropout *dropout) {
    tn_dtype dtype = device->dtype;
    int64_t output = 0, border = 0;
    tn_status status = TN_OK;
    for (int p = 0; p < linear->parts; p++) {
        TN_TRY(parameter_gradients(device, linear, p, rows, x, shifted(dtype, x, linear->in + border),
                                   shifted(dtype, dy, output), shifted(dtype, dy, linear->out + border), alpha,
                                   buffer, dropout));
        output += linear->part[p].weight.rows;
        border += linear->part[p].lora.r;
    }
    if (!drops(dropout))
        status = shared_gradients(device, linear, rows, x, shifted(dtype, dy, linear->out), alpha);
done:
    return status;
}

/* v of every part as columns to be made behind dy; returns their number. */
static int inners_of_dy(const tn_device *device, const tn_linear *linear, tn_gemm_inner inners[TN_MAX_PARTS]) {
    int64_t output = 0, border = linear->out;
    int count = 0;
    for (int p = 0; p < linear->parts; p++) {
        int64_t out = linear->part[p].weight.rows, r = linear->part[p].lora.r;
        if (r) inners[count++] = (tn_gemm_inner){b_of(device, linear, p), r, output, out, border, r, false};
        output += out, border += r;
    }
    return count;
}

static tn_status make_v(tn_device *device, const tn_linear *linear, int64_t rows, tn_view dy) {
    tn_gemm_inner inners[TN_MAX_PARTS];
    int64_t output = 0, border = linear->out;
    tn_status status = TN_OK;
    if (joins(device)) {
        const tn_gemm_stack stack = {NULL, 0, inners, inners_of_dy(device, linear, inners)};
        const tn_gemm none = {.in = TN_DTYPE_BF16, .m = rows, .lda = dy.stride};
        return tn_gemm_stacked(&none, &stack, dy.data, NULL, NULL, NULL);
    }
    for (int p = 0; p < linear->parts; p++) {
        const tn_part *part = &linear->part[p];
        if (part->lora.r)
            TN_TRY(make_v_of_part(device, part, rows, shifted(device->dtype, dy, output),
                                  shifted(device->dtype, dy, border)));
        output += part->weight.rows, border += part->lora.r;
    }
done:
    return status;
}

/* dx = alpha·[dy|v]·[W;A], which makes v. */
static tn_status joined_input_gradient(tn_device *device, const tn_linear *linear, int64_t rows, tn_view dy,
                                       tn_view dx, bool accumulate, float alpha) {
    tn_gemm_rows stacked[TN_MAX_PARTS + 1];
    tn_gemm_inner inners[TN_MAX_PARTS];
    int64_t ranks = ranks_before(linear, linear->parts), output = 0;
    int count = 0;
    for (int p = 0; p < linear->parts; p++) {
        const tn_weight *w = &linear->part[p].weight;
        stacked[count++] = (tn_gemm_rows){w->data, output, w->rows, w->stride};
        output += w->rows;
    }
    if (ranks) stacked[count++] = (tn_gemm_rows){a_of(device, linear, 0), output, ranks, linear->in};
    const tn_gemm_stack stack = {stacked, count, inners, inners_of_dy(device, linear, inners)};
    const tn_gemm gemm = {.in = TN_DTYPE_BF16,
                          .out = TN_DTYPE_BF16,
                          .m = rows,
                          .n = linear->in,
                          .k = output + ranks,
                          .lda = dy.stride,
                          .ldc = dx.stride,
                          .alpha = alpha,
                          .accumulate = accumulate};
    return tn_gemm_stacked(&gemm, &stack, dy.data, dx.data, NULL, NULL);
}

/* The fp32 sum of dx on its way: dx itself, or for a dx of BF16 a scratch, to which products are added until
 * the last one, which goes to dx. */
typedef struct sum {
    float *values; /* [rows, in] */
    int64_t stride;
    bool started; /* values hold something to be added to */
} sum;

static void start_with_zero(tn_device *device, int64_t rows, int64_t cols, sum *total) {
    for (int64_t row = 0; !total->started && row < rows; row++)
        tn_ref_zero(device, total->values + row * total->stride, cols * 4);
    total->started = true;
}

static tn_status lora_input_gradient(tn_device *device, const tn_linear *linear, int64_t rows, tn_view dy,
                                     float alpha, sum *total, float *undropped, const tn_dropout *dropout) {
    int64_t border = linear->out;
    tn_status status = TN_OK;
    for (int p = 0; p < linear->parts; p++) {
        const tn_lora *lora = &linear->part[p].lora;
        if (lora->r == 0) continue;
        tn_gemm gemm = {.in = device->dtype,
                        .out = TN_DTYPE_F32,
                        .m = rows,
                        .n = linear->in,
                        .k = lora->r,
                        .lda = dy.stride,
                        .ldb = linear->in,
                        .ldc = undropped ? linear->in : total->stride,
                        .alpha = alpha,
                        .accumulate = total->started && !undropped};
        TN_TRY(tn_gemm_run(&gemm, tn_at(device->dtype, dy, 0, border), a_of(device, linear, p),
                           undropped ? undropped : total->values, NULL, NULL));
        if (undropped) {
            start_with_zero(device, rows, linear->in, total);
            add_dropped(device, linear, p, rows, undropped, total->values, total->stride, dropout);
        }
        total->started = true;
        border += lora->r;
    }
done:
    return status;
}

static tn_status input_gradient(tn_device *device, const tn_linear *linear, int64_t rows, tn_view dy,
                                tn_view dx, bool accumulate, float alpha, sum *total, void *tile) {
    tn_dtype dtype = device->dtype;
    int64_t output = 0, in = linear->in;
    tn_status status = TN_OK;
    for (int p = 0; p < linear->parts; p++) {
        const tn_weight *w = &linear->part[p].weight;
        for (int64_t n = 0, step = step_of(w); n < w->rows; n += step) {
            int64_t count = smaller(step, w->rows - n);
            tn_view rows_of_w = weight_rows(device, w, n, count, tile);
            bool last = p + 1 == linear->parts && n + count == w->rows;
            bool rounded = last && tn_is_bf16(device), added = rounded && total->started;
            tn_gemm gemm = {.in = dtype,
                            .out = rounded ? dtype : TN_DTYPE_F32,
                            .m = rows,
                            .n = in,
                            .k = count,
                            .lda = dy.stride,
                            .ldb = rows_of_w.stride,
                            .ldc = rounded ? dx.stride : total->stride,
                            .alpha = alpha,
                            .accumulate = rounded ? accumulate : total->started,
                            .added = TN_DTYPE_F32,
                            .ld_added = added ? total->stride : 0};
            const void *from = tn_at(dtype, dy, 0, output + n), *summed = added ? total->values : NULL;
            void *to = rounded ? dx.data : (void *)total->values;
            TN_TRY(tn_gemm_run(&gemm, from, rows_of_w.data, to, summed, NULL));
            total->started = true;
        }
        output += w->rows;
    }
done:
    return status;
}

/* dx in steps: LoRA's share, then W's by tiles. */
static tn_status summed_input_gradient(tn_device *device, const tn_linear *linear, int64_t rows, tn_view dy,
                                       tn_view dx, bool accumulate, float alpha, float *undropped,
                                       const tn_dropout *dropout, tn_scratch *scratch) {
    sum total = {dx.data, dx.stride, accumulate};
    void *tile;
    tn_status status = TN_OK;
    if (tn_is_bf16(device)) {
        total = (sum){NULL, linear->in, false};
        TN_TRY(tn_scratch_take(scratch, rows * linear->in * 4, &total.values));
    }
    TN_TRY(take_tile(device, linear, scratch, &tile));
    TN_TRY(lora_input_gradient(device, linear, rows, dy, alpha, &total, undropped, dropout));
    status = input_gradient(device, linear, rows, dy, dx, accumulate, alpha, &total, tile);
done:
    return status;
}

/* One product makes dx where nothing has to be decoded or dropped on the way. */
static bool joins_whole(const tn_device *device, const tn_linear *linear, const tn_dropout *dropout) {
    bool whole = joins(device) && !drops(dropout);
    for (int p = 0; p < linear->parts; p++) whole = whole && !tn_dtype_is_block(linear->part[p].weight.dtype);
    return whole;
}

tn_status tn_cpu_linear_backward(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x,
                                 tn_view dy, tn_view dx, bool accumulate, float alpha,
                                 const tn_dropout *dropout) {
    tn_scratch scratch = tn_scratch_of(device);
    bool whole = dx.data && joins_whole(device, linear, dropout);
    float *undropped = NULL;
    void *buffer;
    tn_status status;
    TN_TRY(take_dropped(device, linear, rows, dropout, &scratch, &buffer));
    if (whole) TN_TRY(joined_input_gradient(device, linear, rows, dy, dx, accumulate, alpha));
    else TN_TRY(make_v(device, linear, rows, dy));
    TN_TRY(all_gradients(device, linear, rows, x, dy, alpha, buffer, dropout));
    if (!dx.data || whole) goto done;
    if (buffer) TN_TRY(tn_scratch_take(&scratch, rows * linear->in * 4, &undropped));
    status =
        summed_input_gradient(device, linear, rows, dy, dx, accumulate, alpha, undropped, dropout, &scratch);
done:
    return status;
}
