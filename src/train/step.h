/* step.h: one optimizer step, the piece that training and bench share: forward and backward of its
 * micro-batches with the loss scaled by the number of labelled tokens, gradient norm, clipping, optimizer,
 * refresh of the compute copies.
 */
#ifndef TN_TRAIN_STEP_H
#define TN_TRAIN_STEP_H

#include "train/engine.h"
#include "train/schedule.h"
#include "train/team.h"

typedef struct tn_stepper {
    tn_engine *engine;
    tn_team *team; /* of one or more; not owned */
    tn_schedule schedule;
    double *sum_squares; /* on the device: Σ g² */
    double loss_scale; /* 1 but for float16, where small gradients would vanish: a power of two, part of a run's
                          state */
    int64_t good_steps;             /* since the scale last changed */
    struct tn_step_record *records; /* (world): what the ranks tell each other */
} tn_stepper;
tn_status tn_stepper_open(tn_engine *engine, tn_team *team, tn_stepper *stepper);
void tn_stepper_close(tn_stepper *stepper);

/* The micro-batches of one step. They are dealt out over the ranks: batches[i] is number rank + i * world. */
typedef struct tn_step_work {
    tn_batch *batches; /* (count): this rank's */
    int64_t count;
    int64_t all, tokens, labelled; /* of all ranks, like the length */
    double length; /* Σ length² / Σ length over the documents: what attention's work goes by */
} tn_step_work;
/* Adds up tokens, labels and lengths of the batches of all ranks. `status`: how reading them ended here; the
 * result is anybody's failure. */
tn_status tn_step_measure(tn_stepper *stepper, tn_status status, tn_step_work *work);
/* TN_FAILED where the ranks' parameters are not the same bits, as they are when equals compute. */
tn_status tn_step_compare(tn_stepper *stepper);

typedef struct tn_step_result {
    double loss, grad_norm, learning_rate, seconds;
} tn_step_result;

/* Optimizer step `step` (from 0); `micro_step` numbers its first micro-batch (dropout's counter). TN_NUMERIC
 * where loss or norm is not finite: then no parameter and no moment was changed. */
tn_status tn_step_run(tn_stepper *stepper, const tn_step_work *work, int64_t step, int64_t micro_step,
                      tn_step_result *result);

#endif
