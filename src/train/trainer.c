/* trainer.c: the training run. One optimizer step is: read its micro-batches, count their labels, run each
 * forward and backward with the loss scaled by that count, clip, step, log. All state that a step changes is
 * either in the adapter's flat arrays or in tn_progress, so a checkpoint is those two.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/integer.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/thread.h"
#include "format/event_file.h"
#include "train/agreement.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/output_dir.h"
#include "train/ranks.h"
#include "train/resume.h"
#include "train/step.h"

typedef struct trainer {
    tn_engine e;
    tn_team team; /* rank 0 alone writes and reports */
    const tn_hooks *hooks;
    tn_arena arena;
    const char *checkpoint; /* resumed from, or NULL */
    tn_dataset *data, *eval_data;
    tn_loader *loader, *eval_loader;
    tn_dataset_stats stats;
    tn_batch *batches;     /* of the step in hand */
    tn_progress at, whole; /* where the run stands; and stood after the last step that was finished */
    bool saved;            /* `whole` is in a checkpoint, or nothing was trained */
    tn_stepper stepper;
    int64_t max_steps, epoch_batches; /* micro-batches of the epoch in hand */
    int64_t eval_steps, save_steps;   /* as asked for, or from so many an epoch; below 1 = never */
    FILE *log;
    const char *log_path, *resolved_path;
    tn_event_file *events; /* TensorBoard's, where it is asked for */
    tn_output output;
    double ceiling, started, last_loss;
    int64_t tokens_at_start;
} trainer;

/* ---- Setting up ---------------------------------------------------------------------------------- */

/* Splits sample indices for eval_split: every record goes to one side by a seeded permutation, so the split is
 * the same on resume. */
static tn_status split(trainer *t, int64_t **train, int64_t *train_count, int64_t **held, int64_t *held_count) {
    const tn_settings *s = t->e.settings;
    int64_t n = tn_dataset_samples(t->data);
    int64_t wanted = s->eval_split < 1 ? (int64_t)ceil(s->eval_split * (double)n) : (int64_t)s->eval_split;
    if (wanted < 1 || wanted >= n) {
        tn_fail(TN_USAGE, "eval_split %g of %lld records leaves one side empty", s->eval_split, (long long)n);
        return tn_remedy("a part below 1, e.g. 0.1, or fewer records than there are");
    }
    *train = tn_arena_take(&t->arena, n * (int64_t)sizeof **train);
    *held = tn_arena_take(&t->arena, n * (int64_t)sizeof **held);
    if (!*train || !*held) return tn_fail_memory(16 * n, "a split");
    bool *is_held = tn_arena_take(&t->arena, n);
    if (!is_held) return tn_fail_memory(n, "a split");
    for (int64_t i = 0; i < wanted; i++)
        is_held[tn_random_permute(s->seed, TN_STREAM(TN_PURPOSE_SHUFFLE, 0, 0xE7A1), n, i)] = true;
    for (int64_t i = 0; i < n; i++) {
        if (is_held[i]) (*held)[(*held_count)++] = i;
        else (*train)[(*train_count)++] = i;
    }
    return TN_OK;
}

static tn_status open_data(trainer *t) {
    const tn_settings *s = t->e.settings;
    tn_loader_options train = {.batch_size = s->per_device_train_batch_size,
                               .max_length = t->e.max_length,
                               .packing = s->packing,
                               .shuffle = s->shuffle,
                               .skip_unlabelled = true,
                               .seed = s->seed};
    tn_loader_options eval = {.batch_size = s->per_device_eval_batch_size, .max_length = t->e.max_length};
    int64_t *train_side = NULL, *held_side = NULL;
    tn_status status;
    TN_TRY(tn_engine_dataset(&t->e, s->dataset, s->datasets, false, &t->data));
    tn_dataset_get_stats(t->data, &t->stats);
    if (!isnan(s->eval_split)) {
        TN_TRY(split(t, &train_side, &train.subset_count, &held_side, &eval.subset_count));
        train.subset = train_side, eval.subset = held_side;
    }
    TN_TRY(tn_loader_new(t->data, &train, &t->loader));
    if (s->eval_datasets)
        TN_TRY(tn_engine_dataset(&t->e, s->eval_dataset, s->eval_datasets, false, &t->eval_data));
    if (t->eval_data || eval.subset)
        TN_TRY(tn_loader_new(t->eval_data ? t->eval_data : t->data, &eval, &t->eval_loader));
done:
    return status;
}

