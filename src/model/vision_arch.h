/* vision_arch.h: the shape of Qwen2.5-VL's vision tower, as vision_config says it. */
#ifndef TN_MODEL_VISION_ARCH_H
#define TN_MODEL_VISION_ARCH_H

#include "base/json.h"
#include "op/op.h"

typedef struct tn_vision_arch {
    int64_t depth, hidden, intermediate, heads, out; /* `out` columns of a merged patch */
    int64_t patch, temporal, merge;                  /* pixels, frames, patches to a side of a merged one */
    int64_t window;                                  /* merged patches to a side of a window of attention */
    const bool *full;                                /* [depth] blocks that attend to the whole picture */
    tn_activation activation;
    float norm_eps;
} tn_vision_arch;

/* Floats of a patch. */
static inline int64_t tn_vision_values(const tn_vision_arch *v) {
    return 3 * v->temporal * v->patch * v->patch;
}

int64_t tn_vision_parameters(const tn_vision_arch *v);

/* From config.json's vision_config with the defaults of Qwen2_5_VLVisionConfig. Errors: TN_BAD_DATA (impossible
 * sizes), TN_USAGE (what is not computed here). */
tn_status tn_vision_arch_read(tn_arena *arena, const tn_json *vision_config, const char *name,
                              tn_vision_arch *arch);

#endif
