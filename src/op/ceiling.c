/* ceiling.c: how fast this device multiplies, measured through the operations everything else uses. The shapes
 * are those of docs/speed.md; the best rate is the ceiling that step lines are compared with.
 * Operands are random: zeros draw less power and would flatter a GPU. They are allocated for the moment, so it
 * is measured before a plan's memory is taken: then the two never stand side by side. The GPU's products are
 * the small ones of its list, whose rates differ little from the large ones'.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/thread.h"
#include "op/op.h"
#include "quant/quant.h"

typedef struct product {
    int64_t rows, out, in;
} product;

static const product cpu_products[] = {
    {2048, 576, 576}, {2048, 1536, 576}, {2048, 576, 1536}, {2048, 4096, 4096}, {1024, 49152, 576}};
static const product gpu_products[] = {{8192, 4096, 4096}, {8192, 6144, 4096}};

enum { PATTERN = 1 << 18, FEWEST_ROWS = 128 }; /* random elements, repeated */
static const double budget = 0.3;              /* seconds for all shapes */
static const double timing = 0.01;             /* seconds that one timing lasts at least */

/* `count` elements on the device, filled with the pattern. */
static tn_status fill(tn_device *device, int64_t count, const void *pattern, void **memory) {
    int64_t size = tn_dtype_block_bytes(device->dtype);
    tn_status status = device->backend->allocate(device, count * size, memory);
    for (int64_t i = 0; status == TN_OK && i < count; i += PATTERN)
        status = device->backend->upload(device, (char *)*memory + i * size, pattern,
                                         (count - i < PATTERN ? count - i : PATTERN) * size);
    return status;
}

static void release(tn_device *device, void *memory) {
    if (memory) device->backend->release(device, memory);
}

/* `runs` products one behind the other; *seconds is what they took together. */
static tn_status run(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x, tn_view y,
                     int64_t runs, double *seconds) {
    tn_view none = {NULL, 0};
    double start = tn_seconds();
    tn_status status = TN_OK;
    for (int64_t i = 0; i < runs; i++)
        TN_TRY(device->backend->linear_forward(device, linear, rows, x, y, none, 1, NULL));
    TN_TRY(device->backend->sync(device));
    *seconds = tn_seconds() - start;
done:
    return status;
}

static void keep_best(double flops, double seconds, double *best) {
    if (flops / seconds > *best) *best = flops / seconds;
}

/* Runs the product for `share` seconds; the best rate goes to *best. The first run only counts where it took
 * more than that and the device has nothing to warm up: a GPU loads kernels then and chooses among them. A
 * timing covers as many products as make waiting for the device a trifle. */
static tn_status repeat(tn_device *device, const tn_linear *linear, int64_t rows, void *x, void *y,
                        double share, double *best) {
    tn_view from = {x, linear->in}, to = {y, linear->out};
    double flops = 2.0 * (double)rows * (double)linear->out * (double)linear->in, seconds;
    bool warms_up = strcmp(device->backend->name, "cuda") == 0;
    tn_status status;
    TN_TRY(run(device, linear, rows, from, to, 1, &seconds));
    if (seconds <= share || warms_up) TN_TRY(run(device, linear, rows, from, to, 1, &seconds));
    keep_best(flops, seconds, best);
    if (seconds > share) goto done;
    int64_t runs = seconds < timing ? (int64_t)(timing / (seconds + 1e-6)) + 1 : 1;
    double until = tn_seconds() + share;
    do {
        TN_TRY(run(device, linear, rows, from, to, runs, &seconds));
        keep_best(flops * (double)runs, seconds, best);
    } while (tn_seconds() < until);
done:
    return status;
}

