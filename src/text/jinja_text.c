/* jinja_text.c: str(), repr() and json.dumps() of template values, character for character as Python
 * prints them (json.dumps with ensure_ascii off by default, as transformers' tojson has it). */
#include <math.h>
#include <string.h>
#include <utf8proc.h>

#include "text/jinja_run.h"

void jinja_put(tn_str *out, const char *data, int64_t length) {
    if (out->length + length > JINJA_MAX_TEXT) out->failed = true;
    tn_str_add(out, data, length);
}

/* The same text again and again; what cannot fit is not even begun. */
void jinja_put_times(tn_str *out, const char *data, int64_t length, int64_t times) {
    if (times > 0 && length > 0 && times > JINJA_MAX_TEXT / length) out->failed = true;
    for (int64_t i = 0; i < times && length > 0 && !out->failed; i++) jinja_put(out, data, length);
}

static void put_text(tn_str *out, const char *text) { jinja_put(out, text, (int64_t)strlen(text)); }

bool jinja_is_space(uint32_t c) {
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
           c == 0x3000;
}

/* Python's str.isprintable for one code point. */
static bool is_printable(uint32_t c) {
    if (c < 0x7F) return c >= 0x20;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
        case UTF8PROC_CATEGORY_CC:
        case UTF8PROC_CATEGORY_CF:
        case UTF8PROC_CATEGORY_CS:
        case UTF8PROC_CATEGORY_CO:
        case UTF8PROC_CATEGORY_CN:
        case UTF8PROC_CATEGORY_ZL:
        case UTF8PROC_CATEGORY_ZP:
        case UTF8PROC_CATEGORY_ZS: return false;
        default: return true;
    }
}

