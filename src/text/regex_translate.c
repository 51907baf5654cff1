/* regex_translate.c: regular expressions of tokenizer files, written for Oniguruma, in PCRE2's words.
 *
 * The two engines agree on most of what the files use. Spelled out here is what they read differently: \s, \w,
 * \h, \b, \v and the POSIX classes; \p{Han} (the script, not its extensions) and long names of categories; sets
 * inside sets and their intersections (&&); (?m), which lets the dot match a newline; a plus behind {n,m},
 * which repeats it. A set that PCRE2 cannot hold becomes an expression that matches one character.
 */
#include <stdio.h>

#include "text/pipeline.h"

enum { DEEPEST = 250 /* groups; PCRE2 goes no deeper either */, DEEPEST_SET = 16, LONGEST_NAME = 64 };

#define SPACES                                                                                               \
    "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{" \
    "3000}"
#define NO_SPACES                                                                                       \
    "\\x{0}-\\x{8}\\x{E}-\\x{1F}\\x{21}-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}\\x{1681}-\\x{1FFF}\\x{" \
    "200B}-\\x{2027}\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}\\x{3001}-\\x{10FFFF}"
#define WORDS                                                                                                  \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}\\x{1F170}" \
    "-\\x{1F189}"
/* The same outside of a set, where Oniguruma counts six raised digits and fractions of Latin-1 in. */
#define BARE_WORDS WORDS "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"

/* \p{Alphabetic} and \p{Lowercase} with what came to them after Unicode 14, which older versions of PCRE2 know.
 */
#define ALPHABETIC \
    "\\p{Alphabetic}\\x{363}-\\x{36F}\\x{C04}\\x{F82}\\x{F83}\\x{1DD3}-\\x{1DE6}\\x{11080}\\x{11081}"
#define LOWERCASE "\\p{Lowercase}\\x{10FC}\\x{A7F2}-\\x{A7F4}\\x{AB69}"

/* A class of characters and its complement as insides of a PCRE2 set (`others` NULL: only [^items] says it). */
typedef struct named_class {
    char escape; /* \escape, its upper case for the complement; 0: none */
    const char *name, *items, *others;
} named_class;
static const named_class classes[] = {
    {'s', "space", SPACES, NO_SPACES},
    {'w', "word", WORDS, NULL},
    {'d', "digit", "\\p{Nd}", "\\P{Nd}"},
    {'h', "xdigit", "0-9A-Fa-f", "\\x{0}-\\x{2F}\\x{3A}-\\x{40}\\x{47}-\\x{60}\\x{67}-\\x{10FFFF}"},
    {0, "alnum", ALPHABETIC "\\p{Nd}", NULL},
    {0, "alpha", ALPHABETIC, NULL},
    {0, "alphabetic", ALPHABETIC, NULL},
    {0, "lower", LOWERCASE, NULL},
    {0, "lowercase", LOWERCASE, NULL},
    {0, "assigned", "\\P{Cn}", "\\p{Cn}"},
    {0, "upper", "\\p{Uppercase}", "\\P{Uppercase}"},
    {0, "punct", "\\p{P}\\p{S}", NULL},
    {0, "blank", "\\p{Zs}\\t", NULL},
    {0, "cntrl", "\\p{Cc}", "\\P{Cc}"},
    {0, "graph", "\\p{L}\\p{M}\\p{N}\\p{P}\\p{S}\\p{Cf}\\p{Co}", NULL},
    {0, "print", "\\p{L}\\p{M}\\p{N}\\p{P}\\p{S}\\p{Cf}\\p{Co}\\p{Zs}", NULL},
    {0, "ascii", "\\x{0}-\\x{7F}", "\\x{80}-\\x{10FFFF}"},
};