static tn_status measure(tn_device *device, const product *p, const void *pattern, double share, double *best) {
    const tn_backend *backend = device->backend;
    const tn_source *shared[TN_MAX_PARTS] = {NULL};
    void *weight = NULL, *x = NULL, *y = NULL, *region = NULL, *kept_scratch = device->scratch, *scratch = NULL;
    int64_t kept_size = device->scratch_size;
    tn_limits limits = {.rows = p->rows,
                        .documents = 1,
                        .longest = 1,
                        .hidden = p->in,
                        .intermediate = p->in,
                        .heads = 1,
                        .kv_heads = 1,
                        .head_dim = 64,
                        .vocab = p->out,
                        .head_rows = p->rows,
                        .largest_weight = p->out * p->in};
    tn_linear linear = {.parts = 1, .in = p->in, .out = p->out};
    tn_status status;
    TN_TRY(fill(device, p->out * p->in, pattern, &weight));
    TN_TRY(fill(device, p->rows * p->in, pattern, &x));
    TN_TRY(fill(device, p->rows * p->out, pattern, &y));
    linear.part[0].weight =
        (tn_weight){.data = weight, .dtype = device->dtype, .rows = p->out, .cols = p->in, .stride = p->in};
    device->scratch_size = backend->scratch_bytes(device, &limits);
    TN_TRY(backend->allocate(device, device->scratch_size, &scratch));
    device->scratch = scratch;
    TN_TRY(backend->allocate(device, backend->linear_bytes(device, &linear, shared), &region));
    TN_TRY(backend->linear_load(device, &linear, shared, region));
    TN_TRY(backend->load_finish(device));
    status = repeat(device, &linear, p->rows, x, y, share, best);
done:
    device->scratch = kept_scratch;
    device->scratch_size = kept_size;
    release(device, weight), release(device, x), release(device, y), release(device, region),
        release(device, scratch);
    return status;
}

/* The product, with fewer rows where it would overrun its share at the rate known so far: the largest take
 * seconds on a slow machine, and a run waits for them. */
static product shortened(product p, double share, double rate) {
    double rows = share * rate / (2.0 * (double)p.out * (double)p.in);
    if (rate > 0 && rows < (double)p.rows) p.rows = rows > FEWEST_ROWS ? (int64_t)rows / 16 * 16 : FEWEST_ROWS;
    return p;
}

static tn_status measure_all(tn_device *device, const product *products, int64_t count, double *best) {
    float *values = NULL;
    uint16_t *halves = NULL;
    tn_status status;
    TN_TRY(tn_alloc(&values, PATTERN, sizeof *values, "random numbers"));
    TN_TRY(tn_alloc(&halves, PATTERN, sizeof *halves, "random numbers"));
    tn_random_weights(1, 0.1f, PATTERN, values);
    if (device->dtype != TN_DTYPE_F32) TN_TRY(tn_quantize(device->dtype, values, PATTERN, halves));
    for (int64_t i = 0; i < count; i++) {
        double share = budget / (double)count;
        product p = shortened(products[i], share, *best);
        TN_TRY(
            measure(device, &p, device->dtype == TN_DTYPE_F32 ? (void *)values : (void *)halves, share, best));
    }
done:
    free(values);
    free(halves);
    return status;
}

/* On the CPU it is the best product whatever the device computes in, so that percentages can be compared. */
tn_status tn_device_ceiling(tn_device *device, double *flops) {
    static double known;
    static char name[sizeof device->name];
    tn_device *fastest = NULL;
    double best = 0;
    tn_status status = TN_OK;
    if (known == 0 || strcmp(name, device->name) != 0) {
        if (strcmp(device->backend->name, "cuda") == 0)
            TN_TRY(measure_all(device, gpu_products, sizeof gpu_products / sizeof *gpu_products, &best));
        else {
            TN_TRY(tn_device_open("cpu", TN_DTYPE_F32, true, &fastest));
            TN_TRY(measure_all(fastest, cpu_products, sizeof cpu_products / sizeof *cpu_products, &best));
        }
        known = best;
        memcpy(name, device->name, sizeof name);
    }
    *flops = known;
done:
    tn_device_close(fastest);
    return status;
}
