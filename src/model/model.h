/* model.h: a base model with its adapter on a device: layers of linear groups whose frozen weights come from
 * files (or from a seed) and whose LoRA and full parameters point into the adapter's flat arrays.
 *
 * Life: tn_model_new (shapes, no memory) → tn_model_place over a region, once to count and once to place →
 * tn_model_load (weights to the device) → adapter values → tn_model_refresh → passes (pass.h).
 */
#ifndef TN_MODEL_MODEL_H
#define TN_MODEL_MODEL_H

#include "format/model_files.h"
#include "model/adapter.h"
#include "model/vision.h"

typedef struct tn_layer {
    tn_linear qkv, o, gate_up, down;
    const void *norm1, *norm2;                  /* [hidden] compute dtype */
    const void *q_norm, *k_norm;                /* [head_dim], NULL where the family has none */
    float *dnorm1, *dnorm2, *dq_norm, *dk_norm; /* fp32 gradients, NULL where frozen */
    bool turns;                                 /* rope applies */
    int64_t window;                             /* 0 = none */
} tn_layer;

/* Rows of the embedding or head that train while the rest is frozen (PEFT's trainable_token_indices): their
 * values, [n, hidden], stand in the place of the base's. */
typedef struct tn_rows {
    const int64_t *ids; /* [n] tokens; NULL: there are none */
    tn_weight table;    /* of the embedding … */
    float *gradient;    /* … and its gradient; NULL in inference */
    tn_linear linear;   /* of the head */
} tn_rows;

typedef struct tn_model {
    const tn_arch *arch;
    tn_device *device;
    const tn_model_files *files; /* NULL: random weights */
    tn_adapter *adapter;
    tn_weight embed;
    float *embed_grad; /* embedding trained in full: fp32 [vocab, hidden], else NULL */
    tn_rows embed_rows, head_rows;
    tn_layer *layers;
    const void *final_norm;
    float *dfinal_norm; /* NULL where frozen */
    tn_linear head;
    int64_t border_qkv, border_o, border_gate_up, border_down, border_head; /* largest over the layers */
    int64_t lowest_trained; /* first layer the backward pass must reach; `layers` where only the last norm or
                               the head trains; -1: the embedding */
    bool block_weights;     /* some weight is block-quantised */
    tn_dtype quantise_to;   /* of plain linear weights while they are loaded; F32 (0): not */
    bool sees;              /* the vision tower is there */
    tn_vision vision;
    uint64_t seed;                   /* of random weights */
    struct tn_placement *placements; /* one for each loaded piece, see model.c */
    int64_t placement_count, placement_capacity;
} tn_model;

/* Checks that every tensor the architecture needs is in `files` with its shape (TN_BAD_DATA lists what is not)
 * and that the file holds no other (warned). `adapter` must outlive the model. files NULL = random weights from
 * `seed`. `quantise_to` as in tn_source, for the projections of the layers. Only with `sees` the vision tower
 * is read. */
tn_status tn_model_new(const tn_arch *arch, tn_device *device, const tn_model_files *files, tn_adapter *adapter,
                       uint64_t seed, tn_dtype quantise_to, bool sees, tn_model **model);
void tn_model_free(tn_model *model);
/* Before placing: sets fp8_products of the layers' linears (tn_linear). */
void tn_model_multiply_in_fp8(tn_model *model);
void tn_model_place(tn_model *model, tn_region *region);
/* Points the linears at the adapter's arrays; after tn_adapter_place over the real block. */
void tn_model_bind_adapter(tn_model *model);
/* Brings all weights to the device. */
tn_status tn_model_load(tn_model *model);
/* Compute copies follow the adapter's fp32 values; after loading values and after each optimizer step. */
tn_status tn_model_refresh(tn_model *model);
/* tn_base_values for tn_adapter_init; `user` is the model. */
tn_status tn_model_base_values(void *user, const tn_param *param, float *values);
/* Scratch bounds of this model for batches of `rows` tokens. */
tn_limits tn_model_limits(const tn_model *model, int64_t rows, int64_t documents, int64_t longest,
                          int64_t head_rows, bool backward, bool dropout);

#endif
