/* schedule.h: learning-rate schedules with the values of transformers.get_scheduler: optimizer step s, counted
 * from 0, uses the base rate times tn_schedule_factor(…, s).
 */
#ifndef TN_TRAIN_SCHEDULE_H
#define TN_TRAIN_SCHEDULE_H

#include "base/status.h"

typedef struct tn_schedule {
    const char *kind; /* constant, constant_with_warmup, linear, cosine, cosine_with_min_lr */
    int64_t warmup_steps, total_steps;
    double min_factor; /* cosine_with_min_lr: min_lr / learning_rate */
} tn_schedule;

double tn_schedule_factor(const tn_schedule *schedule, int64_t step);

#endif
