/* jinja_lex.c: template source to tokens, with transformers' whitespace rules.
 *
 * trim_blocks: one newline behind a block or comment tag goes. lstrip_blocks: blanks between the start of a
 * line and a block or comment tag go. A minus inside a tag's edge strips all white space on that side, a plus
 * switches the two rules off for that edge. None of it but the minus concerns {{ }}.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "text/jinja_string.h"

typedef struct lexer {
    jinja_source *source;
    const char *text;
    int64_t length, at;
    int line;
    bool line_starting; /* what was read last ended with a newline */
    jinja_token *tokens;
    int64_t count, capacity;
} lexer;

enum { MAX_BRACKETS = 1000 };

const char *jinja_intern(jinja_source *source, const char *text, int64_t length) {
    if (source->interned_count * 2 >= source->interned_capacity) {
        int64_t capacity = source->interned_capacity ? source->interned_capacity * 2 : 256;
        const char **slots = calloc((size_t)capacity, sizeof *slots);
        if (!slots) return NULL;
        for (int64_t i = 0; i < source->interned_capacity; i++) {
            const char *old = source->interned[i];
            if (!old) continue;
            int64_t at = (int64_t)(tn_hash64(old, (int64_t)strlen(old)) & (uint64_t)(capacity - 1));
            while (slots[at]) at = (at + 1) & (capacity - 1);
            slots[at] = old;
        }
        free(source->interned);
        source->interned = slots;
        source->interned_capacity = capacity;
    }
    int64_t at = (int64_t)(tn_hash64(text, length) & (uint64_t)(source->interned_capacity - 1));
    for (const char *slot; (slot = source->interned[at]); at = (at + 1) & (source->interned_capacity - 1))
        if (strlen(slot) == (size_t)length && memcmp(slot, text, (size_t)length) == 0) return slot;
    source->interned_count++;
    return source->interned[at] = tn_arena_text(source->arena, text, length);
}

static tn_status add(lexer *lex, jinja_token_kind kind, const char *text, int64_t length) {
    tn_status status =
        tn_grow(&lex->tokens, &lex->capacity, lex->count + 1, sizeof *lex->tokens, "template tokens");
    if (status != TN_OK) return status;
    lex->tokens[lex->count++] = (jinja_token){.kind = kind, .line = lex->line, .text = text, .length = length};
    return TN_OK;
}

/* Bytes of the white space character at `at`, 0 where there is none. */
static int blank_at(const lexer *lex, int64_t at) {
    uint32_t c;
    int bytes = at < lex->length ? tn_utf8_decode(lex->text + at, lex->length - at, &c) : 0;
    return bytes > 0 && jinja_is_space(c) ? bytes : 0;
}

/* Bytes of the white space character that ends at `end`. */
static int blank_before(const lexer *lex, int64_t end) {
    int64_t start = end - 1;
    while (start > 0 && (lex->text[start] & 0xC0) == 0x80) start--;
    return start >= 0 && blank_at(lex, start) == end - start ? (int)(end - start) : 0;
}

/* Where the white space that starts at `at` ends. */
static int64_t blanks_end(const lexer *lex, int64_t at) {
    for (int bytes; (bytes = blank_at(lex, at)) > 0;) at += bytes;
    return at;
}

/* Moves on by `count` bytes, counting lines. */
static void skip(lexer *lex, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        if (lex->text[lex->at + i] == '\n') lex->line++;
    lex->at += count;
    if (count > 0) lex->line_starting = lex->text[lex->at - 1] == '\n';
}

static void skip_blanks(lexer *lex) { skip(lex, blanks_end(lex, lex->at) - lex->at); }

static bool looking_at(const lexer *lex, int64_t at, const char *what) {
    int64_t n = (int64_t)strlen(what);
    return at + n <= lex->length && memcmp(lex->text + at, what, (size_t)n) == 0;
}

/* Text in front of a tag whose sign is `sign` ('-', '+' or 0). */
static tn_status add_data(lexer *lex, int64_t end, char sign, bool is_variable) {
    int64_t from = lex->at, keep = end;
    bool lstrip = sign == '\0' && !is_variable;
    for (int bytes; (sign == '-' || (lstrip && keep > from && lex->text[keep - 1] != '\n')) && keep > from &&
                    (bytes = blank_before(lex, keep)) > 0;)
        keep -= bytes;
    if (lstrip && (keep > from ? lex->text[keep - 1] != '\n' : !lex->line_starting)) keep = end;
    tn_status status = keep > from ? add(lex, JINJA_T_DATA, lex->text + from, keep - from) : TN_OK;
    skip(lex, end - from);
    return status;
}

