/* linear.c: a group of projections with LoRA or DoRA, forward and backward, for weights in any storage format.
 *
 *   x [rows, in + border]   columns in … in+rank-1 hold u = drop(x)·Aᵀ, part behind part
 *   y [rows, out]           parts side by side
 *   dy [rows, out + border] columns out … hold v = scale·dy·B
 *
 * Weights are decoded in pieces of CHUNK columns for BLOCK rows of x at a time, so nothing is stored
 * beside the matrices themselves. Sums are in double, rounded once.
 */
#include <math.h>
#include <stddef.h>

#include "base/integer.h"
#include "base/rng.h"
#include "op/ref/element.h"
#include "op/ref/reference.h"
#include "quant/scaled.h"

enum { BLOCK = 16, CHUNK = 256 };

float tn_dropout_factor(const tn_dropout *dropout, const tn_linear *linear, int part, int64_t row,
                        int64_t column) {
    if (!dropout || dropout->p <= 0) return 1;
    uint64_t stream = TN_STREAM(TN_PURPOSE_DROPOUT, dropout->step, (uint64_t)linear->site * 4 + (uint64_t)part);
    uint64_t index = (uint64_t)((dropout->first_row + row) * linear->in + column);
    return tn_random_uniform(dropout->seed, stream, index) < dropout->p ? 0 : 1 / (1 - dropout->p);
}

/* u[row, j] = Σ_k drop(x[row, k])·A[j, k], into the border of x at `column`. */
static void lora_input(tn_dtype dtype, const tn_linear *linear, int index, int64_t rows, tn_view x,
                       int64_t column, const tn_dropout *dropout) {
    const tn_lora *lora = &linear->part[index].lora;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t j = 0; j < lora->r; j++) {
            double sum = 0;
            for (int64_t k = 0; k < linear->in; k++)
                sum += (double)tn_load(dtype, tn_at(dtype, x, row, k), 0) * lora->a[j * linear->in + k] *
                       tn_dropout_factor(dropout, linear, index, row, k);
            tn_store(dtype, tn_at(dtype, x, row, column + j), 0, sum);
        }
}

/* Scales of `count` rows of x that are rounded to E4M3. */
static void fp8_scales(tn_dtype dtype, tn_view x, int64_t first, int64_t count, int64_t cols,
                       float scales[BLOCK]) {
    for (int64_t i = 0; i < count; i++) {
        float absmax = 0;
        for (int64_t k = 0; k < cols; k++)
            absmax = fmaxf(absmax, fabsf((float)tn_load(dtype, tn_at(dtype, x, first + i, k), 0)));
        scales[i] = tn_fp8_scale(absmax);
    }
}

/* A part's row of W, and the shares in which it meets x as it is and x with the mask of dropout. */
typedef struct shares {
    const tn_linear *linear;
    int part;
    int64_t n;
    double plain, dropped;
    bool fp8; /* x is rounded to E4M3 first */
    const tn_dropout *dropout;
} shares;

static double share_of(const shares *s, int64_t row, int64_t column) {
    if (s->dropped == 0) return s->plain;
    return s->plain + s->dropped * tn_dropout_factor(s->dropout, s->linear, s->part, row, column);
}

/* DoRA's g of an output; 1 without. */
static double ratio_of(const tn_linear *linear, int64_t output) {
    return linear->ratio ? linear->ratio[output] : 1;
}

/* out[i] = Σ_k x[first+i, k]·W[n, k] for `count` rows, by shares. */
static void dot_rows(tn_dtype dtype, const shares *s, tn_view x, int64_t first, int64_t count,
                     double out[BLOCK]) {
    const tn_weight *w = &s->linear->part[s->part].weight;
    float weights[CHUNK], scales[BLOCK];
    for (int64_t i = 0; i < count; i++) out[i] = 0;
    if (s->fp8) fp8_scales(dtype, x, first, count, w->cols, scales);
    for (int64_t start = 0; start < w->cols; start += CHUNK) {
        int64_t width = tn_min(CHUNK, w->cols - start);
        tn_decode_row(w, s->n, start, width, weights);
        for (int64_t i = 0; i < count; i++) {
            const void *values = tn_at(dtype, x, first + i, start);
            for (int64_t k = 0; k < width; k++) {
                double value = tn_load(dtype, values, k);
                if (s->fp8) value = tn_e4m3_to_f32(tn_fp8_code((float)value, scales[i])) * scales[i];
                out[i] += value * weights[k] * share_of(s, first + i, start + k);
            }
        }
    }
}

/* scale·Σ_j u[j]·B[n, j]. */
static double lora_output(tn_dtype dtype, const tn_lora *lora, int64_t n, const void *u) {
    double sum = 0;
    for (int64_t j = 0; j < lora->r; j++)
        sum += (double)lora->scale * tn_load(dtype, u, j) * lora->b[n * lora->r + j];
    return sum;
}

