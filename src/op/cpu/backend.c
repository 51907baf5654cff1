/* backend.c: the CPU backend's table and device: the reference with faster operations put over it, and the
 * kernels of the best instruction set found when the device opens.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "base/thread.h"
#include "op/cpu/cpu.h"

enum { ALIGNMENT = 64 };

int64_t tn_scratch_room(int64_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

tn_scratch tn_scratch_of(const tn_device *device) {
    return (tn_scratch){device->scratch, device->scratch_size};
}

tn_status tn_scratch_take(tn_scratch *scratch, int64_t bytes, void *piece) {
    bytes = tn_scratch_room(bytes);
    if (bytes > scratch->left)
        return tn_fail(TN_FAILED, "the CPU's scratch is %lld bytes too small for this shape",
                       (long long)(bytes - scratch->left));
    memcpy(piece, &scratch->next, sizeof scratch->next);
    scratch->next += bytes;
    scratch->left -= bytes;
    return TN_OK;
}

static int64_t scratch_bytes(tn_device *device, const tn_limits *limits) {
    int64_t linear = 0, attention = 0;
    if (limits->scratch_for != TN_SCRATCH_ATTENTION) linear = tn_cpu_linear_scratch(device, limits);
    if (limits->scratch_for != TN_SCRATCH_REST) attention = tn_cpu_attention_scratch(device, limits);
    return linear > attention ? linear : attention;
}

#if defined(__x86_64__)
static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && tn_cpu_has_f16c();
}
static bool has_avx512_bf16(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && tn_cpu_has_avx512_bf16();
}
static bool has_amx(void) { return has_avx512_bf16() && tn_cpu_has_amx_bf16(); }
#endif
static bool always(void) { return true; }

/* Best first. */
static const struct level {
    const char *name; /* for TENON_CPU_KERNELS */
    const char *shown;
    const tn_kernels *kernels;
    bool (*is_here)(void);
} levels[] = {
#if defined(__x86_64__)
    {"amx", "AMX BF16", &tn_kernels_amx, has_amx},
    {"avx512", "AVX-512 BF16", &tn_kernels_avx512, has_avx512_bf16},
    {"avx2", "AVX2", &tn_kernels_avx2, has_avx2},
#endif
    {"base", "no vector extensions used", &tn_kernels_base, always},
};
enum { LEVELS = sizeof levels / sizeof *levels };

/* Asked once: in a virtual machine the question takes tens of microseconds. */
static int best_here;
static void find_best(void) {
    while (!levels[best_here].is_here()) best_here++;
}

/* TENON_CPU_KERNELS=NAME takes no more than that level, for tests of what other machines run. */
static const struct level *best_level(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const char *most = getenv("TENON_CPU_KERNELS");
    int i = 0;
    pthread_once(&once, find_best);
    while (most && i < LEVELS - 1 && strcmp(most, levels[i].name) != 0) i++;
    return &levels[i > best_here ? i : best_here];
}

const tn_kernels *tn_cpu_kernels(void) { return best_level()->kernels; }

tn_dtype tn_cpu_best_dtype(void) { return tn_cpu_kernels()->panel[1] ? TN_DTYPE_BF16 : TN_DTYPE_F32; }

/* "AMD EPYC" from the operating system, "CPU" where it does not say. */
static void processor_name(char *out, size_t size) {
    char line[256];
    snprintf(out, size, "CPU");
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (!file) return;
    while (fgets(line, sizeof line, file))
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':')) {
            snprintf(out, size, "%.64s", strchr(line, ':') + 2);
            out[strcspn(out, "\n")] = '\0';
            break;
        }
    fclose(file);
}

/* In F16 the reference computes everything; it reads no kernels. */
static const tn_backend *table_for(tn_dtype dtype);

static tn_status open_device(const tn_backend *backend, int index, tn_dtype dtype, tn_device **device) {
    tn_cpu_device *cpu;
    char processor[80];
    (void)backend;
    tn_status status = tn_alloc(&cpu, 1, sizeof *cpu, "device");
    if (status != TN_OK) return status;
    const struct level *level = best_level();
    cpu->kernels = level->kernels;
    cpu->base.backend = table_for(dtype);
    cpu->base.dtype = dtype;
    cpu->base.index = index;
    processor_name(processor, sizeof processor);
    snprintf(cpu->base.name, sizeof cpu->base.name, "%s, %s, %d threads", processor, level->shown,
             tn_threads());
    tn_host_memory(&cpu->base);
    *device = &cpu->base;
    return TN_OK;
}

static void override(tn_backend *table) {
    table->scratch_bytes = scratch_bytes;
    table->linear_bytes = tn_cpu_linear_bytes;
    table->linear_load = tn_cpu_linear_load;
    table->linear_refresh = tn_cpu_linear_refresh;
    table->weight_refresh = tn_cpu_weight_refresh;
    table->embed_forward = tn_cpu_embed_forward;
    table->rmsnorm_forward = tn_cpu_rmsnorm_forward;
    table->rmsnorm_backward = tn_cpu_rmsnorm_backward;
    table->linear_forward = tn_cpu_linear_forward;
    table->linear_backward = tn_cpu_linear_backward;
    table->linear_inner = tn_cpu_linear_inner;
    table->rope = tn_cpu_rope;
    table->attention_forward = tn_cpu_attention_forward;
    table->attention_backward = tn_cpu_attention_backward;
    table->gated_forward = tn_cpu_gated_forward;
    table->gated_backward = tn_cpu_gated_backward;
    table->add = tn_cpu_add;
    table->widen = tn_cpu_widen;
    table->cross_entropy = tn_cpu_cross_entropy;
    table->sum = tn_cpu_sum;
    table->sum_squares = tn_cpu_sum_squares;
    table->adamw = tn_cpu_adamw;
    table->adamw_8bit = tn_cpu_adamw_8bit;
    table->sgd = tn_cpu_sgd;
    table->lion = tn_cpu_lion;
}

static tn_backend simple, fast;

static void fill_tables(void) {
    simple = *tn_backend_reference();
    simple.name = "cpu";
    simple.open = open_device;
    fast = simple;
    override(&fast);
}

static const tn_backend *table_for(tn_dtype dtype) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill_tables);
    return dtype == TN_DTYPE_F16 ? &simple : &fast;
}

const tn_backend *tn_backend_cpu(void) { return table_for(TN_DTYPE_F32); }