/* Long names of general categories. */
static const struct {
    const char *name, *category;
} categories[] = {
    {"letter", "L"},
    {"casedletter", "L&"},
    {"uppercaseletter", "Lu"},
    {"lowercaseletter", "Ll"},
    {"titlecaseletter", "Lt"},
    {"modifierletter", "Lm"},
    {"otherletter", "Lo"},
    {"mark", "M"},
    {"nonspacingmark", "Mn"},
    {"spacingmark", "Mc"},
    {"enclosingmark", "Me"},
    {"number", "N"},
    {"decimalnumber", "Nd"},
    {"letternumber", "Nl"},
    {"othernumber", "No"},
    {"punctuation", "P"},
    {"punct", "P"},
    {"connectorpunctuation", "Pc"},
    {"dashpunctuation", "Pd"},
    {"openpunctuation", "Ps"},
    {"closepunctuation", "Pe"},
    {"initialpunctuation", "Pi"},
    {"finalpunctuation", "Pf"},
    {"otherpunctuation", "Po"},
    {"symbol", "S"},
    {"mathsymbol", "Sm"},
    {"currencysymbol", "Sc"},
    {"modifiersymbol", "Sk"},
    {"othersymbol", "So"},
    {"separator", "Z"},
    {"spaceseparator", "Zs"},
    {"lineseparator", "Zl"},
    {"paragraphseparator", "Zp"},
    {"other", "C"},
    {"control", "Cc"},
    {"format", "Cf"},
    {"unassigned", "Cn"},
    {"privateuse", "Co"},
    {"surrogate", "Cs"},
};

typedef struct translator {
    const char *at, *end; /* of what is left of the pattern */
    tn_str *out;
    int64_t atom; /* where in `out` what a repeat would repeat begins */
    int64_t groups[DEEPEST];
    int depth;
} translator;

/* Insides of one operand of a set: what a PCRE2 set can hold, and expressions it cannot, joined by |. */
typedef struct operand {
    tn_str items, others;
} operand;

static tn_status refuse(const translator *t, const char *what) {
    int64_t left = t->end - t->at;
    return tn_fail(TN_BAD_DATA, "regular expression: %s before \"%.*s\"", what, (int)(left > 20 ? 20 : left),
                   t->at);
}

static bool starts(const translator *t, const char *text) {
    size_t length = strlen(text);
    return (size_t)(t->end - t->at) >= length && memcmp(t->at, text, length) == 0;
}

/* ---- Classes ---- */

static const named_class *class_of_escape(char c) {
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++)
        if (classes[i].escape && classes[i].escape == (c | 32)) return &classes[i];
    return NULL;
}

static const named_class *class_of_name(const char *name) {
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++)
        if (strcmp(classes[i].name, name) == 0) return &classes[i];
    return NULL;
}

/* Into a set where `set` is given, else as an expression of its own. */
static void put_class(const named_class *class, bool negated, operand *set, tn_str *out) {
    const char *bare = class->escape == 'w' ? BARE_WORDS : class->items;
    if (!set) tn_str_printf(out, negated ? "[^%s]" : "[%s]", bare);
    else if (!negated) tn_str_puts(&set->items, class->items);
    else if (class->others) tn_str_puts(&set->items, class->others);
    else tn_str_printf(&set->others, "%s[^%s]", set->others.length > 0 ? "|" : "", class->items);
}

static bool compiles(const char *pattern) {
    int error;
    PCRE2_SIZE offset;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error, &offset, NULL);
    pcre2_code_free(code);
    return code != NULL;
}

/* A script's own characters; newer versions of PCRE2 read a bare name as the script's extensions. */
static void put_property(const char *name, bool negated, tn_str *out) {
    char script[LONGEST_NAME + 16];
    snprintf(script, sizeof script, "\\p{sc:%s}", name);
    bool is_script = strlen(name) > 2 && !strpbrk(name, ":=") && compiles(script);
    tn_str_printf(out, "\\%c{%s%s}", negated ? 'P' : 'p', is_script ? "sc:" : "", name);
}

