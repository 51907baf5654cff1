/* resume.h: what --resume_from_checkpoint means before anything is opened: which checkpoint, which keys it
 * brings, and which explicit keys contradict it.
 */
#ifndef TN_TRAIN_RESUME_H
#define TN_TRAIN_RESUME_H

#include "train/config.h"

/* Finds the checkpoint the configuration asks for, verifies it and inherits its keys. `*path` (arena) is NULL
 * where the run starts afresh (not asked for, or "auto" without one). Errors: TN_USAGE for a contradicting key
 * (both values), TN_BAD_DATA for a damaged one. */
tn_status tn_resume_prepare(tn_config *config, tn_arena *arena, const char **path);
/* Micro-batch position of a checkpoint made with another split of the same step, in terms of this one. */
tn_status tn_resume_position(const tn_settings *settings, const tn_json *run, int64_t *batch,
                             int64_t *micro_steps);

#endif
