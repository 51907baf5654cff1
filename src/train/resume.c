/* resume.c: choosing a checkpoint and taking over its settings. */
#include "train/resume.h"

#include <string.h>

#include "base/log.h"
#include "train/checkpoint.h"

/* Keys that may differ between the two halves of a run: where things go, how often they are reported, and how
 * the same arithmetic is split or placed (then the losses agree within rounding, not to the bit). */
static bool may_change(const char *key) {
    static const char *const keys[] = {"output_dir",
                                       "max_steps",
                                       "save_steps",
                                       "save_total_limit",
                                       "logging_steps",
                                       "eval_steps",
                                       "evals_per_epoch",
                                       "saves_per_epoch",
                                       "overwrite_output_dir",
                                       "eval_dataset",
                                       "eval_split",
                                       "per_device_eval_batch_size",
                                       "report_to",
                                       "plot",
                                       "json",
                                       "device",
                                       "threads",
                                       "memory_limit",
                                       "gradient_checkpointing",
                                       "per_device_train_batch_size",
                                       "gradient_accumulation_steps",
                                       "resume_from_checkpoint",
                                       "adapter",
                                       "dry_run"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(key, keys[i]) == 0) return true;
    return false;
}

static const char *explicit_value(const tn_config *config, const char *key) {
    const char *flag = tn_config_given(config, key, TN_SET_FLAG);
    return flag ? flag : tn_config_given(config, key, TN_SET_FILE);
}

/* People give the run's directory where the checkpoint's is meant. */
static tn_status check_chosen(tn_arena *arena, const char *path) {
    const char *newest = NULL;
    if (tn_is_directory(path) && !tn_is_file(tn_path_join(arena, path, "manifest.json"))) {
        tn_status status = tn_checkpoint_newest(arena, path, &newest);
        if (status != TN_OK) return status;
    }
    if (!newest) return tn_checkpoint_verify(path);
    tn_fail(TN_USAGE, "%s is a run, and its checkpoints are in it", path);
    return tn_remedy("give one of them, e.g. --resume_from_checkpoint %s", newest);
}

/* A path that is not UTF-8 was written with U+FFFD where it is not. */
static bool same_value(const char *ours, const char *theirs) {
    tn_str written = {0};
    tn_utf8_lossy(&written, ours, (int64_t)strlen(ours));
    bool same = strcmp(ours, theirs) == 0 || strcmp(tn_str_text(&written), theirs) == 0;
    tn_str_free(&written);
    return same;
}

/* `keys` is the configuration in the run.json of the checkpoint `path`. */
static tn_status inherit(tn_config *config, const char *path, const tn_json *keys, int64_t index) {
    const char *key = keys->members[index].key;
    const tn_json *value = &keys->members[index].value, *full = tn_json_get(keys, "full_finetuning");
    if (strcmp(key, "resume_from_checkpoint") == 0 || strcmp(key, "adapter") == 0 || strcmp(key, "json") == 0 ||
        strcmp(key, "processes") == 0)
        return TN_OK;
    tn_status status = tn_config_inherit_node(config, key, value, TN_SET_CHECKPOINT);
    if (status != TN_OK) return tn_context(status, "%s/run.json", path);
    const char *ours = explicit_value(config, key), *theirs = tn_config_given(config, key, TN_SET_CHECKPOINT);
    if (!ours || !theirs || may_change(key) || same_value(ours, theirs)) return TN_OK;
    tn_fail(TN_USAGE, "%s is %s here and %s in %s", key, *ours ? ours : "none", *theirs ? theirs : "none",
            path);
    const char *what = full && full->type == TN_JSON_BOOLEAN && full->boolean ? "model" : "adapter";
    return tn_remedy(
        "a resumed run keeps its settings: leave %s out, or start a new run from this %s with --%s %s", key,
        what, what, path);
}

tn_status tn_resume_prepare(tn_config *config, tn_arena *arena, const char **path) {
    const char *wanted = tn_config_get(config, "resume_from_checkpoint"),
               *output = tn_config_get(config, "output_dir");
    const char *adapter = explicit_value(config, "adapter");
    const tn_json *run, *keys;
    tn_status status = TN_OK;
    *path = NULL;
    if (!*wanted || strcmp(wanted, "false") == 0 || strcmp(wanted, "none") == 0) return TN_OK;
    if (strcmp(wanted, "auto") == 0 || strcmp(wanted, "true") == 0) {
        if (*output) TN_TRY(tn_checkpoint_newest(arena, output, path));
        if (!*path) {
            tn_info("no checkpoint in %s: the run starts afresh%s%s", *output ? output : "output_dir",
                    adapter ? " from " : "", adapter ? adapter : "");
            goto done;
        }
    } else {
        *path = tn_checkpoint_find(arena, wanted);
        if (!*path) return tn_fail_memory((int64_t)strlen(wanted), "a path");
        TN_TRY(check_chosen(arena, *path));
    }
    TN_TRY(tn_checkpoint_read_run(arena, *path, &run));
    keys = tn_json_get(run, "config");
    if (!keys || keys->type != TN_JSON_OBJECT)
        TN_THROW(TN_BAD_DATA, "%s/run.json holds no configuration", *path);
    for (int64_t i = 0; i < keys->count; i++) TN_TRY(inherit(config, *path, keys, i));
    if (adapter) tn_info("resuming %s: the given --adapter %s is ignored", *path, adapter);
done:
    return status;
}

tn_status tn_resume_position(const tn_settings *s, const tn_json *run, int64_t *batch, int64_t *micro_steps) {
    int64_t size = tn_json_integer(tn_json_path(run, "config.per_device_train_batch_size"), 0);
    int64_t split = tn_json_integer(tn_json_path(run, "config.gradient_accumulation_steps"), 0);
    int64_t ours = s->per_device_train_batch_size * s->gradient_accumulation_steps;
    if (size == s->per_device_train_batch_size) return TN_OK;
    if (size < 1 || size * split != ours || (*batch * size) % s->per_device_train_batch_size != 0) {
        tn_fail(TN_USAGE, "the checkpoint's steps are %lld x %lld rows, these are %lld x %lld", (long long)size,
                (long long)split, (long long)s->per_device_train_batch_size,
                (long long)s->gradient_accumulation_steps);
        return tn_remedy("keep per_device_train_batch_size x gradient_accumulation_steps at %lld",
                         (long long)(size * split));
    }
    tn_info(
        "the micro-batch split differs from the checkpoint's: losses agree within rounding (about 1e-6 in "
        "fp32), not to the bit");
    *micro_steps = *micro_steps * size / s->per_device_train_batch_size;
    *batch = *batch * size / s->per_device_train_batch_size;
    return TN_OK;
}
