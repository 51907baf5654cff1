/* bench.h: times operations at the shapes of one SmolLM2-135M step (4 documents of 512 tokens) in the device's
 * best dtype: milliseconds, GB/s of memory a perfect cache would move, GFLOP/s and % of the product ceiling.
 */
#ifndef TN_TESTS_OP_BENCH_H
#define TN_TESTS_OP_BENCH_H

#include "base/thread.h"
#include "op/harness.h"

enum {
    ROWS = 2048,
    HIDDEN = 576,
    FFN = 1536,
    HEADS = 9,
    KV_HEADS = 3,
    HEAD_DIM = 64,
    VOCAB = 49152,
    HEAD_ROWS = 1024
};

typedef struct bench {
    tn_device *device;
    double ceiling;
    char *arena;
    int64_t used, size;
} bench;

/* Random-looking values near zero in every dtype. */
static void *bench_take(bench *b, int64_t bytes) {
    bytes = (bytes + 255) / 256 * 256;
    assert_true(b->used + bytes <= b->size);
    b->used += bytes;
    return b->arena + b->used - bytes;
}

static void *bench_values(bench *b, tn_dtype dtype, int64_t count, float deviation) {
    int64_t size = tn_dtype_block_bytes(dtype), pattern = 1 << 16;
    char *values = malloc((size_t)(pattern * size)), *memory = bench_take(b, count * size);
    for (int64_t i = 0; i < pattern; i++)
        write_number(dtype, values, i, (double)(deviation * tn_random_normal(3, 0, (uint64_t)i)));
    for (int64_t i = 0; i < count; i += pattern)
        succeed(b->device->backend->upload(b->device, memory + i * size, values,
                                           (count - i < pattern ? count - i : pattern) * size));
    free(values);
    return memory;
}

static tn_view bench_view(bench *b, int64_t rows, int64_t cols) {
    return (tn_view){bench_values(b, b->device->dtype, rows * cols, 1), cols};
}

/* Median of the runs that fit into 0.4 s, at least five, after one to warm up. */
#define TIME(b, name, bytes, flops, operation, ...)                                              \
    do {                                                                                         \
        tn_device *device = (b)->device;                                                         \
        double times[200], end = 0;                                                              \
        int runs = 0;                                                                            \
        succeed(device->backend->operation(device, __VA_ARGS__));                                \
        succeed(device->backend->sync(device));                                                  \
        for (end = tn_seconds() + 0.4; runs < 5 || (runs < 200 && tn_seconds() < end); runs++) { \
            double start = tn_seconds();                                                         \
            succeed(device->backend->operation(device, __VA_ARGS__));                            \
            succeed(device->backend->sync(device));                                              \
            times[runs] = tn_seconds() - start;                                                  \
        }                                                                                        \
        print_line(b, name, runs, times, (double)(bytes), (double)(flops));                      \
    } while (0)

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_line(const bench *b, const char *name, int runs, double *times, double bytes, double flops) {
    qsort(times, (size_t)runs, sizeof *times, ascending);
    double seconds = times[runs / 2];
    printf("%-34s %9.3f ms (best %9.3f)", name, 1e3 * seconds, 1e3 * times[0]);
    if (bytes > 0) printf("  %8.1f GB/s", bytes / seconds / 1e9);
    if (flops > 0)
        printf("  %8.1f GFLOP/s  %5.1f %%", flops / seconds / 1e9, 100 * flops / seconds / b->ceiling);
    printf("\n");
}

/* A linear of up to three parts with LoRA of rank r each, weights random. */
static tn_linear bench_linear(bench *b, int64_t in, int64_t q, int64_t k, int64_t v, int64_t r) {
    int64_t outs[] = {q, k, v};
    tn_linear linear = {.in = in};
    tn_source source = {.seed = 1, .std = 0.0f};
    const tn_source *sources[TN_MAX_PARTS] = {&source, &source, &source};
    for (int p = 0; p < 3 && outs[p]; p++) {
        tn_part *part = &linear.part[linear.parts++];
        part->weight = (tn_weight){.rows = outs[p], .cols = in, .dtype = b->device->dtype};
        if (r)
            part->lora = (tn_lora){.r = r,
                                   .scale = 2,
                                   .a = bench_values(b, TN_DTYPE_F32, r * in, 0.1f),
                                   .b = bench_values(b, TN_DTYPE_F32, outs[p] * r, 0.1f),
                                   .da = bench_values(b, TN_DTYPE_F32, r * in, 0.1f),
                                   .db = bench_values(b, TN_DTYPE_F32, outs[p] * r, 0.1f)};
        linear.out += outs[p], linear.rank += r;
    }
    linear.border = tn_border(linear.rank);
    void *region = bench_take(b, b->device->backend->linear_bytes(b->device, &linear, sources));
    succeed(b->device->backend->linear_load(b->device, &linear, sources, region));
    succeed(b->device->backend->load_finish(b->device));
    if (r) succeed(b->device->backend->linear_refresh(b->device, &linear));
    return linear;
}

