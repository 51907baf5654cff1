/* weights.c: from mapped tensors (or random numbers) to weights that operations read. Where the file holds
 * exactly the bytes an operation wants (compute dtype or a block type, rows in order, aligned, not trained)
 * the mapping itself is the weight, and where it computes in fp32 a trained part's master is; everything else
 * is converted row by row, or quantised, into the region given.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "op/dora.h"
#include "op/ref/element.h"
#include "op/ref/reference.h"
#include "op/source.h"
#include "quant/quant.h"

enum { ALIGNMENT = 64, CHUNK = 256 };

static int64_t aligned(int64_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

void tn_decode_row(const tn_weight *weight, int64_t row, int64_t first, int64_t count, float *out) {
    int64_t at = row * weight->stride + first;
    if (tn_dtype_has_scales(weight->dtype))
        tn_decode_scaled(weight->dtype, weight->data, &weight->scales, at, count, out);
    else tn_dequantize(weight->dtype, weight->data, at, count, out);
}

static bool usable_in_place(const tn_device *device, const tn_source *source, bool trained) {
    if (!source->tensor || trained || source->permuted_head_dim) return false;
    if (source->tensor->dtype != tn_source_held(source, device->dtype, trained)) return false;
    int64_t alignment = tn_dtype_has_scales(source->tensor->dtype) ? 1
                        : tn_dtype_is_block(source->tensor->dtype) ? 2
                                                                   : tn_element_bytes(device->dtype);
    return (uintptr_t)source->tensor->data % (uintptr_t)alignment == 0;
}

static int64_t held_bytes(const tn_device *device, int64_t rows, int64_t cols, const tn_source *source,
                          bool trained) {
    tn_dtype held;
    tn_scaled_layout layout;
    int64_t bytes, count;
    if (!source || usable_in_place(device, source, trained)) return 0;
    held = tn_source_held(source, device->dtype, trained);
    if (tn_dtype_has_scales(held))
        return tn_source_layout(source, rows, cols, &layout) ? aligned(layout.bytes) : 0;
    if (!tn_mul(rows, cols, &count) || !tn_dtype_bytes(held, count, &bytes)) return 0;
    return aligned(bytes);
}

static void convert_row(const tn_source *source, int64_t row, int64_t cols, tn_dtype dtype, char *region) {
    float values[CHUNK];
    if (tn_dtype_is_block(dtype)) {
        int64_t bytes = cols / tn_dtype_block(dtype) * tn_dtype_block_bytes(dtype);
        memcpy(region + row * bytes, (const char *)source->tensor->data + tn_source_row(source, row) * bytes,
               (size_t)bytes);
        return;
    }
    for (int64_t first = 0; first < cols; first += CHUNK) {
        int64_t count = cols - first < CHUNK ? cols - first : CHUNK;
        tn_source_values(source, row, cols, first, count, values);
        for (int64_t i = 0; i < count; i++) tn_store(dtype, region, row * cols + first + i, values[i]);
    }
}

static tn_status load(const tn_device *device, int64_t rows, int64_t cols, const tn_source *source,
                      bool trained, void *region, tn_weight *weight) {
    tn_scaled_layout layout;
    float offset;
    tn_status status = tn_source_check(source, rows, cols);
    if (status != TN_OK) return status;
    *weight = (tn_weight){.data = region,
                          .dtype = tn_source_held(source, device->dtype, trained),
                          .rows = rows,
                          .cols = cols,
                          .stride = cols};
    if (usable_in_place(device, source, trained)) {
        weight->data = source->tensor->data;
        if (source->tensor->scales) weight->scales = *source->tensor->scales;
        return TN_OK;
    }
    if (tn_source_is_encoded(source, trained)) {
        if (!tn_source_layout(source, rows, cols, &layout))
            return tn_fail(TN_FAILED, "a weight of %lld x %lld is too large", (long long)rows, (long long)cols);
        status = tn_source_encode(source, rows, cols, &layout, region, &offset);
        weight->scales = tn_scaled_at(&layout, region, offset);
        return status;
    }
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) convert_row(source, row, cols, weight->dtype, region);
    return TN_OK;
}

int64_t tn_ref_weight_bytes(tn_device *device, int64_t rows, int64_t cols, const tn_source *source) {
    return held_bytes(device, rows, cols, source, source->trained);
}

tn_status tn_ref_weight_load(tn_device *device, int64_t rows, int64_t cols, const tn_source *source,
                             void *region, tn_weight *weight) {
    return load(device, rows, cols, source, source->trained, region, weight);
}

static bool master_serves(const tn_device *device, const tn_part *part) {
    return part->master && device->dtype == TN_DTYPE_F32;
}

int64_t tn_ref_linear_bytes(tn_device *device, const tn_linear *linear, const tn_source *const sources[]) {
    int64_t bytes = 0;
    for (int i = 0; i < linear->parts; i++) {
        const tn_part *part = &linear->part[i];
        if (!master_serves(device, part))
            bytes += held_bytes(device, part->weight.rows, part->weight.cols, sources[i], part->master != NULL);
    }
    return bytes + tn_dora_bytes(linear);
}

tn_status tn_ref_linear_load(tn_device *device, tn_linear *linear, const tn_source *const sources[],
                             void *region) {
    char *next = region;
    for (int i = 0; i < linear->parts; i++) {
        tn_part *part = &linear->part[i];
        if (!sources[i]) continue;
        int64_t rows = part->weight.rows, cols = part->weight.cols;
        bool trained = part->master != NULL;
        if (master_serves(device, part)) {
            part->weight = (tn_weight){
                .data = part->master, .dtype = TN_DTYPE_F32, .rows = rows, .cols = cols, .stride = cols};
            continue;
        }
        tn_status status = load(device, rows, cols, sources[i], trained, next, &part->weight);
        if (status != TN_OK) return status;
        next += held_bytes(device, rows, cols, sources[i], trained);
    }
    linear->fused = NULL;
    tn_dora_place(linear, next);
    return TN_OK;
}

/* ‖W + scale·B·A‖ of row n, in double. */
static double row_norm(const tn_part *part, int64_t n) {
    const tn_lora *lora = &part->lora;
    const int64_t cols = part->weight.cols;
    double squares = 0;
    for (int64_t first = 0; first < cols; first += CHUNK) {
        float values[CHUNK];
        int64_t count = cols - first < CHUNK ? cols - first : CHUNK;
        tn_decode_row(&part->weight, n, first, count, values);
        for (int64_t k = 0; k < count; k++) {
            double delta = 0;
            for (int64_t j = 0; j < lora->r; j++)
                delta += (double)lora->b[n * lora->r + j] * lora->a[j * cols + first + k];
            squares += pow(values[k] + lora->scale * delta, 2);
        }
    }
    return sqrt(squares);
}

