/* bpe.c: byte-pair encoding of one pre-token. Start symbols are bytes (raw) or characters; then the
 * pair of lowest rank is merged, the leftmost of equals, until none is left.
 *
 * Three ways to the same ids: a cache of whole pre-tokens; for short ones a scan over an array of ranks;
 * for long ones a heap over a linked list (n log n, since a segment may be a whole document). Text is
 * first cut where no merge can reach across (tn_bpe.neighbours).
 */
#include "text/bpe.h"

#include <stdlib.h>

#include "text/cache.h"

/* One symbol of the word being merged; `rank` and `merged` describe the pair with the next one. */
typedef struct tn_symbol {
    int32_t id, length, previous, next;
    int32_t rank, merged; /* rank NONE: no merge */
} tn_symbol;

enum { NONE = INT32_MAX, SHORT = 48 /* symbols; below this a scan beats the heap */ };

static void set_pair(const tn_bpe *bpe, tn_symbol *left, const tn_symbol *right) {
    TN_KNOWN(left);
    const tn_bpe_merge *merge = right ? tn_merge_find(bpe, left->id, right->id) : NULL;
    left->rank = merge ? merge->rank : NONE;
    left->merged = merge ? merge->id : -1;
}

/* ---- Start symbols ---- */

typedef struct starter {
    tn_work *work;
    int64_t count;
    int32_t unk; /* length of the unknown stretch not yet written, 0: none */
} starter;

static void add_symbol(starter *s, int32_t id, int64_t length) {
    s->work->symbols[s->count++] = (tn_symbol){.id = id, .length = (int32_t)length};
}

static void flush_unknown(starter *s, const tn_bpe *bpe) {
    if (s->unk > 0) add_symbol(s, bpe->unk, s->unk);
    s->unk = 0;
}

static void add_unknown(starter *s, const tn_bpe *bpe, const char *text, int length, int covered) {
    bool all = bpe->byte_fallback;
    for (int i = 0; i < length && all; i++) all = bpe->bytes[(unsigned char)text[i]] >= 0;
    if (all) { /* an unknown stretch before it stays open, as in the original */
        for (int i = 0; i < length; i++) add_symbol(s, bpe->bytes[(unsigned char)text[i]], i < covered ? 1 : 0);
        return;
    }
    if (bpe->unk < 0) return;
    if (!bpe->fuse_unk) flush_unknown(s, bpe);
    s->unk += covered;
}

/* One character with the model's prefix and suffix around it. */
static tn_status add_decorated(starter *s, const tn_bpe *bpe, const char *text, int n, bool first, bool last) {
    tn_str *word = &s->work->word;
    tn_str_clear(word);
    if (!first) tn_str_puts(word, bpe->prefix);
    tn_str_add(word, text, n);
    if (last) tn_str_puts(word, bpe->suffix);
    if (word->failed) return tn_str_check(word, "word");
    int32_t id = tn_vocab_find(bpe->vocab, word->data, word->length);
    if (id >= 0) {
        flush_unknown(s, bpe);
        add_symbol(s, id, n);
        return TN_OK;
    }
    int64_t room = s->count + word->length + 1; /* the decoration falls back to bytes too */
    if (room > INT32_MAX) return tn_fail(TN_BAD_DATA, "BPE affixes are too long");
    tn_status status =
        tn_grow(&s->work->symbols, &s->work->symbol_capacity, room * 2, sizeof *s->work->symbols, "symbols");
    if (status == TN_OK) add_unknown(s, bpe, word->data, (int)word->length, n);
    return status;
}

