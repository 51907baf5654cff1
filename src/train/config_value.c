/* config_value.c: one value of the table of keys, from text or from a node of YAML or JSON to its canonical
 * text, and from there into tn_settings. Canonical text reads back as the same value, so checkpoints can store
 * it.
 */
#include <math.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

#include "base/number.h"
#include "train/config_table.h"

static const char *const kind_names[] = {"integer", "number", "boolean", "size",   "path",
                                         "paths",   "text",   "list",    "choice", "map"};

static const struct {
    double low, high;
    bool low_open, high_open;
    const char *text;
} ranges[] = {
    [TN_ANY] = {-INFINITY, INFINITY, false, false, ""},
    [TN_NOT_NEGATIVE] = {0, INFINITY, false, true, " of at least 0"},
    [TN_POSITIVE] = {0, INFINITY, true, true, " above 0"},
    [TN_AT_LEAST_ONE] = {1, INFINITY, false, true, " of at least 1"},
    [TN_TO_A_MILLION] = {1, 1e6, false, false, " from 1 to 1,000,000"},
    [TN_EPOCHS] = {0, 1e6, true, false, " above 0 and at most 1,000,000"},
    [TN_THREADS] = {0, 4096, false, false, " from 0 to 4,096"},
    [TN_UNIT] = {0, 1, false, false, " from 0 to 1"},
    [TN_UNIT_OPEN_TOP] = {0, 1, false, true, " from 0 up to, but not including, 1"},
    [TN_UNIT_OPEN_ZERO] = {0, 1, true, false, " above 0 and at most 1"},
    [TN_UNIT_OPEN] = {0, 1, true, true, " above 0 and below 1"},
};

const char *tn_key_kind_name(tn_key_kind kind) { return kind_names[kind]; }

/* Calls for every word of a comma-separated list: advances *at, false behind the last. */
static bool next_word(const char **at, const char **word, size_t *length) {
    if (!*at || !**at) return false;
    *word = *at;
    *length = strcspn(*at, ",");
    *at += *length;
    if (**at == ',') (*at)++;
    return true;
}

bool tn_word_in(const char *list, const char *word) {
    const char *one;
    size_t length;
    while (next_word(&list, &one, &length))
        if (strlen(word) == length && memcmp(one, word, length) == 0) return true;
    return false;
}

static void trim(const char **text, int64_t *length) {
    while (*length > 0 && strchr(" \t\r\n", (*text)[0])) (*text)++, (*length)--;
    while (*length > 0 && strchr(" \t\r\n", (*text)[*length - 1])) (*length)--;
}

void tn_value_expected(const tn_key *key, tn_str *out) {
    static const char *const forms[] = {
        "a whole number", "a number",
        "true or false",  "a size such as 16GB, 1.5GiB or a number of bytes",
        "a path",         "one or more paths, separated by commas",
        "a text",         "a list separated by commas",
        "one of ",        "a map, as JSON ('{\"name\":value}') or as name=value,name=value"};
    const char *at = key->words, *word, *list = key->words ? key->words : "";
    size_t length;
    bool first = true;
    tn_str_puts(out, forms[key->kind]);
    if (key->kind != TN_KEY_CHOICE) tn_str_puts(out, ranges[key->range].text);
    for (; next_word(&at, &word, &length); first = false) {
        const char *equals = memchr(word, '=', length);
        bool choice = key->kind == TN_KEY_CHOICE;
        tn_str_puts(out, choice && first ? "" : choice ? ", " : ", or ");
        tn_str_add(out, word, equals ? equals - word : (int64_t)length);
    }
    if (!*key->standard && !tn_word_in(list, "none")) tn_str_puts(out, ", or none");
}

