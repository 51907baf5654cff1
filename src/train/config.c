/* config.c: the store behind tn_config. For every key it keeps what each source gave (default, checkpoint,
 * adapter, file, flag); the value in force is that of the strongest source that gave one, whatever the order of
 * the calls.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "train/config_foreign.h"
#include "train/config_table.h"

enum { YAML_LIMIT = 1 << 20 };

static const char *const source_names[TN_SOURCES] = {"the default", "the checkpoint", "the adapter", "the file",
                                                     "the command line"};

/* Keeps `word` where it is nearer to `name` than *best. */
static void nearer(const char *word, const char *name, int *best, char nearest[64]) {
    int distance = tn_edit_distance(name, word);
    if (distance >= *best) return;
    *best = distance;
    snprintf(nearest, 64, "%s", word);
}

/* The same with each of a comma-separated list. */
static void nearer_in(const char *list, const char *name, int *best, char nearest[64]) {
    for (size_t length; *list; list += length + (list[length] == ',')) {
        char word[64] = "";
        length = strcspn(list, ",");
        if (length >= sizeof word) continue;
        memcpy(word, list, length);
        nearer(word, name, best, nearest);
    }
}

static tn_status not_known(const char *what, const char *name, const char *nearest) {
    return tn_fail(TN_USAGE, "unknown %s '%s'%s%s%s", what, name, *nearest ? "; did you mean '" : "", nearest,
                   *nearest ? "'?" : "");
}

static tn_status verb_bit(const char *verb, uint32_t *bit) {
    char nearest[64] = "";
    int best = (int)strlen(verb) / 2 + 1;
    for (int i = 0; i < tn_config_verb_count; i++) {
        if (strcmp(tn_config_verbs[i], verb) == 0) {
            *bit = 1u << i;
            return TN_OK;
        }
        nearer(tn_config_verbs[i], verb, &best, nearest);
    }
    not_known("verb", verb, nearest);
    return tn_remedy("`tenon help` lists the verbs");
}

tn_status tn_config_new(const char *verb, tn_config **config) {
    tn_status status = TN_OK;
    uint32_t bit;
    tn_config *c = NULL;
    *config = NULL;
    TN_TRY(verb_bit(verb, &bit));
    TN_TRY(tn_alloc(&c, 1, sizeof *c, "a configuration"));
    TN_TRY(tn_alloc(&c->entries, tn_config_key_count, sizeof *c->entries, "a configuration"));
    c->verb_bit = bit;
    for (int i = 0; i < tn_config_verb_count; i++)
        if (bit == 1u << i) c->verb = tn_config_verbs[i];
    for (int i = 0; i < tn_config_key_count; i++) {
        const tn_key *key = &tn_config_keys[i];
        tn_value *value = &c->entries[i].given[TN_SET_DEFAULT];
        if (*key->standard) TN_TRY(tn_value_from_text(&c->arena, key, key->name, key->standard, value));
    }
    *config = c;
    c = NULL;
done:
    tn_config_free(c);
    return status;
}

void tn_config_free(tn_config *config) {
    if (!config) return;
    tn_arena_free(&config->arena);
    free(config->entries);
    free(config);
}

int tn_config_row(const char *name) {
    for (int i = 0; i < tn_config_key_count; i++)
        if (strcmp(tn_config_keys[i].name, name) == 0 || tn_word_in(tn_config_keys[i].aliases, name)) return i;
    return -1;
}

static int find_known(const tn_config *config, const char *name) {
    int i = tn_config_row(name);
    return i >= 0 && (tn_config_keys[i].verbs & config->verb_bit) ? i : -1;
}