/* Reads what closes a block tag or comment ("%}" or "#}") where it stands; false where it does not. */
static bool close_tag(lexer *lex, const char *end) {
    char sign = lex->at < lex->length ? lex->text[lex->at] : '\0';
    bool is_signed = (sign == '-' || sign == '+') && looking_at(lex, lex->at + 1, end);
    if (!is_signed && !looking_at(lex, lex->at, end)) return false;
    skip(lex, is_signed ? 3 : 2);
    if (is_signed && sign == '-') skip_blanks(lex);
    if (!is_signed && looking_at(lex, lex->at, "\n")) skip(lex, 1);
    return true;
}

static tn_status skip_comment(lexer *lex) {
    int line = lex->line;
    for (; lex->at < lex->length; skip(lex, 1))
        if (close_tag(lex, "#}")) return TN_OK;
    return jinja_fail_at(lex->source, line, "Missing end of comment tag");
}

/* At "{%": reads "{% raw %}" and what follows up to its end. *was_raw tells whether it was one. */
static tn_status lex_raw(lexer *lex, int64_t tag_end, bool *was_raw) {
    int64_t at = tag_end;
    *was_raw = false;
    at = blanks_end(lex, at);
    if (!looking_at(lex, at, "raw")) return TN_OK;
    at += 3;
    at = blanks_end(lex, at);
    bool strip = looking_at(lex, at, "-%}");
    if (!strip && !looking_at(lex, at, "%}")) return TN_OK;
    *was_raw = true;
    int line = lex->line;
    skip(lex, at + (strip ? 3 : 2) - lex->at);
    if (strip) skip_blanks(lex);
    for (int64_t end = lex->at; end < lex->length; end++) {
        if (!looking_at(lex, end, "{%")) continue;
        int64_t word = end + 2;
        char sign =
            word < lex->length && (lex->text[word] == '-' || lex->text[word] == '+') ? lex->text[word++] : '\0';
        word = blanks_end(lex, word);
        if (!looking_at(lex, word, "endraw")) continue;
        word += 6;
        word = blanks_end(lex, word);
        if (!looking_at(lex, word, "%}") && !looking_at(lex, word, "-%}") && !looking_at(lex, word, "+%}"))
            continue;
        tn_status status = add_data(lex, end, sign, false);
        skip(lex, word - lex->at);
        close_tag(lex, "%}");
        return status;
    }
    return jinja_fail_at(lex->source, line, "Missing end of raw directive");
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* Bytes of the name character at `at`, 0 where there is none. */
static int name_at(const lexer *lex, int64_t at) {
    uint32_t c;
    int bytes = at < lex->length ? tn_utf8_decode(lex->text + at, lex->length - at, &c) : 0;
    return bytes > 0 && jinja_is_word(c) ? bytes : 0;
}

static char char_at(const lexer *lex, int64_t at) { return at < lex->length ? lex->text[at] : '\0'; }

/* End of the digits (single underscores between them allowed) that start at `at`. */
static int64_t digits_end(const lexer *lex, int64_t at) {
    while (is_digit(char_at(lex, at)) || (char_at(lex, at) == '_' && is_digit(char_at(lex, at + 1)))) at++;
    return at;
}

/* End of the float at the cursor, or -1: digits with a fraction, an exponent or both. */
static int64_t float_end(const lexer *lex) {
    if (lex->at > 0 && lex->text[lex->at - 1] == '.') return -1; /* x.0.1 indexes twice */
    int64_t whole = digits_end(lex, lex->at), end = whole;
    if (char_at(lex, end) == '.' && is_digit(char_at(lex, end + 1))) end = digits_end(lex, end + 1);
    int64_t exponent = end + 1;
    if (char_at(lex, exponent) == '+' || char_at(lex, exponent) == '-') exponent++;
    if ((char_at(lex, end) | 32) == 'e' && is_digit(char_at(lex, exponent))) return digits_end(lex, exponent);
    return end > whole ? end : -1;
}

/* Base of the integer at the cursor, and its end. */
static int integer_end(const lexer *lex, int64_t *end) {
    char prefix = (char)(char_at(lex, lex->at + 1) | 32);
    int base = char_at(lex, lex->at) != '0' ? 10
               : prefix == 'x'              ? 16
               : prefix == 'o'              ? 8
               : prefix == 'b'              ? 2
                                            : 0;
    if (base == 10) *end = digits_end(lex, lex->at);
    else if (base == 0) /* a leading zero may only be followed by zeros */
        for (*end = lex->at + 1, base = 10; char_at(lex, *end) == '0' || char_at(lex, *end) == '_';) (*end)++;
    else
        for (*end = lex->at + 2; char_at(lex, *end) && strchr("0123456789abcdefABCDEF_", char_at(lex, *end));)
            (*end)++;
    return base;
}

static tn_status lex_number(lexer *lex) {
    char digits[128];
    jinja_token token = {.kind = JINJA_T_FLOAT, .line = lex->line};
    int64_t end = float_end(lex), used = 0;
    int base = end < 0 ? integer_end(lex, &end) : 0;
    if (base > 0) token.kind = JINJA_T_INTEGER;
    for (int64_t i = lex->at + (base > 0 && base != 10 ? 2 : 0); i < end && used < (int64_t)sizeof digits - 1;
         i++)
        if (lex->text[i] != '_') digits[used++] = lex->text[i];
    digits[used] = '\0';
    char *stop = digits;
    errno = 0;
    if (base > 0) token.integer = strtoll(digits, &stop, base);
    else token.real = strtod(digits, &stop);
    if ((base > 0 && errno) || *stop || used == 0 || used == (int64_t)sizeof digits - 1)
        return jinja_fail_at(lex->source, lex->line, "the number %s is malformed or beyond 64 bits", digits);
    tn_status status = add(lex, token.kind, NULL, 0);
    if (status != TN_OK) return status;
    lex->tokens[lex->count - 1] = token;
    skip(lex, end - lex->at);
    return TN_OK;
}

static uint32_t hex_value(const char *digits, int count, bool *valid) {
    uint32_t value = 0;
    for (int i = 0; i < count; i++) {
        char c = digits[i];
        int d = is_digit(c) ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (d < 0) *valid = false;
        value = value * 16 + (uint32_t)(d & 15);
    }
    return value;
}

/* One escape at text[0] == '\\' (length >= 2); returns its bytes, 0 for a malformed one. */
static int64_t unescape(const char *text, int64_t length, tn_str *out) {
    static const char plain[] = "\\\\''\"\"a\ab\bf\fn\nr\rt\tv\v";
    char c = text[1];
    if (c == '\n') return 2;
    for (const char *p = plain; *p; p += 2)
        if (*p == c) return tn_str_putc(out, p[1]), 2;
    int digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits > 0) {
        bool valid = length >= 2 + digits;
        uint32_t code = valid ? hex_value(text + 2, digits, &valid) : 0;
        if (!valid || code > 0x10FFFF) return 0;
        tn_str_code_point(out,
                          code >= 0xD800 && code < 0xE000 ? 0xFFFD : code); /* a lone surrogate is no text */
        return 2 + digits;
    }
    if (c >= '0' && c <= '7') {
        uint32_t code = 0;
        int64_t n = 1;
        while (n < 4 && n < length && text[n] >= '0' && text[n] <= '7')
            code = code * 8 + (uint32_t)(text[n++] - '0');
        tn_str_code_point(out, code);
        return n;
    }
    if (c == 'N') return 0;
    tn_str_putc(out, '\\'); /* an unknown escape stays as it is */
    return 1;
}