static void repr_string(const jinja_string *string, tn_str *out) {
    bool has_single = memchr(string->data, '\'', (size_t)string->length) != NULL;
    char quote = has_single && !memchr(string->data, '"', (size_t)string->length) ? '"' : '\'';
    jinja_put(out, &quote, 1);
    for (int64_t i = 0; i < string->length && !out->failed;) {
        uint32_t c = 0;
        int n = tn_utf8_decode(string->data + i, string->length - i, &c);
        if (n == 0) n = 1;
        if (c == (uint32_t)quote || c == '\\') {
            char escaped[2] = {'\\', (char)c};
            jinja_put(out, escaped, 2);
        } else if (c == '\n' || c == '\r' || c == '\t') {
            put_text(out, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
        } else if (is_printable(c)) {
            jinja_put(out, string->data + i, n);
        } else {
            tn_str_printf(out, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
        }
        i += n;
    }
    jinja_put(out, &quote, 1);
}

static tn_status repr_items(jinja_run *run, const jinja_list *list, const char *open, const char *close,
                            tn_str *out) {
    tn_status status = TN_OK;
    put_text(out, open);
    for (int64_t i = 0; i < list->count && !out->failed; i++) {
        if (i > 0) put_text(out, ", ");
        TN_TRY(jinja_repr(run, &list->items[i], out));
    }
    put_text(out, close);
done:
    return status;
}

static tn_status repr_dict(jinja_run *run, const jinja_dict *dict, tn_str *out) {
    tn_status status = TN_OK;
    put_text(out, "{");
    for (int64_t i = 0; i < dict->count && !out->failed; i++) {
        if (i > 0) put_text(out, ", ");
        TN_TRY(jinja_repr(run, &dict->pairs[i].key, out));
        put_text(out, ": ");
        TN_TRY(jinja_repr(run, &dict->pairs[i].value, out));
    }
    put_text(out, "}");
done:
    return status;
}

static void repr_range(const jinja_range *range, tn_str *out) {
    tn_str_printf(out, "range(%lld, %lld", (long long)range->start, (long long)range->stop);
    if (range->step != 1) tn_str_printf(out, ", %lld", (long long)range->step);
    put_text(out, ")");
}

static tn_status repr_view(jinja_run *run, const jinja_value *value, tn_str *out) {
    tn_status status = TN_OK;
    jinja_list items;
    put_text(out, jinja_type_name(value));
    TN_TRY(jinja_iterate(run, value, &items));
    TN_TRY(repr_items(run, &items, "([", "])", out));
done:
    return status;
}

tn_status jinja_repr(jinja_run *run, const jinja_value *value, tn_str *out) {
    char number[40];
    tn_status status = TN_OK;
    TN_TRY(jinja_enter(run));
    TN_TRY(jinja_step(run, 1));
    switch (value->kind) {
        case JINJA_UNDEFINED: put_text(out, "Undefined"); break;
        case JINJA_NONE: put_text(out, "None"); break;
        case JINJA_BOOLEAN: put_text(out, value->boolean ? "True" : "False"); break;
        case JINJA_INTEGER: tn_str_printf(out, "%lld", (long long)value->integer); break;
        case JINJA_BIG: jinja_put(out, value->string->data, value->string->length); break;
        case JINJA_FLOAT: put_text(out, tn_real_text(value->real, number)); break;
        case JINJA_STRING: repr_string(value->string, out); break;
        case JINJA_LIST: TN_TRY(repr_items(run, value->list, "[", "]", out)); break;
        case JINJA_TUPLE:
            TN_TRY(repr_items(run, value->list, "(", value->list->count == 1 ? ",)" : ")", out));
            break;
        case JINJA_DICT: TN_TRY(repr_dict(run, value->dict, out)); break;
        case JINJA_VIEW: TN_TRY(repr_view(run, value, out)); break;
        case JINJA_RANGE: repr_range(value->range, out); break;
        case JINJA_NAMESPACE:
            put_text(out, "<Namespace ");
            TN_TRY(repr_dict(run, value->dict, out));
            put_text(out, ">");
            break;
        case JINJA_LOOP:
            tn_str_printf(out, "<LoopContext %lld/%lld>", (long long)value->loop->index0 + 1,
                          (long long)value->loop->list.count);
            break;
        case JINJA_MACRO:
            tn_str_printf(out, "<Macro '%s'>", value->macro->node->name ? value->macro->node->name : "caller");
            break;
        default: tn_str_printf(out, "<%s object>", jinja_type_name(value)); /* Python prints an address too */
    }
    run->depth--;
done:
    return status;
}

tn_status jinja_str(jinja_run *run, const jinja_value *value, tn_str *out) {
    if (value->kind == JINJA_STRING) jinja_put(out, value->string->data, value->string->length);
    else if (value->kind != JINJA_UNDEFINED) return jinja_repr(run, value, out);
    return TN_OK;
}

tn_status jinja_to_string(jinja_run *run, const jinja_value *value, jinja_value *out) {
    tn_str text = {0};
    if (value->kind == JINJA_STRING) {
        *out = *value;
        return TN_OK;
    }
    tn_status status = jinja_str(run, value, &text);
    if (status == TN_OK) status = jinja_make_from(run, &text, out);
    tn_str_free(&text);
    return status;
}

/* ---- JSON ---- */

static void json_string(const jinja_string *string, bool ensure_ascii, tn_str *out) {
    static const char escapes[] = "\"\"\\\\\nn\rr\tt\bb\ff";
    put_text(out, "\"");
    for (int64_t i = 0; i < string->length && !out->failed;) {
        uint32_t c = 0;
        int n = tn_utf8_decode(string->data + i, string->length - i, &c);
        if (n == 0) n = 1;
        const char *escape = c > 0 && c < 0x80 ? strchr(escapes, (int)c) : NULL;
        while (escape && (escape - escapes) % 2 == 1) escape = strchr(escape + 1, (int)c);
        if (escape && *escape) {
            char pair[2] = {'\\', escape[1]};
            jinja_put(out, pair, 2);
        } else if (c < 0x20 || (ensure_ascii && c >= 0x7F && c < 0x10000)) {
            tn_str_printf(out, "\\u%04x", c);
        } else if (ensure_ascii && c >= 0x10000) {
            tn_str_printf(out, "\\u%04x\\u%04x", 0xD800 + ((c - 0x10000) >> 10),
                          0xDC00 + ((c - 0x10000) & 0x3FF));
        } else {
            jinja_put(out, string->data + i, n);
        }
        i += n;
    }
    put_text(out, "\"");
}

static void json_real(double value, tn_str *out) {
    char number[40];
    put_text(out, isnan(value)   ? "NaN"
                  : isinf(value) ? (value > 0 ? "Infinity" : "-Infinity")
                                 : tn_real_text(value, number));
}

static void json_line(const jinja_json_style *style, int depth, tn_str *out) {
    if (!style->has_indent) return;
    put_text(out, "\n");
    for (int i = 0; i < depth && !out->failed; i++) jinja_put(out, style->indent.data, style->indent.length);
}

/* A key: strings as they are, numbers, booleans and None as their JSON text. */
static tn_status json_key(jinja_run *run, const jinja_value *key, const jinja_json_style *style, tn_str *out) {
    if (key->kind == JINJA_STRING) {
        json_string(key->string, style->ensure_ascii, out);
        return TN_OK;
    }
    if (key->kind != JINJA_NONE && key->kind != JINJA_BIG && !jinja_is_number(key))
        return jinja_fail(run, "keys must be str, int, float, bool or None, not %s", jinja_type_name(key));
    put_text(out, "\"");
    tn_status status = jinja_json(run, key, style, 0, out);
    put_text(out, "\"");
    return status;
}

static tn_status json_dict(jinja_run *run, const jinja_dict *dict, const jinja_json_style *style, int depth,
                           tn_str *out) {
    tn_status status = TN_OK;
    jinja_pair *pairs = dict->pairs;
    if (style->sort_keys) {
        TN_TRY(jinja_take(run, &pairs, dict->count, sizeof *pairs));
        if (dict->count > 0) memcpy(pairs, dict->pairs, (size_t)dict->count * sizeof *pairs);
        TN_TRY(jinja_sort(run, pairs, dict->count, false));
    }
    put_text(out, "{");
    for (int64_t i = 0; i < dict->count && !out->failed; i++) {
        if (i > 0) jinja_put(out, style->item_separator.data, style->item_separator.length);
        json_line(style, depth + 1, out);
        TN_TRY(json_key(run, &pairs[i].key, style, out));
        jinja_put(out, style->key_separator.data, style->key_separator.length);
        TN_TRY(jinja_json(run, &pairs[i].value, style, depth + 1, out));
    }
    if (dict->count > 0) json_line(style, depth, out);
    put_text(out, "}");
done:
    return status;
}

static tn_status json_list(jinja_run *run, const jinja_list *list, const jinja_json_style *style, int depth,
                           tn_str *out) {
    tn_status status = TN_OK;
    put_text(out, "[");
    for (int64_t i = 0; i < list->count && !out->failed; i++) {
        if (i > 0) jinja_put(out, style->item_separator.data, style->item_separator.length);
        json_line(style, depth + 1, out);
        TN_TRY(jinja_json(run, &list->items[i], style, depth + 1, out));
    }
    if (list->count > 0) json_line(style, depth, out);
    put_text(out, "]");
done:
    return status;
}

tn_status jinja_json(jinja_run *run, const jinja_value *value, const jinja_json_style *style, int depth,
                     tn_str *out) {
    tn_status status = TN_OK;
    TN_TRY(jinja_enter(run));
    TN_TRY(jinja_step(run, 1));
    switch (value->kind) {
        case JINJA_NONE: put_text(out, "null"); break;
        case JINJA_BOOLEAN: put_text(out, value->boolean ? "true" : "false"); break;
        case JINJA_INTEGER:
        case JINJA_BIG: TN_TRY(jinja_str(run, value, out)); break;
        case JINJA_FLOAT: json_real(value->real, out); break;
        case JINJA_STRING: json_string(value->string, style->ensure_ascii, out); break;
        case JINJA_LIST:
        case JINJA_TUPLE: TN_TRY(json_list(run, value->list, style, depth, out)); break;
        case JINJA_DICT: TN_TRY(json_dict(run, value->dict, style, depth, out)); break;
        default: status = jinja_fail(run, "Object of type %s is not JSON serializable", jinja_type_name(value));
    }
    run->depth--;
done:
    return status;
}
