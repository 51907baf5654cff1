/* model_internal.h: how tensors are found and given their place, shared by model.c (the language model) and
 * vision_build.c (the tower). */
#ifndef TN_MODEL_MODEL_INTERNAL_H
#define TN_MODEL_MODEL_INTERNAL_H

#include "model/model.h"

/* One loaded piece: where its values come from and which region they go to. */
typedef struct tn_placement {
    tn_linear *linear;     /* a linear group, or NULL … */
    const void **vector;   /* … a vector of `cols` values, or NULL … */
    tn_weight *table;      /* … the embedding, or its trained rows */
    const tn_param *param; /* of a vector or a table where it trains, and … */
    float **gradient;      /* … where its gradient is noted */
    int64_t cols;
    tn_source source[TN_MAX_PARTS];
    bool shared; /* the head uses the embedding's weight: nothing to place */
    void *region;
} tn_placement;

typedef struct tn_finder {
    tn_model *model;
    tn_str problems;
    int64_t missing, found;
} tn_finder;

/* Fills the source of tensor `name` [rows, cols] (cols 0: a vector). Problems are collected, so that one
 * message tells all. */
void tn_find_tensor(tn_finder *f, const char *name, int64_t rows, int64_t cols, float std, tn_source *source);
/* A new one at the end of the model's list. */
tn_status tn_new_placement(tn_model *model, tn_placement **placement);

/* vision_build.c: the tower's linears and norms. */
tn_status tn_vision_build(tn_finder *f, const tn_vision_arch *arch);

#endif
