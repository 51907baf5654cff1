/* linear.c: a group of projections with LoRA as one product.
 *
 *   u = x·Aᵀ                      into the border of x
 *   y = [x|u]·[W|sB]ᵀ             (+ residual, bias), one product with fp32 accumulation
 *   v = dy·sB                     into the border of dy
 *   dx = [dy|v]·[W;A]             one product
 *   dA += vᵀ·x, dB += s·dyᵀ·u     in fp32, per part
 *
 * Block-quantised weights are decoded into a bordered matrix in scratch first. A weight shared with the
 * embedding has no border of its own: there LoRA takes a second product. With dropout, u is computed per part
 * from a masked copy of x, and the LoRA share of dx is masked on its way in; the product of y stays the same.
 *
 * Where tn_linear_is_fp8, y's product takes the codes of W as they are and x rounded to E4M3, part by part, and
 * LoRA's share is added by a second one. dx is always that of the decoded weights: the scales of W's rows run
 * along its sum, where the library takes none.
 */
#include "base/integer.h"
#include "op/cuda/dora.h"
#include "op/cuda/load.h"

/* The weight ready for a product: W [out, in] and, where `bordered`, sB to its right and A below. */
typedef struct matrix {
    const char *w;
    int64_t stride;
    bool bordered;
    tn_cuda_border border;
} matrix;

/* Builds the bordered matrix in scratch from parts in any format. */
static tn_status assemble(tn_device *device, const tn_linear *linear, matrix *m) {
    int64_t size = tn_cuda_size(device->dtype), stride = tn_cuda_stride(linear), row = 0;
    char *memory = tn_cuda_take(device, (linear->out + linear->border) * stride * size);
    tn_status status = memory ? TN_OK : TN_FAILED;
    for (int i = 0; i < linear->parts && status == TN_OK; i++) {
        const tn_weight *w = &linear->part[i].weight;
        tn_view from = {(void *)(uintptr_t)w->data, w->stride}, to = {memory + row * stride * size, stride};
        status = tn_dtype_is_block(w->dtype) ? tn_cuda_dequantize(device, w, to.data, stride)
                                             : tn_cuda_copy_rows(device, w->rows, linear->in, from, to);
        row += w->rows;
    }
    *m = (matrix){memory, stride, true, {0}};
    if (status != TN_OK || linear->border == 0) return status;
    m->border = tn_cuda_border_at(device, linear, memory);
    return tn_cuda_refresh_border(device, linear, m->border.b, stride, m->border.a, stride);
}

static tn_status prepare(tn_device *device, const tn_linear *linear, matrix *m) {
    const tn_weight *first = &linear->part[0].weight;
    if (tn_linear_has_blocks(linear) || (linear->parts > 1 && !tn_cuda_is_bordered(linear)))
        return assemble(device, linear, m);
    *m = (matrix){first->data, first->stride, tn_cuda_is_bordered(linear), {0}};
    if (linear->border) m->border = tn_cuda_border_of(device, linear);
    return TN_OK;
}

/* ---- u ------------------------------------------------------------------------------------------------ */

/* d[rows, n] = x[rows, in]·a[n, in]ᵀ */
static tn_status project(tn_device *device, int64_t rows, int64_t in, int64_t n, tn_view x, const void *a,
                         int64_t a_stride, tn_view d) {
    return tn_cuda_multiply(device, &(tn_cuda_gemm){.m = rows,
                                                    .n = n,
                                                    .k = in,
                                                    .transpose_b = true,
                                                    .a = x.data,
                                                    .lda = x.stride,
                                                    .b = a,
                                                    .ldb = a_stride,
                                                    .d = d.data,
                                                    .ldd = d.stride,
                                                    .alpha = 1});
}

