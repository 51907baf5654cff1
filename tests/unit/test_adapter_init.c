/* test_adapter_init.c: the first values of LoRA: distributions as PEFT's init_lora_weights gives them, and that
 * they depend on seed and name alone.
 */
#include <math.h>

#include "base/thread.h"
#include "model/adapter.h"
#include "op/op.h"
#include "testing.h"
#include "train/engine.h"

enum { RANK = 32 };

/* The adapter of SmolLM2-135M's shape with fresh values, downloaded. */
typedef struct fresh {
    tn_engine e;
    tn_config *config;
    float *values;
} fresh;

static fresh make(const char *kind, const char *seed, const char *threads) {
    fresh f;
    const char *pairs[][2] = {{"model", "smollm2-135m"},
                              {"device", "cpu"},
                              {"lora_r", "32"},
                              {"init_lora_weights", kind},
                              {"seed", seed},
                              {"threads", threads},
                              {"target_modules", "q_proj,down_proj"},
                              {"dtype", "float32"}};
    must(tn_config_new("bench", &f.config));
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        must(tn_config_set(f.config, pairs[i][0], pairs[i][1]));
    must(tn_engine_open(f.config, TN_USE_TRAIN, false, NULL, &f.e));
    assert_int_equal(f.e.adapter->config->r, RANK);
    must(tn_alloc(&f.values, f.e.adapter->elements, sizeof *f.values, "values"));
    f.e.adapter->values = f.values; /* the CPU's memory is the host's */
    must(tn_adapter_init(f.e.adapter, f.e.device, f.e.settings->seed, NULL, NULL));
    return f;
}

static void drop(fresh *f) {
    tn_engine_close(&f->e);
    tn_config_free(f->config);
    free(f->values);
}

/* Mean, standard deviation, and the fourth moment over σ⁴ (3 for a normal, 9/5 for a uniform distribution). */
typedef struct moments {
    double mean, deviation, kurtosis;
    int64_t count;
} moments;

static moments of(const float *x, int64_t n) {
    double mean = 0, second = 0, fourth = 0;
    for (int64_t i = 0; i < n; i++) mean += x[i];
    mean /= (double)n;
    for (int64_t i = 0; i < n; i++) second += pow(x[i] - mean, 2), fourth += pow(x[i] - mean, 4);
    second /= (double)n, fourth /= (double)n;
    return (moments){mean, sqrt(second), fourth / (second * second), n};
}

/* Five standard errors of each estimate, for every A on its own. */
static void check_kind(const char *kind, double deviation_of_in, double deviation, double kurtosis,
                       double spread) {
    fresh f = make(kind, "3407", "1");
    for (int64_t i = 0; i < f.e.adapter->param_count; i++) {
        const tn_param *p = &f.e.adapter->params[i];
        const float *x = f.values + p->offset;
        if (p->kind == TN_PARAM_LORA_B) {
            for (int64_t k = 0; k < p->count; k++) assert_true(x[k] == 0);
            continue;
        }
        moments m = of(x, p->count);
        double n = (double)m.count,
               sigma = deviation > 0 ? deviation : deviation_of_in / sqrt((double)p->shape[1]);
        assert_true(fabs(m.mean) < 5 * sigma / sqrt(n));
        if (!(fabs(m.deviation / sigma - 1) < 5 * sqrt((kurtosis - 1) / (4 * n))))
            fail_msg("%s: deviation %g of %s, not %g", kind, m.deviation, p->name, sigma);
        assert_true(fabs(m.kurtosis - kurtosis) < 5 * spread / sqrt(n));
    }
    drop(&f);
}

/* PEFT: normal with σ = 1/r. The kurtosis of n normal values varies by √(24/n). */
static void gaussian_is_normal_with_deviation_one_over_r(void **state) {
    (void)state;
    check_kind("gaussian", 0, 1.0 / RANK, 3, 4.9);
}

/* PEFT: Kaiming with a = √5, which is uniform within ±1/√in, so σ = 1/√(3·in). */
static void standard_is_uniform_within_one_over_root_in(void **state) {
    (void)state;
    check_kind("true", 1 / sqrt(3), 0, 1.8, 2);
}

static void values_depend_on_seed_and_name_only(void **state) {
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        const char *name = kind ? "true" : "gaussian";
        fresh a = make(name, "3407", "1"), b = make(name, "3407", "2"), c = make(name, "3408", "1");
        const tn_param *params = a.e.adapter->params;
        must_match(a.values, b.values, a.e.adapter->elements * 4);
        for (int64_t i = 0; i < a.e.adapter->param_count; i++) {
            if (params[i].kind != TN_PARAM_LORA_A) continue;
            size_t bytes = (size_t)params[i].count * 4;
            assert_memory_not_equal(a.values + params[i].offset, c.values + params[i].offset, bytes);
            for (int64_t k = 0; k < i; k++) /* no two tensors are alike */
                if (params[k].kind == TN_PARAM_LORA_A && params[k].count == params[i].count)
                    assert_memory_not_equal(a.values + params[k].offset, a.values + params[i].offset, bytes);
        }
        drop(&a), drop(&b), drop(&c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gaussian_is_normal_with_deviation_one_over_r),
        cmocka_unit_test(standard_is_uniform_within_one_over_root_in),
        cmocka_unit_test(values_depend_on_seed_and_name_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
