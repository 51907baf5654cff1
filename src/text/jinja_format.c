/* jinja_format.c: "%-10s" % x and "{:>5.2f}".format(x), the two ways Python fills in a text.
 *
 * Both read a specification into `layout`, turn the value into a prefix (sign, 0x) and a body, and pad.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "text/jinja_run.h"

typedef struct layout {
    jinja_string fill; /* one character */
    char align;        /* '<' '>' '^', '=' pads between sign and digits, 0 = the type's own */
    char sign;         /* '+', ' ' or '-' */
    char grouping;     /* ',' '_' or 0 */
    char type;         /* 0 = none given */
    bool alternate;
    int64_t width, precision; /* -1 = none */
} layout;

enum { MAX_WIDTH = 1 << 20, MAX_PRECISION = 300 };

static int64_t points_of(const char *text, int64_t length) {
    jinja_string string = {text, length, -1};
    return jinja_points(&string);
}

static void pad(tn_str *out, const layout *l, const char *prefix, const char *body, int64_t length) {
    int64_t missing = l->width - points_of(body, length) - (int64_t)strlen(prefix), left = 0;
    if (missing < 0) missing = 0;
    if (l->align == '>') left = missing;
    if (l->align == '^') left = missing / 2;
    jinja_put_times(out, l->fill.data, l->fill.length, left);
    jinja_put(out, prefix, (int64_t)strlen(prefix));
    if (l->align == '=') jinja_put_times(out, l->fill.data, l->fill.length, missing);
    jinja_put(out, body, length);
    for (int64_t i = l->align == '=' ? missing : left; i < missing; i++)
        jinja_put(out, l->fill.data, l->fill.length);
}

/* Digits of |value| in base 2, 8, 10 or 16, at least `least` of them. */
static const char *integer_digits(int64_t value, int base, bool upper, int64_t least, char buffer[400]) {
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    char *at = buffer + 399;
    *at = '\0';
    for (; rest > 0 || at == buffer + 399 || least > 0; rest /= (uint64_t)base, least--)
        *--at = (upper ? "0123456789ABCDEF" : "0123456789abcdef")[rest % (uint64_t)base];
    return at;
}

static void add_grouped(tn_str *body, const char *digits, char grouping) {
    int64_t whole = (int64_t)strspn(digits, "0123456789");
    for (int64_t i = 0; i < whole; i++) {
        TN_KNOWN(digits[i]); /* strspn counted it */
        if (grouping && i > 0 && (whole - i) % 3 == 0) tn_str_putc(body, grouping);
        tn_str_putc(body, digits[i]);
    }
    tn_str_puts(body, digits + whole);
}

static void float_body(double value, const layout *l, tn_str *body) {
    char text[720], format[16];
    int precision = (int)(l->precision < 0 ? 6 : l->precision);
    double magnitude = fabs(value);
    bool upper = l->type == 'E' || l->type == 'F' || l->type == 'G';
    if (!isfinite(value)) {
        tn_str_puts(body, isnan(value) ? (upper ? "NAN" : "nan") : (upper ? "INF" : "inf"));
        return;
    }
    if (l->type == 0 && l->precision < 0) {
        tn_real_text(magnitude, text);
    } else if (l->type == '%') {
        snprintf(text, sizeof text, "%.*f%%", precision, magnitude * 100);
    } else {
        snprintf(format, sizeof format, "%%%s.*%c", l->alternate ? "#" : "",
                 l->type == 0 || l->type == 'n' ? 'g' : l->type);
        snprintf(text, sizeof text, format, precision, magnitude);
        if (l->type == 0 && !strpbrk(text, ".e")) strcat(text, ".0");
    }
    add_grouped(body, text, l->grouping);
}