/* Rank 0 first: it leaves the token cache for the others. */
static tn_status open_data_in_turn(trainer *t) {
    tn_status status = t->team.rank == 0 ? open_data(t) : TN_OK;
    status = tn_team_meet(&t->team, status);
    return status == TN_OK && t->team.rank > 0 ? open_data(t) : status;
}

/* A signal before the first step: there is nothing to save yet. */
static tn_status check_stop(const trainer *t) {
    if (!t->hooks || !t->hooks->should_stop || !t->hooks->should_stop(t->hooks->user)) return TN_OK;
    tn_fail(TN_INTERRUPTED, "interrupted before the first step");
    return tn_remedy("nothing was trained; give the same command again");
}

static tn_status plan(trainer *t) {
    int64_t tokens, documents, longest, more_tokens = 0, more_documents = 0, longer = 0;
    tn_loader_limits(t->loader, &tokens, &documents, &longest);
    if (t->eval_loader) tn_loader_limits(t->eval_loader, &more_tokens, &more_documents, &longer);
    return tn_engine_plan(&t->e, tn_max(tokens, more_tokens), tn_max(documents, more_documents),
                          tn_max(longest, longer), 0);
}

/* Optimizer steps of an epoch: its micro-batches in groups, the last one possibly smaller. */
static tn_status epoch_steps(trainer *t, int64_t epoch, int64_t *steps) {
    int64_t batches, group = t->e.settings->gradient_accumulation_steps;
    tn_status status = tn_loader_epoch_batches(t->loader, epoch, &batches);
    *steps = (batches + group - 1) / group;
    return status;
}

/* Steps between two of `per_epoch` events, evenly over an epoch; `steps` where that is not asked for. */
static tn_status interval(trainer *t, int64_t per_epoch, int64_t steps, int64_t *result) {
    tn_status status = TN_OK;
    *result = steps;
    if (per_epoch > 0) status = epoch_steps(t, 0, &steps);
    if (status == TN_OK && per_epoch > 0) *result = (steps + per_epoch - 1) / per_epoch;
    return status;
}

static tn_status count_steps(trainer *t) {
    const tn_settings *s = t->e.settings;
    int64_t steps, total = 0;
    tn_status status;
    TN_TRY(interval(t, s->evals_per_epoch, s->eval_steps, &t->eval_steps));
    TN_TRY(interval(t, s->saves_per_epoch, s->save_steps, &t->save_steps));
    if (s->max_steps >= 0) t->max_steps = s->max_steps;
    else {
        double left = s->num_train_epochs;
        for (int64_t epoch = 0; left > 0 && status == TN_OK; epoch++, left -= 1) {
            status = epoch_steps(t, epoch, &steps);
            if (status == TN_OK) status = check_stop(t);
            total += left >= 1 ? steps : (int64_t)ceil(left * (double)steps);
        }
        t->max_steps = total;
    }
    int64_t warmup =
        s->warmup_steps >= 0 ? s->warmup_steps : (int64_t)ceil(s->warmup_ratio * (double)t->max_steps);
    bool asked = tn_config_setter(t->e.config, "warmup_steps") >= TN_SET_FILE ||
                 tn_config_setter(t->e.config, "warmup_ratio") >= TN_SET_FILE;
    if (asked && warmup > 0 && strcmp(s->lr_scheduler_type, "constant") == 0)
        tn_warn("lr_scheduler_type constant has no warm-up; constant_with_warmup has one of %lld steps",
                (long long)warmup);
    t->stepper.schedule = (tn_schedule){s->lr_scheduler_type, warmup, t->max_steps,
                                        s->min_lr > 0 ? s->min_lr / s->learning_rate : 0};
done:
    return status;
}

