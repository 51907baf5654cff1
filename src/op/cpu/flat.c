/* flat.c: sums and optimizers over flat fp32 ranges. The range is cut into pieces by its length alone, and
 * partial sums are added in order, so the result is the same for every number of threads.
 */
#include "op/cpu/cpu.h"
#include "quant/dynamic_map.h"

enum { PARTS = 64, PIECE = 16384 };

static double in_parts(double (*kernel)(int64_t, const float *), int64_t count, const float *values) {
    double partial[PARTS], total = 0;
    int64_t size = (count + PARTS - 1) / PARTS;
#pragma omp parallel for schedule(static)
    for (int64_t part = 0; part < PARTS; part++) {
        int64_t first = part * size < count ? part * size : count, rest = count - first;
        partial[part] = kernel(rest < size ? rest : size, values + first);
    }
    for (int part = 0; part < PARTS; part++) total += partial[part];
    return total;
}

tn_status tn_cpu_sum(tn_device *device, int64_t count, const float *values, double *total) {
    *total += in_parts(tn_kernels_of(device)->sum, count, values);
    return TN_OK;
}

tn_status tn_cpu_sum_squares(tn_device *device, int64_t count, const float *values, double *total) {
    *total += in_parts(tn_kernels_of(device)->sum_squares, count, values);
    return TN_OK;
}

static int64_t piece(int64_t count, int64_t first) { return count - first < PIECE ? count - first : PIECE; }

/* The reference's loops vectorise as they are and wait for memory; they only need more than one thread. */
tn_status tn_cpu_adamw(tn_device *device, int64_t count, float *p, const float *g, float *m, float *v,
                       const tn_optimizer_step *step) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i += PIECE)
        tn_ref_adamw(device, piece(count, i), p + i, g + i, m + i, v + i, step);
    return TN_OK;
}

/* Pieces are whole blocks. */
tn_status tn_cpu_adamw_8bit(tn_device *device, int64_t count, float *p, const float *g, tn_codes m, tn_codes v,
                            const tn_optimizer_step *step) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i += PIECE) {
        const int64_t block = i / TN_DYNAMIC_BLOCK;
        tn_ref_adamw_8bit(device, piece(count, i), p + i, g + i, (tn_codes){m.codes + i, m.absmax + block},
                          (tn_codes){v.codes + i, v.absmax + block}, step);
    }
    return TN_OK;
}

tn_status tn_cpu_sgd(tn_device *device, int64_t count, float *p, const float *g, float *m,
                     const tn_optimizer_step *step) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i += PIECE)
        tn_ref_sgd(device, piece(count, i), p + i, g + i, m ? m + i : m, step);
    return TN_OK;
}

tn_status tn_cpu_lion(tn_device *device, int64_t count, float *p, const float *g, float *m,
                      const tn_optimizer_step *step) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i += PIECE) tn_ref_lion(device, piece(count, i), p + i, g + i, m + i, step);
    return TN_OK;
}