static void bench_products(bench *b) {
    static const struct {
        const char *name;
        int64_t in, out[3], rows, r;
    } groups[] = {
        {"q|k|v", HIDDEN, {HIDDEN, 192, 192}, ROWS, 16}, {"o", HIDDEN, {HIDDEN}, ROWS, 16},
        {"gate|up", HIDDEN, {FFN, FFN}, ROWS, 16},       {"down", FFN, {HIDDEN}, ROWS, 16},
        {"lm_head", HIDDEN, {VOCAB}, HEAD_ROWS, 0},      {"gate|up, one token", HIDDEN, {FFN, FFN}, 1, 0},
        {"lm_head, one token", HIDDEN, {VOCAB}, 1, 0}};
    int64_t size = tn_dtype_block_bytes(b->device->dtype);
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        int64_t kept = b->used, rows = groups[i].rows;
        tn_linear linear =
            bench_linear(b, groups[i].in, groups[i].out[0], groups[i].out[1], groups[i].out[2], groups[i].r);
        tn_view x = bench_view(b, rows, linear.in + linear.border),
                y = bench_view(b, rows, linear.out + linear.border);
        tn_view dx = bench_view(b, rows, linear.in), none = {NULL, 0};
        double base = 2.0 * (double)rows * (double)linear.in * (double)linear.out, lora = 0;
        char name[64];
        for (int p = 0; p < linear.parts; p++)
            lora += 2.0 * (double)rows * (double)groups[i].r * (double)(linear.in + linear.part[p].weight.rows);
        snprintf(name, sizeof name, "%s forward", groups[i].name);
        TIME(b, name, rows == 1 ? linear.in * linear.out * size : 0, base + lora, linear_forward, &linear, rows,
             x, y, none, 1, NULL);
        snprintf(name, sizeof name, "%s backward", groups[i].name);
        if (rows > 1)
            TIME(b, name, 0, base + 2 * lora, linear_backward, &linear, rows, x, y, dx, false, 1, NULL);
        b->used = kept;
    }
}

static void bench_attention(bench *b) {
    int32_t cu[5] = {0, 512, 1024, 1536, 2048};
    int64_t width = (HEADS + 2 * KV_HEADS) * HEAD_DIM, size = tn_dtype_block_bytes(b->device->dtype),
            kept = b->used;
    int32_t *on_device = bench_take(b, sizeof cu);
    succeed(b->device->backend->upload(b->device, on_device, cu, sizeof cu));
    tn_attention a = {4,  ROWS,  ROWS,     512,      512,    on_device, on_device, cu,
                      cu, HEADS, KV_HEADS, HEAD_DIM, 0.125f, 0,         0,         false};
    tn_view q = bench_view(b, ROWS, width), k = {(char *)q.data + HIDDEN * size, width};
    tn_view v = {(char *)k.data + KV_HEADS * HEAD_DIM * size, width}, o = bench_view(b, ROWS, HIDDEN);
    tn_view d_o = bench_view(b, ROWS, HIDDEN), dq = bench_view(b, ROWS, width);
    tn_view dk = {(char *)dq.data + HIDDEN * size, width},
            dv = {(char *)dk.data + KV_HEADS * HEAD_DIM * size, width};
    float *lse = bench_values(b, TN_DTYPE_F32, ROWS * HEADS, 1);
    double flops = 4.0 * HEADS * 512.0 * 513.0 / 2 * 2 * 2 * HEAD_DIM;
    TIME(b, "attention forward", 0, flops, attention_forward, &a, q, k, v, o, lse);
    TIME(b, "attention backward", 0, 2.5 * flops, attention_backward, &a, q, k, v, o, lse, d_o, dq, dk, dv);
    b->used = kept;
}

