/* verb_quantize.c: a plain model directory to one in the layout of bitsandbytes. It is written beside its final
 * name and renamed when it is whole and flushed: until then there is no output.
 */
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/thread.h"
#include "export/quantised.h"
#include "train/base_format.h"

typedef struct quantise {
    tn_arena arena;
    const tn_settings *settings;
    tn_model_files *files;
    tn_arch arch;
    const char *bare, *temporary; /* output_dir without slashes behind it, and where it is written */
    int64_t bytes;
} quantise;

/* An empty directory is no output. */
static tn_status check_output(quantise *q) {
    const char *path = q->settings->output_dir, **names;
    int64_t count = 0, length = (int64_t)strlen(path);
    tn_status status = TN_OK;
    if (tn_is_directory(path)) status = tn_list_directory(&q->arena, path, &names, &count);
    else count = access(path, F_OK) == 0;
    if (status == TN_OK && count > 0) {
        tn_fail(TN_USAGE, "%s is there already", path);
        return tn_remedy("choose another output_dir, or remove this one; nothing is overwritten");
    }
    while (length > 1 && path[length - 1] == '/') length--;
    q->bare = tn_arena_text(&q->arena, path, length);
    q->temporary = tn_arena_printf(&q->arena, "%.*s.tmp-quantize", (int)length, path);
    return q->bare && q->temporary ? status : tn_fail_memory(256, "a path");
}

static tn_status open_model(quantise *q) {
    const char *model = q->settings->model;
    tn_dtype asked;
    tn_status status;
    TN_TRY(tn_model_files_open(model, true, &q->files));
    if (tn_model_files_get_kind(q->files) != TN_MODEL_DIRECTORY) {
        tn_fail(TN_USAGE, "%s is a GGUF file, and quantize starts from a model directory", model);
        tn_remedy("give the directory with config.json and safetensors; a GGUF file is trained on as it is");
        status = TN_USAGE;
        goto done;
    }
    TN_TRY(tn_base_format(q->settings, q->files, tn_model_files_config(q->files), &asked));
    for (int64_t i = 0; i < tn_model_files_count(q->files); i++)
        if (tn_dtype_is_block(tn_model_files_at(q->files, i)->dtype)) {
            status = tn_fail(TN_USAGE, "%s is quantised already (%s)", model,
                             tn_dtype_name(tn_model_files_at(q->files, i)->dtype));
            tn_remedy("give its 16-bit model");
            goto done;
        }
    status = tn_arch_read(&q->arena, tn_model_files_config(q->files), NULL, model, &q->arch);
done:
    return status;
}

static tn_status count_bytes(quantise *q) {
    const char **names;
    int64_t count;
    tn_status status = tn_list_directory(&q->arena, q->temporary, &names, &count);
    for (int64_t i = 0; status == TN_OK && i < count; i++)
        q->bytes += tn_file_size(tn_path_join(&q->arena, q->temporary, names[i]));
    return status;
}

static tn_status answer(const quantise *q, tn_doc **doc) {
    tn_str text = {0};
    tn_json_writer w = tn_json_write_to(&text, 0);
    tn_json_begin(&w, '{');
    tn_json_string_member(&w, "output", q->settings->output_dir);
    tn_json_integer_member(&w, "bytes", q->bytes);
    tn_json_end(&w, '}');
    tn_status status = tn_doc_from(&text, doc);
    tn_str_free(&text);
    return status;
}

tn_status tn_quantize_model(tn_config *config, tn_doc **doc) {
    quantise q = {0};
    bool begun = false;
    tn_status status;
    *doc = NULL;
    TN_TRY(tn_config_resolve(config, &q.settings));
    tn_threads_set((int)q.settings->threads);
    TN_TRY(check_output(&q));
    TN_TRY(open_model(&q));
    begun = true;
    TN_TRY(tn_remove_tree(q.temporary)); /* of a run that was killed */
    TN_TRY(tn_make_directories(q.temporary));
    tn_dtype to = strcmp(q.settings->to, "int8") == 0 ? TN_DTYPE_LLM_INT8 : TN_DTYPE_NF4;
    TN_TRY(tn_write_quantised(&q.arch, q.files, to, q.temporary));
    TN_TRY(tn_sync_directory(q.temporary));
    TN_TRY(count_bytes(&q));
    TN_TRY(tn_rename(q.temporary, q.bare));
    status = answer(&q, doc);
done:
    if (status != TN_OK && begun) status = tn_discard_tree(status, q.temporary);
    tn_model_files_close(q.files);
    tn_arena_free(&q.arena);
    return status;
}
