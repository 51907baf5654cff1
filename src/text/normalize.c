/* normalize.c: normalizers, as a flat list of operations (a Sequence is laid out, BertNormalizer taken
 * apart). Each operation reads a view and, where it changes anything, writes a buffer of the workspace.
 *
 * Normal forms are computed by utf8proc over short stretches that begin at a character which neither
 * combines with what stands before it nor reorders: a change is traced back to such a stretch. Text below
 * a form's first affected character (ASCII; U+0300 for NFC) is passed by. So is a character that the library's
 * tables do not know (Unicode 9): it stays, and nothing reorders across it.
 */
#include <stdlib.h>
#include <utf8proc.h>

#include "text/pipeline.h"

typedef enum operation_kind {
    NORMAL_FORM,
    LOWERCASE,
    STRIP,
    DROP_MARKS,
    REPLACE,
    PREPEND,
    MAP_BYTES,
    CLEAN_TEXT,
    SPACE_CHINESE,
    NMT,
    CHARSMAP,
} operation_kind;

typedef struct operation {
    operation_kind kind;
    utf8proc_option_t form; /* NORMAL_FORM */
    bool left, right;       /* STRIP */
    bool nonspacing_only;   /* DROP_MARKS */
    tn_regex *pattern;      /* REPLACE */
    char *content;          /* REPLACE, PREPEND */
    int64_t length;         /* of content */
    tn_charsmap *charsmap;  /* CHARSMAP */
} operation;

struct tn_normalizer {
    operation *operations;
    int64_t count, capacity;
};

/* ---- Loading ---- */

static operation *push(tn_normalizer *n, operation_kind kind) {
    if (tn_grow(&n->operations, &n->capacity, n->count + 1, sizeof *n->operations, "normalizer") != TN_OK)
        return NULL;
    n->operations[n->count] = (operation){.kind = kind};
    return &n->operations[n->count++];
}

static tn_status push_form(tn_normalizer *n, int options) {
    operation *op = push(n, NORMAL_FORM);
    if (!op) return TN_FAILED;
    op->form = (utf8proc_option_t)(options | UTF8PROC_STABLE);
    return TN_OK;
}

static tn_status push_plain(tn_normalizer *n, operation_kind kind) { return push(n, kind) ? TN_OK : TN_FAILED; }

static tn_status push_content(tn_normalizer *n, operation_kind kind, const tn_json *content, const char *what) {
    operation *op = push(n, kind);
    if (!op) return TN_FAILED;
    if (!content || content->type != TN_JSON_STRING)
        return tn_fail(TN_BAD_DATA, "normalizer %s: no text to insert", what);
    op->length = content->count;
    tn_status status = tn_alloc(&op->content, content->count + 1, 1, "normalizer");
    if (status == TN_OK) memcpy(op->content, content->string, (size_t)content->count);
    return status;
}

static tn_status load(tn_normalizer *n, const tn_json *node, int depth);

static tn_status load_strip(tn_normalizer *n, const tn_json *node) {
    operation *op = push(n, STRIP);
    if (!op) return TN_FAILED;
    op->left = tn_json_boolean(tn_json_get(node, "strip_left"), true);
    op->right = tn_json_boolean(tn_json_get(node, "strip_right"), true);
    return TN_OK;
}

static tn_status load_marks(tn_normalizer *n, bool nonspacing_only) {
    operation *op = push(n, DROP_MARKS);
    if (!op) return TN_FAILED;
    op->nonspacing_only = nonspacing_only;
    return TN_OK;
}

static tn_status load_bert(tn_normalizer *n, const tn_json *node) {
    tn_status status = TN_OK;
    bool lowercase = tn_json_boolean(tn_json_get(node, "lowercase"), true);
    if (tn_json_boolean(tn_json_get(node, "clean_text"), true)) TN_TRY(push_plain(n, CLEAN_TEXT));
    if (tn_json_boolean(tn_json_get(node, "handle_chinese_chars"), true)) TN_TRY(push_plain(n, SPACE_CHINESE));
    if (tn_json_boolean(tn_json_get(node, "strip_accents"), lowercase)) {
        TN_TRY(push_form(n, UTF8PROC_DECOMPOSE));
        TN_TRY(load_marks(n, true));
    }
    if (lowercase) TN_TRY(push_plain(n, LOWERCASE));
done:
    return status;
}

