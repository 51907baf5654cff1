/* json_write.c: JSON into a tn_str, laid out as Python's json.dumps does (ensure_ascii=False). The output is
 * the same under every locale and always valid: no NaN, no broken UTF-8. Running out of memory shows in the
 * tn_str. */
#include <math.h>
#include <string.h>

#include "base/json.h"

tn_json_writer tn_json_write_to(tn_str *out, int indent) {
    return (tn_json_writer){.out = out, .indent = indent, .first = true};
}

static void new_line(tn_json_writer *w) {
    tn_str_putc(w->out, '\n');
    for (int i = 0; i < w->depth * w->indent; i++) tn_str_putc(w->out, ' ');
}

/* What stands between the value or key that follows and what was written before it. */
static void separate(tn_json_writer *w) {
    if (!w->after_key && w->depth > 0) {
        if (!w->first) tn_str_puts(w->out, w->indent ? "," : ", ");
        if (w->indent) new_line(w);
    }
    w->after_key = w->first = false;
}

void tn_json_begin(tn_json_writer *w, char bracket) {
    separate(w);
    tn_str_putc(w->out, bracket);
    w->depth++;
    w->first = true;
}

void tn_json_end(tn_json_writer *w, char bracket) {
    w->depth--;
    if (!w->first && w->indent) new_line(w);
    tn_str_putc(w->out, bracket);
    w->first = false;
}

static void put_key(tn_json_writer *w, const char *key, int64_t length) {
    separate(w);
    tn_json_quote(w->out, key, length);
    tn_str_puts(w->out, ": ");
    w->after_key = true;
}

void tn_json_key(tn_json_writer *w, const char *key) { put_key(w, key, (int64_t)strlen(key)); }

void tn_json_put_string(tn_json_writer *w, const char *text, int64_t length) {
    separate(w);
    tn_json_quote(w->out, text, length < 0 ? (int64_t)strlen(text) : length);
}

static void put_raw(tn_json_writer *w, const char *text) {
    separate(w);
    tn_str_puts(w->out, text);
}

void tn_json_put_integer(tn_json_writer *w, int64_t value) {
    separate(w);
    tn_str_printf(w->out, "%lld", (long long)value);
}

void tn_json_put_real(tn_json_writer *w, double value) {
    char text[40];
    put_raw(w, isfinite(value) ? tn_real_text(value, text) : "null");
}

void tn_json_put_float(tn_json_writer *w, float value) {
    char text[40];
    put_raw(w, isfinite(value) ? tn_float_text(value, text) : "null");
}

void tn_json_put_boolean(tn_json_writer *w, bool value) { put_raw(w, value ? "true" : "false"); }
void tn_json_put_null(tn_json_writer *w) { put_raw(w, "null"); }

void tn_json_put(tn_json_writer *w, const tn_json *node) {
    switch (node ? node->type : TN_JSON_NULL) {
        case TN_JSON_NULL: tn_json_put_null(w); break;
        case TN_JSON_BOOLEAN: tn_json_put_boolean(w, node->boolean); break;
        case TN_JSON_INTEGER: tn_json_put_integer(w, node->integer); break;
        case TN_JSON_REAL: tn_json_put_real(w, node->real); break;
        case TN_JSON_BIG: put_raw(w, node->string); break;
        case TN_JSON_STRING: tn_json_put_string(w, node->string, node->count); break;
        case TN_JSON_ARRAY:
            tn_json_begin(w, '[');
            for (int64_t i = 0; i < node->count; i++) tn_json_put(w, &node->items[i]);
            tn_json_end(w, ']');
            break;
        case TN_JSON_OBJECT:
            tn_json_begin(w, '{');
            for (int64_t i = 0; i < node->count; i++) {
                put_key(w, node->members[i].key, node->members[i].key_length);
                tn_json_put(w, &node->members[i].value);
            }
            tn_json_end(w, '}');
            break;
    }
}

void tn_json_string_member(tn_json_writer *w, const char *key, const char *text) {
    tn_json_key(w, key);
    tn_json_put_string(w, text, -1);
}

void tn_json_integer_member(tn_json_writer *w, const char *key, int64_t value) {
    tn_json_key(w, key);
    tn_json_put_integer(w, value);
}

void tn_json_real_member(tn_json_writer *w, const char *key, double value) {
    tn_json_key(w, key);
    tn_json_put_real(w, value);
}

void tn_json_boolean_member(tn_json_writer *w, const char *key, bool value) {
    tn_json_key(w, key);
    tn_json_put_boolean(w, value);
}

void tn_json_ids_member(tn_json_writer *w, const char *key, const int32_t *ids, int64_t count) {
    tn_json_key(w, key);
    tn_json_begin(w, '[');
    for (int64_t i = 0; i < count; i++) tn_json_put_integer(w, ids[i]);
    tn_json_end(w, ']');
}

void tn_json_quote(tn_str *out, const char *text, int64_t length) {
    static const char letters[] = "\"\"\\\\\nn\rr\tt\bb\ff"; /* byte, letter behind the backslash */
    int64_t start = 0;
    tn_str_putc(out, '"');
    for (int64_t i = 0; i < length; i++) {
        char c = text[i];
        if ((unsigned char)c >= 0x20 && c != '"' && c != '\\') continue;
        tn_utf8_lossy(out, text + start, i - start);
        start = i + 1;
        const char *pair = NULL;
        for (const char *p = letters; *p; p += 2)
            if (*p == c) pair = p;
        if (pair) tn_str_printf(out, "\\%c", pair[1]);
        else tn_str_printf(out, "\\u%04x", (unsigned)c);
    }
    tn_utf8_lossy(out, text + start, length - start);
    tn_str_putc(out, '"');
}