static tn_status bad_value(const tn_key *key, const char *spelling, const char *text) {
    tn_str expected = {0};
    tn_value_expected(key, &expected);
    if (strcmp(spelling, key->name) == 0)
        tn_fail(TN_USAGE, "%s: '%s' is not a value for it; expected %s", key->name, text,
                tn_str_text(&expected));
    else
        tn_fail(TN_USAGE, "%s (%s): '%s' is not a value for it; expected %s", spelling, key->name, text,
                tn_str_text(&expected));
    tn_str_free(&expected);
    return TN_USAGE;
}

/* "cuda:N" admits cuda:0, cuda:1, …; "a=b" gives b for a. NULL where `text` is none of the words. */
static const char *match_word(tn_arena *arena, const char *words, const char *text) {
    const char *word;
    size_t length, given = strlen(text);
    while (next_word(&words, &word, &length)) {
        const char *equals = memchr(word, '=', length);
        size_t name = equals ? (size_t)(equals - word) : length;
        if (name == given && memcmp(word, text, given) == 0 &&
            !(name > 1 && memcmp(word + name - 2, ":N", 2) == 0))
            return equals ? tn_arena_text(arena, equals + 1, (int64_t)(length - name - 1)) : text;
        if (name > 2 && given >= name && memcmp(word + name - 2, ":N", 2) == 0 &&
            memcmp(word, text, name - 1) == 0 && strspn(text + name - 1, "0123456789") == given - (name - 1) &&
            given - (name - 1) <= 4)
            return text;
    }
    return NULL;
}

static bool in_range(tn_range range, double x) {
    if (isnan(x) || x < ranges[range].low || x > ranges[range].high) return false;
    return !(ranges[range].low_open && x <= ranges[range].low) &&
           !(ranges[range].high_open && x >= ranges[range].high);
}

/* Whole numbers are also accepted as 1e3, since YAML gives that as a real. */
static bool read_integer(const char *text, int64_t *value) {
    const double exact = 9007199254740992.0; /* 2^53 */
    int64_t length = (int64_t)strlen(text);
    double real;
    if (tn_parse_integer(text, length, value)) return true;
    if (!tn_parse_real(text, length, &real) || real != trunc(real) || fabs(real) > exact) return false;
    *value = (int64_t)real;
    return true;
}

static bool read_size(const char *text, int64_t *bytes) {
    static const struct {
        const char *name;
        double factor;
    } units[] = {
        {"", 1},      {"B", 1},        {"KB", 1e3},        {"MB", 1e6},           {"GB", 1e9},
        {"TB", 1e12}, {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}, {"TiB", 1099511627776.0}};
    size_t digits = strspn(text, "0123456789.");
    const char *unit = text + digits + strspn(text + digits, " ");
    double value;
    if (tn_parse_integer(text, (int64_t)strlen(text), bytes)) return *bytes >= 0;
    if (!tn_parse_real(text, (int64_t)digits, &value)) return false;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strcasecmp(unit, units[i].name) == 0 && value * units[i].factor < 9.2e18) {
            *bytes = (int64_t)(value * units[i].factor);
            return true;
        }
    return false;
}

/* {"a":1} or a=1,b=x; a value that is no JSON is a string. */
static const tn_json *read_map(tn_arena *arena, const char *text) {
    const tn_json *root;
    tn_str json = {0};
    const char *word;
    size_t length;
    if (*text == '{') {
        tn_status status =
            tn_json_parse(arena, text, (int64_t)strlen(text), TN_JSON_UNIQUE_KEYS, "value", &root);
        return status == TN_OK ? root : NULL;
    }
    tn_json_writer w = tn_json_write_to(&json, 0);
    tn_json_begin(&w, '{');
    while (next_word(&text, &word, &length)) {
        const char *equals = memchr(word, '=', length);
        if (!equals || equals == word) {
            tn_str_free(&json);
            return NULL;
        }
        const tn_json *value;
        int64_t size = (int64_t)(word + length - equals - 1);
        tn_json_key(&w, tn_arena_text(arena, word, equals - word));
        if (tn_json_parse(arena, equals + 1, size, 0, "value", &value) == TN_OK) tn_json_put(&w, value);
        else tn_json_put_string(&w, equals + 1, size);
    }
    tn_json_end(&w, '}');
    if (tn_json_parse(arena, tn_str_text(&json), json.length, TN_JSON_UNIQUE_KEYS, "value", &root) != TN_OK)
        root = NULL;
    tn_str_free(&json);
    return root;
}

