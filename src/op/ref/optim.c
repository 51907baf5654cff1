/* optim.c: optimizers over flat fp32 ranges. Scalars are prepared in double, elements updated in fp32 in the
 * order of PyTorch's single-tensor loops.
 */
#include <math.h>

#include "op/ref/reference.h"

double tn_gradient_factor(const tn_optimizer_step *step) {
    if (!isfinite(*step->sum_squares)) return NAN;
    double norm = sqrt(*step->sum_squares) * step->grad_scale;
    double clip = step->max_norm > 0 ? fmin(1, step->max_norm / (norm + 1e-6)) : 1;
    return step->grad_scale * clip;
}

/* Decoupled weight decay (Loshchilov and Hutter, 2019), bias correction as in PyTorch. */
tn_status tn_ref_adamw(tn_device *device, int64_t count, float *p, const float *g, float *m, float *v,
                       const tn_optimizer_step *step) {
    (void)device;
    double factor = tn_gradient_factor(step);
    if (isnan(factor)) return TN_OK;
    double correction1 = 1 - pow(step->beta1, (double)step->step),
           correction2 = 1 - pow(step->beta2, (double)step->step);
    float decay = (float)(1 - step->learning_rate * step->weight_decay), scale = (float)factor;
    float beta1 = (float)step->beta1, beta2 = (float)step->beta2;
    float rest1 = (float)(1 - step->beta1), rest2 = (float)(1 - step->beta2);
    float size = (float)(step->learning_rate / correction1), root = (float)sqrt(correction2);
    float epsilon = (float)step->epsilon;
    for (int64_t i = 0; i < count; i++) {
        float gradient = g[i] * scale;
        m[i] = beta1 * m[i] + rest1 * gradient;
        v[i] = beta2 * v[i] + rest2 * gradient * gradient;
        p[i] = p[i] * decay - size * (m[i] / (sqrtf(v[i]) / root + epsilon));
    }
    return TN_OK;
}

/* PyTorch's SGD: weight decay enters through the gradient, and the momentum is a plain sum (dampening 0), whose
 * first value is the first gradient. */
tn_status tn_ref_sgd(tn_device *device, int64_t count, float *p, const float *g, float *m,
                     const tn_optimizer_step *step) {
    (void)device;
    double factor = tn_gradient_factor(step);
    if (isnan(factor)) return TN_OK;
    float scale = (float)factor, rate = (float)step->learning_rate, decay = (float)step->weight_decay;
    float momentum = (float)step->momentum;
    if (momentum <= 0) {
        for (int64_t i = 0; i < count; i++) p[i] -= rate * (g[i] * scale + decay * p[i]);
        return TN_OK;
    }
    for (int64_t i = 0; i < count; i++) {
        m[i] = momentum * m[i] + (g[i] * scale + decay * p[i]);
        p[i] -= rate * m[i];
    }
    return TN_OK;
}

/* Chen et al., "Symbolic discovery of optimization algorithms", 2023. */
tn_status tn_ref_lion(tn_device *device, int64_t count, float *p, const float *g, float *m,
                      const tn_optimizer_step *step) {
    (void)device;
    double factor = tn_gradient_factor(step);
    if (isnan(factor)) return TN_OK;
    float scale = (float)factor, rate = (float)step->learning_rate;
    float decay = (float)(1 - step->learning_rate * step->weight_decay);
    float beta1 = (float)step->beta1, beta2 = (float)step->beta2;
    float rest1 = (float)(1 - step->beta1), rest2 = (float)(1 - step->beta2);
    for (int64_t i = 0; i < count; i++) {
        float gradient = g[i] * scale, direction = beta1 * m[i] + rest1 * gradient;
        float sign = direction > 0 ? 1 : direction < 0 ? -1 : 0;
        p[i] = p[i] * decay - rate * sign;
        m[i] = beta2 * m[i] + rest2 * gradient;
    }
    return TN_OK;
}