static tn_status start_symbols(const tn_bpe *bpe, tn_work *work, const char *text, int64_t length,
                               int64_t *count) {
    starter s = {.work = work};
    tn_status status =
        tn_grow(&work->symbols, &work->symbol_capacity, length + 1, sizeof *work->symbols, "symbols");
    bool plain = !bpe->prefix[0] && !bpe->suffix[0];
    for (int64_t i = 0, n; i < length && status == TN_OK; i += n) {
        uint32_t c;
        n = tn_char_at(text + i, &c);
        if (!plain) {
            status = tn_grow(&work->symbols, &work->symbol_capacity, s.count + 2 + (length - i),
                             sizeof *work->symbols, "symbols");
            if (status == TN_OK) status = add_decorated(&s, bpe, text + i, (int)n, i == 0, i + n == length);
            continue;
        }
        int32_t id = tn_vocab_find(bpe->vocab, text + i, n);
        if (id < 0) {
            add_unknown(&s, bpe, text + i, (int)n, (int)n);
            continue;
        }
        flush_unknown(&s, bpe);
        add_symbol(&s, id, n);
    }
    if (status == TN_OK) flush_unknown(&s, bpe);
    *count = s.count;
    return status;
}

static tn_status start_bytes(const tn_bpe *bpe, tn_work *work, const char *text, int64_t length) {
    tn_status status =
        tn_grow(&work->symbols, &work->symbol_capacity, length + 1, sizeof *work->symbols, "symbols");
    for (int64_t i = 0; i < length && status == TN_OK; i++)
        work->symbols[i] = (tn_symbol){.id = bpe->bytes[(unsigned char)text[i]], .length = 1};
    return status;
}

/* ---- Merging ---- */

static int64_t merge_short(const tn_bpe *bpe, tn_symbol *symbols, int64_t count) {
    for (int64_t i = 0; i < count; i++) set_pair(bpe, &symbols[i], i + 1 < count ? &symbols[i + 1] : NULL);
    for (;;) {
        int64_t best = 0;
        for (int64_t i = 1; i < count; i++)
            if (symbols[i].rank < symbols[best].rank) best = i;
        if (count == 0 || symbols[best].rank == NONE) return count;
        symbols[best].id = symbols[best].merged;
        symbols[best].length += symbols[best + 1].length;
        count--;
        memmove(symbols + best + 1, symbols + best + 2, (size_t)(count - best - 1) * sizeof *symbols);
        set_pair(bpe, &symbols[best], best + 1 < count ? &symbols[best + 1] : NULL);
        if (best > 0) set_pair(bpe, &symbols[best - 1], &symbols[best]);
    }
}

/* A binary heap of rank << 32 | position, the smallest on top. */
static void sift_down(uint64_t *heap, int64_t count, int64_t at) {
    uint64_t value = heap[at];
    for (int64_t child; (child = at * 2 + 1) < count; at = child) {
        if (child + 1 < count && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= value) break;
        heap[at] = heap[child];
    }
    heap[at] = value;
}

static void heap_push(uint64_t *heap, int64_t *count, const tn_symbol *symbols, int32_t position) {
    if (position < 0 || symbols[position].rank == NONE) return;
    uint64_t value = (uint64_t)(uint32_t)symbols[position].rank << 32 | (uint32_t)position;
    int64_t at = (*count)++;
    for (; at > 0 && heap[(at - 1) / 2] > value; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
    heap[at] = value;
}

/* A heap entry is stale where its rank is no longer the pair's. Returns the count of symbols, packed. */
static tn_status merge_long(const tn_bpe *bpe, tn_work *work, int64_t *count) {
    tn_symbol *symbols = work->symbols;
    int64_t n = *count, queued = 0;
    /* Every merge takes one symbol and pushes two entries at most. */
    tn_status status = tn_grow(&work->heap, &work->heap_capacity, n * 3, sizeof *work->heap, "merge queue");
    if (status != TN_OK) return status;
    for (int64_t i = 0; i < n; i++) {
        symbols[i].previous = (int32_t)(i - 1);
        symbols[i].next = i + 1 < n ? (int32_t)(i + 1) : -1;
        set_pair(bpe, &symbols[i], i + 1 < n ? &symbols[i + 1] : NULL);
        if (symbols[i].rank != NONE)
            work->heap[queued++] = (uint64_t)(uint32_t)symbols[i].rank << 32 | (uint64_t)i;
    }
    for (int64_t i = queued / 2 - 1; i >= 0; i--) sift_down(work->heap, queued, i);
    while (queued > 0) {
        uint64_t top = work->heap[0];
        work->heap[0] = work->heap[--queued];
        if (queued > 0) sift_down(work->heap, queued, 0);
        int32_t at = (int32_t)(top & 0xFFFFFFFFu);
        tn_symbol *left = &symbols[at];
        if (left->id < 0 || left->rank != (int32_t)(top >> 32)) continue;
        tn_symbol *right = &symbols[left->next];
        left->id = left->merged;
        left->length += right->length;
        left->next = right->next;
        right->id = -1;
        if (left->next >= 0) symbols[left->next].previous = at;
        set_pair(bpe, left, left->next >= 0 ? &symbols[left->next] : NULL);
        if (left->previous >= 0) set_pair(bpe, &symbols[left->previous], left);
        heap_push(work->heap, &queued, symbols, left->previous);
        heap_push(work->heap, &queued, symbols, at);
    }
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++)
        if (symbols[i].id >= 0) symbols[kept++] = symbols[i];
    *count = kept;
    return TN_OK;
}

