/* gguf_arch.h: an architecture in the terms of a GGUF file: a configuration that leaves nothing to defaults,
 * and the rope tensors that stand beside the weights. What llama.cpp's graphs cannot compute is refused.
 */
#ifndef TN_EXPORT_GGUF_ARCH_H
#define TN_EXPORT_GGUF_ARCH_H

#include "format/gguf_model.h"
#include "model/arch.h"

typedef struct tn_gguf_arch {
    const tn_gguf_family *family;
    const tn_json *config; /* for tn_gguf_put_config */
    struct {
        const char *name;
        const float *values; /* [head_dim / 2], F32 */
    } factors[2];
    int factor_count;
} tn_gguf_arch;

/* Memory comes from `arena`; `name` stands in messages. Errors: TN_USAGE for a family, an activation or a kind
 * of rope that a GGUF file cannot say. Warns of sliding windows, which llama.cpp does not know in these
 * families: up to the window's length nothing differs. */
tn_status tn_gguf_arch_read(tn_arena *arena, const tn_arch *arch, const char *name, tn_gguf_arch *out);

#endif
