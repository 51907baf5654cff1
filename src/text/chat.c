/* chat.c: what a model's files say about chats, gathered once: tokenizer, template, special tokens.
 *
 * The template is that of chat_template.jinja, else of tokenizer_config.json (a string, or a list with
 * "default" and "tool_use"), else of chat_template.json; a GGUF file has keys for all of it. A template that
 * does not compile is no obstacle to opening: it is an error only where a chat is to be rendered.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "text/chat_files.h"

enum { LARGEST_TEMPLATE_FILE = 4 << 20 };

/* ---- Special tokens ---- */

/* A token is a string, or an object whose "content" is one. */
static const tn_json *token_content(const tn_json *node) {
    if (node && node->type == TN_JSON_OBJECT) node = tn_json_get(node, "content");
    return node && node->type == TN_JSON_STRING ? node : NULL;
}

static bool is_listed(const tn_chat *chat, const tn_member *member) {
    for (int64_t i = 0; i < chat->special_count; i++)
        if (chat->specials[i].key_length == member->key_length &&
            memcmp(chat->specials[i].key, member->key, (size_t)member->key_length) == 0)
            return true;
    return false;
}

static tn_status add_special(tn_chat *chat, tn_member member) {
    tn_status status = tn_grow(&chat->specials, &chat->special_capacity, chat->special_count + 1,
                               sizeof *chat->specials, "special tokens");
    if (status == TN_OK && !is_listed(chat, &member)) chat->specials[chat->special_count++] = member;
    return status;
}

/* Every "…_token" of tokenizer_config.json or special_tokens_map.json, and the named extra ones. The file read
 * first wins; a null there says that there is no such token. */
static tn_status add_specials(tn_chat *chat, const tn_json *config) {
    static const char suffix[] = "_token";
    tn_status status = TN_OK;
    const tn_json *extra = tn_json_get(config, "extra_special_tokens");
    for (int64_t i = 0; config && config->type == TN_JSON_OBJECT && i < config->count; i++) {
        const tn_member *member = &config->members[i];
        const tn_json *content = token_content(&member->value);
        if (!tn_ends_with(member->key, suffix) || (!content && !tn_json_is_null(&member->value))) continue;
        TN_TRY(add_special(chat,
                           (tn_member){member->key, member->key_length, content ? *content : member->value}));
    }
    for (int64_t i = 0; extra && extra->type == TN_JSON_OBJECT && i < extra->count; i++) {
        const tn_json *content = token_content(&extra->members[i].value);
        if (content)
            TN_TRY(
                add_special(chat, (tn_member){extra->members[i].key, extra->members[i].key_length, *content}));
    }
done:
    return status;
}

/* Id of the special token called `name`, -1 where there is none. */
static int32_t special_id(const tn_chat *chat, const char *name) {
    for (int64_t i = 0; i < chat->special_count; i++) {
        const tn_member *member = &chat->specials[i];
        if (strcmp(member->key, name) == 0 && member->value.type == TN_JSON_STRING)
            return tn_text_id(chat->text, member->value.string);
    }
    return -1;
}

/* ---- Templates ---- */

static tn_status set_template(tn_chat *chat, chat_template *template, const tn_json *source, const char *name) {
    if (!source || source->type != TN_JSON_STRING || template->source) return TN_OK;
    template->source = tn_arena_text(&chat->arena, source->string, source->count);
    template->name = tn_arena_text(&chat->arena, name, (int64_t)strlen(name));
    if (!template->source || !template->name) return tn_fail_memory(source->count, "chat template");
    template->length = source->count;
    tn_status status = tn_template_compile(source->string, source->count, name, &template->compiled);
    if (status != TN_BAD_DATA) return status;
    template->error = tn_arena_printf(&chat->arena, "%s", tn_error_message());
    return template->error ? TN_OK : tn_fail_memory(1, "chat template");
}