/* Pads a number; `value` is an int where the type is an integer's, else any number. */
static tn_status put_number(jinja_run *run, tn_str *out, const jinja_value *value, const layout *given) {
    layout l = *given;
    char prefix[4] = "", buffer[400];
    tn_str body = {0};
    bool integer = l.type && strchr("dbcoxXn", l.type) && value->kind != JINJA_FLOAT;
    bool negative = integer ? jinja_integer(value) < 0 : signbit(jinja_real(value));
    if (negative) strcat(prefix, "-");
    else if (l.sign != '-') strcat(prefix, l.sign == '+' ? "+" : " ");
    if (integer) {
        char lower = (char)(l.type | 32);
        int base = lower == 'x' ? 16 : lower == 'o' ? 8 : lower == 'b' ? 2 : 10;
        if (l.alternate && base != 10) strncat(strcat(prefix, "0"), &l.type, 1);
        add_grouped(&body, integer_digits(jinja_integer(value), base, l.type == 'X', l.precision, buffer),
                    l.grouping);
    } else {
        float_body(jinja_real(value), &l, &body);
    }
    if (!l.align) l.align = '>';
    pad(out, &l, prefix, tn_str_text(&body), body.length);
    tn_status status = tn_str_check(&body, "formatted number");
    tn_str_free(&body);
    return status == TN_OK ? jinja_step(run, l.width / 16) : status;
}

/* Pads str() or repr() of a value, cut to the precision. */
static tn_status put_value(jinja_run *run, tn_str *out, const jinja_value *value, char conversion, layout l) {
    tn_str text = {0};
    tn_status status = conversion == 's' ? jinja_str(run, value, &text) : jinja_repr(run, value, &text);
    if (status == TN_OK) {
        jinja_string string = {tn_str_text(&text), text.length, -1};
        if (l.precision >= 0 && l.precision < jinja_points(&string))
            string.length = jinja_offset(&string, l.precision);
        if (!l.align || l.align == '=') l.align = '<';
        pad(out, &l, "", string.data, string.length);
        if (text.failed) out->failed = true;
        status = jinja_step(run, l.width / 16);
    }
    tn_str_free(&text);
    return status;
}

static tn_status put_character(jinja_run *run, tn_str *out, const jinja_value *value, layout l) {
    tn_str character = {0};
    if (value->kind == JINJA_STRING && jinja_points(value->string) == 1)
        tn_str_add(&character, value->string->data, value->string->length);
    else if (jinja_is_integer(value) && jinja_integer(value) >= 0 && jinja_integer(value) <= 0x10FFFF &&
             (jinja_integer(value) & ~(int64_t)0x7FF) != 0xD800)
        tn_str_code_point(&character, (uint32_t)jinja_integer(value));
    else return jinja_fail(run, "%%c requires int or char");
    if (!l.align || l.align == '=') l.align = '>';
    pad(out, &l, "", tn_str_text(&character), character.length);
    tn_str_free(&character);
    return TN_OK;
}

/* ---- text % value ---- */

typedef struct percent {
    jinja_run *run;
    const char *at, *end;
    const jinja_value *value;
    jinja_list arguments;
    int64_t used;
} percent;

static tn_status next_argument(percent *p, const jinja_value **argument) {
    if (p->used >= p->arguments.count) return jinja_fail(p->run, "not enough arguments for format string");
    *argument = &p->arguments.items[p->used++];
    return TN_OK;
}

static char peek(const percent *p) { return p->at < p->end ? *p->at : '\0'; }

/* A width or precision: digits, or * for the next argument. */
static tn_status percent_number(percent *p, int64_t limit, int64_t *number) {
    tn_status status = TN_OK;
    const jinja_value *argument = NULL;
    if (peek(p) == '*') {
        p->at++;
        TN_TRY(next_argument(p, &argument));
        if (!jinja_is_integer(argument)) return jinja_fail(p->run, "* wants int");
        *number = jinja_integer(argument);
    } else {
        for (; peek(p) >= '0' && peek(p) <= '9' && *number <= limit; p->at++)
            *number = (*number < 0 ? 0 : *number) * 10 + (peek(p) - '0');
    }
    if (*number > limit || *number < -limit) status = jinja_fail(p->run, "width or precision too big");
done:
    return status;
}

