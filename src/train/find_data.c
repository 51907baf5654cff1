/* find_data.c: registered data sets and chat templates by name. */
#include "train/find_data.h"

#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"

enum { LARGEST_TEMPLATE = 4 << 20 };

/* ---- Data sets ----------------------------------------------------------------------------------- */

static tn_status fail_missing(const char *key, const char *name, const char *registry) {
    bool registered = tn_is_file(registry);
    tn_fail(TN_USAGE, "%s: %s is no file%s%s", key, name, registered ? ", and no name in " : "",
            registered ? registry : "");
    return tn_remedy(
        "give a local file (--%s FILE.jsonl, .json, .csv or .txt); a data set of the hub is downloaded "
        "beforehand, e.g. "
        "`hf download --repo-type dataset %s`",
        key, name);
}

/* Columns and tags that mean what their names say to us. */
static bool is_usual(const char *key, const char *value) {
    static const char *const usual[][2] = {{"prompt", "instruction"},
                                           {"query", "input"},
                                           {"response", "output"},
                                           {"history", "history"},
                                           {"system", "system"},
                                           {"tools", "tools"},
                                           {"messages", "conversations"},
                                           {"messages", "messages"},
                                           {"role_tag", "from"},
                                           {"role_tag", "role"},
                                           {"content_tag", "value"},
                                           {"content_tag", "content"},
                                           {"user_tag", "human"},
                                           {"user_tag", "user"},
                                           {"assistant_tag", "gpt"},
                                           {"assistant_tag", "assistant"},
                                           {"observation_tag", "observation"},
                                           {"function_tag", "function_call"},
                                           {"system_tag", "system"}};
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        if (strcmp(key, usual[i][0]) == 0 && strcmp(value, usual[i][1]) == 0) return true;
    return false;
}

/* A column of raw text is called "text" here, and "prompt" there. */
static tn_status check_names(const tn_json *entry, const char *map, const char *registry, const char *name) {
    const tn_json *names = tn_json_get(entry, map);
    for (int64_t i = 0; names && names->type == TN_JSON_OBJECT && i < names->count; i++) {
        const tn_member *m = &names->members[i];
        const char *value = tn_json_string(&m->value, NULL);
        if (tn_json_is_null(&m->value) || (value && is_usual(m->key, value))) continue;
        if (value && strcmp(m->key, "prompt") == 0 && strcmp(value, "text") == 0 && names->count == 1) continue;
        tn_fail(TN_USAGE, "%s: %s calls its %s \"%s\", which is not a name known here", registry, name, m->key,
                value ? value : tn_json_type_name(&m->value));
        return tn_remedy(
            "rename the column in the data set, e.g. to instruction/input/output or messages with role and "
            "content, and give its file as dataset");
    }
    return TN_OK;
}

static tn_status read_entry(tn_arena *arena, const tn_json *entry, const char *registry, const char *name,
                            const char *directory, const char **path) {
    const char *file = tn_json_string(tn_json_get(entry, "file_name"), NULL);
    tn_status status;
    if (!file) {
        tn_fail(TN_USAGE, "%s: %s has no file_name: it is on the hub", registry, name);
        return tn_remedy("download it beforehand, and give its file as dataset");
    }
    if (tn_json_boolean(tn_json_get(entry, "ranking"), false)) {
        tn_fail(TN_USAGE, "%s: %s holds preferences (ranking), which are not trained on yet", registry, name);
        return tn_remedy("give a data set of conversations");
    }
    TN_TRY(check_names(entry, "columns", registry, name));
    TN_TRY(check_names(entry, "tags", registry, name));
    *path = *file == '/' ? file : tn_path_join(arena, directory, file);
    if (!*path) TN_THROW(TN_FAILED, "out of memory for a path");
    if (!tn_is_file(*path)) {
        tn_fail(TN_USAGE, "%s: the file of %s, %s, does not exist", registry, name, *path);
        status = tn_remedy("file_name is relative to dataset_dir (%s)", directory);
    }
done:
    return status;
}

