/* checkpoint.c: saving, finding, checking and loading checkpoints. */
#include "train/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "train/optimizer_state.h"

/* ---- run.json and trainer_state.json -------------------------------------------------------------- */

static void write_progress(tn_json_writer *w, const tn_progress *p) {
    const struct {
        const char *key;
        int64_t value;
    } members[] = {{"step", p->step},
                   {"epoch", p->epoch},
                   {"batch", p->batch},
                   {"micro_steps", p->micro_steps},
                   {"tokens", p->tokens},
                   {"labelled", p->labelled},
                   {"log_bytes", p->log_bytes},
                   {"loss_scale", p->loss_scale},
                   {"good_steps", p->good_steps}};
    tn_json_key(w, "progress");
    tn_json_begin(w, '{');
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        tn_json_integer_member(w, members[i].key, members[i].value);
    tn_json_end(w, '}');
}

tn_status tn_run_write(const tn_engine *e, const tn_progress *progress, const char *data_hash,
                       int64_t max_steps, const char *directory) {
    tn_arena arena = {0};
    tn_str text = {0};
    tn_json_writer w = tn_json_write_to(&text, 2);
    tn_status status;
    tn_json_begin(&w, '{');
    tn_json_string_member(&w, "tenon", TENON_VERSION);
    tn_json_string_member(&w, "model", e->settings->model);
    tn_json_string_member(&w, "model_hash", e->base_hash);
    if (e->base_values[0]) tn_json_string_member(&w, "model_values", e->base_values);
    tn_json_string_member(&w, "data_hash", data_hash);
    tn_json_string_member(&w, "device", e->device->name);
    tn_json_string_member(&w, "dtype", tn_dtype_name(e->device->dtype));
    tn_json_string_member(&w, "gradient_checkpointing", tn_policy_name(e->plan.limits.policy));
    tn_json_integer_member(&w, "max_steps", max_steps);
    tn_json_string_member(&w, "random",
                          "philox4x32-10, counters only: there is no state beside seed and progress");
    if (progress) write_progress(&w, progress);
    tn_engine_write_params(e, &w);
    tn_json_key(&w, "config");
    tn_config_write_json(e->config, &w);
    tn_json_end(&w, '}');
    tn_str_putc(&text, '\n');
    TN_TRY(tn_str_check(&text, "run.json"));
    status = tn_save_text(tn_path_join(&arena, directory, "run.json"), text.data, text.length);
done:
    tn_str_free(&text);
    tn_arena_free(&arena);
    return status;
}

/* train_log.jsonl up to here becomes log_history. */
static tn_status write_trainer_state(const tn_engine *e, const tn_progress *p, int64_t max_steps,
                                     tn_arena *arena, const char *directory) {
    tn_str text = {0}, log = {0};
    tn_json_writer w = tn_json_write_to(&text, 2);
    const char *log_path = tn_path_join(arena, e->settings->output_dir, "train_log.jsonl");
    tn_status status = TN_OK;
    if (tn_is_file(log_path)) TN_TRY(tn_read_file(log_path, INT64_MAX, &log));
    tn_json_begin(&w, '{');
    tn_json_integer_member(&w, "global_step", p->step);
    tn_json_integer_member(&w, "max_steps", max_steps);
    tn_json_real_member(&w, "epoch", (double)p->epoch);
    tn_json_integer_member(&w, "num_input_tokens_seen", p->tokens);
    tn_json_integer_member(&w, "train_batch_size", e->settings->per_device_train_batch_size);
    tn_json_boolean_member(&w, "is_world_process_zero", true);
    tn_json_key(&w, "log_history");
    tn_json_begin(&w, '[');
    for (const char *line = tn_str_text(&log), *end; (end = strchr(line, '\n')); line = end + 1) {
        const tn_json *node; /* a line that somebody has damaged is no reason to lose the checkpoint */
        if (tn_json_parse(arena, line, end - line, TN_JSON_DEFAULT, log_path, &node) == TN_OK)
            tn_json_put(&w, node);
    }
    tn_json_end(&w, ']');
    tn_json_end(&w, '}');
    tn_str_putc(&text, '\n');
    TN_TRY(tn_str_check(&text, "trainer_state.json"));
    status = tn_save_text(tn_path_join(arena, directory, "trainer_state.json"), text.data, text.length);
done:
    tn_str_free(&text);
    tn_str_free(&log);
    return status;
}