/* A file of its own for each run, all in one folder. */
static tn_status open_events(trainer *t) {
    const char *directory = tn_path_join(&t->arena, t->e.settings->output_dir, "runs");
    tn_event_file_close(t->events);
    t->events = NULL;
    if (strcmp(t->e.settings->report_to, "tensorboard") != 0) return TN_OK;
    if (!directory) return tn_fail_memory(256, "a path");
    return tn_event_file_open(directory, t->at.step, &t->events);
}

/* The log is cut back to the checkpoint: later lines belong to steps that did not survive. */
static tn_status open_log(trainer *t) {
    const char *path = tn_path_join(&t->arena, t->e.settings->output_dir, "train_log.jsonl");
    t->resolved_path = tn_path_join(&t->arena, t->e.settings->output_dir, "config.resolved.yaml");
    if (!path || !t->resolved_path) return tn_fail_memory(256, "a path");
    const bool older = t->checkpoint || t->output.begins_again;
    if (older && tn_file_size(path) > t->at.log_bytes && truncate(path, (off_t)t->at.log_bytes) != 0)
        return tn_fail_errno("cut", path);
    t->log_path = path;
    t->log = fopen(path, "ae");
    return t->log ? open_events(t) : tn_fail_errno("write", path);
}

/* What defaults became in this run, so that run.json hands it to a resumed one. */
static tn_status write_resolved(trainer *t) {
    const tn_settings *s = t->e.settings;
    tn_str yaml = {0};
    char number[32];
    tn_status status;
    snprintf(number, sizeof number, "%lld", (long long)t->e.max_length);
    TN_TRY(tn_config_used(t->e.config, "max_length", number));
    snprintf(number, sizeof number, "%d", tn_threads()); /* the order of sums hangs on it */
    TN_TRY(tn_config_used(t->e.config, "threads", number));
    TN_TRY(
        tn_config_used(t->e.config, "train_on_responses_only", s->train_on_responses_only ? "true" : "false"));
    TN_TRY(tn_config_used(t->e.config, "dtype", tn_dtype_name(t->e.device->dtype)));
    TN_TRY(tn_config_used(t->e.config, "device", t->e.device->backend->name));
    if (t->team.world > 1) {
        snprintf(number, sizeof number, "%d", t->team.world);
        TN_TRY(tn_config_used(t->e.config, "processes", number));
    }
    TN_TRY(tn_config_used(t->e.config, "gradient_checkpointing", tn_policy_name(t->e.plan.limits.policy)));
    const char *odd = tn_config_unwritable(t->e.config);
    if (odd)
        tn_warn("%s: the path is not UTF-8, so a checkpoint cannot hold it: give --%s again to resume this run",
                odd, odd);
    TN_TRY(tn_config_write_yaml(t->e.config, &yaml));
    status = tn_save_text(t->resolved_path, tn_str_text(&yaml), yaml.length);
done:
    tn_str_free(&yaml);
    return status;
}

static bool is_gone(const char *path) { return access(path, F_OK) != 0 && errno == ENOENT; }

/* A directory that was moved or removed under the run would take the log with it, and a save would make another
 * one without a word. Its log tells, and the keys beside it, which an `rm -r` takes that is slower than we are:
 * inode numbers are not to be trusted on every file system. */
