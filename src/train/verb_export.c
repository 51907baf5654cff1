/* verb_export.c: base + adapter, or the adapter alone, as a GGUF file. */
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "export/gguf_export.h"
#include "train/engine.h"

/* "gguf", "gguf:q8_0"; false: "lora-gguf". The table of keys lets no other word through. */
static bool is_model(const char *to, tn_gguf_choice *choice) {
    static const struct {
        const char *word;
        tn_dtype dtype;
    } types[] = {{"gguf:f32", TN_DTYPE_F32},   {"gguf:f16", TN_DTYPE_F16},   {"gguf:bf16", TN_DTYPE_BF16},
                 {"gguf:q8_0", TN_DTYPE_Q8_0}, {"gguf:q4_0", TN_DTYPE_Q4_0}, {"gguf:q4_k", TN_DTYPE_Q4_K},
                 {"gguf:q6_k", TN_DTYPE_Q6_K}};
    *choice = (tn_gguf_choice){0};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(to, types[i].word) == 0) *choice = (tn_gguf_choice){true, types[i].dtype};
    return choice->given || strcmp(to, "gguf") == 0;
}

static tn_status check_sources(const tn_engine *e, bool model) {
    const tn_settings *s = e->settings;
    if (!model && !e->adapter_directory) {
        tn_fail(TN_USAGE, "lora-gguf is the adapter alone, and no adapter is given");
        return tn_remedy("add --adapter DIR, or export the model with --to gguf");
    }
    if (model && !e->chat) {
        tn_fail(TN_USAGE, "%s has no tokenizer.json, and a GGUF file carries its tokenizer", s->model);
        return tn_remedy("put the model's tokenizer.json beside its weights");
    }
    if (!model && e->rope_scaling)
        tn_warn(
            "the adapter was trained with another rope_scaling than the base's, which its GGUF file cannot "
            "say: "
            "give it where the adapter is used");
    return TN_OK;
}

tn_status tn_export(tn_config *config, const tn_hooks *hooks, tn_doc **doc) {
    tn_engine e = {0};
    tn_staging staging = {0};
    tn_merged merged = {0};
    tn_gguf_choice choice;
    int32_t stops[TN_MOST_STOPS];
    tn_str text = {0};
    tn_status status;
    *doc = NULL;
    TN_TRY(tn_config_resolve(config, &e.settings));
    const bool model = is_model(e.settings->to, &choice);
    TN_TRY(tn_staging_file(&staging, e.settings->output, "output", hooks));
    TN_TRY(tn_engine_open_files(config, &e));
    TN_TRY(tn_engine_refuse_vision(&e, "a GGUF file"));
    TN_TRY(check_sources(&e, model));
    TN_TRY(tn_merged_open(&e.arch, e.files, e.adapter, e.adapter_directory, &merged));
    TN_TRY(tn_staging_begin(&staging));
    const int64_t stop_count = tn_engine_stops(&e, stops);
    if (model) TN_TRY(tn_gguf_export(&merged, e.chat, stops, stop_count, choice, &staging));
    else TN_TRY(tn_gguf_export_lora(&merged, staging.file));
    TN_TRY(tn_staging_commit(&staging));
    tn_json_writer w = tn_json_write_to(&text, 0);
    tn_json_begin(&w, '{');
    tn_json_string_member(&w, "output", e.settings->output);
    tn_json_integer_member(&w, "bytes", tn_file_size(e.settings->output));
    tn_json_end(&w, '}');
    status = tn_doc_from(&text, doc);
done:
    tn_str_free(&text);
    tn_merged_close(&merged);
    status = tn_staging_end(status, &staging);
    tn_engine_close(&e);
    return status;
}