/* config.json and generation_config.json of the base, for a whole model that is saved. */
static tn_status save_base_config(const tn_engine *e, const char *directory) {
    tn_arena arena = {0};
    tn_status status = TN_OK;
    for (int i = 0; i < TN_BASE_CONFIGS; i++) {
        const char *path = tn_path_join(&arena, directory, tn_base_config_names[i]);
        if (!path) TN_THROW(TN_FAILED, "out of memory for a path");
        if (e->base_configs[i].data)
            TN_TRY(tn_save_text(path, e->base_configs[i].data, e->base_configs[i].length));
    }
done:
    tn_arena_free(&arena);
    return status;
}

tn_status tn_save_adapter_files(const tn_engine *e, const char *directory) {
    tn_status status = tn_adapter_save(e->adapter, e->device, directory);
    if (status == TN_OK && e->adapter->full) status = save_base_config(e, directory);
    return status == TN_OK && e->chat ? tn_chat_save(e->chat, directory) : status;
}

/* ---- Manifest ------------------------------------------------------------------------------------ */

/* The files of `directory`/`inside`, and of the folders in it (a tokenizer may have one of chat templates). */
static tn_status list_files(tn_arena *arena, const char *directory, const char *inside, tn_json_writer *w) {
    const char **names;
    int64_t count;
    tn_status status;
    TN_TRY(tn_list_directory(arena, tn_path_join(arena, directory, inside), &names, &count));
    for (int64_t i = 0; i < count; i++) {
        const char *name = tn_path_join(arena, inside, names[i]);
        const char *path = tn_path_join(arena, directory, name);
        char digits[33];
        if (!name || !path) TN_THROW(TN_FAILED, "out of memory for a path");
        if (tn_is_directory(path)) {
            TN_TRY(list_files(arena, directory, name, w));
            continue;
        }
        TN_TRY(tn_hash_file(path, digits));
        tn_json_key(w, name);
        tn_json_begin(w, '{');
        tn_json_integer_member(w, "bytes", tn_file_size(path));
        tn_json_string_member(w, "xxh128", digits);
        tn_json_end(w, '}');
    }
done:
    return status;
}

static tn_status write_manifest(tn_arena *arena, const char *directory) {
    tn_str text = {0};
    tn_json_writer w = tn_json_write_to(&text, 2);
    tn_status status;
    tn_json_begin(&w, '{');
    tn_json_string_member(&w, "hash", "xxh128");
    tn_json_key(&w, "files");
    tn_json_begin(&w, '{');
    TN_TRY(list_files(arena, directory, "", &w));
    tn_json_end(&w, '}');
    tn_json_end(&w, '}');
    tn_str_putc(&text, '\n');
    TN_TRY(tn_str_check(&text, "manifest.json"));
    status = tn_save_text(tn_path_join(arena, directory, "manifest.json"), text.data, text.length);
done:
    tn_str_free(&text);
    return status;
}

/* A path that stays where it starts. */
static bool is_inside(const char *path) {
    if (*path == '/') return false;
    for (const char *part = path;; part++) {
        size_t length = strcspn(part, "/");
        if (length == 2 && part[0] == '.' && part[1] == '.') return false;
        part += length;
        if (!*part) return true;
    }
}

