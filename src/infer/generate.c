/* generate.c: prefill in chunks, then one token at a time. A picture counts for fewer rope positions than it
 * has tokens, so what is generated behind one stands at its place in the cache, shifted. */
#include "infer/generate.h"

#include <stdlib.h>

#include "base/hash.h"

tn_status tn_session_new(tn_pass *pass, int64_t vocab, int64_t capacity, int64_t chunk, tn_session *session) {
    *session = (tn_session){.pass = pass, .vocab = vocab, .capacity = capacity, .chunk = chunk};
    return tn_alloc(&session->logits, vocab, (int64_t)sizeof *session->logits, "logits");
}

void tn_session_free(tn_session *session) {
    tn_ids_free(&session->cached);
    free(session->pictures);
    free(session->logits);
    *session = (tn_session){0};
}

/* Runs a piece behind what is cached. */
static tn_status feed(tn_session *s, const tn_piece *piece) {
    tn_status status;
    TN_TRY(tn_pass_logits(s->pass, piece, s->logits));
    for (int64_t i = 0; i < piece->count; i++) TN_TRY(tn_ids_push(&s->cached, piece->ids[i]));
done:
    return status;
}

static tn_status feed_prompt(tn_session *s, const tn_batch *prompt) {
    tn_status status = TN_OK;
    while (s->cached.count < prompt->tokens) {
        const int64_t at = s->cached.count, left = prompt->tokens - at;
        TN_TRY(feed(s, &(tn_piece){.ids = prompt->ids + at,
                                   .count = left < s->chunk ? left : s->chunk,
                                   .past = at,
                                   .prompt = prompt}));
    }
done:
    return status;
}

/* How far rope's position of what comes behind the prompt is from the number of tokens before it. */
static int64_t shift_of(const tn_batch *prompt) {
    const int64_t last = prompt->tokens - 1;
    int32_t highest = prompt->axes[0][last];
    for (int axis = 1; axis < 3; axis++)
        if (prompt->axes[axis][last] > highest) highest = prompt->axes[axis][last];
    return highest - last;
}

/* ---- What is cached ------------------------------------------------------------------------------ */

static tn_cached_picture describe(const tn_batch *prompt, int64_t index) {
    const tn_batch_picture *p = &prompt->pictures[index];
    const int64_t values = prompt->patch_values,
                  end = index + 1 < prompt->picture_count ? p[1].patch : prompt->patches;
    return (tn_cached_picture){
        p->first, p->rows, p->columns,
        tn_hash64(prompt->pixels + p->patch * values, (end - p->patch) * values * (int64_t)sizeof(float))};
}

static bool is_same(tn_cached_picture a, tn_cached_picture b) {
    return a.first == b.first && a.rows == b.rows && a.columns == b.columns && a.hash == b.hash;
}

/* Keeps the cached beginning that the prompt shares; at least its last token is run again, for its logits. A
 * picture is kept whole or not at all: its tokens are one like the other, and its features are computed with
 * the first of them. */
static tn_status rewind_to(tn_session *s, const tn_batch *prompt) {
    int64_t same = 0, kept = 0;
    while (same < s->cached.count && same < prompt->tokens - 1 && s->cached.ids[same] == prompt->ids[same])
        same++;
    tn_status status = tn_grow(&s->pictures, &s->picture_capacity, prompt->picture_count,
                               (int64_t)sizeof *s->pictures, "pictures");
    if (status != TN_OK) return status;
    for (int64_t i = 0; i < prompt->picture_count; i++) {
        const tn_cached_picture wanted = describe(prompt, i);
        const bool here = kept == i && i < s->picture_count && is_same(s->pictures[i], wanted);
        if (here && wanted.first + wanted.rows * wanted.columns <= same) kept++;
        else if (wanted.first < same) same = wanted.first;
        s->pictures[i] = wanted;
    }
    s->picture_count = prompt->picture_count;
    s->cached.count = same;
    return TN_OK;
}

static bool is_stop(const tn_generation *how, int32_t token) {
    for (int64_t i = 0; i < how->stop_count; i++)
        if (how->stops[i] == token) return true;
    return false;
}

tn_status tn_session_generate(tn_session *s, const tn_batch *prompt, const tn_generation *how,
                              tn_token_function *on_token, void *user, tn_ids *out, bool *stopped) {
    tn_status status = TN_OK;
    *stopped = false;
    if (prompt->tokens == 0) {
        tn_fail(TN_USAGE, "the prompt is empty");
        return tn_remedy("a model without a token for the beginning of a text needs a word to go on from");
    }
    if (prompt->tokens > s->capacity) {
        tn_fail(TN_NO_FIT, "the prompt's %lld tokens exceed the context of %lld", (long long)prompt->tokens,
                (long long)s->capacity);
        return tn_remedy("shorten it (in chat, /reset makes room), or raise --max_length");
    }
    TN_TRY(rewind_to(s, prompt));
    TN_TRY(feed_prompt(s, prompt));
    for (int64_t n = 0; n < how->max_new_tokens; n++) {
        int32_t token;
        TN_TRY(tn_sample_token(&how->sampling, s->logits, s->vocab, s->cached.ids, s->cached.count, &token));
        TN_TRY(tn_ids_push(out, token));
        *stopped = is_stop(how, token);
        if (!*stopped && on_token && !on_token(user, token)) *stopped = true;
        if (*stopped || n + 1 == how->max_new_tokens || s->cached.count == s->capacity) break;
        TN_TRY(feed(
            s, &(tn_piece){.ids = &token, .count = 1, .past = s->cached.count, .shift = shift_of(prompt)}));
    }
done:
    return status;
}