static tn_status lex_string(lexer *lex) {
    tn_status status = TN_OK;
    tn_str value = {0};
    char quote = lex->text[lex->at];
    int64_t end = lex->at + 1;
    while (end < lex->length && lex->text[end] != quote) end += lex->text[end] == '\\' ? 2 : 1;
    if (end >= lex->length) {
        status = jinja_fail_at(lex->source, lex->line, "unexpected char %s at %lld",
                               quote == '"' ? "'\"'" : "\"'\"", (long long)lex->at);
        goto done;
    }
    for (int64_t i = lex->at + 1; i < end;) {
        if (lex->text[i] != '\\') {
            tn_str_putc(&value, lex->text[i++]);
            continue;
        }
        int64_t bytes = unescape(lex->text + i, end - i, &value);
        if (bytes == 0) {
            status = jinja_fail_at(lex->source, lex->line, "malformed escape in a string: %.4s", lex->text + i);
            goto done;
        }
        i += bytes;
    }
    TN_TRY(tn_str_check(&value, "template string"));
    const char *copy = tn_arena_text(lex->source->arena, tn_str_text(&value), value.length);
    if (!copy) TN_THROW(TN_FAILED, "out of memory for a template string");
    TN_TRY(add(lex, JINJA_T_STRING, copy, value.length));
    skip(lex, end + 1 - lex->at);
done:
    tn_str_free(&value);
    return status;
}