tn_status tn_checkpoint_verify(const char *path) {
    tn_arena arena = {0};
    const tn_json *manifest, *files;
    tn_status status = TN_OK;
    const char *name = tn_path_join(&arena, path, "manifest.json");
    if (!tn_is_directory(path)) {
        status = tn_fail(TN_USAGE, "%s is not the directory of a checkpoint", path);
        tn_remedy("give the path of a checkpoint-N, or auto for the last one in output_dir");
        goto done;
    }
    if (!tn_is_file(name)) {
        status = tn_fail(TN_BAD_DATA, "%s has no manifest.json: it was never completed", path);
        tn_remedy("give the path of a checkpoint-N that has one, or auto for the last one in output_dir");
        goto done;
    }
    TN_TRY(tn_json_read_file(&arena, name, TN_JSON_UNIQUE_KEYS, &manifest));
    files = tn_json_get(manifest, "files");
    if (!files || files->type != TN_JSON_OBJECT || files->count == 0)
        TN_THROW(TN_BAD_DATA, "%s lists no files", name);
    for (int64_t i = 0; i < files->count; i++) {
        const tn_member *m = &files->members[i];
        const char *file = tn_path_join(&arena, path, m->key);
        char digits[33];
        if (!is_inside(m->key))
            TN_THROW(TN_BAD_DATA, "%s names a file outside its directory: %s", name, m->key);
        if (tn_file_size(file) != tn_json_integer(tn_json_get(&m->value, "bytes"), -1))
            TN_THROW(TN_BAD_DATA, "%s is missing or of another size than the manifest says", file);
        TN_TRY(tn_hash_file(file, digits));
        if (!tn_json_is_string(tn_json_get(&m->value, "xxh128"), digits))
            TN_THROW(TN_BAD_DATA, "%s is damaged: its hash differs from the manifest's", file);
    }
done:
    tn_arena_free(&arena);
    return status;
}

/* ---- Directories --------------------------------------------------------------------------------- */

/* Behind the name of a checkpoint while a newer one of the same step takes its place. */
static const char aside[] = ".old";
static const char *const endings[] = {"", aside};

/* Number behind "checkpoint-", also of one that was put aside; -1 for any other name. */
static int64_t step_of(const char *name) {
    char *end;
    if (!tn_starts_with(name, "checkpoint-") || name[11] < '0' || name[11] > '9') return -1;
    long long step = strtoll(name + 11, &end, 10);
    return *end == '\0' || strcmp(end, aside) == 0 ? step : -1;
}

int64_t tn_checkpoint_step(const char *path) {
    size_t length = strlen(path), start;
    while (length > 1 && path[length - 1] == '/') length--;
    for (start = length; start > 0 && path[start - 1] != '/';) start--;
    char name[64] = "";
    if (length - start >= sizeof name) return -1;
    memcpy(name, path + start, length - start);
    return step_of(name);
}

/* Steps of all checkpoint directories, ascending, each once. */
static tn_status list_steps(tn_arena *arena, const char *output_dir, int64_t **steps, int64_t *count) {
    const char **names;
    int64_t n;
    *count = 0;
    *steps = NULL;
    if (!tn_is_directory(output_dir)) return TN_OK;
    tn_status status = tn_list_directory(arena, output_dir, &names, &n);
    if (status != TN_OK) return status;
    *steps = tn_arena_take(arena, (n + 1) * (int64_t)sizeof **steps);
    if (!*steps) return tn_fail_memory(n * 8, "checkpoint numbers");
    for (int64_t i = 0; i < n; i++) {
        int64_t step = step_of(names[i]), at = *count;
        for (int64_t k = 0; k < *count; k++)
            if ((*steps)[k] == step) step = -1;
        if (step < 0) continue;
        for (; at > 0 && (*steps)[at - 1] > step; at--) (*steps)[at] = (*steps)[at - 1];
        (*steps)[at] = step;
        (*count)++;
    }
    return TN_OK;
}

static const char *directory_of(tn_arena *arena, const char *output_dir, int64_t step, const char *ending) {
    return tn_arena_printf(arena, "%s/checkpoint-%lld%s", output_dir, (long long)step, ending);
}

const char *tn_checkpoint_path(tn_arena *arena, const char *output_dir, int64_t step) {
    const char *path = directory_of(arena, output_dir, step, ""),
               *older = directory_of(arena, output_dir, step, aside);
    return path && older && !tn_is_directory(path) && tn_is_directory(older) ? older : path;
}

