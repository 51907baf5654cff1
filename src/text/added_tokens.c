/* added_tokens.c: tokens found in text before anything else happens to it. Leftmost match, then the longest,
 * without overlaps; afterwards the flags single_word, lstrip and rstrip.
 *
 * The patterns lie sorted by their bytes, so "all patterns that begin with these bytes" is one stretch of the
 * array, and a search narrows that stretch byte by byte. Text bytes that begin no pattern cost one look-up.
 */
#include <stdlib.h>

#include "base/log.h"
#include "text/pipeline.h"

struct tn_pattern {
    const char *text;
    int64_t length;
    int64_t order; /* among equal patterns the first given counts */
    int32_t id;
};

/* ---- Loading ---- */

static int by_bytes(const void *a, const void *b) {
    const struct tn_pattern *x = a, *y = b;
    int64_t shorter = x->length < y->length ? x->length : y->length;
    int order = memcmp(x->text, y->text, (size_t)shorter);
    if (order != 0) return order;
    if (x->length != y->length) return x->length < y->length ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

static void sort_patterns(tn_finder *finder) {
    int64_t kept = 0;
    qsort(finder->patterns, (size_t)finder->count, sizeof *finder->patterns, by_bytes);
    for (int64_t i = 0; i < finder->count; i++) {
        const struct tn_pattern *p = &finder->patterns[i],
                                *last = kept > 0 ? &finder->patterns[kept - 1] : NULL;
        if (last && last->length == p->length && memcmp(last->text, p->text, (size_t)p->length) == 0) continue;
        finder->patterns[kept++] = *p;
    }
    finder->count = kept;
    int64_t at = 0;
    for (int byte = 0; byte < 256; byte++) {
        finder->first[byte] = at;
        while (at < kept && (unsigned char)finder->patterns[at].text[0] == byte) at++;
    }
    finder->first[256] = at;
}

static tn_status normalize_content(tn_added_token *token, const tn_normalizer *normalizer, tn_work *work,
                                   tn_arena *arena) {
    tn_view in = {token->content, token->length, NULL, 0}, out;
    tn_status status = tn_normalizer_run(normalizer, work, &in, &out);
    if (status != TN_OK) return status;
    token->shown = tn_arena_text(arena, out.text, out.length);
    token->shown_length = out.length;
    return token->shown ? TN_OK : tn_fail_memory(out.length, "added tokens");
}

static tn_status add_pattern(tn_finder *finder, tn_added_token *token, const tn_normalizer *normalizer,
                             tn_work *work, tn_arena *arena) {
    tn_status status = token->normalized ? normalize_content(token, normalizer, work, arena) : TN_OK;
    if (status != TN_OK || token->shown_length == 0) return status;
    finder->patterns[finder->count] =
        (struct tn_pattern){token->shown, token->shown_length, finder->count, token->id};
    finder->count++;
    return TN_OK;
}

static bool shows_special(const tn_added *added, const tn_added_token *token) {
    if (token->shown_length == token->length &&
        memcmp(token->shown, token->content, (size_t)token->length) == 0)
        return token->special;
    for (int64_t i = 0; i < added->count; i++) { /* a rare one, which the normalizer changed */
        const tn_added_token *other = &added->tokens[i];
        if (other->special && other->length == token->shown_length &&
            memcmp(other->content, token->shown, (size_t)other->length) == 0)
            return true;
    }
    return false;
}

/* Special tokens come first: where two patterns are equal, theirs counts. */
static tn_status build_finders(tn_added *added, const tn_normalizer *normalizer, tn_work *work,
                               tn_arena *arena) {
    tn_status status = TN_OK;
    TN_TRY(tn_alloc(&added->raw.patterns, added->count, sizeof *added->raw.patterns, "added tokens"));
    TN_TRY(tn_alloc(&added->normalized.patterns, added->count, sizeof *added->normalized.patterns,
                    "added tokens"));
    for (int special = 1; special >= 0; special--)
        for (int64_t i = 0; i < added->count; i++) {
            tn_added_token *token = &added->tokens[i];
            if (token->special == (special != 0))
                TN_TRY(add_pattern(token->normalized ? &added->normalized : &added->raw, token, normalizer,
                                   work, arena));
        }
    sort_patterns(&added->raw);
    sort_patterns(&added->normalized);
done:
    return status;
}

static bool flag(const tn_json *node, const char *key) {
    return tn_json_boolean(tn_json_get(node, key), false);
}

/* Content and flags; the id is not set yet. */
static tn_status load_token(const tn_json *node, tn_arena *arena, tn_added_token *token) {
    const tn_json *content = tn_json_get(node, "content");
    if (!content || content->type != TN_JSON_STRING)
        return tn_fail(TN_BAD_DATA, "added_tokens: an entry has no content");
    *token = (tn_added_token){
        .content = tn_arena_text(arena, content->string, content->count),
        .length = content->count,
        .special = flag(node, "special"),
        .single_word = flag(node, "single_word"),
        .lstrip = flag(node, "lstrip"),
        .rstrip = flag(node, "rstrip"),
        .normalized = flag(node, "normalized"),
    };
    token->shown = token->content;
    token->shown_length = token->length;
    return token->content ? TN_OK : tn_fail_memory(content->count, "added tokens");
}

/* Is this the first entry of its content? `seen` holds indices by hash, -1 where empty. */
static bool is_new(const tn_added *added, const tn_added_token *token, int32_t *seen, int64_t slots) {
    uint64_t mask = (uint64_t)(slots - 1), at = tn_hash_short(token->content, token->length) & mask;
    for (; seen[at] >= 0; at = (at + 1) & mask) {
        const tn_added_token *other = &added->tokens[seen[at]];
        if (other->length == token->length &&
            memcmp(other->content, token->content, (size_t)token->length) == 0)
            return false;
    }
    seen[at] = (int32_t)added->count;
    return true;
}

/* A token's id is the model's where that knows the string, else the next one: as in the tokenizers library,
 * which takes the order of the list and not the id of the entry. */
static tn_status load_tokens(const tn_json *list, int64_t entries, const tn_vocab *vocab, tn_arena *arena,
                             tn_added *added) {
    tn_status status = TN_OK;
    int64_t slots = 16, next = vocab->strings;
    int32_t *seen = NULL;
    while (slots < entries * 2) slots *= 2;
    TN_TRY(tn_alloc(&seen, slots, sizeof *seen, "added tokens"));
    memset(seen, 0xFF, (size_t)slots * sizeof *seen);
    for (int64_t i = 0; i < entries; i++) {
        tn_added_token *token = &added->tokens[added->count];
        TN_TRY(load_token(&list->items[i], arena, token));
        if (token->length == 0 || !is_new(added, token, seen, slots)) continue;
        token->id = tn_vocab_find(vocab, token->content, token->length);
        if (token->id < 0) token->id = (int32_t)next++;
        int64_t given = tn_json_integer(tn_json_get(&list->items[i], "id"), token->id);
        if (given != token->id)
            tn_warn("added token \"%.60s\" has id %d, not the file's %lld (ids follow the order of the list)",
                    token->content, token->id, (long long)given);
        if (token->id >= added->ids) added->ids = token->id + 1;
        added->count++;
    }
done:
    free(seen);
    return status;
}

tn_status tn_added_load(const tn_json *list, const tn_vocab *vocab, const tn_normalizer *normalizer,
                        tn_work *work, tn_arena *arena, tn_added *added) {
    tn_status status = TN_OK;
    int64_t entries = list && list->type == TN_JSON_ARRAY ? list->count : 0;
    TN_TRY(tn_alloc(&added->tokens, entries, sizeof *added->tokens, "added tokens"));
    added->ids = vocab->count;
    TN_TRY(load_tokens(list, entries, vocab, arena, added));
    TN_TRY(tn_alloc(&added->by_id, added->ids, sizeof *added->by_id, "added tokens"));
    memset(added->by_id, 0xFF, (size_t)added->ids * sizeof *added->by_id);
    for (int64_t i = 0; i < added->count; i++) added->by_id[added->tokens[i].id] = (int32_t)i;
    TN_TRY(build_finders(added, normalizer, work, arena));
    for (int64_t i = 0; i < added->count; i++)
        added->tokens[i].skipped = shows_special(added, &added->tokens[i]);
done:
    return status;
}

void tn_added_free(tn_added *added) {
    free(added->tokens);
    free(added->by_id);
    free(added->raw.patterns);
    free(added->normalized.patterns);
    *added = (tn_added){0};
}

const tn_added_token *tn_added_by_id(const tn_added *added, int32_t id) {
    if (id < 0 || id >= added->ids || added->by_id[id] < 0) return NULL;
    return &added->tokens[added->by_id[id]];
}

/* ---- Searching ---- */

/* First pattern of [low, high) whose byte at `depth` is at least `byte`; all share the bytes before. */
static int64_t lower_bound(const tn_finder *finder, int64_t low, int64_t high, int64_t depth, int byte) {
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        const struct tn_pattern *p = &finder->patterns[middle];
        int there = p->length > depth ? (unsigned char)p->text[depth] : -1;
        if (there < byte) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* Longest pattern at the start of `text`; NULL: none. */
static const struct tn_pattern *longest(const tn_finder *finder, const char *text, int64_t length) {
    const struct tn_pattern *best = NULL;
    int64_t low = finder->first[(unsigned char)text[0]], high = finder->first[(unsigned char)text[0] + 1];
    for (int64_t depth = 1; low < high; depth++) {
        if (finder->patterns[low].length == depth) best = &finder->patterns[low++];
        if (depth >= length || low >= high) break;
        int byte = (unsigned char)text[depth];
        low = lower_bound(finder, low, high, depth, byte);
        high = lower_bound(finder, low, high, depth, byte + 1);
    }
    return best;
}

/* Is there a word character right before or right behind [start, end)? */
static bool touches_word(const tn_view *view, int64_t start, int64_t end) {
    uint32_t c;
    if (start > 0) {
        tn_char_at(view->text + tn_char_before(view->text, start), &c);
        if (tn_char_is_word(c)) return true;
    }
    if (end >= view->length) return false;
    tn_char_at(view->text + end, &c);
    return tn_char_is_word(c);
}

static int64_t before_spaces(const tn_view *view, int64_t start) {
    uint32_t c;
    while (start > 0) {
        int64_t previous = tn_char_before(view->text, start);
        tn_char_at(view->text + previous, &c);
        if (!tn_char_is(TN_CHAR_WHITE_SPACE, c, 0)) break;
        start = previous;
    }
    return start;
}

static int64_t behind_spaces(const tn_view *view, int64_t end) {
    uint32_t c;
    while (end < view->length) {
        int n = tn_char_at(view->text + end, &c);
        if (!tn_char_is(TN_CHAR_WHITE_SPACE, c, 0)) break;
        end += n;
    }
    return end;
}

const tn_added_token *tn_added_next(const tn_added *added, const tn_finder *finder, const tn_view *view,
                                    tn_added_cursor *cursor, tn_range *range) {
    while (finder->count > 0 && cursor->from < view->length) {
        unsigned char byte = (unsigned char)view->text[cursor->from];
        const struct tn_pattern *found = NULL;
        if (finder->first[byte] < finder->first[byte + 1])
            found = longest(finder, view->text + cursor->from, view->length - cursor->from);
        if (!found) {
            cursor->from++;
            continue;
        }
        int64_t start = cursor->from, end = start + found->length;
        cursor->from = end;
        const tn_added_token *token = tn_added_by_id(added, found->id);
        if (token->single_word && touches_word(view, start, end)) continue;
        if (token->lstrip) {
            start = before_spaces(view, start);
            if (start < cursor->done) start = cursor->done;
        }
        if (token->rstrip) end = behind_spaces(view, end);
        cursor->done = end;
        if (start >= end) continue; /* white space that the token before absorbed */
        *range = (tn_range){start, end};
        return token;
    }
    return NULL;
}