/* The value of "chat_template" in the JSON file `file`: one template, or a list of named ones. */
static tn_status set_templates(tn_chat *chat, const tn_json *node, const char *directory, const char *file) {
    tn_status status = TN_OK;
    const char *path = tn_path_join(&chat->arena, directory, file);
    const char *name = path ? tn_arena_printf(&chat->arena, "%s: chat_template", path) : NULL;
    if (!name) return tn_fail_memory(1, "path");
    TN_TRY(set_template(chat, &chat->standard, node, name));
    for (int64_t i = 0; node && node->type == TN_JSON_ARRAY && i < node->count; i++) {
        const tn_json *source = tn_json_get(&node->items[i], "template"),
                      *which = tn_json_get(&node->items[i], "name");
        if (tn_json_is_string(which, "default")) TN_TRY(set_template(chat, &chat->standard, source, name));
        if (tn_json_is_string(which, "tool_use")) TN_TRY(set_template(chat, &chat->tool_use, source, name));
    }
done:
    return status;
}

static tn_status read_template_file(tn_chat *chat, const char *directory, const char *name,
                                    chat_template *template) {
    tn_status status = TN_OK;
    tn_str text = {0};
    const char *path = tn_path_join(&chat->arena, directory, name);
    if (!path) return tn_fail_memory(1, "path");
    if (tn_is_file(path)) {
        TN_TRY(tn_read_file(path, LARGEST_TEMPLATE_FILE, &text));
        tn_json source = {.type = TN_JSON_STRING, .count = text.length, .string = tn_str_text(&text)};
        TN_TRY(set_template(chat, template, &source, path));
    }
done:
    tn_str_free(&text);
    return status;
}

/* ---- Opening ---- */

const char *const tn_chat_file_names[TN_CHAT_FILES] = {"tokenizer.json", "tokenizer_config.json",
                                                       "special_tokens_map.json"};

static tn_status keep_files(tn_chat *chat, const char *directory) {
    tn_map map = {0};
    tn_status status = TN_OK;
    for (int i = 0; i < TN_CHAT_FILES; i++) {
        const char *path = tn_path_join(&chat->arena, directory, tn_chat_file_names[i]);
        if (!path) TN_THROW(TN_FAILED, "out of memory for a path");
        if (!tn_is_file(path)) continue;
        TN_TRY(tn_map_open(path, &map));
        chat->files[i].text = tn_arena_text(&chat->arena, (const char *)map.data, map.bytes);
        chat->files[i].length = map.bytes;
        tn_map_close(&map);
        if (!chat->files[i].text) return tn_fail_memory(chat->files[i].length, tn_chat_file_names[i]);
    }
done:
    return status;
}

/* The JSON file `name` of a directory, NULL where it is not there. */
static tn_status read_json(tn_chat *chat, const char *directory, const char *name, const tn_json **root) {
    const char *path = tn_path_join(&chat->arena, directory, name);
    *root = NULL;
    if (!path) return tn_fail_memory(1, "path");
    return tn_is_file(path) ? tn_json_read_file(&chat->arena, path, TN_JSON_EXTENSIONS, root) : TN_OK;
}

static tn_status open_directory(tn_chat *chat, const char *directory) {
    tn_status status = TN_OK;
    const tn_json *map, *processor;
    const char *tokenizer = tn_path_join(&chat->arena, directory, "tokenizer.json");
    if (!tokenizer) TN_THROW(TN_FAILED, "out of memory for a path");
    TN_TRY(tn_text_from_json(tokenizer, &chat->text));
    TN_TRY(keep_files(chat, directory));
    TN_TRY(read_json(chat, directory, "tokenizer_config.json", &chat->config));
    TN_TRY(read_json(chat, directory, "special_tokens_map.json", &map));
    TN_TRY(read_json(chat, directory, "chat_template.json", &processor));
    TN_TRY(add_specials(chat, chat->config));
    TN_TRY(add_specials(chat, map));
    TN_TRY(read_template_file(chat, directory, "chat_template.jinja", &chat->standard));
    TN_TRY(read_template_file(chat, directory, "additional_chat_templates/tool_use.jinja", &chat->tool_use));
    if (!chat->standard.source)
        TN_TRY(set_templates(chat, tn_json_get(chat->config, "chat_template"), directory,
                             "tokenizer_config.json"));
    TN_TRY(set_templates(chat, tn_json_get(processor, "chat_template"), directory, "chat_template.json"));
    chat->bos = special_id(chat, "bos_token");
    chat->eos = special_id(chat, "eos_token");
    chat->pad = special_id(chat, "pad_token");
done:
    return status;
}

