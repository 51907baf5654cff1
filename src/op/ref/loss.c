/* loss.c: cross-entropy of logits [rows, vocab] with its gradient, and sums over flat fp32 ranges. */
#include <math.h>
#include <stddef.h>

#include "op/ref/element.h"
#include "op/ref/reference.h"

static double capped(double logit, double cap) { return cap > 0 ? cap * tanh(logit / cap) : logit; }

static void row_loss(tn_dtype dtype, int64_t vocab, const void *logits, int64_t target, double cap,
                     double grad_scale, float *loss, void *d_logits) {
    double largest = -INFINITY, total = 0;
    for (int64_t i = 0; i < vocab; i++) largest = fmax(largest, capped(tn_load(dtype, logits, i), cap));
    for (int64_t i = 0; i < vocab; i++) total += exp(capped(tn_load(dtype, logits, i), cap) - largest);
    double logsumexp = largest + log(total);
    *loss = (float)(logsumexp - capped(tn_load(dtype, logits, target), cap));
    for (int64_t i = 0; d_logits && i < vocab; i++) {
        double z = capped(tn_load(dtype, logits, i), cap);
        double gradient = grad_scale * (exp(z - logsumexp) - (i == target ? 1 : 0));
        tn_store(dtype, d_logits, i, cap > 0 ? gradient * (1 - z / cap * (z / cap)) : gradient);
    }
}

tn_status tn_ref_cross_entropy(tn_device *device, int64_t rows, int64_t vocab, tn_view logits,
                               const int32_t *targets, float softcap, float grad_scale, float *loss,
                               tn_view d_logits) {
    tn_dtype dtype = device->dtype;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        row_loss(dtype, vocab, tn_at(dtype, logits, row, 0), targets[row], softcap, grad_scale, &loss[row],
                 d_logits.data ? tn_at(dtype, d_logits, row, 0) : NULL);
    return TN_OK;
}

tn_status tn_ref_sum(tn_device *device, int64_t count, const float *values, double *total) {
    (void)device;
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += values[i];
    *total += sum;
    return TN_OK;
}

tn_status tn_ref_sum_squares(tn_device *device, int64_t count, const float *values, double *total) {
    (void)device;
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += (double)values[i] * values[i];
    *total += sum;
    return TN_OK;
}
