/* test_op_gradients.c: the backward formulas of the reference against central differences of its forward ones.
 *
 * The loss is Σ weights·outputs with random weights, summed in double. A step of 1/64 around values near one
 * leaves about 1e-4 of truncation and rounding; a wrong sign, factor or missing term is off by far more than
 * the 2e-3 allowed. Everything is fp32 in host memory, which is where the reference works.
 */
/* cmocka.h needs the headers above it. */
/* clang-format off */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
/* clang-format on */

#include "base/rng.h"
#include "op/op.h"

static tn_device *device;
static uint64_t seed;

static int open_reference(void **state) {
    const tn_backend *reference = tn_backend_reference();
    (void)state;
    return reference->open(reference, 0, TN_DTYPE_F32, &device) != TN_OK;
}

static int close_reference(void **state) {
    (void)state;
    tn_device_close(device);
    return 0;
}

static void succeed(tn_status status) {
    if (status != TN_OK) printf("%s\n", tn_error_message());
    assert_int_equal(status, TN_OK);
}

enum { LIMIT = 4096 };

static void randomise(float *values, int64_t count) {
    assert_true(count <= LIMIT);
    seed++;
    for (int64_t i = 0; i < count; i++) values[i] = tn_random_normal(seed, 0, (uint64_t)i);
}

static tn_view view(float *values, int64_t stride) { return (tn_view){values, stride}; }

static double weighted(const float *weights, const float *values, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += (double)weights[i] * (double)values[i];
    return sum;
}

/* Compares `gradient` of `loss` with respect to `values` with differences. */
static void check(const char *name, double (*loss)(void *), void *problem, float *values, int64_t count,
                  const float *gradient) {
    const float step = 1.0f / 64;
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        float kept = values[i];
        values[i] = kept + step;
        double above = loss(problem);
        values[i] = kept - step;
        double below = loss(problem);
        values[i] = kept;
        double expected = (above - below) / (2 * (double)step);
        difference += (expected - (double)gradient[i]) * (expected - (double)gradient[i]);
        norm += expected * expected;
    }
    double error = sqrt(difference / norm);
    if (!(error < 2e-3)) printf("gradient of %s is off by %.3g\n", name, error);
    assert_true(norm > 0 && error < 2e-3);
}

/* ---- rmsnorm ------------------------------------------------------------------------------------------ */

enum { ROWS = 5, GROUPS = 2, COLS = 12, ALL = GROUPS * COLS };

typedef struct norm_problem {
    float x[ROWS * ALL], w[COLS], y[ROWS * ALL], rstd[ROWS * GROUPS], dy[ROWS * ALL], dx[ROWS * ALL], dw[COLS];
    bool offset;
} norm_problem;

static double norm_loss(void *problem) {
    norm_problem *p = problem;
    succeed(device->backend->rmsnorm_forward(device, ROWS, GROUPS, COLS, view(p->x, ALL), p->w, p->offset,
                                             1e-3f, view(p->y, ALL), p->rstd));
    return weighted(p->dy, p->y, ROWS * ALL);
}

static void rmsnorm_gradient(void **state) {
    (void)state;
    for (int offset = 0; offset < 2; offset++) {
        norm_problem p = {.offset = offset};
        randomise(p.x, ROWS * ALL), randomise(p.w, COLS), randomise(p.dy, ROWS * ALL);
        norm_loss(&p);
        succeed(device->backend->rmsnorm_backward(device, ROWS, GROUPS, COLS, view(p.x, ALL), p.w, offset,
                                                  p.rstd, view(p.dy, ALL), view(p.dx, ALL), false, p.dw));
        check("rmsnorm, x", norm_loss, &p, p.x, ROWS * ALL, p.dx);
        check("rmsnorm, w", norm_loss, &p, p.w, COLS, p.dw);
    }
}

/* ---- gated ---------------------------------------------------------------------------------------------- */

typedef struct gated_problem {
    float gate_up[ROWS * 2 * COLS], y[ROWS * COLS], dy[ROWS * COLS], gradient[ROWS * 2 * COLS];
    tn_activation activation;
} gated_problem;

static double gated_loss(void *problem) {
    gated_problem *p = problem;
    succeed(device->backend->gated_forward(device, ROWS, COLS, p->activation, view(p->gate_up, 2 * COLS),
                                           view(p->y, COLS)));
    return weighted(p->dy, p->y, ROWS * COLS);
}

