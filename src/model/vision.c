/* vision.c: the forward pass of the tower (transformers: Qwen2_5_VisionTransformerPretrainedModel):
 *
 *   patch    pixels → h = patch(pixels)                              [N, d]
 *   a block  h += proj(attention(rope(qkv(norm1(h)))))               [N, d], in windows or the whole picture
 *            h += down(silu(gate)·up), gate|up of norm2(h)           [N, d]
 *   merger   m neighbours of norm(h) side by side → out(gelu(in))    [N / m, D]
 *
 * Patches come up in the order of windows, which is undone where the features are put among the tokens.
 */
#include "model/vision.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/integer.h"
#include "quant/quant.h"

#define OP(pass) ((pass)->device->backend)

static const tn_view no_view = {NULL, 0};

/* ---- Buffers ------------------------------------------------------------------------------------- */

static tn_view take(const tn_vision_pass *pass, tn_region *region, int64_t rows, int64_t stride) {
    const int64_t width = tn_dtype_block_bytes(pass->device->dtype);
    return (tn_view){tn_region_take(region, TN_SEGMENT_WORKSPACE, tn_region_bytes(rows, stride, width)),
                     stride};
}

/* Columns with a gap behind them, so that rows of 16-bit numbers begin where vectors do: the published towers'
 * 3420 would not. */
static int64_t aligned(int64_t columns) { return (columns + 7) / 8 * 8; }

void tn_vision_place(tn_vision_pass *pass, tn_region *region) {
    const tn_vision_arch *a = pass->vision->arch;
    const int64_t n = pass->patches, unit = a->merge * a->merge, half = a->hidden / a->heads / 2;
    pass->pixels = take(pass, region, n, tn_vision_values(a));
    pass->h = take(pass, region, n, a->hidden);
    pass->x = take(pass, region, n, a->hidden);
    pass->qkv = take(pass, region, n, 3 * a->hidden);
    pass->attn = take(pass, region, n, a->hidden);
    pass->gate_up = take(pass, region, n, 2 * a->intermediate);
    pass->act = take(pass, region, n, aligned(a->intermediate));
    pass->merged = take(pass, region, n / unit, unit * a->hidden);
    pass->features = take(pass, region, n / unit, a->out);
    pass->cos = tn_region_take(region, TN_SEGMENT_BATCH, n * half * (int64_t)sizeof(float));
    pass->sin = tn_region_take(region, TN_SEGMENT_BATCH, n * half * (int64_t)sizeof(float));
    pass->cu_windows = tn_region_take(region, TN_SEGMENT_BATCH, (n / unit + 1) * (int64_t)sizeof(int32_t));
    pass->cu_whole = tn_region_take(region, TN_SEGMENT_BATCH, 2 * (int64_t)sizeof(int32_t));
    pass->rows = tn_region_take(region, TN_SEGMENT_BATCH, n / unit * (int64_t)sizeof(int32_t));
}

/* A row or column of windows may be one merged patch wide: of m merged patches in windows of w by w there are
 * at most m / w + 1, when all stand in one row. */
tn_limits tn_vision_limits(const tn_vision *vision, int64_t patches) {
    const tn_vision_arch *a = vision->arch;
    const int64_t wide = a->merge * a->merge * a->hidden;
    return (tn_limits){.rows = patches,
                       .documents = patches / (a->merge * a->merge * a->window) + 1,
                       .longest = patches,
                       .hidden = tn_max(tn_max(wide, a->out), tn_vision_values(a)),
                       .intermediate = tn_max(2 * a->intermediate, 3 * a->hidden),
                       .heads = a->heads,
                       .kv_heads = a->heads,
                       .head_dim = a->hidden / a->heads,
                       .bidirectional = true,
                       .largest_weight = tn_max(wide * wide, 3 * a->hidden * a->hidden)};
}

/* ---- A picture ----------------------------------------------------------------------------------- */

/* Pixels in the order of windows and the compute dtype. */
static tn_status upload_pixels(const tn_vision_pass *pass, const float *pixels, const tn_vision_layout *l) {
    const tn_vision_arch *a = pass->vision->arch;
    const int64_t unit = a->merge * a->merge, values = unit * tn_vision_values(a),
                  width = tn_dtype_block_bytes(pass->device->dtype);
    char *staged = NULL;
    tn_status status;
    TN_TRY(tn_alloc(&staged, l->patches / unit, values * width, "pixels"));
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < l->patches / unit; i++)
        tn_quantize(pass->device->dtype, pixels + l->order[i] * values, values, staged + i * values * width);
    status = OP(pass)->upload(pass->device, pass->pixels.data, staged, l->patches / unit * values * width);
done:
    free(staged);
    return status;
}

static tn_status upload_layout(const tn_vision_pass *pass, const tn_vision_layout *l, int64_t first) {
    const tn_vision_arch *a = pass->vision->arch;
    const int64_t merged = l->patches / (a->merge * a->merge), half = a->hidden / a->heads / 2;
    const int32_t whole[2] = {0, (int32_t)l->patches};
    int32_t *rows = NULL;
    tn_status status;
    TN_TRY(tn_alloc(&rows, merged, (int64_t)sizeof *rows, "a picture's tokens"));
    for (int64_t i = 0; i < merged; i++) rows[i] = (int32_t)first + l->order[i];
    TN_TRY(OP(pass)->upload(pass->device, pass->rows, rows, merged * (int64_t)sizeof *rows));
    TN_TRY(OP(pass)->upload(pass->device, pass->cu_whole, whole, sizeof whole));
    TN_TRY(OP(pass)->upload(pass->device, pass->cu_windows, l->cu_windows,
                            (l->windows + 1) * (int64_t)sizeof *l->cu_windows));
    TN_TRY(OP(pass)->upload(pass->device, pass->cos, l->cos, l->patches * half * (int64_t)sizeof(float)));
    status = OP(pass)->upload(pass->device, pass->sin, l->sin, l->patches * half * (int64_t)sizeof(float));
done:
    free(rows);
    return status;
}

