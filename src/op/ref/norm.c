/* norm.c: RMSNorm over segments of a row, and rotary positions. Each row (and head) is on its own. */
#include <math.h>
#include <stddef.h>

#include "op/ref/element.h"
#include "op/ref/reference.h"

/* The factor a weight stands for: Gemma stores it as the distance from 1. */
static double effective(tn_dtype dtype, const void *w, bool offset, int64_t i) {
    return (offset ? 1.0 : 0.0) + tn_load(dtype, w, i);
}

static void normalise(tn_dtype dtype, int64_t cols, const void *x, const void *w, bool offset, float eps,
                      void *y, float *rstd) {
    double squares = 0;
    for (int64_t i = 0; i < cols; i++) squares += (double)tn_load(dtype, x, i) * tn_load(dtype, x, i);
    float r = (float)(1 / sqrt(squares / (double)cols + eps));
    for (int64_t i = 0; i < cols; i++) {
        float u = tn_load(dtype, x, i) * r;
        if (!offset) u = tn_round_to(dtype, u);
        tn_store(dtype, y, i, u * effective(dtype, w, offset, i));
    }
    if (rstd) *rstd = r;
}

tn_status tn_ref_rmsnorm_forward(tn_device *device, int64_t rows, int64_t groups, int64_t cols, tn_view x,
                                 const void *w, bool offset, float eps, tn_view y, float *rstd) {
    tn_dtype dtype = device->dtype;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t g = 0; g < groups; g++)
            normalise(dtype, cols, tn_at(dtype, x, row, g * cols), w, offset, eps,
                      tn_at(dtype, y, row, g * cols), rstd ? &rstd[row * groups + g] : NULL);
    return TN_OK;
}

/* dw[i] += Σ over rows and groups of dy·x·r. */
static void weight_gradient(tn_dtype dtype, int64_t rows, int64_t groups, int64_t cols, tn_view x,
                            const float *rstd, tn_view dy, float *dw) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < cols; i++) {
        double sum = 0;
        for (int64_t row = 0; row < rows; row++)
            for (int64_t g = 0; g < groups; g++)
                sum += (double)tn_load(dtype, tn_at(dtype, dy, row, g * cols + i), 0) *
                       tn_load(dtype, tn_at(dtype, x, row, g * cols + i), 0) * rstd[row * groups + g];
        dw[i] = (float)(dw[i] + sum);
    }
}

static void segment_gradient(tn_dtype dtype, int64_t cols, const void *x, const void *w, bool offset, double r,
                             const void *dy, void *dx, bool accumulate) {
    double mean = 0;
    for (int64_t i = 0; i < cols; i++)
        mean += tn_load(dtype, dy, i) * effective(dtype, w, offset, i) * tn_load(dtype, x, i);
    mean /= (double)cols;
    for (int64_t i = 0; i < cols; i++) {
        double g = tn_load(dtype, dy, i) * effective(dtype, w, offset, i);
        double value = r * (g - tn_load(dtype, x, i) * r * r * mean);
        tn_store(dtype, dx, i, accumulate ? tn_load(dtype, dx, i) + value : value);
    }
}

tn_status tn_ref_rmsnorm_backward(tn_device *device, int64_t rows, int64_t groups, int64_t cols, tn_view x,
                                  const void *w, bool offset, const float *rstd, tn_view dy, tn_view dx,
                                  bool accumulate, float *dw) {
    tn_dtype dtype = device->dtype;
    if (dw) weight_gradient(dtype, rows, groups, cols, x, rstd, dy, dw); /* first: dx may be dy */
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t g = 0; g < groups; g++)
            segment_gradient(dtype, cols, tn_at(dtype, x, row, g * cols), w, offset, rstd[row * groups + g],
                             tn_at(dtype, dy, row, g * cols), tn_at(dtype, dx, row, g * cols), accumulate);
    return TN_OK;
}

tn_status tn_ref_rope_table(tn_device *device, int64_t rows, int64_t half, const int32_t *positions,
                            const int32_t *row_table, const float *inv_freq, float scaling, float *cosines,
                            float *sines) {
    (void)device;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const float *frequencies = inv_freq + (row_table ? row_table[row] : 0) * half;
        for (int64_t i = 0; i < half; i++) {
            float angle = (float)positions[row] * frequencies[i]; /* rounded to fp32, as Transformers does */
            cosines[row * half + i] = (float)cos((double)angle) * scaling;
            sines[row * half + i] = (float)sin((double)angle) * scaling;
        }
    }
    return TN_OK;
}

tn_status tn_ref_rope(tn_device *device, int64_t rows, int64_t heads, int64_t head_dim, int64_t half, tn_view x,
                      const float *cosines, const float *sines, bool inverse) {
    tn_dtype dtype = device->dtype;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t head = 0; head < heads; head++) {
            void *values = tn_at(dtype, x, row, head * head_dim);
            for (int64_t i = 0; i < half; i++) {
                float c = cosines[row * half + i], s = inverse ? -sines[row * half + i] : sines[row * half + i];
                float low = tn_load(dtype, values, i), high = tn_load(dtype, values, i + half);
                tn_store(dtype, values, i, low * c - high * s);
                tn_store(dtype, values, i + half, high * c + low * s);
            }
        }
    return TN_OK;
}
