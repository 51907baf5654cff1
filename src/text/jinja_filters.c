/* jinja_filters.c: the filters over single values: text, numbers, tojson, default; and the table of all. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/number.h"
#include "text/jinja_string.h"

#define NATIVE(name)                                                                             \
    static tn_status name(jinja_run *run, const jinja_value *self, const jinja_value *arguments, \
                          const jinja_call *call, jinja_value *out)
#define UNUSED (void)run, (void)self, (void)arguments, (void)call

/* ---- Text ---- */

static tn_status change_case(jinja_run *run, const jinja_value *self, jinja_case_mode mode, jinja_value *out) {
    jinja_value text;
    tn_status status = jinja_to_string(run, self, &text);
    return status == TN_OK ? jinja_case(run, text.string, mode, out) : status;
}

NATIVE(filter_lower) { return UNUSED, change_case(run, self, JINJA_LOWER, out); }
NATIVE(filter_upper) { return UNUSED, change_case(run, self, JINJA_UPPER, out); }
NATIVE(filter_capitalize) { return UNUSED, change_case(run, self, JINJA_CAPITALIZE, out); }
NATIVE(filter_title) { return UNUSED, change_case(run, self, JINJA_TITLE_FILTER, out); }
NATIVE(filter_string) { return UNUSED, jinja_to_string(run, self, out); }

NATIVE(filter_trim) {
    tn_status status = TN_OK;
    jinja_value text;
    const jinja_string *characters = NULL;
    UNUSED;
    TN_TRY(jinja_to_string(run, self, &text));
    if (arguments[0].kind != JINJA_MISSING && arguments[0].kind != JINJA_NONE)
        TN_TRY(jinja_argument_text(run, &arguments[0], "trim", &characters));
    TN_TRY(jinja_strip(run, text.string, characters, true, true, out));
done:
    return status;
}

NATIVE(filter_replace) {
    tn_status status = TN_OK;
    jinja_value text, old, replacement;
    int64_t count;
    UNUSED;
    TN_TRY(jinja_to_string(run, self, &text));
    TN_TRY(jinja_to_string(run, &arguments[0], &old));
    TN_TRY(jinja_to_string(run, &arguments[1], &replacement));
    TN_TRY(jinja_argument_integer(run, &arguments[2], -1, &count));
    TN_TRY(jinja_replace(run, text.string, old.string, replacement.string, count, out));
done:
    return status;
}

NATIVE(filter_center) {
    static const jinja_string blank = {" ", 1, 1};
    tn_status status = TN_OK;
    jinja_value text;
    int64_t width;
    UNUSED;
    TN_TRY(jinja_to_string(run, self, &text));
    TN_TRY(jinja_argument_integer(run, &arguments[0], 80, &width));
    TN_TRY(jinja_center(run, text.string, width < 0 ? 0 : width, &blank, out));
done:
    return status;
}

/* Lines behind the first get `width` blanks (or that text) in front, empty ones only with `blank`. */
NATIVE(filter_indent) {
    tn_status status = TN_OK;
    jinja_value lines, source;
    tn_str indent = {0}, text = {0};
    int64_t width = 4;
    UNUSED;
    bool first = jinja_truth(&arguments[1]), blank = jinja_truth(&arguments[2]);
    if (self->kind == JINJA_UNDEFINED) return jinja_fail_undefined(run, self);
    if (self->kind != JINJA_STRING) return jinja_fail(run, "indent wants a str, not %s", jinja_type_name(self));
    if (arguments[0].kind == JINJA_STRING)
        jinja_put(&indent, arguments[0].string->data, arguments[0].string->length);
    else TN_TRY(jinja_argument_integer(run, &arguments[0], 4, &width));
    for (int64_t i = 0; arguments[0].kind != JINJA_STRING && i < width && !indent.failed; i++)
        jinja_put(&indent, " ", 1);
    jinja_put(&text, self->string->data, self->string->length);
    jinja_put(&text, "\n", 1);
    TN_TRY(jinja_make_from(run, &text, &source));
    TN_TRY(jinja_split_lines(run, source.string, false, &lines));
    for (int64_t i = 0; i < lines.list->count && !text.failed; i++) {
        const jinja_string *line = lines.list->items[i].string;
        if (i > 0) jinja_put(&text, "\n", 1);
        if (i == 0 ? first : blank || line->length > 0) jinja_put(&text, indent.data, indent.length);
        jinja_put(&text, line->data, line->length);
    }
    TN_TRY(jinja_make_from(run, &text, out));
done:
    tn_str_free(&indent);
    tn_str_free(&text);
    return status;
}