static tn_attention attention_of(const tn_vision_pass *pass, const tn_vision_layout *l,
                                 const int32_t *host_whole, bool full) {
    const tn_vision_arch *a = pass->vision->arch;
    const int64_t longest = full ? l->patches : l->longest;
    const int32_t *cu = full ? pass->cu_whole : pass->cu_windows, *host_cu = full ? host_whole : l->cu_windows;
    return (tn_attention){.documents = full ? 1 : l->windows,
                          .q_rows = l->patches,
                          .kv_rows = l->patches,
                          .longest_q = longest,
                          .longest_kv = longest,
                          .cu_q = cu,
                          .cu_kv = cu,
                          .host_cu_q = host_cu,
                          .host_cu_kv = host_cu,
                          .heads = a->heads,
                          .kv_heads = a->heads,
                          .head_dim = a->hidden / a->heads,
                          .scale = 1 / sqrtf((float)(a->hidden / a->heads)),
                          .bidirectional = true};
}

static tn_status multiply(const tn_vision_pass *pass, const tn_linear *linear, int64_t rows, tn_view x,
                          tn_view y, tn_view residual) {
    return OP(pass)->linear_forward(pass->device, linear, rows, x, y, residual, 1.0f, NULL);
}

static tn_status normalise(const tn_vision_pass *pass, int64_t n, const void *weight) {
    const tn_vision_arch *a = pass->vision->arch;
    return OP(pass)->rmsnorm_forward(pass->device, n, 1, a->hidden, pass->h, weight, false, a->norm_eps,
                                     pass->x, NULL);
}

static tn_status run_block(const tn_vision_pass *pass, const tn_vision_block *b, int64_t n,
                           const tn_attention *shape) {
    const tn_vision_arch *a = pass->vision->arch;
    const tn_view k = tn_view_at(pass->device, pass->qkv, 0, a->hidden),
                  v = tn_view_at(pass->device, pass->qkv, 0, 2 * a->hidden);
    tn_status status;
    TN_TRY(normalise(pass, n, b->norm1));
    TN_TRY(multiply(pass, &b->qkv, n, pass->x, pass->qkv, no_view));
    TN_TRY(OP(pass)->rope(pass->device, n, 2 * a->heads, shape->head_dim, shape->head_dim / 2, pass->qkv,
                          pass->cos, pass->sin, false));
    TN_TRY(OP(pass)->attention_forward(pass->device, shape, pass->qkv, k, v, pass->attn, NULL));
    TN_TRY(multiply(pass, &b->proj, n, pass->attn, pass->h, pass->h));
    TN_TRY(normalise(pass, n, b->norm2));
    TN_TRY(multiply(pass, &b->gate_up, n, pass->x, pass->gate_up, no_view));
    TN_TRY(OP(pass)->gated_forward(pass->device, n, a->intermediate, a->activation, pass->gate_up, pass->act));
    status = multiply(pass, &b->down, n, pass->act, pass->h, pass->h);
done:
    return status;
}

/* x has no gap between rows, so that m of them read as one. */
static tn_status merge(const tn_vision_pass *pass, int64_t n) {
    const tn_vision *v = pass->vision;
    const int64_t unit = v->arch->merge * v->arch->merge, wide = unit * v->arch->hidden;
    tn_status status;
    TN_TRY(normalise(pass, n, v->merger_norm));
    TN_TRY(multiply(pass, &v->merger_in, n / unit, (tn_view){pass->x.data, wide}, pass->merged, no_view));
    TN_TRY(OP(pass)->activate(pass->device, n / unit, wide, TN_GELU, pass->merged, pass->merged));
    status = multiply(pass, &v->merger_out, n / unit, pass->merged, pass->features, no_view);
done:
    return status;
}

tn_status tn_vision_forward(tn_vision_pass *pass, const float *pixels, int64_t rows, int64_t columns,
                            int64_t first, tn_view to) {
    const tn_vision *v = pass->vision;
    const int64_t unit = v->arch->merge * v->arch->merge, n = rows * columns * unit;
    const int32_t whole[2] = {0, (int32_t)n};
    tn_vision_layout layout;
    tn_status status;
    if (n > pass->patches)
        return tn_fail(TN_FAILED, "a picture of %lld patches exceeds the plan (%lld)", (long long)n,
                       (long long)pass->patches);
    TN_TRY(tn_vision_layout_new(v->arch, rows, columns, &layout));
    TN_TRY(upload_pixels(pass, pixels, &layout));
    TN_TRY(upload_layout(pass, &layout, first));
    TN_TRY(multiply(pass, &v->patch, n, pass->pixels, pass->h, no_view));
    for (int64_t i = 0; i < v->arch->depth; i++) {
        const tn_attention shape = attention_of(pass, &layout, whole, v->arch->full[i]);
        TN_TRY(run_block(pass, &v->blocks[i], n, &shape));
    }
    TN_TRY(merge(pass, n));
    status = OP(pass)->scatter_rows(pass->device, n / unit, v->arch->out, pass->rows, pass->features, to);
done:
    tn_vision_layout_free(&layout);
    return status;
}
