/* config_foreign.c: takes a configuration file key by key: ours first, then those of other programs, so that
 * what a file says by our name stands whatever the order. What was read as what, and what was ignored and why,
 * is said in a few lines; keys left out that the other program would have read differently are listed, since
 * ours count.
 */
#include "train/config_foreign.h"

#include <string.h>

#include "base/log.h"
#include "train/config_table.h"

typedef struct loading {
    tn_config *config;
    tn_str read, ignored[TN_REASONS];
    tn_str unused;               /* keys of train, in a file that another verb is given */
    uint32_t marks[TN_PROGRAMS]; /* how many keys of the file only this program's have */
} loading;

/* ---- One value ----------------------------------------------------------------------------------- */

static const tn_foreign_key *find_foreign(const char *name) {
    for (int i = 0; i < tn_foreign_key_count; i++)
        if (strcmp(tn_foreign_keys[i].name, name) == 0) return &tn_foreign_keys[i];
    return NULL;
}

/* A list of one is that one: report_to: [wandb]. */
static const tn_json *only_item(const tn_json *value) {
    return value->type == TN_JSON_ARRAY && value->count == 1 ? &value->items[0] : value;
}

static bool asks_nothing(const tn_json *value) {
    bool container = value->type == TN_JSON_ARRAY || value->type == TN_JSON_OBJECT;
    return value->type == TN_JSON_NULL || (container && value->count == 0) ||
           (value->type == TN_JSON_STRING && value->count == 0);
}

/* The text of a scalar; of a list or a map its JSON. */
static const char *text_of(tn_arena *arena, const tn_json *value) {
    char real[40];
    if (value->type == TN_JSON_STRING) return value->string;
    if (value->type == TN_JSON_BOOLEAN) return value->boolean ? "true" : "false";
    if (value->type == TN_JSON_INTEGER) return tn_arena_printf(arena, "%lld", (long long)value->integer);
    if (value->type == TN_JSON_REAL) return tn_arena_printf(arena, "%s", tn_real_text(value->real, real));
    tn_str json = {0};
    tn_json_writer w = tn_json_write_to(&json, 0);
    tn_json_put(&w, value);
    const char *text = tn_arena_text(arena, tn_str_text(&json), json.length);
    tn_str_free(&json);
    return text;
}

/* What a row says of a value: the word that fits it, `target` being what stands behind its '='; "" where
 * nothing does. */
static bool judge(const tn_foreign_key *foreign, const char *text, char target[64]) {
    const char *at = foreign->words ? foreign->words : "";
    for (size_t length; *at; at += length + (at[length] == ',')) {
        length = strcspn(at, ",");
        size_t word = strcspn(at, "=,"), rest = word < length ? length - word - 1 : 0;
        bool any = word == 1 && *at == '*';
        if (!any && (strlen(text) != word || memcmp(at, text, word) != 0)) continue;
        if (rest >= 64) continue;
        memcpy(target, at + length - rest, rest);
        target[rest] = '\0';
        return true;
    }
    return false;
}

static void note_ignored(loading *l, const char *name, tn_reason reason) {
    tn_str_printf(&l->ignored[reason], "%s%s", l->ignored[reason].length ? ", " : "", name);
}

static tn_status refuse(loading *l, const tn_foreign_key *foreign, const tn_json *value) {
    tn_fail(TN_USAGE, "%s: %.200s would change what is trained, and has no counterpart here", foreign->name,
            text_of(&l->config->arena, value));
    return tn_remedy("%s", foreign->remedy ? foreign->remedy : "leave it out");
}

/* Verbs that go on with what train made are given its file: they take what they know of it. As flags such keys
 * are errors all the same. */
static bool is_trains_own(const loading *l, int row) {
    static const char *const verbs[] = {"eval", "generate", "chat", "merge", "export"};
    const uint32_t train = 1; /* the first of tn_config_verbs */
    bool takes = false;
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) takes |= strcmp(l->config->verb, verbs[i]) == 0;
    return takes && row >= 0 && (tn_config_keys[row].verbs & train) &&
           !(tn_config_keys[row].verbs & l->config->verb_bit);
}

static void note_unused(loading *l, const char *name) {
    tn_str_printf(&l->unused, "%s%s", l->unused.length ? ", " : "", name);
}

/* Gives `key` the value of a node, or of `text` where there is none. A key of ours that says "auto" leaves it
 * open. */
