/* sampler.h: choosing the next token from logits: repetition penalty, temperature, top-k, top-p, min-p, then
 * one random number that is a function of (seed, position), so the same seed gives the same text. Temperature 0
 * is greedy.
 */
#ifndef TN_INFER_SAMPLER_H
#define TN_INFER_SAMPLER_H

#include "base/status.h"

typedef struct tn_sampling {
    double temperature, top_p, repetition_penalty; /* 1 = off for the last two */
    double min_p;  /* a token needs this part of the likeliest one's probability; 0 = off */
    int64_t top_k; /* 0 = off */
    uint64_t seed;
} tn_sampling;

/* Index of the chosen token. `logits` [vocab] is changed. `context` are the tokens so far, which the penalty
 * (Keskar et al., "CTRL": positive logits are divided, negative multiplied) applies to. Errors: TN_NUMERIC
 * where no logit is finite. */
tn_status tn_sample_token(const tn_sampling *sampling, float *logits, int64_t vocab, const int32_t *context,
                          int64_t context_length, int32_t *token);

#endif
