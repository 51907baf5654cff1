/* generate.c: prefill in chunks, then one token at a time. */
#include "infer/generate.h"

#include <stdlib.h>

tn_status tn_session_new(tn_pass *pass, int64_t vocab, int64_t capacity, int64_t chunk, tn_session *session) {
    *session = (tn_session){.pass = pass, .vocab = vocab, .capacity = capacity, .chunk = chunk};
    return tn_alloc(&session->logits, vocab, (int64_t)sizeof *session->logits, "logits");
}

void tn_session_free(tn_session *session) {
    tn_ids_free(&session->cached);
    free(session->logits);
    *session = (tn_session){0};
}

/* Runs tokens behind what is cached. */
static tn_status feed(tn_session *s, const int32_t *ids, int64_t count) {
    tn_status status = TN_OK;
    for (int64_t at = 0; at < count; at += s->chunk) {
        int64_t n = count - at < s->chunk ? count - at : s->chunk;
        TN_TRY(tn_pass_logits(s->pass, ids + at, n, s->cached.count, s->logits));
        for (int64_t i = 0; i < n; i++) TN_TRY(tn_ids_push(&s->cached, ids[at + i]));
    }
done:
    return status;
}

/* Keeps the cached beginning that the prompt shares; at least its last token is run again, for its logits. */
static void rewind_to(tn_session *s, const tn_ids *prompt) {
    int64_t same = 0;
    while (same < s->cached.count && same < prompt->count - 1 && s->cached.ids[same] == prompt->ids[same])
        same++;
    s->cached.count = same;
}

static bool is_stop(const tn_generation *how, int32_t token) {
    for (int64_t i = 0; i < how->stop_count; i++)
        if (how->stops[i] == token) return true;
    return false;
}

tn_status tn_session_generate(tn_session *s, const tn_ids *prompt, const tn_generation *how,
                              tn_token_function *on_token, void *user, tn_ids *out, bool *stopped) {
    tn_status status = TN_OK;
    *stopped = false;
    if (prompt->count == 0) {
        tn_fail(TN_USAGE, "the prompt is empty");
        return tn_remedy("a model without a token for the beginning of a text needs a word to go on from");
    }
    if (prompt->count > s->capacity) {
        tn_fail(TN_NO_FIT, "the prompt's %lld tokens exceed the context of %lld", (long long)prompt->count,
                (long long)s->capacity);
        return tn_remedy("shorten it (in chat, /reset makes room), or raise --max_length");
    }
    rewind_to(s, prompt);
    TN_TRY(feed(s, prompt->ids + s->cached.count, prompt->count - s->cached.count));
    for (int64_t n = 0; n < how->max_new_tokens; n++) {
        int32_t token;
        TN_TRY(tn_sample_token(&how->sampling, s->logits, s->vocab, s->cached.ids, s->cached.count, &token));
        TN_TRY(tn_ids_push(out, token));
        *stopped = is_stop(how, token);
        if (!*stopped && on_token && !on_token(user, token)) *stopped = true;
        if (*stopped || n + 1 == how->max_new_tokens || s->cached.count == s->capacity) break;
        TN_TRY(feed(s, &token, 1));
    }
done:
    return status;
}
