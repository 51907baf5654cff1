/* pass.h: one trip of a batch through the model, forward and backward. The table of saved tensors (saved.c)
 * says what the backward pass needs of every layer and what each policy keeps; the rest is recomputed by
 * running the same forward stages again into shared buffers. All buffers come from one region, and what is
 * moved to the host from a second one, so that table is also the memory plan.
 *
 * Shapes: T = tokens of the batch, d = hidden, q = heads·head_dim, kv = kv_heads·head_dim, f = intermediate.
 * Inputs of a linear group are wider by its border (op.h).
 */
#ifndef TN_MODEL_PASS_H
#define TN_MODEL_PASS_H

#include "data/batch.h"
#include "model/model.h"

/* What is kept of each layer for the backward pass. */
typedef enum tn_policy {
    TN_POLICY_NONE,           /* nothing is recomputed that needs a matrix product */
    TN_POLICY_SELECTIVE,      /* gate and up are recomputed */
    TN_POLICY_FULL,           /* only the layer's input is kept */
    TN_POLICY_OFFLOAD,        /* the layer's input and attention's output, in host memory */
    TN_POLICY_OFFLOAD_INPUTS, /* only the layer's input, in host memory */
    TN_POLICIES
} tn_policy;
const char *tn_policy_name(tn_policy policy);

typedef enum tn_saved {
    TN_SAVED_H,       /* [T, d] input of the layer; one more for the output of the last */
    TN_SAVED_QKV_RAW, /* [T, q+2kv] projections before q/k norm; only where the family has it */
    TN_SAVED_QK_RSTD, /* [T, heads+kv_heads] fp32 of the q/k norms */
    TN_SAVED_QKV,     /* [T, q+2kv] after norm and rope (the v columns only where there is no RAW) */
    TN_SAVED_ATTN,    /* [T, q + border] attention output */
    TN_SAVED_LSE,     /* [T, heads] fp32 log-sum-exp of the scores */
    TN_SAVED_H_MID,   /* [T, d] after attention */
    TN_SAVED_GATE_UP, /* [T, 2f + border]; becomes its own gradient */
    TN_SAVED_COUNT
} tn_saved;
typedef struct tn_pass_limits {
    int64_t rows, documents, longest; /* of one batch */
    int64_t head_rows;                /* rows of one chunk of the loss */
    bool training;
    tn_policy policy;
    bool dropout;
    int64_t patches;      /* of the largest picture; 0 = none */
    int64_t cache_length; /* tokens of the key/value cache; 0 = none (training and evaluation) */
} tn_pass_limits;

typedef struct tn_pass tn_pass;

/* Small: what depends on the rows is taken by tn_pass_place from a region, and on the host by tn_pass_stage,
 * which a pass that will run needs once and one that is only planned never. */
tn_status tn_pass_new(tn_model *model, const tn_pass_limits *limits, tn_pass **pass);
tn_status tn_pass_stage(tn_pass *pass);
void tn_pass_free(tn_pass *pass);
/* Takes all buffers, scratch included, from the region, and from `pinned`, a region of the device's
 * host_allocate, what the policy keeps in host memory. */
void tn_pass_place(tn_pass *pass, tn_region *region, tn_region *pinned);

/* Forward and backward: adds the gradients of Σ loss·loss_scale to the adapter's, and Σ loss to the running
 * total. Positions with no target count nothing. */
tn_status tn_pass_train(tn_pass *pass, const tn_batch *batch, float loss_scale, const tn_dropout *dropout);
/* Forward and losses only. `losses` (host, may be NULL) gets −ln p of each token's target, [tokens], 0 where
 * there is none. */
tn_status tn_pass_eval(tn_pass *pass, const tn_batch *batch, float *losses);
/* The running total on the device: zero it; read Σ loss. */
tn_status tn_pass_reset_loss(tn_pass *pass);
tn_status tn_pass_read_loss(tn_pass *pass, double *loss);
/* Tokens behind cached ones. A prompt's pieces come in order from a picture's first token on: its features are
 * computed there, and kept for the pieces behind. */
typedef struct tn_piece {
    const int32_t *ids;     /* [count] */
    int64_t count, past;    /* `past`: cached tokens */
    int64_t shift;          /* rope positions count on from past + shift … */
    const tn_batch *prompt; /* … where it is NULL; else the ids are its tokens from `past` on, with its own */
} tn_piece;
/* Generation: appends a piece and gives the logits [vocab] of its last token (host, fp32). */
tn_status tn_pass_logits(tn_pass *pass, const tn_piece *piece, float *logits);
/* Forward of a batch and all its logits [tokens, vocab] (host, fp32): tests and checks. */
tn_status tn_pass_all_logits(tn_pass *pass, const tn_batch *batch, float *logits);

#endif
