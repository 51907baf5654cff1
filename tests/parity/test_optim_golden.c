/* test_optim_golden.c: the optimizers over several steps against torch.optim, and Lion against its paper
 * (golden/optim.safetensors, made by make_optim_golden.py), in the reference and on the CPU, in one piece and
 * in pieces of every ragged size: an element's result does not depend on where in a span it lies.
 */
#include <math.h>

#include "format/safetensors.h"
#include "op/op.h"
#include "quant/dynamic_map.h"
#include "testing.h"

enum { ADAMW, SGD, LION };
static const struct {
    const char *name;
    int kind;
} cases[] = {{"adamw", ADAMW},      {"adamw_decay", ADAMW},      {"sgd", SGD},
             {"sgd_momentum", SGD}, {"sgd_momentum_decay", SGD}, {"lion", LION},
             {"lion_decay", LION}};
enum { CASES = sizeof cases / sizeof *cases };

static tn_safetensors *golden;

static const void *values(const char *name, const char *suffix, tn_dtype dtype, int64_t count) {
    char key[64];
    snprintf(key, sizeof key, "%s%s", name, suffix);
    const tn_tensor_info *t = tn_safetensors_find(golden, key);
    if (!t) return NULL;
    assert_int_equal(t->dtype, dtype);
    if (count >= 0) assert_int_equal(t->elements, count);
    return t->data;
}

typedef struct run {
    int64_t count, steps;
    float *p, *m, *v;
    tn_device *device;
} run;

static void apply(run *r, int kind, int64_t from, int64_t count, const float *g,
                  const tn_optimizer_step *step) {
    const tn_backend *b = r->device->backend;
    float *p = r->p + from, *m = r->m + from, *v = r->v + from;
    if (kind == ADAMW) must(b->adamw(r->device, count, p, g + from, m, v, step));
    else if (kind == SGD) must(b->sgd(r->device, count, p, g + from, step->momentum > 0 ? m : NULL, step));
    else must(b->lion(r->device, count, p, g + from, m, step));
}

/* Absolute where the value is below 1: the start is of that size, and an update is small beside it. */
static double worst(const float *got, const float *want, int64_t count) {
    double largest = 0;
    for (int64_t i = 0; i < count; i++)
        largest = fmax(largest, fabs((double)got[i] - want[i]) / fmax(1, fabs((double)want[i])));
    return largest;
}

/* Runs all steps in spans of `piece` elements; returns the largest error of any step. */
static double follow(run *r, int which, int64_t piece) {
    const double *keys = values(cases[which].name, ".keys", TN_DTYPE_F64, 5), *rates, *max_norm;
    const float *want = values(cases[which].name, ".p", TN_DTYPE_F32, r->steps * r->count);
    const float *grads = values("grads", "", TN_DTYPE_F32, r->steps * r->count);
    double error = 0, squares;
    rates = values("rates", "", TN_DTYPE_F64, r->steps);
    max_norm = values("max_norm", "", TN_DTYPE_F64, 1);
    memcpy(r->p, values("start", "", TN_DTYPE_F32, r->count), (size_t)r->count * 4);
    memset(r->m, 0, (size_t)r->count * 4);
    memset(r->v, 0, (size_t)r->count * 4);
    for (int64_t s = 0; s < r->steps; s++) {
        const float *g = grads + s * r->count;
        tn_optimizer_step step = {.learning_rate = rates[s],
                                  .beta1 = keys[0],
                                  .beta2 = keys[1],
                                  .epsilon = keys[2],
                                  .weight_decay = keys[3],
                                  .momentum = keys[4],
                                  .step = s + 1,
                                  .grad_scale = 1,
                                  .max_norm = *max_norm,
                                  .sum_squares = &squares};
        squares = 0;
        must(r->device->backend->sum_squares(r->device, r->count, g, &squares));
        for (int64_t i = 0; i < r->count; i += piece)
            apply(r, cases[which].kind, i, piece < r->count - i ? piece : r->count - i, g, &step);
        error = fmax(error, worst(r->p, want + s * r->count, r->count));
    }
    return error;
}

/* Sums of terms of both signs: rounding is relative to the terms. */
static double largest_term(const run *r, int64_t element, double decay) {
    const float *grads = values("grads", "", TN_DTYPE_F32, r->steps * r->count);
    double largest = 0;
    for (int64_t s = 0; s < r->steps; s++) largest = fmax(largest, fabs(grads[s * r->count + element]));
    return largest + decay * fabs(r->p[element]);
}

