/* json.c: JSON text to a tree. yajl scans; its callbacks push values on one stack, and a closed container
 * moves its part of the stack into the arena. Invariants:
 *   - all strings of a document share one piece of the arena: with their terminators they are never longer
 *     than the text they came from (two quotes pay for a terminator, six bytes \uXXXX for three);
 *   - yajl sees valid UTF-8 and paired surrogates only: what it makes of others is wrong, and unsafe;
 *   - yajl keeps no limit on depth and knows nothing of duplicate keys: that is checked here. */
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_parse.h>

#include "base/file.h"
#include "base/json_keys.h"
#include "base/number.h"

/* An entry is a finished value, or an open container: then value.count is the entry of the container around
 * it (-1 for none) and its children follow it on the stack. Only members of objects have a key. */
typedef struct parser {
    tn_arena *arena;
    yajl_handle yajl;
    const char *name, *text, *mended; /* `mended` == `text`, or its copy with replacements of the same length */
    int64_t length;
    int flags;
    tn_member *stack;
    int64_t entries, capacity, open /* entry of the innermost open container, -1 */, depth;
    bool keyed; /* the top entry is a key that waits for its value */
    char *strings;
    int64_t strings_used;
    tn_json_notes *notes; /* may be NULL */
    tn_status status;
} parser;

/* Fails with the position of byte `offset`. */
static tn_status fail_at(const parser *p, int64_t offset, const char *reason) {
    int64_t line = 1, start = 0;
    for (int64_t i = 0; i < offset && i < p->length; i++)
        if (p->text[i] == '\n') line++, start = i + 1;
    return tn_fail(TN_BAD_DATA, "%s: not valid JSON at line %lld, column %lld (byte %lld): %s", p->name,
                   (long long)line, (long long)(offset - start + 1), (long long)offset, reason);
}

static int stop(parser *p, const char *reason) {
    p->status = fail_at(p, (int64_t)yajl_get_bytes_consumed(p->yajl), reason);
    return 0;
}

/* ---- Callbacks of yajl: 0 stops it, with p->status set ---- */

/* The place for the next value: behind its key, or a new entry. NULL: out of memory. */
static tn_json *next_value(parser *p) {
    if (!p->keyed) {
        p->status = tn_grow(&p->stack, &p->capacity, p->entries + 1, sizeof *p->stack, "JSON values");
        if (p->status != TN_OK) return NULL;
        p->stack[p->entries++].key = NULL;
    }
    p->keyed = false;
    return &p->stack[p->entries - 1].value;
}

static const char *keep_text(parser *p, const char *text, int64_t length) {
    char *copy = p->strings + p->strings_used;
    memcpy(copy, text, (size_t)length); /* the arena is zeroed: the terminator is there */
    p->strings_used += length + 1;
    return copy;
}

static int on_null(void *context) {
    tn_json *value = next_value(context);
    if (value) *value = (tn_json){.type = TN_JSON_NULL};
    return value != NULL;
}

static int on_boolean(void *context, int boolean) {
    tn_json *value = next_value(context);
    if (value) *value = (tn_json){.type = TN_JSON_BOOLEAN, .boolean = boolean != 0};
    return value != NULL;
}

static int on_string(void *context, const unsigned char *text, size_t length) {
    tn_json *value = next_value(context);
    if (!value) return 0;
    *value = (tn_json){.type = TN_JSON_STRING, .count = (int64_t)length};
    value->string = keep_text(context, (const char *)text, (int64_t)length);
    return 1;
}

/* Python's NaN and Infinity reach yajl as zeros of the same length; the text before mending tells. */
static bool special_real(const parser *p, const char *digits, double *real) {
    if (p->mended == p->text || digits < p->mended || digits >= p->mended + p->length) return false;
    const char *was = p->text + (digits - p->mended);
    bool negative = *was == '-';
    if (was[negative] != 'N' && was[negative] != 'I') return false;
    *real = was[negative] == 'N' ? NAN : negative ? -INFINITY : INFINITY;
    return true;
}

static int on_number(void *context, const char *digits, size_t size) {
    parser *p = context;
    int64_t length = (int64_t)size, integer;
    double real;
    tn_json *value = next_value(p);
    if (!value) return 0;
    if (special_real(p, digits, &real)) {
        *value = (tn_json){.type = TN_JSON_REAL, .real = real};
    } else if (tn_parse_integer(digits, length, &integer)) {
        *value = (tn_json){.type = TN_JSON_INTEGER, .integer = integer};
    } else if (!memchr(digits, '.', size) && !memchr(digits, 'e', size) && !memchr(digits, 'E', size)) {
        *value = (tn_json){.type = TN_JSON_BIG, .count = length, .string = keep_text(p, digits, length)};
    } else {
        if (!tn_parse_real(digits, length, &real)) return stop(p, "a number that cannot be read");
        *value = (tn_json){.type = TN_JSON_REAL, .real = real};
    }
    return 1;
}