NATIVE(filter_truncate) {
    tn_status status = TN_OK;
    int64_t length, leeway;
    jinja_value none = JINJA_MAKE_NONE, bounds[3] = {none, none, none}, head, end;
    UNUSED;
    if (self->kind != JINJA_STRING)
        return jinja_fail(run, "truncate wants a str, not %s", jinja_type_name(self));
    TN_TRY(jinja_argument_integer(run, &arguments[0], 255, &length));
    TN_TRY(jinja_argument_integer(run, &arguments[3], 5, &leeway));
    if (arguments[2].kind == JINJA_STRING) end = arguments[2];
    else TN_TRY(jinja_make_view(run, "...", 3, &end));
    int64_t keep = length - jinja_points(end.string);
    if (keep < 0 || leeway < 0) return jinja_fail(run, "truncate wants a length of at least that of the end");
    *out = *self;
    if (jinja_points(self->string) - leeway <= length) goto done;
    bounds[1] = JINJA_MAKE_INTEGER(keep);
    TN_TRY(jinja_get_slice(run, self, bounds, &head));
    if (!jinja_truth(&arguments[1])) { /* drop the word that was cut */
        int64_t blank = head.string->length - 1;
        while (blank >= 0 && head.string->data[blank] != ' ') blank--;
        if (blank >= 0) TN_TRY(jinja_make_view(run, head.string->data, blank, &head));
    }
    TN_TRY(jinja_binary(run, '+', &head, &end, out));
done:
    return status;
}

NATIVE(filter_wordcount) {
    jinja_value text;
    int64_t count = 0;
    bool inside = false;
    UNUSED;
    tn_status status = jinja_to_string(run, self, &text);
    for (int64_t i = 0; status == TN_OK && i < text.string->length;) {
        uint32_t c = 0;
        int n = tn_utf8_decode(text.string->data + i, text.string->length - i, &c);
        bool word = jinja_is_word(c);
        count += word && !inside;
        inside = word;
        i += n > 0 ? n : 1;
    }
    *out = JINJA_MAKE_INTEGER(count);
    return status;
}

NATIVE(filter_escape) {
    static const struct {
        char c;
        const char *text;
    } escapes[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'\'', "&#39;"}, {'"', "&#34;"}};
    tn_str result = {0};
    jinja_value text;
    UNUSED;
    tn_status status = jinja_to_string(run, self, &text);
    if (status != TN_OK) return status;
    for (int64_t i = 0; i < text.string->length && !result.failed; i++) {
        const char *with = NULL;
        for (size_t e = 0; e < sizeof escapes / sizeof *escapes; e++)
            if (escapes[e].c == text.string->data[i]) with = escapes[e].text;
        jinja_put(&result, with ? with : &text.string->data[i], with ? (int64_t)strlen(with) : 1);
    }
    return jinja_make_from(run, &result, out);
}