static void bench_rows(bench *b) {
    int64_t size = tn_dtype_block_bytes(b->device->dtype), kept = b->used, narrow = ROWS * HIDDEN * size;
    int64_t wide = ROWS * 2 * FFN * size;
    tn_view x = bench_view(b, ROWS, HIDDEN), y = bench_view(b, ROWS, HIDDEN), g = bench_view(b, ROWS, 2 * FFN);
    tn_view act = bench_view(b, ROWS, FFN), logits = bench_view(b, HEAD_ROWS, VOCAB);
    void *w = bench_values(b, b->device->dtype, HIDDEN, 1);
    float *rstd = bench_values(b, TN_DTYPE_F32, ROWS, 1), *c = bench_values(b, TN_DTYPE_F32, ROWS * 32, 1);
    int32_t *targets = bench_take(b, HEAD_ROWS * 4);
    succeed(b->device->backend->zero(b->device, targets, HEAD_ROWS * 4));
    TIME(b, "rmsnorm forward", 2 * narrow, 0, rmsnorm_forward, ROWS, 1, HIDDEN, x, w, false, 1e-5f, y, rstd);
    TIME(b, "rmsnorm backward, added", 4 * narrow, 0, rmsnorm_backward, ROWS, 1, HIDDEN, x, w, false, rstd, y,
         y, true, NULL);
    TIME(b, "rope", 2 * narrow, 0, rope, ROWS, HEADS, HEAD_DIM, 32, x, c, c, false);
    TIME(b, "gated forward", wide + wide / 2, 0, gated_forward, ROWS, FFN, TN_SILU, g, act);
    TIME(b, "gated backward", 2 * wide + wide / 2, 0, gated_backward, ROWS, FFN, TN_SILU, g, act, g);
    TIME(b, "add", 3 * narrow, 0, add, ROWS, HIDDEN, x, y, y);
    TIME(b, "cross entropy with gradient", 2 * HEAD_ROWS * VOCAB * size, 0, cross_entropy, HEAD_ROWS, VOCAB,
         logits, targets, 0, 1, rstd, logits);
    b->used = kept;
}

static void bench_optimizer(bench *b) {
    int64_t count = 4884480, kept = b->used;
    float *p = bench_values(b, TN_DTYPE_F32, count, 1), *g = bench_values(b, TN_DTYPE_F32, count, 1);
    float *m = bench_values(b, TN_DTYPE_F32, count, 1), *v = bench_values(b, TN_DTYPE_F32, count, 0);
    double *norm = bench_take(b, 8);
    succeed(b->device->backend->zero(b->device, norm, 8));
    tn_optimizer_step step = {1e-4, 0.9, 0.999, 1e-8, 0.01, 0, 1, 1, 1, norm};
    TIME(b, "sum of squares", 4 * count, 0, sum_squares, count, g, norm);
    succeed(b->device->backend->zero(b->device, norm, 8));
    TIME(b, "adamw", 28 * count, 0, adamw, count, p, g, m, v, &step);
    b->used = kept;
}

static int run_bench(void) {
    const tn_backend *backend = tested_backend();
    bench b = {.size = (int64_t)1200 << 20};
    tn_limits limits = {.rows = ROWS,
                        .documents = 4,
                        .longest = 512,
                        .hidden = HIDDEN,
                        .intermediate = FFN,
                        .heads = HEADS,
                        .kv_heads = KV_HEADS,
                        .head_dim = HEAD_DIM,
                        .vocab = VOCAB,
                        .head_rows = HEAD_ROWS,
                        .rank = 48,
                        .backward = true,
                        .largest_weight = HIDDEN * VOCAB};
    void *memory;
    if (!backend) return 77;
    bool cpu = strcmp(backend->name, "cpu") == 0;
    const char *dtype = getenv("TENON_BENCH_DTYPE");
    tn_dtype wanted = TN_DTYPE_F32;
    if (dtype) assert_true(tn_dtype_from_name(dtype, &wanted));
    succeed(tn_device_open(cpu ? "cpu" : "cuda", wanted, dtype == NULL, &b.device));
    succeed(backend->allocate(b.device, b.size, &memory));
    b.arena = memory;
    b.device->scratch_size = backend->scratch_bytes(b.device, &limits);
    b.device->scratch = bench_take(&b, b.device->scratch_size);
    succeed(tn_device_ceiling(b.device, &b.ceiling));
    printf("%s, %s, ceiling %.1f GFLOP/s\n", b.device->name, tn_dtype_name(b.device->dtype), b.ceiling / 1e9);
    bench_products(&b);
    bench_attention(&b);
    bench_rows(&b);
    bench_optimizer(&b);
    backend->release(b.device, memory);
    tn_device_close(b.device);
    return 0;
}

#endif