static int on_key(void *context, const unsigned char *text, size_t length) {
    parser *p = context;
    if (!next_value(p)) return 0;
    tn_member *member = &p->stack[p->entries - 1];
    member->key = keep_text(p, (const char *)text, (int64_t)length);
    member->key_length = (int64_t)length;
    p->keyed = true;
    return 1;
}

static int open_container(parser *p, tn_json_type type) {
    if (p->depth == TN_JSON_MAX_DEPTH) return stop(p, "nested deeper than 256 levels");
    tn_json *value = next_value(p);
    if (!value) return 0;
    *value = (tn_json){.type = type, .count = p->open};
    p->open = p->entries - 1;
    p->depth++;
    return 1;
}

/* A key that stands twice is noted, or named with the place where its object ends. */
static bool check_keys(parser *p, const tn_member *members, int64_t count) {
    tn_key_set keys;
    p->status = tn_key_set_begin(&keys, members, count);
    for (int64_t i = 0; i < count && p->status == TN_OK; i++) {
        if (tn_key_set_add(&keys, i)) continue;
        if (p->notes) p->notes->repeated_key = true;
        if (!(p->flags & TN_JSON_UNIQUE_KEYS)) continue;
        stop(p, "a key stands twice in the object that ends here");
        p->status = tn_context(p->status, "key \"%s\"", members[i].key);
    }
    tn_key_set_end(&keys);
    return p->status == TN_OK;
}

static int close_array(void *context) {
    parser *p = context;
    int64_t count = p->entries - p->open - 1;
    tn_json *value = &p->stack[p->open].value;
    tn_json *items = tn_arena_take(p->arena, count * (int64_t)sizeof *items);
    if (!items) return p->status = tn_fail_memory(count * (int64_t)sizeof *items, "a JSON array"), 0;
    for (int64_t i = 0; i < count; i++) items[i] = p->stack[p->open + 1 + i].value;
    p->entries = p->open + 1;
    p->open = value->count;
    p->depth--;
    value->count = count;
    value->items = items;
    return 1;
}

static int close_object(void *context) {
    parser *p = context;
    int64_t count = p->entries - p->open - 1;
    tn_json *value = &p->stack[p->open].value;
    tn_member *members = tn_arena_take(p->arena, count * (int64_t)sizeof *members);
    if (!members) return p->status = tn_fail_memory(count * (int64_t)sizeof *members, "a JSON object"), 0;
    if (count > 0) memcpy(members, value + 1, (size_t)count * sizeof *members);
    if (((p->flags & TN_JSON_UNIQUE_KEYS) || p->notes) && !check_keys(p, members, count)) return 0;
    p->entries = p->open + 1;
    p->open = value->count;
    p->depth--;
    value->count = count;
    value->members = members;
    return 1;
}

static int open_array(void *context) { return open_container(context, TN_JSON_ARRAY); }
static int open_object(void *context) { return open_container(context, TN_JSON_OBJECT); }

/* ---- Before yajl: what it would refuse or get wrong ---- */

/* The writable copy, made at the first replacement; one space behind it ends a number that ends the text. */
static char *writable(parser *p) {
    if (p->mended == p->text) {
        char *copy = malloc((size_t)p->length + 1);
        if (!copy) return p->status = tn_fail_memory(p->length, "JSON text"), NULL;
        memcpy(copy, p->text, (size_t)p->length);
        copy[p->length] = ' ';
        p->mended = copy;
    }
    return (char *)(uintptr_t)p->mended;
}

/* 0xD800 … 0xDFFF where `at` is the backslash of such an escape, else 0. */
static unsigned surrogate_at(const parser *p, int64_t at) {
    unsigned code = 0;
    if (at + 6 > p->length || p->text[at] != '\\' || p->text[at + 1] != 'u') return 0;
    for (int64_t i = at + 2; i < at + 6; i++) {
        char c = p->text[i];
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10)
                                                : 16;
        if (digit == 16) return 0;
        code = code * 16 + digit;
    }
    return code >= 0xD800 && code <= 0xDFFF ? code : 0;
}

/* Lone surrogates become \ufffd. */
static tn_status mend_surrogates(parser *p) {
    for (int64_t at = 0; at < p->length;) {
        const char *slash = memchr(p->text + at, '\\', (size_t)(p->length - at));
        if (!slash) break;
        at = slash - p->text;
        unsigned code = surrogate_at(p, at), next = code ? surrogate_at(p, at + 6) : 0;
        if (code == 0) {
            at += 2;
        } else if (code < 0xDC00 && next >= 0xDC00) {
            at += 12;
        } else {
            char *copy = writable(p);
            if (!copy) return p->status;
            memcpy(copy + at + 2, "fffd", 4);
            if (p->notes) p->notes->lone_surrogate = true;
            at += 6;
        }
    }
    return TN_OK;
}

