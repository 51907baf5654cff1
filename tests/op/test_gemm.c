/* test_gemm.c: the CPU's matrix products, stacked ones included, agree with sums in double on random and ragged
 * shapes, strides and orders, and write nothing behind a row's end or the last row. It also holds the library
 * to that: which of its ways is taken depends on shape and processor, and not all of them have been right.
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
#include "op/cpu/gemm.h"
#include "op/ref/element.h"

#define assert_status(call) assert_int_equal(call, TN_OK)

enum { BORDER = 40, CASES = 300, CHECKED = 1 << 20 /* products of elements a case is summed again for */ };

typedef struct grid {
    tn_dtype dtype;
    int64_t rows, cols, stride;
    unsigned char *bytes;
} grid;

static uint64_t drawn;
static int64_t below(int64_t limit) {
    uint32_t words[4];
    tn_random4(7, 3, drawn++, words);
    return (int64_t)(words[0] % (uint64_t)limit);
}
static bool coin(void) { return below(2) == 1; }

static double at(const grid *g, int64_t row, int64_t col) {
    return tn_load(g->dtype, g->bytes, row * g->stride + col);
}

/* Its guard columns and a guard row of a border's length hold 7. */
static grid make_grid(tn_dtype dtype, int64_t rows, int64_t cols) {
    grid g = {dtype, rows, cols, cols + (coin() ? 0 : 1 + below(BORDER)), NULL};
    int64_t count = rows * g.stride + BORDER;
    g.bytes = malloc((size_t)(count * tn_element_bytes(dtype)));
    for (int64_t i = 0; i < count; i++) tn_store(dtype, g.bytes, i, 7);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t col = 0; col < cols; col++)
            tn_store(dtype, g.bytes, row * g.stride + col, (float)(below(2001) - 1000) / 1000);
    return g;
}

static grid copy_of(const grid *g) {
    grid copy = *g;
    size_t size = (size_t)((g->rows * g->stride + BORDER) * tn_element_bytes(g->dtype));
    copy.bytes = malloc(size);
    memcpy(copy.bytes, g->bytes, size);
    return copy;
}

typedef struct trial {
    tn_gemm gemm;
    grid a, b, c, added, bias;
} trial;

static grid operand(tn_dtype dtype, bool transposed, int64_t rows, int64_t cols) {
    return transposed ? make_grid(dtype, cols, rows) : make_grid(dtype, rows, cols);
}

static double along(const grid *a, bool a_transposed, const grid *b, bool b_transposed, int64_t k, int64_t row,
                    int64_t col, double *size) {
    double sum = 0;
    for (int64_t i = 0; i < k; i++) {
        double x = a_transposed ? at(a, i, row) : at(a, row, i),
               y = b_transposed ? at(b, col, i) : at(b, i, col);
        sum += x * y, *size += fabs(x * y);
    }
    return sum;
}

static void check(const trial *t, const grid *before, const char *what) {
    const tn_gemm *g = &t->gemm;
    int64_t each = 1 + g->m * g->n * g->k / CHECKED, place = 0;
    for (int64_t row = 0; row < g->m; row++)
        for (int64_t col = 0; col < g->n; col++) {
            bool edge = row == g->m - 1 || col == g->n - 1;
            if (place++ % each && !(edge && place % 8 == 0)) continue;
            double size = 1, sum = along(&t->a, g->a_transposed, &t->b, g->b_transposed, g->k, row, col, &size);
            if (g->biased) sum += at(&t->bias, 0, col);
            sum *= g->alpha;
            if (g->accumulate) sum += at(before, row, col);
            if (g->ld_added) sum += at(&t->added, row, col);
            double got = at(&t->c, row, col), allowed = 2e-6 * size;
            if (g->out == TN_DTYPE_BF16) allowed += fabs(sum) / 128;
            if (fabs(got - sum) <= allowed) continue;
            printf(
                "%s: [%d, %d] is %g, not %g: m %d n %d k %d lda %d ldb %d ldc %d %s%s %s->%s alpha %g%s%s%s\n",
                what, (int)row, (int)col, got, sum, (int)g->m, (int)g->n, (int)g->k, (int)g->lda, (int)g->ldb,
                (int)g->ldc, g->a_transposed ? "T" : "N", g->b_transposed ? "T" : "N", tn_dtype_name(g->in),
                tn_dtype_name(g->out), (double)g->alpha, g->accumulate ? " +C" : "", g->biased ? " bias" : "",
                g->ld_added ? " added" : "");
            fail();
        }
}

static void check_guards(const grid *c, const grid *before) {
    int64_t size = tn_element_bytes(c->dtype);
    for (int64_t row = 0; row <= c->rows; row++) {
        int64_t from = row * c->stride + (row < c->rows ? c->cols : 0);
        int64_t count = row < c->rows ? c->stride - c->cols : BORDER;
        assert_memory_equal(c->bytes + from * size, before->bytes + from * size, (size_t)(count * size));
    }
}