NATIVE(filter_urlencode) {
    tn_str result = {0};
    jinja_value text;
    UNUSED;
    tn_status status = jinja_to_string(run, self, &text);
    if (status != TN_OK) return status;
    for (int64_t i = 0; i < text.string->length && !result.failed; i++) {
        unsigned char c = (unsigned char)text.string->data[i];
        bool plain =
            (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || (c && strchr("_.-~/", c));
        if (plain) jinja_put(&result, &text.string->data[i], 1);
        else tn_str_printf(&result, "%%%02X", c);
    }
    return jinja_make_from(run, &result, out);
}

NATIVE(filter_format) {
    tn_status status = TN_OK;
    jinja_value text, values;
    UNUSED;
    TN_TRY(jinja_to_string(run, self, &text));
    if (call->count > 0 && call->keyword_count > 0)
        return jinja_fail(run, "can't handle positional and keyword arguments at the same time");
    TN_TRY(jinja_make_list(run, JINJA_TUPLE, call->positional, call->count, &values));
    if (call->keyword_count > 0) {
        TN_TRY(jinja_make_dict(run, &values));
        for (int64_t i = 0; i < call->keyword_count; i++)
            TN_TRY(jinja_dict_set(run, values.dict, call->keywords[i].key, call->keywords[i].value));
    }
    TN_TRY(jinja_percent(run, text.string, &values, out));
done:
    return status;
}

/* ---- Numbers ---- */

/* A number's text without white space around and underscores between digits, as Python reads it. */
static bool plain_number(const jinja_string *string, char text[128]) {
    int64_t from = 0, to = string->length, used = 0;
    while (from < to && jinja_is_space((unsigned char)string->data[from])) from++;
    while (to > from && jinja_is_space((unsigned char)string->data[to - 1])) to--;
    for (; from < to; from++) {
        if (used == 127) return false;
        if (string->data[from] != '_') text[used++] = string->data[from];
    }
    text[used] = '\0';
    return used > 0;
}

static bool text_to_integer(const jinja_string *string, int64_t base, int64_t *value) {
    char text[128];
    if (!plain_number(string, text)) return false;
    if (base == 10) return tn_parse_integer(text, (int64_t)strlen(text), value);
    const char *at = text + (*text == '-' || *text == '+');
    if (base == 16 && at[0] == '0' && (at[1] | 32) == 'x') at += 2;
    else if (base == 8 && at[0] == '0' && (at[1] | 32) == 'o') at += 2;
    else if (base == 2 && at[0] == '0' && (at[1] | 32) == 'b') at += 2;
    bool any = *at != '\0', overflow = false;
    for (*value = 0; *at && any; at++) {
        int digit = *at >= '0' && *at <= '9'                 ? *at - '0'
                    : (*at | 32) >= 'a' && (*at | 32) <= 'z' ? (*at | 32) - 'a' + 10
                                                             : 99;
        any = digit < base;
        overflow = overflow || __builtin_mul_overflow(*value, base, value) ||
                   __builtin_add_overflow(*value, digit, value);
    }
    if (*text == '-') *value = -*value;
    return any && !overflow;
}

static bool text_to_real(const jinja_string *string, double *value) {
    static const struct {
        const char *name;
        double value;
    } names[] = {{"inf", INFINITY}, {"infinity", INFINITY}, {"nan", NAN}};
    char text[128];
    if (!plain_number(string, text)) return false;
    if (tn_parse_real(text, (int64_t)strlen(text), value)) return true;
    bool negative = *text == '-';
    const char *word = text + (negative || *text == '+');
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t at = 0;
        while (word[at] && (word[at] | 32) == names[i].name[at]) at++;
        if (word[at] || names[i].name[at]) continue;
        *value = negative ? -names[i].value : names[i].value;
        return true;
    }
    return false;
}

NATIVE(filter_int) {
    tn_status status = TN_OK;
    int64_t base, value;
    double real;
    UNUSED;
    TN_TRY(jinja_argument_integer(run, &arguments[1], 10, &base));
    *out = arguments[0].kind == JINJA_MISSING ? JINJA_MAKE_INTEGER(0) : arguments[0];
    if (self->kind == JINJA_UNDEFINED) return jinja_fail_undefined(run, self);
    if (jinja_is_integer(self)) *out = JINJA_MAKE_INTEGER(jinja_integer(self));
    else if (self->kind == JINJA_BIG) *out = *self;
    else if (self->kind == JINJA_STRING && text_to_integer(self->string, base, &value))
        *out = JINJA_MAKE_INTEGER(value);
    else {
        bool known =
            self->kind == JINJA_FLOAT || (self->kind == JINJA_STRING && text_to_real(self->string, &real));
        if (self->kind == JINJA_FLOAT) real = self->real;
        if (known && fabs(real) < 9.2e18) *out = JINJA_MAKE_INTEGER((int64_t)real);
        else if (known && isfinite(real)) status = jinja_fail(run, "an integer beyond 64 bits");
        else if (known && isinf(real) && self->kind == JINJA_FLOAT)
            status = jinja_fail(run, "cannot convert float infinity to integer");
    }
done:
    return status;
}