static const char *json_text(tn_arena *arena, const tn_json *node) {
    tn_str text = {0};
    tn_json_writer w = tn_json_write_to(&text, 0);
    tn_json_put(&w, node);
    char *copy = tn_arena_text(arena, tn_str_text(&text), text.length);
    tn_str_free(&text);
    return copy;
}

/* Canonical text of a present value, NULL where it is none of the key's. */
static const char *canonical(tn_arena *arena, const tn_key *key, const char *text, const tn_json **node) {
    char real_text[40];
    int64_t integer;
    double real;
    switch (key->kind) {
        case TN_KEY_INTEGER:
            if (!read_integer(text, &integer) || !in_range(key->range, (double)integer)) return NULL;
            return tn_arena_printf(arena, "%lld", (long long)integer);
        case TN_KEY_REAL:
            if (!tn_parse_real(text, (int64_t)strlen(text), &real) || !isfinite(real) ||
                !in_range(key->range, real))
                return NULL;
            tn_real_text(real, real_text);
            return tn_arena_text(arena, real_text, (int64_t)strlen(real_text));
        case TN_KEY_BOOLEAN: return strcmp(text, "true") == 0 || strcmp(text, "false") == 0 ? text : NULL;
        case TN_KEY_SIZE:
            return read_size(text, &integer) ? tn_arena_printf(arena, "%lld", (long long)integer) : NULL;
        case TN_KEY_CHOICE: return match_word(arena, key->words, text);
        case TN_KEY_MAP: *node = read_map(arena, text); return *node ? json_text(arena, *node) : NULL;
        case TN_KEY_PATH:
        case TN_KEY_PATHS:
        case TN_KEY_TEXT:
        case TN_KEY_LIST: return text;
    }
    return NULL;
}

tn_status tn_value_from_text(tn_arena *arena, const tn_key *key, const char *spelling, const char *text,
                             tn_value *value) {
    int64_t length = (int64_t)strlen(text);
    if (!tn_utf8_valid(text, length) && key->kind != TN_KEY_PATH && key->kind != TN_KEY_PATHS)
        return tn_fail(TN_USAGE, "%s: the value is not valid UTF-8", spelling);
    if (key->kind != TN_KEY_TEXT && key->kind != TN_KEY_PATH) trim(&text, &length);
    *value = (tn_value){.set = true, .spelling = spelling};
    const char *copy = tn_arena_text(arena, text, length);
    if (!copy) return tn_fail_memory(length, "a setting");
    bool none = length == 0 || strcmp(copy, "none") == 0 || strcmp(copy, "null") == 0;
    if (none && !*key->standard && key->kind != TN_KEY_TEXT) return TN_OK;
    const char *word = key->words && key->kind != TN_KEY_CHOICE ? match_word(arena, key->words, copy) : NULL;
    value->text = canonical(arena, key, word ? word : copy, &value->node);
    if (!value->text || (length == 0 && key->kind != TN_KEY_TEXT)) return bad_value(key, spelling, copy);
    return TN_OK;
}

