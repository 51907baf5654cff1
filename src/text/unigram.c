/* unigram.c: the Unigram model: of all ways to cut a text into pieces, the one with the largest sum of scores
 * (Viterbi over byte positions). A character without a piece of its own costs the lowest score minus 10;
 * unknown characters that touch become one token.
 */
#include <float.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/pipeline.h"

static const double unknown_penalty = 10.0;

/* Best way to reach a byte position. */
typedef struct node {
    double score;
    int64_t start; /* of the last piece; -1: not reached */
    int32_t id;
} node;

tn_status tn_unigram_load(const tn_json *model, tn_vocab *vocab, tn_arena *arena, tn_unigram *unigram) {
    tn_status status = TN_OK;
    const tn_json *list = tn_json_get(model, "vocab");
    int64_t count = list && list->type == TN_JSON_ARRAY ? list->count : 0;
    TN_TRY(tn_alloc(&unigram->scores, count, sizeof *unigram->scores, "scores"));
    unigram->lowest = DBL_MAX;
    for (int64_t id = 0; id < count; id++) {
        const tn_json *piece = tn_json_at(&list->items[id], 0), *score = tn_json_at(&list->items[id], 1);
        if (!piece || piece->type != TN_JSON_STRING || !score)
            TN_THROW(TN_BAD_DATA, "vocabulary entry %lld is not [piece, score]", (long long)id);
        const char *text = tn_arena_text(arena, piece->string, piece->count);
        if (!text) TN_THROW(TN_FAILED, "out of memory: vocabulary");
        TN_TRY(tn_vocab_set(vocab, id, text, piece->count));
        unigram->scores[id] = tn_json_number(score, 0);
        if (unigram->scores[id] < unigram->lowest) unigram->lowest = unigram->scores[id];
        if (piece->count > unigram->longest) unigram->longest = piece->count;
    }
    TN_TRY(tn_vocab_index(vocab));
    int64_t unk = tn_json_integer(tn_json_get(model, "unk_id"), -1);
    if (unk >= count) TN_THROW(TN_BAD_DATA, "unk_id %lld is outside the vocabulary", (long long)unk);
    unigram->unk = (int32_t)unk;
    unigram->byte_fallback = tn_json_boolean(tn_json_get(model, "byte_fallback"), false);
    for (int b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        unigram->bytes[b] = tn_vocab_find(vocab, name, 6);
    }
done:
    return status;
}

void tn_unigram_free(tn_unigram *unigram) { free(unigram->scores); }

static void improve(node *to, double score, int64_t start, int32_t id) {
    if (to->start < 0 || score > to->score) *to = (node){score, start, id};
}

static tn_status find_path(const tn_unigram *unigram, const tn_vocab *vocab, const char *text, int64_t length,
                           node *path) {
    for (int64_t i = 0; i <= length; i++) path[i] = (node){0, -1, 0};
    for (int64_t start = 0, n; start < length; start += n) {
        uint32_t c;
        bool single = false;
        n = tn_char_at(text + start, &c);
        for (int64_t size = 1; size <= unigram->longest && start + size <= length; size++) {
            int32_t id = tn_vocab_find(vocab, text + start, size);
            if (id < 0) continue;
            improve(&path[start + size], path[start].score + unigram->scores[id], start, id);
            single = single || size == n;
        }
        if (single) continue;
        if (unigram->unk < 0)
            return tn_fail(TN_BAD_DATA, "a character has no piece and the vocabulary no unk_id");
        improve(&path[start + n], path[start].score + unigram->lowest - unknown_penalty, start, unigram->unk);
    }
    return TN_OK;
}

/* One piece of the path; an unknown one may still be a known string, or fall back to bytes. */
static tn_status push_piece(const tn_unigram *unigram, const tn_vocab *vocab, const char *text, int64_t length,
                            tn_tokens *out) {
    int32_t id = tn_vocab_find(vocab, text, length);
    bool bytes = id < 0 && unigram->byte_fallback;
    for (int64_t i = 0; i < length && bytes; i++) bytes = unigram->bytes[(unsigned char)text[i]] >= 0;
    if (!bytes) return tn_tokens_push(out, id >= 0 ? id : unigram->unk, length);
    tn_status status = TN_OK;
    for (int64_t i = 0; i < length && status == TN_OK; i++)
        status = tn_tokens_push(out, unigram->bytes[(unsigned char)text[i]], 1);
    return status;
}

tn_status tn_unigram_encode(const tn_unigram *unigram, const tn_vocab *vocab, const char *text, int64_t length,
                            tn_tokens *out) {
    tn_status status = TN_OK;
    node *path = NULL;
    TN_TRY(tn_alloc(&path, length + 1, sizeof *path, "best path"));
    TN_TRY(find_path(unigram, vocab, text, length, path));
    for (int64_t at = length; at > 0;) { /* backwards: note at each start where its piece ends */
        int64_t start = path[at].start;
        bool unknown = unigram->unk >= 0 && path[at].id == unigram->unk;
        while (unknown && start > 0 && path[start].id == unigram->unk) start = path[start].start;
        path[start].score = (double)at;
        at = start;
    }
    for (int64_t at = 0; at < length;) {
        int64_t end = (int64_t)path[at].score;
        TN_TRY(push_piece(unigram, vocab, text + at, end - at, out));
        at = end;
    }
done:
    free(path);
    return status;
}
