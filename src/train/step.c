/* step.c: the training step (docs/walkthrough.md follows it). */
#include "train/step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/thread.h"
#include "quant/dynamic_map.h"

/* As PyTorch's GradScaler: start high, halve on overflow, double after many good steps. */
enum { FIRST_LOSS_SCALE = 65536, LARGEST_LOSS_SCALE = 1 << 24, GROWTH_INTERVAL = 2000 };

/* One of the kinds at a time: what a rank's batches hold, its loss, its parameters' squares. */
typedef struct tn_step_record {
    int64_t tokens, labelled;
    double squares, loss;
} record;

tn_status tn_stepper_open(tn_engine *engine, tn_team *team, tn_stepper *stepper) {
    void *memory;
    *stepper = (tn_stepper){.engine = engine, .team = team};
    tn_status status = tn_alloc(&stepper->records, team->world, (int64_t)sizeof *stepper->records, "ranks");
    if (status != TN_OK) return status;
    status = engine->device->backend->allocate(engine->device, (int64_t)sizeof(double), &memory);
    if (status == TN_OK) stepper->sum_squares = memory;
    stepper->loss_scale = engine->device->dtype == TN_DTYPE_F16 ? FIRST_LOSS_SCALE : 1;
    return status;
}

void tn_stepper_close(tn_stepper *stepper) {
    if (stepper->sum_squares)
        stepper->engine->device->backend->release(stepper->engine->device, stepper->sum_squares);
    free(stepper->records);
    *stepper = (tn_stepper){0};
}

tn_status tn_step_measure(tn_stepper *stepper, tn_status status, tn_step_work *work) {
    record mine = {0};
    double squares = 0;
    for (int64_t i = 0; status == TN_OK && i < work->count; i++) {
        const tn_batch *b = &work->batches[i];
        mine.tokens += b->tokens;
        mine.labelled += b->labelled;
        for (int64_t d = 0; d < b->documents; d++)
            mine.squares += pow((double)(b->cu_seqlens[d + 1] - b->cu_seqlens[d]), 2);
    }
    status = tn_team_gather(stepper->team, status, &mine, (int64_t)sizeof mine, stepper->records);
    work->tokens = work->labelled = 0;
    for (int i = 0; status == TN_OK && i < stepper->team->world; i++) {
        work->tokens += stepper->records[i].tokens;
        work->labelled += stepper->records[i].labelled;
        squares += stepper->records[i].squares;
    }
    work->length = work->tokens ? squares / (double)work->tokens : 0;
    return status;
}

tn_status tn_step_compare(tn_stepper *stepper) {
    const tn_engine *e = stepper->engine;
    const tn_backend *backend = e->device->backend;
    record mine = {0};
    tn_status status = TN_OK;
    if (stepper->team->world <= 1) return TN_OK;
    TN_TRY(backend->zero(e->device, stepper->sum_squares, (int64_t)sizeof(double)));
    TN_TRY(backend->sum_squares(e->device, e->adapter->elements, e->adapter->values, stepper->sum_squares));
    TN_TRY(backend->download(e->device, &mine.squares, stepper->sum_squares, (int64_t)sizeof(double)));
    TN_TRY(tn_team_gather(stepper->team, TN_OK, &mine, (int64_t)sizeof mine, stepper->records));
    for (int i = 1; i < stepper->team->world; i++) {
        if (stepper->records[i].squares == stepper->records[0].squares) continue;
        tn_fail(TN_FAILED,
                "the parameters of rank %d are not those of rank 0: the processes do not compute alike", i);
        status = tn_remedy("the last checkpoint stands; use machines of one kind, and one build of tenon");
        stepper->team->over = true; /* everybody sees it */
        if (stepper->team->rank > 0) tn_fail(status, "%s", "");
        goto done;
    }
done:
    return status;
}

static tn_codes m_codes(const tn_adapter *a, int64_t at) {
    return (tn_codes){a->m_codes + at, a->m_absmax + at / TN_DYNAMIC_BLOCK};
}

static tn_codes v_codes(const tn_adapter *a, int64_t at) {
    return (tn_codes){a->v_codes + at, a->v_absmax + at / TN_DYNAMIC_BLOCK};
}

