/* sampler.c: see sampler.h. */
#include "infer/sampler.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/rng.h"

typedef struct candidate {
    float logit;
    int32_t token;
} candidate;

static int by_logit(const void *x, const void *y) {
    const candidate *a = x, *b = y;
    if (a->logit != b->logit) return a->logit > b->logit ? -1 : 1;
    return a->token < b->token ? -1 : 1;
}

static tn_status penalise(double penalty, float *logits, int64_t vocab, const int32_t *context,
                          int64_t length) {
    if (penalty == 1.0) return TN_OK;
    bool *seen;
    tn_status status = tn_alloc(&seen, vocab, 1, "seen tokens");
    if (status != TN_OK) return status;
    for (int64_t i = 0; i < length; i++) {
        int32_t t = context[i];
        if (t < 0 || t >= vocab || seen[t]) continue; /* once, however often it stands there */
        seen[t] = true;
        logits[t] = logits[t] > 0 ? (float)(logits[t] / penalty) : (float)(logits[t] * penalty);
    }
    free(seen);
    return TN_OK;
}

static int32_t greatest(const float *logits, int64_t vocab) {
    int32_t best = -1;
    for (int64_t i = 0; i < vocab; i++)
        if (!isnan(logits[i]) && (best < 0 || logits[i] > logits[best])) best = (int32_t)i;
    return best;
}

/* The probability of candidate `i` as a part of the likeliest one's. */
static double weight(const tn_sampling *s, const candidate *list, int64_t i) {
    return exp((double)(list[i].logit - list[0].logit) / s->temperature);
}

/* Keeps the first of the sorted candidates, as top_p and min_p say, and walks them to the point where the
 * cumulative probability passes `uniform`. min_p is Transformers': after the temperature, beside top_p. */
static int32_t draw(const candidate *list, int64_t count, const tn_sampling *s, double uniform) {
    double total = 0, kept = 0, running = 0;
    int64_t n = 0;
    for (int64_t i = 0; i < count; i++) total += weight(s, list, i);
    while (n < count && (n == 0 || (kept < s->top_p * total && weight(s, list, n) >= s->min_p)))
        kept += weight(s, list, n++);
    for (int64_t i = 0; i < n; i++) {
        running += weight(s, list, i);
        if (running > uniform * kept) return list[i].token;
    }
    return list[n - 1].token;
}

tn_status tn_sample_token(const tn_sampling *s, float *logits, int64_t vocab, const int32_t *context,
                          int64_t length, int32_t *token) {
    candidate *list = NULL;
    int64_t count = 0;
    tn_status status;
    TN_TRY(penalise(s->repetition_penalty, logits, vocab, context, length));
    *token = greatest(logits, vocab);
    if (*token < 0 || !isfinite(logits[*token]))
        TN_THROW(TN_NUMERIC, "the model's logits are not finite at position %lld", (long long)length);
    if (s->temperature <= 0) goto done;
    TN_TRY(tn_alloc(&list, vocab, (int64_t)sizeof *list, "candidates"));
    for (int64_t i = 0; i < vocab; i++)
        if (isfinite(logits[i])) list[count++] = (candidate){logits[i], (int32_t)i};
    qsort(list, (size_t)count, sizeof *list, by_logit);
    if (s->top_k > 0 && s->top_k < count) count = s->top_k;
    double uniform = (double)tn_random_uniform(s->seed, TN_STREAM(TN_PURPOSE_SAMPLE, length, 0), 0);
    *token = draw(list, count, s, uniform);
done:
    free(list);
    return status;
}