static tn_status lex_operator(lexer *lex, char *brackets, int *bracket_count) {
    static const char *const two[] = {"//", "**", "==", "!=", ">=", "<="};
    char c = lex->text[lex->at];
    int64_t bytes = 1;
    for (size_t i = 0; i < sizeof two / sizeof *two; i++)
        if (looking_at(lex, lex->at, two[i])) bytes = 2;
    if (bytes == 1 && !(c && strchr("+-/*%~[](){}><=.:|,;", c)))
        return jinja_fail_at(lex->source, lex->line, "unexpected char '%c' at %lld", c, (long long)lex->at);
    if (bytes == 1 && strchr("([{", c)) {
        if (*bracket_count == MAX_BRACKETS)
            return jinja_fail_at(lex->source, lex->line, "brackets nest too deeply");
        brackets[(*bracket_count)++] = c == '(' ? ')' : (char)(c + 2); /* [ ] and { } are two apart in ASCII */
    } else if (bytes == 1 && strchr(")]}", c)) {
        if (*bracket_count == 0) return jinja_fail_at(lex->source, lex->line, "unexpected '%c'", c);
        char expected = brackets[--*bracket_count];
        if (expected != c)
            return jinja_fail_at(lex->source, lex->line, "unexpected '%c', expected '%c'", c, expected);
    }
    const char *text = jinja_intern(lex->source, lex->text + lex->at, bytes);
    if (!text) return tn_fail_memory(bytes, "template names");
    tn_status status = add(lex, JINJA_T_OPERATOR, text, bytes);
    skip(lex, bytes);
    return status;
}

static tn_status lex_name(lexer *lex) {
    int64_t end = lex->at;
    for (int bytes; (bytes = name_at(lex, end)) > 0;) end += bytes;
    const char *name = jinja_intern(lex->source, lex->text + lex->at, end - lex->at);
    if (!name) return tn_fail_memory(end - lex->at, "template names");
    tn_status status = add(lex, JINJA_T_NAME, name, end - lex->at);
    skip(lex, end - lex->at);
    return status;
}

/* The inside of {{ }} or {% %}, up to and with its end. */
static tn_status lex_tag(lexer *lex, bool is_variable) {
    tn_status status = TN_OK;
    char brackets[MAX_BRACKETS];
    int bracket_count = 0;
    while (lex->at < lex->length) {
        char c = lex->text[lex->at];
        if (bracket_count == 0 && is_variable) {
            bool strip = looking_at(lex, lex->at, "-}}");
            if (strip || looking_at(lex, lex->at, "}}")) {
                TN_TRY(add(lex, JINJA_T_VARIABLE_END, NULL, 0));
                skip(lex, strip ? 3 : 2);
                if (strip) skip_blanks(lex);
                goto done;
            }
        } else if (bracket_count == 0 && close_tag(lex, "%}")) {
            TN_TRY(add(lex, JINJA_T_BLOCK_END, NULL, 0));
            goto done;
        }
        if (blank_at(lex, lex->at)) skip_blanks(lex);
        else if (is_digit(c)) TN_TRY(lex_number(lex));
        else if (name_at(lex, lex->at)) TN_TRY(lex_name(lex));
        else if (c == '"' || c == '\'') TN_TRY(lex_string(lex));
        else TN_TRY(lex_operator(lex, brackets, &bracket_count));
    }
done:
    return status;
}

tn_status jinja_lex(jinja_source *source, jinja_token **tokens, int64_t *count) {
    lexer lex = {
        .source = source, .text = source->text, .length = source->length, .line = 1, .line_starting = true};
    tn_status status = TN_OK;
    while (lex.at < lex.length) {
        int64_t tag = lex.at;
        while (tag < lex.length && !(lex.text[tag] == '{' && tag + 1 < lex.length &&
                                     strchr("{%#", lex.text[tag + 1]) && lex.text[tag + 1]))
            tag++;
        if (tag == lex.length) {
            TN_TRY(add(&lex, JINJA_T_DATA, lex.text + lex.at, tag - lex.at));
            break;
        }
        char kind = lex.text[tag + 1], sign = tag + 2 < lex.length ? lex.text[tag + 2] : '\0';
        bool is_signed = sign == '-' || sign == '+', was_raw = false;
        TN_TRY(add_data(&lex, tag, is_signed ? sign : '\0', kind == '{'));
        if (kind == '%') TN_TRY(lex_raw(&lex, lex.at + 2 + is_signed, &was_raw));
        if (was_raw) continue;
        skip(&lex, 2 + is_signed);
        if (kind == '#') {
            TN_TRY(skip_comment(&lex));
            continue;
        }
        TN_TRY(add(&lex, kind == '{' ? JINJA_T_VARIABLE_BEGIN : JINJA_T_BLOCK_BEGIN, NULL, 0));
        TN_TRY(lex_tag(&lex, kind == '{'));
    }
    TN_TRY(add(&lex, JINJA_T_END, "end of template", 15));
    *tokens = lex.tokens, *count = lex.count;
    return TN_OK;
done:
    free(lex.tokens);
    return status;
}
