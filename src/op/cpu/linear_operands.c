/* linear_operands.c: what both directions of a linear group multiply: compute copies of A and B, rows of W in
 * place or decoded by tiles, and x with LoRA's dropout on it; and how much scratch that takes.
 */
#include <stddef.h>

#include "base/integer.h"
#include "base/rng.h"
#include "op/cpu/linear.h"

enum { TILE = 1 << 22 /* elements of a decoded tile */, CHUNK = 256 /* elements decoded at a time */ };

/* ---- Compute copies of A and B ---------------------------------------------------------------------- */

/* Ranks of the parts before part p. */
int64_t tn_ranks_before(const tn_linear *linear, int p) {
    int64_t ranks = 0;
    while (p-- > 0) ranks += linear->part[p].lora.r;
    return ranks;
}

static int64_t copy_bytes(const tn_device *device, const tn_linear *linear, int parts) {
    int64_t bytes = tn_scratch_room(2 * tn_ranks_before(linear, linear->parts) * linear->in);
    for (int p = 0; p < parts; p++)
        bytes += tn_scratch_room(2 * linear->part[p].lora.r * linear->part[p].weight.rows);
    return tn_is_bf16(device) ? bytes : 0;
}

/* A [r, in] of part p in the compute dtype; in BF16 those of all parts stand one behind the other. */
const void *tn_lora_a(const tn_device *device, const tn_linear *linear, int p) {
    if (!tn_is_bf16(device)) return linear->part[p].lora.a;
    return (const uint16_t *)linear->fused + tn_ranks_before(linear, p) * linear->in;
}

/* B [out, r], in BF16 scale·B. */
const void *tn_lora_b(const tn_device *device, const tn_linear *linear, int p) {
    if (!tn_is_bf16(device)) return linear->part[p].lora.b;
    return (const char *)linear->fused + copy_bytes(device, linear, p);
}

static void scale_rounded(const tn_device *device, int64_t count, float factor, const float *from, void *to) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i += CHUNK)
        tn_kernels_of(device)->scale[1](tn_min(CHUNK, count - i), factor, from + i, (uint16_t *)to + i);
}

int64_t tn_cpu_linear_bytes(tn_device *device, const tn_linear *linear, const tn_source *const sources[]) {
    return tn_ref_linear_bytes(device, linear, sources) + copy_bytes(device, linear, linear->parts);
}

tn_status tn_cpu_linear_load(tn_device *device, tn_linear *linear, const tn_source *const sources[],
                             void *region) {
    int64_t before = tn_ref_linear_bytes(device, linear, sources);
    tn_status status = tn_ref_linear_load(device, linear, sources, region);
    linear->fused = copy_bytes(device, linear, linear->parts) ? (char *)region + before : NULL;
    return status;
}

tn_status tn_cpu_linear_refresh(tn_device *device, tn_linear *linear) {
    for (int p = 0; p < linear->parts; p++) {
        const tn_part *part = &linear->part[p];
        int64_t rows = part->weight.rows, r = part->lora.r;
        if (part->master && part->weight.data != part->master)
            tn_cpu_weight_refresh(device, rows * linear->in, part->master,
                                  (void *)(uintptr_t)part->weight.data);
        if (r == 0 || !tn_is_bf16(device)) continue;
        tn_cpu_weight_refresh(device, r * linear->in, part->lora.a,
                              (void *)(uintptr_t)tn_lora_a(device, linear, p));
        scale_rounded(device, rows * r, part->lora.scale, part->lora.b,
                      (void *)(uintptr_t)tn_lora_b(device, linear, p));
    }
    return tn_cpu_dora_refresh(device, linear);
}

/* ---- Scratch ------------------------------------------------------------------------------------------ */

static int64_t tile_rows(int64_t rows, int64_t cols) { return tn_min(rows, tn_max(1, TILE / cols)); }

int64_t tn_cpu_linear_scratch(const tn_device *device, const tn_limits *limits) {
    int64_t body = tn_max(tn_max(limits->hidden, limits->intermediate), limits->heads * limits->head_dim);
    int64_t inputs = tn_max(limits->rows * body, limits->head_rows * limits->hidden);
    int64_t size = tn_element_bytes(device->dtype), bytes = tn_scratch_room(TN_FEW * body * 4);
    if (limits->block_weights)
        bytes += tn_scratch_room(tn_max(tn_min(limits->largest_weight, TILE), body) * size);
    if (limits->dropout) bytes += 2 * tn_scratch_room(inputs * 4); /* masked x, and v·A before its mask */
    if (limits->backward && tn_is_bf16(device)) bytes += tn_scratch_room(inputs * 4); /* dx, not yet rounded */
    if (limits->dora) bytes = tn_max(bytes, tn_cpu_dora_tile(body));
    return bytes + tn_dora_scratch(device, limits);
}

