/* bnb_state.h: weights that bitsandbytes quantised, as Transformers saves them (functional.py: QuantState;
 * nn/modules.py: Linear8bitLt). A weight P stands beside P.absmax, P.quant_map and, as JSON,
 * P.quant_state.bitsandbytes__nf4 (or __fp4), with nested scales P.nested_absmax and P.nested_quant_map too; an
 * 8-bit X.weight beside X.SCB and X.weight_format.
 */
#ifndef TN_FORMAT_BNB_STATE_H
#define TN_FORMAT_BNB_STATE_H

#include "format/name_table.h"

/* Makes one tensor of every such group, of the dtype NF4, FP4 or LLM_INT8, with the shape and scales of the
 * weight it stands for; its companions leave the list. `names` finds the tensors, and has to be built anew
 * where *count changed. TN_BAD_DATA for a group that contradicts itself or is not complete, TN_USAGE for one of
 * another layout.
 */
tn_status tn_bnb_fold(tn_arena *arena, const tn_name_table *names, tn_tensor_info *tensors, int64_t *count);

#endif