/* A GGUF's special token by its id, as the template's variable `name`. */
static tn_status add_special_by_id(tn_chat *chat, const char *name, int32_t id) {
    int64_t length;
    const char *content = id < 0 ? NULL : tn_text_token(chat->text, id, &length);
    if (!content) return TN_OK;
    const char *copy = tn_arena_text(&chat->arena, content, length);
    if (!copy) return tn_fail_memory(length, "special token");
    tn_json value = {.type = TN_JSON_STRING, .count = length, .string = copy};
    return add_special(chat, (tn_member){name, (int64_t)strlen(name), value});
}

static tn_status open_gguf(tn_chat *chat, const char *path) {
    tn_status status = TN_OK;
    tn_gguf *file = NULL;
    tn_special_ids ids;
    TN_TRY(tn_gguf_open(path, &file));
    TN_TRY(tn_text_from_gguf(tn_gguf_metadata(file), path, &chat->text));
    tn_text_special_ids(chat->text, &ids);
    TN_TRY(add_special_by_id(chat, "bos_token", ids.bos));
    TN_TRY(add_special_by_id(chat, "eos_token", ids.eos));
    TN_TRY(add_special_by_id(chat, "pad_token", ids.pad));
    TN_TRY(add_special_by_id(chat, "unk_token", ids.unk));
    TN_TRY(set_template(chat, &chat->standard, tn_gguf_get(file, "tokenizer.chat_template"), path));
    TN_TRY(set_template(chat, &chat->standard, tn_gguf_get(file, "tokenizer.chat_template.default"), path));
    TN_TRY(set_template(chat, &chat->tool_use, tn_gguf_get(file, "tokenizer.chat_template.tool_use"), path));
    chat->bos = ids.bos, chat->eos = ids.eos, chat->pad = ids.pad;
done:
    tn_gguf_close(file);
    return status;
}

static bool is_gguf(const char *path) {
    char magic[4] = "";
    FILE *file = tn_is_file(path) ? fopen(path, "rb") : NULL;
    if (!file) return false;
    size_t bytes = fread(magic, 1, sizeof magic, file);
    fclose(file);
    return bytes == sizeof magic && memcmp(magic, "GGUF", sizeof magic) == 0;
}

/* Over tokenizer, templates and special tokens; each part with its length, so that nothing can move between
 * them. */
static bool asks_for_date(const tn_chat *chat) {
    const chat_template *templates[] = {&chat->standard, &chat->tool_use};
    for (int i = 0; i < 2; i++) /* the arena ends its texts with a zero */
        if (templates[i]->source && strstr(templates[i]->source, "strftime_now")) return true;
    return false;
}

static tn_status hash_all(tn_chat *chat) {
    tn_status status = TN_OK;
    tn_hasher hasher;
    int64_t length;
    const char *json = tn_text_json(chat->text, &length);
    if (!json) json = chat->files[TN_CHAT_TOKENIZER].text, length = chat->files[TN_CHAT_TOKENIZER].length;
    TN_TRY(tn_hash_begin(&hasher));
    tn_hash_add(&hasher, &length, sizeof length);
    tn_hash_add(&hasher, json, length);
    const chat_template *templates[] = {&chat->standard, &chat->tool_use};
    for (int i = 0; i < 2; i++) {
        tn_hash_add(&hasher, &templates[i]->length, sizeof templates[i]->length);
        tn_hash_add(&hasher, templates[i]->source, templates[i]->length);
    }
    for (int64_t i = 0; i < chat->special_count; i++) {
        const tn_member *special = &chat->specials[i];
        int64_t lengths[2] = {special->key_length,
                              special->value.type == TN_JSON_STRING ? special->value.count : -1};
        tn_hash_add(&hasher, lengths, sizeof lengths);
        tn_hash_add(&hasher, special->key, lengths[0]);
        if (lengths[1] > 0) tn_hash_add(&hasher, special->value.string, lengths[1]);
    }
    int32_t ids[] = {chat->bos, chat->eos, chat->pad};
    tn_hash_add(&hasher, ids, sizeof ids);
    if (asks_for_date(chat)) tn_hash_add(&hasher, chat->date, sizeof chat->date);
    tn_hash_end(&hasher, chat->digits);
done:
    return status;
}