/* ---- Dropout -------------------------------------------------------------------------------------------- */

/* Factors of elements column … column+count-1 of a row for part p; count ≤ TN_MASK. */
void tn_dropout_mask(const tn_device *device, const tn_linear *linear, int p, int64_t row, int64_t column,
                     int64_t count, const tn_dropout *dropout, float factors[TN_MASK]) {
    uint64_t stream = TN_STREAM(TN_PURPOSE_DROPOUT, dropout->step, (uint64_t)linear->site * 4 + (uint64_t)p);
    uint64_t index = (uint64_t)((dropout->first_row + row) * linear->in + column);
    tn_kernels_of(device)->dropout(count, dropout->p, dropout->seed, stream, index, factors);
}

/* to [rows, in] = x·mask. */
static void drop_rows(const tn_device *device, const tn_linear *linear, int p, int64_t rows, tn_view x,
                      void *to, const tn_dropout *dropout) {
    const tn_kernels *kernels = tn_kernels_of(device);
    tn_view result = {to, linear->in};
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t k = 0; k < linear->in; k += TN_MASK) {
            float factors[TN_MASK];
            int64_t count = tn_min(TN_MASK, linear->in - k);
            tn_dropout_mask(device, linear, p, row, k, count, dropout, factors);
            kernels->multiply[tn_is_bf16(device)](count, factors, tn_at(device->dtype, x, row, k),
                                                  tn_at(device->dtype, result, row, k));
        }
}

/* to += from·mask; from [rows, in] dense, to the same in rows of `stride`. */
void tn_add_dropped(const tn_device *device, const tn_linear *linear, int p, int64_t rows, const float *from,
                    float *to, int64_t stride, const tn_dropout *dropout) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t k = 0; k < linear->in; k += TN_MASK) {
            float factors[TN_MASK];
            int64_t count = tn_min(TN_MASK, linear->in - k);
            tn_dropout_mask(device, linear, p, row, k, count, dropout, factors);
            tn_kernels_of(device)->add_product(count, factors, from + row * linear->in + k,
                                               to + row * stride + k);
        }
}

/* x itself, or part p's dropped copy of it in `buffer`. */
tn_view tn_lora_source(const tn_device *device, const tn_linear *linear, int p, int64_t rows, tn_view x,
                       void *buffer, const tn_dropout *dropout) {
    if (!tn_drops(dropout)) return x;
    drop_rows(device, linear, p, rows, x, buffer, dropout);
    return (tn_view){buffer, linear->in};
}

tn_status tn_take_dropped(const tn_device *device, const tn_linear *linear, int64_t rows,
                          const tn_dropout *dropout, tn_scratch *scratch, void **buffer) {
    *buffer = NULL;
    if (!tn_drops(dropout) || linear->rank == 0) return TN_OK;
    return tn_scratch_take(scratch, rows * linear->in * tn_element_bytes(device->dtype), buffer);
}

/* ---- Weights as operands ------------------------------------------------------------------------- */

/* Rows first … first+count-1 of the weight, in the compute dtype: in place, or decoded into `tile`. */
tn_view tn_weight_rows(const tn_device *device, const tn_weight *w, int64_t first, int64_t count, void *tile) {
    if (!tn_dtype_is_block(w->dtype))
        return (tn_view){(char *)(uintptr_t)w->data + first * w->stride * tn_element_bytes(device->dtype),
                         w->stride};
    const tn_kernels *kernels = tn_kernels_of(device);
    tn_view view = {tile, w->cols};
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < count; row++)
        for (int64_t k = 0; k < w->cols; k += CHUNK) {
            float values[CHUNK];
            int64_t width = tn_min(CHUNK, w->cols - k);
            tn_cpu_decode_row(kernels, w, first + row, k, width, values);
            kernels->narrow[tn_is_bf16(device)](width, values, tn_at(device->dtype, view, row, k));
        }
    return view;
}

/* Rows taken at a time: all of a plain weight. */
int64_t tn_weight_step(const tn_weight *w) {
    return tn_dtype_is_block(w->dtype) ? tile_rows(w->rows, w->cols) : w->rows;
}

tn_status tn_take_tile(const tn_device *device, const tn_linear *linear, tn_scratch *scratch, void **tile) {
    int64_t elements = 0;
    for (int p = 0; p < linear->parts; p++) {
        const tn_weight *w = &linear->part[p].weight;
        if (tn_dtype_is_block(w->dtype)) elements = tn_max(elements, tn_weight_step(w) * w->cols);
    }
    *tile = NULL;
    return elements ? tn_scratch_take(scratch, elements * tn_element_bytes(device->dtype), tile) : TN_OK;
}
