/* generate.h: continuing token sequences with the key/value cache of a pass. A session keeps what is cached, so
 * a conversation that grows pays only for its new tokens, and for its new pictures.
 */
#ifndef TN_INFER_GENERATE_H
#define TN_INFER_GENERATE_H

#include "infer/sampler.h"
#include "model/pass.h"

/* A picture among cached tokens; other pixels have another hash. */
typedef struct tn_cached_picture {
    int64_t first, rows, columns;
    uint64_t hash;
} tn_cached_picture;

typedef struct tn_session {
    tn_pass *pass;               /* with a cache */
    int64_t vocab, capacity;     /* tokens the cache holds */
    int64_t chunk;               /* tokens a pass takes at once */
    tn_ids cached;               /* whose keys and values are in the cache */
    tn_cached_picture *pictures; /* [picture_count] among them */
    int64_t picture_count, picture_capacity;
    float *logits; /* [vocab] */
} tn_session;
tn_status tn_session_new(tn_pass *pass, int64_t vocab, int64_t capacity, int64_t chunk, tn_session *session);
void tn_session_free(tn_session *session);

typedef struct tn_generation {
    tn_sampling sampling;
    const int32_t *stops; /* ids that end the text */
    int64_t stop_count;
    int64_t max_new_tokens;
} tn_generation;

/* Called for each new token; false ends the generation. */
typedef bool tn_token_function(void *user, int32_t token);
/* Continues `prompt`, a batch of one document; `out` gets the new ids, the stopping one included. `*stopped`: a
 * stop id or the callback ended it, not the length. Errors: TN_NO_FIT where the prompt alone exceeds the cache.
 */
tn_status tn_session_generate(tn_session *session, const tn_batch *prompt, const tn_generation *how,
                              tn_token_function *on_token, void *user, tn_ids *out, bool *stopped);

#endif
