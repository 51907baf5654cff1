/* chat_save.c: writes the tokenizer's files beside an adapter: as they were read where the model had them,
 * equivalents made from its keys where it was a GGUF file. */
#include <string.h>

#include "base/file.h"
#include "text/chat_files.h"

static tn_status save(tn_arena *arena, const char *directory, const char *name, const char *text,
                      int64_t length) {
    const char *path = tn_path_join(arena, directory, name);
    return path ? tn_save_text(path, text, length) : tn_fail_memory(1, "path");
}

/* Writes a file of the chat's own directory, where it had one. */
static tn_status save_file(const tn_chat *chat, tn_arena *arena, const char *directory, int index) {
    const chat_file *file = &chat->files[index];
    return file->text ? save(arena, directory, tn_chat_file_names[index], file->text, file->length) : TN_OK;
}

/* A tokenizer_config.json for a model that had none: enough for transformers to load the tokenizer. */
static tn_status save_config(const tn_chat *chat, tn_arena *arena, const char *directory) {
    tn_str text = {0};
    tn_json_writer w = tn_json_write_to(&text, 2);
    tn_json_begin(&w, '{');
    tn_json_string_member(&w, "tokenizer_class", "PreTrainedTokenizerFast");
    tn_json_boolean_member(&w, "clean_up_tokenization_spaces", false);
    for (int64_t i = 0; i < chat->special_count; i++) {
        if (chat->specials[i].value.type != TN_JSON_STRING) continue;
        tn_json_key(&w, chat->specials[i].key);
        tn_json_put(&w, &chat->specials[i].value);
    }
    tn_json_end(&w, '}');
    tn_str_putc(&text, '\n');
    tn_status status = tn_str_check(&text, "tokenizer_config.json");
    if (status == TN_OK) status = save(arena, directory, "tokenizer_config.json", text.data, text.length);
    tn_str_free(&text);
    return status;
}

/* Where there is a jinja file, readers take no named template from tokenizer_config.json, so that for tools
 * goes into a file of its own, too. */
static tn_status save_templates(const tn_chat *chat, tn_arena *arena, const char *directory) {
    tn_status status = TN_OK;
    const chat_template *standard = &chat->standard, *tool_use = &chat->tool_use;
    if (standard->source)
        TN_TRY(save(arena, directory, "chat_template.jinja", standard->source, standard->length));
    if (!tool_use->source) goto done;
    const char *folder = tn_path_join(arena, directory, "additional_chat_templates");
    if (!folder) TN_THROW(TN_FAILED, "out of memory for a path");
    TN_TRY(tn_make_directories(folder));
    TN_TRY(save(arena, folder, "tool_use.jinja", tool_use->source, tool_use->length));
done:
    return status;
}

tn_status tn_chat_save(const tn_chat *chat, const char *directory) {
    tn_status status = TN_OK;
    tn_arena arena = {0};
    int64_t length;
    const char *json = tn_text_json(chat->text, &length);
    TN_TRY(tn_make_directories(directory));
    if (json) TN_TRY(save(&arena, directory, "tokenizer.json", json, length));
    else TN_TRY(save_file(chat, &arena, directory, TN_CHAT_TOKENIZER));
    if (chat->files[TN_CHAT_CONFIG].text) TN_TRY(save_file(chat, &arena, directory, TN_CHAT_CONFIG));
    else TN_TRY(save_config(chat, &arena, directory));
    TN_TRY(save_file(chat, &arena, directory, TN_CHAT_MAP));
    TN_TRY(save_templates(chat, &arena, directory));
done:
    tn_arena_free(&arena);
    return status;
}