static void gated_gradient(void **state) {
    (void)state;
    for (tn_activation activation = TN_SILU; activation <= TN_GELU; activation++) {
        gated_problem p = {.activation = activation};
        randomise(p.gate_up, ROWS * 2 * COLS), randomise(p.dy, ROWS * COLS);
        succeed(device->backend->gated_backward(device, ROWS, COLS, activation, view(p.gate_up, 2 * COLS),
                                                view(p.dy, COLS), view(p.gradient, 2 * COLS)));
        check("gated", gated_loss, &p, p.gate_up, ROWS * 2 * COLS, p.gradient);
    }
}

/* ---- rope ---------------------------------------------------------------------------------------- */

enum { HALF = 4, TURNED = 12 }; /* the last four columns pass through */

typedef struct rope_problem {
    float x[ROWS * TURNED], y[ROWS * TURNED], dy[ROWS * TURNED], gradient[ROWS * TURNED];
    float cosines[ROWS * HALF], sines[ROWS * HALF];
} rope_problem;

static double rope_loss(void *problem) {
    rope_problem *p = problem;
    memcpy(p->y, p->x, sizeof p->y);
    succeed(
        device->backend->rope(device, ROWS, 1, TURNED, HALF, view(p->y, TURNED), p->cosines, p->sines, false));
    return weighted(p->dy, p->y, ROWS * TURNED);
}

static void rope_gradient(void **state) {
    const int32_t positions[ROWS] = {0, 1, 5, 17, 100};
    const float frequencies[HALF] = {1, 0.1f, 0.01f, 0.001f};
    rope_problem p;
    (void)state;
    randomise(p.x, ROWS * TURNED), randomise(p.dy, ROWS * TURNED);
    succeed(device->backend->rope_table(device, ROWS, HALF, positions, NULL, frequencies, 1.1f, p.cosines,
                                        p.sines));
    memcpy(p.gradient, p.dy, sizeof p.dy);
    succeed(device->backend->rope(device, ROWS, 1, TURNED, HALF, view(p.gradient, TURNED), p.cosines, p.sines,
                                  true));
    check("rope", rope_loss, &p, p.x, ROWS * TURNED, p.gradient);
}

/* ---- attention ----------------------------------------------------------------------------------- */

enum { HEADS = 2, SIZE = 6, TOKENS = 11, QUERIES = TOKENS * HEADS * SIZE, KEYS = TOKENS * SIZE };

typedef struct attention_problem {
    tn_attention shape;
    float q[QUERIES], k[KEYS], v[KEYS], o[QUERIES], lse[TOKENS * HEADS], d_o[QUERIES], dq[QUERIES], dk[KEYS],
        dv[KEYS];
} attention_problem;

static double attention_loss(void *problem) {
    attention_problem *p = problem;
    succeed(device->backend->attention_forward(device, &p->shape, view(p->q, HEADS * SIZE), view(p->k, SIZE),
                                               view(p->v, SIZE), view(p->o, HEADS * SIZE), p->lse));
    return weighted(p->d_o, p->o, QUERIES);
}

static void attention_gradient(void **state) {
    const int32_t cu[] = {0, 7, TOKENS};
    (void)state;
    for (int way = 0; way < 5; way++) {
        attention_problem p = {.shape = {2, TOKENS, TOKENS, 7, 7, cu, cu, cu, cu, HEADS, 1, SIZE, 0.4f,
                                         way & 1 ? 1.5f : 0, way & 2 ? 3 : 0, way == 4}};
        randomise(p.q, QUERIES), randomise(p.k, KEYS), randomise(p.v, KEYS), randomise(p.d_o, QUERIES);
        attention_loss(&p);
        succeed(device->backend->attention_backward(device, &p.shape, view(p.q, HEADS * SIZE), view(p.k, SIZE),
                                                    view(p.v, SIZE), view(p.o, HEADS * SIZE), p.lse,
                                                    view(p.d_o, HEADS * SIZE), view(p.dq, HEADS * SIZE),
                                                    view(p.dk, SIZE), view(p.dv, SIZE)));
        check("attention, q", attention_loss, &p, p.q, QUERIES, p.dq);
        check("attention, k", attention_loss, &p, p.k, KEYS, p.dk);
        check("attention, v", attention_loss, &p, p.v, KEYS, p.dv);
    }
}