static int64_t pick(const int64_t *sizes, int count) { return coin() ? sizes[below(count)] : 1 + below(130); }

static trial make_trial(tn_dtype in) {
    static const int64_t ms[] = {1, 9, 64, 300, 1024, 1030}, ns[] = {1, 16, 24, 48, 64, 192, 1030},
                         ks[] = {1, 4, 16, 31, 33, 64, 576, 1030, 2050, 4130};
    trial t = {0};
    tn_gemm *g = &t.gemm;
    g->m = pick(ms, 6), g->n = pick(ns, 7), g->k = pick(ks, 10);
    if (g->m * g->n * g->k > 40000000) g->m = 1 + below(40);
    g->in = in, g->out = in == TN_DTYPE_F32 || coin() ? TN_DTYPE_F32 : TN_DTYPE_BF16;
    g->a_transposed = coin(), g->b_transposed = coin();
    g->alpha = coin() ? 1 : 0.22f, g->accumulate = coin(), g->biased = coin();
    g->added = coin() ? TN_DTYPE_F32 : g->out;
    t.a = operand(in, g->a_transposed, g->m, g->k), t.b = operand(in, g->b_transposed, g->k, g->n);
    t.c = make_grid(g->out, g->m, g->n), t.added = make_grid(g->added, g->m, g->n);
    t.bias = make_grid(g->out, 1, g->n);
    g->lda = t.a.stride, g->ldb = t.b.stride, g->ldc = t.c.stride, g->ld_added = coin() ? t.added.stride : 0;
    return t;
}

static void forget(trial *t, grid *before) {
    grid *all[] = {&t->a, &t->b, &t->c, &t->added, &t->bias, before};
    for (int i = 0; i < 6; i++) free(all[i]->bytes);
}

static void try_products(tn_dtype in) {
    for (int i = 0; i < CASES; i++) {
        trial t = make_trial(in);
        grid before = copy_of(&t.c);
        assert_status(tn_gemm_run(&t.gemm, t.a.bytes, t.b.bytes, t.c.bytes, t.added.bytes, t.bias.bytes));
        check(&t, &before, "product");
        check_guards(&t.c, &before);
        forget(&t, &before);
    }
}

/* Cuts k into up to four runs, some of them zero in B; each run that is not stands in a matrix of its own. */
static int cut_rows(const trial *t, grid own[4], tn_gemm_rows rows[4]) {
    const tn_gemm *g = &t->gemm;
    int count = 0;
    for (int64_t k = 0, taken; k < g->k && count < 4; k += taken) {
        taken = count == 3 || coin() ? g->k - k : 1 + below(g->k - k);
        bool zero = below(4) == 0;
        if (!zero) own[count] = operand(TN_DTYPE_BF16, g->b_transposed, taken, g->n);
        for (int64_t i = 0; i < taken; i++)
            for (int64_t col = 0; col < g->n; col++) {
                int64_t from = g->b_transposed ? col * own[count].stride + i : i * own[count].stride + col;
                int64_t to = g->b_transposed ? col * g->ldb + k + i : (k + i) * g->ldb + col;
                tn_store(TN_DTYPE_BF16, t->b.bytes, to,
                         zero ? 0 : tn_load(TN_DTYPE_BF16, own[count].bytes, from));
            }
        if (!zero) rows[count] = (tn_gemm_rows){own[count].bytes, k, taken, own[count].stride}, count++;
    }
    return count;
}

/* Columns `to` … of A must be D's product with columns `from` …, rounded. */
static void check_columns(const trial *t, const tn_gemm_inner *inner, const grid *d) {
    for (int64_t row = 0; row < t->gemm.m; row++)
        for (int64_t j = 0; j < inner->r; j++) {
            double sum = 0, size = 1;
            for (int64_t k = 0; k < inner->k; k++) {
                double product =
                    at(&t->a, row, inner->from + k) * (inner->transposed ? at(d, j, k) : at(d, k, j));
                sum += product, size += fabs(product);
            }
            assert_true(fabs(at(&t->a, row, inner->to + j) - sum) <= 2e-6 * size + fabs(sum) / 128);
        }
}

/* Up to two runs of A's columns are made of those before them, as u and v are. */
static int make_inners(const trial *t, tn_gemm_inner inners[2], grid d[2]) {
    int64_t made = t->gemm.k / 3, from = 0, to = t->gemm.k - made;
    int count = 0;
    while (count < 2 && made > 0 && to > from && coin()) {
        int64_t r = count == 1 || coin() ? made : 1 + below(made),
                k = 1 + below(t->gemm.k - t->gemm.k / 3 - from);
        bool transposed = coin();
        d[count] = operand(TN_DTYPE_BF16, transposed, k, r);
        for (int64_t row = 0; row < t->gemm.m; row++)
            for (int64_t j = 0; j < r; j++)
                tn_store(TN_DTYPE_BF16, t->a.bytes, row * t->a.stride + to + j, NAN);
        inners[count] = (tn_gemm_inner){d[count].bytes, d[count].stride, from, k, to, r, transposed};
        count++, to += r, made -= r;
    }
    return count;
}

