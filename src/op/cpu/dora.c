/* dora.c: what DoRA (op/dora.h) needs of the CPU: norms of the rows of W + scale·B·A, and steps over matrices
 * that lie in the scratch. A norm is taken of rows that are made in fp32, a tile of them at a time: nothing
 * cancels, and W is read once, in whatever format it is.
 */
#include "op/dora.h"

#include <math.h>
#include <stddef.h>

#include "base/integer.h"
#include "op/cpu/linear.h"

enum {
    TILE = 1 << 18 /* elements of a tile of rows */,
    CHUNK = 256,
    STRIP = 64 /* columns of a sum per task */
};

/* ---- Norms ---------------------------------------------------------------------------------------- */

static int64_t tile_rows(int64_t cols) { return cols < TILE ? TILE / cols : 1; }

int64_t tn_cpu_dora_tile(int64_t cols) { return tn_scratch_room((cols < TILE ? TILE : cols) * 4); }

static void widen_rows(const tn_device *device, const tn_weight *w, int64_t first, int64_t count, float *to) {
    const tn_kernels *kernels = tn_kernels_of(device);
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < count; row++)
        for (int64_t k = 0; k < w->cols; k += CHUNK)
            tn_cpu_decode_row(kernels, w, first + row, k, tn_min(CHUNK, w->cols - k), to + row * w->cols + k);
}

static tn_status part_norms(tn_device *device, const tn_part *part, float *tile, float *norm, float *ratio) {
    const tn_weight *w = &part->weight;
    const tn_lora *lora = &part->lora;
    tn_status status = TN_OK;
    for (int64_t first = 0, step = tile_rows(w->cols); first < w->rows; first += step) {
        const int64_t count = tn_min(step, w->rows - first);
        const tn_gemm delta = {.in = TN_DTYPE_F32,
                               .out = TN_DTYPE_F32,
                               .m = count,
                               .n = w->cols,
                               .k = lora->r,
                               .lda = lora->r,
                               .ldb = w->cols,
                               .ldc = w->cols,
                               .alpha = lora->scale,
                               .accumulate = true};
        widen_rows(device, w, first, count, tile);
        TN_TRY(tn_gemm_run(&delta, lora->b + first * lora->r, lora->a, tile, NULL, NULL));
#pragma omp parallel for schedule(static)
        for (int64_t row = 0; row < count; row++) {
            norm[first + row] = (float)sqrt(tn_kernels_of(device)->sum_squares(w->cols, tile + row * w->cols));
            ratio[first + row] = tn_dora_ratio(lora, first + row, norm[first + row]);
        }
    }
done:
    return status;
}

tn_status tn_cpu_dora_refresh(tn_device *device, tn_linear *linear) {
    tn_scratch scratch = tn_scratch_of(device);
    int64_t output = 0;
    float *tile;
    tn_status status = TN_OK;
    if (!linear->norm) return TN_OK;
    TN_TRY(tn_scratch_take(&scratch, tn_cpu_dora_tile(linear->in), &tile));
    for (int p = 0; p < linear->parts; p++) {
        const tn_part *part = &linear->part[p];
        float *norm = linear->norm + output, *ratio = linear->ratio + output;
        for (int64_t n = 0; !part->lora.dora && n < part->weight.rows; n++) norm[n] = ratio[n] = 1;
        if (part->lora.dora) TN_TRY(part_norms(device, part, tile, norm, ratio));
        output += part->weight.rows;
    }
done:
    return status;
}

/* ---- Steps ---------------------------------------------------------------------------------------- */

static tn_status mask(tn_device *device, const tn_linear *linear, int part, const tn_dropout *dropout,
                      int64_t rows, tn_view from, tn_view to, bool accumulate) {
    const tn_kernels *kernels = tn_kernels_of(device);
    tn_dtype dtype = device->dtype;
    int bf16 = tn_is_bf16(device);
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t k = 0; k < linear->in; k += TN_MASK) {
            float factors[TN_MASK], sums[TN_MASK];
            int64_t count = tn_min(TN_MASK, linear->in - k);
            void *here = tn_at(dtype, to, row, k);
            tn_dropout_mask(device, linear, part, row, k, count, dropout, factors);
            for (int64_t i = 0; i < count; i++) factors[i] -= 1;
            if (accumulate) kernels->widen[bf16](count, here, sums);
            for (int64_t i = 0; i < count; i++)
                factors[i] =
                    factors[i] * tn_load(dtype, tn_at(dtype, from, row, k), i) + (accumulate ? sums[i] : 0);
            kernels->narrow[bf16](count, factors, here);
        }
    return TN_OK;
}

