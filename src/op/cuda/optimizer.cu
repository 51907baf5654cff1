/* optimizer.cu: AdamW, SGD and Lion over flat fp32 ranges [count]. Clipping reads the sum of squares on the
 * device, so a step needs no word from the host; where that sum is not finite nothing is changed.
 */
#include "op/cuda/optimizer.cuh"

enum { THREADS = 256 };

struct sgd_rule { /* PyTorch's: weight decay joins the gradient */
    static constexpr int STATES = 0;
    __device__ static void apply(const scalars &s, float &p, float g, float &, float &) {
        p -= s.learning_rate * (g + s.weight_decay * p);
    }
};
struct momentum_rule {
    static constexpr int STATES = 1;
    __device__ static void apply(const scalars &s, float &p, float g, float &m, float &) {
        m = m * s.momentum + (g + s.weight_decay * p);
        p -= s.learning_rate * m;
    }
};
struct lion_rule { /* Chen et al., "Symbolic discovery of optimization algorithms", 2023 */
    static constexpr int STATES = 1;
    __device__ static void apply(const scalars &s, float &p, float g, float &m, float &) {
        float direction = m * s.beta1 + g * s.one_minus_beta1;
        p = p * s.decay - s.learning_rate * (float)((direction > 0) - (direction < 0));
        m = m * s.beta2 + g * s.one_minus_beta2;
    }
};

template <typename Rule, int V>
static __global__ void step_kernel(int64_t count, float *p, const float *g, float *m, float *v, scalars s) {
    float scale, a[V], b[V], c[V], d[V];
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * V;
    if (i >= count || !gradient_scale(s, &scale)) return;
    load<float, V>(p + i, a);
    load<float, V>(g + i, b);
    if (Rule::STATES > 0) load<float, V>(m + i, c);
    if (Rule::STATES > 1) load<float, V>(v + i, d);
#pragma unroll
    for (int k = 0; k < V; k++) Rule::apply(s, a[k], b[k] * scale, c[k], d[k]);
    store<float, V>(p + i, a);
    if (Rule::STATES > 0) store<float, V>(m + i, c);
    if (Rule::STATES > 1) store<float, V>(v + i, d);
}

template <typename Rule>
static tn_status step(tn_device *device, int64_t count, float *p, const float *g, float *m, float *v,
                      const tn_optimizer_step *how) {
    if (count == 0) return TN_OK;
    cudaStream_t stream = tn_cuda(device)->stream;
    scalars s = scalars_of(how);
    bool fast = wide(p) && wide(g) && wide(m) && wide(v);
    int64_t whole = fast ? count / 4 * 4 : 0, rest = count - whole;
    if (whole)
        step_kernel<Rule, 4>
            <<<(unsigned)blocks_for(whole, THREADS * 4), THREADS, 0, stream>>>(whole, p, g, m, v, s);
    if (rest)
        step_kernel<Rule, 1><<<(unsigned)blocks_for(rest, THREADS), THREADS, 0, stream>>>(
            rest, p + whole, g + whole, m ? m + whole : m, v ? v + whole : v, s);
    return tn_cuda_launched("optimizer step");
}

tn_status tn_cuda_adamw(tn_device *device, int64_t count, float *p, const float *g, float *m, float *v,
                        const tn_optimizer_step *how) {
    return step<adamw_rule>(device, count, p, g, m, v, how);
}
tn_status tn_cuda_sgd(tn_device *device, int64_t count, float *p, const float *g, float *m,
                      const tn_optimizer_step *how) {
    if (how->momentum > 0) return step<momentum_rule>(device, count, p, g, m, NULL, how);
    return step<sgd_rule>(device, count, p, g, NULL, NULL, how);
}
tn_status tn_cuda_lion(tn_device *device, int64_t count, float *p, const float *g, float *m,
                       const tn_optimizer_step *how) {
    return step<lion_rule>(device, count, p, g, m, NULL, how);
}