tn_status tn_ref_linear_inner(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x,
                              const tn_dropout *dropout) {
    int64_t border = linear->in;
    for (int p = 0; p < linear->parts; p++) {
        lora_input(device->dtype, linear, p, rows, x, border, dropout);
        border += linear->part[p].lora.r;
    }
    return TN_OK;
}

tn_status tn_ref_linear_forward(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x, tn_view y,
                                tn_view residual, float alpha, const tn_dropout *dropout) {
    tn_dtype dtype = device->dtype;
    int64_t output = 0, border = linear->in;
    bool fp8 = tn_linear_is_fp8(device, linear);
    tn_ref_linear_inner(device, linear, rows, x, dropout);
    for (int p = 0; p < linear->parts; p++) {
        const tn_part *part = &linear->part[p];
        const tn_lora *lora = &part->lora;
#pragma omp parallel for schedule(static)
        for (int64_t n = 0; n < part->weight.rows; n++)
            for (int64_t first = 0; first < rows; first += BLOCK) {
                double sums[BLOCK], ratio = ratio_of(linear, output + n);
                int64_t count = tn_min(BLOCK, rows - first);
                const shares row = {linear, p, n, 1, ratio - 1, fp8, dropout};
                dot_rows(dtype, &row, x, first, count, sums);
                for (int64_t i = 0; i < count; i++) {
                    const void *u = tn_at(dtype, x, first + i, border);
                    double sum = sums[i] + (part->bias ? tn_load(dtype, part->bias, n) : 0);
                    sum = alpha * (sum + ratio * lora_output(dtype, lora, n, u));
                    if (residual.data) sum += tn_load(dtype, tn_at(dtype, residual, first + i, output + n), 0);
                    tn_store(dtype, tn_at(dtype, y, first + i, output + n), 0, sum);
                }
            }
        output += part->weight.rows;
        border += lora->r;
    }
    return TN_OK;
}

/* v[row, j] = scale·Σ_n ratio·dy[row, n]·B[n, j], into the border of dy at `column`. */
static void lora_output_gradient(tn_dtype dtype, const tn_linear *linear, int p, int64_t rows, tn_view dy,
                                 int64_t output, int64_t column) {
    const tn_part *part = &linear->part[p];
    const tn_lora *lora = &part->lora;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t j = 0; j < lora->r; j++) {
            double sum = 0;
            for (int64_t n = 0; n < part->weight.rows; n++)
                sum += (double)tn_load(dtype, tn_at(dtype, dy, row, output + n), 0) *
                       ratio_of(linear, output + n) * lora->b[n * lora->r + j];
            tn_store(dtype, tn_at(dtype, dy, row, column + j), 0, lora->scale * sum);
        }
}

/* to[i, k] += factor·ratio[i]·Σ_row a[row, i]·b[row, k]·drop, [m, n]. `dropped` names the part whose mask lies
 * on b, or is -1; ratio NULL is all ones. */
static void outer_products(tn_dtype dtype, int64_t rows, tn_view a, int64_t m, tn_view b, int64_t n,
                           double factor, const float *ratio, float *to, const tn_linear *linear, int dropped,
                           const tn_dropout *dropout) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < m; i++)
        for (int64_t k = 0; k < n; k++) {
            double sum = 0;
            for (int64_t row = 0; row < rows; row++) {
                double product = (double)tn_load(dtype, tn_at(dtype, a, row, i), 0) *
                                 tn_load(dtype, tn_at(dtype, b, row, k), 0);
                sum += dropped < 0 ? product : product * tn_dropout_factor(dropout, linear, dropped, row, k);
            }
            to[i * n + k] = (float)(to[i * n + k] + (ratio ? ratio[i] : 1) * factor * sum);
        }
}

/* dm[n] += alpha·Σ_row dy[row, n]·(drop(x)·W[n] + scale·u·B[n]) / norm[n]; `dy` and `u` are the part's. */
static void magnitude_gradient(tn_dtype dtype, const tn_linear *linear, int p, int64_t rows, tn_view x,
                               tn_view dy, tn_view u, const float *norm, double alpha,
                               const tn_dropout *dropout) {
    const tn_lora *lora = &linear->part[p].lora;
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < linear->part[p].weight.rows; n++) {
        const shares row = {linear, p, n, 0, 1, false, dropout};
        double total = 0, sums[BLOCK];
        for (int64_t first = 0; first < rows; first += BLOCK) {
            int64_t count = tn_min(BLOCK, rows - first);
            dot_rows(dtype, &row, x, first, count, sums);
            for (int64_t i = 0; i < count; i++)
                total += (double)tn_load(dtype, tn_at(dtype, dy, first + i, n), 0) *
                         (sums[i] + lora_output(dtype, lora, n, tn_at(dtype, u, first + i, 0)));
        }
        if (norm[n] > 0) lora->dmagnitude[n] = (float)(lora->dmagnitude[n] + alpha * total / norm[n]);
    }
}

