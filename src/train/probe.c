/* probe.c: see probe.h. The ids walk through the vocabulary in steps of a prime, so that rows from all over the
 * embedding are met.
 */
#include "train/probe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { TOKENS = 24, STRIDE = 7919, FIRST = 11 };

static tn_status plan(tn_engine *e, const char *dtype, int64_t tokens) {
    tn_status status = tn_engine_open_device(e, dtype);
    return status == TN_OK ? tn_engine_plan(e, tokens, 1, tokens, 0) : status;
}

static tn_status run(tn_engine *e, const tn_batch *batch, tn_probe *probe) {
    tn_status status;
    probe->count = batch->tokens * e->arch.vocab;
    TN_TRY(tn_engine_allocate(e));
    TN_TRY(tn_alloc(&probe->logits, probe->count, (int64_t)sizeof *probe->logits, "logits"));
    TN_TRY(tn_pass_all_logits(e->pass, batch, probe->logits));
    for (int64_t i = 0; i < probe->count; i++)
        if (!isfinite(probe->logits[i])) {
            status = tn_fail(TN_NUMERIC, "%s: its logits are not finite", e->settings->model);
            tn_remedy("the values of its weights, or of the adapter's, are beyond what they are computed in");
            goto done;
        }
done:
    return status;
}

tn_status tn_probe_run(tn_engine *e, tn_probe *probe) {
    int32_t ids[TOKENS];
    const int64_t tokens = e->arch.trained_length < TOKENS ? e->arch.trained_length : TOKENS;
    const bool any = strcmp(e->settings->dtype, "auto") == 0;
    tn_batch batch = {0};
    tn_status status;
    *probe = (tn_probe){0};
    for (int64_t i = 0; i < tokens; i++) ids[i] = (int32_t)((FIRST + i * STRIDE) % e->arch.vocab);
    TN_TRY(tn_batch_set(&batch, ids, NULL, tokens));
    TN_TRY(plan(e, any ? "float32" : e->settings->dtype, tokens));
    if (any && !e->plan.fits) {
        tn_engine_release(e);
        TN_TRY(plan(e, "auto", tokens));
    }
    if (e->plan.fits) status = run(e, &batch, probe);
    else tn_warn("%s does not fit %s: its logits are not compared", e->settings->model, e->device->name);
done:
    tn_batch_free(&batch);
    tn_engine_release(e);
    return status;
}

void tn_probe_free(tn_probe *probe) {
    free(probe->logits);
    *probe = (tn_probe){0};
}

double tn_probe_difference(const tn_probe *a, const tn_probe *b, double *relative) {
    double largest = 0, apart = 0, norm = 0;
    for (int64_t i = 0; i < b->count; i++) {
        const double difference = (double)a->logits[i] - b->logits[i];
        largest = fmax(largest, fabs(difference));
        apart += difference * difference;
        norm += (double)b->logits[i] * b->logits[i];
    }
    *relative = norm > 0 ? sqrt(apart / norm) : apart > 0 ? INFINITY : 0;
    return largest;
}
