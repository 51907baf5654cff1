/* pack.c: see pack.h. What cannot be encoded is looked for first, since errors belong to the calling
 * thread.
 */
#include "export/pack.h"

#include <math.h>

#include "quant/quant.h"

/* Values that `dtype` cannot hold. fp32 and bf16 hold all that fp32 does, Inf and NaN too. */
static int64_t count_impossible(tn_dtype dtype, const float *values, int64_t count) {
    int64_t found = 0;
    if (dtype == TN_DTYPE_F32 || dtype == TN_DTYPE_BF16) return 0;
#pragma omp parallel for schedule(static) reduction(+ : found)
    for (int64_t i = 0; i < count; i++) {
        const bool beyond = isfinite(values[i]) && (tn_f32_to_f16(values[i]) & 0x7FFF) == 0x7C00;
        found += dtype == TN_DTYPE_F16 ? beyond : !isfinite(values[i]);
    }
    return found;
}

tn_status tn_pack(const char *name, tn_dtype dtype, const float *values, int64_t rows, int64_t cols,
                  void *out) {
    const int64_t impossible = count_impossible(dtype, values, rows * cols);
    int64_t bytes, failures = 0;
    if (impossible) {
        tn_fail(TN_NUMERIC, "%s: %lld values are %s", name, (long long)impossible,
                dtype == TN_DTYPE_F16 ? "beyond float16's range" : "not finite");
        return tn_remedy(dtype == TN_DTYPE_F16 ? "bfloat16 and float32 have the range: another type, or a base "
                                                 "that is stored in one of them"
                                               : "the weights, or the adapter's values, are damaged");
    }
    if (!tn_dtype_bytes(dtype, cols, &bytes))
        return tn_fail(TN_FAILED, "%s: rows of %lld values are no whole blocks of %s", name, (long long)cols,
                       tn_dtype_name(dtype));
#pragma omp parallel for schedule(static) reduction(+ : failures)
    for (int64_t row = 0; row < rows; row++)
        failures += tn_quantize(dtype, values + row * cols, cols, (char *)out + row * bytes) != TN_OK;
    return failures ? tn_fail(TN_FAILED, "%s cannot be written as %s", name, tn_dtype_name(dtype)) : TN_OK;
}
