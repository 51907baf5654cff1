/* decode.c: decoders, as a flat list of steps through which tokens are pushed one at a time; what leaves the
 * last step can no longer change. Decoding a whole text is the same pushing followed by the end, so streaming
 * and whole decoding cannot differ.
 *
 * A step that joins tokens (Fuse, ByteLevel) hands its text on in parts where every later step can work on
 * parts (only Strip at the front can), else as one token at the end.
 */
#include <stdio.h>
#include <stdlib.h>

#include "text/decoder.h"

typedef enum step_kind {
    BYTE_LEVEL,
    BYTE_FALLBACK,
    FUSE,
    REPLACE,
    STRIP,
    METASPACE,
    WORDPIECE,
    BPE,
    CTC,
    SPACED
} step_kind;

typedef struct step {
    step_kind kind;
    bool parts;          /* a joining step: hands on parts */
    bool in_parts;       /* gets its one token in parts */
    bool cleanup;        /* WORDPIECE, CTC */
    bool drop_first;     /* METASPACE: replacements in the first token vanish */
    int64_t start, stop; /* STRIP */
    tn_regex *regex;     /* REPLACE */
    char *text, *more;   /* replacement, stripped or replaced character, prefix, suffix; CTC's delimiter */
    int64_t length;      /* of text */
} step;

struct tn_decoder {
    step *steps;
    int64_t count, capacity;
};

/* What a step remembers while a text runs through. */
typedef struct state {
    tn_str held, made;
    int64_t tokens; /* seen so far */
    int64_t cut;    /* STRIP in parts: characters taken off the front so far, -1: done */
} state;

struct tn_decoding {
    const tn_decoder *decoder;
    tn_work *work;
    tn_str *out;
    state *states;
};

/* ---- Loading ---- */

static tn_status copy_text(char **to, int64_t *length, const tn_json *node, const char *otherwise) {
    bool given = node && node->type == TN_JSON_STRING;
    int64_t n = given ? node->count : (int64_t)strlen(otherwise);
    tn_status status = tn_alloc(to, n + 1, 1, "decoder");
    if (status != TN_OK) return status;
    memcpy(*to, given ? node->string : otherwise, (size_t)n);
    if (length) *length = n;
    return TN_OK;
}

static tn_status load(tn_decoder *d, const tn_json *node, int depth);

static tn_status load_details(step *s, const tn_json *node) {
    const tn_json *scheme = tn_json_get(node, "prepend_scheme");
    switch (s->kind) {
        case REPLACE: {
            tn_status status = copy_text(&s->text, &s->length, tn_json_get(node, "content"), "");
            return status == TN_OK
                       ? tn_regex_from_json(tn_json_get(node, "pattern"), "decoder Replace", &s->regex)
                       : status;
        }
        case STRIP:
            s->start = tn_json_integer(tn_json_get(node, "start"), 0);
            s->stop = tn_json_integer(tn_json_get(node, "stop"), 0);
            return copy_text(&s->text, &s->length, tn_json_get(node, "content"), " ");
        case METASPACE:
            s->drop_first = tn_json_is_null(scheme)
                                ? tn_json_boolean(tn_json_get(node, "add_prefix_space"), true)
                                : !tn_json_is_string(scheme, "never");
            return copy_text(&s->text, &s->length, tn_json_get(node, "replacement"), "\xE2\x96\x81");
        case WORDPIECE:
            s->cleanup = tn_json_boolean(tn_json_get(node, "cleanup"), true);
            return copy_text(&s->text, &s->length, tn_json_get(node, "prefix"), "##");
        case BPE: return copy_text(&s->text, &s->length, tn_json_get(node, "suffix"), "</w>");
        case CTC: {
            s->cleanup = tn_json_boolean(tn_json_get(node, "cleanup"), true);
            tn_status status = copy_text(&s->text, &s->length, tn_json_get(node, "pad_token"), "<pad>");
            return status == TN_OK ? copy_text(&s->more, NULL, tn_json_get(node, "word_delimiter_token"), "|")
                                   : status;
        }
        default: return TN_OK;
    }
}

static tn_status push(tn_decoder *d, step_kind kind, const tn_json *node) {
    tn_status status = tn_grow(&d->steps, &d->capacity, d->count + 1, sizeof *d->steps, "decoder");
    if (status != TN_OK) return status;
    d->steps[d->count] = (step){.kind = kind};
    return load_details(&d->steps[d->count++], node);
}

