/* config_datasets.c: axolotl's list of data sets: each entry a path, what its records are, and how a
 * conversation's keys are called. Records are recognised by their keys here, so an entry is taken where its
 * names are those we know, and refused where they would be read otherwise.
 */
#include <string.h>

#include "train/config_foreign.h"
#include "train/config_table.h"

typedef struct taking {
    tn_config *config;
    const char *spelling;
    tn_str paths;
    const char *format, *chat_template; /* of the entries so far; NULL = not said */
    int64_t entries;
} taking;

static tn_status refuse_entry(const taking *t, const char *what, const char *value, const char *remedy) {
    tn_fail(TN_USAGE, "%s: entry %lld: %s: %s is not known here", t->spelling, (long long)t->entries, what,
            value);
    return tn_remedy("%s", remedy);
}

/* ---- What an entry says of its records ------------------------------------------------------------ */

/* axolotl's `type`: its own prompts are text of their own, and only Alpaca's is among ours. */
static tn_status take_type(taking *t, const tn_json *type) {
    static const char *const known[][2] = {{"alpaca", "alpaca_prompt"},
                                           {"chat_template", ""},
                                           {"sharegpt", "conversations"},
                                           {"completion", "text"}};
    const char *name = tn_json_string(type, NULL), *format = NULL;
    if (tn_json_is_null(type)) return TN_OK;
    for (size_t i = 0; name && i < sizeof known / sizeof *known; i++)
        if (strcmp(name, known[i][0]) == 0) format = known[i][1];
    if (!format)
        return refuse_entry(
            t, "type", name ? name : tn_json_type_name(type),
            "alpaca, chat_template, sharegpt and completion are; or write the records as messages, "
            "and give dataset: FILE.jsonl");
    if (t->format && strcmp(t->format, format) != 0)
        return refuse_entry(t, "a second type", name,
                            "data sets of one run are of one type: convert them to messages");
    t->format = format;
    return TN_OK;
}

static bool is_one_of(const tn_json *value, const char *words) {
    return tn_json_is_null(value) || (value->type == TN_JSON_STRING && tn_word_in(words, value->string));
}

/* {assistant: [gpt, assistant], …}: names we give to the same roles. */
static bool usual_roles(const tn_json *roles) {
    static const char *const names[][2] = {{"user", "user,human"},
                                           {"assistant", "assistant,gpt,model"},
                                           {"system", "system"},
                                           {"tool", "tool,observation"}};
    if (tn_json_is_null(roles)) return true;
    if (roles->type != TN_JSON_OBJECT) return false;
    for (int64_t i = 0; i < roles->count; i++) {
        const char *words = NULL;
        const tn_json *list = &roles->members[i].value;
        for (size_t n = 0; n < sizeof names / sizeof *names; n++)
            if (strcmp(roles->members[i].key, names[n][0]) == 0) words = names[n][1];
        if (!words) return false;
        for (int64_t k = 0; list->type == TN_JSON_ARRAY && k < list->count; k++)
            if (!is_one_of(&list->items[k], words)) return false;
        if (list->type != TN_JSON_ARRAY && !is_one_of(list, words)) return false;
    }
    return true;
}

static bool assistants_only(const tn_json *roles) {
    for (int64_t i = 0; !tn_json_is_null(roles) && i < roles->count; i++)
        if (roles->type != TN_JSON_ARRAY || !is_one_of(&roles->items[i], "assistant,gpt")) return false;
    return true;
}

static bool usual_mappings(const tn_json *map) {
    if (tn_json_is_null(map)) return true;
    if (map->type != TN_JSON_OBJECT) return false;
    for (int64_t i = 0; i < map->count; i++) {
        const char *key = map->members[i].key;
        const char *words = strcmp(key, "role") == 0      ? "role,from"
                            : strcmp(key, "content") == 0 ? "content,value"
                                                          : key;
        if (!is_one_of(&map->members[i].value, words)) return false;
    }
    return true;
}

/* ---- Paths ---------------------------------------------------------------------------------------- */

static tn_status add_path(taking *t, const char *directory, const char *name) {
    if (strchr(name, ',')) return refuse_entry(t, "a path with a comma", name, "rename the file");
    tn_str_printf(&t->paths, "%s%s%s%s", t->paths.length ? "," : "", directory ? directory : "",
                  directory ? "/" : "", name);
    return TN_OK;
}