static void try_stacked(void) {
    for (int i = 0; i < CASES; i++) {
        trial t = make_trial(TN_DTYPE_BF16);
        grid before = copy_of(&t.c), own[4], d[2], a = t.a;
        tn_gemm_rows rows[4];
        tn_gemm_inner inners[2];
        if (t.gemm.a_transposed) { /* not for a stacked B */
            free(t.a.bytes);
            t.gemm.a_transposed = false;
            t.a = a = make_grid(TN_DTYPE_BF16, t.gemm.m, t.gemm.k);
            t.gemm.lda = a.stride;
        }
        tn_gemm_stack stack = {rows, cut_rows(&t, own, rows), inners, make_inners(&t, inners, d)};
        grid a_before = copy_of(&t.a);
        assert_status(tn_gemm_stacked(&t.gemm, &stack, t.a.bytes, t.c.bytes, t.added.bytes, t.bias.bytes));
        for (int j = 0; j < stack.inner_count; j++) check_columns(&t, &inners[j], &d[j]), free(d[j].bytes);
        check(&t, &before, "stacked");
        check_guards(&t.c, &before);
        check_guards(&t.a, &a_before);
        for (int j = 0; j < stack.count; j++) free(own[j].bytes);
        free(a_before.bytes);
        forget(&t, &before);
    }
}

static void products_of_fp32_agree(void **state) { (void)state, try_products(TN_DTYPE_F32); }
static void products_of_bf16_agree(void **state) { (void)state, try_products(TN_DTYPE_BF16); }

/* Up to three parts side by side in L, each with its own place and order. */
static void try_gradients(void) {
    int64_t rows = 1 + below(coin() ? 700 : 40), n = 1 + below(200), columns = 0;
    int count = 1 + (int)below(3);
    tn_gradient parts[3];
    float *before[3];
    for (int p = 0; p < count; p++) {
        int64_t r = 1 + below(TN_GRADIENT_COLUMNS / 3), size = r * n;
        parts[p] = (tn_gradient){r, coin() ? 1 : 0.5f, malloc((size_t)(size + 1) * 4), coin()};
        before[p] = malloc((size_t)(size + 1) * 4);
        for (int64_t i = 0; i <= size; i++) before[p][i] = parts[p].to[i] = (float)below(100) / 10;
        columns += r;
    }
    grid l = make_grid(TN_DTYPE_BF16, rows, columns), x = make_grid(TN_DTYPE_BF16, rows, n);
    assert_status(tn_gemm_gradients(parts, count, rows, l.bytes, l.stride, x.bytes, x.stride, n));
    for (int64_t p = 0, first = 0; p < count; first += parts[p].r, p++) {
        const tn_gradient *part = &parts[p];
        for (int64_t i = 0; i < part->r; i++)
            for (int64_t j = 0; j < n; j++) {
                double sum = 0;
                int64_t place = part->transposed ? j * part->r + i : i * n + j;
                for (int64_t row = 0; row < rows; row++) sum += at(&l, row, first + i) * at(&x, row, j);
                assert_true(fabs(part->to[place] - (before[p][place] + part->factor * sum)) < 2e-4);
            }
        assert_true(part->to[part->r * n] == before[p][part->r * n]);
    }
    for (int p = 0; p < count; p++) free(parts[p].to), free(before[p]);
    free(l.bytes), free(x.bytes);
}

/* With every set of kernels this processor has. */
static void with_kernels(const char *const names[], int count, bool hardware, void (*check_them)(void)) {
    const tn_gradient one = {16, 1, NULL, false};
    for (int k = 0; k < count; k++) {
        setenv("TENON_CPU_KERNELS", names[k], 1);
        bool here = !hardware || tn_gemm_gradients_here(&one, 1);
        if (here) check_them();
        else printf("skipped: %s, this processor does not multiply bf16\n", names[k]);
    }
    unsetenv("TENON_CPU_KERNELS");
}

static void gradients(void) {
    for (int i = 0; i < 60; i++) try_gradients();
}

static void gradients_of_lora_agree(void **state) {
    static const char *const names[] = {"amx", "avx512"};
    (void)state, with_kernels(names, 2, true, gradients);
}

static void stacked_products_agree(void **state) {
    static const char *const names[] = {"amx", "avx512", "avx2", "base"};
    (void)state, with_kernels(names, 4, false, try_stacked);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_of_lora_agree), cmocka_unit_test(products_of_fp32_agree),
        cmocka_unit_test(products_of_bf16_agree), cmocka_unit_test(stacked_products_agree)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
