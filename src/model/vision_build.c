/* vision_build.c: the tensors of the vision tower, by the names of the published files. They are frozen and
 * stay in the compute dtype, also where the language model is quantised, as bitsandbytes' users leave them. */
#include <stdio.h>

#include "model/model_internal.h"
#include "op/source.h"

static tn_status add_vector(tn_finder *f, const char *name, int64_t count, float std, const void **vector) {
    tn_placement *p;
    tn_status status = tn_new_placement(f->model, &p);
    if (status != TN_OK) return status;
    p->vector = vector;
    p->cols = count;
    tn_find_tensor(f, name, count, 0, std, &p->source[0]);
    return TN_OK;
}

/* `names` of up to two projections with one input, side by side. */
static tn_status add_linear(tn_finder *f, const char *prefix, const char *const names[2], int64_t in,
                            int64_t out, bool bias, tn_linear *linear) {
    tn_source source[2] = {0};
    tn_placement *p;
    tn_status status = TN_OK;
    char name[128];
    linear->in = in;
    for (int i = 0; i < 2 && names[i]; i++) {
        tn_part *part = &linear->part[linear->parts++];
        linear->out += out;
        snprintf(name, sizeof name, "%s%s.weight", prefix, names[i]);
        tn_find_tensor(f, name, out, in, 0.02f, &source[i]);
        part->weight = (tn_weight){
            .rows = out, .cols = in, .dtype = tn_source_held(&source[i], f->model->device->dtype, false)};
        snprintf(name, sizeof name, "%s%s.bias", prefix, names[i]);
        if (bias) TN_TRY(add_vector(f, name, out, 0, &part->bias));
    }
    TN_TRY(tn_new_placement(f->model, &p));
    p->linear = linear;
    for (int i = 0; i < 2; i++) p->source[i] = source[i];
done:
    return status;
}

static tn_status build_block(tn_finder *f, const tn_vision_arch *a, int64_t index, tn_vision_block *b) {
    static const char *const qkv[2] = {"attn.qkv"}, *const proj[2] = {"attn.proj"},
                             *const gate_up[2] = {"mlp.gate_proj", "mlp.up_proj"},
                             *const down[2] = {"mlp.down_proj"};
    char prefix[64], name[128];
    tn_status status;
    snprintf(prefix, sizeof prefix, "visual.blocks.%lld.", (long long)index);
    snprintf(name, sizeof name, "%snorm1.weight", prefix);
    TN_TRY(add_vector(f, name, a->hidden, -1, &b->norm1));
    snprintf(name, sizeof name, "%snorm2.weight", prefix);
    TN_TRY(add_vector(f, name, a->hidden, -1, &b->norm2));
    TN_TRY(add_linear(f, prefix, qkv, a->hidden, 3 * a->hidden, true, &b->qkv));
    TN_TRY(add_linear(f, prefix, proj, a->hidden, a->hidden, true, &b->proj));
    TN_TRY(add_linear(f, prefix, gate_up, a->hidden, a->intermediate, true, &b->gate_up));
    status = add_linear(f, prefix, down, a->intermediate, a->hidden, true, &b->down);
done:
    return status;
}

tn_status tn_vision_build(tn_finder *f, const tn_vision_arch *a) {
    static const char *const patch[2] = {"patch_embed.proj"}, *const in[2] = {"merger.mlp.0"},
                             *const out[2] = {"merger.mlp.2"};
    const int64_t wide = a->hidden * a->merge * a->merge;
    tn_vision *v = &f->model->vision;
    tn_status status;
    v->arch = a;
    TN_TRY(tn_alloc(&v->blocks, a->depth, (int64_t)sizeof *v->blocks, "the vision tower"));
    TN_TRY(add_linear(f, "visual.", patch, tn_vision_values(a), a->hidden, false, &v->patch));
    for (int64_t i = 0; i < a->depth; i++) TN_TRY(build_block(f, a, i, &v->blocks[i]));
    TN_TRY(add_vector(f, "visual.merger.ln_q.weight", a->hidden, -1, &v->merger_norm));
    TN_TRY(add_linear(f, "visual.", in, wide, wide, true, &v->merger_in));
    status = add_linear(f, "visual.", out, wide, a->out, true, &v->merger_out);
done:
    return status;
}
