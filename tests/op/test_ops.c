/* test_ops.c: every operation on rows and flat ranges agrees with the reference, in all dtypes, on odd shapes,
 * and writes nothing else. Products and attention have files of their own. With --bench it measures instead.
 */
#include "op/bench.h"
#include "op/harness.h"

static const struct {
    int64_t rows, cols;
} shapes[] = {{1, 1}, {3, 17}, {7, 64}, {33, 100}, {5, 576}, {64, 1536}, {2, 4099}};
enum { SHAPES = sizeof shapes / sizeof *shapes };
#define EACH_SHAPE(i) for (int i = 0; i < SHAPES; i++)

static void add_case(session *s) {
    EACH_SHAPE(i) {
        int64_t rows = shapes[i].rows, cols = shapes[i].cols;
        matrix *a = input(s, rows, cols), *b = input(s, rows, cols), *y = output(s, rows, cols);
        y->tolerance = 0;
        RUN(s, add, rows, cols, V(a), V(b), V(y));
    }
}
static void add_agrees_to_the_bit(void **state) { (void)state, in_every_dtype(add_case); }

static void rows_case(session *s) {
    const int32_t index[] = {6, 2, 0, 9, 4};
    EACH_SHAPE(i) {
        int64_t cols = shapes[i].cols;
        matrix *from = input(s, 10, cols), *to = output(s, 5, cols), *order = integers(s, 5, index);
        to->tolerance = 0;
        RUN(s, gather_rows, 5, cols, P(order), V(from), V(to));
        from = input(s, 5, cols), to = matrix_new(s, IN_OUT, s->dtype, 10, cols, 0, 0),
        order = integers(s, 5, index);
        randomise(s, to, 1);
        RUN(s, scatter_rows, 5, cols, P(order), V(from), V(to));
        from = input(s, 5, cols), to = output(s, 5, cols);
        to->tolerance = 0;
        RUN(s, copy_rows, 5, cols, V(from), V(to));
        from = input(s, 5, cols);
        matrix *wide = array(s, OUT, TN_DTYPE_F32, 5 * cols, 0);
        RUN(s, widen, 5, cols, V(from), P(wide));
    }
}
static void rows_are_moved_unchanged(void **state) { (void)state, in_every_dtype(rows_case); }

static void embed_case(session *s) {
    const int32_t ids[] = {3, 0, 6, 3, 3, 1, 6, 0};
    const int32_t order[] = {1, 7, 5, 0, 3, 4, 2, 6}, starts[] = {0, 2, 3, 6, 8};
    EACH_SHAPE(i) {
        int64_t cols = shapes[i].cols;
        matrix *table = array(s, IN, s->dtype, 7 * cols, 0), *id = integers(s, 8, ids), *y = output(s, 8, cols);
        y->tolerance = 0;
        RUN(s, embed_forward, 8, P(id),
            (&(tn_weight){.data = P(table), .dtype = s->dtype, .rows = 7, .cols = cols, .stride = cols}), 1.5f,
            V(y));
        matrix *dy = input(s, 8, cols), *dtable = array(s, IN_OUT, TN_DTYPE_F32, 7 * cols, 1e-6);
        matrix *sorted = integers(s, 8, order), *segments = integers(s, 5, starts);
        id = integers(s, 8, ids);
        RUN(s, embed_backward, 8, cols, 4, P(id), P(sorted), P(segments), 0.7f, V(dy), P(dtable));
    }
}
static void embedding_agrees(void **state) { (void)state, in_every_dtype(embed_case); }

static void rmsnorm_case(session *s) {
    EACH_SHAPE(i)
    for (int64_t groups = 1; groups <= 3; groups += 2)
        for (int offset = 0; offset < 2; offset++) {
            int64_t rows = shapes[i].rows, cols = shapes[i].cols;
            matrix *x = input(s, rows, groups * cols), *w = array(s, IN, s->dtype, cols, 0);
            matrix *y = output(s, rows, groups * cols), *r = array(s, OUT, TN_DTYPE_F32, rows * groups, 4e-6);
            RUN(s, rmsnorm_forward, rows, groups, cols, V(x), P(w), offset, 1e-5f, V(y), P(r));
            y = matrix_new(s, IN_OUT, s->dtype, rows, groups * cols, 0, usual_tolerance(s->dtype));
            randomise(s, y, 1);
            w = array(s, IN, s->dtype, cols, 0);
            RUN(s, rmsnorm_forward, rows, groups, cols, V(y), P(w), offset, 1e-5f, V(y), NULL);
        }
}
static void rmsnorm_agrees(void **state) { (void)state, in_every_dtype(rmsnorm_case); }

