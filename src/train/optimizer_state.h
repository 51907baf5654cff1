/* optimizer_state.h: optimizer.safetensors of a checkpoint: what the optimizer keeps of every parameter, and
 * the exact values of those that the adapter's file holds rounded. docs/formats.md lists its tensors.
 */
#ifndef TN_TRAIN_OPTIMIZER_STATE_H
#define TN_TRAIN_OPTIMIZER_STATE_H

#include "train/engine.h"

tn_status tn_optimizer_save(const tn_engine *engine, const char *directory);
/* Errors: TN_BAD_DATA for a tensor that is missing, or of another size or type. */
tn_status tn_optimizer_load(tn_engine *engine, const char *directory);

#endif
