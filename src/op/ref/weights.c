/* weights.c: from mapped tensors (or random numbers) to weights that operations read. Where the file holds
 * exactly the bytes an operation wants (compute dtype or a block type, rows in order, aligned, not trained)
 * the mapping itself is the weight, and where it computes in fp32 a trained part's master is; everything else
 * is converted row by row into the region given.
 */
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "op/ref/element.h"
#include "op/ref/reference.h"
#include "quant/quant.h"

enum { ALIGNMENT = 64, CHUNK = 256 };

static int64_t aligned(int64_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

void tn_decode_row(const tn_weight *weight, int64_t row, int64_t first, int64_t count, float *out) {
    tn_dequantize(weight->dtype, weight->data, row * weight->stride + first, count, out);
}

/* What the weight is held in: block types as they are unless trained, everything else in the compute dtype. */
static tn_dtype held_dtype(const tn_device *device, const tn_source *source, bool trained) {
    bool block = source->tensor && tn_dtype_is_block(source->tensor->dtype);
    return block && !trained ? source->tensor->dtype : device->dtype;
}

static bool usable_in_place(const tn_device *device, const tn_source *source, bool trained) {
    if (!source->tensor || trained || source->permuted_head_dim) return false;
    if (source->tensor->dtype != held_dtype(device, source, trained)) return false;
    int64_t alignment = tn_dtype_is_block(source->tensor->dtype) ? 2 : tn_element_bytes(device->dtype);
    return (uintptr_t)source->tensor->data % (uintptr_t)alignment == 0;
}

static int64_t held_bytes(const tn_device *device, int64_t rows, int64_t cols, const tn_source *source,
                          bool trained) {
    int64_t bytes, count;
    if (!source || usable_in_place(device, source, trained)) return 0;
    if (!tn_mul(rows, cols, &count) || !tn_dtype_bytes(held_dtype(device, source, trained), count, &bytes))
        return 0;
    return aligned(bytes);
}

static tn_status check_source(int64_t rows, int64_t cols, const tn_source *source) {
    const tn_tensor_info *tensor = source->tensor;
    char shape[128];
    if (!tensor) return TN_OK;
    if (!tn_dtype_is_float(tensor->dtype) && !tn_dtype_is_block(tensor->dtype))
        return tn_fail(TN_BAD_DATA, "%s: tensor %s is %s, which is no format for weights", tensor->file,
                       tensor->name, tn_dtype_name(tensor->dtype));
    int64_t elements;
    if (!tn_mul(rows, cols, &elements) || elements != tensor->elements || cols % tn_dtype_block(tensor->dtype))
        return tn_fail(TN_BAD_DATA, "%s: tensor %s is %s where %lld rows of %lld columns are needed",
                       tensor->file, tensor->name, tn_shape_text(tensor, shape), (long long)rows,
                       (long long)cols);
    if (source->permuted_head_dim && (source->permuted_head_dim % 2 || rows % source->permuted_head_dim))
        return tn_fail(TN_BAD_DATA, "%s: tensor %s: %lld rows are no whole number of heads of %lld",
                       tensor->file, tensor->name, (long long)rows, (long long)source->permuted_head_dim);
    return TN_OK;
}

/* The file's row that belongs at `row`: a head's row p·(head_dim/2)+j is stored as 2j+p. */
static int64_t file_row(const tn_source *source, int64_t row) {
    int64_t size = source->permuted_head_dim;
    if (size) {
        int64_t within = row % size, half = size / 2;
        row += 2 * (within % half) + within / half - within;
    }
    return row;
}

/* Elements [first, first+count) of one row of the source, as floats. */
static void source_values(const tn_source *source, int64_t row, int64_t cols, int64_t first, int64_t count,
                          float *out) {
    if (source->tensor) {
        tn_dequantize(source->tensor->dtype, source->tensor->data, file_row(source, row) * cols + first, count,
                      out);
        return;
    }
    for (int64_t i = 0; i < count; i++) { /* as tn_random_weights, for a piece of the whole */
        uint64_t index = (uint64_t)(row * cols + first + i), stream = TN_STREAM(TN_PURPOSE_BENCH, 0, 0);
        if (source->std > 0) out[i] = tn_random_normal(source->seed, stream, index) * source->std;
        else out[i] = source->std < 0 ? 1 : 0;
    }
}

static void convert_row(const tn_source *source, int64_t row, int64_t cols, tn_dtype dtype, char *region) {
    float values[CHUNK];
    if (tn_dtype_is_block(dtype)) {
        int64_t bytes = cols / tn_dtype_block(dtype) * tn_dtype_block_bytes(dtype);
        memcpy(region + row * bytes, (const char *)source->tensor->data + file_row(source, row) * bytes,
               (size_t)bytes);
        return;
    }
    for (int64_t first = 0; first < cols; first += CHUNK) {
        int64_t count = cols - first < CHUNK ? cols - first : CHUNK;
        source_values(source, row, cols, first, count, values);
        for (int64_t i = 0; i < count; i++) tn_store(dtype, region, row * cols + first + i, values[i]);
    }
}

static tn_status load(const tn_device *device, int64_t rows, int64_t cols, const tn_source *source,
                      bool trained, void *region, tn_weight *weight) {
    tn_status status = check_source(rows, cols, source);
    if (status != TN_OK) return status;
    *weight = (tn_weight){.data = region,
                          .dtype = held_dtype(device, source, trained),
                          .rows = rows,
                          .cols = cols,
                          .stride = cols};
    if (usable_in_place(device, source, trained)) {
        weight->data = source->tensor->data;
        return TN_OK;
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
    return bytes;
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
            part->weight = (tn_weight){part->master, TN_DTYPE_F32, rows, cols, cols};
            continue;
        }
        tn_status status = load(device, rows, cols, sources[i], trained, next, &part->weight);
        if (status != TN_OK) return status;
        next += held_bytes(device, rows, cols, sources[i], trained);
    }
    linear->fused = NULL;
    return TN_OK;
}

tn_status tn_ref_linear_refresh(tn_device *device, tn_linear *linear) {
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