static void rmsnorm_backward_case(session *s) {
    EACH_SHAPE(i) for (int64_t groups = 1; groups <= 3; groups += 2) for (int way = 0; way < 4; way++) {
        int64_t rows = shapes[i].rows, cols = shapes[i].cols;
        bool accumulate = way & 1, offset = way & 2;
        matrix *x = input(s, rows, groups * cols), *w = array(s, IN, s->dtype, cols, 0);
        matrix *r = array(s, IN, TN_DTYPE_F32, rows * groups, 0), *dy = input(s, rows, groups * cols);
        matrix *dx = output(s, rows, groups * cols), *dw = array(s, IN_OUT, TN_DTYPE_F32, cols, 4e-6);
        dx->use = accumulate ? IN_OUT : OUT;
        if (accumulate) randomise(s, dx, 1);
        dx->tolerance *= 2;
        RUN(s, rmsnorm_backward, rows, groups, cols, V(x), P(w), offset, P(r), V(dy), V(dx), accumulate, P(dw));
        x = input(s, rows, groups * cols), w = array(s, IN, s->dtype, cols, 0);
        r = array(s, IN, TN_DTYPE_F32, rows * groups, 0), dx = input(s, rows, groups * cols);
        dx->use = IN_OUT, dx->tolerance = 2 * usual_tolerance(s->dtype);
        RUN(s, rmsnorm_backward, rows, groups, cols, V(x), P(w), offset, P(r), V(dx), V(dx), false, NULL);
    }
}
static void rmsnorm_backward_agrees(void **state) { (void)state, in_every_dtype(rmsnorm_backward_case); }

static void rope_case(session *s) {
    const int32_t positions[] = {0, 1, 2, 511, 40000}, tables[] = {0, 1, 1, 0, 1};
    const int64_t halves[] = {1, 5, 32, 48};
    for (int i = 0; i < 4; i++) {
        int64_t half = halves[i], head_dim = 2 * half + (i == 3 ? 32 : 0);
        matrix *where = integers(s, 5, positions), *table = integers(s, 5, tables);
        matrix *frequencies = array(s, IN, TN_DTYPE_F32, 2 * half, 0);
        matrix *c = array(s, OUT, TN_DTYPE_F32, 5 * half, 1e-6),
               *d = array(s, OUT, TN_DTYPE_F32, 5 * half, 1e-6);
        for (int64_t j = 0; j < 2 * half; j++)
            write_number(TN_DTYPE_F32, frequencies->before, j, pow(10000, -(double)j / (double)half / 2));
        RUN(s, rope_table, 5, half, P(where), P(table), P(frequencies), 1.25f, P(c), P(d));
        for (int inverse = 0; inverse < 2; inverse++) {
            matrix *x = input(s, 5, 3 * head_dim);
            c = array(s, IN, TN_DTYPE_F32, 5 * half, 0), d = array(s, IN, TN_DTYPE_F32, 5 * half, 0);
            x->use = IN_OUT, x->tolerance = usual_tolerance(s->dtype);
            RUN(s, rope, 5, 3, head_dim, half, V(x), P(c), P(d), inverse);
        }
    }
}
static void rope_agrees(void **state) { (void)state, in_every_dtype(rope_case); }

static void gated_case(session *s) {
    EACH_SHAPE(i) for (tn_activation activation = TN_SILU; activation <= TN_GELU; activation++) {
        int64_t rows = shapes[i].rows, cols = shapes[i].cols;
        matrix *gate_up = input(s, rows, 2 * cols), *y = output(s, rows, cols);
        randomise(s, gate_up, 4);
        RUN(s, gated_forward, rows, cols, activation, V(gate_up), V(y));
        gate_up = input(s, rows, 2 * cols);
        randomise(s, gate_up, 4);
        matrix *dy = input(s, rows, cols), *d_gate_up = output(s, rows, 2 * cols);
        RUN(s, gated_backward, rows, cols, activation, V(gate_up), V(dy), V(d_gate_up));
        gate_up = input(s, rows, 2 * cols), dy = input(s, rows, cols);
        gate_up->use = IN_OUT, gate_up->tolerance = usual_tolerance(s->dtype);
        RUN(s, gated_backward, rows, cols, activation, V(gate_up), V(dy), V(gate_up));
    }
}
static void activate_case(session *s) {
    EACH_SHAPE(i) for (tn_activation activation = TN_SILU; activation <= TN_GELU; activation++) {
        matrix *x = input(s, shapes[i].rows, shapes[i].cols), *y = output(s, shapes[i].rows, shapes[i].cols);
        randomise(s, x, 4);
        RUN(s, activate, shapes[i].rows, shapes[i].cols, activation, V(x), V(y));
    }
}
static void activations_agree(void **state) { (void)state, in_every_dtype(activate_case); }

static void gated_activations_agree(void **state) { (void)state, in_every_dtype(gated_case); }

static void cross_entropy_case(session *s) {
    EACH_SHAPE(i) for (int way = 0; way < 6; way++) {
        int64_t rows = shapes[i].rows, vocab = shapes[i].cols;
        bool gradient = way % 3 != 0, in_place = way % 3 == 2;
        float softcap = way >= 3 ? 5.0f : 0.0f;
        int32_t targets[64];
        for (int64_t row = 0; row < rows; row++) targets[row] = (int32_t)((row * 7919 + 3) % vocab);
        matrix *logits = input(s, rows, vocab), *target = integers(s, rows, targets);
        matrix *loss = array(s, OUT, TN_DTYPE_F32, rows, 2e-6), *d = in_place ? logits : output(s, rows, vocab);
        randomise(s, logits, 6);
        if (in_place) logits->use = IN_OUT, logits->tolerance = usual_tolerance(s->dtype);
        if (!gradient) d->use = IN;
        RUN(s, cross_entropy, rows, vocab, V(logits), P(target), softcap, 0.25f, P(loss),
            gradient ? V(d) : V(NULL));
    }
}
static void cross_entropy_agrees(void **state) { (void)state, in_every_dtype(cross_entropy_case); }