static tn_status inner_with_dropout(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x,
                                    tn_cuda_border border, const tn_dropout *dropout) {
    int64_t size = tn_cuda_size(device->dtype), used = tn_cuda(device)->used, column = 0;
    tn_view masked = {tn_cuda_take(device, rows * linear->in * size), linear->in};
    tn_status status = masked.data ? TN_OK : TN_FAILED;
    for (int p = 0; p < linear->parts && status == TN_OK; p++) {
        int64_t r = linear->part[p].lora.r;
        if (r == 0) continue;
        status = tn_cuda_dropout(device, linear, p, dropout, rows, x, masked, false);
        if (status == TN_OK)
            status = project(device, rows, linear->in, r, masked,
                             (const char *)border.a + column * border.a_stride * size, border.a_stride,
                             tn_view_at(device, x, 0, linear->in + column));
        column += r;
    }
    tn_cuda(device)->used = used;
    if (status != TN_OK || column == linear->border) return status;
    tn_view rest =
        tn_view_at(device, x, 0, linear->in + column); /* meets zeros in the product, so must be finite */
    return tn_cuda_check(
        cudaMemset2DAsync(rest.data, (size_t)(x.stride * size), 0, (size_t)((linear->border - column) * size),
                          (size_t)rows, tn_cuda(device)->stream),
        "zeroing a border");
}

static tn_status inner(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x,
                       tn_cuda_border border, const tn_dropout *dropout) {
    if (tn_drops(dropout)) return inner_with_dropout(device, linear, rows, x, border, dropout);
    return project(device, rows, linear->in, linear->border, x, border.a, border.a_stride,
                   tn_view_at(device, x, 0, linear->in));
}

tn_status tn_cuda_linear_inner(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x,
                               const tn_dropout *dropout) {
    if (rows == 0 || linear->border == 0) return TN_OK;
    tn_cuda_begin(device);
    return inner(device, linear, rows, x, tn_cuda_border_of(device, linear), dropout);
}

/* ---- Forward in FP8 ----------------------------------------------------------------------------------- */

enum { FP8_ROWS = 8192 /* rounded to E4M3 at a time */ };

/* What one call of forward_fp8 multiplies: rows encoded in `codes` and `scales`. */
typedef struct encoded {
    uint8_t *codes;
    float *scales;
    int64_t rows;
    tn_view y, residual;
    const char *bias;
    float alpha;
} encoded;

/* The product of part p, whose columns of y begin at `column`. */
static tn_cuda_gemm fp8_product(const tn_device *device, const tn_linear *linear, int p, int64_t column,
                                const encoded *e) {
    const tn_weight *w = &linear->part[p].weight;
    const tn_view residual = tn_view_at(device, e->residual, 0, column);
    return (tn_cuda_gemm){.m = e->rows,
                          .n = w->rows,
                          .k = linear->in,
                          .transpose_b = true,
                          .a = e->codes,
                          .lda = linear->in,
                          .b = w->data,
                          .ldb = linear->in,
                          .bias = e->bias ? e->bias + column * tn_cuda_size(device->dtype) : NULL,
                          .c = residual.data,
                          .ldc = residual.stride,
                          .d = tn_view_at(device, e->y, 0, column).data,
                          .ldd = e->y.stride,
                          .alpha = e->alpha,
                          .beta = residual.data ? 1 : 0,
                          .a_scales = e->scales,
                          .b_scales = w->scales.absmax};
}

static bool can_multiply_fp8(tn_device *device, const tn_linear *linear, const encoded *e) {
    int64_t column = 0;
    for (int p = 0; p < linear->parts; column += linear->part[p++].weight.rows) {
        const tn_cuda_gemm product = fp8_product(device, linear, p, column, e);
        if (!tn_cuda_can_multiply(device, &product)) return false;
    }
    return true;
}

static tn_status multiply_fp8(tn_device *device, const tn_linear *linear, const encoded *e) {
    tn_status status = TN_OK;
    int64_t column = 0;
    for (int p = 0; p < linear->parts && status == TN_OK; column += linear->part[p++].weight.rows) {
        const tn_cuda_gemm product = fp8_product(device, linear, p, column, e);
        status = tn_cuda_multiply(device, &product);
    }
    return status;
}

/* y = residual + alpha·(x·Wᵀ) + bias, without LoRA. *done is false, and y as it was, where the library cannot.
 */
