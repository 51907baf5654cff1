/* schedule.c: the factor λ(s) of each schedule (transformers: optimization.py). */
#include "train/schedule.h"

#include <math.h>
#include <string.h>

double tn_schedule_factor(const tn_schedule *schedule, int64_t step) {
    const double pi = 3.14159265358979323846;
    const int64_t warmup = schedule->warmup_steps, total = schedule->total_steps;
    if (strcmp(schedule->kind, "constant") == 0) return 1.0;
    if (step < warmup) return (double)step / (double)(warmup > 1 ? warmup : 1);
    if (strcmp(schedule->kind, "constant_with_warmup") == 0) return 1.0;
    int64_t span = total - warmup > 1 ? total - warmup : 1;
    if (strcmp(schedule->kind, "linear") == 0) return fmax(0.0, (double)(total - step) / (double)span);
    double cosine = 0.5 * (1.0 + cos(pi * ((double)(step - warmup) / (double)span))); /* half a wave */
    if (strcmp(schedule->kind, "cosine_with_min_lr") == 0)
        return fmax(0.0, cosine * (1.0 - schedule->min_factor) + schedule->min_factor);
    return fmax(0.0, cosine);
}