/* ---- linear -------------------------------------------------------------------------------------- */

enum { IN = 10, OUT_A = 6, OUT_B = 4, OUT = OUT_A + OUT_B, RANK = 3, X = IN + 16, Y = OUT + 16 };

typedef struct linear_problem {
    tn_linear linear;
    tn_dropout dropout;
    float x[ROWS * X], y[ROWS * Y], dy[ROWS * Y], dx[ROWS * IN], weights[ROWS * OUT];
    float w[2][OUT_A * IN], bias[2][OUT_A], a[2][RANK * IN], b[2][OUT_A * RANK];
    float dw[2][OUT_A * IN], dbias[2][OUT_A], da[2][RANK * IN], db[2][OUT_A * RANK];
    float magnitude[OUT_A], dmagnitude[OUT_A], norm_and_ratio[2 * OUT];
} linear_problem;

/* The norms stay what they were, as the backward formulas have it: only the ratios follow the magnitude. */
static void follow_magnitude(linear_problem *p) {
    for (int n = 0; p->linear.ratio && n < OUT_A; n++) p->linear.ratio[n] = p->magnitude[n] / p->linear.norm[n];
}

static double linear_loss(void *problem) {
    linear_problem *p = problem;
    double sum = 0;
    follow_magnitude(p);
    succeed(device->backend->linear_forward(device, &p->linear, ROWS, view(p->x, X), view(p->y, Y),
                                            view(NULL, 0), 0.6f, &p->dropout));
    for (int row = 0; row < ROWS; row++) sum += weighted(p->weights + row * OUT, p->y + row * Y, OUT);
    return sum;
}

static void make_linear(linear_problem *p, float rate) {
    const int64_t outs[] = {OUT_A, OUT_B};
    memset(p, 0, sizeof *p);
    p->linear = (tn_linear){.parts = 2, .in = IN, .out = OUT, .rank = 2 * RANK, .border = 16, .site = 3};
    p->dropout = (tn_dropout){.p = rate, .seed = 1, .step = 4, .first_row = 2};
    for (int i = 0; i < 2; i++) {
        randomise(p->w[i], outs[i] * IN), randomise(p->bias[i], outs[i]), randomise(p->a[i], RANK * IN);
        randomise(p->b[i], outs[i] * RANK);
        p->linear.part[i] =
            (tn_part){{.data = p->w[i], .dtype = TN_DTYPE_F32, .rows = outs[i], .cols = IN, .stride = IN},
                      p->bias[i],
                      {.r = RANK, .scale = 0.7f, .a = p->a[i], .b = p->b[i], .da = p->da[i], .db = p->db[i]},
                      NULL,
                      p->dw[i],
                      p->dbias[i]};
    }
    randomise(p->x, ROWS * X), randomise(p->weights, ROWS * OUT);
}

/* DoRA on the first part; the norms are what a refresh makes of W, A and B. */
static void add_dora(linear_problem *p) {
    p->linear.norm = p->norm_and_ratio, p->linear.ratio = p->norm_and_ratio + OUT;
    randomise(p->magnitude, OUT_A);
    p->linear.part[0].lora.dora = true;
    p->linear.part[0].lora.magnitude = p->magnitude, p->linear.part[0].lora.dmagnitude = p->dmagnitude;
    succeed(device->backend->linear_refresh(device, &p->linear));
    for (int n = 0; n < OUT_A; n++) {
        double squares = 0;
        for (int k = 0; k < IN; k++) {
            double value = (double)p->w[0][n * IN + k];
            for (int j = 0; j < RANK; j++)
                value += 0.7 * (double)p->b[0][n * RANK + j] * (double)p->a[0][j * IN + k];
            squares += value * value;
        }
        assert_true(fabs((double)p->linear.norm[n] - sqrt(squares)) < 1e-5 * sqrt(squares));
    }
    for (int n = OUT_A; n < OUT; n++) assert_true(p->linear.ratio[n] == 1);
}