tn_status tn_find_dataset(tn_arena *arena, const char *key, const char *name, const char *directory,
                          const char **path) {
    const tn_json *root, *entry;
    *path = name;
    if (access(name, F_OK) == 0) return TN_OK; /* a directory or a pipe is the reader's to refuse */
    const char *registry = tn_path_join(arena, directory, "dataset_info.json");
    if (!registry) return tn_fail_memory(256, "a path");
    if (!tn_is_file(registry)) return fail_missing(key, name, registry);
    tn_status status = tn_json_read_file(arena, registry, TN_JSON_DEFAULT, &root);
    if (status != TN_OK) return status;
    if (!(entry = tn_json_get(root, name))) return fail_missing(key, name, registry);
    status = read_entry(arena, entry, registry, name, directory, path);
    if (status == TN_OK) tn_info("%s: %s is %s", key, name, *path);
    return status;
}

/* ---- Templates ----------------------------------------------------------------------------------- */

/* Families of templates by how their names begin, and what marks a turn in each. The longest name that fits
 * counts. */
static const struct {
    const char *name, *mark;
} kinds[] = {{"chatml", "<|im_start|>"},     {"qwen", "<|im_start|>"},    {"smollm", "<|im_start|>"},
             {"hermes", "<|im_start|>"},     {"yi", "<|im_start|>"},      {"llama3", "<|start_header_id|>"},
             {"llama2", "[INST]"},           {"mistral", "[INST]"},       {"ministral", "[INST]"},
             {"gemma", "<start_of_turn>"},   {"phi4", "<|im_sep|>"},      {"phi_4", "<|im_sep|>"},
             {"phi", "<|assistant|>"},       {"zephyr", "<|assistant|>"}, {"granite", "<|start_of_role|>"},
             {"deepseek", "<｜Assistant｜>"}};

static const char *mark_of(const char *name) {
    size_t best = 0;
    const char *mark = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t length = strlen(kinds[i].name);
        if (length <= best || strncmp(name, kinds[i].name, length) != 0) continue;
        best = length, mark = kinds[i].mark;
    }
    return mark;
}

static tn_status check_name(const tn_chat *chat, const char *name) {
    const char *source = tn_chat_template_source(chat), *mark = mark_of(name);
    bool own = strncmp(name, "tokenizer_default", 17) == 0;
    /* LLaMA-Factory's name for the family's template without its block of thoughts. */
    bool thinks = source && strstr(name, "_nothink") && strstr(source, "<think>");
    if (source && !thinks && (own || (mark && strstr(source, mark)))) {
        tn_info("chat_template %s: the tokenizer's own template is used%s%s", name,
                own ? "" : ", which marks turns with ", own ? "" : mark);
        return TN_OK;
    }
    if (!source) tn_fail(TN_USAGE, "chat_template: %s is asked for, and the tokenizer has no template", name);
    else tn_fail(TN_USAGE, "chat_template: the tokenizer's own template is not known to be %s", name);
    return tn_remedy(
        "leave it out to use the tokenizer's own, or give the template itself: --chat_template FILE.jinja");
}

tn_status tn_choose_template(tn_chat *chat, const char *wanted) {
    tn_arena arena = {0};
    tn_str text = {0};
    tn_status status = TN_OK;
    if (!wanted || !*wanted) return TN_OK;
    if (!chat) {
        tn_info("ignored: chat_template (the model has no tokenizer, so there are no chats)");
        return TN_OK;
    }
    if (strstr(wanted, "{%") || strstr(wanted, "{{")) {
        status = tn_chat_set_template(chat, wanted, (int64_t)strlen(wanted), "chat_template");
        goto done;
    }
    const char *path = tn_is_directory(wanted) ? tn_path_join(&arena, wanted, "chat_template.jinja") : wanted;
    if (path && tn_is_file(path)) {
        TN_TRY(tn_read_file(path, LARGEST_TEMPLATE, &text));
        TN_TRY(tn_chat_set_template(chat, tn_str_text(&text), text.length, path));
        tn_info("chat_template: %s is used instead of the tokenizer's", path);
    } else if (strchr(wanted, '/') || tn_ends_with(wanted, ".jinja")) {
        tn_fail(TN_USAGE, "chat_template: there is no file %s", wanted);
        status = tn_remedy("give a .jinja file, or a folder with chat_template.jinja");
    } else {
        status = check_name(chat, wanted);
    }
done:
    tn_str_free(&text);
    tn_arena_free(&arena);
    return status;
}