static tn_status forward_fp8(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x, tn_view y,
                             tn_view residual, float alpha, const void *bias, bool *done) {
    const int64_t most = rows < FP8_ROWS ? rows : FP8_ROWS, rest = rows % most;
    encoded e = {.rows = most, .y = y, .residual = residual, .bias = bias, .alpha = alpha};
    tn_status status = TN_OK;
    e.codes = tn_cuda_take(device, most * linear->in);
    e.scales = tn_cuda_take(device, most * (int64_t)sizeof *e.scales);
    if (!e.codes || !e.scales) return TN_FAILED;
    *done = can_multiply_fp8(device, linear, &e);
    if (rest && *done) e.rows = rest, *done = can_multiply_fp8(device, linear, &e);
    for (int64_t first = 0; first < rows && *done && status == TN_OK; first += e.rows) {
        e.rows = rows - first < most ? rows - first : most;
        e.y = tn_view_at(device, y, first, 0), e.residual = tn_view_at(device, residual, first, 0);
        status =
            tn_cuda_encode_fp8(device, e.rows, linear->in, tn_view_at(device, x, first, 0), e.codes, e.scales);
        if (status == TN_OK) status = multiply_fp8(device, linear, &e);
    }
    return status;
}

/* ---- Forward ------------------------------------------------------------------------------------------ */

static tn_status collect_bias(tn_device *device, const tn_linear *linear, float alpha, void **bias) {
    bool some = false;
    *bias = NULL;
    for (int i = 0; i < linear->parts; i++) some |= linear->part[i].bias != NULL;
    if (!some) return TN_OK;
    *bias = tn_cuda_take(device, linear->out * tn_cuda_size(device->dtype));
    return *bias ? tn_cuda_collect_bias(device, linear, alpha, *bias) : TN_FAILED;
}

tn_status tn_cuda_linear_forward(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x, tn_view y,
                                 tn_view residual, float alpha, const tn_dropout *dropout) {
    matrix m = {0};
    bool fp8 = tn_linear_is_fp8(device, linear);
    void *bias;
    tn_status status;
    if (rows == 0) return TN_OK;
    if (linear->ratio)
        return tn_dora_forward(device, &tn_cuda_dora, linear, rows, x, y, residual, alpha, dropout);
    tn_cuda_begin(device);
    TN_TRY(collect_bias(device, linear, alpha, &bias));
    if (fp8) TN_TRY(forward_fp8(device, linear, rows, x, y, residual, alpha, bias, &fp8));
    if (fp8 && linear->border) m.border = tn_cuda_border_of(device, linear);
    if (!fp8) TN_TRY(prepare(device, linear, &m));
    if (linear->border) TN_TRY(inner(device, linear, rows, x, m.border, dropout));
    tn_cuda_gemm product = {.m = rows,
                            .n = linear->out,
                            .k = linear->in + (m.bordered ? linear->border : 0),
                            .transpose_b = true,
                            .a = x.data,
                            .lda = x.stride,
                            .b = m.w,
                            .ldb = m.stride,
                            .bias = bias,
                            .c = residual.data,
                            .ldc = residual.stride,
                            .d = y.data,
                            .ldd = y.stride,
                            .alpha = alpha,
                            .beta = residual.data ? 1 : 0};
    if (!fp8) TN_TRY(tn_cuda_multiply(device, &product));
    if (linear->border && !m.bordered)
        TN_TRY(tn_cuda_multiply(device, &(tn_cuda_gemm){.m = rows,
                                                        .n = linear->out,
                                                        .k = linear->border,
                                                        .transpose_b = true,
                                                        .a = tn_view_at(device, x, 0, linear->in).data,
                                                        .lda = x.stride,
                                                        .b = m.border.b,
                                                        .ldb = m.border.b_stride,
                                                        .c = y.data,
                                                        .ldc = y.stride,
                                                        .d = y.data,
                                                        .ldd = y.stride,
                                                        .alpha = alpha,
                                                        .beta = 1}));
done:
    return status;
}

/* ---- Backward ----------------------------------------------------------------------------------------- */

