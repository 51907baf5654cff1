/* output_dir.c: what lies in output_dir before the first step, and what may become of it. */
#include "train/output_dir.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "train/checkpoint.h"

static bool holds(const char *directory, const char *name) {
    tn_arena arena = {0};
    const char *path = tn_path_join(&arena, directory, name);
    bool found = path && tn_is_file(path);
    tn_arena_free(&arena);
    return found;
}

static bool same_directory(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Is the checkpoint that is resumed one of this directory's own? Either may be reached through links. */
static bool is_own(const char *checkpoint, const char *directory) {
    tn_arena arena = {0};
    if (!checkpoint) return false;
    const char *path = tn_checkpoint_path(&arena, directory, tn_checkpoint_step(checkpoint));
    bool own = path && same_directory(path, checkpoint);
    tn_arena_free(&arena);
    return own;
}

/* ---- What would be written over ------------------------------------------------------------------ */

/* A directory in a file's place, or a file in a checkpoint's, would be found by the first save, when steps are
 * lost. */
static tn_status check_kinds(const char *directory) {
    static const char *const files[] = {"adapter_model.safetensors",
                                        "adapter_config.json",
                                        "model.safetensors",
                                        "config.json",
                                        "generation_config.json",
                                        "tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "chat_template.jinja",
                                        "train_log.jsonl",
                                        "run.json",
                                        "config.resolved.yaml"};
    tn_arena arena = {0};
    const char **names, *wrong = NULL;
    int64_t count;
    tn_status status;
    TN_TRY(tn_list_directory(&arena, directory, &names, &count));
    for (int64_t i = 0; i < count && !wrong; i++) {
        const char *path = tn_path_join(&arena, directory, names[i]);
        bool is_file = false;
        if (!path) TN_THROW(TN_FAILED, "out of memory for a path");
        for (size_t k = 0; k < sizeof files / sizeof *files; k++) is_file |= strcmp(names[i], files[k]) == 0;
        if (is_file && tn_is_directory(path)) wrong = "directory, and the run writes a file of this name";
        if (tn_checkpoint_step(names[i]) >= 0 && !tn_is_directory(path))
            wrong = "file, and the run may save a checkpoint of this name";
        if (wrong) status = tn_fail(TN_USAGE, "%s is a %s", path, wrong);
    }
    if (wrong) tn_remedy("move it, or choose another output_dir");
done:
    tn_arena_free(&arena);
    return status;
}

/* Is `path` in `directory`, or that itself? Either may be reached through links. */
static bool lies_in(const char *path, const char *directory) {
    char *inner = path ? realpath(path, NULL) : NULL, *outer = realpath(directory, NULL);
    size_t length = outer ? strlen(outer) : 0;
    bool inside =
        inner && outer && strncmp(inner, outer, length) == 0 && (inner[length] == '/' || !inner[length]);
    free(inner);
    free(outer);
    return inside;
}

static tn_status check_read(const char *path, const char *directory) {
    if (!lies_in(path, directory)) return TN_OK;
    tn_fail(TN_USAGE, "%s would be read by the run, and lies in what --overwrite_output_dir removes: %s", path,
            directory);
    return tn_remedy("choose another output_dir, or move it");
}

/* Removing a run takes neither what the new one reads nor what tenon did not write. */
static tn_status check_replacing(const tn_settings *s, const char *directory) {
    tn_arena arena = {0};
    const char *foreign;
    tn_status status;
    TN_TRY(check_read(s->adapter, directory));
    TN_TRY(check_read(s->model, directory));
    for (int64_t i = 0; i < s->datasets; i++) TN_TRY(check_read(s->dataset[i], directory));
    for (int64_t i = 0; i < s->eval_datasets; i++) TN_TRY(check_read(s->eval_dataset[i], directory));
    TN_TRY(tn_checkpoint_any(&arena, directory, true, &foreign));
    if (foreign) {
        tn_fail(TN_USAGE, "%s was not written by tenon (it has no manifest.json) and is not removed", foreign);
        status = tn_remedy("move it, or choose another output_dir");
    }
done:
    tn_arena_free(&arena);
    return status;
}

static tn_status check_run(const tn_engine *e, const char *checkpoint, tn_output *output) {
    const char *directory = e->settings->output_dir, *some;
    tn_arena arena = {0};
    tn_status status = tn_checkpoint_any(&arena, directory, false, &some);
    tn_arena_free(&arena);
    if (status != TN_OK) return status;
    bool run = some || holds(directory, "train_log.jsonl") || holds(directory, "adapter_config.json");
    const char *resume = e->settings->resume_from_checkpoint;
    if (!checkpoint && resume && strcmp(resume, "auto") == 0 && !some &&
        !holds(directory,
               "adapter_config.json")) { /* it ended before its first checkpoint: nothing but a log */
        output->begins_again = run;
        return TN_OK;
    }
    output->replaces = run && !checkpoint && e->settings->overwrite_output_dir;
    if (!run) return TN_OK;
    if (output->replaces) return check_replacing(e->settings, directory);
    tn_fail(TN_USAGE, "%s already holds a run%s%s", directory, checkpoint ? ", and not that of " : "",
            checkpoint ? checkpoint : "");
    return tn_remedy(
        "continue it with --resume_from_checkpoint auto, choose another output_dir, or remove it with "
        "--overwrite_output_dir");
}

tn_status tn_output_check(const tn_engine *e, const char *checkpoint, tn_output *output) {
    const char *directory = e->settings->output_dir;
    tn_status status = TN_OK;
    if (!tn_is_directory(directory)) return TN_OK;
    if (output->lock < 0) TN_TRY(tn_lock_directory(directory, &output->lock));
    TN_TRY(check_kinds(directory));
    if (is_own(checkpoint, directory)) goto done;
    TN_TRY(check_run(e, checkpoint, output));
    if (holds(directory, "model.safetensors") || holds(directory, "model.safetensors.index.json") ||
        (e->adapter->full && holds(directory, "config.json"))) {
        tn_fail(TN_USAGE, "%s already holds a model, which this run would write over", directory);
        status = tn_remedy("choose another output_dir; an empty directory in it will do");
    }
done:
    return status;
}

/* The old run goes only now that the new one is ready for its first step; its checkpoints would be taken for
 * the new one's by a resume. */
tn_status tn_output_clear(const tn_engine *e, const tn_output *output) {
    static const char *const files[] = {"train_log.jsonl", "adapter_model.safetensors", "adapter_config.json",
                                        "run.json"};
    const char *directory = e->settings->output_dir;
    tn_arena arena = {0};
    tn_status status;
    if (!output->replaces) return TN_OK;
    TN_TRY(tn_checkpoint_remove_all(directory));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *path = tn_path_join(&arena, directory, files[i]);
        if (!path) TN_THROW(TN_FAILED, "out of memory for a path");
        TN_TRY(tn_remove_tree(path));
    }
    tn_info("overwrite_output_dir: the run that %s held is removed", directory);
done:
    tn_arena_free(&arena);
    return status;
}
