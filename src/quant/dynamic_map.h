/* dynamic_map.h: the 8-bit numbers of block-wise quantised optimizer state (Dettmers et al., "8-bit Optimizers
 * via Block-wise Quantization", 2022; bitsandbytes: functional.py, create_dynamic_map). A code is an index into
 * a map of 256 ascending values up to 1; 256 neighbours share a scale, their largest magnitude.
 */
#ifndef TN_QUANT_DYNAMIC_MAP_H
#define TN_QUANT_DYNAMIC_MAP_H

#include <stdbool.h>
#include <stdint.h>

enum { TN_DYNAMIC_BLOCK = 256, TN_DYNAMIC_VALUES = 256 };

/* [256], bitsandbytes' to the bit: with a sign for the mean of gradients, without for that of their squares. */
const float *tn_dynamic_map(bool has_sign);
/* `count` codes, at most a block of them, times their scale. */
void tn_dynamic_decode(const float *map, const uint8_t *codes, float absmax, int64_t count, float *values);
/* The nearest code of each value over `*absmax`, which is set; of two equally near the lower. One thing is not
 * bitsandbytes': without a sign a value above 0 never becomes 0. A mean of squares that did, beside a mean that
 * did not, would be divided by epsilon alone at the next gradient of 0, as most rows of an embedding get. */
void tn_dynamic_encode(const float *map, const float *values, int64_t count, uint8_t *codes, float *absmax);

#endif