/* Directory of a file, in the arena. */
static const char *directory_of(tn_arena *arena, const char *path) {
    const char *base = tn_path_base(path);
    if (base == path) return ".";
    return base == path + 1 ? "/" : tn_arena_text(arena, path, base - path - 1);
}

tn_status tn_chat_open(const char *path, tn_chat **chat) {
    tn_status status;
    tn_chat *result = NULL;
    *chat = NULL;
    TN_TRY(tn_alloc(&result, 1, sizeof *result, "tokenizer"));
    bool is_json = tn_is_file(path) && strcmp(tn_path_base(path), "tokenizer.json") == 0;
    if (is_gguf(path)) {
        TN_TRY(open_gguf(result, path));
    } else if (tn_is_directory(path) || is_json) {
        const char *directory = is_json ? directory_of(&result->arena, path) : path;
        if (!directory) TN_THROW(TN_FAILED, "out of memory for a path");
        TN_TRY(open_directory(result, directory));
    } else {
        status = tn_fail(TN_USAGE, "%s is no directory with tokenizer.json, no tokenizer.json and no GGUF file",
                         path);
        goto done;
    }
    TN_TRY(hash_all(result));
    *chat = result;
    result = NULL;
done:
    tn_chat_free(result);
    return status;
}

void tn_chat_free(tn_chat *chat) {
    if (!chat) return;
    tn_text_free(chat->text);
    tn_template_free(chat->standard.compiled);
    tn_template_free(chat->tool_use.compiled);
    free(chat->specials);
    tn_arena_free(&chat->arena);
    free(chat);
}

const tn_text *tn_chat_text(const tn_chat *chat) { return chat->text; }
bool tn_chat_has_template(const tn_chat *chat) { return chat->standard.source != NULL; }
const char *tn_chat_template_source(const tn_chat *chat) { return chat->standard.source; }
const char *tn_chat_template_name(const tn_chat *chat) {
    return chat->standard.name ? chat->standard.name : "the chat template";
}
void tn_chat_hash(const tn_chat *chat, char digits[33]) { memcpy(digits, chat->digits, sizeof chat->digits); }
int32_t tn_chat_bos(const tn_chat *chat) { return chat->bos; }
int32_t tn_chat_eos(const tn_chat *chat) { return chat->eos; }
int32_t tn_chat_pad(const tn_chat *chat) { return chat->pad; }

/* "2026-11-26" and no other form; mktime finds the weekday and, by changing it, a 31st of February. */
static bool read_date(const char *text, struct tm *day) {
    char again[16];
    int year, month, date;
    if (strlen(text) != 10 || sscanf(text, "%4d-%2d-%2d", &year, &month, &date) != 3) return false;
    *day = (struct tm){.tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = date, .tm_isdst = -1};
    mktime(day);
    return strftime(again, sizeof again, "%Y-%m-%d", day) == 10 && strcmp(again, text) == 0;
}

static const char template_remedy[] =
    "the fault is in the chat template: correct it, or give another one (chat_template: FILE.jinja)";

tn_status tn_chat_set_template(tn_chat *chat, const char *source, int64_t length, const char *name) {
    tn_json node = {.type = TN_JSON_STRING, .count = length, .string = source};
    tn_template_free(chat->standard.compiled);
    tn_template_free(chat->tool_use.compiled);
    chat->standard = chat->tool_use = (chat_template){0};
    tn_status status = set_template(chat, &chat->standard, &node, name);
    if (status != TN_OK) return status;
    if (chat->standard.error) {
        tn_fail(TN_BAD_DATA, "%s", chat->standard.error);
        return tn_remedy("%s", template_remedy);
    }
    return hash_all(chat);
}