/* \p{name} with t->at behind the p. */
static tn_status put_named(translator *t, bool negated, operand *set, tn_str *out) {
    char name[LONGEST_NAME], plain[LONGEST_NAME];
    const char *close = memchr(t->at, '}', (size_t)(t->end - t->at));
    const char *from = t->at + 1;
    if (!close) return refuse(t, "unfinished property");
    if (*from == '^') negated = !negated, from++;
    if (close - from >= LONGEST_NAME) return refuse(t, "unknown property");
    snprintf(name, sizeof name, "%.*s", (int)(close - from), from);
    int length = 0;
    for (const char *c = name; *c; c++)
        if (*c != ' ' && *c != '_' && *c != '-')
            plain[length++] = *c >= 'A' && *c <= 'Z' ? (char)(*c | 32) : *c;
    plain[length] = '\0';
    t->at = close + 1;
    for (size_t i = 0; i < sizeof categories / sizeof categories[0]; i++)
        if (strcmp(categories[i].name, plain) == 0)
            return put_property(categories[i].category, negated, set ? &set->items : out), TN_OK;
    const named_class *class = class_of_name(plain);
    if (class) put_class(class, negated, set, out);
    else put_property(name, negated, set ? &set->items : out);
    return TN_OK;
}

/* ---- Escapes ---- */

static void put_boundary(bool negated, tn_str *out) {
    if (negated)
        tn_str_puts(out,
                    "(?:(?<=[" BARE_WORDS "])(?=[" BARE_WORDS "])|(?<![" BARE_WORDS "])(?![" BARE_WORDS "]))");
    else
        tn_str_puts(out,
                    "(?:(?<=[" BARE_WORDS "])(?![" BARE_WORDS "])|(?<![" BARE_WORDS "])(?=[" BARE_WORDS "]))");
}

/* Copies t->at up to and with `close`, or nothing where it does not come. */
static void copy_to(translator *t, char close, tn_str *to) {
    const char *last = memchr(t->at, close, (size_t)(t->end - t->at));
    if (!last) return;
    tn_str_add(to, t->at, last + 1 - t->at);
    t->at = last + 1;
}

/* An escape that is the same in a set and outside but for its place; t->at is at the backslash. */
static tn_status put_escape(translator *t, operand *set, tn_str *out) {
    tn_str *to = set ? &set->items : out;
    if (t->end - t->at < 2) return refuse(t, "nothing behind a backslash");
    char c = t->at[1];
    const named_class *class = class_of_escape(c);
    t->at += 2;
    if (class) return put_class(class, c != class->escape, set, out), TN_OK;
    if ((c == 'p' || c == 'P') && t->at < t->end && *t->at == '{') return put_named(t, c == 'P', set, out);
    if (!set && (c == 'b' || c == 'B')) return put_boundary(c == 'B', out), TN_OK;
    if (c == 'v') return tn_str_puts(to, "\\x{B}"), TN_OK;
    if (c == 'u' && t->end - t->at >= 4) {
        tn_str_printf(to, "\\x{%.4s}", t->at);
        return t->at += 4, TN_OK;
    }
    if (strchr("pPQEN", c) && !(c == 'N' && !set))
        return tn_str_putc(to, c), TN_OK; /* PCRE2 alone has a meaning */
    if (!set && c == 'O') return tn_str_puts(to, "(?s:.)"), TN_OK;
    tn_str_add(to, t->at - 2, 2);
    if (c == 'x' && t->at < t->end && *t->at == '{') copy_to(t, '}', to);
    else if (c == 'x')
        for (int i = 0; i < 2 && t->at < t->end && strchr("0123456789abcdefABCDEF", *t->at); i++)
            tn_str_putc(to, *t->at++);
    else if ((c == 'k' || c == 'g') && t->at < t->end && *t->at == '<') copy_to(t, '>', to);
    return TN_OK;
}

/* ---- Sets ---- */

