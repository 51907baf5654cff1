/* verb_quantize.c: a model in fewer bits: a directory in the layout of bitsandbytes, or one with a GGUF file.
 * It appears when it is whole.
 */
#include <string.h>

#include "base/thread.h"
#include "export/quantised.h"
#include "train/base_format.h"

typedef struct quantise {
    tn_arena arena;
    const tn_settings *settings;
    tn_staging staging;
    tn_model_files *files;
    int64_t bytes;
} quantise;

static const char gguf_name[] = "model.gguf";

static bool is_gguf(const tn_settings *s) { return strncmp(s->to, "gguf:", strlen("gguf:")) == 0; }

static tn_status open_model(quantise *q) {
    const char *model = q->settings->model;
    tn_dtype asked;
    tn_status status;
    TN_TRY(tn_model_files_open(model, true, &q->files));
    if (tn_model_files_get_kind(q->files) != TN_MODEL_DIRECTORY && !is_gguf(q->settings)) {
        tn_fail(TN_USAGE, "%s is a GGUF file, and %s is made from a model directory", model, q->settings->to);
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
done:
    return status;
}

static tn_status write_bitsandbytes(quantise *q) {
    const tn_dtype to = strcmp(q->settings->to, "int8") == 0 ? TN_DTYPE_LLM_INT8 : TN_DTYPE_NF4;
    tn_arch arch;
    tn_status status =
        tn_arch_read(&q->arena, tn_model_files_config(q->files), NULL, q->settings->model, &arch);
    if (status == TN_OK && arch.vision) {
        tn_fail(TN_USAGE,
                "%s has a vision tower, and config.json would not yet tell others that it stays plain",
                q->settings->model);
        return tn_remedy("train on it with load_in_4bit or load_in_8bit, which leave the tower plain");
    }
    return status == TN_OK ? tn_write_quantised(&arch, q->files, to, &q->staging) : status;
}

/* What export writes without an adapter. */
static tn_status write_gguf(quantise *q, const tn_config *own) {
    static const char *const same[] = {"model", "to", "threads"};
    const char *output = tn_path_join(&q->arena, q->staging.directory, gguf_name);
    tn_config *config = NULL;
    tn_doc *doc = NULL;
    tn_status status;
    TN_TRY(tn_config_new("export", &config));
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        TN_TRY(tn_config_set(config, same[i], tn_config_get(own, same[i])));
    if (!output) TN_THROW(TN_FAILED, "out of memory for a path");
    TN_TRY(tn_config_set(config, "output", output));
    status = tn_export(config, q->staging.hooks, &doc);
done:
    tn_doc_free(doc);
    tn_config_free(config);
    return status;
}

/* Of a GGUF file its path, which is what other verbs take as a model. */
static tn_status answer(quantise *q, tn_doc **doc) {
    const char *output = q->settings->output_dir;
    if (is_gguf(q->settings)) output = tn_path_join(&q->arena, output, gguf_name);
    if (!output) return tn_fail_memory(256, "a path");
    tn_str text = {0};
    tn_json_writer w = tn_json_write_to(&text, 0);
    tn_json_begin(&w, '{');
    tn_json_string_member(&w, "output", output);
    tn_json_integer_member(&w, "bytes", q->bytes);
    tn_json_end(&w, '}');
    tn_status status = tn_doc_from(&text, doc);
    tn_str_free(&text);
    return status;
}

tn_status tn_quantize_model(tn_config *config, const tn_hooks *hooks, tn_doc **doc) {
    quantise q = {0};
    tn_status status;
    *doc = NULL;
    TN_TRY(tn_config_resolve(config, &q.settings));
    TN_TRY(tn_threads_set((int)q.settings->threads));
    TN_TRY(tn_staging_directory(&q.staging, q.settings->output_dir, "output_dir", hooks));
    TN_TRY(open_model(&q));
    TN_TRY(tn_staging_begin(&q.staging));
    status = is_gguf(q.settings) ? write_gguf(&q, config) : write_bitsandbytes(&q);
    if (status != TN_OK) goto done;
    TN_TRY(tn_staging_bytes(&q.staging, &q.bytes));
    TN_TRY(tn_staging_commit(&q.staging));
    status = answer(&q, doc);
done:
    status = tn_staging_end(status, &q.staging);
    tn_model_files_close(q.files);
    tn_arena_free(&q.arena);
    return status;
}
