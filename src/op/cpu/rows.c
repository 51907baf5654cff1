/* rows.c: operations that work row by row, rows shared out among the threads. A row's result never depends on
 * which thread made it.
 */
#include <stddef.h>

#include "op/cpu/cpu.h"

enum { CHUNK = 256, PIECE = 4096 };

tn_status tn_cpu_weight_refresh(tn_device *device, int64_t count, const float *master, void *values) {
    const tn_kernels *k = tn_kernels_of(device);
    int64_t size = tn_element_bytes(device->dtype);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i += PIECE)
        k->narrow[tn_is_bf16(device)](count - i < PIECE ? count - i : PIECE, master + i,
                                      (char *)values + i * size);
    return TN_OK;
}

tn_status tn_cpu_embed_forward(tn_device *device, int64_t rows, const int32_t *ids, const tn_weight *table,
                               float scale, tn_view y) {
    const tn_kernels *k = tn_kernels_of(device);
    tn_dtype dtype = device->dtype;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t first = 0; first < table->cols; first += CHUNK) {
            float values[CHUNK];
            int64_t count = table->cols - first < CHUNK ? table->cols - first : CHUNK;
            tn_decode_row(table, ids[row], first, count, values);
            k->scale[tn_is_bf16(device)](count, scale, values, tn_at(dtype, y, row, first));
        }
    return TN_OK;
}

tn_status tn_cpu_rmsnorm_forward(tn_device *device, int64_t rows, int64_t groups, int64_t cols, tn_view x,
                                 const void *w, bool offset, float eps, tn_view y, float *rstd) {
    const tn_kernels *k = tn_kernels_of(device);
    tn_dtype dtype = device->dtype;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t g = 0; g < groups; g++)
            k->rmsnorm[tn_is_bf16(device)](cols, tn_at(dtype, x, row, g * cols), w, offset, eps,
                                           tn_at(dtype, y, row, g * cols),
                                           rstd ? &rstd[row * groups + g] : NULL);
    return TN_OK;
}

/* Each thread owns a strip of columns, so that dw needs no second buffer. */
static void rmsnorm_weight(tn_device *device, int64_t rows, int64_t groups, int64_t cols, tn_view x,
                           const float *rstd, tn_view dy, float *dw) {
    const tn_kernels *k = tn_kernels_of(device);
    tn_dtype dtype = device->dtype;
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < cols; first += CHUNK) {
        float sums[CHUNK] = {0};
        int64_t count = cols - first < CHUNK ? cols - first : CHUNK;
        for (int64_t row = 0; row < rows; row++)
            for (int64_t g = 0; g < groups; g++)
                k->rmsnorm_weight[tn_is_bf16(device)](count, tn_at(dtype, x, row, g * cols + first),
                                                      rstd[row * groups + g],
                                                      tn_at(dtype, dy, row, g * cols + first), sums);
        for (int64_t i = 0; i < count; i++) dw[first + i] += sums[i];
    }
}

tn_status tn_cpu_rmsnorm_backward(tn_device *device, int64_t rows, int64_t groups, int64_t cols, tn_view x,
                                  const void *w, bool offset, const float *rstd, tn_view dy, tn_view dx,
                                  bool accumulate, float *dw) {
    const tn_kernels *k = tn_kernels_of(device);
    tn_dtype dtype = device->dtype;
    if (dw) rmsnorm_weight(device, rows, groups, cols, x, rstd, dy, dw); /* first: dx may be dy */
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t g = 0; g < groups; g++)
            k->rmsnorm_backward[tn_is_bf16(device)](cols, tn_at(dtype, x, row, g * cols), w, offset,
                                                    rstd[row * groups + g], tn_at(dtype, dy, row, g * cols),
                                                    tn_at(dtype, dx, row, g * cols), accumulate);
    return TN_OK;
}

tn_status tn_cpu_rope(tn_device *device, int64_t rows, int64_t heads, int64_t head_dim, int64_t half, tn_view x,
                      const float *cosines, const float *sines, bool inverse) {
    const tn_kernels *k = tn_kernels_of(device);
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t head = 0; head < heads; head++)
            k->rope[tn_is_bf16(device)](half, tn_at(device->dtype, x, row, head * head_dim),
                                        cosines + row * half, sines + row * half, inverse ? -1.0f : 1.0f);
    return TN_OK;
}

tn_status tn_cpu_gated_forward(tn_device *device, int64_t rows, int64_t cols, tn_activation activation,
                               tn_view gate_up, tn_view y) {
    const tn_kernels *k = tn_kernels_of(device);
    tn_dtype dtype = device->dtype;
    if (activation == TN_GELU) return tn_ref_gated_forward(device, rows, cols, activation, gate_up, y);
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        k->gated[activation][tn_is_bf16(device)](cols, tn_at(dtype, gate_up, row, 0),
                                                 tn_at(dtype, gate_up, row, cols), tn_at(dtype, y, row, 0));
    return TN_OK;
}

tn_status tn_cpu_gated_backward(tn_device *device, int64_t rows, int64_t cols, tn_activation activation,
                                tn_view gate_up, tn_view dy, tn_view d_gate_up) {
    const tn_kernels *k = tn_kernels_of(device);
    tn_dtype dtype = device->dtype;
    if (activation == TN_GELU)
        return tn_ref_gated_backward(device, rows, cols, activation, gate_up, dy, d_gate_up);
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        k->gated_backward[activation][tn_is_bf16(device)](
            cols, tn_at(dtype, gate_up, row, 0), tn_at(dtype, gate_up, row, cols), tn_at(dtype, dy, row, 0),
            tn_at(dtype, d_gate_up, row, 0), tn_at(dtype, d_gate_up, row, cols));
    return TN_OK;
}

tn_status tn_cpu_add(tn_device *device, int64_t rows, int64_t cols, tn_view a, tn_view b, tn_view y) {
    const tn_kernels *k = tn_kernels_of(device);
    tn_dtype dtype = device->dtype;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        k->add[tn_is_bf16(device)](cols, tn_at(dtype, a, row, 0), tn_at(dtype, b, row, 0),
                                   tn_at(dtype, y, row, 0));
    return TN_OK;
}

tn_status tn_cpu_widen(tn_device *device, int64_t rows, int64_t cols, tn_view from, float *to) {
    const tn_kernels *k = tn_kernels_of(device);
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        k->widen[tn_is_bf16(device)](cols, tn_at(device->dtype, from, row, 0), to + row * cols);
    return TN_OK;
}

tn_status tn_cpu_cross_entropy(tn_device *device, int64_t rows, int64_t vocab, tn_view logits,
                               const int32_t *targets, float softcap, float grad_scale, float *loss,
                               tn_view d_logits) {
    const tn_kernels *k = tn_kernels_of(device);
    tn_dtype dtype = device->dtype;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        k->cross_entropy[tn_is_bf16(device)](vocab, tn_at(dtype, logits, row, 0), targets[row], softcap,
                                             grad_scale, &loss[row],
                                             d_logits.data ? tn_at(dtype, d_logits, row, 0) : NULL);
    return TN_OK;
}