static void refresh_norms(tn_linear *linear) {
    int64_t output = 0;
    for (int i = 0; linear->norm && i < linear->parts; i++) {
        const tn_part *part = &linear->part[i];
        float *norm = linear->norm + output, *ratio = linear->ratio + output;
#pragma omp parallel for schedule(static)
        for (int64_t n = 0; n < part->weight.rows; n++) {
            norm[n] = part->lora.dora ? (float)row_norm(part, n) : 1;
            ratio[n] = tn_dora_ratio(&part->lora, n, norm[n]);
        }
        output += part->weight.rows;
    }
}

tn_status tn_ref_linear_refresh(tn_device *device, tn_linear *linear) {
    refresh_norms(linear);
    for (int i = 0; i < linear->parts; i++) {
        const tn_part *part = &linear->part[i];
        /* Else a trained part's weight lies in the region given at load, which is ours to write. */
        if (part->master && part->weight.data != part->master)
            tn_ref_weight_refresh(device, part->weight.rows * part->weight.cols, part->master,
                                  (void *)(uintptr_t)part->weight.data);
    }
    return TN_OK;
}

tn_status tn_ref_weight_refresh(tn_device *device, int64_t count, const float *master, void *values) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i++) tn_store(device->dtype, values, i, master[i]);
    return TN_OK;
}

tn_status tn_ref_load_finish(tn_device *device) {
    (void)device;
    return TN_OK;
}