static tn_status unknown_key(const tn_config *config, const char *name) {
    int row = tn_config_row(name), best = (int)strlen(name) / 2 + 2;
    char nearest[64] = "";
    if (row >= 0) {
        tn_str verbs = {0};
        for (int i = 0; i < tn_config_verb_count; i++)
            if (tn_config_keys[row].verbs >> i & 1u)
                tn_str_printf(&verbs, "%s%s", verbs.length ? ", " : "", tn_config_verbs[i]);
        tn_fail(TN_USAGE, "'%s' is not a key of %s; it is one of: %s", name, config->verb, tn_str_text(&verbs));
        tn_str_free(&verbs);
        return tn_remedy("leave it out; `tenon help %s` lists the keys", config->verb);
    }
    for (int i = 0; i < tn_config_key_count; i++) {
        if (!(tn_config_keys[i].verbs & config->verb_bit)) continue;
        nearer_in(tn_config_keys[i].name, name, &best, nearest);
        nearer_in(tn_config_keys[i].aliases, name, &best, nearest);
    }
    not_known("key", name, nearest);
    return tn_remedy("`tenon help %s` lists the keys", config->verb);
}

static bool same_text(const char *a, const char *b) { return a == b || (a && b && strcmp(a, b) == 0); }

/* Two spellings of one key in one source must agree: which of them was meant cannot be told. */
tn_status tn_config_put(tn_config *config, int row, tn_setter setter, tn_value value) {
    tn_value *slot = &config->entries[row].given[setter];
    if (slot->set && strcmp(slot->spelling, value.spelling) != 0 && !same_text(slot->text, value.text)) {
        const char *first = slot->text ? slot->text : "none", *second = value.text ? value.text : "none";
        tn_fail(TN_USAGE, "%s and %s are one key, and %s gives it two values: %s and %s", slot->spelling,
                value.spelling, source_names[setter], first, second);
        return tn_remedy("keep one of the two");
    }
    *slot = value;
    return TN_OK;
}

static tn_status set_text(tn_config *config, const char *name, const char *text, tn_setter setter) {
    int row = find_known(config, name);
    tn_value value;
    if (row < 0) return unknown_key(config, name);
    const char *spelling = tn_arena_text(&config->arena, name, (int64_t)strlen(name));
    if (!spelling) return tn_fail_memory((int64_t)strlen(name), "a setting");
    tn_status status = tn_value_from_text(&config->arena, &tn_config_keys[row], spelling, text, &value);
    return status == TN_OK ? tn_config_put(config, row, setter, value) : status;
}

/* On the command line an empty word is a shell variable that is not set, and "none" would be a guess. A text
 * may be empty, but no template is. */
static tn_status check_empty(const tn_config *config, const char *name, const char *text) {
    int row = find_known(config, name);
    if (row < 0 || text[strspn(text, " \t\r\n")]) return TN_OK;
    const tn_key *key = &tn_config_keys[row];
    if (key->kind == TN_KEY_TEXT && strcmp(key->name, "chat_template") != 0) return TN_OK;
    tn_str expected = {0};
    tn_value_expected(key, &expected);
    tn_fail(TN_USAGE, "%s: the value is empty, as that of a shell variable that is not set", name);
    tn_remedy("expected %s; leave %s out otherwise", tn_str_text(&expected), name);
    tn_str_free(&expected);
    return TN_USAGE;
}

tn_status tn_config_set(tn_config *config, const char *key, const char *value) {
    tn_status status = check_empty(config, key, value);
    return status == TN_OK ? set_text(config, key, value, TN_SET_FLAG) : status;
}

tn_status tn_config_inherit(tn_config *config, const char *key, const char *value, tn_setter setter) {
    return set_text(config, key, value, setter);
}

tn_status tn_config_inherit_node(tn_config *config, const char *key, const tn_json *node, tn_setter setter) {
    int row = find_known(config, key);
    tn_value value;
    if (row < 0) return unknown_key(config, key);
    const char *spelling = tn_arena_text(&config->arena, key, (int64_t)strlen(key));
    if (!spelling) return tn_fail_memory((int64_t)strlen(key), "a setting");
    tn_status status = tn_value_from_node(&config->arena, &tn_config_keys[row], spelling, node, &value);
    return status == TN_OK ? tn_config_put(config, row, setter, value) : status;
}