const char *tn_checkpoint_find(tn_arena *arena, const char *wanted) {
    int64_t length = (int64_t)strlen(wanted);
    while (length > 1 && wanted[length - 1] == '/') length--;
    const char *path = tn_arena_text(arena, wanted, length),
               *older = tn_arena_printf(arena, "%s%s", path, aside);
    return path && older && !tn_is_directory(path) && tn_is_directory(older) ? older : path;
}

tn_status tn_checkpoint_newest(tn_arena *arena, const char *output_dir, const char **path) {
    int64_t *steps, count;
    *path = NULL;
    tn_status status = list_steps(arena, output_dir, &steps, &count);
    for (int64_t i = 2 * count - 1; status == TN_OK && i >= 0; i--) {
        const char *candidate = directory_of(arena, output_dir, steps[i / 2], endings[1 - i % 2]);
        if (!candidate) return tn_fail_memory(256, "a path");
        if (!tn_is_directory(candidate)) continue;
        if (tn_checkpoint_verify(candidate) == TN_OK) {
            *path = candidate;
            return TN_OK;
        }
        tn_warn("%s is passed over: %s", candidate, tn_error_message());
    }
    return status;
}

/* The checkpoint of this step, and what was put aside for it. */
static tn_status remove_step(tn_arena *arena, const char *output_dir, int64_t step) {
    tn_status status = TN_OK;
    for (int i = 1; status == TN_OK && i >= 0; i--) {
        const char *path = directory_of(arena, output_dir, step, endings[i]);
        status = path ? tn_remove_tree(path) : tn_fail_memory(256, "a path");
    }
    return status;
}

tn_status tn_checkpoint_any(tn_arena *arena, const char *output_dir, bool foreign, const char **path) {
    int64_t *steps, count;
    *path = NULL;
    tn_status status = list_steps(arena, output_dir, &steps, &count);
    for (int64_t i = 0; status == TN_OK && !*path && i < 2 * count; i++) {
        const char *candidate = directory_of(arena, output_dir, steps[i / 2], endings[i % 2]);
        const char *manifest = candidate ? tn_path_join(arena, candidate, "manifest.json") : NULL;
        if (!manifest) return tn_fail_memory(256, "a path");
        if (access(candidate, F_OK) == 0 && !(foreign && tn_is_file(manifest))) *path = candidate;
    }
    return status;
}

tn_status tn_checkpoint_remove_all(const char *output_dir) {
    tn_arena arena = {0};
    int64_t *steps, count;
    tn_status status = list_steps(&arena, output_dir, &steps, &count);
    for (int64_t i = 0; status == TN_OK && i < count; i++) status = remove_step(&arena, output_dir, steps[i]);
    tn_arena_free(&arena);
    return status;
}

/* Deletes what save_total_limit leaves no room for, oldest first. Later steps are of a run that was taken up
 * before them: they neither count nor push out the checkpoint just written. */
static tn_status rotate(const tn_engine *e, int64_t step, tn_arena *arena) {
    int64_t *steps, count, limit = e->settings->save_total_limit;
    tn_status status = list_steps(arena, e->settings->output_dir, &steps, &count);
    while (status == TN_OK && count > 0 && steps[count - 1] > step) count--;
    for (int64_t i = 0; status == TN_OK && limit > 0 && i < count - limit; i++) {
        TN_KNOWN(steps);
        status = remove_step(arena, e->settings->output_dir, steps[i]);
    }
    return status;
}

/* Moves a complete checkpoint to its name. One of the same step that is there (from before a resume) is put
 * aside first and deleted last, so that at every moment one of the two can be found. What a killed run leaves
 * aside is taken where the name is free (tn_checkpoint_path), and deleted when the step is saved again or
 * rotated out. */
