/* source.c: formats, order and values of a tn_source. Where a tensor is quantised while it is loaded its values
 * are read as the file holds them, never from a rounded copy, and in the model's order of rows.
 */
#include "op/source.h"

#include "base/mem.h"
#include "base/rng.h"

bool tn_source_is_encoded(const tn_source *source, bool trained) {
    bool block = source->tensor && tn_dtype_is_block(source->tensor->dtype);
    return source->quantise_to && !block && !trained;
}

tn_dtype tn_source_held(const tn_source *source, tn_dtype compute, bool trained) {
    if (tn_source_is_encoded(source, trained)) return source->quantise_to;
    bool block = source->tensor && tn_dtype_is_block(source->tensor->dtype);
    return block && !trained ? source->tensor->dtype : compute;
}

/* E4M3 has a NaN, which no weight is. The one format whose values are looked at, because what is damaged would
 * else be seen only in a loss. */
static tn_status check_codes(const tn_tensor_info *tensor) {
    const uint8_t *codes = tensor->data;
    int found = 0;
#pragma omp parallel for schedule(static) reduction(| : found)
    for (int64_t i = 0; i < tensor->elements; i++) found |= (codes[i] & 0x7F) == 0x7F;
    if (!found) return TN_OK;
    tn_fail(TN_BAD_DATA, "%s: tensor %s: some of its FP8 codes are NaN", tensor->file, tensor->name);
    return tn_remedy("the checkpoint is damaged; fetch it again");
}

tn_status tn_source_check(const tn_source *source, int64_t rows, int64_t cols) {
    const tn_tensor_info *tensor = source->tensor;
    char shape[128];
    if (!tensor) return TN_OK;
    bool scaled = tn_dtype_has_scales(tensor->dtype);
    if ((!tn_dtype_is_float(tensor->dtype) && !tn_dtype_is_block(tensor->dtype)) || (scaled && !tensor->scales))
        return tn_fail(TN_BAD_DATA, "%s: tensor %s is %s, which is no format for weights", tensor->file,
                       tensor->name, tn_dtype_name(tensor->dtype));
    int64_t elements;
    if (scaled && source->permuted_head_dim)
        return tn_fail(TN_BAD_DATA, "%s: tensor %s: rows of %s cannot be put in another order", tensor->file,
                       tensor->name, tn_dtype_name(tensor->dtype));
    if (!tn_mul(rows, cols, &elements) || elements != tensor->elements ||
        (!scaled && cols % tn_dtype_block(tensor->dtype)))
        return tn_fail(TN_BAD_DATA, "%s: tensor %s is %s where %lld rows of %lld columns are needed",
                       tensor->file, tensor->name, tn_shape_text(tensor, shape), (long long)rows,
                       (long long)cols);
    if (source->permuted_head_dim && (source->permuted_head_dim % 2 || rows % source->permuted_head_dim))
        return tn_fail(TN_BAD_DATA, "%s: tensor %s: %lld rows are no whole number of heads of %lld",
                       tensor->file, tensor->name, (long long)rows, (long long)source->permuted_head_dim);
    return tensor->dtype == TN_DTYPE_FP8 ? check_codes(tensor) : TN_OK;
}

int64_t tn_source_row(const tn_source *source, int64_t row) {
    return source->permuted_head_dim ? tn_halves_to_interleaved(row, source->permuted_head_dim) : row;
}

void tn_source_values(const tn_source *source, int64_t row, int64_t cols, int64_t first, int64_t count,
                      float *out) {
    if (source->tensor) {
        tn_tensor_values(source->tensor, tn_source_row(source, row) * cols + first, count, out);
        return;
    }
    for (int64_t i = 0; i < count; i++) { /* as tn_random_weights, for a piece of the whole */
        uint64_t index = (uint64_t)(row * cols + first + i), stream = TN_STREAM(TN_PURPOSE_BENCH, 0, 0);
        if (source->std > 0) out[i] = tn_random_normal(source->seed, stream, index) * source->std;
        else out[i] = source->std < 0 ? 1 : 0;
    }
}

bool tn_source_layout(const tn_source *source, int64_t rows, int64_t cols, tn_scaled_layout *layout) {
    const tn_scales *own = source->tensor ? source->tensor->scales : NULL;
    if (!own) return tn_scaled_layout_usual(source->quantise_to, rows, cols, layout);
    if (own->tile) return tn_scaled_layout_tiles(rows, cols, own->tile, own->block, layout);
    return tn_scaled_layout_of(source->tensor->dtype, rows, cols, own->block,
                               own->absmax ? 0 : own->nested_block, layout);
}

typedef struct flat {
    const tn_source *source;
    int64_t cols;
} flat;

static void flat_values(const void *user, int64_t first, int64_t count, float *out) {
    const flat *f = user;
    for (int64_t i = first, n; i < first + count; i += n, out += n) {
        n = f->cols - i % f->cols;
        if (n > first + count - i) n = first + count - i;
        tn_source_values(f->source, i / f->cols, f->cols, i % f->cols, n, out);
    }
}

tn_status tn_source_encode(const tn_source *source, int64_t rows, int64_t cols, const tn_scaled_layout *layout,
                           void *memory, float *offset) {
    const flat f = {source, cols};
    tn_status status = tn_source_check(source, rows, cols);
    if (status != TN_OK) return status;
    status = tn_encode_scaled(layout, flat_values, &f, memory, offset);
    return status == TN_OK || !source->tensor
               ? status
               : tn_context(status, "%s: tensor %s", source->tensor->file, source->tensor->name);
}
