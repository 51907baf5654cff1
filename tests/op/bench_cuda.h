/* bench_cuda.h: the bench mode of test_cuda.c: operations at the shapes of Llama-3.1-8B (8192 tokens, bf16,
 * LoRA r = 16 on all projections), with the ceilings of docs/speed.md: 790 TFLOP/s for products, 4.25 TB/s for
 * the rest. Medians of 5 batches; inputs are random and larger than the L2 cache. Then two runs of each are
 * compared bit by bit.
 */
#ifndef TN_TESTS_OP_BENCH_CUDA_H
#define TN_TESTS_OP_BENCH_CUDA_H

enum {
    BATCHES = 5,
    ROWS = 8192,
    HIDDEN = 4096,
    INTERMEDIATE = 14336,
    HEADS = 32,
    KV_HEADS = 8,
    HEAD_DIM = 128,
    VOCAB = 128256,
    HEAD_ROWS = 1024,
    RANK = 16,
    QKV = (HEADS + 2 * KV_HEADS) * HEAD_DIM
};
static const double product_ceiling = 790e12, memory_ceiling = 4.25e12, attention_ceiling = 627e12;

static const char *bench_wanted;

static int compare_doubles(const void *a, const void *b) {
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static void report(const char *name, double seconds, double work, double ceiling, bool bytes) {
    printf("%-34s %9.3f ms %9.2f %s %6.1f %%\n", name, seconds * 1e3, work / seconds * 1e-12,
           bytes ? "TB/s   " : "TFLOP/s", 100 * work / seconds / ceiling);
}

/* Runs `call` until it was timed; `work` in FLOP or bytes. */
#define BENCH(name, work, ceiling, bytes, call)                 \
    do {                                                        \
        double times[BATCHES];                                  \
        if (!strstr(name, bench_wanted)) break;                 \
        current = name;                                         \
        MUST(call);                                             \
        MUST(call);                                             \
        MUST(gpu->backend->sync(gpu));                          \
        for (int batch = 0; batch < BATCHES; batch++) {         \
            double start = tn_seconds();                        \
            for (int run = 0; run < 10; run++) MUST(call);      \
            MUST(gpu->backend->sync(gpu));                      \
            times[batch] = (tn_seconds() - start) / 10;         \
        }                                                       \
        qsort(times, BATCHES, sizeof *times, compare_doubles);  \
        report(name, times[BATCHES / 2], work, ceiling, bytes); \
    } while (0)
#define TB(name, work, call) BENCH(name, (double)(work), memory_ceiling, true, call)
#define TF(name, work, call) BENCH(name, (double)(work), product_ceiling, false, call)

/* A view on the device with random content. */
static tn_view bench_view(int64_t rows, int64_t cols) {
    tn_source source = {.seed = (uint64_t)(rows * 31 + cols), .std = 1};
    tn_view v = {NULL, cols};
    tn_weight w;
    MUST(gpu->backend->allocate(gpu, rows * cols * 2, &v.data));
    MUST(gpu->backend->weight_load(gpu, rows, cols, &source, v.data, &w));
    pool[pooled] = v.data, host_pool[pooled++] = NULL;
    return v;
}

static float *bench_floats(int64_t count, bool zero) {
    void *memory;
    MUST(gpu->backend->allocate(gpu, count * 4, &memory));
    if (zero) MUST(gpu->backend->zero(gpu, memory, count * 4));
    else {
        float *values = malloc((size_t)count * 4);
        for (int64_t i = 0; i < count; i++) values[i] = 0.02f * (float)((i * 7919) % 1009 - 504) / 504;
        MUST(gpu->backend->upload(gpu, memory, values, count * 4));
        MUST(gpu->backend->sync(gpu));
        free(values);
    }
    pool[pooled] = memory, host_pool[pooled++] = NULL;
    return memory;
}

/* A second run must give the same bits. */
static void same_bits(const char *what, tn_view view, int64_t rows, bool first) {
    static char *before;
    int64_t bytes = rows * view.stride * 2;
    char *now = malloc((size_t)bytes);
    MUST(gpu->backend->download(gpu, now, view.data, bytes));
    if (!first) {
        bool same = memcmp(before, now, (size_t)bytes) == 0;
        broken += !same;
        printf("  %s: second run %s\n", what, same ? "has the same bits" : "DIFFERS");
        free(before);
        free(now);
        before = NULL;
    } else before = now;
}

static void bench_linear(const char *name, int parts, int64_t in, const int64_t out[3], int64_t r,
                         bool backward) {
    tn_linear l = {.parts = parts, .in = in};
    tn_source source = {.seed = 3, .std = 0.02f};
    const tn_source *sources[3] = {&source, &source, &source};
    char label[96];
    if (!strstr(name, bench_wanted) && !strstr("linear", bench_wanted)) return;
    for (int i = 0; i < parts; i++) {
        l.part[i].weight = (tn_weight){.rows = out[i], .cols = in, .dtype = dtype};
        if (r)
            l.part[i].lora = (tn_lora){.r = r,
                                       .scale = 2,
                                       .a = bench_floats(r * in, false),
                                       .b = bench_floats(r * out[i], false),
                                       .da = bench_floats(r * in, true),
                                       .db = bench_floats(r * out[i], true)};
        l.out += out[i], l.rank += r;
    }
    l.border = tn_border(l.rank);
    void *region;
    MUST(gpu->backend->allocate(gpu, gpu->backend->linear_bytes(gpu, &l, sources), &region));
    pool[pooled] = region, host_pool[pooled++] = NULL;
    MUST(gpu->backend->linear_load(gpu, &l, sources, region));
    MUST(gpu->backend->linear_refresh(gpu, &l));
    tn_view x = bench_view(ROWS, in + l.border), y = bench_view(ROWS, l.out + l.border),
            dx = bench_view(ROWS, in);
    const char *all = bench_wanted;
    bench_wanted = "";
    double work = 2.0 * ROWS * (double)in * (double)l.out;
    snprintf(label, sizeof label, "%s forward, r %lld", name, (long long)r);
    TF(label, work, gpu->backend->linear_forward(gpu, &l, ROWS, x, y, nothing, 1, NULL));
    if (r) {
        snprintf(label, sizeof label, "%s inner", name);
        TB(label, (double)ROWS * (double)in * 2, gpu->backend->linear_inner(gpu, &l, ROWS, x, NULL));
    }
    if (backward) {
        snprintf(label, sizeof label, "%s backward, r %lld", name, (long long)r);
        TF(label, work, gpu->backend->linear_backward(gpu, &l, ROWS, x, y, dx, false, 1, NULL));
    }
    bench_wanted = all;
    for (int run = 0; run < 2; run++) {
        MUST(gpu->backend->linear_forward(gpu, &l, ROWS, x, y, nothing, 1, NULL));
        same_bits(name, y, ROWS, run == 0);
    }
    MUST(gpu->backend->sync(gpu));
    release_all();
}

static void bench_linears(void) {
    const int64_t qkv[3] = {HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM}, o[3] = {HIDDEN},
                  up[3] = {INTERMEDIATE, INTERMEDIATE};
    const int64_t ranks[] = {0, RANK, 2 * RANK, 4 * RANK};
    for (int i = 0; i < 4; i++) {
        int64_t r = ranks[i];
        bench_linear("q|k|v linear", 3, HIDDEN, qkv, r, true);
        bench_linear("o linear", 1, HIDDEN, o, r, true);
        bench_linear("gate|up linear", 2, HIDDEN, up, r, true);
        bench_linear("down linear", 1, INTERMEDIATE, o, r, true);
    }
}

static void bench_attention(int64_t documents, int64_t length, bool ragged) {
    char label[96];
    int32_t cu[65] = {0};
    if (!strstr("attention", bench_wanted)) return;
    tn_attention a = {.documents = documents,
                      .q_rows = documents * length,
                      .kv_rows = documents * length,
                      .longest_q = length,
                      .longest_kv = length,
                      .heads = HEADS,
                      .kv_heads = KV_HEADS,
                      .head_dim = HEAD_DIM,
                      .scale = 0.088388f};
    for (int64_t i = 1; i <= documents; i++)
        cu[i] = (int32_t)(i * length) - (ragged && i < documents ? (int32_t)(17 * i) : 0);
    double pairs = 0;
    for (int64_t i = 0; i < documents; i++) pairs += 0.5 * (cu[i + 1] - cu[i]) * (double)(cu[i + 1] - cu[i]);
    for (int64_t i = 0; i < documents; i++)
        if (cu[i + 1] - cu[i] > a.longest_q) a.longest_q = a.longest_kv = cu[i + 1] - cu[i];
    int32_t *device_cu = (int32_t *)bench_floats(65, true);
    MUST(gpu->backend->upload(gpu, device_cu, cu, sizeof cu));
    a.host_cu_q = a.host_cu_kv = cu, a.cu_q = a.cu_kv = device_cu;
    int64_t rows = a.q_rows;
    tn_view qkv = bench_view(rows, QKV), d_qkv = bench_view(rows, QKV), o = bench_view(rows, HEADS * HEAD_DIM),
            d_o = bench_view(rows, HEADS * HEAD_DIM);
    tn_view k = {(char *)qkv.data + HEADS * HEAD_DIM * 2, QKV},
            v = {(char *)k.data + KV_HEADS * HEAD_DIM * 2, QKV};
    tn_view dk = {(char *)d_qkv.data + HEADS * HEAD_DIM * 2, QKV},
            dv = {(char *)dk.data + KV_HEADS * HEAD_DIM * 2, QKV};
    float *lse = bench_floats(rows * HEADS, true);
    double work = 4.0 * HEADS * HEAD_DIM * pairs;
    snprintf(label, sizeof label, "attention %lldx%lld%s forward", (long long)documents, (long long)length,
             ragged ? " packed" : "");
    const char *all = bench_wanted;
    bench_wanted = "";
    BENCH(label, work, attention_ceiling, false, gpu->backend->attention_forward(gpu, &a, qkv, k, v, o, lse));
    snprintf(label, sizeof label, "attention %lldx%lld%s backward", (long long)documents, (long long)length,
             ragged ? " packed" : "");
    BENCH(label, 2.5 * work, attention_ceiling, false,
          gpu->backend->attention_backward(gpu, &a, qkv, k, v, o, lse, d_o, d_qkv, dk, dv));
    bench_wanted = all;
    for (int run = 0; run < 2; run++) {
        MUST(gpu->backend->attention_forward(gpu, &a, qkv, k, v, o, lse));
        same_bits("attention forward", o, rows, run == 0);
    }
    for (int again = 0; again < 3; again++)
        for (int run = 0; run < 2; run++) {
            MUST(gpu->backend->attention_backward(gpu, &a, qkv, k, v, o, lse, d_o, d_qkv, dk, dv));
            same_bits("attention backward", d_qkv, rows, run == 0);
        }
    release_all();
}

static void bench_rows(void) {
    tn_view h = bench_view(ROWS, HIDDEN), x = bench_view(ROWS, HIDDEN + 48), dx = bench_view(ROWS, HIDDEN),
            w = bench_view(1, HIDDEN);
    tn_view gate_up = bench_view(ROWS, 2 * INTERMEDIATE), act = bench_view(ROWS, INTERMEDIATE + 16),
            qkv = bench_view(ROWS, QKV);
    float *rstd = bench_floats(ROWS, true), *cosines = bench_floats(ROWS * HEAD_DIM / 2, false),
          *sines = bench_floats(ROWS * HEAD_DIM / 2, false);
    float *dw = bench_floats(HIDDEN, true);
    int32_t *index = (int32_t *)bench_floats(ROWS, true);
    double matrix_bytes = 2.0 * ROWS * HIDDEN, gated = 2.0 * ROWS * INTERMEDIATE;
    TB("rmsnorm forward", 2 * matrix_bytes,
       gpu->backend->rmsnorm_forward(gpu, ROWS, 1, HIDDEN, h, w.data, false, 1e-5f, x, rstd));
    TB("rmsnorm backward, accumulating", 4 * matrix_bytes,
       gpu->backend->rmsnorm_backward(gpu, ROWS, 1, HIDDEN, h, w.data, false, rstd, x, dx, true, NULL));
    TB("rmsnorm backward with dw", 6 * matrix_bytes,
       gpu->backend->rmsnorm_backward(gpu, ROWS, 1, HIDDEN, h, w.data, false, rstd, x, dx, true, dw));
    TB("q/k norm forward", 2 * 2.0 * ROWS * 40 * HEAD_DIM,
       gpu->backend->rmsnorm_forward(gpu, ROWS, 40, HEAD_DIM, qkv, w.data, false, 1e-5f, qkv, NULL));
    TB("rope", 2 * 2.0 * ROWS * 40 * HEAD_DIM,
       gpu->backend->rope(gpu, ROWS, 40, HEAD_DIM, HEAD_DIM / 2, qkv, cosines, sines, false));
    TB("rope_table", 4.0 * ROWS * HEAD_DIM,
       gpu->backend->rope_table(gpu, ROWS, HEAD_DIM / 2, index, NULL, sines, 1, cosines, sines));
    TB("gated forward", 3 * gated, gpu->backend->gated_forward(gpu, ROWS, INTERMEDIATE, TN_SILU, gate_up, act));
    TB("gated backward", 5 * gated,
       gpu->backend->gated_backward(gpu, ROWS, INTERMEDIATE, TN_SILU, gate_up, act, gate_up));
    TB("add", 3 * matrix_bytes, gpu->backend->add(gpu, ROWS, HIDDEN, h, dx, dx));
    TB("copy_rows", 2 * matrix_bytes, gpu->backend->copy_rows(gpu, ROWS, HIDDEN, h, dx));
    TB("gather_rows", 2 * matrix_bytes, gpu->backend->gather_rows(gpu, ROWS, HIDDEN, index, h, dx));
    release_all();
}

static void bench_loss(void) {
    tn_view logits = bench_view(HEAD_ROWS, VOCAB), d = bench_view(HEAD_ROWS, VOCAB);
    int32_t *targets = (int32_t *)bench_floats(HEAD_ROWS, true);
    float *loss = bench_floats(HEAD_ROWS, true);
    TB("cross_entropy", 2 * 2.0 * HEAD_ROWS * VOCAB,
       gpu->backend->cross_entropy(gpu, HEAD_ROWS, VOCAB, logits, targets, 0, 0.001f, loss, d));
    release_all();
}

static void bench_optimizer(void) {
    const int64_t n = 64 << 20;
    float *p = bench_floats(n, false), *g = bench_floats(n, false), *m = bench_floats(n, true),
          *v = bench_floats(n, true);
    double *squares = (double *)bench_floats(2, true);
    tn_optimizer_step s = {.learning_rate = 1e-4,
                           .beta1 = 0.9,
                           .beta2 = 0.999,
                           .epsilon = 1e-8,
                           .step = 1,
                           .grad_scale = 1,
                           .max_norm = 1,
                           .sum_squares = squares};
    TB("adamw", 28.0 * (double)n, gpu->backend->adamw(gpu, n, p, g, m, v, &s));
    TB("sum_squares", 4.0 * (double)n, gpu->backend->sum_squares(gpu, n, g, squares));
    release_all();
}

static void bench_blocks(void) {
    static const tn_dtype types[] = {TN_DTYPE_Q4_K, TN_DTYPE_Q6_K, TN_DTYPE_Q8_0, TN_DTYPE_NF4,
                                     TN_DTYPE_LLM_INT8};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char label[64];
        tn_tensor_info t = file_tensor(types[i], 4096, 14336);
        tn_source source = {.tensor = &t};
        tn_weight w;
        void *region;
        MUST(gpu->backend->allocate(gpu, gpu->backend->weight_bytes(gpu, 4096, 14336, &source), &region));
        MUST(gpu->backend->weight_load(gpu, 4096, 14336, &source, region, &w));
        MUST(gpu->backend->load_finish(gpu));
        tn_view y = bench_view(4096, 14336);
        int32_t *ids = (int32_t *)bench_floats(4096, true), *host = malloc(4096 * 4);
        for (int32_t k = 0; k < 4096; k++) host[k] = k;
        MUST(gpu->backend->upload(gpu, ids, host, 4096 * 4));
        snprintf(label, sizeof label, "decoding %s", tn_dtype_name(types[i]));
        TB(label, (double)t.bytes + 2.0 * 4096 * 14336, gpu->backend->embed_forward(gpu, 4096, ids, &w, 1, y));
        gpu->backend->release(gpu, region);
        free(host), free((void *)(uintptr_t)t.data);
        release_all();
    }
}