/* Scalars as text; the words of a list joined by commas. */
static bool node_text(const tn_key *key, const tn_json *node, tn_str *out) {
    char real_text[40];
    switch (node->type) {
        case TN_JSON_BOOLEAN: tn_str_puts(out, node->boolean ? "true" : "false"); return true;
        case TN_JSON_INTEGER: tn_str_printf(out, "%lld", (long long)node->integer); return true;
        case TN_JSON_REAL: tn_str_puts(out, tn_real_text(node->real, real_text)); return true;
        case TN_JSON_BIG:
        case TN_JSON_STRING:
            tn_str_add(out, node->string, node->count);
            return !memchr(node->string, 0, (size_t)node->count);
        case TN_JSON_NULL: return !*key->standard;
        case TN_JSON_ARRAY:
            if (key->kind != TN_KEY_PATHS && key->kind != TN_KEY_LIST) return false;
            for (int64_t i = 0; i < node->count; i++) {
                const tn_json *item = &node->items[i];
                int64_t from = out->length + (i > 0);
                if (i > 0) tn_str_putc(out, ',');
                if (item->type == TN_JSON_ARRAY || item->type == TN_JSON_NULL || !node_text(key, item, out))
                    return false;
                if (memchr(tn_str_text(out) + from, ',', (size_t)(out->length - from))) return false;
            }
            return true;
        case TN_JSON_OBJECT: return false;
    }
    return false;
}

tn_status tn_value_from_node(tn_arena *arena, const tn_key *key, const char *spelling, const tn_json *node,
                             tn_value *value) {
    tn_status status = TN_OK;
    tn_str text = {0};
    if (node->type == TN_JSON_OBJECT && key->kind == TN_KEY_MAP) {
        *value = (tn_value){.set = true, .spelling = spelling, .text = json_text(arena, node), .node = node};
        return value->text ? TN_OK : tn_fail_memory(0, "a setting");
    }
    if (node->type == TN_JSON_NULL && !*key->standard) {
        *value = (tn_value){.set = true, .spelling = spelling};
        return TN_OK;
    }
    if (!node_text(key, node, &text)) {
        const char *shown = json_text(arena, node);
        status = bad_value(key, spelling, shown ? shown : "");
        goto done;
    }
    TN_TRY(tn_str_check(&text, "a setting"));
    TN_TRY(tn_value_from_text(arena, key, spelling, tn_str_text(&text), value));
done:
    tn_str_free(&text);
    return status;
}

static tn_status store_paths(tn_arena *arena, const char *text, const char ***paths, int64_t *count) {
    const char *at = text, *word;
    size_t length;
    *count = 0;
    *paths = NULL;
    while (next_word(&at, &word, &length)) ++*count;
    if (*count == 0) return TN_OK;
    *paths = tn_arena_take(arena, *count * (int64_t)sizeof **paths);
    if (!*paths) return tn_fail_memory(*count * (int64_t)sizeof **paths, "a list of paths");
    at = text;
    for (int64_t i = 0; next_word(&at, &word, &length); i++) {
        int64_t size = (int64_t)length;
        trim(&word, &size);
        if (!((*paths)[i] = tn_arena_text(arena, word, size))) return tn_fail_memory(size, "a path");
        if (size == 0) return tn_fail(TN_USAGE, "'%s' has an empty path in its list", text);
    }
    return TN_OK;
}

tn_status tn_value_store(tn_arena *arena, const tn_key *key, const tn_value *value, tn_settings *settings) {
    void *field = (char *)settings + key->offset;
    const char *text = value->text;
    int64_t length = text ? (int64_t)strlen(text) : 0;
    switch (key->kind) {
        case TN_KEY_INTEGER:
        case TN_KEY_SIZE:
            if (!text || !tn_parse_integer(text, length, field)) *(int64_t *)field = -1;
            return TN_OK;
        case TN_KEY_REAL:
            if (!text || !tn_parse_real(text, length, field)) *(double *)field = NAN;
            return TN_OK;
        case TN_KEY_BOOLEAN: *(bool *)field = text && strcmp(text, "true") == 0; return TN_OK;
        case TN_KEY_PATHS:
            return store_paths(arena, text, field, (int64_t *)(void *)((char *)settings + key->count_offset));
        case TN_KEY_MAP: *(const tn_json **)field = value->node; return TN_OK;
        case TN_KEY_PATH:
        case TN_KEY_TEXT:
        case TN_KEY_LIST:
        case TN_KEY_CHOICE: *(const char **)field = text; return TN_OK;
    }
    return TN_OK;
}