static tn_status put_in_place(const tn_engine *e, const char *temporary, const char *final, const char *older) {
    const bool replaces = tn_is_directory(final);
    tn_status status = TN_OK;
    if (replaces) TN_TRY(tn_remove_tree(older));
    if (replaces && rename(final, older) != 0) {
        status = tn_fail_errno("rename", final);
        goto done;
    }
    if (rename(temporary, final) != 0) {
        status = tn_fail_errno("rename to", final);
        if (replaces) (void)rename(older, final);
        goto done;
    }
    TN_TRY(tn_sync_directory(e->settings->output_dir));
    status = tn_remove_tree(older);
done:
    return status;
}

/* Everything a checkpoint consists of, flushed. */
static tn_status write_files(const tn_engine *e, const tn_progress *progress, const char *data_hash,
                             int64_t max_steps, tn_arena *arena, const char *directory) {
    tn_status status;
    TN_TRY(tn_make_directories(directory));
    TN_TRY(tn_save_adapter_files(e, directory));
    TN_TRY(tn_optimizer_save(e, directory));
    TN_TRY(write_trainer_state(e, progress, max_steps, arena, directory));
    TN_TRY(tn_run_write(e, progress, data_hash, max_steps, directory));
    TN_TRY(write_manifest(arena, directory));
    status = tn_sync_directory(directory);
done:
    return status;
}

tn_status tn_checkpoint_save(const tn_engine *e, const tn_progress *progress, const char *data_hash,
                             int64_t max_steps) {
    tn_arena arena = {0};
    tn_status status;
    const char *final = directory_of(&arena, e->settings->output_dir, progress->step, "");
    const char *older = directory_of(&arena, e->settings->output_dir, progress->step, aside);
    const char *temporary = directory_of(&arena, e->settings->output_dir, progress->step, ".tmp");
    if (!final || !older || !temporary) return tn_fail_memory(256, "a path");
    TN_TRY(tn_remove_tree(temporary)); /* left by a run that was killed here */
    status = write_files(e, progress, data_hash, max_steps, &arena, temporary);
    if (status != TN_OK) {
        status = tn_discard_tree(status, temporary); /* it may be what fills the disk */
        goto done;
    }
    TN_TRY(put_in_place(e, temporary, final, older));
    status = rotate(e, progress->step, &arena);
done:
    tn_arena_free(&arena);
    return status;
}

/* ---- Loading ------------------------------------------------------------------------------------- */

tn_status tn_checkpoint_read_run(tn_arena *arena, const char *path, const tn_json **run) {
    const char *name = tn_path_join(arena, path, "run.json");
    if (!name) return tn_fail_memory(256, "a path");
    return tn_json_read_file(arena, name, TN_JSON_DEFAULT, run);
}

tn_status tn_checkpoint_load(tn_engine *e, const char *path, tn_progress *progress) {
    tn_arena arena = {0};
    const tn_json *run, *p;
    tn_status status;
    TN_TRY(
        tn_optimizer_load(e, path)); /* the adapter's own values came in with the engine; masters follow here */
    TN_TRY(tn_checkpoint_read_run(&arena, path, &run));
    p = tn_json_get(run, "progress");
    *progress = (tn_progress){.step = tn_json_integer(tn_json_get(p, "step"), -1),
                              .epoch = tn_json_integer(tn_json_get(p, "epoch"), -1),
                              .batch = tn_json_integer(tn_json_get(p, "batch"), -1),
                              .micro_steps = tn_json_integer(tn_json_get(p, "micro_steps"), -1),
                              .tokens = tn_json_integer(tn_json_get(p, "tokens"), 0),
                              .labelled = tn_json_integer(tn_json_get(p, "labelled"), 0),
                              .log_bytes = tn_json_integer(tn_json_get(p, "log_bytes"), 0),
                              .loss_scale = tn_json_integer(tn_json_get(p, "loss_scale"), 1),
                              .good_steps = tn_json_integer(tn_json_get(p, "good_steps"), 0)};
    if (progress->step < 0 || progress->epoch < 0 || progress->batch < 0 || progress->micro_steps < 0)
        TN_THROW(TN_BAD_DATA, "%s/run.json does not say where the run stood", path);
    status = tn_model_refresh(e->model);
done:
    tn_arena_free(&arena);
    return status;
}