/* Bytes from host memory through the pinned ring. */
static void bench_loading(void) {
    tn_tensor_info t = {.name = "w",
                        .file = "memory",
                        .dtype = TN_DTYPE_BF16,
                        .rank = 2,
                        .shape = {32768, 32768},
                        .elements = 1 << 30,
                        .bytes = (int64_t)2 << 30};
    tn_source source = {.tensor = &t};
    tn_weight w;
    void *data = malloc((size_t)t.bytes), *region;
    if (!strstr("loading", bench_wanted)) return;
    memset(data, 1, (size_t)t.bytes);
    t.data = data;
    MUST(gpu->backend->allocate(gpu, t.bytes, &region));
    for (int i = 0; i < 2; i++) {
        double start = tn_seconds();
        MUST(gpu->backend->weight_load(gpu, 32768, 32768, &source, region, &w));
        MUST(gpu->backend->load_finish(gpu));
        report("loading 2 GiB", tn_seconds() - start, (double)t.bytes, 55e9, true);
    }
    gpu->backend->release(gpu, region);
    free(data);
}

static int bench_all(const tn_backend *backend, const char *name) {
    const tn_limits limits = {.rows = 32768,
                              .documents = 16,
                              .longest = 32768,
                              .hidden = HIDDEN,
                              .intermediate = INTERMEDIATE,
                              .heads = HEADS,
                              .kv_heads = KV_HEADS,
                              .head_dim = HEAD_DIM,
                              .vocab = VOCAB,
                              .head_rows = HEAD_ROWS,
                              .rank = 12 * RANK,
                              .backward = true,
                              .largest_weight = 2 * HIDDEN * INTERMEDIATE};
    bench_wanted = name;
    dtype = TN_DTYPE_BF16;
    open_both(backend, &limits);
    printf("scratch %.0f MiB\n", (double)gpu->scratch_size / 1048576);
    bench_rows();
    bench_loss();
    bench_optimizer();
    bench_blocks();
    bench_loading();
    bench_attention(4, 2048, false);
    bench_attention(4, 2048, true);
    bench_attention(1, 8192, false);
    bench_attention(1, 32768, false);
    bench_linears();
    close_both();
    return broken > 0;
}

#endif
