/* regex.c: the regular expressions of tokenizer files, matched by PCRE2's JIT.
 *
 * The files are written for Oniguruma; regex_translate.c puts them in PCRE2's words, and ^ $ mean line ends.
 * Texts given must be valid UTF-8.
 */
#include <stdlib.h>

#include "text/pipeline.h"

struct tn_regex {
    pcre2_code *code;
    bool jit;
};

tn_status tn_regex_compile(const char *pattern, int64_t length, bool literal, tn_regex **regex) {
    tn_status status = TN_OK;
    tn_str text = {0};
    int error;
    PCRE2_SIZE offset;
    tn_regex *made = NULL;
    TN_TRY(tn_alloc(&made, 1, sizeof *made, "regular expression"));
    if (literal) tn_str_add(&text, pattern, length);
    else TN_TRY(tn_regex_translate(pattern, length, &text));
    uint32_t options =
        literal ? PCRE2_LITERAL | PCRE2_UTF : PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    made->code =
        pcre2_compile((PCRE2_SPTR)tn_str_text(&text), (PCRE2_SIZE)text.length, options, &error, &offset, NULL);
    if (!made->code) {
        PCRE2_UCHAR reason[160];
        pcre2_get_error_message(error, reason, sizeof reason);
        TN_THROW(TN_BAD_DATA, "regular expression %.*s: %s", (int)(length > 500 ? 500 : length), pattern,
                 (const char *)reason);
    }
    made->jit = pcre2_jit_compile(made->code, PCRE2_JIT_COMPLETE) == 0;
    *regex = made;
    made = NULL;
done:
    tn_regex_free(made);
    tn_str_free(&text);
    return status;
}

void tn_regex_free(tn_regex *regex) {
    if (!regex) return;
    pcre2_code_free(regex->code);
    free(regex);
}

static int match_at(const tn_regex *regex, tn_work *work, const char *text, int64_t length, int64_t from) {
    PCRE2_SPTR subject = (PCRE2_SPTR)text;
    int result = PCRE2_ERROR_JIT_STACKLIMIT;
    if (regex->jit)
        result = pcre2_jit_match(regex->code, subject, (PCRE2_SIZE)length, (PCRE2_SIZE)from, PCRE2_NO_UTF_CHECK,
                                 work->match, work->context);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter keeps its backtracking points on the heap */
        result = pcre2_match(regex->code, subject, (PCRE2_SIZE)length, (PCRE2_SIZE)from,
                             PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, work->match, work->context);
    return result;
}

tn_status tn_regex_next(const tn_regex *regex, tn_work *work, const char *text, int64_t length,
                        tn_cursor *cursor, tn_range *match, bool *found) {
    *found = false;
    while (cursor->from <= length) {
        int result = match_at(regex, work, text, length, cursor->from);
        if (result == PCRE2_ERROR_NOMATCH) return TN_OK;
        if (result < 0) {
            PCRE2_UCHAR reason[160];
            pcre2_get_error_message(result, reason, sizeof reason);
            return tn_fail(TN_BAD_DATA, "pre-tokenizer regular expression: %s", (const char *)reason);
        }
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(work->match);
        int64_t start = (int64_t)at[0], end = (int64_t)at[1];
        if (end < start) end = start; /* \K in a lookahead */
        if (start == end && cursor->matched &&
            cursor->last_end == end) { /* an empty match right behind a match */
            uint32_t c;
            cursor->from = end < length ? end + tn_char_at(text + end, &c) : length + 1;
            continue;
        }
        if (start < cursor->last_end) start = cursor->last_end; /* a lookbehind with \K may reach back */
        *match = (tn_range){start, end};
        *found = true;
        cursor->from = cursor->last_end = end;
        cursor->matched = true;
        return TN_OK;
    }
    return TN_OK;
}

tn_status tn_regex_from_json(const tn_json *pattern, const char *what, tn_regex **regex) {
    const tn_json *literal = tn_json_get(pattern, "String"), *expression = tn_json_get(pattern, "Regex");
    const tn_json *text = literal ? literal : expression ? expression : pattern;
    if (!text || text->type != TN_JSON_STRING)
        return tn_fail(TN_BAD_DATA, "%s: pattern is neither {\"String\": ...} nor {\"Regex\": ...}", what);
    return tn_regex_compile(text->string, text->count, expression == NULL || literal != NULL, regex);
}