/* ---- Whole pre-tokens ---- */

static tn_status encode_new(const tn_bpe *bpe, tn_work *work, const char *text, int64_t length,
                            tn_tokens *out) {
    tn_status status = TN_OK;
    int64_t count = length;
    if (bpe->ignore_merges) {
        int32_t id = tn_vocab_find(bpe->vocab, text, length);
        if (id >= 0) return tn_tokens_push(out, id, length);
    }
    if (bpe->raw) TN_TRY(start_bytes(bpe, work, text, length));
    else TN_TRY(start_symbols(bpe, work, text, length, &count));
    if (count <= SHORT) count = merge_short(bpe, work->symbols, count);
    else TN_TRY(merge_long(bpe, work, &count));
    for (int64_t i = 0; i < count; i++)
        TN_TRY(tn_tokens_push(out, work->symbols[i].id, work->symbols[i].length));
done:
    return status;
}

static tn_status encode_cached(const tn_bpe *bpe, tn_work *work, const char *text, int64_t length,
                               tn_tokens *out) {
    if (length > TN_CACHE_LONGEST) return encode_new(bpe, work, text, length, out);
    tn_cache_place place;
    tn_status status = tn_cache_find(work->cache, text, length, &place, out);
    if (status != TN_OK || place.found) return status;
    int64_t before = out->count;
    status = encode_new(bpe, work, text, length, out);
    if (status == TN_OK && out->count > before)
        tn_cache_put(work->cache, &place, text, length, out->tokens + before, out->count - before);
    return status;
}

static bool may_merge_across(const tn_bpe *bpe, uint32_t left, uint32_t right) {
    if (left < 128 && right < 128) return bpe->ascii_neighbours[(left << 7 | right) >> 3] >> (right & 7) & 1;
    uint64_t pair = tn_neighbour_pair(left, right);
    return bpe->neighbours[tn_neighbour_slot(bpe->neighbours, bpe->neighbour_slots, pair)] != 0;
}

tn_status tn_bpe_encode(const tn_bpe *bpe, tn_work *work, const char *text, int64_t length, tn_tokens *out) {
    if (length >= INT32_MAX / 4)
        return tn_fail(TN_BAD_DATA, "a stretch of %lld bytes without a place to cut is too long to tokenize",
                       (long long)length);
    if (!bpe->neighbours || (bpe->ignore_merges && tn_vocab_find(bpe->vocab, text, length) >= 0))
        return encode_cached(bpe, work, text, length, out);
    int64_t start = 0;
    uint32_t before = 0, c;
    for (int64_t i = 0; i < length; before = c) {
        int n = tn_char_at(text + i, &c);
        if (i > start && !may_merge_across(bpe, before, c)) {
            tn_status status = encode_cached(bpe, work, text + start, i - start, out);
            if (status != TN_OK) return status;
            start = i;
        }
        i += n;
    }
    return start < length ? encode_cached(bpe, work, text + start, length - start, out) : TN_OK;
}