static tn_status keep_output_dir(trainer *t) {
    const char *directory = t->e.settings->output_dir;
    tn_status status = TN_OK;
    if (!is_gone(t->log_path) && !is_gone(t->resolved_path)) return TN_OK;
    tn_warn(
        "%s was moved or removed under the run: it is made anew, and the rest of the log and the next "
        "checkpoints go "
        "there",
        t->log_path);
    fclose(t->log);
    t->log = NULL;
    tn_unlock_directory(&t->output.lock);
    TN_TRY(tn_make_directories(directory));
    TN_TRY(tn_lock_directory(directory, &t->output.lock));
    TN_TRY(open_log(t));
    status = write_resolved(t);
done:
    return status;
}

static tn_status banner(trainer *t) {
    tn_str text = {0};
    char count[32];
    tn_status status = tn_engine_describe(&t->e, &text);
    if (status != TN_OK) goto done;
    const char *from = t->checkpoint ? t->checkpoint : t->e.adapter_directory;
    tn_str_printf(&text, "data       %lld records, %s tokens, %.1f%% labelled%s\n", (long long)t->stats.records,
                  tn_count_text(t->stats.tokens, count),
                  100.0 * (double)t->stats.labelled / (double)tn_max(t->stats.tokens, 1),
                  t->stats.from_cache ? " (from the token cache)" : "");
    if (t->stats.cut)
        tn_str_printf(&text, "           %lld records are cut to max_length %lld\n", (long long)t->stats.cut,
                      (long long)t->e.max_length);
    if (t->stats.unlabelled)
        tn_str_printf(&text, "           %lld records without a label are left out\n",
                      (long long)t->stats.unlabelled);
    tn_str_printf(&text, "steps      %lld of %lld x %lld rows%s%s", (long long)t->max_steps,
                  (long long)t->e.settings->gradient_accumulation_steps,
                  (long long)t->e.settings->per_device_train_batch_size,
                  from ? (t->checkpoint ? ", resuming " : ", continuing ") : "", from ? from : "");
    status = tn_str_check(&text, "a banner");
    if (status == TN_OK && t->hooks && t->hooks->on_event)
        t->hooks->on_event(
            t->hooks->user,
            &(tn_event){.kind = TN_EVENT_BANNER, .text = tn_str_text(&text), .steps = t->max_steps});
done:
    tn_str_free(&text);
    return status;
}

/* Checkpoints of before model_values was kept are compared by names and shapes alone. */
static tn_status same_base(const trainer *t, const tn_json *run) {
    const tn_json *values = tn_json_get(run, "model_values");
    bool shapes = tn_json_is_string(tn_json_get(run, "model_hash"), t->e.base_hash);
    if (shapes && tn_json_is_null(values)) return TN_OK;
    if (shapes && tn_json_is_string(values, t->e.base_values)) return TN_OK;
    tn_fail(TN_USAGE, "the base model %s is not the one %s was trained on%s", t->e.settings->model,
            t->checkpoint, shapes ? ": its tensors have the same names and shapes, and other values" : "");
    return tn_remedy("resuming needs the same base; to train on this one start a new run with --%s %s",
                     t->e.adapter->full ? "model" : "adapter", t->checkpoint);
}

static tn_status restore(trainer *t) {
    const tn_json *run;
    tn_status status;
    if (!t->checkpoint) return TN_OK;
    TN_TRY(tn_checkpoint_load(&t->e, t->checkpoint, &t->at));
    if (t->e.device->dtype == TN_DTYPE_F16 && t->at.loss_scale >= 1) {
        t->stepper.loss_scale = (double)t->at.loss_scale;
        t->stepper.good_steps = t->at.good_steps;
    }
    TN_TRY(tn_checkpoint_read_run(&t->arena, t->checkpoint, &run));
    if (!tn_json_is_string(tn_json_get(run, "data_hash"), t->stats.hash)) {
        status = tn_fail(TN_USAGE, "the dataset is not the one %s was trained on", t->checkpoint);
        tn_remedy("resuming needs the same files; to train on other data start a new run with --%s %s",
                  t->e.adapter->full ? "model" : "adapter", t->checkpoint);
        goto done;
    }
    TN_TRY(same_base(t, run));
    status = tn_resume_position(t->e.settings, run, &t->at.batch, &t->at.micro_steps);
done:
    return status;
}