static tn_status load(tn_decoder *d, const tn_json *node, int depth) {
    static const struct {
        const char *name;
        step_kind kind;
    } kinds[] = {
        {"ByteLevel", BYTE_LEVEL},
        {"ByteFallback", BYTE_FALLBACK},
        {"Fuse", FUSE},
        {"Replace", REPLACE},
        {"Strip", STRIP},
        {"Metaspace", METASPACE},
        {"WordPiece", WORDPIECE},
        {"BPEDecoder", BPE},
        {"CTC", CTC},
    };
    const tn_json *type = tn_json_get(node, "type"), *list = tn_json_get(node, "decoders");
    if (depth > 32) return tn_fail(TN_BAD_DATA, "decoders are nested too deeply");
    if (tn_json_is_string(type, "Sequence")) {
        tn_status status = TN_OK;
        for (int64_t i = 0; list && list->type == TN_JSON_ARRAY && i < list->count && status == TN_OK; i++)
            status = load(d, &list->items[i], depth + 1);
        return status;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (tn_json_is_string(type, kinds[i].name)) return push(d, kinds[i].kind, node);
    return tn_fail(TN_BAD_DATA, "decoder type \"%s\" is not supported", tn_json_string(type, "(none)"));
}

static bool joins(const step *s) { return s->kind == FUSE || s->kind == BYTE_LEVEL; }

/* From the end: a joining step may hand on parts while everything behind it can take them. */
static void find_parts(tn_decoder *d) {
    bool takes_parts = true;
    for (int64_t i = d->count - 1; i >= 0; i--) {
        step *s = &d->steps[i];
        if (joins(s)) s->parts = takes_parts;
        takes_parts = takes_parts && (s->kind == FUSE || (s->kind == STRIP && s->stop <= 0));
    }
    for (int64_t i = 1; i < d->count; i++) {
        const step *before = &d->steps[i - 1];
        d->steps[i].in_parts = joins(before) ? before->parts : before->in_parts;
    }
}

tn_status tn_decoder_load(const tn_json *node, tn_decoder **decoder) {
    tn_status status = TN_OK;
    tn_decoder *made = NULL;
    TN_TRY(tn_alloc(&made, 1, sizeof *made, "decoder"));
    if (tn_json_is_null(node)) TN_TRY(push(made, SPACED, NULL));
    else TN_TRY(load(made, node, 0));
    find_parts(made);
    *decoder = made;
    made = NULL;
done:
    tn_decoder_free(made);
    return status;
}

void tn_decoder_free(tn_decoder *d) {
    if (!d) return;
    for (int64_t i = 0; i < d->count; i++) {
        tn_regex_free(d->steps[i].regex);
        free(d->steps[i].text);
        free(d->steps[i].more);
    }
    free(d->steps);
    free(d);
}

/* ---- Text helpers ---- */

/* Appends `text` with every `from` replaced by `to`. */
static void put_replaced(tn_str *out, const char *text, int64_t length, const char *from, const char *to) {
    int64_t n = (int64_t)strlen(from), done = 0;
    for (int64_t i = 0; n > 0 && i + n <= length;) {
        if (memcmp(text + i, from, (size_t)n) != 0) {
            i++;
            continue;
        }
        tn_str_add(out, text + done, i - done);
        tn_str_puts(out, to);
        done = i += n;
    }
    tn_str_add(out, text + done, length - done);
}

/* The spaces English detokenizers take out, one rule after the other, in place. */
static void clean_up(tn_str *text) {
    static const char *const rules[][2] = {
        {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
        {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        tn_str made = {0};
        put_replaced(&made, tn_str_text(text), text->length, rules[i][0], rules[i][1]);
        made.failed = made.failed || text->failed;
        tn_str_free(text);
        *text = made;
    }
}

/* ---- Steps ---- */

static tn_status emit(tn_decoding *d, int64_t at, const char *text, int64_t length);

static tn_status emit_made(tn_decoding *d, int64_t at) {
    tn_str *made = &d->states[at].made;
    tn_status status = tn_str_check(made, "decoded text");
    return status == TN_OK ? emit(d, at + 1, tn_str_text(made), made->length) : status;
}

/* The bytes a token stands for: unmapped where all its characters are GPT-2's, else its own. */
static void put_token_bytes(tn_str *out, const char *text, int64_t length) {
    int64_t before = out->length;
    if (tn_unmap_bytes(text, length, out)) return;
    if (!out->failed) out->length = before;
    tn_str_add(out, text, length);
}

/* Hands on what is whole of the held bytes, or all of it. */
static tn_status release_bytes(tn_decoding *d, int64_t at, bool all) {
    state *s = &d->states[at];
    int64_t whole = s->held.length - (all ? 0 : tn_utf8_incomplete_tail(tn_str_text(&s->held), s->held.length));
    tn_status status = tn_str_check(&s->held, "decoded text");
    if (status != TN_OK || whole == 0) return status;
    tn_str_clear(&s->made);
    tn_utf8_lossy(&s->made, s->held.data, whole);
    memmove(s->held.data, s->held.data + whole, (size_t)(s->held.length - whole));
    s->held.length -= whole;
    return emit_made(d, at);
}

/* <0xXX>, read as the original does: a sign before one digit passes. */
static int fallback_byte(const char *text, int64_t length) {
    int value = 0;
    if (length != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    for (int i = text[3] == '+' ? 4 : 3; i < 5; i++) {
        char c = text[i];
        int digit = c >= '0' && c <= '9'                 ? c - '0'
                    : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                         : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* The run of byte tokens so far: one token where it is UTF-8, else one U+FFFD for each byte. */
static tn_status release_run(tn_decoding *d, int64_t at) {
    state *s = &d->states[at];
    tn_status status = tn_str_check(&s->held, "decoded text");
    if (status != TN_OK || s->held.length == 0) return status;
    if (tn_utf8_valid(s->held.data, s->held.length)) {
        status = emit(d, at + 1, s->held.data, s->held.length);
    } else {
        for (int64_t i = 0; i < s->held.length && status == TN_OK; i++)
            status = emit(d, at + 1, "\xEF\xBF\xBD", 3);
    }
    tn_str_clear(&s->held);
    return status;
}

static tn_status push_replace(tn_decoding *d, int64_t at, const char *text, int64_t length) {
    const step *p = &d->decoder->steps[at];
    tn_str *made = &d->states[at].made;
    tn_cursor cursor = {0};
    tn_range match;
    int64_t done = 0;
    if (length == 0) return emit(d, at + 1, text, 0); /* nothing is replaced in nothing, not even by ^ */
    tn_str_clear(made);
    for (;;) {
        bool found;
        tn_status status = tn_regex_next(p->regex, d->work, text, length, &cursor, &match, &found);
        if (status != TN_OK) return status;
        if (!found) break;
        tn_str_add(made, text + done, match.start - done);
        tn_str_add(made, p->text, p->length);
        done = match.end;
    }
    tn_str_add(made, text + done, length - done);
    return emit_made(d, at);
}

static bool starts_with(const char *text, int64_t length, const step *p) {
    return p->length > 0 && length >= p->length && memcmp(text, p->text, (size_t)p->length) == 0;
}

static tn_status push_strip(tn_decoding *d, int64_t at, const char *text, int64_t length) {
    const step *p = &d->decoder->steps[at];
    state *s = &d->states[at];
    if (!p->in_parts) s->cut = 0;
    while (s->cut >= 0 && s->cut < p->start && starts_with(text, length, p)) {
        text += p->length, length -= p->length;
        s->cut++;
    }
    if (length > 0) s->cut = -1;
    for (int64_t i = 0; i < p->stop && length >= p->length && p->length > 0; i++) {
        if (memcmp(text + length - p->length, p->text, (size_t)p->length) != 0) break;
        length -= p->length;
    }
    return emit(d, at + 1, text, length);
}

static tn_status push_metaspace(tn_decoding *d, int64_t at, const char *text, int64_t length, bool first) {
    const step *p = &d->decoder->steps[at];
    tn_str_clear(&d->states[at].made);
    put_replaced(&d->states[at].made, text, length, p->text, first && p->drop_first ? "" : " ");
    return emit_made(d, at);
}

static tn_status push_wordpiece(tn_decoding *d, int64_t at, const char *text, int64_t length, bool first) {
    const step *p = &d->decoder->steps[at];
    tn_str *made = &d->states[at].made;
    tn_str_clear(made);
    if (!first && starts_with(text, length, p)) text += p->length, length -= p->length;
    else if (!first && p->length > 0) tn_str_putc(made, ' ');
    tn_str_add(made, text, length);
    if (p->cleanup) clean_up(made);
    return emit_made(d, at);
}

/* One token late: the last one's suffix vanishes, the others' become a space. */
static tn_status push_bpe(tn_decoding *d, int64_t at, const char *text, int64_t length, bool first) {
    state *s = &d->states[at];
    tn_str_clear(&s->made);
    put_replaced(&s->made, tn_str_text(&s->held), s->held.length, d->decoder->steps[at].text, " ");
    tn_str_clear(&s->held);
    tn_str_add(&s->held, text, length);
    return first ? tn_str_check(&s->held, "decoded text") : emit_made(d, at);
}

static tn_status push_ctc(tn_decoding *d, int64_t at, const char *text, int64_t length, bool first) {
    const step *p = &d->decoder->steps[at];
    state *s = &d->states[at];
    if (!first && s->held.length == length && memcmp(tn_str_text(&s->held), text, (size_t)length) == 0)
        return TN_OK;
    tn_str_clear(&s->held);
    tn_str_add(&s->held, text, length);
    tn_str_clear(&s->made);
    put_replaced(&s->made, text, length, p->text, "");
    if (p->cleanup) {
        tn_str spaced = {0};
        clean_up(&s->made);
        put_replaced(&spaced, tn_str_text(&s->made), s->made.length, p->more, " ");
        tn_str_free(&s->made);
        s->made = spaced;
    }
    return s->made.length > 0 ? emit_made(d, at) : tn_str_check(&s->made, "decoded text");
}

/* Pushes a token (or a part of the one token) into step `at`. */
static tn_status emit(tn_decoding *d, int64_t at, const char *text, int64_t length) {
    if (at == d->decoder->count) {
        tn_str_add(d->out, text, length);
        return tn_str_check(d->out, "decoded text");
    }
    const step *p = &d->decoder->steps[at];
    state *s = &d->states[at];
    bool first = s->tokens++ == 0;
    switch (p->kind) {
        case BYTE_LEVEL:
            put_token_bytes(&s->held, text, length);
            return p->parts ? release_bytes(d, at, false) : tn_str_check(&s->held, "decoded text");
        case BYTE_FALLBACK: {
            int byte = fallback_byte(text, length);
            if (byte >= 0) return tn_str_putc(&s->held, (char)byte), TN_OK;
            tn_status status = release_run(d, at);
            return status == TN_OK ? emit(d, at + 1, text, length) : status;
        }
        case FUSE:
            if (p->parts) return emit(d, at + 1, text, length);
            tn_str_add(&s->held, text, length);
            return tn_str_check(&s->held, "decoded text");
        case REPLACE: return push_replace(d, at, text, length);
        case STRIP: return push_strip(d, at, text, length);
        case METASPACE: return push_metaspace(d, at, text, length, first);
        case WORDPIECE: return push_wordpiece(d, at, text, length, first);
        case BPE: return push_bpe(d, at, text, length, first);
        case CTC: return push_ctc(d, at, text, length, first);
        case SPACED: {
            tn_status status = first ? TN_OK : emit(d, at + 1, " ", 1);
            return status == TN_OK ? emit(d, at + 1, text, length) : status;
        }
    }
    return TN_OK;
}

tn_status tn_decoding_push(tn_decoding *decoding, const char *text, int64_t length, tn_str *out) {
    decoding->out = out;
    return emit(decoding, 0, text, length);
}

/* Front to back, since what a step lets go runs through those behind it. */
tn_status tn_decoding_end(tn_decoding *d, tn_str *out) {
    tn_status status = TN_OK;
    d->out = out;
    for (int64_t at = 0; at < d->decoder->count && status == TN_OK; at++) {
        const step *p = &d->decoder->steps[at];
        state *s = &d->states[at];
        if (p->kind == BYTE_LEVEL) status = release_bytes(d, at, true);
        if (p->kind == BYTE_FALLBACK) status = release_run(d, at);
        if (p->kind == FUSE && !p->parts) status = emit(d, at + 1, tn_str_text(&s->held), s->held.length);
        if (p->kind == BPE && s->tokens > 0) {
            tn_str_clear(&s->made);
            put_replaced(&s->made, tn_str_text(&s->held), s->held.length, p->text, "");
            status = emit_made(d, at);
        }
    }
    return status;
}

tn_status tn_decoding_new(const tn_decoder *decoder, tn_work *work, tn_decoding **decoding) {
    tn_status status = TN_OK;
    tn_decoding *made = NULL;
    TN_TRY(tn_alloc(&made, 1, sizeof *made, "decoding"));
    made->decoder = decoder;
    made->work = work;
    TN_TRY(tn_alloc(&made->states, decoder->count, sizeof *made->states, "decoding"));
    *decoding = made;
    made = NULL;
done:
    tn_decoding_free(made);
    return status;
}

void tn_decoding_free(tn_decoding *d) {
    if (!d) return;
    for (int64_t i = 0; d->states && i < d->decoder->count; i++) {
        tn_str_free(&d->states[i].held);
        tn_str_free(&d->states[i].made);
    }
    free(d->states);
    free(d);
}