static void check_state(const run *r, int which) {
    const double *keys = values(cases[which].name, ".keys", TN_DTYPE_F64, 5);
    const float *m = values(cases[which].name, ".m", TN_DTYPE_F32, r->count),
                *v = values(cases[which].name, ".v", TN_DTYPE_F32, r->count);
    for (int64_t i = 0; i < r->count; i++) { /* a state the optimizer does not have stays untouched */
        double want_m = m ? m[i] : 0, want_v = v ? v[i] : 0;
        if (fabs(r->m[i] - want_m) > (m ? 1e-6 : 0) * largest_term(r, i, keys[3]))
            fail_msg("%s.m[%lld]: %.9g, not %.9g", cases[which].name, (long long)i, (double)r->m[i], want_m);
        if (fabs(r->v[i] - want_v) > 1e-6 * want_v)
            fail_msg("%s.v[%lld]: %.9g, not %.9g", cases[which].name, (long long)i, (double)r->v[i], want_v);
    }
}

static void optimizers_follow_torch(void **state) {
    static const int64_t pieces[] = {389, 1, 7, 64, 100, 388};
    const tn_backend *backends[] = {tn_backend_reference(), tn_backend_cpu()};
    (void)state;
    must(tn_safetensors_open("tests/parity/golden/optim.safetensors", &golden));
    const tn_tensor_info *grads = tn_safetensors_find(golden, "grads");
    for (int b = 0; b < 2; b++) {
        tn_device *device;
        must(backends[b]->open(backends[b], 0, TN_DTYPE_F32, &device));
        run r = {.count = grads->shape[1], .steps = grads->shape[0], .device = device};
        float **arrays[] = {&r.p, &r.m, &r.v};
        for (int i = 0; i < 3; i++) must(tn_alloc(arrays[i], r.count, 4, "an array"));
        for (int which = 0; which < CASES; which++)
            for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
                double error = follow(&r, which, pieces[i]);
                if (i == 0)
                    print_message("%-9s %-18s error %.1e\n", r.device->backend->name, cases[which].name, error);
                if (error > 1e-6)
                    fail_msg("%s in pieces of %lld is off by %g", cases[which].name, (long long)pieces[i],
                             error);
                check_state(&r, which);
            }
        for (int i = 0; i < 3; i++) free(*arrays[i]);
        tn_device_close(device);
    }
    tn_safetensors_close(golden);
}

/* ---- Moments in 8 bits, by make_optim_8bit_golden.py ---------------------------------------------------- */

typedef struct run_8bit {
    int64_t count, steps, blocks;
    float *p, *absmax[2];
    uint8_t *codes[2];
} run_8bit;

static tn_codes codes_of(const run_8bit *r, int which, int64_t from) {
    return (tn_codes){r->codes[which] + from, r->absmax[which] + from / TN_DYNAMIC_BLOCK};
}

/* All codes are equal but for a value that lies on the border of two of them, where rounding decides. The scale
 * of a block of zeros is 0 here and 1 there. */
static void check_codes(const run_8bit *r, const char *name, int which, int64_t s) {
    const uint8_t *want = values(name, which ? ".v" : ".m", TN_DTYPE_U8, r->steps * r->count);
    const float *scales = values(name, which ? ".v_absmax" : ".m_absmax", TN_DTYPE_F32, r->steps * r->blocks);
    int64_t others = 0;
    for (int64_t i = 0; i < r->count; i++) {
        const int64_t block = i / TN_DYNAMIC_BLOCK;
        const float wanted = scales[s * r->blocks + block], scale = r->absmax[which][block];
        const int code = want[s * r->count + i], apart = r->codes[which][i] - code;
        const bool zeros = scale == 0 && tn_dynamic_map(which == 0)[code] == 0;
        if (apart != 0) others++;
        if (abs(apart) > 1 || (!zeros && fabsf(scale - wanted) > 1e-6f * wanted))
            fail_msg("%s, step %lld, element %lld: code %d and scale %g, not %d and %g", name, (long long)s,
                     (long long)i, r->codes[which][i], (double)scale, code, (double)wanted);
    }
    if (others > 2) fail_msg("%s: %lld codes of step %lld differ", name, (long long)others, (long long)s);
}

