/* jinja_string.c: Python's str methods. Positions count code points towards the template and bytes in
 * here; results share the bytes of their source where they can.
 */
#define _GNU_SOURCE /* memmem: linear, where a search by hand would be quadratic on hostile text */
#include "text/jinja_string.h"

#include <string.h>

#define NATIVE(name)                                                                             \
    static tn_status name(jinja_run *run, const jinja_value *self, const jinja_value *arguments, \
                          const jinja_call *call, jinja_value *out)
#define UNUSED (void)run, (void)self, (void)arguments, (void)call

int64_t jinja_search(const jinja_string *text, int64_t from, int64_t to, const jinja_string *what) {
    if (from > to) return -1;
    if (what->length == 0) return from;
    if (to == from) return -1;
    const char *found = memmem(text->data + from, (size_t)(to - from), what->data, (size_t)what->length);
    return found ? found - text->data : -1;
}

/* Last place, by candidates from the end: first bytes are compared first. */
static int64_t search_last(jinja_run *run, const jinja_string *text, int64_t from, int64_t to,
                           const jinja_string *what) {
    for (int64_t at = to - what->length; at >= from; at--) {
        if (memcmp(text->data + at, what->data, (size_t)what->length) == 0) return at;
        if ((at & 63) == 0 && jinja_step(run, 1 + what->length / 64) != TN_OK) return -1;
    }
    return -1;
}

static tn_status part(jinja_run *run, const jinja_string *text, int64_t from, int64_t to, jinja_value *out) {
    return jinja_make_view(run, text->data + from, to - from, out);
}

/* Optional start and end in code points, negative from the end, as byte offsets. */
static tn_status byte_range(jinja_run *run, jinja_string *text, const jinja_value bounds[2], int64_t *from,
                            int64_t *to) {
    tn_status status = TN_OK;
    int64_t points = jinja_points(text), start, end;
    TN_TRY(jinja_argument_integer(run, &bounds[0], 0, &start));
    TN_TRY(jinja_argument_integer(run, &bounds[1], points, &end));
    if (start < 0) start = start < -points ? 0 : start + points;
    if (end < 0) end = end < -points ? 0 : end + points;
    if (end > points) end = points;
    *from = start > points ? text->length + 1 : jinja_offset(text, start);
    *to = jinja_offset(text, end);
done:
    return status;
}

static bool has_character(const jinja_string *characters, const char *at, int bytes, uint32_t c) {
    if (!characters) return jinja_is_space(c);
    jinja_string one = {at, bytes, 1};
    return jinja_search(characters, 0, characters->length, &one) >= 0;
}

tn_status jinja_strip(jinja_run *run, const jinja_string *string, const jinja_string *characters, bool left,
                      bool right, jinja_value *out) {
    int64_t from = 0, to = string->length;
    uint32_t c;
    while (left && from < to) {
        int n = tn_utf8_decode(string->data + from, to - from, &c);
        if (n == 0 || !has_character(characters, string->data + from, n, c)) break;
        from += n;
    }
    while (right && to > from) {
        int64_t at = to - 1;
        while (at > from && (string->data[at] & 0xC0) == 0x80) at--;
        int n = tn_utf8_decode(string->data + at, to - at, &c);
        if (n == 0 || !has_character(characters, string->data + at, n, c)) break;
        to = at;
    }
    return part(run, string, from, to, out);
}

tn_status jinja_replace(jinja_run *run, const jinja_string *string, const jinja_string *old,
                        const jinja_string *replacement, int64_t count, jinja_value *out) {
    tn_str text = {0};
    int64_t from = 0;
    for (; count != 0 && !text.failed; count--) {
        int64_t at = jinja_search(string, from, string->length, old);
        if (at < 0) break;
        jinja_put(&text, string->data + from, at - from);
        jinja_put(&text, replacement->data, replacement->length);
        from = at + old->length;
        if (old->length > 0) continue;
        if (at == string->length) break; /* an empty text stands between all characters */
        for (from = at + 1; from < string->length && (string->data[from] & 0xC0) == 0x80;) from++;
        jinja_put(&text, string->data + at, from - at);
    }
    if (from < string->length) jinja_put(&text, string->data + from, string->length - from);
    return jinja_make_from(run, &text, out);
}

