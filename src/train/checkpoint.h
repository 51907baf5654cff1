/* checkpoint.h: directories that hold a whole run: adapter, optimizer, counters. A checkpoint is written into a
 * temporary directory, each file flushed, the manifest (size and hash of every file) last, then renamed into
 * place. A directory without a valid manifest is no checkpoint, so at any instant the last complete one loads.
 */
#ifndef TN_TRAIN_CHECKPOINT_H
#define TN_TRAIN_CHECKPOINT_H

#include "train/engine.h"

/* Where a run stands: all that resuming needs beside the tensors. Random numbers are counters, so there is no
 * generator state. */
typedef struct tn_progress {
    int64_t step;         /* optimizer steps done */
    int64_t epoch, batch; /* position in the data: next micro-batch */
    int64_t micro_steps;  /* micro-batches done (dropout's counter) */
    int64_t tokens, labelled;
    int64_t log_bytes;              /* length of train_log.jsonl */
    int64_t loss_scale, good_steps; /* float16 only: tn_stepper's */
} tn_progress;

/* Writes output_dir/checkpoint-STEP and deletes the oldest beyond save_total_limit. `data_hash` names the
 * dataset. */
tn_status tn_checkpoint_save(const tn_engine *engine, const tn_progress *progress, const char *data_hash,
                             int64_t max_steps);
/* Newest valid checkpoint of `output_dir` into `*path` (arena); NULL where there is none. Invalid ones are said
 * and passed over. */
tn_status tn_checkpoint_newest(tn_arena *arena, const char *output_dir, const char **path);
/* Where the checkpoint of this step is: output_dir/checkpoint-STEP, or where a killed run has left only the one
 * that it was about to replace, that. */
const char *tn_checkpoint_path(tn_arena *arena, const char *output_dir, int64_t step);
/* The same for the path of a checkpoint. NULL: out of memory. */
const char *tn_checkpoint_find(tn_arena *arena, const char *path);
/* The step in the name of a checkpoint's directory, -1 where it is named otherwise. */
int64_t tn_checkpoint_step(const char *path);
/* A directory in `output_dir` that has the name of a checkpoint into `*path` (arena), NULL where there is none.
 * With `foreign` only one that no run of tenon wrote: without a manifest. */
tn_status tn_checkpoint_any(tn_arena *arena, const char *output_dir, bool foreign, const char **path);
/* Removes every checkpoint of `output_dir`, complete or not. */
tn_status tn_checkpoint_remove_all(const char *output_dir);
/* Checks manifest, sizes and hashes. TN_BAD_DATA with the file that differs. */
tn_status tn_checkpoint_verify(const char *path);
/* Optimizer state, exact parameter values and counters of a checkpoint into the engine (after
 * tn_engine_allocate). */
tn_status tn_checkpoint_load(tn_engine *engine, const char *path, tn_progress *progress);
/* run.json of a checkpoint or output directory. */
tn_status tn_checkpoint_read_run(tn_arena *arena, const char *path, const tn_json **run);
/* What both a checkpoint and the final directory say of the run ("run.json"). `progress` NULL: the final one.
 */
tn_status tn_run_write(const tn_engine *engine, const tn_progress *progress, const char *data_hash,
                       int64_t max_steps, const char *directory);
/* Adapter, tokenizer and template into `directory`: what PEFT, vLLM and people load. */
tn_status tn_save_adapter_files(const tn_engine *engine, const char *directory);

#endif