/* y = residual + alpha·(bias + g·z + (g−1)·c) of one part's row; the views begin at its first column. */
static void finish_row(const tn_device *device, const tn_part *part, const float *ratio, int64_t row, tn_view z,
                       tn_view c, tn_view y, tn_view residual, float alpha) {
    const tn_kernels *kernels = tn_kernels_of(device);
    tn_dtype dtype = device->dtype;
    int bf16 = tn_is_bf16(device);
    for (int64_t n = 0; n < part->weight.rows; n += CHUNK) {
        float sums[CHUNK], values[CHUNK];
        int64_t count = tn_min(CHUNK, part->weight.rows - n);
        kernels->widen[bf16](count, tn_at(dtype, z, row, n), sums);
        for (int64_t i = 0; i < count; i++) sums[i] *= ratio[n + i];
        if (c.data) kernels->widen[bf16](count, tn_at(dtype, c, row, n), values);
        for (int64_t i = 0; c.data && i < count; i++) sums[i] += (ratio[n + i] - 1) * values[i];
        for (int64_t i = 0; part->bias && i < count; i++) sums[i] += tn_load(dtype, part->bias, n + i);
        for (int64_t i = 0; i < count; i++) sums[i] *= alpha;
        if (residual.data) kernels->accumulate[bf16](count, tn_at(dtype, residual, row, n), sums);
        kernels->narrow[bf16](count, sums, tn_at(dtype, y, row, n));
    }
}

static tn_status finish(tn_device *device, const tn_linear *linear, int64_t rows, tn_view z, tn_view c,
                        tn_view y, tn_view residual, float alpha) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t p = 0, output = 0; p < linear->parts; output += linear->part[p++].weight.rows)
            finish_row(device, &linear->part[p], linear->ratio + output, row, tn_view_at(device, z, 0, output),
                       tn_view_at(device, c, 0, output), tn_view_at(device, y, 0, output),
                       tn_view_at(device, residual, 0, output), alpha);
    return TN_OK;
}

/* to = (factor − less) ⊙ gradient, of a row. */
static void scale_row(const tn_device *device, int64_t count, const float *factor, float less,
                      const float *gradient, void *to) {
    float values[STRIP];
    for (int64_t i = 0; i < count; i++) values[i] = (factor[i] - less) * gradient[i];
    tn_kernels_of(device)->narrow[tn_is_bf16(device)](count, values, to);
}

static tn_status turn(tn_device *device, int64_t rows, int64_t cols, tn_view dy, tn_view z, tn_view c,
                      const float *norm, const float *ratio, float alpha, float *dmagnitude) {
    const tn_kernels *kernels = tn_kernels_of(device);
    tn_dtype dtype = device->dtype;
    int bf16 = tn_is_bf16(device);
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < cols; n += STRIP) {
        float sums[STRIP] = {0}, gradient[STRIP], values[STRIP];
        int64_t count = tn_min(STRIP, cols - n);
        for (int64_t row = 0; row < rows; row++) {
            kernels->widen[bf16](count, tn_at(dtype, dy, row, n), gradient);
            kernels->widen[bf16](count, tn_at(dtype, z, row, n), values);
            if (c.data) kernels->accumulate[bf16](count, tn_at(dtype, c, row, n), values);
            kernels->add_product(count, gradient, values, sums);
            scale_row(device, count, ratio + n, 0, gradient, tn_at(dtype, z, row, n));
            if (c.data) scale_row(device, count, ratio + n, 1, gradient, tn_at(dtype, c, row, n));
        }
        for (int64_t i = 0; dmagnitude && i < count; i++)
            if (norm[n + i] > 0) dmagnitude[n + i] += alpha * sums[i] / norm[n + i];
    }
    return TN_OK;
}

const tn_dora_steps tn_cpu_dora = {mask, finish, turn};