/* All that is read and computed before the first file is written. */
static tn_status open_run(trainer *t, tn_config *config) {
    tn_status status;
    TN_TRY(tn_team_open(t->hooks, &t->team));
    TN_TRY(tn_resume_prepare(config, &t->arena, &t->checkpoint));
    TN_TRY(tn_engine_open(config, TN_USE_TRAIN, true, t->checkpoint, &t->e));
    TN_TRY(tn_ranks_check_started(t->team.world, t->e.processes));
    if (t->team.rank == 0) TN_TRY(tn_output_check(&t->e, t->checkpoint, &t->output));
    TN_TRY(tn_team_enter(&t->team, t->e.device));
    TN_TRY(open_data_in_turn(t));
    TN_TRY(check_stop(t));
    TN_TRY(plan(t));
    if (t->e.plan.fits && t->team.rank == 0)
        TN_TRY(tn_device_ceiling(t->e.device, &t->ceiling)); /* before memory is taken */
    TN_TRY(tn_engine_allocate(&t->e));
    if (t->e.files) TN_TRY(tn_model_files_sample(t->e.files, t->e.base_values)); /* just read, so in memory */
    TN_TRY(tn_stepper_open(&t->e, &t->team, &t->stepper));
    TN_TRY(count_steps(t));
    TN_TRY(tn_alloc(&t->batches, t->e.settings->gradient_accumulation_steps, (int64_t)sizeof *t->batches,
                    "batches"));
    TN_TRY(restore(t));
    TN_TRY(tn_agree(&t->team, &t->e, t->stats.hash, t->at.step));
    TN_TRY(tn_step_compare(&t->stepper));
    status = check_stop(t);
done:
    return status;
}

static tn_status set_up(trainer *t, tn_config *config) {
    tn_status status;
    TN_TRY(open_run(t, config));
    t->whole = t->at;
    t->saved = true;
    if (t->team.rank > 0) return TN_OK;
    TN_TRY(tn_make_directories(t->e.settings->output_dir));
    /* again: until now nobody was kept out of a directory that was not there */
    TN_TRY(tn_output_check(&t->e, t->checkpoint, &t->output));
    TN_TRY(tn_output_clear(&t->e, &t->output));
    TN_TRY(open_log(t));
    TN_TRY(write_resolved(t));
    status = banner(t);
done:
    return status;
}

static void tear_down(trainer *t, tn_status status) {
    tn_team_close(&t->team, status);
    if (t->log) fclose(t->log);
    tn_event_file_close(t->events);
    for (int64_t i = 0; t->batches && i < t->e.settings->gradient_accumulation_steps; i++)
        tn_batch_free(&t->batches[i]);
    free(t->batches);
    tn_loader_free(t->loader);
    tn_loader_free(t->eval_loader);
    tn_dataset_free(t->data);
    tn_dataset_free(t->eval_data);
    tn_stepper_close(&t->stepper);
    tn_engine_close(&t->e);
    tn_unlock_directory(&t->output.lock);
    tn_arena_free(&t->arena);
}

/* ---- One step ------------------------------------------------------------------------------------ */

/* Reads the micro-batches of the next step and moves the position behind them. */
static tn_status next_batches(trainer *t, tn_step_work *work) {
    const int64_t group = t->e.settings->gradient_accumulation_steps;
    tn_status status;
    *work = (tn_step_work){.batches = t->batches};
    TN_TRY(tn_loader_epoch_batches(t->loader, t->at.epoch, &t->epoch_batches));
    if (t->at.batch >= t->epoch_batches) {
        t->at.epoch++, t->at.batch = 0;
        TN_TRY(tn_loader_epoch_batches(t->loader, t->at.epoch, &t->epoch_batches));
    }
    for (; work->all < group && t->at.batch < t->epoch_batches; t->at.batch++, work->all++)
        if (work->all % t->team.world == t->team.rank)
            TN_TRY(tn_loader_get(t->loader, t->at.epoch, t->at.batch, &t->batches[work->count++]));
done:
    status = tn_step_measure(&t->stepper, status, work);
    if (status == TN_OK && work->labelled == 0)
        status = tn_fail(TN_BAD_DATA, "step %lld has no labelled token", (long long)t->at.step + 1);
    return status;
}

