/* linear.c: a group of projections with LoRA through the matrix-product library, forward. Backward is
 * linear_backward.c, what both need of weights and masks linear_operands.c; the whole:
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
 * rows right before their product, and dx is then summed in fp32: in a scratch for BF16. Up to TN_FEW rows
 * (generation) bypass the products: every output is a dot product, decoded on the way.
 *
 * In BF16 the products want A and B in bf16: `fused` points to those copies, A [r, in] of all parts, then sB
 * [out, r] of each.
 */
#include "op/cpu/linear.h"

#include <stddef.h>

#include "base/integer.h"

enum { CHUNK = 256 /* elements decoded at a time */ };

/* ---- Few rows: dot products ---------------------------------------------------------------------- */

/* out[i] = Σ_k x[i, k]·W[n, k] for `rows` ≤ TN_FEW rows of floats. */
static void dot_rows(const tn_kernels *kernels, const tn_weight *w, int64_t n, int64_t rows, const float *x,
                     float out[TN_FEW]) {
    int64_t bytes = tn_dtype_block_bytes(w->dtype);
    bool plain = w->dtype == TN_DTYPE_F32 || w->dtype == TN_DTYPE_BF16;
    for (int64_t i = 0; i < rows; i++) out[i] = 0;
    for (int64_t k = 0; k < w->cols; k += CHUNK) {
        float values[CHUNK];
        const void *piece = values;
        int64_t width = tn_min(CHUNK, w->cols - k);
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
            float sums[TN_FEW];
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
    return (tn_gemm_inner){.d = tn_lora_a(device, linear, 0),
                           .ld = linear->in,
                           .k = linear->in,
                           .to = linear->in,
                           .r = tn_ranks_before(linear, linear->parts),
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
    if (rows <= TN_FEW) return tn_ref_linear_inner(device, linear, rows, x, dropout);
    if (tn_joins(device) && !tn_drops(dropout)) return make_u(device, linear, rows, x);
    tn_dtype dtype = device->dtype;
    tn_scratch scratch = tn_scratch_of(device);
    int64_t border = linear->in;
    void *buffer;
    tn_status status;
    TN_TRY(tn_take_dropped(device, linear, rows, dropout, &scratch, &buffer));
    for (int p = 0; p < linear->parts; p++) {
        const tn_lora *lora = &linear->part[p].lora;
        if (lora->r == 0) continue;
        tn_view from = tn_lora_source(device, linear, p, rows, x, buffer, dropout);
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
        TN_TRY(tn_gemm_run(&gemm, from.data, tn_lora_a(device, linear, p), tn_at(dtype, x, 0, border), NULL,
                           NULL));
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
    int64_t r = t->part->lora.r, border = linear->in + tn_ranks_before(linear, p);
    const tn_gemm_inner u = inner_of_x(device, linear);
    const tn_gemm_rows rows[] = {{rows_of_w.data, 0, linear->in, rows_of_w.stride},
                                 {(const uint16_t *)tn_lora_b(device, linear, p) + n * r, border, r, r}};
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
    if (tn_joins(device) && (part->lora.r || t->makes_u))
        return joined_share(device, linear, p, t, &gemm, n, rows_of_w, added, bias);
    return tn_gemm_run(&gemm, t->x.data, rows_of_w.data, tn_at(dtype, t->y, 0, n), added.data, bias);
}

static tn_status part_forward(tn_device *device, const tn_linear *linear, int p, int64_t rows, const product *t,
                              void *tile) {
    const tn_weight *w = &t->part->weight;
    bool in_place = t->residual.data == t->y.data, apart = t->part->lora.r > 0 && !tn_joins(device);
    tn_view none = {NULL, 0};
    tn_status status = TN_OK;
    if (apart) TN_TRY(lora_share(device, t, rows, in_place));
    for (int64_t n = 0, step = tn_weight_step(w); n < w->rows; n += step) {
        int64_t count = tn_min(step, w->rows - n);
        tn_view rows_of_w = tn_weight_rows(device, w, n, count, tile);
        tn_view added = t->residual.data && !in_place ? tn_view_at(device, t->residual, 0, n) : none;
        TN_TRY(base_share(device, linear, p, t, rows, n, rows_of_w, count, added, apart || in_place));
    }
done:
    return status;
}

tn_status tn_cpu_linear_forward(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x, tn_view y,
                                tn_view residual, float alpha, const tn_dropout *dropout) {
    if (linear->ratio)
        return tn_dora_forward(device, &tn_cpu_dora, linear, rows, x, y, residual, alpha, dropout);
    if (rows <= TN_FEW) return few_rows(device, linear, rows, x, y, residual, alpha, dropout);
    tn_scratch scratch = tn_scratch_of(device);
    int64_t output = 0, border = linear->in;
    bool makes_u = tn_joins(device) && !tn_drops(dropout) && tn_ranks_before(linear, linear->parts) > 0;
    void *tile;
    tn_status status = TN_OK;
    if (!makes_u) TN_TRY(tn_cpu_linear_inner(device, linear, rows, x, dropout));
    TN_TRY(tn_take_tile(device, linear, &scratch, &tile));
    for (int p = 0; p < linear->parts; p++) {
        product t = {.part = &linear->part[p],
                     .x = x,
                     .u = tn_view_at(device, x, 0, border),
                     .y = tn_view_at(device, y, 0, output),
                     .residual = tn_view_at(device, residual, 0, output),
                     .alpha = alpha,
                     .makes_u = makes_u && p == 0};
        TN_TRY(part_forward(device, linear, p, rows, &t, tile));
        output += linear->part[p].weight.rows;
        border += linear->part[p].lora.r;
    }
done:
    return status;
}