static tn_status load_charsmap(tn_normalizer *n, const tn_json *node) {
    const tn_json *table = tn_json_get(node, "precompiled_charsmap");
    operation *op = push(n, CHARSMAP);
    if (!op) return TN_FAILED;
    if (!table || table->type != TN_JSON_STRING)
        return tn_fail(TN_BAD_DATA, "normalizer Precompiled: no \"precompiled_charsmap\"");
    return tn_charsmap_load(table->string, table->count, &op->charsmap);
}

static tn_status load_sequence(tn_normalizer *n, const tn_json *list, int depth) {
    tn_status status = TN_OK;
    for (int64_t i = 0; list && list->type == TN_JSON_ARRAY && i < list->count && status == TN_OK; i++)
        status = load(n, &list->items[i], depth + 1);
    return status;
}

static tn_status load(tn_normalizer *n, const tn_json *node, int depth) {
    const tn_json *type = tn_json_get(node, "type");
    if (depth > 32) return tn_fail(TN_BAD_DATA, "normalizers are nested too deeply");
    if (tn_json_is_string(type, "Sequence")) return load_sequence(n, tn_json_get(node, "normalizers"), depth);
    if (tn_json_is_string(type, "NFC")) return push_form(n, UTF8PROC_COMPOSE);
    if (tn_json_is_string(type, "NFD")) return push_form(n, UTF8PROC_DECOMPOSE);
    if (tn_json_is_string(type, "NFKC")) return push_form(n, UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
    if (tn_json_is_string(type, "NFKD")) return push_form(n, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
    if (tn_json_is_string(type, "Lowercase")) return push_plain(n, LOWERCASE);
    if (tn_json_is_string(type, "ByteLevel")) return push_plain(n, MAP_BYTES);
    if (tn_json_is_string(type, "StripAccents")) return load_marks(n, false);
    if (tn_json_is_string(type, "Strip")) return load_strip(n, node);
    if (tn_json_is_string(type, "BertNormalizer")) return load_bert(n, node);
    if (tn_json_is_string(type, "Nmt")) return push_plain(n, NMT);
    if (tn_json_is_string(type, "Precompiled")) return load_charsmap(n, node);
    if (tn_json_is_string(type, "Prepend"))
        return push_content(n, PREPEND, tn_json_get(node, "prepend"), "Prepend");
    if (tn_json_is_string(type, "Replace")) {
        tn_status status = push_content(n, REPLACE, tn_json_get(node, "content"), "Replace");
        if (status != TN_OK) return status;
        return tn_regex_from_json(tn_json_get(node, "pattern"), "normalizer Replace",
                                  &n->operations[n->count - 1].pattern);
    }
    tn_fail(TN_BAD_DATA, "normalizer type \"%s\" is not supported", tn_json_string(type, "(none)"));
    return tn_remedy("use a model whose tokenizer.json uses the normalizers of the tokenizers library 0.23");
}

tn_status tn_normalizer_load(const tn_json *node, tn_normalizer **normalizer) {
    tn_status status = TN_OK;
    tn_normalizer *made = NULL;
    *normalizer = NULL;
    if (tn_json_is_null(node)) return TN_OK;
    TN_TRY(tn_alloc(&made, 1, sizeof *made, "normalizer"));
    TN_TRY(load(made, node, 0));
    *normalizer = made;
    made = NULL;
done:
    tn_normalizer_free(made);
    return status;
}

void tn_normalizer_free(tn_normalizer *n) {
    if (!n) return;
    for (int64_t i = 0; i < n->count; i++) {
        tn_regex_free(n->operations[i].pattern);
        free(n->operations[i].content);
        tn_charsmap_free(n->operations[i].charsmap);
    }
    free(n->operations);
    free(n);
}

/* ---- Normal forms ---- */

/* May a stretch begin at `c`: nothing before it can combine with it or be put behind it? */
static bool begins_stretch(uint32_t c, bool compatibility) {
    if (c < 0x300) return true;
    if (c == 0x11A7) return true; /* a vowel that utf8proc takes for an empty final, and loses */
    if (c >= 0x1160 && c <= 0x11FF) return false; /* vowels and finals of Hangul syllables */
    /* Letters that decompose into such vowels, and the half-width voice marks. */
    if (compatibility && ((c >= 0x3130 && c <= 0x318F) || (c >= 0xFF9E && c <= 0xFFDF))) return false;
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return (category != UTF8PROC_CATEGORY_MN && category != UTF8PROC_CATEGORY_MC &&
            category != UTF8PROC_CATEGORY_ME) ||
           tn_char_is_younger(c, 9);
}

enum { HANGUL = 0xAC00, HANGUL_END = 0xD7A3 };

/* Does a character that stands alone in its stretch stay as it is? */
static bool is_stable(uint32_t c) {
    /* Hangul syllables come apart by rule, without an entry in the table. */
    return !(c >= HANGUL && c <= HANGUL_END) &&
           utf8proc_get_property((utf8proc_int32_t)c)->decomp_seqindex == UINT16_MAX;
}

/* Normalises one stretch in->text[start, end) into `out`. */
static void put_stretch(const tn_view *in, int64_t start, int64_t end, utf8proc_option_t form, tn_buffer *out) {
    utf8proc_int32_t small[64], *points = small;
    utf8proc_ssize_t room = 64, count;
    count = utf8proc_decompose((const utf8proc_uint8_t *)in->text + start, end - start, points, room, form);
    if (count > room) {
        room = count;
        points = malloc((size_t)room * sizeof *points);
        if (points)
            count =
                utf8proc_decompose((const utf8proc_uint8_t *)in->text + start, end - start, points, room, form);
    }
    if (points && count >= 0) count = utf8proc_normalize_utf32(points, count, form);
    if (!points || count < 0) {
        out->text.failed = true;
    } else {
        tn_range origin = tn_view_origin(in, start, end);
        for (utf8proc_ssize_t i = 0; i < count; i++) tn_buffer_put_code_point(out, (uint32_t)points[i], origin);
    }
    if (points != small) free(points);
}

/* Start of the character before `i` if the one at `i` may combine with it, else `i`. */
static int64_t base_before(const tn_view *in, int64_t i) {
    uint32_t c;
    int64_t before = tn_char_before(in->text, i);
    tn_char_at(in->text + before, &c);
    return tn_char_is_younger(c, 9) ? i : before;
}

static bool normal_form(const operation *op, const tn_view *in, tn_buffer *out) {
    bool compatibility = (op->form & UTF8PROC_COMPAT) != 0;
    bool nfc = (op->form & UTF8PROC_COMPOSE) && !compatibility;
    unsigned char limit = nfc ? 0xCC : 0x80; /* lead byte of the first character the form may touch */
    bool changed = false;
    int64_t done = 0; /* copied so far */
    for (int64_t i = 0; i < in->length;) {
        if ((unsigned char)in->text[i] < limit) { /* a trail byte is below 0xC0: harmless for either limit */
            i++;
            continue;
        }
        uint32_t first, c;
        int64_t start = i, end = i + tn_char_at(in->text + i, &first);
        if (tn_char_is_younger(first, 9)) {
            i = end;
            continue;
        }
        if (!begins_stretch(first, compatibility) && i > done) start = base_before(in, i);
        while (end < in->length) {
            int n = tn_char_at(in->text + end, &c);
            if (begins_stretch(c, compatibility)) break;
            end += n;
            first = HANGUL; /* no longer a character by itself */
        }
        if (start == i && is_stable(first)) {
            i = end;
            continue;
        }
        tn_buffer_copy(out, in, done, start);
        int64_t before = out->text.length;
        put_stretch(in, start, end, op->form, out);
        if (out->text.failed) return true;
        if (out->text.length - before == end - start &&
            memcmp(out->text.data + before, in->text + start, (size_t)(end - start)) == 0) {
            out->text.length = before; /* unchanged: keep the finer map of a copy */
            tn_buffer_copy(out, in, start, end);
        } else changed = true;
        done = i = end;
    }
    if (changed) tn_buffer_copy(out, in, done, in->length);
    return changed;
}

/* ---- Other operations: each returns whether `out` holds the result ---- */

static bool lowercase(const tn_view *in, tn_buffer *out) {
    for (int64_t i = 0; i < in->length;) {
        uint32_t c;
        int n = tn_char_at(in->text + i, &c);
        tn_range origin = tn_view_origin(in, i, i + n);
        if (c == 0x130) { /* the one letter whose lower case is two characters */
            tn_buffer_put_code_point(out, 'i', origin);
            c = 0x307;
        } else if (c < 0x80) {
            if (c >= 'A' && c <= 'Z') c |= 32;
        } else c = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
        tn_buffer_put_code_point(out, c, origin);
        i += n;
    }
    return true;
}

static bool strip(const operation *op, const tn_view *in, tn_buffer *out) {
    int64_t start = 0, end = in->length;
    uint32_t c;
    while (op->left && start < end) {
        int n = tn_char_at(in->text + start, &c);
        if (!tn_char_is(TN_CHAR_WHITE_SPACE, c, 0)) break;
        start += n;
    }
    while (op->right && start < end) {
        int64_t last = tn_char_before(in->text, end);
        tn_char_at(in->text + last, &c);
        if (!tn_char_is(TN_CHAR_WHITE_SPACE, c, 0)) break;
        end = last;
    }
    tn_buffer_copy(out, in, start, end);
    return true;
}

static bool drop_marks(const operation *op, const tn_view *in, tn_buffer *out) {
    for (int64_t i = 0; i < in->length;) {
        uint32_t c;
        int n = tn_char_at(in->text + i, &c);
        int category = tn_char_category(c, op->nonspacing_only ? 8 : 9);
        bool mark =
            category == UTF8PROC_CATEGORY_MN ||
            (!op->nonspacing_only && (category == UTF8PROC_CATEGORY_MC || category == UTF8PROC_CATEGORY_ME));
        if (!mark) tn_buffer_copy(out, in, i, i + n);
        i += n;
    }
    return true;
}

/* Inserted text is laid to the last character it stands for, as Hugging Face's alignments do. */
static tn_status replace(const operation *op, tn_work *work, const tn_view *in, tn_buffer *out, bool *changed) {
    tn_cursor cursor = {0};
    tn_range match;
    bool found;
    int64_t done = 0;
    *changed = false;
    if (in->length == 0) return TN_OK; /* nothing is replaced in nothing, not even by ^ */
    for (;;) {
        tn_status status = tn_regex_next(op->pattern, work, in->text, in->length, &cursor, &match, &found);
        if (status != TN_OK) return status;
        if (!found) break;
        *changed = true;
        tn_buffer_copy(out, in, done, match.start);
        int64_t from = match.end > 0 ? tn_char_before(in->text, match.end) : 0;
        tn_buffer_put(out, op->content, op->length, tn_view_origin(in, from, match.end));
        done = match.end;
    }
    if (*changed) tn_buffer_copy(out, in, done, in->length);
    return TN_OK;
}

static bool prepend(const operation *op, const tn_view *in, tn_buffer *out) {
    uint32_t c;
    if (in->length == 0) return false;
    tn_buffer_put(out, op->content, op->length, tn_view_origin(in, 0, tn_char_at(in->text, &c)));
    tn_buffer_copy(out, in, 0, in->length);
    return true;
}

static bool map_bytes(const tn_view *in, tn_buffer *out) {
    for (int64_t i = 0; i < in->length; i++)
        tn_buffer_put_code_point(out, tn_byte_to_char((unsigned char)in->text[i]),
                                 tn_view_origin(in, i, i + 1));
    return true;
}

/* BERT: control characters go, white space becomes a space. */
static bool clean_text(const tn_view *in, tn_buffer *out) {
    for (int64_t i = 0; i < in->length;) {
        uint32_t c;
        int n = tn_char_at(in->text + i, &c);
        bool other = tn_char_category(c, 8) >= UTF8PROC_CATEGORY_CC; /* unassigned ones stay */
        bool space = c == '\t' || c == '\n' || c == '\r' || (!other && tn_char_is(TN_CHAR_WHITE_SPACE, c, 0));
        if (space) tn_buffer_put(out, " ", 1, tn_view_origin(in, i, i + n));
        else if (c != 0 && c != 0xFFFD && !other) tn_buffer_copy(out, in, i, i + n);
        i += n;
    }
    return true;
}

/* Machine translation's clean-up: control characters go, unusual white space becomes a space. */
static bool nmt(const tn_view *in, tn_buffer *out) {
    for (int64_t i = 0; i < in->length;) {
        uint32_t c;
        int n = tn_char_at(in->text + i, &c);
        bool control =
            (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
        bool space = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                     (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF ||
                     c == 0xFFFD;
        if (space) tn_buffer_put(out, " ", 1, tn_view_origin(in, i, i + n));
        else if (!control) tn_buffer_copy(out, in, i, i + n);
        i += n;
    }
    return true;
}

static bool is_chinese(uint32_t c) {
    static const uint32_t blocks[][2] = {{0x4E00, 0x9FFF},   {0x3400, 0x4DBF},   {0x20000, 0x2A6DF},
                                         {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF},
                                         {0xF900, 0xFAFF},   {0x2F800, 0x2FA1F}};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        if (c >= blocks[i][0] && c <= blocks[i][1]) return true;
    return false;
}

static bool space_chinese(const tn_view *in, tn_buffer *out) {
    for (int64_t i = 0; i < in->length;) {
        uint32_t c;
        int n = tn_char_at(in->text + i, &c);
        tn_range origin = tn_view_origin(in, i, i + n);
        bool chinese = is_chinese(c);
        if (chinese) tn_buffer_put(out, " ", 1, origin);
        tn_buffer_copy(out, in, i, i + n);
        if (chinese) tn_buffer_put(out, " ", 1, origin);
        i += n;
    }
    return true;
}

static tn_status run_one(const operation *op, tn_work *work, const tn_view *in, tn_buffer *out, bool *changed) {
    tn_status status = TN_OK;
    switch (op->kind) {
        case NORMAL_FORM: *changed = normal_form(op, in, out); break;
        case LOWERCASE: *changed = lowercase(in, out); break;
        case STRIP: *changed = strip(op, in, out); break;
        case DROP_MARKS: *changed = drop_marks(op, in, out); break;
        case REPLACE: status = replace(op, work, in, out, changed); break;
        case PREPEND: *changed = prepend(op, in, out); break;
        case MAP_BYTES: *changed = map_bytes(in, out); break;
        case CLEAN_TEXT: *changed = clean_text(in, out); break;
        case SPACE_CHINESE: *changed = space_chinese(in, out); break;
        case NMT: *changed = nmt(in, out); break;
        case CHARSMAP: *changed = tn_charsmap_run(op->charsmap, in, out); break;
    }
    return status == TN_OK ? tn_str_check(&out->text, "normalised text") : status;
}

tn_status tn_normalizer_run(const tn_normalizer *normalizer, tn_work *work, const tn_view *in, tn_view *out) {
    *out = *in;
    int which = 0;
    for (int64_t i = 0; normalizer && i < normalizer->count; i++) {
        tn_buffer *to = &work->normal[which];
        bool changed = false;
        tn_buffer_clear(to, work->mapped);
        tn_status status = run_one(&normalizer->operations[i], work, out, to, &changed);
        if (status != TN_OK) return status;
        if (!changed) continue;
        *out = tn_buffer_view(to);
        which = 1 - which;
    }
    return TN_OK;
}