static bool is_word(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '+';
}

/* NaN and Infinity outside strings become zeros of the same length, which on_number() knows by their place. */
static tn_status mend_specials(parser *p) {
    static const struct {
        const char *word, *zero;
        int64_t length;
    } specials[] = {{"NaN", "0e0", 3}, {"Infinity", "0e000000", 8}};
    bool in_string = false;
    for (int64_t at = 0; at < p->length; at++) {
        char c = p->text[at], before = at > 0 ? p->text[at - 1] : ' ';
        if (c == '"') in_string = !in_string;
        if (in_string && c == '\\') at++;
        if (in_string || (c != 'N' && c != 'I')) continue;
        int64_t length = specials[c == 'I'].length;
        if (p->length - at < length || memcmp(p->text + at, specials[c == 'I'].word, (size_t)length) != 0)
            continue;
        if (is_word(before) || (before == '-' && c == 'N')) continue;
        if (at + length < p->length && is_word(p->text[at + length])) continue;
        char *copy = writable(p);
        if (!copy) return p->status;
        memcpy(copy + at, specials[c == 'I'].zero, (size_t)length);
    }
    return TN_OK;
}

/* ---- The parser ---- */

static tn_status fail_scan(const parser *p, int64_t offset) {
    unsigned char *reason = yajl_get_error(p->yajl, 0, NULL, 0);
    if (!reason) return tn_fail_memory(128, "a message");
    reason[strcspn((char *)reason, "\n")] = '\0';
    tn_status status = fail_at(p, offset, (char *)reason);
    yajl_free_error(p->yajl, reason);
    return status;
}

static tn_status scan(parser *p) {
    const unsigned char *text = (const unsigned char *)p->mended;
    size_t length = (size_t)p->length + (p->mended != p->text);
    yajl_status result = yajl_parse(p->yajl, text, length);
    int64_t offset = (int64_t)yajl_get_bytes_consumed(p->yajl); /* the next call counts from 0 again */
    if (result == yajl_status_ok) result = yajl_complete_parse(p->yajl);
    if (result == yajl_status_client_canceled) return p->status;
    return result == yajl_status_ok ? TN_OK : fail_scan(p, offset);
}

tn_status tn_json_parse(tn_arena *arena, const char *text, int64_t length, int flags, const char *name,
                        const tn_json **root) {
    return tn_json_parse_noting(arena, text, length, flags, name, NULL, root);
}

tn_status tn_json_parse_noting(tn_arena *arena, const char *text, int64_t length, int flags, const char *name,
                               tn_json_notes *notes, const tn_json **root) {
    static const yajl_callbacks callbacks = {
        .yajl_null = on_null,
        .yajl_boolean = on_boolean,
        .yajl_number = on_number,
        .yajl_string = on_string,
        .yajl_start_map = open_object,
        .yajl_map_key = on_key,
        .yajl_end_map = close_object,
        .yajl_start_array = open_array,
        .yajl_end_array = close_array,
    };
    if (length >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) text += 3, length -= 3; /* a byte order mark */
    parser p = {.arena = arena,
                .name = name,
                .text = text,
                .mended = text,
                .length = length,
                .flags = flags,
                .open = -1,
                .notes = notes};
    tn_status status;
    *root = NULL;
    int64_t valid = tn_utf8_valid_prefix(text, length);
    if (valid < length) {
        status = fail_at(&p, valid, "bytes that are not UTF-8");
        tn_remedy("%s", tn_utf8_remedy(text, length));
        goto done;
    }
    TN_TRY(mend_surrogates(&p));
    if (flags & TN_JSON_EXTENSIONS) TN_TRY(mend_specials(&p));
    p.strings = tn_arena_take(arena, length + 2);
    p.yajl = yajl_alloc(&callbacks, NULL, &p);
    tn_json *kept = tn_arena_take(arena, sizeof *kept);
    if (!p.strings || !p.yajl || !kept) {
        status = tn_fail_memory(length, name);
        goto done;
    }
    yajl_config(p.yajl, yajl_dont_validate_strings, 1); /* done above */
    TN_TRY(scan(&p));
    *kept = p.stack[0].value;
    *root = kept;
done:
    if (p.yajl) yajl_free(p.yajl);
    if (p.mended != p.text) free((char *)(uintptr_t)p.mended);
    free(p.stack);
    return status;
}

tn_status tn_json_read_file(tn_arena *arena, const char *path, int flags, const tn_json **root) {
    tn_map map;
    tn_status status = tn_map_open(path, &map);
    *root = NULL;
    if (status != TN_OK) return status;
    status = tn_json_parse(arena, map.data ? (const char *)map.data : "", map.bytes, flags, path, root);
    tn_map_close(&map);
    return status;
}