static tn_status mapped_argument(percent *p, const jinja_value **argument) {
    tn_status status = TN_OK;
    const char *key = ++p->at;
    jinja_value *found = NULL;
    for (int nested = 1; p->at < p->end; p->at++) {
        nested += *p->at == '(' ? 1 : *p->at == ')' ? -1 : 0;
        if (nested == 0) break;
    }
    if (p->at == p->end) return jinja_fail(p->run, "incomplete format key");
    if (p->value->kind != JINJA_DICT) return jinja_fail(p->run, "format requires a mapping");
    found = jinja_dict_find(p->value->dict, key, p->at - key);
    if (!found) return jinja_fail(p->run, "no value for the format key '%.*s'", (int)(p->at - key), key);
    p->at++;
    *argument = found;
    return status;
}

/* Behind a '%': one conversion. */
static tn_status percent_conversion(percent *p, tn_str *out) {
    tn_status status = TN_OK;
    const jinja_value *argument = NULL;
    layout l = {.fill = {" ", 1, 1}, .align = '>', .sign = '-', .precision = -1};
    if (peek(p) == '(') TN_TRY(mapped_argument(p, &argument));
    for (; peek(p) && strchr("-+ #0", peek(p)); p->at++) {
        if (*p->at == '-') l.align = '<';
        else if (*p->at == '+') l.sign = '+';
        else if (*p->at == ' ' && l.sign != '+') l.sign = ' ';
        else if (*p->at == '#') l.alternate = true;
        else if (*p->at == '0') l.fill.data = "0";
    }
    TN_TRY(percent_number(p, MAX_WIDTH, &l.width));
    if (l.width < 0) l.align = '<', l.width = -l.width;
    if (peek(p) == '.') {
        p->at++, l.precision = 0;
        TN_TRY(percent_number(p, MAX_PRECISION, &l.precision));
    }
    while (peek(p) && strchr("hlL", peek(p))) p->at++;
    if (p->at == p->end) return jinja_fail(p->run, "incomplete format");
    char type = *p->at++;
    if (type == '%') {
        jinja_put(out, "%", 1);
        return TN_OK;
    }
    if (!argument) TN_TRY(next_argument(p, &argument));
    TN_KNOWN(argument);
    l.type = type == 'i' || type == 'u' ? 'd' : type;
    bool numeric = strchr("dxXoeEfFgG", l.type) != NULL;
    if (!numeric || l.align == '<') l.fill.data = " ";
    if (numeric && l.fill.data[0] == '0') l.align = '=';
    if (strchr("sra", type)) TN_TRY(put_value(p->run, out, argument, type, l));
    else if (type == 'c') TN_TRY(put_character(p->run, out, argument, l));
    else if (!numeric) status = jinja_fail(p->run, "unsupported format character '%c'", type);
    else if (!jinja_is_number(argument) || (strchr("xXo", l.type) && !jinja_is_integer(argument)))
        status =
            jinja_fail(p->run, "%%%c format: a number is required, not %s", type, jinja_type_name(argument));
    else if (l.type == 'd' && argument->kind == JINJA_FLOAT) {
        if (!(fabs(argument->real) < 9e18)) return jinja_fail(p->run, "cannot convert float to integer");
        jinja_value whole = JINJA_MAKE_INTEGER((int64_t)argument->real);
        TN_TRY(put_number(p->run, out, &whole, &l));
    } else {
        TN_TRY(put_number(p->run, out, argument, &l));
    }
done:
    return status;
}

