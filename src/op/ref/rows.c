/* rows.c: what works on rows without mixing them: embedding, gated activation, sums, copies. */
#include <math.h>
#include <string.h>

#include "op/ref/element.h"
#include "op/ref/reference.h"

enum { CHUNK = 256 };

tn_status tn_ref_embed_forward(tn_device *device, int64_t rows, const int32_t *ids, const tn_weight *table,
                               float scale, tn_view y) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t first = 0; first < table->cols; first += CHUNK) {
            float values[CHUNK];
            int64_t count = table->cols - first < CHUNK ? table->cols - first : CHUNK;
            tn_decode_row(table, ids[row], first, count, values);
            void *to = tn_at(device->dtype, y, row, first);
            for (int64_t i = 0; i < count; i++) tn_store(device->dtype, to, i, scale * values[i]);
        }
    return TN_OK;
}

tn_status tn_ref_embed_backward(tn_device *device, int64_t rows, int64_t cols, int64_t segments,
                                const int32_t *ids, const int32_t *order, const int32_t *starts, float scale,
                                tn_view dy, float *dtable) {
    (void)rows;
#pragma omp parallel for schedule(static)
    for (int64_t s = 0; s < segments; s++) {
        float *to = dtable + ids[order[starts[s]]] * cols;
        for (int64_t i = 0; i < cols; i++) {
            double sum = 0;
            for (int64_t j = starts[s]; j < starts[s + 1]; j++)
                sum += tn_load(device->dtype, tn_at(device->dtype, dy, order[j], i), 0);
            to[i] = (float)(to[i] + scale * sum);
        }
    }
    return TN_OK;
}

/* act(x) and its derivative. */
static double activate(tn_activation activation, double x, double *slope) {
    if (activation == TN_SILU) {
        double sigmoid = 1 / (1 + exp(-x));
        *slope = sigmoid * (1 + x * (1 - sigmoid));
        return x * sigmoid;
    }
    if (activation == TN_GELU) {
        double below = 0.5 * (1 + erf(x * 0.70710678118654752)); /* P(normal < x) */
        *slope = below + x * 0.39894228040143268 * exp(-0.5 * x * x);
        return x * below;
    }
    const double root = 0.79788456080286536; /* √(2/π) */
    double t = tanh(root * (x + 0.044715 * x * x * x));
    *slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * root * (1 + 3 * 0.044715 * x * x);
    return 0.5 * x * (1 + t);
}

tn_status tn_ref_activate(tn_device *device, int64_t rows, int64_t cols, tn_activation activation, tn_view x,
                          tn_view y) {
    tn_dtype dtype = device->dtype;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const void *from = tn_at(dtype, x, row, 0);
        void *to = tn_at(dtype, y, row, 0);
        for (int64_t i = 0; i < cols; i++) {
            double slope;
            tn_store(dtype, to, i, activate(activation, tn_load(dtype, from, i), &slope));
        }
    }
    return TN_OK;
}

tn_status tn_ref_gated_forward(tn_device *device, int64_t rows, int64_t cols, tn_activation activation,
                               tn_view gate_up, tn_view y) {
    tn_dtype dtype = device->dtype;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const void *gate = tn_at(dtype, gate_up, row, 0), *up = tn_at(dtype, gate_up, row, cols);
        void *to = tn_at(dtype, y, row, 0);
        for (int64_t i = 0; i < cols; i++) {
            double slope, value = activate(activation, tn_load(dtype, gate, i), &slope);
            tn_store(dtype, to, i, value * tn_load(dtype, up, i));
        }
    }
    return TN_OK;
}

tn_status tn_ref_gated_backward(tn_device *device, int64_t rows, int64_t cols, tn_activation activation,
                                tn_view gate_up, tn_view dy, tn_view d_gate_up) {
    tn_dtype dtype = device->dtype;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const void *gradient = tn_at(dtype, dy, row, 0);
        for (int64_t i = 0; i < cols; i++) {
            double gate = tn_load(dtype, tn_at(dtype, gate_up, row, i), 0);
            double up = tn_load(dtype, tn_at(dtype, gate_up, row, cols + i), 0);
            double g = tn_load(dtype, gradient, i), slope, value = activate(activation, gate, &slope);
            tn_store(dtype, tn_at(dtype, d_gate_up, row, i), 0, g * up * slope);
            tn_store(dtype, tn_at(dtype, d_gate_up, row, cols + i), 0, g * value);
        }
    }
    return TN_OK;
}

tn_status tn_ref_add(tn_device *device, int64_t rows, int64_t cols, tn_view a, tn_view b, tn_view y) {
    tn_dtype dtype = device->dtype;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < cols; i++)
            tn_store(dtype, tn_at(dtype, y, row, i), 0,
                     tn_load(dtype, tn_at(dtype, a, row, i), 0) + tn_load(dtype, tn_at(dtype, b, row, i), 0));
    return TN_OK;
}

/* to[to_index[i]] = from[from_index[i]]; NULL = i itself. */
static tn_status move_rows(tn_dtype dtype, int64_t rows, int64_t cols, const int32_t *from_index, tn_view from,
                           const int32_t *to_index, tn_view to) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; i++)
        memcpy(tn_at(dtype, to, to_index ? to_index[i] : i, 0),
               tn_at(dtype, from, from_index ? from_index[i] : i, 0), (size_t)(cols * tn_element_bytes(dtype)));
    return TN_OK;
}

tn_status tn_ref_gather_rows(tn_device *device, int64_t rows, int64_t cols, const int32_t *index, tn_view from,
                             tn_view to) {
    return move_rows(device->dtype, rows, cols, index, from, NULL, to);
}

tn_status tn_ref_scatter_rows(tn_device *device, int64_t rows, int64_t cols, const int32_t *index, tn_view from,
                              tn_view to) {
    return move_rows(device->dtype, rows, cols, NULL, from, index, to);
}

tn_status tn_ref_copy_rows(tn_device *device, int64_t rows, int64_t cols, tn_view from, tn_view to) {
    return move_rows(device->dtype, rows, cols, NULL, from, NULL, to);
}

tn_status tn_ref_widen(tn_device *device, int64_t rows, int64_t cols, tn_view from, float *to) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < cols; i++)
            to[row * cols + i] = tn_load(device->dtype, tn_at(device->dtype, from, row, i), 0);
    return TN_OK;
}
