/* linear_backward.c: gradients of a linear group: v into the border of dy, dA, dB, dW and biases over the rows,
 * and dx, in one product where nothing is decoded or dropped on the way, else summed in fp32. Formulas:
 * linear.c.
 */
#include <stddef.h>

#include "base/integer.h"
#include "op/cpu/linear.h"

enum { STRIP = 64 /* columns of a bias gradient per task */ };

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
static tn_status add_gradients(const tn_device *device, int64_t rows, tn_view l, const tn_gradient *gradients,
                               int count, tn_view x, int64_t n) {
    const tn_dtype dtype = device->dtype;
    tn_status status = TN_OK;
    if (dtype == TN_DTYPE_BF16 && tn_gemm_gradients_here(gradients, count))
        return tn_gemm_gradients(gradients, count, rows, l.data, l.stride, x.data, x.stride, n);
    for (int i = 0; i < count; i++) {
        const tn_gradient *g = &gradients[i];
        if (g->transposed) TN_TRY(add_products(dtype, rows, x, n, l, g->r, g->factor, g->to));
        else TN_TRY(add_products(dtype, rows, l, g->r, x, n, g->factor, g->to));
        l = tn_view_at(device, l, 0, g->r);
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
        if (count) TN_TRY(add_gradients(device, rows, v, run, count, x, linear->in));
        else columns = linear->part[p].lora.r, count = 1;
        v = tn_view_at(device, v, 0, columns);
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
        int64_t count = tn_min(STRIP, out - n);
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
    if (lora->da && tn_drops(dropout)) {
        tn_view from = tn_lora_source(device, linear, p, rows, x, buffer, dropout);
        tn_gradient da = {lora->r, alpha, lora->da, false};
        TN_TRY(add_gradients(device, rows, v, &da, 1, from, in));
    }
    if (lora->db) {
        tn_gradient db = {lora->r, alpha * lora->scale, lora->db, true};
        TN_TRY(add_gradients(device, rows, u, &db, 1, dy, out));
    }
    if (part->dweight) TN_TRY(add_products(dtype, rows, dy, out, x, in, alpha, part->dweight));
    if (part->dbias) bias_gradient(device, rows, dy, out, alpha, part->dbias);
done:
    return status;
}

/* From dy and its border. */
static tn_status all_gradients(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x, tn_view dy,
                               float alpha, void *buffer, const tn_dropout *dropout) {
    int64_t output = 0, border = 0;
    tn_status status = TN_OK;
    for (int p = 0; p < linear->parts; p++) {
        TN_TRY(parameter_gradients(device, linear, p, rows, x, tn_view_at(device, x, 0, linear->in + border),
                                   tn_view_at(device, dy, 0, output),
                                   tn_view_at(device, dy, 0, linear->out + border), alpha, buffer, dropout));
        output += linear->part[p].weight.rows;
        border += linear->part[p].lora.r;
    }
    if (!tn_drops(dropout))
        status = shared_gradients(device, linear, rows, x, tn_view_at(device, dy, 0, linear->out), alpha);
done:
    return status;
}

/* v of every part as columns to be made behind dy; returns their number. */
static int inners_of_dy(const tn_device *device, const tn_linear *linear, tn_gemm_inner inners[TN_MAX_PARTS]) {
    int64_t output = 0, border = linear->out;
    int count = 0;
    for (int p = 0; p < linear->parts; p++) {
        int64_t out = linear->part[p].weight.rows, r = linear->part[p].lora.r;
        if (r)
            inners[count++] = (tn_gemm_inner){tn_lora_b(device, linear, p), r, output, out, border, r, false};
        output += out, border += r;
    }
    return count;
}

static tn_status make_v(tn_device *device, const tn_linear *linear, int64_t rows, tn_view dy) {
    tn_gemm_inner inners[TN_MAX_PARTS];
    int64_t output = 0, border = linear->out;
    tn_status status = TN_OK;
    if (tn_joins(device)) {
        const tn_gemm_stack stack = {NULL, 0, inners, inners_of_dy(device, linear, inners)};
        const tn_gemm none = {.in = TN_DTYPE_BF16, .m = rows, .lda = dy.stride};
        return tn_gemm_stacked(&none, &stack, dy.data, NULL, NULL, NULL);
    }
    for (int p = 0; p < linear->parts; p++) {
        const tn_part *part = &linear->part[p];
        if (part->lora.r)
            TN_TRY(make_v_of_part(device, part, rows, tn_view_at(device, dy, 0, output),
                                  tn_view_at(device, dy, 0, border)));
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
    int64_t ranks = tn_ranks_before(linear, linear->parts), output = 0;
    int count = 0;
    for (int p = 0; p < linear->parts; p++) {
        const tn_weight *w = &linear->part[p].weight;
        stacked[count++] = (tn_gemm_rows){w->data, output, w->rows, w->stride};
        output += w->rows;
    }
    if (ranks) stacked[count++] = (tn_gemm_rows){tn_lora_a(device, linear, 0), output, ranks, linear->in};
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
        TN_TRY(tn_gemm_run(&gemm, tn_at(device->dtype, dy, 0, border), tn_lora_a(device, linear, p),
                           undropped ? undropped : total->values, NULL, NULL));
        if (undropped) {
            start_with_zero(device, rows, linear->in, total);
            tn_add_dropped(device, linear, p, rows, undropped, total->values, total->stride, dropout);
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
        for (int64_t n = 0, step = tn_weight_step(w); n < w->rows; n += step) {
            int64_t count = tn_min(step, w->rows - n);
            tn_view rows_of_w = tn_weight_rows(device, w, n, count, tile);
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
    TN_TRY(tn_take_tile(device, linear, scratch, &tile));
    TN_TRY(lora_input_gradient(device, linear, rows, dy, alpha, &total, undropped, dropout));
    status = input_gradient(device, linear, rows, dy, dx, accumulate, alpha, &total, tile);
done:
    return status;
}

/* One product makes dx where nothing has to be decoded or dropped on the way. */
static bool joins_whole(const tn_device *device, const tn_linear *linear, const tn_dropout *dropout) {
    bool whole = tn_joins(device) && !tn_drops(dropout);
    for (int p = 0; p < linear->parts; p++) whole = whole && !tn_dtype_is_block(linear->part[p].weight.dtype);
    return whole;
}

tn_status tn_cpu_linear_backward(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x,
                                 tn_view dy, tn_view dx, bool accumulate, float alpha,
                                 const tn_dropout *dropout) {
    if (linear->ratio)
        return tn_dora_backward(device, &tn_cpu_dora, linear, rows, x, dy, dx, accumulate, alpha, dropout);
    tn_scratch scratch = tn_scratch_of(device);
    bool whole = dx.data && joins_whole(device, linear, dropout);
    float *undropped = NULL;
    void *buffer;
    tn_status status;
    TN_TRY(tn_take_dropped(device, linear, rows, dropout, &scratch, &buffer));
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
