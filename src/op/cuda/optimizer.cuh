/* optimizer.cuh: what the kernels of the optimizers share: the scalars of a step, the factor of the gradient with
 * its clipping, and AdamW's rule for one element.
 */
#ifndef TN_OP_CUDA_OPTIMIZER_CUH
#define TN_OP_CUDA_OPTIMIZER_CUH

#include "op/cuda/kernel.cuh"

/* What every element needs; products of doubles are formed on the host, as PyTorch does. */
struct scalars {
    float beta1, beta2, one_minus_beta1, one_minus_beta2, decay, step_size, root_correction, epsilon;
    float learning_rate, weight_decay, momentum;
    double grad_scale, max_norm;
    const double *sum_squares;
};

static inline scalars scalars_of(const tn_optimizer_step *step) {
    scalars s;
    s.beta1 = (float)step->beta1, s.beta2 = (float)step->beta2;
    s.one_minus_beta1 = (float)(1 - step->beta1), s.one_minus_beta2 = (float)(1 - step->beta2);
    s.decay = (float)(1 - step->learning_rate * step->weight_decay);
    s.step_size = (float)(step->learning_rate / (1 - pow(step->beta1, (double)step->step)));
    s.root_correction = (float)sqrt(1 - pow(step->beta2, (double)step->step));
    s.epsilon = (float)step->epsilon;
    s.learning_rate = (float)step->learning_rate, s.weight_decay = (float)step->weight_decay;
    s.momentum = (float)step->momentum;
    s.grad_scale = step->grad_scale, s.max_norm = step->max_norm, s.sum_squares = step->sum_squares;
    return s;
}

/* grad_scale · min(1, max_norm / (norm + 1e-6)); false where the gradient is not finite. */
__device__ static inline bool gradient_scale(const scalars &s, float *scale) {
    double squares = s.sum_squares ? *s.sum_squares : 0;
    if (!isfinite(squares)) return false;
    double clip = s.max_norm > 0 ? s.max_norm / (sqrt(squares) * s.grad_scale + 1e-6) : 1;
    *scale = (float)(s.grad_scale * (clip < 1 ? clip : 1));
    return true;
}

struct adamw_rule {
    static constexpr int STATES = 2;
    __device__ static void apply(const scalars &s, float &p, float g, float &m, float &v) {
        p *= s.decay;
        m = m * s.beta1 + g * s.one_minus_beta1;
        v = v * s.beta2 + g * g * s.one_minus_beta2;
        p -= s.step_size * (m / (sqrtf(v) / s.root_correction + s.epsilon));
    }
};

#endif