static tn_status train_step(trainer *t, const tn_step_work *work, tn_step_result *result) {
    tn_status status = tn_step_run(&t->stepper, work, t->at.step, t->at.micro_steps, result);
    if (status != TN_OK) return status;
    t->at.step++;
    t->at.micro_steps += work->all;
    t->at.tokens += work->tokens;
    t->at.labelled += work->labelled;
    t->last_loss = result->loss;
    t->whole = t->at;
    t->saved = false;
    return TN_OK;
}

/* ---- Reporting ----------------------------------------------------------------------------------- */

/* The step's line of the log, which is freed, and its numbers for TensorBoard. */
static tn_status log_step(trainer *t, tn_str *line, const tn_scalar *scalars, int count) {
    tn_str_putc(line, '\n');
    tn_status status = tn_str_check(line, "a log line");
    if (status == TN_OK &&
        (fwrite(line->data, 1, (size_t)line->length, t->log) != (size_t)line->length || fflush(t->log) != 0))
        status = tn_fail_errno("write", "train_log.jsonl");
    if (status == TN_OK && t->events) status = tn_event_file_add(t->events, t->at.step, scalars, count);
    tn_str_free(line);
    return status;
}

static double epoch_now(const trainer *t) {
    return (double)t->at.epoch + (t->epoch_batches ? (double)t->at.batch / (double)t->epoch_batches : 0);
}

static void send(const trainer *t, const tn_event *event) {
    if (t->hooks && t->hooks->on_event) t->hooks->on_event(t->hooks->user, event);
}

static tn_status report_step(trainer *t, const tn_step_work *work, const tn_step_result *r) {
    const tn_settings *s = t->e.settings;
    double rate = (double)work->tokens / r->seconds;
    double flops = tn_engine_step_flops(&t->e, work->tokens, (int64_t)work->length, work->labelled);
    if (t->at.step % tn_max(s->logging_steps, 1) != 0 && t->at.step != t->max_steps) return TN_OK;
    const tn_scalar scalars[] = {{"train/loss", r->loss},
                                 {"train/grad_norm", r->grad_norm},
                                 {"train/learning_rate", r->learning_rate},
                                 {"train/epoch", epoch_now(t)},
                                 {"train/tokens_per_second", rate}};
    tn_str line = {0};
    tn_json_writer w = tn_json_write_to(&line, 0);
    tn_json_begin(&w, '{');
    tn_json_integer_member(&w, "step", t->at.step);
    tn_json_real_member(&w, "loss", r->loss);
    tn_json_real_member(&w, "grad_norm", r->grad_norm);
    tn_json_real_member(&w, "learning_rate", r->learning_rate);
    tn_json_real_member(&w, "epoch", epoch_now(t));
    tn_json_integer_member(&w, "tokens", t->at.tokens);
    tn_json_real_member(&w, "tokens_per_second", rate);
    tn_json_integer_member(&w, "memory", t->e.plan.device_bytes);
    tn_json_end(&w, '}');
    double done = (double)(t->at.tokens - t->tokens_at_start), spent = tn_seconds() - t->started;
    double per_step = done > 0 ? spent * (double)work->tokens / done : 0;
    send(t, &(tn_event){.kind = TN_EVENT_STEP,
                        .step = t->at.step,
                        .steps = t->max_steps,
                        .loss = r->loss,
                        .grad_norm = r->grad_norm,
                        .learning_rate = r->learning_rate,
                        .epoch = epoch_now(t),
                        .tokens_per_second = rate,
                        .percent_of_ceiling =
                            t->ceiling > 0 ? 100 * flops / r->seconds / t->ceiling / t->team.world : NAN,
                        .seconds_left = per_step * (double)(t->max_steps - t->at.step),
                        .tokens = t->at.tokens});
    return log_step(t, &line, scalars, sizeof scalars / sizeof *scalars);
}