static void linear_gradient(void **state) {
    const int64_t outs[] = {OUT_A, OUT_B};
    (void)state;
    for (int way = 0; way < 4; way++) {
        linear_problem p;
        float dx[ROWS * X] = {0};
        make_linear(&p, way & 1 ? 0.4f : 0);
        if (way & 2) add_dora(&p);
        linear_loss(&p);
        for (int row = 0; row < ROWS; row++) memcpy(p.dy + row * Y, p.weights + row * OUT, OUT * sizeof(float));
        succeed(device->backend->linear_backward(device, &p.linear, ROWS, view(p.x, X), view(p.dy, Y),
                                                 view(p.dx, IN), false, 0.6f, &p.dropout));
        for (int i = 0; i < 2; i++) {
            check("linear, A", linear_loss, &p, p.a[i], RANK * IN, p.da[i]);
            check("linear, B", linear_loss, &p, p.b[i], outs[i] * RANK, p.db[i]);
            if ((way & 2) == 0 || i == 1) check("linear, W", linear_loss, &p, p.w[i], outs[i] * IN, p.dw[i]);
            check("linear, bias", linear_loss, &p, p.bias[i], outs[i], p.dbias[i]);
        }
        if (way & 2) check("linear, magnitude", linear_loss, &p, p.magnitude, OUT_A, p.dmagnitude);
        for (int row = 0; row < ROWS; row++) memcpy(dx + row * X, p.dx + row * IN, IN * sizeof(float));
        check("linear, x", linear_loss, &p, p.x, ROWS * X,
              dx); /* the border is rewritten, so its gradient is 0 */
    }
}

/* ---- loss and embedding -------------------------------------------------------------------------- */

typedef struct loss_problem {
    float logits[ROWS * COLS], loss[ROWS], gradient[ROWS * COLS], cap;
} loss_problem;

static const int32_t targets[ROWS] = {0, 11, 3, 3, 7};

static double cross_entropy_loss(void *problem) {
    loss_problem *p = problem;
    double sum = 0;
    succeed(device->backend->cross_entropy(device, ROWS, COLS, view(p->logits, COLS), targets, p->cap, 1,
                                           p->loss, view(NULL, 0)));
    for (int row = 0; row < ROWS; row++) sum += 0.3 * (double)p->loss[row];
    return sum;
}

static void cross_entropy_gradient(void **state) {
    (void)state;
    for (int way = 0; way < 2; way++) {
        loss_problem p = {.cap = way ? 2.0f : 0};
        randomise(p.logits, ROWS * COLS);
        succeed(device->backend->cross_entropy(device, ROWS, COLS, view(p.logits, COLS), targets, p.cap, 0.3f,
                                               p.loss, view(p.gradient, COLS)));
        check("cross entropy", cross_entropy_loss, &p, p.logits, ROWS * COLS, p.gradient);
    }
}

typedef struct embed_problem {
    float table[12 * COLS], y[ROWS * COLS], dy[ROWS * COLS], gradient[12 * COLS];
} embed_problem;

static double embed_loss(void *problem) {
    embed_problem *p = problem;
    tn_weight table = {.data = p->table, .dtype = TN_DTYPE_F32, .rows = 12, .cols = COLS, .stride = COLS};
    succeed(device->backend->embed_forward(device, ROWS, targets, &table, 1.7f, view(p->y, COLS)));
    return weighted(p->dy, p->y, ROWS * COLS);
}

static void embedding_gradient(void **state) {
    const int32_t order[] = {0, 2, 3, 4, 1}, starts[] = {0, 1, 3, 4, 5};
    embed_problem p = {{0}, {0}, {0}, {0}};
    (void)state;
    randomise(p.table, 12 * COLS), randomise(p.dy, ROWS * COLS);
    succeed(device->backend->embed_backward(device, ROWS, COLS, 4, targets, order, starts, 1.7f,
                                            view(p.dy, COLS), p.gradient));
    check("embedding", embed_loss, &p, p.table, 12 * COLS, p.gradient);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rmsnorm_gradient),   cmocka_unit_test(gated_gradient),
        cmocka_unit_test(rope_gradient),      cmocka_unit_test(attention_gradient),
        cmocka_unit_test(linear_gradient),    cmocka_unit_test(cross_entropy_gradient),
        cmocka_unit_test(embedding_gradient),
    };
    return cmocka_run_group_tests(tests, open_reference, close_reference);
}
