/* verb_bench.c: times training steps with random weights and tokens: rows of one document each of max_length
 * tokens, through the same step as training. A step is one micro-batch for each process unless
 * gradient_accumulation_steps is given: train's default is for the optimizer's sake, and a timing only gets
 * longer by it.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/thread.h"
#include "train/ranks.h"
#include "train/step.h"

/* Random tokens, fresh for every `number`; the first `labelled` part of each row's targets counts. */
static tn_status fill(const tn_engine *e, int64_t number, int64_t rows, tn_batch *batch) {
    const int64_t length = e->max_length, tokens = rows * length;
    const int64_t wanted = (int64_t)llround(e->settings->labelled * (double)length);
    tn_status status = TN_OK;
    if (!batch->ids) {
        TN_TRY(tn_alloc(&batch->ids, tokens, (int64_t)sizeof *batch->ids, "tokens"));
        TN_TRY(tn_alloc(&batch->targets, tokens, (int64_t)sizeof *batch->targets, "tokens"));
        TN_TRY(tn_alloc(&batch->positions, tokens, (int64_t)sizeof *batch->positions, "tokens"));
        TN_TRY(tn_alloc(&batch->cu_seqlens, rows + 1, (int64_t)sizeof *batch->cu_seqlens, "tokens"));
        TN_TRY(tn_alloc(&batch->samples, rows, (int64_t)sizeof *batch->samples, "tokens"));
    }
    batch->tokens = tokens, batch->documents = rows, batch->longest = length, batch->labelled = 0;
    for (int64_t i = 0; i < tokens; i++) {
        float u = tn_random_uniform(e->settings->seed, TN_STREAM(TN_PURPOSE_BENCH, number, 1), (uint64_t)i);
        batch->ids[i] = (int32_t)((double)u * (double)e->arch.vocab);
        batch->positions[i] = (int32_t)(i % length);
    }
    for (int64_t i = 0; i < tokens; i++) {
        bool counts = i % length + 1 < length && i % length < wanted;
        batch->targets[i] = counts ? batch->ids[i + 1] : -100;
        batch->labelled += counts;
    }
    for (int64_t d = 0; d <= rows; d++) batch->cu_seqlens[d] = (int32_t)(d * length);
done:
    return status;
}

static int by_value(const void *x, const void *y) {
    double a = *(const double *)x, b = *(const double *)y;
    return a < b ? -1 : a > b;
}

static double median(double *values, int64_t count) {
    qsort(values, (size_t)count, sizeof *values, by_value);
    return count % 2 ? values[count / 2] : 0.5 * (values[count / 2 - 1] + values[count / 2]);
}

typedef struct bench {
    tn_engine e;
    tn_team team;
    tn_stepper stepper;
    tn_batch *batches; /* (micro): those of a step, of several ranks this one's */
    tn_step_result *results;
    int64_t steps, warmup, rows, micro;
    double ceiling, first_step_seconds;
} bench;

static tn_status run(bench *b, const tn_hooks *hooks, double begun) {
    tn_status status = TN_OK;
    for (int64_t i = 0; i < b->steps + b->warmup; i++) {
        tn_step_work work = {.batches = b->batches, .all = b->micro};
        for (int64_t j = b->team.rank; j < b->micro; j += b->team.world)
            TN_TRY(fill(&b->e, i * b->micro + j, b->rows, &b->batches[work.count++]));
        TN_TRY(tn_step_measure(&b->stepper, status, &work));
        if (work.labelled == 0)
            TN_THROW(TN_USAGE, "labelled %g of %lld tokens leaves none with a loss", b->e.settings->labelled,
                     (long long)b->e.max_length);
        TN_TRY(tn_step_run(&b->stepper, &work, i, i * b->micro, &b->results[i]));
        if (i == 0) b->first_step_seconds = tn_seconds() - begun;
        if (!hooks || !hooks->on_event || b->team.rank > 0) continue;
        const tn_step_result *r = &b->results[i];
        double flops = tn_engine_step_flops(&b->e, work.tokens, (int64_t)work.length, work.labelled);
        hooks->on_event(hooks->user,
                        &(tn_event){.kind = TN_EVENT_STEP,
                                    .step = i + 1,
                                    .steps = b->steps + b->warmup,
                                    .loss = r->loss,
                                    .grad_norm = r->grad_norm,
                                    .learning_rate = r->learning_rate,
                                    .tokens = work.tokens * (i + 1),
                                    .tokens_per_second = (double)work.tokens / r->seconds,
                                    .percent_of_ceiling = 100 * flops / r->seconds / b->ceiling / b->team.world,
                                    .seconds_left = r->seconds * (double)(b->steps + b->warmup - i - 1)});
    }
done:
    return status;
}