static tn_status evaluate_now(trainer *t) {
    tn_evaluation result;
    tn_str line = {0};
    tn_status status =
        tn_evaluate(t->e.pass, t->eval_data ? t->eval_data : t->data, t->eval_loader, &t->team, NULL, &result);
    if (status != TN_OK || t->team.rank > 0) return status;
    double loss = result.loss_sum / (double)tn_max(result.labelled, 1);
    tn_json_writer w = tn_json_write_to(&line, 0);
    tn_json_begin(&w, '{');
    tn_json_integer_member(&w, "step", t->at.step);
    tn_json_real_member(&w, "eval_loss", loss);
    tn_json_end(&w, '}');
    send(t, &(tn_event){.kind = TN_EVENT_EVAL,
                        .step = t->at.step,
                        .steps = t->max_steps,
                        .loss = loss,
                        .tokens = result.labelled});
    return log_step(t, &line, &(tn_scalar){"eval/loss", loss}, 1);
}

/* Rank 0's: writes the state that it has. */
static tn_status write_checkpoint(trainer *t) {
    if (fsync(fileno(t->log)) != 0) return tn_fail_errno("flush", "train_log.jsonl");
    t->at.log_bytes = (int64_t)ftell(t->log);
    t->at.loss_scale = (int64_t)t->stepper.loss_scale;
    t->at.good_steps = t->stepper.good_steps;
    tn_status status = tn_checkpoint_save(&t->e, &t->at, t->stats.hash, t->max_steps);
    if (status != TN_OK) return tn_context(status, "checkpoint at step %lld", (long long)t->at.step);
    char path[4096];
    snprintf(path, sizeof path, "%s/checkpoint-%lld", t->e.settings->output_dir, (long long)t->at.step);
    t->saved = true;
    send(t, &(tn_event){.kind = TN_EVENT_SAVE, .text = path, .step = t->at.step, .steps = t->max_steps});
    return TN_OK;
}

static tn_status save_now(trainer *t) {
    tn_status status = tn_step_compare(&t->stepper);
    t->saved = t->saved || t->team.rank > 0;
    return status == TN_OK && t->team.rank == 0 ? write_checkpoint(t) : status;
}

/* Another rank failed or is gone, and what rank 0 has is the last whole step: that is kept. */
static tn_status rescue(trainer *t, tn_status status) {
    char why[2048], remedy[2048];
    if (!t->team.lost || t->team.rank > 0 || !t->log) return status;
    snprintf(why, sizeof why, "%s", tn_error_message());
    snprintf(remedy, sizeof remedy, "%s", tn_error_remedy());
    t->at = t->whole;
    if (!t->saved && write_checkpoint(t) != TN_OK)
        tn_fail(status, "%s; and the checkpoint of step %lld could not be written: %s", why,
                (long long)t->at.step, tn_error_message());
    else
        tn_fail(status, "%s; the run stopped after step %lld of %lld%s", why, (long long)t->at.step,
                (long long)t->max_steps, t->at.step > 0 ? ", which is saved" : "");
    return *remedy ? tn_remedy("%s", remedy) : status;
}

static bool every(int64_t step, int64_t interval) { return interval > 0 && step % interval == 0; }