static tn_status give(loading *l, const tn_foreign_key *foreign, const char *key, const tn_json *node,
                      const char *text) {
    tn_config *config = l->config;
    int row = tn_config_row(key);
    tn_value value;
    if (row < 0) return tn_fail(TN_USAGE, "%s has no key %s to stand for", foreign->name, key);
    if (is_trains_own(l, row)) return note_unused(l, foreign->name), TN_OK;
    if (!(tn_config_keys[row].verbs & config->verb_bit))
        return tn_fail(TN_USAGE, "'%s' (%s) is not a key of %s", foreign->name, key, config->verb);
    tn_status status =
        node ? tn_value_from_node(&config->arena, &tn_config_keys[row], foreign->name, node, &value)
             : tn_value_from_text(&config->arena, &tn_config_keys[row], foreign->name, text, &value);
    if (status != TN_OK) return status;
    tn_value *slot = &config->entries[row].given[TN_SET_FILE];
    if (slot->set && slot->text && strcmp(slot->text, "auto") == 0) *slot = (tn_value){0};
    tn_str_printf(&l->read, "%s%s = %s: %s", l->read.length ? ", " : "", foreign->name, key,
                  value.text ? value.text : "none");
    return tn_config_put(config, row, TN_SET_FILE, value);
}

/* ---- Trees --------------------------------------------------------------------------------------- */

static bool only_padding(const tn_json *map) {
    if (map->type != TN_JSON_OBJECT) return false;
    for (int64_t i = 0; i < map->count; i++)
        if (!tn_json_is_null(&map->members[i].value) && strcmp(map->members[i].key, "pad_token") != 0)
            return false;
    return true;
}

static bool only_kernels(const tn_json *list) {
    if (list->type != TN_JSON_ARRAY) return false;
    for (int64_t i = 0; i < list->count; i++) {
        const char *name = tn_json_string(&list->items[i], "");
        if (!strstr(name, ".liger.") && !strstr(name, ".cut_cross_entropy.")) return false;
    }
    return true;
}

static bool all_false(const tn_json *map) {
    if (map->type != TN_JSON_OBJECT) return false;
    for (int64_t i = 0; i < map->count; i++)
        if (!tn_json_is_null(&map->members[i].value) && tn_json_boolean(&map->members[i].value, true))
            return false;
    return true;
}

static tn_status take_min_lr(loading *l, const tn_foreign_key *foreign, const tn_json *map) {
    if (map->type != TN_JSON_OBJECT) return refuse(l, foreign, map);
    for (int64_t i = 0; i < map->count; i++) {
        const tn_member *m = &map->members[i];
        if (strcmp(m->key, "min_lr") != 0 && strcmp(m->key, "min_lr_rate") != 0) return refuse(l, foreign, map);
        tn_status status = give(l, foreign, m->key, &m->value, NULL);
        if (status != TN_OK) return status;
    }
    return TN_OK;
}

/* axolotl joins the two: all linear modules, and those of the list. */
static tn_status take_linear_targets(loading *l, const tn_foreign_key *foreign, const tn_json *value) {
    static const char linear[] = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj";
    tn_value *slot = &l->config->entries[tn_config_row("target_modules")].given[TN_SET_FILE];
    if (value->type != TN_JSON_BOOLEAN) return refuse(l, foreign, value);
    if (!value->boolean) return note_ignored(l, foreign->name, foreign->reason), TN_OK;
    for (const char *at = slot->set && slot->text ? slot->text : ""; *at;) {
        char word[32] = "";
        size_t length = strcspn(at, ",");
        if (length < sizeof word) memcpy(word, at, length);
        if (!tn_word_in(linear, word)) return refuse(l, foreign, value);
        at += length + (at[length] == ',');
    }
    *slot = (tn_value){0};
    return give(l, foreign, "target_modules", NULL, "all-linear");
}

static tn_status take_word(loading *l, const tn_foreign_key *foreign, const tn_json *value) {
    const tn_json *item = only_item(value);
    char target[64], *colon;
    if (!judge(foreign, text_of(&l->config->arena, item), target)) return refuse(l, foreign, value);
    if (!*target) return note_ignored(l, foreign->name, foreign->reason), TN_OK;
    if (!(colon = strchr(target, ':'))) return give(l, foreign, target, value, NULL);
    *colon = '\0';
    return give(l, foreign, target, NULL, colon + 1);
}

static tn_status take_datasets(loading *l, const tn_foreign_key *foreign, const char *key,
                               const tn_json *list) {
    if (is_trains_own(l, tn_config_row(key))) return note_unused(l, foreign->name), TN_OK;
    return tn_config_take_datasets(l->config, foreign->name, key, list);
}

static tn_status take_foreign(loading *l, const tn_foreign_key *foreign, const tn_json *value) {
    bool fine;
    switch (foreign->kind) {
        case TN_FOREIGN_WORD: return take_word(l, foreign, value);
        case TN_FOREIGN_DATASETS: return take_datasets(l, foreign, "dataset", value);
        case TN_FOREIGN_EVAL_DATASETS: return take_datasets(l, foreign, "eval_dataset", value);
        case TN_FOREIGN_MIN_LR: return take_min_lr(l, foreign, value);
        case TN_FOREIGN_LINEAR_TARGETS: return take_linear_targets(l, foreign, value);
        case TN_FOREIGN_PAD_ONLY: fine = only_padding(value); break;
        case TN_FOREIGN_PLUGINS: fine = only_kernels(value); break;
        case TN_FOREIGN_ALL_FALSE: fine = all_false(value); break;
        default: fine = false;
    }
    if (!fine) return refuse(l, foreign, value);
    note_ignored(l, foreign->name, foreign->reason);
    return TN_OK;
}