tn_status jinja_percent(jinja_run *run, const jinja_string *format, const jinja_value *value,
                        jinja_value *out) {
    tn_status status = TN_OK;
    tn_str text = {0};
    percent p = {.run = run,
                 .at = format->data,
                 .end = format->data + format->length,
                 .value = value,
                 .arguments = {value, 1}};
    if (value->kind == JINJA_TUPLE) p.arguments = *value->list;
    while (p.at < p.end && !text.failed) {
        const char *sign = memchr(p.at, '%', (size_t)(p.end - p.at));
        jinja_put(&text, p.at, (sign ? sign : p.end) - p.at);
        if (!sign) break;
        p.at = sign + 1;
        TN_TRY(jinja_step(run, 1));
        TN_TRY(percent_conversion(&p, &text));
    }
    bool mapping = value->kind == JINJA_DICT || value->kind == JINJA_LIST || value->kind == JINJA_RANGE ||
                   value->kind == JINJA_UNDEFINED; /* Python asks for no more than a [] */
    if (p.used < p.arguments.count && !mapping)
        status = jinja_fail(run, "not all arguments converted during string formatting");
    else status = jinja_make_from(run, &text, out);
done:
    tn_str_free(&text);
    return status;
}

/* ---- text.format(…) ---- */

/* [[fill]align][sign][#][0][width][,][.precision][type] */
static tn_status read_layout(jinja_run *run, const char *at, const char *end, layout *l) {
    *l = (layout){.fill = {" ", 1, 1}, .sign = '-', .precision = -1};
    uint32_t c;
    int first = at < end ? tn_utf8_decode(at, end - at, &c) : 0;
    if (first > 0 && at + first < end && strchr("<>=^", at[first]) && at[first]) {
        l->fill = (jinja_string){at, first, 1}, l->align = at[first];
        at += first + 1;
    } else if (at < end && *at && strchr("<>=^", *at)) {
        l->align = *at++;
    }
    if (at < end && (*at == '+' || *at == '-' || *at == ' ')) l->sign = *at++;
    if (at < end && *at == '#') l->alternate = true, at++;
    if (at < end && *at == '0') {
        if (!l->align) l->fill.data = "0", l->fill.length = 1, l->align = '=';
        at++;
    }
    for (; at < end && *at >= '0' && *at <= '9'; at++)
        if ((l->width = l->width * 10 + (*at - '0')) > MAX_WIDTH) return jinja_fail(run, "too wide a format");
    if (at < end && (*at == ',' || *at == '_')) l->grouping = *at++;
    if (at < end && *at == '.')
        for (at++, l->precision = 0; at < end && *at >= '0' && *at <= '9'; at++)
            if ((l->precision = l->precision * 10 + (*at - '0')) > MAX_PRECISION)
                return jinja_fail(run, "too precise a format");
    if (at < end) l->type = *at++;
    return at == end ? TN_OK : jinja_fail(run, "Invalid format specifier");
}

static tn_status put_formatted(jinja_run *run, tn_str *out, const jinja_value *value, const layout *given) {
    layout l = *given;
    if (value->kind == JINJA_BOOLEAN && l.type == 0 && l.width == 0) return jinja_str(run, value, out);
    if (jinja_is_number(value)) {
        if (l.type == 0 && value->kind != JINJA_FLOAT) l.type = 'd';
        if (l.type == 'c') return put_character(run, out, value, l);
        bool known = l.type == 0 || strchr(value->kind == JINJA_FLOAT ? "eEfFgGn%" : "bdnoxXeEfFgG%", l.type);
        if (known) return put_number(run, out, value, &l);
    } else if (l.type == 0 || (l.type == 's' && value->kind == JINJA_STRING)) {
        return put_value(run, out, value, 's', l);
    }
    return jinja_fail(run, "Unknown format code '%c' for object of type '%s'", l.type, jinja_type_name(value));
}

typedef struct braces {
    jinja_run *run;
    const jinja_call *call;
    int64_t automatic; /* number of the next "{}" */
} braces;

