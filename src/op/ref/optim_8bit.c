/* optim_8bit.c: AdamW whose two moments are kept in 8 bits, in blocks of 256 (bitsandbytes: AdamW8bit). A block
 * is decoded, updated as tn_ref_adamw does, used for the step before it is rounded again, and encoded.
 */
#include <math.h>

#include "op/ref/reference.h"
#include "quant/dynamic_map.h"

tn_status tn_ref_adamw_8bit(tn_device *device, int64_t count, float *p, const float *g, tn_codes m, tn_codes v,
                            const tn_optimizer_step *step) {
    const float *means = tn_dynamic_map(true), *squares = tn_dynamic_map(false);
    if (isnan(tn_gradient_factor(step))) return TN_OK;
    for (int64_t first = 0; first < count; first += TN_DYNAMIC_BLOCK) {
        float mean[TN_DYNAMIC_BLOCK], square[TN_DYNAMIC_BLOCK];
        const int64_t block = first / TN_DYNAMIC_BLOCK,
                      n = count - first < TN_DYNAMIC_BLOCK ? count - first : TN_DYNAMIC_BLOCK;
        tn_dynamic_decode(means, m.codes + first, m.absmax[block], n, mean);
        tn_dynamic_decode(squares, v.codes + first, v.absmax[block], n, square);
        tn_ref_adamw(device, n, p + first, g + first, mean, square, step);
        tn_dynamic_encode(means, mean, n, m.codes + first, &m.absmax[block]);
        tn_dynamic_encode(squares, square, n, v.codes + first, &v.absmax[block]);
    }
    return TN_OK;
}