static void parameter_gradients(tn_dtype dtype, const tn_linear *linear, int index, int64_t rows, tn_view x,
                                tn_view dy, tn_view u, tn_view v, const float *ratio, double alpha,
                                const tn_dropout *dropout) {
    const tn_part *part = &linear->part[index];
    const tn_lora *lora = &part->lora;
    int64_t out = part->weight.rows, in = linear->in;
    if (lora->da) outer_products(dtype, rows, v, lora->r, x, in, alpha, NULL, lora->da, linear, index, dropout);
    if (lora->db)
        outer_products(dtype, rows, dy, out, u, lora->r, alpha * lora->scale, ratio, lora->db, linear, -1,
                       NULL);
    if (part->dweight)
        outer_products(dtype, rows, dy, out, x, in, alpha, NULL, part->dweight, linear, -1, NULL);
    for (int64_t n = 0; part->dbias && n < out; n++) {
        double sum = 0;
        for (int64_t row = 0; row < rows; row++) sum += tn_load(dtype, tn_at(dtype, dy, row, n), 0);
        part->dbias[n] = (float)(part->dbias[n] + alpha * sum);
    }
}

/* dx[first … first+count, start … start+width) = alpha·(dy·W + drop((ratio−1)·dy·W + v·A)) of all parts. */
static void input_gradient(tn_dtype dtype, const tn_linear *linear, tn_view dy, int64_t first, int64_t count,
                           int64_t start, int64_t width, tn_view dx, bool accumulate, float alpha,
                           const tn_dropout *dropout) {
    double sums[BLOCK][CHUNK] = {{0}};
    float weights[CHUNK];
    int64_t output = 0, border = linear->out;
    for (int p = 0; p < linear->parts; p++) {
        const tn_part *part = &linear->part[p];
        for (int64_t n = 0; n < part->weight.rows; n++) {
            const shares row = {linear, p, n, 1, ratio_of(linear, output + n) - 1, false, dropout};
            tn_decode_row(&part->weight, n, start, width, weights);
            for (int64_t i = 0; i < count; i++) {
                double factor = tn_load(dtype, tn_at(dtype, dy, first + i, output + n), 0);
                for (int64_t k = 0; k < width; k++)
                    sums[i][k] += factor * weights[k] * share_of(&row, first + i, start + k);
            }
        }
        for (int64_t j = 0; j < part->lora.r; j++)
            for (int64_t i = 0; i < count; i++) {
                double factor = tn_load(dtype, tn_at(dtype, dy, first + i, border + j), 0);
                for (int64_t k = 0; k < width; k++)
                    sums[i][k] += factor * part->lora.a[j * linear->in + start + k] *
                                  tn_dropout_factor(dropout, linear, p, first + i, start + k);
            }
        output += part->weight.rows;
        border += part->lora.r;
    }
    for (int64_t i = 0; i < count; i++) {
        void *to = tn_at(dtype, dx, first + i, start);
        for (int64_t k = 0; k < width; k++)
            tn_store(dtype, to, k, alpha * sums[i][k] + (accumulate ? tn_load(dtype, to, k) : 0));
    }
}

tn_status tn_ref_linear_backward(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x,
                                 tn_view dy, tn_view dx, bool accumulate, float alpha,
                                 const tn_dropout *dropout) {
    tn_dtype dtype = device->dtype;
    int64_t output = 0, border = 0;
    for (int p = 0; p < linear->parts; p++) {
        const tn_part *part = &linear->part[p];
        lora_output_gradient(dtype, linear, p, rows, dy, output, linear->out + border);
        tn_view part_dy = {tn_at(dtype, dy, 0, output), dy.stride};
        tn_view u = {tn_at(dtype, x, 0, linear->in + border), x.stride};
        tn_view v = {tn_at(dtype, dy, 0, linear->out + border), dy.stride};
        parameter_gradients(dtype, linear, p, rows, x, part_dy, u, v,
                            linear->ratio ? linear->ratio + output : NULL, alpha, dropout);
        if (part->lora.dmagnitude)
            magnitude_gradient(dtype, linear, p, rows, x, part_dy, u, linear->norm + output, alpha, dropout);
        output += part->weight.rows;
        border += part->lora.r;
    }
    if (!dx.data) return TN_OK;
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t first = 0; first < rows; first += BLOCK)
        for (int64_t start = 0; start < linear->in; start += CHUNK)
            input_gradient(dtype, linear, dy, first, tn_min(BLOCK, rows - first), start,
                           tn_min(CHUNK, linear->in - start), dx, accumulate, alpha, dropout);
    return TN_OK;
}