tn_status jinja_split_lines(jinja_run *run, const jinja_string *string, bool keep_ends, jinja_value *out) {
    tn_status status = TN_OK;
    jinja_builder list = {0};
    jinja_value line;
    int64_t from = 0;
    for (int64_t at = 0; at < string->length;) {
        uint32_t c = 0;
        int n = tn_utf8_decode(string->data + at, string->length - at, &c);
        if (n == 0) n = 1;
        bool is_end =
            (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
        if (is_end) {
            if (c == '\r' && at + 1 < string->length && string->data[at + 1] == '\n') n = 2;
            TN_TRY(part(run, string, from, keep_ends ? at + n : at, &line));
            TN_TRY(jinja_push(run, &list, line));
            from = at + n;
        }
        at += n;
    }
    if (from < string->length) {
        TN_TRY(part(run, string, from, string->length, &line));
        TN_TRY(jinja_push(run, &list, line));
    }
    TN_TRY(jinja_make_list(run, JINJA_LIST, list.items, list.count, out));
done:
    return status;
}

/* ---- split ---- */

static tn_status push_part(jinja_run *run, jinja_builder *list, const jinja_string *text, int64_t from,
                           int64_t to) {
    jinja_value value;
    tn_status status = part(run, text, from, to, &value);
    return status == TN_OK ? jinja_push(run, list, value) : status;
}

/* End of the run of white space (or of none, for `space` false) at `at`. */
static int64_t run_end(const jinja_string *text, int64_t at, bool space) {
    while (at < text->length) {
        uint32_t c = 0;
        int n = tn_utf8_decode(text->data + at, text->length - at, &c);
        if (jinja_is_space(c) != space) break;
        at += n > 0 ? n : 1;
    }
    return at;
}

static int64_t run_start(const jinja_string *text, int64_t at, bool space) {
    while (at > 0) {
        int64_t before = at - 1;
        uint32_t c = 0;
        while (before > 0 && (text->data[before] & 0xC0) == 0x80) before--;
        tn_utf8_decode(text->data + before, at - before, &c);
        if (jinja_is_space(c) != space) break;
        at = before;
    }
    return at;
}

static tn_status split_words(jinja_run *run, const jinja_string *text, int64_t limit, bool from_right,
                             jinja_builder *list) {
    tn_status status = TN_OK;
    int64_t from = run_end(text, 0, true), to = run_start(text, text->length, true);
    if (limit < 0 || !from_right) {
        to = limit < 0 ? to : text->length;
        while (from < to && limit-- != 0) {
            int64_t end = run_end(text, from, false);
            TN_TRY(push_part(run, list, text, from, end));
            from = run_end(text, end, true);
        }
        to = run_start(text, text->length, true);
        if (from < to) TN_TRY(push_part(run, list, text, from, text->length));
    } else {
        while (to > 0 && limit-- != 0) {
            int64_t start = run_start(text, to, false);
            TN_TRY(push_part(run, list, text, start, to));
            to = run_start(text, start, true);
        }
        if (to > 0) TN_TRY(push_part(run, list, text, 0, to));
    }
done:
    return status;
}

static void reverse(jinja_builder *list) {
    for (int64_t i = 0, j = list->count - 1; i < j; i++, j--) {
        jinja_value swap = list->items[i];
        list->items[i] = list->items[j], list->items[j] = swap;
    }
}

static tn_status split(jinja_run *run, const jinja_value *self, const jinja_value *arguments, bool from_right,
                       jinja_value *out) {
    tn_status status = TN_OK;
    jinja_builder list = {0};
    const jinja_string *text = self->string, *separator;
    int64_t limit, from = 0, to = text->length;
    TN_TRY(jinja_argument_integer(run, &arguments[1], -1, &limit));
    bool words = arguments[0].kind == JINJA_MISSING || arguments[0].kind == JINJA_NONE;
    bool reversed = from_right && limit >= 0; /* without a limit both directions give the same */
    if (words) {
        TN_TRY(split_words(run, text, limit, from_right, &list));
    } else {
        TN_TRY(jinja_argument_text(run, &arguments[0], "separator", &separator));
        if (separator->length == 0) return jinja_fail(run, "empty separator");
        for (; limit != 0; limit--) {
            int64_t at =
                reversed ? search_last(run, text, 0, to, separator) : jinja_search(text, from, to, separator);
            if (at < 0) break;
            TN_TRY(reversed ? push_part(run, &list, text, at + separator->length, to)
                            : push_part(run, &list, text, from, at));
            if (reversed) to = at;
            else from = at + separator->length;
        }
        TN_TRY(push_part(run, &list, text, from, to));
    }
    if (reversed) reverse(&list);
    TN_TRY(jinja_make_list(run, JINJA_LIST, list.items, list.count, out));
done:
    return status;
}

NATIVE(method_split) { return UNUSED, split(run, self, arguments, false, out); }
NATIVE(method_rsplit) { return UNUSED, split(run, self, arguments, true, out); }

static tn_status partition(jinja_run *run, const jinja_value *self, const jinja_value *arguments, bool last,
                           jinja_value *out) {
    tn_status status = TN_OK;
    const jinja_string *text = self->string, *separator;
    jinja_value *parts;
    TN_TRY(jinja_argument_text(run, &arguments[0], "separator", &separator));
    if (separator->length == 0) return jinja_fail(run, "empty separator");
    TN_TRY(jinja_take(run, &parts, 3, sizeof *parts));
    int64_t at = last ? search_last(run, text, 0, text->length, separator)
                      : jinja_search(text, 0, text->length, separator);
    int64_t first_end = at >= 0 ? at : last ? 0 : text->length;
    int64_t second_end = at >= 0 ? at + separator->length : first_end;
    TN_TRY(part(run, text, 0, first_end, &parts[0]));
    TN_TRY(part(run, text, first_end, second_end, &parts[1]));
    TN_TRY(part(run, text, second_end, text->length, &parts[2]));
    TN_TRY(jinja_make_list(run, JINJA_TUPLE, parts, 3, out));
done:
    return status;
}

NATIVE(method_partition) { return UNUSED, partition(run, self, arguments, false, out); }
NATIVE(method_rpartition) { return UNUSED, partition(run, self, arguments, true, out); }
NATIVE(method_splitlines) {
    UNUSED;
    return jinja_split_lines(run, self->string, jinja_truth(&arguments[0]), out);
}

/* ---- strip, replace, find ---- */

static tn_status strip(jinja_run *run, const jinja_value *self, const jinja_value *argument, bool left,
                       bool right, jinja_value *out) {
    const jinja_string *characters = NULL;
    if (argument->kind != JINJA_MISSING && argument->kind != JINJA_NONE) {
        tn_status status = jinja_argument_text(run, argument, "strip", &characters);
        if (status != TN_OK) return status;
    }
    return jinja_strip(run, self->string, characters, left, right, out);
}

NATIVE(method_strip) { return UNUSED, strip(run, self, arguments, true, true, out); }
NATIVE(method_lstrip) { return UNUSED, strip(run, self, arguments, true, false, out); }
NATIVE(method_rstrip) { return UNUSED, strip(run, self, arguments, false, true, out); }

NATIVE(method_replace) {
    tn_status status = TN_OK;
    const jinja_string *old, *replacement;
    int64_t count;
    UNUSED;
    TN_TRY(jinja_argument_text(run, &arguments[0], "replace", &old));
    TN_TRY(jinja_argument_text(run, &arguments[1], "replace", &replacement));
    TN_TRY(jinja_argument_integer(run, &arguments[2], -1, &count));
    TN_TRY(jinja_replace(run, self->string, old, replacement, count, out));
done:
    return status;
}

static tn_status find(jinja_run *run, const jinja_value *self, const jinja_value *arguments, bool last,
                      bool must, jinja_value *out) {
    tn_status status = TN_OK;
    jinja_string *text = self->string;
    const jinja_string *what;
    int64_t from, to;
    TN_TRY(jinja_argument_text(run, &arguments[0], "find", &what));
    TN_TRY(byte_range(run, text, arguments + 1, &from, &to));
    int64_t at = last ? search_last(run, text, from, to, what) : jinja_search(text, from, to, what);
    if (at < 0 && must) return jinja_fail(run, "substring not found");
    jinja_string before = {text->data, at, -1};
    *out = JINJA_MAKE_INTEGER(at < 0 ? -1 : jinja_points(&before));
done:
    return status;
}

NATIVE(method_find) { return UNUSED, find(run, self, arguments, false, false, out); }
NATIVE(method_rfind) { return UNUSED, find(run, self, arguments, true, false, out); }
NATIVE(method_index) { return UNUSED, find(run, self, arguments, false, true, out); }
NATIVE(method_rindex) { return UNUSED, find(run, self, arguments, true, true, out); }

NATIVE(method_count) {
    tn_status status = TN_OK;
    jinja_string *text = self->string;
    const jinja_string *what;
    int64_t from, to, count = 0;
    UNUSED;
    TN_TRY(jinja_argument_text(run, &arguments[0], "count", &what));
    TN_TRY(byte_range(run, text, arguments + 1, &from, &to));
    if (what->length == 0 && from <= to) {
        jinja_string between = {text->data + from, to - from, -1};
        count = jinja_points(&between) + 1;
    } else {
        for (int64_t at; (at = jinja_search(text, from, to, what)) >= 0; from = at + what->length) count++;
    }
    *out = JINJA_MAKE_INTEGER(count);
done:
    return status;
}

static bool has_affix(const jinja_string *text, int64_t from, int64_t to, const jinja_string *affix,
                      bool at_end) {
    if (from > to || affix->length > to - from) return false;
    return memcmp(text->data + (at_end ? to - affix->length : from), affix->data, (size_t)affix->length) == 0;
}

/* One affix, or a tuple of them. */
static tn_status starts_or_ends(jinja_run *run, const jinja_value *self, const jinja_value *arguments,
                                bool at_end, jinja_value *out) {
    tn_status status = TN_OK;
    int64_t from, to;
    const jinja_string *affix;
    jinja_list affixes = {arguments, 1};
    if (arguments[0].kind == JINJA_TUPLE) affixes = *arguments[0].list;
    TN_TRY(byte_range(run, self->string, arguments + 1, &from, &to));
    *out = JINJA_MAKE_BOOLEAN(false);
    for (int64_t i = 0; i < affixes.count && !out->boolean; i++) {
        TN_TRY(jinja_argument_text(run, &affixes.items[i], at_end ? "endswith" : "startswith", &affix));
        out->boolean = has_affix(self->string, from, to, affix, at_end);
    }
done:
    return status;
}

NATIVE(method_startswith) { return UNUSED, starts_or_ends(run, self, arguments, false, out); }
NATIVE(method_endswith) { return UNUSED, starts_or_ends(run, self, arguments, true, out); }

static tn_status remove_affix(jinja_run *run, const jinja_value *self, const jinja_value *argument, bool at_end,
                              jinja_value *out) {
    const jinja_string *affix, *text = self->string;
    tn_status status = jinja_argument_text(run, argument, "affix", &affix);
    if (status != TN_OK) return status;
    int64_t bytes = has_affix(text, 0, text->length, affix, at_end) ? affix->length : 0;
    return part(run, text, at_end ? 0 : bytes, at_end ? text->length - bytes : text->length, out);
}

NATIVE(method_removeprefix) { return UNUSED, remove_affix(run, self, arguments, false, out); }
NATIVE(method_removesuffix) { return UNUSED, remove_affix(run, self, arguments, true, out); }

/* ---- join, padding, case ---- */

NATIVE(method_join) {
    tn_status status = TN_OK;
    jinja_list items;
    tn_str text = {0};
    UNUSED;
    TN_TRY(jinja_iterate(run, &arguments[0], &items));
    for (int64_t i = 0; i < items.count && !text.failed; i++) {
        if (items.items[i].kind != JINJA_STRING) {
            status = jinja_fail(run, "sequence item %lld: expected str instance, %s found", (long long)i,
                                jinja_type_name(&items.items[i]));
            goto done;
        }
        if (i > 0) jinja_put(&text, self->string->data, self->string->length);
        jinja_put(&text, items.items[i].string->data, items.items[i].string->length);
        TN_TRY(jinja_step(run, 1));
    }
    TN_TRY(jinja_make_from(run, &text, out));
done:
    tn_str_free(&text);
    return status;
}

static tn_status padded(jinja_run *run, const jinja_string *string, int64_t left, int64_t right,
                        const jinja_string *fill, jinja_value *out) {
    tn_str text = {0};
    jinja_put_times(&text, fill->data, fill->length, left);
    jinja_put(&text, string->data, string->length);
    jinja_put_times(&text, fill->data, fill->length, right);
    return jinja_make_from(run, &text, out);
}

tn_status jinja_center(jinja_run *run, jinja_string *string, int64_t width, const jinja_string *fill,
                       jinja_value *out) {
    int64_t missing = width - jinja_points(string);
    if (missing < 0) missing = 0;
    int64_t left = missing / 2 + (missing & width & 1); /* Python's rounding of an odd gap */
    return padded(run, string, left, missing - left, fill, out);
}

/* Where a shorter text goes: -1 to the left, 0 in the middle, 1 to the right. */
static tn_status justify(jinja_run *run, const jinja_value *self, const jinja_value *arguments, int side,
                         jinja_value *out) {
    static const jinja_string blank = {" ", 1, 1};
    tn_status status = TN_OK;
    const jinja_string *fill = &blank;
    int64_t width;
    TN_TRY(jinja_argument_integer(run, &arguments[0], 0, &width));
    if (arguments[1].kind != JINJA_MISSING) TN_TRY(jinja_argument_text(run, &arguments[1], "fill", &fill));
    jinja_string one = *fill;
    if (jinja_points(&one) != 1)
        return jinja_fail(run, "The fill character must be exactly one character long");
    int64_t missing = width < 0 ? 0 : width - jinja_points(self->string);
    if (side == 0) TN_TRY(jinja_center(run, self->string, width < 0 ? 0 : width, fill, out));
    else TN_TRY(padded(run, self->string, side > 0 ? missing : 0, side > 0 ? 0 : missing, fill, out));
done:
    return status;
}

NATIVE(method_ljust) { return UNUSED, justify(run, self, arguments, -1, out); }
NATIVE(method_center) { return UNUSED, justify(run, self, arguments, 0, out); }
NATIVE(method_rjust) { return UNUSED, justify(run, self, arguments, 1, out); }

NATIVE(method_zfill) {
    tn_status status = TN_OK;
    jinja_string rest = *self->string;
    int64_t width;
    tn_str text = {0};
    UNUSED;
    TN_TRY(jinja_argument_integer(run, &arguments[0], 0, &width));
    int64_t missing = width < 0 ? 0 : width - jinja_points(&rest);
    if (rest.length > 0 && (rest.data[0] == '-' || rest.data[0] == '+')) {
        jinja_put(&text, rest.data, 1);
        rest.data++, rest.length--;
    }
    jinja_put_times(&text, "0", 1, missing);
    jinja_put(&text, rest.data, rest.length);
    TN_TRY(jinja_make_from(run, &text, out));
done:
    tn_str_free(&text);
    return status;
}

NATIVE(method_lower) { return UNUSED, jinja_case(run, self->string, JINJA_LOWER, out); }
NATIVE(method_upper) { return UNUSED, jinja_case(run, self->string, JINJA_UPPER, out); }
NATIVE(method_swapcase) { return UNUSED, jinja_case(run, self->string, JINJA_SWAPCASE, out); }
NATIVE(method_capitalize) { return UNUSED, jinja_case(run, self->string, JINJA_CAPITALIZE, out); }
NATIVE(method_title) { return UNUSED, jinja_case(run, self->string, JINJA_TITLE, out); }

#define IS_METHOD(name, class)                                              \
    NATIVE(name) {                                                          \
        UNUSED;                                                             \
        *out = JINJA_MAKE_BOOLEAN(jinja_all_of_class(self->string, class)); \
        return TN_OK;                                                       \
    }
IS_METHOD(method_isalpha, JINJA_ALPHA)
IS_METHOD(method_isdecimal, JINJA_DECIMAL)
IS_METHOD(method_isdigit, JINJA_DIGIT)
IS_METHOD(method_isnumeric, JINJA_NUMERIC)
IS_METHOD(method_isalnum, JINJA_ALNUM)
IS_METHOD(method_isspace, JINJA_SPACE)
IS_METHOD(method_isascii, JINJA_ASCII)
IS_METHOD(method_islower, JINJA_LOWER_CASE)
IS_METHOD(method_isupper, JINJA_UPPER_CASE)

NATIVE(method_format) { return UNUSED, jinja_brace_format(run, self->string, call, out); }

NATIVE(method_format_map) {
    UNUSED;
    if (arguments[0].kind != JINJA_DICT) return jinja_fail(run, "format_map() wants a dict");
    for (int64_t i = 0; i < arguments[0].dict->count; i++)
        if (arguments[0].dict->pairs[i].key.kind != JINJA_STRING)
            return jinja_fail(run, "format_map() wants names as keys");
    jinja_call keywords = {.keywords = arguments[0].dict->pairs, .keyword_count = arguments[0].dict->count};
    return jinja_brace_format(run, self->string, &keywords, out);
}

const jinja_builtin *jinja_string_method(const char *name, int64_t length) {
    static const jinja_builtin methods[] = {
        {"capitalize", method_capitalize, ""},
        {"casefold", method_lower, ""},
        {"center", method_center, "width ?fillchar"},
        {"count", method_count, "sub ?start ?end"},
        {"endswith", method_endswith, "suffix ?start ?end"},
        {"find", method_find, "sub ?start ?end"},
        {"format", method_format, "*"},
        {"format_map", method_format_map, "mapping"},
        {"index", method_index, "sub ?start ?end"},
        {"isalnum", method_isalnum, ""},
        {"isalpha", method_isalpha, ""},
        {"isascii", method_isascii, ""},
        {"isdecimal", method_isdecimal, ""},
        {"isdigit", method_isdigit, ""},
        {"islower", method_islower, ""},
        {"isnumeric", method_isnumeric, ""},
        {"isspace", method_isspace, ""},
        {"isupper", method_isupper, ""},
        {"join", method_join, "iterable"},
        {"ljust", method_ljust, "width ?fillchar"},
        {"lower", method_lower, ""},
        {"lstrip", method_lstrip, "?chars"},
        {"partition", method_partition, "sep"},
        {"removeprefix", method_removeprefix, "prefix"},
        {"removesuffix", method_removesuffix, "suffix"},
        {"replace", method_replace, "old new ?count"},
        {"rfind", method_rfind, "sub ?start ?end"},
        {"rindex", method_rindex, "sub ?start ?end"},
        {"rjust", method_rjust, "width ?fillchar"},
        {"rpartition", method_rpartition, "sep"},
        {"rsplit", method_rsplit, "?sep ?maxsplit"},
        {"rstrip", method_rstrip, "?chars"},
        {"split", method_split, "?sep ?maxsplit"},
        {"splitlines", method_splitlines, "?keepends"},
        {"startswith", method_startswith, "prefix ?start ?end"},
        {"strip", method_strip, "?chars"},
        {"swapcase", method_swapcase, ""},
        {"title", method_title, ""},
        {"upper", method_upper, ""},
        {"zfill", method_zfill, "width"},
        {0},
    };
    return jinja_find(methods, name, length);
}
