/* fp8_state.h: weights in FP8 as checkpoints hold them: F8_E4M3 codes beside the factors that make values of
 * them. Fine-grained ones (DeepSeek, Qwen3: X.weight_scale_inv, a factor a tile), fbgemm's (X.weight_scale, a
 * factor a row) and those of compressed-tensors (X.weight_scale: one, or one a row, a column or a tile).
 */
#ifndef TN_FORMAT_FP8_STATE_H
#define TN_FORMAT_FP8_STATE_H

#include "base/json.h"
#include "format/name_table.h"

/* Gives every F8_E4M3 tensor its scales, as one of the dtype FP8; the scales, and those of activations, leave
 * the list. Sizes of tiles come from quantization_config of `config`. `names` finds the tensors, and has to be
 * built anew where *count changed. TN_BAD_DATA for a weight without scales, or with some that do not fit it.
 */
tn_status tn_fp8_fold(tn_arena *arena, const tn_json *config, const tn_name_table *names,
                      tn_tensor_info *tensors, int64_t *count);

#endif