NATIVE(filter_float) {
    double real;
    UNUSED;
    *out = arguments[0].kind == JINJA_MISSING ? JINJA_MAKE_FLOAT(0.0) : arguments[0];
    if (self->kind == JINJA_UNDEFINED) return jinja_fail_undefined(run, self);
    if (jinja_is_number(self)) *out = JINJA_MAKE_FLOAT(jinja_real(self));
    else if (self->kind == JINJA_STRING && text_to_real(self->string, &real)) *out = JINJA_MAKE_FLOAT(real);
    return TN_OK;
}

NATIVE(filter_abs) {
    UNUSED;
    if (self->kind == JINJA_FLOAT) *out = JINJA_MAKE_FLOAT(fabs(self->real));
    else if (jinja_is_integer(self) && jinja_integer(self) >= 0) *out = JINJA_MAKE_INTEGER(jinja_integer(self));
    else if (jinja_is_integer(self)) return jinja_negate(run, self, out);
    else return jinja_fail(run, "bad operand type for abs(): '%s'", jinja_type_name(self));
    return TN_OK;
}

NATIVE(filter_round) {
    tn_status status = TN_OK;
    int64_t precision;
    char text[400];
    UNUSED;
    bool ceiling = jinja_is_text(&arguments[1], "ceil"), lower = jinja_is_text(&arguments[1], "floor");
    TN_TRY(jinja_argument_integer(run, &arguments[0], 0, &precision));
    if (arguments[1].kind != JINJA_MISSING && !ceiling && !lower && !jinja_is_text(&arguments[1], "common"))
        return jinja_fail(run, "method must be common, ceil or floor");
    if (!jinja_is_number(self))
        return jinja_fail(run, "type %s doesn't define __round__ method", jinja_type_name(self));
    if (precision > 300 || precision < -300)
        return jinja_fail(run, "round to %lld digits", (long long)precision);
    double value = jinja_real(self), scale = pow(10, (double)precision);
    if (ceiling || lower) {
        *out = JINJA_MAKE_FLOAT((ceiling ? ceil(value * scale) : floor(value * scale)) / scale);
    } else if (jinja_is_integer(self) && precision >= 0) {
        *out = JINJA_MAKE_INTEGER(jinja_integer(self));
    } else if (precision < 0) {
        double rounded = nearbyint(value * scale) / scale;
        *out = self->kind == JINJA_FLOAT ? JINJA_MAKE_FLOAT(rounded) : JINJA_MAKE_INTEGER((int64_t)rounded);
    } else if (fabs(value) > 1e22 || !isfinite(value)) {
        *out = *self; /* no digits behind the point */
    } else {          /* exact: printf rounds the binary value's own decimal expansion */
        snprintf(text, sizeof text, "%.*f", (int)precision, value);
        tn_parse_real(text, (int64_t)strlen(text), &value);
        *out = JINJA_MAKE_FLOAT(value);
    }
done:
    return status;
}

/* ---- The rest ---- */

NATIVE(filter_default) {
    UNUSED;
    *out = *self;
    if (self->kind != JINJA_UNDEFINED && !(jinja_truth(&arguments[1]) && !jinja_truth(self))) return TN_OK;
    *out = arguments[0];
    return arguments[0].kind == JINJA_MISSING ? jinja_make_view(run, "", 0, out) : TN_OK;
}

NATIVE(filter_length) {
    UNUSED;
    int64_t length = 0;
    tn_status status = jinja_length(run, self, &length);
    *out = JINJA_MAKE_INTEGER(length);
    return status;
}

NATIVE(filter_attr) {
    tn_status status = TN_OK;
    const jinja_string *name;
    bool found;
    UNUSED;
    TN_TRY(jinja_argument_text(run, &arguments[0], "attr", &name));
    TN_TRY(jinja_find_attribute(run, self, name, out, &found));
    if (!found) TN_TRY(jinja_make_undefined(run, NULL, self, &arguments[0], out));
done:
    return status;
}