static tn_status first_part(braces *b, const char *name, int64_t length, jinja_value *value) {
    int64_t index = 0;
    bool number = true;
    for (int64_t i = 0; i < length; i++) {
        number = number && name[i] >= '0' && name[i] <= '9' && index < 1000;
        index = number ? index * 10 + (name[i] - '0') : 0;
    }
    if (length == 0) index = b->automatic++;
    if (number) {
        if (index >= b->call->count)
            return jinja_fail(b->run, "Replacement index %lld out of range for positional args tuple",
                              (long long)index);
        *value = b->call->positional[index];
        return TN_OK;
    }
    for (int64_t i = 0; i < b->call->keyword_count; i++) {
        const jinja_string *key = b->call->keywords[i].key.string;
        if (key->length != length || memcmp(key->data, name, (size_t)length) != 0) continue;
        *value = b->call->keywords[i].value;
        return TN_OK;
    }
    return jinja_fail(b->run, "no value for the format field '%.*s'", (int)length, name);
}

/* "name.attribute[key]" */
static tn_status read_field(braces *b, const char *at, const char *end, jinja_value *value) {
    tn_status status = TN_OK;
    const char *name = at;
    while (at < end && *at != '.' && *at != '[') at++;
    TN_TRY(first_part(b, name, at - name, value));
    while (at < end) {
        bool item = *at++ == '[';
        name = at;
        while (at < end && (item ? *at != ']' : *at != '.' && *at != '[')) at++;
        if ((item && at == end) || at == name) return jinja_fail(b->run, "malformed field in a format string");
        jinja_value key, object = *value;
        TN_TRY(jinja_make_view(b->run, name, at - name, &key));
        bool number = item && (int64_t)strspn(name, "0123456789") >= at - name && at - name < 10;
        int64_t index = 0;
        for (const char *d = name; number && d < at; d++) index = index * 10 + (*d - '0');
        if (number) key = JINJA_MAKE_INTEGER(index);
        TN_TRY(item ? jinja_get_item(b->run, &object, &key, value)
                    : jinja_get_attribute(b->run, &object, &key, value));
        if (item) at++;
    }
done:
    return status;
}

/* What stands between { and }. */
static tn_status put_field(braces *b, const char *at, const char *end, tn_str *out) {
    tn_status status = TN_OK;
    jinja_value value = {0};
    layout l;
    const char *name_end = at;
    char conversion = 0;
    while (name_end < end && *name_end != '!' && *name_end != ':') name_end++;
    TN_TRY(read_field(b, at, name_end, &value));
    at = name_end;
    if (at < end && *at == '!') {
        if (end - at < 2 || !strchr("sra", at[1]))
            return jinja_fail(b->run, "unknown conversion in a format string");
        conversion = at[1], at += 2;
    }
    if (at < end && *at++ != ':') return jinja_fail(b->run, "expected ':' after conversion specifier");
    TN_TRY(read_layout(b->run, at, end, &l));
    if (conversion) TN_TRY(put_value(b->run, out, &value, conversion, l));
    else TN_TRY(put_formatted(b->run, out, &value, &l));
done:
    return status;
}

tn_status jinja_brace_format(jinja_run *run, const jinja_string *format, const jinja_call *call,
                             jinja_value *out) {
    tn_status status = TN_OK;
    tn_str text = {0};
    braces b = {run, call, 0};
    const char *at = format->data, *end = at + format->length;
    while (at < end && !text.failed) {
        TN_TRY(jinja_step(run, 1));
        if ((*at == '{' || *at == '}') && at + 1 < end && at[1] == *at) {
            jinja_put(&text, at, 1);
            at += 2;
        } else if (*at == '{') {
            const char *close = memchr(at, '}', (size_t)(end - at));
            if (!close) return tn_str_free(&text), jinja_fail(run, "Single '{' encountered in format string");
            if (memchr(at + 1, '{', (size_t)(close - at - 1)))
                return tn_str_free(&text), jinja_fail(run, "a field within a field of a format string");
            TN_TRY(put_field(&b, at + 1, close, &text));
            at = close + 1;
        } else if (*at == '}') {
            return tn_str_free(&text), jinja_fail(run, "Single '}' encountered in format string");
        } else {
            jinja_put(&text, at++, 1);
        }
    }
    status = jinja_make_from(run, &text, out);
done:
    tn_str_free(&text);
    return status;
}