static const int64_t lengths[] = {1, 5, 64, 1000, 16384, 40001};

static void sums_case(session *s) {
    for (int i = 0; i < 6; i++) {
        matrix *values = array(s, IN, TN_DTYPE_F32, lengths[i], 0),
               *total = array(s, IN_OUT, TN_DTYPE_F64, 1, 1e-11);
        RUN(s, sum, lengths[i], P(values), P(total));
        values = array(s, IN, TN_DTYPE_F32, lengths[i], 0), total = array(s, IN_OUT, TN_DTYPE_F64, 1, 1e-11);
        RUN(s, sum_squares, lengths[i], P(values), P(total));
    }
}
static void sums_agree(void **state) { (void)state, in_every_dtype(sums_case); }

static const tn_optimizer_step usual_step = {.learning_rate = 3e-3,
                                             .beta1 = 0.9,
                                             .beta2 = 0.99,
                                             .epsilon = 1e-8,
                                             .weight_decay = 0.1,
                                             .step = 3,
                                             .grad_scale = 0.5,
                                             .max_norm = 1};

/* Parameters, gradients and two states; the norm is `squares`, and results agree to `tolerance`. `which` is
 * AdamW, SGD, Lion, SGD with momentum. */
static void optimizer_case(session *s, int64_t count, double squares, double tolerance, int which) {
    usage changed = isfinite(squares) ? IN_OUT : IN; /* a norm that is not finite must leave every byte alone */
    matrix *p = array(s, changed, TN_DTYPE_F32, count, tolerance), *g = array(s, IN, TN_DTYPE_F32, count, 0);
    matrix *m = array(s, which == 1 ? IN : changed, TN_DTYPE_F32, count, tolerance);
    matrix *v = array(s, which == 0 ? changed : IN, TN_DTYPE_F32, count, tolerance);
    matrix *norm = array(s, IN, TN_DTYPE_F64, 1, 0);
    for (int64_t i = 0; i < count; i++) ((float *)v->before)[i] = fabsf(((float *)v->before)[i]);
    write_number(TN_DTYPE_F64, norm->before, 0, squares);
    tn_optimizer_step step = usual_step;
    step.momentum = which == 3 ? 0.9 : 0;
    if (which == 0) RUN(s, adamw, count, P(p), P(g), P(m), P(v), (step.sum_squares = P(norm), &step));
    else if (which == 1) RUN(s, sgd, count, P(p), P(g), NULL, (step.sum_squares = P(norm), &step));
    else if (which == 3) RUN(s, sgd, count, P(p), P(g), P(m), (step.sum_squares = P(norm), &step));
    else RUN(s, lion, count, P(p), P(g), P(m), (step.sum_squares = P(norm), &step));
}

static void optimizers_case(session *s) {
    for (int i = 0; i < 6; i++)
        for (int which = 0; which < 4; which++) {
            optimizer_case(s, lengths[i], 0.01, 1e-6, which);
            optimizer_case(s, lengths[i], 400, 1e-6, which);
        }
}
static void optimizers_agree(void **state) { (void)state, in_every_dtype(optimizers_case); }

static void broken_norm_case(session *s) {
    for (int which = 0; which < 4; which++) {
        optimizer_case(s, 1000, NAN, 0, which);
        optimizer_case(s, 1000, INFINITY, 0, which);
    }
}
static void broken_norm_changes_nothing(void **state) { (void)state, in_every_dtype(broken_norm_case); }

static void masters_case(session *s) {
    for (int i = 0; i < 6; i++) {
        matrix *master = array(s, IN, TN_DTYPE_F32, lengths[i], 0),
               *values = array(s, OUT, s->dtype, lengths[i], 0);
        RUN(s, weight_refresh, lengths[i], P(master), P(values));
    }
}
static void masters_are_rounded_to_nearest(void **state) { (void)state, in_every_dtype(masters_case); }

int main(int count, char **arguments) {
    if (count > 1 && strcmp(arguments[1], "--bench") == 0) return run_bench();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(add_agrees_to_the_bit),
        cmocka_unit_test(rows_are_moved_unchanged),
        cmocka_unit_test(embedding_agrees),
        cmocka_unit_test(rmsnorm_agrees),
        cmocka_unit_test(rmsnorm_backward_agrees),
        cmocka_unit_test(rope_agrees),
        cmocka_unit_test(activations_agree),
        cmocka_unit_test(gated_activations_agree),
        cmocka_unit_test(cross_entropy_agrees),
        cmocka_unit_test(sums_agree),
        cmocka_unit_test(optimizers_agree),
        cmocka_unit_test(broken_norm_changes_nothing),
        cmocka_unit_test(masters_are_rounded_to_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