/* One operand as an expression that matches a character. */
static void put_operand(const operand *set, tn_str *out) {
    bool both = set->items.length > 0 && set->others.length > 0;
    if (set->others.length > 0) tn_str_puts(out, "(?:");
    if (set->items.length > 0) tn_str_printf(out, "[%s]%s", set->items.data, both ? "|" : "");
    if (set->others.length > 0) tn_str_printf(out, "%s)", set->others.data);
}

static tn_status put_set(translator *t, operand *around, tn_str *out, int depth);

/* [:name:] or [:^name:]; false where it is none. */
static bool put_posix(translator *t, operand *set) {
    char name[LONGEST_NAME];
    const char *from = t->at + 2, *close = from;
    while (close + 1 < t->end && close - from < LONGEST_NAME && !(close[0] == ':' && close[1] == ']')) close++;
    if (close + 1 >= t->end || close - from >= LONGEST_NAME) return false;
    bool negated = *from == '^';
    snprintf(name, sizeof name, "%.*s", (int)(close - from - negated), from + negated);
    const named_class *class = class_of_name(name);
    if (!class) return false;
    put_class(class, negated, set, NULL);
    t->at = close + 2;
    return true;
}

/* The members of one operand, up to && or the closing bracket, which are left. */
static tn_status read_operand(translator *t, operand *set, bool first, int depth) {
    tn_status status = TN_OK;
    for (; t->at < t->end && status == TN_OK && !starts(t, "&&"); first = false) {
        char c = *t->at;
        if (c == ']' && !first) return TN_OK;
        if (c == '\\') status = put_escape(t, set, NULL);
        else if (starts(t, "[:") && put_posix(t, set)) continue;
        else if (c == '[') status = (t->at++, put_set(t, set, NULL, depth + 1));
        else {
            if (c == ']' || c == '^') tn_str_putc(&set->items, '\\'); /* it may come to stand elsewhere */
            if (c == '\0') tn_str_puts(&set->items, "\\x{0}");
            else tn_str_putc(&set->items, c);
            t->at++;
        }
    }
    return status == TN_OK && t->at >= t->end ? refuse(t, "unfinished set") : status;
}

/* A set with t->at behind its bracket: into the set around it where that can hold it, else as an expression. */
static tn_status put_set(translator *t, operand *around, tn_str *out, int depth) {
    tn_status status = TN_OK;
    operand set = {0};
    tn_str ahead = {0}; /* the operands before as lookaheads */
    bool negated = t->at < t->end && *t->at == '^', first = true;
    if (depth > DEEPEST_SET) return refuse(t, "sets are nested too deeply");
    if (negated) t->at++;
    for (;; first = false) {
        TN_TRY(read_operand(t, &set, first, depth));
        if (set.items.length + set.others.length == 0)
            TN_THROW(TN_BAD_DATA, "regular expression: an empty set");
        if (*t->at == ']') break;
        t->at += 2;
        tn_str_puts(&ahead, "(?=");
        put_operand(&set, &ahead);
        tn_str_puts(&ahead, ")");
        tn_str_clear(&set.items), tn_str_clear(&set.others);
    }
    t->at++;
    if (!around && ahead.length + set.others.length == 0) { /* the common case: PCRE2's own */
        tn_str_printf(out, negated ? "[^%s]" : "[%s]", set.items.data);
    } else if (around && !negated && ahead.length + set.others.length == 0) {
        tn_str_puts(&around->items, set.items.data);
    } else {
        if (around) out = &around->others;
        if (around && out->length > 0) tn_str_putc(out, '|');
        tn_str_puts(out, negated ? "(?:(?!" : "(?:");
        tn_str_puts(out, tn_str_text(&ahead));
        put_operand(&set, out);
        tn_str_puts(out, negated ? ")(?s:.))" : ")");
    }
    status = tn_str_check(&set.items, "regular expression");
    if (status == TN_OK) status = tn_str_check(&set.others, "regular expression");
done:
    tn_str_free(&set.items), tn_str_free(&set.others), tn_str_free(&ahead);
    return status;
}