static tn_status report(const bench *b, tn_doc **doc) {
    tn_str text = {0};
    tn_json_writer w = tn_json_write_to(&text, 0);
    double *seconds;
    int64_t tokens = b->micro * b->rows * b->e.max_length;
    tn_status status = tn_alloc(&seconds, b->steps, (int64_t)sizeof *seconds, "timings");
    if (status != TN_OK) return status;
    for (int64_t i = 0; i < b->steps; i++) seconds[i] = b->results[b->warmup + i].seconds;
    double step = median(seconds, b->steps);
    double flops = tn_engine_step_flops(&b->e, tokens, b->e.max_length, b->micro * b->batches[0].labelled);
    tn_json_begin(&w, '{');
    tn_json_real_member(&w, "tokens_per_second", (double)tokens / step);
    tn_json_real_member(&w, "step_seconds", step);
    tn_json_real_member(&w, "percent_of_ceiling", 100 * flops / step / b->ceiling / b->team.world);
    tn_json_integer_member(&w, "processes", b->team.world);
    tn_json_real_member(&w, "ceiling_flops", b->ceiling);
    tn_json_real_member(&w, "first_step_seconds", b->first_step_seconds);
    tn_json_string_member(&w, "device", b->e.device->name);
    tn_json_string_member(&w, "dtype", tn_dtype_name(b->e.device->dtype));
    tn_json_string_member(&w, "gradient_checkpointing", tn_policy_name(b->e.plan.limits.policy));
    tn_engine_write_params(&b->e, &w);
    tn_engine_write_memory(&b->e, &w);
    tn_json_key(&w, "steps");
    tn_json_begin(&w, '[');
    for (int64_t i = 0; i < b->steps + b->warmup; i++) {
        tn_json_begin(&w, '{');
        tn_json_real_member(&w, "loss", b->results[i].loss);
        tn_json_real_member(&w, "grad_norm", b->results[i].grad_norm);
        tn_json_real_member(&w, "seconds", b->results[i].seconds);
        tn_json_end(&w, '}');
    }
    tn_json_end(&w, ']');
    tn_json_end(&w, '}');
    free(seconds);
    return tn_doc_from(&text, doc);
}

tn_status tn_bench(tn_config *config, const tn_hooks *hooks, tn_doc **doc) {
    bench b = {0};
    double begun = tn_seconds();
    *doc = NULL;
    tn_status status;
    TN_TRY(tn_team_open(hooks, &b.team));
    TN_TRY(tn_engine_open(config, TN_USE_TRAIN, false, NULL, &b.e));
    TN_TRY(tn_team_enter(&b.team, b.e.device));
    const tn_settings *s = b.e.settings;
    b.steps = s->steps, b.warmup = s->warmup, b.rows = s->per_device_train_batch_size;
    bool given = tn_config_setter(config, "gradient_accumulation_steps") >= TN_SET_FILE;
    b.micro = given ? s->gradient_accumulation_steps : b.team.world;
    TN_TRY(tn_ranks_started(b.team.world, s->processes));
    TN_TRY(tn_ranks_check(b.team.world, s->processes, b.micro));
    if (b.e.files && tn_model_files_count(b.e.files) == 0)
        tn_model_files_close(b.e.files), b.e.files = NULL; /* config.json: random weights */
    TN_TRY(tn_engine_plan(&b.e, tn_engine_row_tokens(&b.e), b.rows, b.e.max_length, 0));
    double before = tn_seconds();
    if (b.e.plan.fits) TN_TRY(tn_device_ceiling(b.e.device, &b.ceiling));
    begun += tn_seconds() - before; /* measuring the ceiling is not part of starting */
    TN_TRY(tn_engine_allocate(&b.e));
    TN_TRY(tn_stepper_open(&b.e, &b.team, &b.stepper));
    b.stepper.schedule = (tn_schedule){.kind = "constant"};
    TN_TRY(tn_alloc(&b.batches, b.micro, (int64_t)sizeof *b.batches, "batches"));
    TN_TRY(tn_alloc(&b.results, b.steps + b.warmup, (int64_t)sizeof *b.results, "results"));
    TN_TRY(run(&b, hooks, begun));
    TN_TRY(tn_team_meet(&b.team, tn_step_compare(&b.stepper)));
    if (b.team.rank == 0) status = report(&b, doc);
done:
    tn_team_close(&b.team, status);
    free(b.results);
    for (int64_t j = 0; b.batches && j < b.micro; j++) tn_batch_free(&b.batches[j]);
    free(b.batches);
    tn_stepper_close(&b.stepper);
    tn_engine_close(&b.e);
    return status;
}