/* `path` is a file, or a reader's name or a folder whose `data_files` are meant. */
static tn_status take_paths(taking *t, const tn_json *entry) {
    const tn_json *files = tn_json_get(entry, "data_files");
    const char *path = tn_json_string(tn_json_get(entry, "path"), NULL);
    if (!path)
        return refuse_entry(t, "path", tn_json_type_name(tn_json_get(entry, "path")), "path: FILE.jsonl");
    if (tn_json_is_null(files)) return add_path(t, NULL, path);
    const char *directory = tn_word_in("json,csv,text", path) ? NULL : path;
    if (files->type == TN_JSON_STRING) return add_path(t, directory, files->string);
    for (int64_t i = 0; i < files->count; i++) {
        const char *name = files->type == TN_JSON_ARRAY ? tn_json_string(&files->items[i], NULL) : NULL;
        if (!name)
            return refuse_entry(t, "data_files", tn_json_type_name(files), "data_files: FILE.jsonl, or a list");
        tn_status status = add_path(t, directory, name);
        if (status != TN_OK) return status;
    }
    return TN_OK;
}

/* ---- Entries -------------------------------------------------------------------------------------- */

static const char *value_text(const tn_json *value) {
    return value->type == TN_JSON_STRING ? value->string : tn_json_type_name(value);
}

static tn_status take_member(taking *t, const tn_member *m) {
    static const struct {
        const char *name, *words;
    } words[] = {{"field_messages", "messages,conversations"},
                 {"message_field_role", "role,from"},
                 {"message_field_content", "content,value"},
                 {"message_field_training", "train,training,weight"},
                 {"field", "text"},
                 {"split", "train"},
                 {"train_on_eos", "turn"},
                 {"ds_type", "json,csv,text"}};
    const char *remedy = "write the records as messages, and give dataset: FILE.jsonl";
    const tn_json *value = &m->value;
    if (tn_json_is_null(value) || tn_word_in("path,data_files,name,trust_remote_code,revision", m->key))
        return TN_OK;
    if (strcmp(m->key, "type") == 0) return take_type(t, value);
    if (strcmp(m->key, "chat_template") == 0 && value->type == TN_JSON_STRING) {
        t->chat_template = value->string;
        return TN_OK;
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(m->key, words[i].name) == 0 && is_one_of(value, words[i].words)) return TN_OK;
    if (strcmp(m->key, "roles") == 0 && usual_roles(value)) return TN_OK;
    if (strcmp(m->key, "roles_to_train") == 0 && assistants_only(value)) return TN_OK;
    if (strcmp(m->key, "message_property_mappings") == 0 && usual_mappings(value)) return TN_OK;
    return refuse_entry(t, m->key, value_text(value), remedy);
}

static tn_status take_entry(taking *t, const tn_json *entry) {
    t->entries++;
    if (entry->type != TN_JSON_OBJECT)
        return refuse_entry(t, "an entry", value_text(entry), "- path: FILE.jsonl");
    for (int64_t i = 0; i < entry->count; i++) {
        tn_status status = take_member(t, &entry->members[i]);
        if (status != TN_OK) return status;
    }
    return take_paths(t, entry);
}

static tn_status give(const taking *t, const char *key, const char *text) {
    int row = tn_config_row(key);
    tn_value value;
    if (!text || !*text) return TN_OK;
    if (!(tn_config_keys[row].verbs & t->config->verb_bit))
        return tn_fail(TN_USAGE, "'%s' (%s) is not a key of %s", t->spelling, key, t->config->verb);
    tn_status status = tn_value_from_text(&t->config->arena, &tn_config_keys[row], t->spelling, text, &value);
    return status == TN_OK ? tn_config_put(t->config, row, TN_SET_FILE, value) : status;
}

tn_status tn_config_take_datasets(tn_config *config, const char *spelling, const char *key,
                                  const tn_json *list) {
    taking t = {.config = config, .spelling = spelling};
    tn_status status = TN_OK;
    if (list->type != TN_JSON_ARRAY)
        TN_THROW(TN_USAGE, "%s: expected a list of data sets, found %s", spelling, tn_json_type_name(list));
    for (int64_t i = 0; i < list->count; i++) TN_TRY(take_entry(&t, &list->items[i]));
    TN_TRY(tn_str_check(&t.paths, "a list of data sets"));
    TN_TRY(give(&t, key, tn_str_text(&t.paths)));
    TN_TRY(give(&t, "dataset_format", t.format));
    status = give(&t, "chat_template", t.chat_template);
done:
    tn_str_free(&t.paths);
    return status;
}
