/* pass_internal.h: the buffers of a pass, shared by pass.c (inputs, running), embed.c, block.c (one layer) and
 * head.c (loss).
 */
#ifndef TN_MODEL_PASS_INTERNAL_H
#define TN_MODEL_PASS_INTERNAL_H

#include "model/pass.h"

#define OP(pass) ((pass)->model->device->backend)
#define DEV(pass) ((pass)->model->device)

/* Rows of a tile of the stages that work on each row alone (block.c): products reach their full speed, and the
 * buffers of an MLP stay below 2 GB. */
enum { TN_TILE_ROWS = 8192 };
static inline int64_t tn_tile_rows(int64_t rows) { return rows < TN_TILE_ROWS ? rows : TN_TILE_ROWS; }

/* What the device sees of a batch. */
typedef struct tn_inputs {
    int32_t *ids, *positions, *cu_q, *cu_kv; /* [T], [T], [documents+1] twice */
    int32_t *rows, *targets;                 /* labelled rows and their targets, compact */
    int32_t *order, *starts;                 /* rows by id, for the embedding's gradient */
    int32_t *slots, *slot_ids;               /* trained rows: of each row of the batch; of those in `order` */
    int32_t *inv_row;                        /* [T] row of inv_freq, where it depends on the document */
    float *inv_freq, *cos, *sin;             /* [documents or 1, half], [T, half] twice */
    float *losses;                           /* [T] of labelled rows */
    double *loss_total;
} tn_inputs;

/* A token whose embedding trains alone, and which of those it is. */
typedef struct tn_slot {
    int32_t id, slot;
} tn_slot;

struct tn_pass {
    tn_model *model;
    tn_pass_limits limits;
    tn_inputs in;
    /* Saved tensors: slot[kind][layer], all the same pointer where the kind is not kept, two in turn where it
     * is moved to the host. */
    void **slot[TN_SAVED_COUNT];
    int64_t stride[TN_SAVED_COUNT];
    void **away[TN_SAVED_COUNT]; /* [layers] where it lies in host memory; NULL where it stays */
    /* Shared buffers of one layer; t rows are those of one tile. */
    tn_view x;           /* [t, d + border] normalised input of qkv, then of gate|up */
    tn_view act;         /* [t, f + border] */
    float *rstd;         /* [t] of x */
    tn_view dh;          /* [T, d + border] gradient of the residual stream */
    tn_view dx, dact;    /* [t, d], [t, f] */
    tn_view dattn, dqkv; /* [T, q], [T, q+2kv + border] */
    /* Head: one chunk of labelled rows. */
    tn_view head_h, head_x, head_dx, logits; /* [C, d], [C, d + border], [C, d], [C, vocab + border] */
    float *head_rstd;                        /* [C] */
    tn_view row_logits, row_zeros;           /* [C, n] of the head's trained rows; zeros of that size */
    int32_t *row_columns;                    /* [C, n] where in `logits`, counted in elements */
    bool columns_set;                        /* the two are filled once */
    float *wide_logits;                      /* [vocab] fp32, generation */
    void *attention_scratch;                 /* attention's own; device->scratch serves the rest */
    int64_t attention_scratch_size;
    tn_view *cache_k, *cache_v; /* [layers] of [cache_length, kv] */
    tn_vision_pass vision;
    tn_view seen; /* [N / m, d] generation: the features of the picture in hand, in the order of its tokens */
    /* The batch in hand. */
    tn_attention attention;
    int64_t tokens, labelled, segments, past;
    int64_t ordered; /* rows in `order`: those whose embedding trains */
    tn_slot *slots;  /* [n] by id */
    int32_t *host;   /* staging for what is uploaded */
    int32_t *host_cu_q, *host_cu_kv;
};

/* saved.c */
/* Whether the backward pass finds every layer's own values of this kind. */
bool tn_pass_keeps(const tn_pass *pass, tn_saved kind);
/* Takes the buffers of a kind: one a layer where it is kept, two where it is moved, else one for all; H first.
 */
void tn_saved_place(tn_pass *pass, tn_region *region, tn_region *pinned, tn_saved kind);
tn_view tn_pass_saved(const tn_pass *pass, tn_saved kind, int64_t layer);
float *tn_pass_saved_f32(const tn_pass *pass, tn_saved kind, int64_t layer);
/* Elements from row to row of a matrix of `columns`: rows begin on 64-byte boundaries, where vector and tile
 * loads touch one line of the cache and not two. */
static inline int64_t tn_stride(int64_t columns) { return (columns + 31) / 32 * 32; }
int64_t tn_saved_columns(const tn_model *model, tn_saved kind); /* border included */
/* Before a layer of the forward pass: sends what is there to the host, its input and the other kinds of the
 * layer below; before one of the backward pass: brings back all kinds of the layer below. Both run beside the
 * layer's own work, and are nothing under policies that move nothing. */
tn_status tn_saved_send(tn_pass *pass, int64_t layer);
tn_status tn_saved_bring(tn_pass *pass, int64_t layer);

/* block.c: layer `l` of the batch in hand. Forward reads H[l] and writes H[l+1]. Backward takes the gradient of
 * H[l+1] in pass->dh and leaves that of H[l] there (or, where nothing below trains, stops early). */
tn_status tn_block_forward(tn_pass *pass, int64_t l, const tn_dropout *dropout);
tn_status tn_block_backward(tn_pass *pass, int64_t l, const tn_dropout *dropout);

/* pass.c */
tn_status tn_upload_i32(tn_pass *pass, int32_t *to, const int32_t *from, int64_t count);

/* embed.c: the embedding of the batch in hand into H[0], and its gradient from pass->dh. */
tn_status tn_embed_stage(tn_pass *pass);
/* Which of the pass->tokens rows have an embedding that trains; in the order its gradient needs if `training`.
 */
tn_status tn_embed_set(tn_pass *pass, const int32_t *ids, const tn_batch *batch, bool training);
tn_status tn_embed_forward(tn_pass *pass);
tn_status tn_embed_backward(tn_pass *pass);

/* head.c: final norm, lm_head and cross-entropy over labelled rows in chunks. Where `train`, pass->dh gets the
 * gradient of the last hidden state and the head's own gradients are accumulated. */
void tn_head_place(tn_pass *pass, tn_region *region);
/* What has to last from one batch to the next. */
void tn_head_place_inputs(tn_pass *pass, tn_region *region);
tn_status tn_head_set(tn_pass *pass);
tn_status tn_head_loss(tn_pass *pass, bool train, float loss_scale, const tn_dropout *dropout);
/* Logits of `count` rows (device indices) as fp32 on the host. */
tn_status tn_head_logits(tn_pass *pass, const int32_t *rows, int64_t count, float *logits);

#endif