/* to[m, n] += factor · aᵀ·b over the rows, fp32 */
static tn_status outer(tn_device *device, int64_t rows, tn_view a, int64_t m, tn_view b, int64_t n,
                       float factor, float *to) {
    return tn_cuda_multiply(device, &(tn_cuda_gemm){.m = m,
                                                    .n = n,
                                                    .k = rows,
                                                    .transpose_a = true,
                                                    .wide = true,
                                                    .rows_in_k = true,
                                                    .a = a.data,
                                                    .lda = a.stride,
                                                    .b = b.data,
                                                    .ldb = b.stride,
                                                    .c = to,
                                                    .ldc = n,
                                                    .d = to,
                                                    .ldd = n,
                                                    .alpha = factor,
                                                    .beta = 1});
}

/* dW, dbias and, where `pairs`, dA and dB, part by part. */
static tn_status parameter_gradients(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x,
                                     tn_view dy, float alpha, const tn_dropout *dropout, bool pairs) {
    int64_t size = tn_cuda_size(device->dtype), output = 0, column = 0, used = tn_cuda(device)->used;
    tn_status status = TN_OK;
    for (int p = 0; p < linear->parts; p++) {
        const tn_part *part = &linear->part[p];
        const tn_lora *lora = &part->lora;
        tn_view u = tn_view_at(device, x, 0, linear->in + column),
                v = tn_view_at(device, dy, 0, linear->out + column), input = x,
                d = tn_view_at(device, dy, 0, output);
        if (pairs && lora->r && lora->da && tn_drops(dropout)) {
            input = (tn_view){tn_cuda_take(device, rows * linear->in * size), linear->in};
            if (!input.data) return TN_FAILED;
            TN_TRY(tn_cuda_dropout(device, linear, p, dropout, rows, x, input, false));
        }
        if (pairs && lora->r && lora->da)
            TN_TRY(outer(device, rows, v, lora->r, input, linear->in, alpha, lora->da));
        if (pairs && lora->r && lora->db)
            TN_TRY(outer(device, rows, d, part->weight.rows, u, lora->r, alpha * lora->scale, lora->db));
        if (part->dweight)
            TN_TRY(outer(device, rows, d, part->weight.rows, x, linear->in, alpha, part->dweight));
        if (part->dbias) TN_TRY(tn_cuda_column_sums(device, rows, part->weight.rows, d, alpha, part->dbias));
        tn_cuda(device)->used = used;
        output += part->weight.rows;
        column += lora->r;
    }
done:
    return status;
}

/* dx += alpha · mask(v·A), part by part */
static tn_status dropped_gradient(tn_device *device, const tn_linear *linear, int64_t rows, tn_view dy,
                                  tn_view dx, tn_cuda_border border, float alpha, const tn_dropout *dropout) {
    int64_t size = tn_cuda_size(device->dtype), column = 0;
    tn_view share = {tn_cuda_take(device, rows * linear->in * size), linear->in};
    tn_status status = share.data ? TN_OK : TN_FAILED;
    for (int p = 0; p < linear->parts && status == TN_OK; p++) {
        int64_t r = linear->part[p].lora.r;
        if (r == 0) continue;
        status = tn_cuda_multiply(device,
                                  &(tn_cuda_gemm){.m = rows,
                                                  .n = linear->in,
                                                  .k = r,
                                                  .a = tn_view_at(device, dy, 0, linear->out + column).data,
                                                  .lda = dy.stride,
                                                  .b = (const char *)border.a + column * border.a_stride * size,
                                                  .ldb = border.a_stride,
                                                  .d = share.data,
                                                  .ldd = share.stride,
                                                  .alpha = alpha});
        if (status == TN_OK) status = tn_cuda_dropout(device, linear, p, dropout, rows, share, dx, true);
        column += r;
    }
    return status;
}

static tn_status input_gradient(tn_device *device, const tn_linear *linear, int64_t rows, const matrix *m,
                                tn_view dy, tn_view dx, bool accumulate, float alpha,
                                const tn_dropout *dropout) {
    bool together = m->bordered && linear->border && !tn_drops(dropout);
    tn_cuda_gemm product = {.m = rows,
                            .n = linear->in,
                            .k = linear->out + (together ? linear->border : 0),
                            .a = dy.data,
                            .lda = dy.stride,
                            .b = m->w,
                            .ldb = m->stride,
                            .c = dx.data,
                            .ldc = dx.stride,
                            .d = dx.data,
                            .ldd = dx.stride,
                            .alpha = alpha,
                            .beta = accumulate ? 1 : 0};
    tn_status status = tn_cuda_multiply(device, &product);
    if (status != TN_OK || together || linear->border == 0) return status;
    if (tn_drops(dropout)) return dropped_gradient(device, linear, rows, dy, dx, m->border, alpha, dropout);
    product.k = linear->border, product.a = tn_view_at(device, dy, 0, linear->out).data,
    product.b = m->border.a;
    product.ldb = m->border.a_stride, product.beta = 1;
    return tn_cuda_multiply(device, &product);
}