tn_status tn_chat_set_date(tn_chat *chat, const char *date) {
    struct tm day;
    if (!read_date(date, &day)) return tn_fail(TN_USAGE, "\"%s\" is no day; write it like 2026-11-26", date);
    if (!asks_for_date(chat)) return TN_OK;
    snprintf(chat->date, sizeof chat->date, "%s", date);
    if (chat->standard.compiled) tn_template_set_time(chat->standard.compiled, &day);
    if (chat->tool_use.compiled) tn_template_set_time(chat->tool_use.compiled, &day);
    return hash_all(chat);
}

/* ---- Rendering ---- */

static const chat_template *template_for(const tn_chat *chat, const tn_json *record) {
    bool tools = !tn_json_is_null(tn_json_get(record, "tools"));
    return tools && chat->tool_use.source ? &chat->tool_use : &chat->standard;
}

bool tn_chat_template_broken(const tn_chat *chat, const tn_json *record) {
    return template_for(chat, record)->error != NULL;
}

static void put_member(tn_member *members, int64_t *count, const char *key, const tn_json *value) {
    static const tn_json null = {.type = TN_JSON_NULL};
    members[(*count)++] = (tn_member){key, (int64_t)strlen(key), value ? *value : null};
}

tn_status tn_chat_render(const tn_chat *chat, const tn_json *record, tn_str *out, bool *rejected,
                         tn_text_range **ranges, int64_t *count) {
    static const tn_json no = {.type = TN_JSON_BOOLEAN, .boolean = false};
    tn_status status = TN_OK;
    tn_member *members = NULL;
    int64_t used = 0;
    const tn_json *messages = tn_json_get(record, "messages"), *tools = tn_json_get(record, "tools");
    const tn_json *kwargs = tn_json_get(record, "kwargs"),
                  *prompt = tn_json_get(record, "add_generation_prompt");
    const chat_template *template = template_for(chat, record);
    int64_t further = kwargs && kwargs->type == TN_JSON_OBJECT ? kwargs->count : 0;
    bool refused = false;
    if (rejected) *rejected = false;
    if (ranges) *ranges = NULL, *count = 0;
    if (!messages || messages->type != TN_JSON_ARRAY)
        TN_THROW(TN_BAD_DATA, "a conversation without a list of messages");
    if (!template->source) {
        tn_fail(TN_USAGE, "the tokenizer has no chat template");
        return tn_remedy("put a chat_template.jinja beside tokenizer.json, or use plain text records");
    }
    if (template->error) {
        tn_fail(TN_BAD_DATA, "the chat template cannot be used: %s", template->error);
        return tn_remedy("%s", template_remedy);
    }
    TN_TRY(tn_alloc(&members, 4 + chat->special_count + further, sizeof *members, "template variables"));
    for (int64_t i = 0; i < chat->special_count; i++)
        if (chat->specials[i].value.type == TN_JSON_STRING) members[used++] = chat->specials[i];
    put_member(members, &used, "messages", messages);
    put_member(members, &used, "tools", tools);
    put_member(members, &used, "documents", tn_json_get(record, "documents"));
    put_member(members, &used, "add_generation_prompt", prompt ? prompt : &no);
    if (further > 0) memcpy(members + used, kwargs->members, (size_t)further * sizeof *members);
    tn_json variables = {.type = TN_JSON_OBJECT, .count = used + further, .members = members};
    status = tn_template_render(template->compiled, &variables, out, &refused, ranges, count);
    if (rejected) *rejected = refused;
    if (refused)
        tn_remedy(
            "the chat template does not take this conversation: look at its roles, their order and its tools");
    else if (status == TN_BAD_DATA) tn_remedy("%s", template_remedy);
done:
    free(members);
    return status;
}
