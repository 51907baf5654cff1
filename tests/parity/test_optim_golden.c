/* test_optim_golden.c: the optimizers over several steps against torch.optim, and Lion against its paper
 * (golden/optim.safetensors, made by make_optim_golden.py), in the reference and on the CPU, in one piece and
 * in pieces of every ragged size: an element's result does not depend on where in a span it lies.
 */
#include <math.h>

#include "format/safetensors.h"
#include "op/op.h"
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

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(optimizers_follow_torch)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