static tn_status loop(trainer *t) {
    const tn_settings *s = t->e.settings;
    tn_status status = TN_OK;
    t->started = tn_seconds();
    t->tokens_at_start = t->at.tokens;
    while (t->at.step < t->max_steps) {
        tn_step_work work;
        tn_step_result result;
        TN_TRY(next_batches(t, &work));
        TN_TRY(train_step(t, &work, &result));
        if (t->team.rank == 0) {
            TN_TRY(keep_output_dir(t));
            TN_TRY(report_step(t, &work, &result));
        }
        bool last = t->at.step == t->max_steps;
        if (t->eval_loader && (every(t->at.step, t->eval_steps) || last)) TN_TRY(evaluate_now(t));
        bool stop = t->hooks && t->hooks->should_stop && t->hooks->should_stop(t->hooks->user);
        TN_TRY(tn_team_any(&t->team, &stop));
        if (last) stop = false;
        if (every(t->at.step, t->save_steps) || stop) TN_TRY(save_now(t));
        if (!stop) continue;
        status = tn_fail(TN_INTERRUPTED, "interrupted after step %lld of %lld", (long long)t->at.step,
                         (long long)t->max_steps);
        tn_remedy("continue with --output_dir %s --resume_from_checkpoint auto", s->output_dir);
        if (t->team.rank > 0) tn_fail(status, "%s", "");
        t->team.over = true; /* everybody knows */
        goto done;
    }
    if (!t->saved && t->save_steps > 0) status = save_now(t);
done:
    return status;
}

static tn_status finish(trainer *t, tn_doc **doc) {
    const tn_settings *s = t->e.settings;
    tn_str text = {0};
    tn_status status;
    TN_TRY(tn_save_adapter_files(&t->e, s->output_dir));
    TN_TRY(tn_run_write(&t->e, NULL, t->stats.hash, t->max_steps, s->output_dir));
    send(t,
         &(tn_event){.kind = TN_EVENT_SAVE, .text = s->output_dir, .step = t->at.step, .steps = t->max_steps});
    tn_json_writer w = tn_json_write_to(&text, 0);
    tn_json_begin(&w, '{');
    tn_json_integer_member(&w, "steps", t->at.step);
    tn_json_key(&w, "loss");
    if (t->at.step > 0 && !isnan(t->last_loss)) tn_json_put_real(&w, t->last_loss);
    else tn_json_put_null(&w);
    tn_json_string_member(&w, "output_dir", s->output_dir);
    tn_json_integer_member(&w, "tokens", t->at.tokens);
    tn_json_real_member(&w, "seconds", tn_seconds() - t->started);
    tn_json_end(&w, '}');
    status = tn_doc_from(&text, doc);
done:
    tn_str_free(&text);
    return status;
}

/* The loss of the last logged step, for a run that is resumed behind its end. */
static void recall_loss(trainer *t) {
    tn_str text = {0};
    const tn_json *line;
    const char *path = tn_path_join(&t->arena, t->e.settings->output_dir, "train_log.jsonl");
    t->last_loss = NAN;
    if (!path || !tn_is_file(path) || tn_read_file(path, INT64_MAX, &text) != TN_OK) goto done;
    for (char *at = text.data, *end; at && (end = strchr(at, '\n')); at = end + 1)
        if (tn_json_parse(&t->arena, at, end - at, TN_JSON_DEFAULT, path, &line) == TN_OK &&
            tn_json_get(line, "loss"))
            t->last_loss = tn_json_number(tn_json_get(line, "loss"), NAN);
done:
    tn_str_free(&text);
}

tn_status tn_train(tn_config *config, const tn_hooks *hooks, tn_doc **doc) {
    trainer t = {.hooks = hooks, .output = {.lock = -1}};
    tn_status status;
    *doc = NULL;
    if (strcmp(tn_config_get(config, "dry_run"), "true") == 0) return tn_plan(config, doc);
    TN_TRY(set_up(&t, config));
    recall_loss(&t);
    TN_TRY(loop(&t));
    if (t.team.rank == 0) status = finish(&t, doc);
    status = tn_team_meet(&t.team, status);
done:
    if (status != TN_OK) status = rescue(&t, status);
    tear_down(&t, status);
    return status;
}
