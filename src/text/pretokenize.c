/* pretokenize.c: pre-tokenizers, as a flat list of steps over the pieces of a text. A step either cuts pieces
 * (the text stays where it is) or rewrites them into a buffer. Compound pre-tokenizers are taken apart:
 * ByteLevel is [prefix space] [cut by GPT-2's expression] [byte map], Metaspace is a rewrite and a cut.
 */
#include <stdlib.h>

#include "text/pipeline.h"

typedef enum step_kind { CUT_REGEX, CUT_CHARACTERS, PREFIX_SPACE, METASPACE, MAP_BYTES } step_kind;
/* What becomes of a match. */
typedef enum behavior { REMOVED, ISOLATED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS } behavior;
typedef enum scheme { ALWAYS, FIRST, NEVER } scheme;

typedef struct step {
    step_kind kind;
    behavior how;
    bool invert;         /* what does not match counts as the match */
    tn_regex *regex;     /* CUT_REGEX */
    tn_char_class class; /* CUT_CHARACTERS */
    uint32_t character;  /* CUT_CHARACTERS with TN_CHAR_ONE */
    scheme prepend;      /* METASPACE */
    char replacement[5]; /* METASPACE */
} step;

struct tn_pretokenizer {
    step *steps;
    int64_t count, capacity;
};

