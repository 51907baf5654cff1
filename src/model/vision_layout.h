/* vision_layout.h: where the patches of one picture stand while the tower computes. Windows of attention follow
 * one another, so that each is a document of its own; a merged patch (merge × merge rows) stays together.
 */
#ifndef TN_MODEL_VISION_LAYOUT_H
#define TN_MODEL_VISION_LAYOUT_H

#include "model/vision_arch.h"

typedef struct tn_vision_layout {
    int64_t patches, windows, longest; /* `longest`: patches of the largest window */
    int32_t *order;      /* [patches / merge²] the merged patch, in the order of rows, that stands here */
    int32_t *cu_windows; /* [windows + 1] in patches */
    float *cos, *sin;    /* [patches, head_dim / 2] first half by row, second by column */
} tn_vision_layout;

/* Of a picture of `rows` × `columns` merged patches. */
tn_status tn_vision_layout_new(const tn_vision_arch *arch, int64_t rows, int64_t columns,
                               tn_vision_layout *layout);
void tn_vision_layout_free(tn_vision_layout *layout);

#endif