static void follow_8bit(tn_device *device, run_8bit *r, const char *name, int64_t piece) {
    const double *keys = values(name, ".keys", TN_DTYPE_F64, 5), one = 1;
    const float *want = values(name, ".p", TN_DTYPE_F32, r->steps * r->count);
    const float *grads = values("grads", "", TN_DTYPE_F32, r->steps * r->count);
    memcpy(r->p, values("start", "", TN_DTYPE_F32, r->count), (size_t)r->count * 4);
    for (int i = 0; i < 2; i++) memset(r->codes[i], 0, (size_t)r->count);
    for (int i = 0; i < 2; i++) memset(r->absmax[i], 0, (size_t)r->blocks * 4);
    for (int64_t s = 0; s < r->steps; s++) {
        const tn_optimizer_step step = {.learning_rate = keys[0],
                                        .beta1 = keys[1],
                                        .beta2 = keys[2],
                                        .epsilon = keys[3],
                                        .weight_decay = keys[4],
                                        .step = s + 1,
                                        .grad_scale = 1,
                                        .sum_squares = &one};
        for (int64_t i = 0; i < r->count; i += piece)
            must(device->backend->adamw_8bit(device, piece < r->count - i ? piece : r->count - i, r->p + i,
                                             grads + s * r->count + i, codes_of(r, 0, i), codes_of(r, 1, i),
                                             &step));
        double error = worst(r->p, want + s * r->count, r->count);
        if (error > 1e-6) fail_msg("%s: step %lld is off by %g", name, (long long)s, error);
        for (int i = 0; i < 2; i++) check_codes(r, name, i, s);
    }
}

static void moments_in_8_bits_follow_bitsandbytes(void **state) {
    static const char *const names[] = {"adamw", "decay"};
    static const int64_t pieces[] = {1 << 20, 256, 768};
    const tn_backend *backends[] = {tn_backend_reference(), tn_backend_cpu()};
    (void)state;
    must(tn_safetensors_open("tests/parity/golden/optim_8bit.safetensors", &golden));
    const tn_tensor_info *grads = tn_safetensors_find(golden, "grads");
    run_8bit r = {.count = grads->shape[1], .steps = grads->shape[0]};
    r.blocks = (r.count + TN_DYNAMIC_BLOCK - 1) / TN_DYNAMIC_BLOCK;
    must(tn_alloc(&r.p, r.count, 4, "an array"));
    for (int i = 0; i < 2; i++) must(tn_alloc(&r.codes[i], r.count, 1, "an array"));
    for (int i = 0; i < 2; i++) must(tn_alloc(&r.absmax[i], r.blocks, 4, "an array"));
    for (int sign = 0; sign < 2; sign++)
        must_match(tn_dynamic_map(sign), values(sign ? "map.signed" : "map.unsigned", "", TN_DTYPE_F32, 256),
                   1024);
    for (int b = 0; b < 2; b++) {
        tn_device *device;
        must(backends[b]->open(backends[b], 0, TN_DTYPE_F32, &device));
        for (int i = 0; i < 6; i++) follow_8bit(device, &r, names[i / 3], pieces[i % 3]);
        tn_device_close(device);
    }
    free(r.p);
    for (int i = 0; i < 2; i++) free(r.codes[i]), free(r.absmax[i]);
    tn_safetensors_close(golden);
}

/* A row of an embedding that is met once, its elements of very different sizes, moves no further than the rates
 * allow. With squares rounded to 0 it would leap by thousands of them. */
static void a_gradient_that_comes_once_moves_no_element_far(void **state) {
    enum { COUNT = TN_DYNAMIC_BLOCK, STEPS = 20 };
    float p[COUNT] = {0}, g[COUNT], absmax[2] = {0};
    uint8_t codes[2][COUNT] = {{0}};
    const double one = 1;
    tn_device *device;
    (void)state;
    must(tn_backend_cpu()->open(tn_backend_cpu(), 0, TN_DTYPE_F32, &device));
    for (int i = 0; i < COUNT; i++) g[i] = powf(10, -6.0f * (float)i / COUNT);
    for (int s = 0; s < STEPS; s++) {
        const tn_optimizer_step step = {.learning_rate = 1e-3,
                                        .beta1 = 0.9,
                                        .beta2 = 0.999,
                                        .epsilon = 1e-8,
                                        .step = s + 1,
                                        .grad_scale = 1,
                                        .sum_squares = &one};
        must(device->backend->adamw_8bit(device, COUNT, p, g, (tn_codes){codes[0], &absmax[0]},
                                         (tn_codes){codes[1], &absmax[1]}, &step));
        memset(g, 0, sizeof g);
    }
    for (int i = 0; i < COUNT; i++)
        if (!(fabsf(p[i]) <= STEPS * 1e-3f)) fail_msg("element %d has moved by %g", i, (double)p[i]);
    tn_device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(optimizers_follow_torch),
                                       cmocka_unit_test(moments_in_8_bits_follow_bitsandbytes),
                                       cmocka_unit_test(a_gradient_that_comes_once_moves_no_element_far)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