/* v = dy·sB into the border of dy, and the gradients of A and B. */
static tn_status lora_gradients(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x, tn_view dy,
                                float alpha, const tn_dropout *dropout, tn_cuda_thin_way *way) {
    tn_cuda_border border = tn_cuda_border_of(device, linear);
    tn_status status = TN_OK;
    if (!tn_drops(dropout)) *way = tn_cuda_thin_way_of(device, linear, rows, x, dy, border.b, border.b_stride);
    if (*way != TN_THIN_ALL)
        TN_TRY(tn_cuda_multiply(device, &(tn_cuda_gemm){.m = rows,
                                                        .n = linear->border,
                                                        .k = linear->out,
                                                        .a = dy.data,
                                                        .lda = dy.stride,
                                                        .b = border.b,
                                                        .ldb = border.b_stride,
                                                        .d = tn_view_at(device, dy, 0, linear->out).data,
                                                        .ldd = dy.stride,
                                                        .alpha = 1}));
    if (*way != TN_THIN_NONE)
        TN_TRY(tn_cuda_thin_gradients(device, *way, linear, rows, x, dy, border.b, border.b_stride, alpha));
done:
    return status;
}

tn_status tn_cuda_linear_backward(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x,
                                  tn_view dy, tn_view dx, bool accumulate, float alpha,
                                  const tn_dropout *dropout) {
    tn_cuda_thin_way way = TN_THIN_NONE;
    matrix m = {0};
    tn_status status = TN_OK;
    if (rows == 0) return TN_OK;
    if (linear->ratio)
        return tn_dora_backward(device, &tn_cuda_dora, linear, rows, x, dy, dx, accumulate, alpha, dropout);
    tn_cuda_begin(device);
    if (dx.data) TN_TRY(prepare(device, linear, &m));
    if (linear->border) TN_TRY(lora_gradients(device, linear, rows, x, dy, alpha, dropout, &way));
    TN_TRY(parameter_gradients(device, linear, rows, x, dy, alpha, dropout, way == TN_THIN_NONE));
    if (dx.data) TN_TRY(input_gradient(device, linear, rows, &m, dy, dx, accumulate, alpha, dropout));
done:
    return status;
}

/* ---- Scratch ------------------------------------------------------------------------------------------- */

int64_t tn_cuda_linear_scratch(tn_device *device, const tn_limits *l) {
    int64_t size = tn_cuda_size(device->dtype), border = tn_border(l->rank);
    int64_t in = tn_max(tn_max(l->hidden, l->intermediate), l->heads * l->head_dim);
    int64_t out = tn_max(tn_max(2 * l->intermediate, l->hidden), (l->heads + 2 * l->kv_heads) * l->head_dim);
    int64_t encoded_rows = l->rows < FP8_ROWS ? l->rows : FP8_ROWS;
    int64_t bytes = tn_cuda_round(tn_max(out, l->vocab) * size); /* bias */
    if (l->block_weights)
        bytes += tn_cuda_round(
            (l->largest_weight + (border + 15) * (tn_max(out, l->vocab) + border) + border * in) * size);
    if (l->dropout) bytes += tn_cuda_round(l->rows * in * size);
    if (l->fp8_products) bytes += tn_cuda_round(encoded_rows * in) + tn_cuda_round(encoded_rows * 4);
    if (l->backward) bytes += tn_cuda_column_scratch(out);
    if (l->dora) bytes = tn_max(bytes, tn_cuda_column_scratch(l->dora)); /* gradients of magnitudes */
    return bytes + tn_dora_scratch(device, l);
}
