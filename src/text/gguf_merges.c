/* gguf_merges.c: merges from SentencePiece scores. The highest score merges first; between equal ones the
 * longer left part, then the longer right part, then the order of the ids, as transformers' converter has it.
 * User-defined tokens (runs of spaces and newlines) come before all others: SentencePiece cuts them out
 * first, and their score in the file says nothing.
 */
#include "text/gguf_merges.h"

#include <float.h>
#include <stdlib.h>

typedef struct merge {
    double score;
    int32_t left_characters, right_characters;
    int32_t token, left, right;
} merge;

typedef struct maker {
    tn_vocab vocab;
    tn_arena arena;
    merge *merges;
    int64_t count, capacity;
} maker;

/* Descending by score and lengths, then ascending by ids. */
static int by_rank(const void *a, const void *b) {
    const merge *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    if (x->left_characters != y->left_characters) return x->left_characters > y->left_characters ? -1 : 1;
    if (x->right_characters != y->right_characters) return x->right_characters > y->right_characters ? -1 : 1;
    if (x->token != y->token) return x->token < y->token ? -1 : 1;
    if (x->left != y->left) return x->left < y->left ? -1 : 1;
    return x->right < y->right ? -1 : x->right > y->right;
}

static bool takes_part(const gguf_keys *keys, int64_t id) {
    return keys->types[id] == GGUF_NORMAL || keys->types[id] == GGUF_USER_DEFINED;
}

static tn_status fill_vocab(gguf_keys *keys, const char *(*content_of)(gguf_keys *, int64_t, int64_t *),
                            maker *m) {
    for (int64_t id = 0; id < keys->count; id++) {
        int64_t length;
        if (!takes_part(keys, id)) continue;
        const char *content = content_of(keys, id, &length);
        const char *copy = tn_arena_text(&m->arena, content, length);
        if (!copy) return tn_fail_memory(length, "vocabulary");
        tn_status status = tn_vocab_set(&m->vocab, id, copy, length);
        if (status != TN_OK) return status;
    }
    return tn_vocab_index(&m->vocab);
}

static int32_t characters(const char *text, int64_t length) {
    int32_t count = 0;
    for (int64_t i = 0; i < length; i++) count += ((unsigned char)text[i] & 0xC0) != 0x80;
    return count;
}

static tn_status split_token(const gguf_keys *keys, maker *m, int32_t id) {
    const tn_entry *entry = &m->vocab.entries[id];
    double score =
        keys->types[id] == GGUF_USER_DEFINED ? DBL_MAX : tn_json_number(tn_json_at(keys->scores, id), 0);
    for (int64_t at = 1; at < entry->length; at++) {
        if (((unsigned char)entry->text[at] & 0xC0) == 0x80) continue;
        int32_t left = tn_vocab_find(&m->vocab, entry->text, at);
        int32_t right = left < 0 ? -1 : tn_vocab_find(&m->vocab, entry->text + at, entry->length - at);
        if (right < 0) continue;
        tn_status status = tn_grow(&m->merges, &m->capacity, m->count + 1, sizeof *m->merges, "merges");
        if (status != TN_OK) return status;
        m->merges[m->count++] = (merge){
            score, characters(entry->text, at), characters(entry->text + at, entry->length - at), id, left,
            right};
    }
    return TN_OK;
}

tn_status tn_gguf_put_merges(gguf_keys *keys, const char *(*content_of)(gguf_keys *, int64_t, int64_t *),
                             tn_json_writer *w) {
    tn_status status = TN_OK;
    maker m = {0};
    TN_TRY(fill_vocab(keys, content_of, &m));
    for (int64_t id = 0; id < m.vocab.count; id++)
        if (m.vocab.entries[id].text) TN_TRY(split_token(keys, &m, (int32_t)id));
    if (m.count > 0) qsort(m.merges, (size_t)m.count, sizeof *m.merges, by_rank);
    tn_json_key(w, "merges");
    tn_json_begin(w, '[');
    for (int64_t i = 0; i < m.count; i++) {
        const tn_entry *parts[2] = {&m.vocab.entries[m.merges[i].left], &m.vocab.entries[m.merges[i].right]};
        tn_json_begin(w, '[');
        for (int p = 0; p < 2; p++) tn_json_put_string(w, parts[p]->text, parts[p]->length);
        tn_json_end(w, ']');
    }
    tn_json_end(w, ']');
done:
    tn_vocab_free(&m.vocab);
    tn_arena_free(&m.arena);
    free(m.merges);
    return status;
}
