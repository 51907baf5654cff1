/* jinja_case.c: upper, lower, title and the is…() questions of Python's str, over utf8proc's tables.
 *
 * utf8proc maps one character to one. What becomes several in capitals (ß, ﬁ, ᾳ) is found through its full
 * case folding, whose capitals are the same; İ and the Σ that ends a word are the two special cases of lower.
 */
#include <string.h>
#include <utf8proc.h>

#include "text/jinja_string.h"

static void put_code_point(tn_str *out, uint32_t c) {
    char bytes[4];
    jinja_put(out, bytes, utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)bytes));
}

static bool in_categories(uint32_t c, unsigned categories) {
    return categories >> utf8proc_category((utf8proc_int32_t)c) & 1;
}
#define CATEGORY(name) (1u << UTF8PROC_CATEGORY_##name)
#define LETTER (CATEGORY(LU) | CATEGORY(LL) | CATEGORY(LT) | CATEGORY(LM) | CATEGORY(LO))
#define CASED (CATEGORY(LU) | CATEGORY(LL) | CATEGORY(LT))

static void put_upper(tn_str *out, uint32_t c, bool title) {
    utf8proc_int32_t folded[8], plain = (utf8proc_int32_t)c;
    utf8proc_int32_t simple = title ? utf8proc_totitle(plain) : utf8proc_toupper(plain);
    int boundary = 0;
    bool keep = in_categories(c, CATEGORY(LU)) || (title && simple != plain);
    utf8proc_ssize_t count = keep ? 1 : utf8proc_decompose_char(plain, folded, 8, UTF8PROC_CASEFOLD, &boundary);
    if (count < 2 || count > 8) put_code_point(out, (uint32_t)simple);
    for (utf8proc_ssize_t i = 0; count >= 2 && count <= 8 && i < count; i++)
        put_code_point(out, (uint32_t)(title && i > 0 ? folded[i] : utf8proc_toupper(folded[i])));
}

static void put_lower(tn_str *out, uint32_t c, bool ends_word) {
    put_code_point(out, c == 0x130                ? 'i'
                        : c == 0x3A3 && ends_word ? 0x3C2
                                                  : (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
    if (c == 0x130) put_code_point(out, 0x307);
}

tn_status jinja_case(jinja_run *run, const jinja_string *string, jinja_case_mode mode, jinja_value *out) {
    tn_str text = {0};
    bool start = true, behind_cased = false;
    for (int64_t i = 0; i < string->length && !text.failed;) {
        uint32_t c = 0xFFFD, next = ' ';
        int n = tn_utf8_decode(string->data + i, string->length - i, &c);
        if (n == 0) n = 1;
        if (i + n < string->length) tn_utf8_decode(string->data + i + n, string->length - i - n, &next);
        bool upper = mode == JINJA_UPPER || (start && mode >= JINJA_CAPITALIZE);
        if (mode == JINJA_SWAPCASE) upper = in_categories(c, CATEGORY(LL));
        if (upper) put_upper(&text, c, mode == JINJA_CAPITALIZE || mode == JINJA_TITLE);
        else put_lower(&text, c, behind_cased && !in_categories(next, CASED));
        bool separator = jinja_is_space(c) || (c < 0x80 && c && strchr("-({[<", (int)c));
        start = mode == JINJA_TITLE ? !in_categories(c, CASED) : mode == JINJA_TITLE_FILTER ? separator : false;
        behind_cased = in_categories(c, CASED);
        i += n;
    }
    return jinja_make_from(run, &text, out);
}

bool jinja_is_word(uint32_t c) {
    return c == '_' || in_categories(c, LETTER | CATEGORY(ND) | CATEGORY(NL) | CATEGORY(NO));
}

static bool is_of_class(uint32_t c, jinja_class class) {
    switch (class) {
        case JINJA_ALPHA: return in_categories(c, LETTER);
        case JINJA_DECIMAL: return in_categories(c, CATEGORY(ND));
        case JINJA_DIGIT: /* superscripts and circled digits are digits too; most of No is not */
            return in_categories(c, CATEGORY(ND)) || c == 0xB2 || c == 0xB3 || c == 0xB9 || c == 0x2070 ||
                   (c >= 0x2074 && c <= 0x2079) || (c >= 0x2080 && c <= 0x2089) || (c >= 0x2460 && c <= 0x2468);
        case JINJA_NUMERIC: return in_categories(c, CATEGORY(ND) | CATEGORY(NL) | CATEGORY(NO));
        case JINJA_ALNUM: return c != '_' && jinja_is_word(c);
        case JINJA_SPACE: return jinja_is_space(c);
        case JINJA_ASCII: return c < 0x80;
        case JINJA_LOWER_CASE: return in_categories(c, CATEGORY(LL));
        case JINJA_UPPER_CASE: return in_categories(c, CATEGORY(LU));
    }
    return false;
}

bool jinja_all_of_class(const jinja_string *string, jinja_class class) {
    bool by_case = class == JINJA_LOWER_CASE || class == JINJA_UPPER_CASE;
    bool any = class == JINJA_ASCII;
    for (int64_t i = 0; i < string->length;) {
        uint32_t c = 0xFFFD;
        int n = tn_utf8_decode(string->data + i, string->length - i, &c);
        bool is = is_of_class(c, class);
        if (!is && (!by_case || in_categories(c, CASED)))
            return false; /* characters without case do not count */
        any = any || is;
        i += n > 0 ? n : 1;
    }
    return any;
}
