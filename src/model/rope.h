/* rope.h: rotary position embedding of every kind in Transformers' modeling_rope_utils.py, as tables of inverse
 * frequencies made on the host. Kinds that depend on the length (dynamic, longrope) use the length of the
 * document itself, so a batch has one row of frequencies per document; all others have one row for all.
 */
#ifndef TN_MODEL_ROPE_H
#define TN_MODEL_ROPE_H

#include "base/json.h"

typedef enum tn_rope_kind {
    TN_ROPE_DEFAULT,
    TN_ROPE_LINEAR,
    TN_ROPE_DYNAMIC,
    TN_ROPE_YARN,
    TN_ROPE_LONGROPE,
    TN_ROPE_LLAMA3,
    TN_ROPE_DIVISORS, /* GGUF's rope_freqs.weight: inv_i / divisor_i */
} tn_rope_kind;

typedef struct tn_rope {
    tn_rope_kind kind;
    double theta;
    int64_t half; /* pairs that turn: rotary dimensions / 2 */
    double factor, low_freq_factor, high_freq_factor, beta_fast, beta_slow,
        attention_factor /* NAN = computed */;
    double mscale, mscale_all_dim; /* 0 = absent */
    bool truncate;
    int64_t original_length, max_positions;
    const float *long_factor, *short_factor, *divisors; /* [half] */
} tn_rope;

/* `scaling` is rope_scaling / rope_parameters or NULL; `divisors` GGUF's array or NULL. All dimensions of a
 * head turn. */
tn_status tn_rope_read(tn_arena *arena, const tn_json *scaling, const tn_json *divisors, double theta,
                       int64_t head_dim, int64_t original_length, int64_t max_positions, const char *name,
                       tn_rope *rope);
/* What a user gives as rope_scaling, an object, is held to more than what comes with a model: TN_USAGE for an
 * unknown member, a value of the wrong type, or a kind without the factor that it needs. */
tn_status tn_rope_check_key(const tn_json *scaling);
/* Does the table depend on the document's length? */
bool tn_rope_by_length(const tn_rope *rope);
/* inv_freq [half] for a document of `length` tokens. */
void tn_rope_inv_freq(const tn_rope *rope, int64_t length, float *inv_freq);
/* Factor on cos and sin ("attention_scaling"). */
float tn_rope_scaling(const tn_rope *rope);

#endif