/* json.dumps as transformers calls it. */
NATIVE(filter_tojson) {
    tn_status status = TN_OK;
    tn_str text = {0}, indent = {0};
    int64_t width;
    UNUSED;
    const jinja_value *step = &arguments[1], *separators = &arguments[2];
    jinja_json_style style = {.ensure_ascii = jinja_truth(&arguments[0]),
                              .sort_keys = jinja_truth(&arguments[3]),
                              .has_indent = step->kind != JINJA_MISSING && step->kind != JINJA_NONE,
                              .item_separator = {", ", 2, 2},
                              .key_separator = {": ", 2, 2}};
    if (style.has_indent) style.item_separator.length = 1;
    if (style.has_indent && step->kind == JINJA_STRING) {
        style.indent = *step->string;
    } else if (style.has_indent) {
        TN_TRY(jinja_argument_integer(run, step, 0, &width));
        if (width > 1000) return jinja_fail(run, "tojson: an indent of %lld", (long long)width);
        for (int64_t i = 0; i < width; i++) tn_str_putc(&indent, ' ');
        style.indent = (jinja_string){tn_str_text(&indent), indent.length, indent.length};
    }
    if (separators->kind == JINJA_TUPLE || separators->kind == JINJA_LIST) {
        const jinja_list *two = separators->list;
        if (two->count != 2 || two->items[0].kind != JINJA_STRING || two->items[1].kind != JINJA_STRING) {
            status = jinja_fail(run, "tojson: separators are two texts");
            goto done;
        }
        style.item_separator = *two->items[0].string, style.key_separator = *two->items[1].string;
    }
    TN_TRY(jinja_json(run, self, &style, 0, &text));
    TN_TRY(jinja_make_from(run, &text, out));
done:
    tn_str_free(&text);
    tn_str_free(&indent);
    return status;
}

static const jinja_builtin *find_filter(const jinja_string *name) {
    static const jinja_builtin filters[] = {
        {"abs", filter_abs, ""},
        {"attr", filter_attr, "name"},
        {"capitalize", filter_capitalize, ""},
        {"center", filter_center, "?width"},
        {"count", filter_length, ""},
        {"d", filter_default, "?default_value ?boolean"},
        {"default", filter_default, "?default_value ?boolean"},
        {"e", filter_escape, ""},
        {"escape", filter_escape, ""},
        {"float", filter_float, "?default"},
        {"forceescape", filter_escape, ""},
        {"format", filter_format, "*"},
        {"indent", filter_indent, "?width ?first ?blank"},
        {"int", filter_int, "?default ?base"},
        {"length", filter_length, ""},
        {"lower", filter_lower, ""},
        {"replace", filter_replace, "old new ?count"},
        {"round", filter_round, "?precision ?method"},
        {"safe", filter_string, ""},
        {"string", filter_string, ""},
        {"title", filter_title, ""},
        {"tojson", filter_tojson, "?ensure_ascii ?indent ?separators ?sort_keys"},
        {"trim", filter_trim, "?chars"},
        {"truncate", filter_truncate, "?length ?killwords ?end ?leeway"},
        {"upper", filter_upper, ""},
        {"urlencode", filter_urlencode, ""},
        {"wordcount", filter_wordcount, ""},
        {0},
    };
    const jinja_builtin *found = jinja_find(filters, name->data, name->length);
    return found ? found : jinja_sequence_filter(name);
}

bool jinja_has_filter(const jinja_string *name) { return find_filter(name) != NULL; }

tn_status jinja_apply_filter(jinja_run *run, const jinja_string *name, const jinja_value *value,
                             const jinja_call *call, jinja_value *out) {
    tn_status status = TN_OK;
    const jinja_builtin *filter = find_filter(name);
    if (!filter) return jinja_fail(run, "No filter named '%.*s'.", (int)name->length, name->data);
    TN_TRY(jinja_enter(run)); /* map applies filters by name, so filters nest */
    TN_TRY(jinja_invoke_builtin(run, filter, value, call, out));
    run->depth--;
done:
    return status;
}
