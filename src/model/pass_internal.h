/* pass_internal.h: the buffers of a pass, shared by pass.c (inputs, running), block.c (one layer) and head.c
 * (loss).
 */
#ifndef TN_MODEL_PASS_INTERNAL_H
#define TN_MODEL_PASS_INTERNAL_H

#include "model/pass.h"

/* What the device sees of a batch. */
typedef struct tn_inputs {
    int32_t *ids, *positions, *cu_q, *cu_kv; /* [T], [T], [documents+1] twice */
    int32_t *rows, *targets;                 /* labelled rows and their targets, compact */
    int32_t *order, *starts;                 /* rows by id, for the embedding's gradient */
    int32_t *inv_row;                        /* [T] row of inv_freq, where it depends on the document */
    float *inv_freq, *cos, *sin;             /* [documents or 1, half], [T, half] twice */
    float *losses;                           /* [T] of labelled rows */
    double *loss_total;
} tn_inputs;

struct tn_pass {
    tn_model *model;
    tn_pass_limits limits;
    tn_inputs in;
    /* Saved tensors: slot[kind][layer], all the same pointer where the kind is not kept. */
    void **slot[TN_SAVED_COUNT];
    int64_t stride[TN_SAVED_COUNT];
    /* Shared buffers of one layer. */
    tn_view x;                     /* [T, d + border] normalised input of qkv, then of gate|up */
    tn_view act;                   /* [T, f + border] */
    float *rstd;                   /* [T] of x */
    tn_view dh;                    /* [T, d + border] gradient of the residual stream */
    tn_view dx, dact, dattn, dqkv; /* [T, d], [T, f], [T, q], [T, q+2kv + border] */
    /* Head: one chunk of labelled rows. */
    tn_view head_h, head_x, head_dx, logits; /* [C, d], [C, d + border], [C, d], [C, vocab + border] */
    float *head_rstd;                        /* [C] */
    float *wide_logits;                      /* [vocab] fp32, generation */
    void *attention_scratch;                 /* attention's own; device->scratch serves the rest */
    int64_t attention_scratch_size;
    tn_view *cache_k, *cache_v; /* [layers] of [cache_length, kv] */
    tn_vision_pass vision;
    /* The batch in hand. */
    tn_attention attention;
    int64_t tokens, labelled, segments, past;
    int32_t *host; /* staging for what is uploaded */
    int32_t *host_cu_q, *host_cu_kv;
};

/* saved.c */
/* Whether every layer has its own buffer of this kind until its backward pass. */
bool tn_pass_keeps(const tn_pass *pass, tn_saved kind);
/* Takes the buffers of a kind: one a layer where it is kept, else one for all; H first. */
void tn_saved_place(tn_pass *pass, tn_region *region, tn_saved kind);
tn_view tn_pass_saved(const tn_pass *pass, tn_saved kind, int64_t layer);
float *tn_pass_saved_f32(const tn_pass *pass, tn_saved kind, int64_t layer);
/* Elements from row to row of a matrix of `columns`: rows begin on 64-byte boundaries, where vector and tile
 * loads touch one line of the cache and not two. */
static inline int64_t tn_stride(int64_t columns) { return (columns + 31) / 32 * 32; }
int64_t tn_saved_columns(const tn_model *model, tn_saved kind); /* border included */

/* block.c: layer `l` of the batch in hand. Forward reads H[l] and writes H[l+1]. Backward takes the gradient of
 * H[l+1] in pass->dh and leaves that of H[l] there (or, where nothing below trains, stops early). */
tn_status tn_block_forward(tn_pass *pass, int64_t l, const tn_dropout *dropout);
tn_status tn_block_backward(tn_pass *pass, int64_t l, const tn_dropout *dropout);

/* head.c: final norm, lm_head and cross-entropy over labelled rows in chunks. Where `train`, pass->dh gets the
 * gradient of the last hidden state and the head's own gradients are accumulated. */
tn_status tn_head_loss(tn_pass *pass, bool train, float loss_scale, const tn_dropout *dropout);
/* Logits of `count` rows (device indices) as fp32 on the host. */
tn_status tn_head_logits(tn_pass *pass, const int32_t *rows, int64_t count, float *logits);

#endif
