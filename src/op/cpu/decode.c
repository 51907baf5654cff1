/* decode.c: pieces of a weight's rows as floats, right before they are multiplied: codes with scales apart
 * through the kernels, block by block; everything else as the reference does. The bits are the reference's.
 */
#include "op/cpu/cpu.h"
#include "quant/scaled.h"

void tn_cpu_decode_row(const tn_kernels *kernels, const tn_weight *w, int64_t row, int64_t first, int64_t count,
                       float *out) {
    if (!tn_dtype_has_scales(w->dtype)) {
        tn_decode_row(w, row, first, count, out);
        return;
    }
    const float *book = tn_dtype_code_book(w->dtype);
    const uint8_t *codes = w->data;
    int64_t at = row * w->stride + first, last = at + count;
    for (int64_t end; at < last; out += end - at, at = end) {
        float scale = tn_scale_of(w->dtype, &w->scales, tn_scales_block(&w->scales, at, &end));
        if (end > last) end = last;
        if (w->dtype == TN_DTYPE_LLM_INT8) kernels->decode_bytes(end - at, codes + at, scale, out);
        else if (w->dtype == TN_DTYPE_FP8) kernels->decode_fp8(end - at, codes + at, scale, out);
        else kernels->decode_nibbles(end - at, codes, at, book, scale, out);
    }
}