/* ---- Groups and repeats ---- */

static tn_status open_group(translator *t) {
    if (t->depth == DEEPEST) return refuse(t, "groups are nested too deeply");
    if (starts(t, "(?#")) {
        if (!memchr(t->at, ')', (size_t)(t->end - t->at))) return refuse(t, "unfinished comment");
        return copy_to(t, ')', t->out), TN_OK;
    }
    t->groups[t->depth++] = t->out->length;
    tn_str_putc(t->out, *t->at++);
    if (t->at == t->end || *t->at != '?') return TN_OK;
    tn_str_putc(t->out, *t->at++);
    while (t->at < t->end && strchr("imx-", *t->at)) {
        tn_str_putc(t->out, *t->at == 'm' ? 's' : *t->at);
        t->at++;
    }
    return TN_OK;
}

/* Length of {n}, {n,}, {n,m} or {,m} at t->at, 0: it is none. */
static int64_t repeat_length(const translator *t, bool *fixed) {
    const char *p = t->at + 1, *digits = p;
    while (p < t->end && *p >= '0' && *p <= '9') p++;
    bool any = p > digits;
    *fixed = p < t->end && *p == '}';
    if (p < t->end && *p == ',') {
        digits = ++p;
        while (p < t->end && *p >= '0' && *p <= '9') p++;
        any = any || p > digits;
    }
    return any && p < t->end && *p == '}' ? p + 1 - t->at : 0;
}

/* A plus behind any of them, and a question mark behind {n}, repeat the repeat. Where it may be of one, the
 * inner bounds say nothing, and without them nothing is tried twice. */
static void put_repeat(translator *t) {
    bool fixed;
    int64_t length = repeat_length(t, &fixed);
    if (length == 0) {
        t->atom = t->out->length;
        tn_str_putc(t->out, *t->at++);
        return;
    }
    const char *repeat = t->at, *behind = t->at + length;
    bool plus = behind < t->end && *behind == '+', optional = fixed && behind < t->end && *behind == '?';
    char inner = repeat[1] == ',' || (repeat[1] == '0' && repeat[2] == ',') ? '*'
                 : repeat[1] == '1' && repeat[2] == ','                     ? '+'
                                                                            : 0;
    t->at = behind;
    if (plus && inner) {
        tn_str_printf(t->out, "%c", inner), t->at++;
    } else {
        tn_str_puts(t->out, repeat[1] == ',' ? "{0" : "{");
        tn_str_add(t->out, repeat + 1, length - 1);
    }
    if (!plus && !optional) return;
    tn_str_puts(t->out, ")   ");
    if (t->out->failed) return;
    char *atom = t->out->data + t->atom;
    memmove(atom + 3, atom, (size_t)(t->out->length - t->atom - 3));
    memcpy(atom, "(?:", 3);
}

static tn_status put_next(translator *t) {
    char c = *t->at;
    if (c == '(') return open_group(t);
    if (c == '{') return put_repeat(t), TN_OK;
    if (c == ')') {
        t->atom = t->depth > 0 ? t->groups[--t->depth] : 0;
    } else if (!strchr("*+?|", c) && ((unsigned char)c & 0xC0) != 0x80) {
        t->atom = t->out->length;
        if (c == '\\') return put_escape(t, NULL, t->out);
        if (c == '[') return t->at++, put_set(t, NULL, t->out, 0);
    }
    tn_str_putc(t->out, c);
    t->at++;
    return TN_OK;
}

tn_status tn_regex_translate(const char *pattern, int64_t length, tn_str *out) {
    translator t = {.at = pattern, .end = pattern + length, .out = out};
    tn_status status = TN_OK;
    while (t.at < t.end && status == TN_OK) status = put_next(&t);
    return status == TN_OK ? tn_str_check(out, "regular expression") : status;
}