static const char gpt2_expression[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* \w+|[^\w\s]+ of Rust's regex, whose \w holds the two joiners too. */
static const char whitespace_expression[] = "[\\w\\x{200C}\\x{200D}]+|[^\\w\\x{200C}\\x{200D}\\s]+";

/* ---- Loading ---- */

static step *push(tn_pretokenizer *p, step_kind kind) {
    if (tn_grow(&p->steps, &p->capacity, p->count + 1, sizeof *p->steps, "pre-tokenizer") != TN_OK) return NULL;
    p->steps[p->count] = (step){.kind = kind};
    return &p->steps[p->count++];
}

static tn_status push_plain(tn_pretokenizer *p, step_kind kind) { return push(p, kind) ? TN_OK : TN_FAILED; }

static tn_status push_characters(tn_pretokenizer *p, tn_char_class class, uint32_t character, behavior how) {
    step *s = push(p, CUT_CHARACTERS);
    if (!s) return TN_FAILED;
    s->class = class;
    s->character = character;
    s->how = how;
    return TN_OK;
}

static tn_status push_regex(tn_pretokenizer *p, const char *pattern, bool literal, behavior how, bool invert) {
    step *s = push(p, CUT_REGEX);
    if (!s) return TN_FAILED;
    s->how = how;
    s->invert = invert;
    return tn_regex_compile(pattern, (int64_t)strlen(pattern), literal, &s->regex);
}

static tn_status read_behavior(const tn_json *node, behavior otherwise, behavior *how) {
    static const char *names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    *how = otherwise;
    if (tn_json_is_null(node)) return TN_OK;
    for (int i = 0; i < 5; i++)
        if (tn_json_is_string(node, names[i])) return *how = (behavior)i, TN_OK;
    return tn_fail(TN_BAD_DATA, "pre-tokenizer: behavior \"%s\" is not known", tn_json_string(node, "?"));
}

static tn_status load_split(tn_pretokenizer *p, const tn_json *node) {
    step *s = push(p, CUT_REGEX);
    if (!s) return TN_FAILED;
    s->invert = tn_json_boolean(tn_json_get(node, "invert"), false);
    tn_status status = read_behavior(tn_json_get(node, "behavior"), ISOLATED, &s->how);
    return status == TN_OK ? tn_regex_from_json(tn_json_get(node, "pattern"), "pre-tokenizer Split", &s->regex)
                           : status;
}

static tn_status load_byte_level(tn_pretokenizer *p, const tn_json *node) {
    tn_status status = TN_OK;
    if (tn_json_boolean(tn_json_get(node, "add_prefix_space"), true)) TN_TRY(push_plain(p, PREFIX_SPACE));
    if (tn_json_boolean(tn_json_get(node, "use_regex"), true))
        TN_TRY(push_regex(p, gpt2_expression, false, ISOLATED, false));
    TN_TRY(push_plain(p, MAP_BYTES));
done:
    return status;
}

static tn_status load_metaspace(tn_pretokenizer *p, const tn_json *node) {
    const tn_json *text = tn_json_get(node, "replacement"), *prepend = tn_json_get(node, "prepend_scheme");
    step *s = push(p, METASPACE);
    if (!s) return TN_FAILED;
    uint32_t c;
    const char *replacement = tn_json_string(text, "\xE2\x96\x81");
    int64_t length = (int64_t)strlen(replacement);
    if (length == 0 || tn_utf8_decode(replacement, length, &c) != length)
        return tn_fail(TN_BAD_DATA, "pre-tokenizer Metaspace: replacement \"%s\" is not one character",
                       replacement);
    memcpy(s->replacement, replacement, (size_t)length + 1);
    bool legacy = tn_json_boolean(tn_json_get(node, "add_prefix_space"), true);
    s->prepend = tn_json_is_string(prepend, "first")              ? FIRST
                 : tn_json_is_string(prepend, "never") || !legacy ? NEVER
                                                                  : ALWAYS;
    if (!tn_json_boolean(tn_json_get(node, "split"), true)) return TN_OK;
    return push_regex(p, replacement, true, MERGED_WITH_NEXT, false);
}

static tn_status load_bert(tn_pretokenizer *p) {
    tn_status status = push_characters(p, TN_CHAR_WHITE_SPACE, 0, REMOVED);
    return status == TN_OK ? push_characters(p, TN_CHAR_PUNCTUATION, 0, ISOLATED) : status;
}

static tn_status load_delimiter(tn_pretokenizer *p, const tn_json *node) {
    const tn_json *text = tn_json_get(node, "delimiter");
    uint32_t c;
    if (!text || text->type != TN_JSON_STRING || text->count == 0 ||
        tn_utf8_decode(text->string, text->count, &c) != text->count)
        return tn_fail(TN_BAD_DATA, "pre-tokenizer CharDelimiterSplit: the delimiter is not one character");
    return push_characters(p, TN_CHAR_ONE, c, REMOVED);
}

static tn_status load_punctuation(tn_pretokenizer *p, const tn_json *node) {
    behavior how;
    tn_status status = read_behavior(tn_json_get(node, "behavior"), ISOLATED, &how);
    return status == TN_OK ? push_characters(p, TN_CHAR_PUNCTUATION, 0, how) : status;
}

static tn_status load_scripts(tn_pretokenizer *p) {
    tn_str expression = {0};
    tn_scripts_expression(&expression);
    tn_status status = tn_str_check(&expression, "pre-tokenizer");
    if (status == TN_OK) status = push_regex(p, expression.data, false, REMOVED, true);
    tn_str_free(&expression);
    return status;
}

static tn_status load(tn_pretokenizer *p, const tn_json *node, int depth) {
    const tn_json *type = tn_json_get(node, "type"), *list = tn_json_get(node, "pretokenizers");
    if (depth > 32) return tn_fail(TN_BAD_DATA, "pre-tokenizers are nested too deeply");
    if (tn_json_is_string(type, "Sequence")) {
        tn_status status = TN_OK;
        for (int64_t i = 0; list && list->type == TN_JSON_ARRAY && i < list->count && status == TN_OK; i++)
            status = load(p, &list->items[i], depth + 1);
        return status;
    }
    if (tn_json_is_string(type, "Split")) return load_split(p, node);
    if (tn_json_is_string(type, "ByteLevel")) return load_byte_level(p, node);
    if (tn_json_is_string(type, "Metaspace")) return load_metaspace(p, node);
    if (tn_json_is_string(type, "Digits")) {
        bool individual = tn_json_boolean(tn_json_get(node, "individual_digits"), false);
        return push_characters(p, TN_CHAR_NUMERIC, 0, individual ? ISOLATED : CONTIGUOUS);
    }
    if (tn_json_is_string(type, "Whitespace"))
        return push_regex(p, whitespace_expression, false, REMOVED, true);
    if (tn_json_is_string(type, "WhitespaceSplit")) return push_characters(p, TN_CHAR_WHITE_SPACE, 0, REMOVED);
    if (tn_json_is_string(type, "Punctuation")) return load_punctuation(p, node);
    if (tn_json_is_string(type, "BertPreTokenizer")) return load_bert(p);
    if (tn_json_is_string(type, "CharDelimiterSplit")) return load_delimiter(p, node);
    if (tn_json_is_string(type, "UnicodeScripts")) return load_scripts(p);
    tn_fail(TN_BAD_DATA, "pre-tokenizer type \"%s\" is not supported", tn_json_string(type, "(none)"));
    return tn_remedy("use a model whose tokenizer.json uses the pre-tokenizers of the tokenizers library 0.23");
}

tn_status tn_pretokenizer_load(const tn_json *node, tn_pretokenizer **pretokenizer) {
    tn_status status = TN_OK;
    tn_pretokenizer *made = NULL;
    *pretokenizer = NULL;
    if (tn_json_is_null(node)) return TN_OK;
    TN_TRY(tn_alloc(&made, 1, sizeof *made, "pre-tokenizer"));
    TN_TRY(load(made, node, 0));
    *pretokenizer = made;
    made = NULL;
done:
    tn_pretokenizer_free(made);
    return status;
}

void tn_pretokenizer_free(tn_pretokenizer *p) {
    if (!p) return;
    for (int64_t i = 0; i < p->count; i++) tn_regex_free(p->steps[i].regex);
    free(p->steps);
    free(p);
}

bool tn_pretokenizer_maps_bytes(const tn_pretokenizer *p) {
    return p && p->count > 0 && p->steps[p->count - 1].kind == MAP_BYTES;
}

void tn_pretokenizer_drop_byte_map(tn_pretokenizer *p) { p->count--; }

bool tn_pretokenizer_needs_origin(const tn_pretokenizer *p) {
    for (int64_t i = 0; p && i < p->count; i++)
        if (p->steps[i].kind == METASPACE && p->steps[i].prepend == FIRST) return true;
    return false;
}

/* ---- Cutting ---- */

/* Takes the alternating stretches of one piece and pushes what `how` makes of them. */
typedef struct cutter {
    tn_pieces *out;
    behavior how;
    bool previous_match;
    bool pending; /* `last` is still open for more */
    tn_range last;
} cutter;

static tn_status flush(cutter *c) {
    if (!c->pending) return TN_OK;
    c->pending = false;
    return tn_pieces_push(c->out, c->last.start, c->last.end);
}

static tn_status cut(cutter *c, int64_t start, int64_t end, bool match) {
    bool joins = false;
    if (c->how == ISOLATED || (c->how == REMOVED && !match)) return tn_pieces_push(c->out, start, end);
    if (c->how == REMOVED) return TN_OK;
    if (c->how == MERGED_WITH_PREVIOUS) joins = match && !c->previous_match;
    if (c->how == MERGED_WITH_NEXT) joins = !match && c->previous_match;
    if (c->how == CONTIGUOUS) joins = match == c->previous_match;
    c->previous_match = match;
    if (joins && c->pending) {
        c->last.end = end;
        return TN_OK;
    }
    tn_status status = flush(c);
    c->last = (tn_range){start, end};
    c->pending = true;
    return status;
}

static tn_status cut_regex(const step *s, tn_work *work, const tn_view *view, tn_range piece, tn_pieces *out) {
    tn_status status = TN_OK;
    cutter c = {.out = out, .how = s->how};
    tn_cursor cursor = {0};
    tn_range match;
    const char *text = view->text + piece.start;
    int64_t length = piece.end - piece.start, done = 0;
    for (;;) {
        bool found;
        TN_TRY(tn_regex_next(s->regex, work, text, length, &cursor, &match, &found));
        if (!found) break;
        if (match.start > done) TN_TRY(cut(&c, piece.start + done, piece.start + match.start, s->invert));
        TN_TRY(cut(&c, piece.start + match.start, piece.start + match.end, !s->invert));
        done = match.end;
    }
    if (done < length) TN_TRY(cut(&c, piece.start + done, piece.end, s->invert));
    status = flush(&c);
done:
    return status;
}

static tn_status cut_characters(const step *s, const tn_view *view, tn_range piece, tn_pieces *out) {
    tn_status status = TN_OK;
    cutter c = {.out = out, .how = s->how};
    int64_t done = piece.start, next;
    for (int64_t i = piece.start; i < piece.end; i = next) {
        uint32_t character;
        next = i + tn_char_at(view->text + i, &character);
        if (!tn_char_is(s->class, character, s->character)) continue;
        if (done < i) TN_TRY(cut(&c, done, i, false));
        TN_TRY(cut(&c, i, next, true));
        done = next;
    }
    if (done < piece.end) TN_TRY(cut(&c, done, piece.end, false));
    status = flush(&c);
done:
    return status;
}

/* ---- Rewriting ---- */

static void rewrite_metaspace(const step *s, const tn_view *view, tn_range piece, tn_buffer *to) {
    int64_t length = (int64_t)strlen(s->replacement), done = piece.start;
    const char *text = view->text + piece.start;
    bool marked = text[0] == ' ' ||
                  (piece.end - piece.start >= length && memcmp(text, s->replacement, (size_t)length) == 0);
    uint32_t c;
    tn_range first = tn_view_origin(view, piece.start, piece.start + tn_char_at(text, &c));
    if (!marked && (s->prepend == ALWAYS || (s->prepend == FIRST && first.start == 0)))
        tn_buffer_put(to, s->replacement, length, first);
    for (int64_t i = piece.start; i < piece.end; i++) {
        if (view->text[i] != ' ') continue;
        tn_buffer_copy(to, view, done, i);
        tn_buffer_put(to, s->replacement, length, tn_view_origin(view, i, i + 1));
        done = i + 1;
    }
    tn_buffer_copy(to, view, done, piece.end);
}

static void rewrite_prefix_space(const tn_view *view, tn_range piece, tn_buffer *to) {
    uint32_t c;
    int n = tn_char_at(view->text + piece.start, &c);
    if (c != ' ') tn_buffer_put(to, " ", 1, tn_view_origin(view, piece.start, piece.start + n));
    tn_buffer_copy(to, view, piece.start, piece.end);
}

static void rewrite_bytes(const tn_view *view, tn_range piece, tn_buffer *to) {
    for (int64_t i = piece.start; i < piece.end; i++)
        tn_buffer_put_code_point(to, tn_byte_to_char((unsigned char)view->text[i]),
                                 tn_view_origin(view, i, i + 1));
}

static tn_status rewrite(const step *s, const tn_pieces *in, tn_buffer *to, tn_pieces *out) {
    tn_status status = TN_OK;
    for (int64_t i = 0; i < in->count && status == TN_OK; i++) {
        int64_t start = to->text.length;
        if (s->kind == METASPACE) rewrite_metaspace(s, &in->view, in->ranges[i], to);
        else if (s->kind == PREFIX_SPACE) rewrite_prefix_space(&in->view, in->ranges[i], to);
        else rewrite_bytes(&in->view, in->ranges[i], to);
        status = tn_pieces_push(out, start, to->text.length);
    }
    out->view = tn_buffer_view(to);
    return status == TN_OK ? tn_str_check(&to->text, "pre-tokens") : status;
}

static tn_status run_step(const step *s, tn_work *work, const tn_pieces *in, tn_pieces *out) {
    tn_status status = TN_OK;
    out->view = in->view;
    for (int64_t i = 0; i < in->count && status == TN_OK; i++) {
        if (s->kind == CUT_REGEX) status = cut_regex(s, work, &in->view, in->ranges[i], out);
        else status = cut_characters(s, &in->view, in->ranges[i], out);
    }
    return status;
}

tn_status tn_pretokenizer_run(const tn_pretokenizer *p, tn_work *work, const tn_view *in,
                              const tn_pieces **pieces) {
    tn_pieces *from = &work->pieces[0], *to = &work->pieces[1], *swap;
    int buffer = 0;
    from->count = 0;
    from->view = *in;
    tn_status status = tn_pieces_push(from, 0, in->length);
    for (int64_t i = 0; p && i < p->count && status == TN_OK; i++) {
        const step *s = &p->steps[i];
        to->count = 0;
        if (s->kind == CUT_REGEX || s->kind == CUT_CHARACTERS) {
            status = run_step(s, work, from, to);
        } else {
            tn_buffer_clear(&work->pre[buffer], work->mapped);
            status = rewrite(s, from, &work->pre[buffer], to);
            buffer = 1 - buffer;
        }
        swap = from, from = to, to = swap;
    }
    *pieces = from;
    return status;
}