/* One call a span: parameters of one group and one kind of decay lie together. */
static tn_status optimize(tn_stepper *stepper, double factor, int64_t number) {
    const tn_engine *e = stepper->engine;
    const tn_settings *s = e->settings;
    const tn_backend *backend = e->device->backend;
    const tn_adapter *adapter = e->adapter;
    tn_status status;
    TN_TRY(backend->zero(e->device, stepper->sum_squares, (int64_t)sizeof(double)));
    TN_TRY(backend->sum_squares(e->device, adapter->elements, adapter->grads, stepper->sum_squares));
    for (int i = 0; i < adapter->span_count; i++) {
        const tn_span *span = &adapter->spans[i];
        tn_optimizer_step step = {.learning_rate = factor * tn_group_learning_rate(s, span->group),
                                  .beta1 = s->adam_beta1,
                                  .beta2 = s->adam_beta2,
                                  .epsilon = s->adam_epsilon,
                                  .weight_decay = span->decay ? s->weight_decay : 0,
                                  .momentum = s->momentum,
                                  .step = number,
                                  .grad_scale = 1 / stepper->loss_scale,
                                  .max_norm = s->max_grad_norm,
                                  .sum_squares = stepper->sum_squares};
        const int64_t at = span->offset, wide_at = at - adapter->first_moment; /* below 0: in 8 bits */
        float *p = adapter->values + at, *g = adapter->grads + at,
              *m = adapter->m && wide_at >= 0 ? adapter->m + wide_at : NULL;
        if (strcmp(s->optim, "sgd") == 0) TN_TRY(backend->sgd(e->device, span->count, p, g, m, &step));
        else if (strcmp(s->optim, "lion") == 0) TN_TRY(backend->lion(e->device, span->count, p, g, m, &step));
        else if (wide_at >= 0)
            TN_TRY(backend->adamw(e->device, span->count, p, g, m, adapter->v + wide_at, &step));
        else
            TN_TRY(backend->adamw_8bit(e->device, span->count, p, g, m_codes(adapter, at), v_codes(adapter, at),
                                       &step));
    }
    status = tn_model_refresh(e->model);
done:
    return status;
}

/* Gradients and loss of all ranks, before anything is changed: whoever loses another rank here, or while the
 * next batches are read, still has the state of the last whole step. */
static tn_status share(tn_stepper *stepper, double *loss) {
    const tn_engine *e = stepper->engine;
    record mine = {0};
    tn_status status;
    TN_TRY(tn_team_sum(stepper->team, e->adapter->elements, e->adapter->grads));
    TN_TRY(tn_pass_read_loss(e->pass, &mine.loss));
    TN_TRY(tn_team_gather(stepper->team, TN_OK, &mine, (int64_t)sizeof mine, stepper->records));
    *loss = 0;
    for (int i = 0; i < stepper->team->world; i++) *loss += stepper->records[i].loss;
done:
    return status;
}

/* Forward, backward and optimizer with the scale in force. */
static tn_status attempt(tn_stepper *stepper, const tn_step_work *work, int64_t step, int64_t micro_step,
                         tn_step_result *result) {
    const tn_engine *e = stepper->engine;
    const tn_settings *s = e->settings;
    const tn_backend *backend = e->device->backend;
    tn_dropout dropout = {.p = e->adapter->config ? (float)e->adapter->config->lora_dropout : 0,
                          .seed = s->seed};
    const bool alone = stepper->team->world <= 1;
    double factor = tn_schedule_factor(&stepper->schedule, step), loss, squares;
    tn_status status;
    TN_TRY(backend->zero(e->device, e->adapter->grads, e->adapter->elements * (int64_t)sizeof(float)));
    TN_TRY(tn_pass_reset_loss(e->pass));
    for (int64_t i = 0; i < work->count; i++) {
        dropout.step = (uint32_t)(micro_step + stepper->team->rank + i * stepper->team->world);
        TN_TRY(tn_pass_train(e->pass, &work->batches[i], (float)(stepper->loss_scale / (double)work->labelled),
                             &dropout));
    }
    if (!alone) TN_TRY(share(stepper, &loss));
    TN_TRY(optimize(stepper, factor, step + 1));
    if (alone) TN_TRY(tn_pass_read_loss(e->pass, &loss));
    TN_TRY(backend->download(e->device, &squares, stepper->sum_squares, (int64_t)sizeof squares));
    result->loss = loss / (double)work->labelled;
    result->grad_norm = sqrt(squares) / stepper->loss_scale;
    result->learning_rate = factor * s->learning_rate;
done:
    return status;
}

tn_status tn_step_run(tn_stepper *stepper, const tn_step_work *work, int64_t step, int64_t micro_step,
                      tn_step_result *result) {
    const bool scaled = stepper->engine->device->dtype == TN_DTYPE_F16;
    double begun = tn_seconds();
    tn_status status = attempt(stepper, work, step, micro_step, result);
    while (status == TN_OK && scaled && isfinite(result->loss) && !isfinite(result->grad_norm) &&
           stepper->loss_scale > 1) {
        stepper->loss_scale /= 2;
        stepper->good_steps = 0;
        tn_info("step %lld: gradients overflow float16, the loss scale is now %g", (long long)step + 1,
                stepper->loss_scale);
        status = attempt(stepper, work, step, micro_step, result);
    }
    if (status != TN_OK) return status;
    result->seconds = tn_seconds() - begun;
    if (!isfinite(result->loss) || !isfinite(result->grad_norm)) {
        tn_fail(TN_NUMERIC, "step %lld: loss %g, gradient norm %g", (long long)step + 1, result->loss,
                result->grad_norm);
        return tn_remedy(
            "the last checkpoint stands and this step changed nothing; lower learning_rate, or compute in "
            "float32");
    }
    if (scaled && ++stepper->good_steps == GROWTH_INTERVAL) {
        stepper->good_steps = 0;
        if (stepper->loss_scale < LARGEST_LOSS_SCALE) stepper->loss_scale *= 2;
    }
    return TN_OK;
}