/* ---- The file ------------------------------------------------------------------------------------ */

/* Ours by name, and no word of another program's fits the value better. */
static bool is_ours(loading *l, const tn_foreign_key *foreign, const tn_member *m) {
    char target[64];
    if (!foreign) return true;
    if (tn_config_row(m->key) < 0) return false;
    return asks_nothing(&m->value) || foreign->kind != TN_FOREIGN_WORD ||
           !judge(foreign, text_of(&l->config->arena, only_item(&m->value)), target);
}

static tn_status take_member(loading *l, const tn_member *m, bool ours) {
    const tn_foreign_key *foreign = find_foreign(m->key);
    if (is_ours(l, foreign, m) != ours) return TN_OK;
    for (int i = 0; i < TN_PROGRAMS; i++)
        if (tn_word_in(tn_programs[i].marks, m->key)) l->marks[i]++;
    const tn_json *value = foreign ? only_item(&m->value) : &m->value;
    if (ours && is_trains_own(l, tn_config_row(m->key))) return note_unused(l, m->key), TN_OK;
    if (ours) return tn_config_inherit_node(l->config, m->key, value, TN_SET_FILE);
    return asks_nothing(&m->value) ? TN_OK : take_foreign(l, foreign, &m->value);
}

/* Unsloth's command line groups its keys in sections. */
static bool is_section(const tn_member *m) {
    return m->value.type == TN_JSON_OBJECT && tn_word_in("data,training,lora,logging", m->key);
}

static tn_status take_members(loading *l, const tn_json *map, bool ours) {
    tn_status status = TN_OK;
    for (int64_t i = 0; i < map->count && status == TN_OK; i++) {
        const tn_member *m = &map->members[i];
        if (is_section(m)) status = tn_context(take_members(l, &m->value, ours), "%s", m->key);
        else status = take_member(l, m, ours);
    }
    return status;
}

/* A key twice in one file: the parser keeps both, and one of them would be lost silently. */
static tn_status check_repeated(const tn_json *map) {
    for (int64_t i = 0; i < map->count; i++)
        for (int64_t j = 0; j < i; j++)
            if (strcmp(map->members[i].key, map->members[j].key) == 0)
                return tn_fail(TN_USAGE, "'%s' stands twice in the file", map->members[i].key);
    return TN_OK;
}

/* The other program's defaults where the file leaves a key out and ours differ. */
static void tell_defaults(const loading *l) {
    int which = -1;
    tn_str text = {0};
    for (int i = 0; i < TN_PROGRAMS; i++)
        if (l->marks[i] >= 2 && (which < 0 || l->marks[i] > l->marks[which])) which = i;
    if (which < 0) return;
    const tn_program *p = &tn_programs[which];
    for (int i = 0; p->defaults[i].key; i++)
        if (tn_config_get(l->config, p->defaults[i].key) && /* of this verb */
            tn_config_setter(l->config, p->defaults[i].key) == TN_SET_DEFAULT)
            tn_str_printf(&text, "%s%s: %s", text.length ? ", " : "", p->defaults[i].key, p->defaults[i].value);
    if (text.length)
        tn_info("keys that the file leaves out have tenon's defaults; those of %s would be %s", p->name,
                tn_str_text(&text));
    tn_str_free(&text);
}

static void tell(loading *l) {
    if (l->read.length) tn_info("read as: %s", tn_str_text(&l->read));
    for (int r = 0; r < TN_REASONS; r++)
        if (l->ignored[r].length) tn_info("ignored: %s (%s)", tn_str_text(&l->ignored[r]), tn_reason_texts[r]);
    if (l->unused.length)
        tn_info(
            "ignored: %s (keys of train; what a run has made is given by --adapter, or by --model where it was "
            "a "
            "full fine-tune)",
            tn_str_text(&l->unused));
    tell_defaults(l);
}

tn_status tn_config_take_file(tn_config *config, const tn_json *root) {
    loading l = {.config = config};
    tn_status status;
    TN_TRY(check_repeated(root));
    TN_TRY(take_members(&l, root, true));
    TN_TRY(take_members(&l, root, false));
    tell(&l);
done:
    tn_str_free(&l.read);
    tn_str_free(&l.unused);
    for (int r = 0; r < TN_REASONS; r++) tn_str_free(&l.ignored[r]);
    return status;
}