tn_status tn_config_load(tn_config *config, const char *yaml_path) {
    tn_status status = TN_OK;
    tn_str text = {0};
    const tn_json *root = NULL;
    TN_TRY(tn_read_file(yaml_path, YAML_LIMIT, &text));
    TN_TRY(tn_yaml_parse(&config->arena, tn_str_text(&text), text.length, yaml_path, &root));
    if (tn_json_is_null(root)) goto done;
    if (root->type != TN_JSON_OBJECT)
        TN_THROW(TN_USAGE, "%s: expected lines of 'key: value', found %s", yaml_path, tn_json_type_name(root));
    status = tn_context(tn_config_take_file(config, root), "%s", yaml_path);
done:
    tn_str_free(&text);
    if (status == TN_BAD_DATA)
        status = tn_fail(TN_USAGE, "%s", tn_error_message()); /* configuration, not data */
    return status;
}

static tn_setter strongest(const tn_entry *e) {
    for (int s = TN_SOURCES - 1; s > TN_SET_DEFAULT; s--)
        if (e->given[s].set) return (tn_setter)s;
    return TN_SET_DEFAULT;
}

const tn_value *tn_config_value(const tn_config *config, int row) {
    const tn_entry *e = &config->entries[row];
    return &e->given[strongest(e)];
}

tn_setter tn_config_setter(const tn_config *config, const char *key) {
    int row = tn_config_row(key);
    return row < 0 ? TN_SET_DEFAULT : strongest(&config->entries[row]);
}

tn_status tn_config_unused(tn_config *config, const char *key, const char *reason) {
    int row = tn_config_row(key);
    tn_entry *e = &config->entries[row];
    tn_setter setter = strongest(e);
    if (setter < TN_SET_FILE || same_text(e->given[setter].text, e->given[TN_SET_DEFAULT].text)) return TN_OK;
    if (setter == TN_SET_FLAG) {
        tn_fail(TN_USAGE, "%s has no effect: %s", key, reason);
        return tn_remedy("leave %s out, or give what it needs", key);
    }
    if (!e->unused) tn_warn("%s has no effect: %s", key, reason);
    e->unused = true;
    return TN_OK;
}

bool tn_config_is_boolean(const tn_config *config, const char *key) {
    int row = find_known(config, key);
    return row >= 0 && tn_config_keys[row].kind == TN_KEY_BOOLEAN;
}

const char *tn_config_get(const tn_config *config, const char *key) {
    int row = find_known(config, key);
    if (row < 0) return NULL;
    const char *text = tn_config_value(config, row)->text;
    return text ? text : "";
}

const char *tn_config_given(const tn_config *config, const char *key, tn_setter setter) {
    int row = find_known(config, key);
    if (row < 0 || !config->entries[row].given[setter].set) return NULL;
    const char *text = config->entries[row].given[setter].text;
    return text ? text : "";
}

tn_status tn_config_used(tn_config *config, const char *key, const char *value) {
    int row = find_known(config, key);
    tn_value read;
    if (row < 0) return unknown_key(config, key);
    tn_status status =
        tn_value_from_text(&config->arena, &tn_config_keys[row], tn_config_keys[row].name, value, &read);
    if (status == TN_OK) config->entries[row].used = read.text ? read.text : "";
    return status;
}

bool tn_config_key(const char *verb, int64_t index, tn_key_info *info) {
    uint32_t bit = 0;
    if (verb_bit(verb, &bit) != TN_OK) return false;
    for (int i = 0; i < tn_config_key_count; i++) {
        const tn_key *key = &tn_config_keys[i];
        if (!(key->verbs & bit) || index-- > 0) continue;
        *info = (tn_key_info){key->name, key->aliases, tn_key_kind_name(key->kind), key->standard, key->help};
        return true;
    }
    return false;
}
