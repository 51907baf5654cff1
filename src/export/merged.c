/* merged.c: see merged.h. What an adapter does to a weight is PEFT's get_delta_weight (tuners/lora/layer.py):
 * delta = (B·A)·scale, summed over the rank first and scaled after, all in fp32; and with DoRA its merge_safe
 * (tuners/lora/variants.py): every row of W + delta times magnitude over its norm.
 */
#include "export/merged.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/base_values.h"
#include "quant/quant.h"

enum { STRIP = 256 }; /* columns of a row that are summed at a time */

static tn_status find_base(const tn_merged *m, tn_merged_tensor *t, const char *name) {
    char shape[128];
    t->base = tn_model_files_find(m->files, name);
    if (t->base && t->base->rank == t->rank && t->base->shape[0] == t->shape[0] &&
        (t->rank == 1 || t->base->shape[1] == t->shape[1]) &&
        (tn_dtype_is_float(t->base->dtype) || tn_dtype_is_block(t->base->dtype)))
        return TN_OK;
    if (!t->base) tn_fail(TN_BAD_DATA, "%s: the tensor %s is missing", tn_model_files_path(m->files), name);
    else
        tn_fail(TN_BAD_DATA, "%s: %s is %s %s, and config.json asks for other sizes", t->base->file, name,
                tn_dtype_name(t->base->dtype), tn_shape_text(t->base, shape));
    return tn_remedy("check that weights and configuration belong together");
}

static tn_status add(void *user, tn_module module, int64_t layer, bool bias) {
    tn_merged *m = user;
    char name[128];
    tn_merged_tensor *t;
    tn_status status = tn_grow(&m->tensors, &m->capacity, m->count + 1, (int64_t)sizeof *t, "tensors");
    if (status != TN_OK) return status;
    t = &m->tensors[m->count];
    *t = (tn_merged_tensor){
        .module = module,
        .layer = layer,
        .bias = bias,
        .rank = bias || tn_module_is_norm(module) ? 1 : 2,
        .full = tn_adapter_find(m->adapter, module, layer, bias ? TN_PARAM_BIAS : TN_PARAM_WEIGHT)};
    if (!bias) {
        t->a = tn_adapter_find(m->adapter, module, layer, TN_PARAM_LORA_A);
        t->b = tn_adapter_find(m->adapter, module, layer, TN_PARAM_LORA_B);
        t->magnitude = tn_adapter_find(m->adapter, module, layer, TN_PARAM_MAGNITUDE);
    }
    if (!bias && module >= TN_MODULE_EMBED && module <= TN_MODULE_HEAD)
        t->rows = tn_adapter_tokens(m->adapter, m->arch, module);
    tn_module_shape(m->arch, module, &t->shape[0], &t->shape[1]);
    if (bias) t->shape[1] = 1;
    t->count = t->shape[0] * t->shape[1];
    t->name = tn_arena_printf(&m->arena, "%s", tn_tensor_name(module, layer, bias, name));
    if (!t->name) return tn_fail_memory(128, "a name");
    if (m->head_apart && module == TN_MODULE_HEAD) tn_tensor_name(TN_MODULE_EMBED, -1, false, name);
    m->count++;
    return find_base(m, t, name);
}

static bool leaves_embedding(const tn_arch *arch, const tn_adapter *adapter) {
    return arch->tied && !adapter->full &&
           (tn_adapter_find(adapter, TN_MODULE_EMBED, -1, TN_PARAM_WEIGHT) ||
            tn_adapter_find(adapter, TN_MODULE_HEAD, -1, TN_PARAM_WEIGHT) ||
            tn_adapter_find(adapter, TN_MODULE_HEAD, -1, TN_PARAM_LORA_A) ||
            tn_adapter_find(adapter, TN_MODULE_HEAD, -1, TN_PARAM_TOKENS));
}

static tn_status open_adapter(tn_merged *m, const char *directory) {
    const tn_base base = {m->arch, m->files};
    const int64_t count = m->adapter->param_count;
    tn_status status = tn_adapter_open(m->adapter, &base, directory, &m->adapter_file);
    if (status != TN_OK) return status;
    m->trained = tn_arena_take(&m->arena, count * (int64_t)sizeof *m->trained);
    if (!m->trained) return tn_fail_memory(count * (int64_t)sizeof *m->trained, "an adapter's tensors");
    for (int64_t i = 0; i < count; i++)
        m->trained[i] = tn_adapter_tensor(&m->adapter->params[i], m->adapter_file);
    return TN_OK;
}

tn_status tn_merged_open(const tn_arch *arch, const tn_model_files *files, const tn_adapter *adapter,
                         const char *directory, tn_merged *m) {
    tn_status status;
    *m = (tn_merged){.arch = arch, .files = files, .adapter = adapter};
    m->head_apart = leaves_embedding(arch, adapter);
    if (directory) TN_TRY(open_adapter(m, directory));
    TN_TRY(tn_each_tensor(arch, add, m));
    if (m->head_apart) status = add(m, TN_MODULE_HEAD, -1, false);
done:
    if (status != TN_OK) tn_merged_close(m);
    return status;
}

void tn_merged_close(tn_merged *m) {
    tn_safetensors_close(m->adapter_file);
    free(m->tensors);
    tn_arena_free(&m->arena);
    *m = (tn_merged){0};
}

bool tn_merged_changes(const tn_merged_tensor *t) { return t->full || t->a || t->rows; }

int64_t tn_merged_largest(const tn_merged *m) {
    int64_t largest = 1;
    for (int64_t i = 0; i < m->count; i++)
        if (m->tensors[i].count > largest) largest = m->tensors[i].count;
    return largest;
}

static tn_status decode(const tn_merged *m, const tn_param *p, float **values) {
    const tn_tensor_info *t = m->trained[p - m->adapter->params];
    tn_status status = tn_alloc(values, p->count, (int64_t)sizeof **values, t->name);
    if (status == TN_OK) tn_dequantize(t->dtype, t->data, 0, p->count, *values);
    return status;
}

/* row += scale · b·A, where b (r) is the row's part of B. */
static void add_delta(float *row, int64_t cols, const float *b, const float *a, int64_t r, float scale) {
    for (int64_t first = 0; first < cols; first += STRIP) {
        const int64_t n = cols - first < STRIP ? cols - first : STRIP;
        float sum[STRIP] = {0};
        for (int64_t k = 0; k < r; k++)
            for (int64_t i = 0; i < n; i++) sum[i] += b[k] * a[k * cols + first + i];
        for (int64_t i = 0; i < n; i++) row[first + i] += scale * sum[i];
    }
}

/* A row of zeros has no direction and stays. */
static void set_length(float *row, int64_t cols, float length) {
    double squares = 0;
    for (int64_t i = 0; i < cols; i++) squares += (double)row[i] * row[i];
    const float factor = squares > 0 ? length / (float)sqrt(squares) : 1;
    for (int64_t i = 0; i < cols; i++) row[i] *= factor;
}

tn_status tn_merged_values(const tn_merged *m, const tn_merged_tensor *t, float *values) {
    const int64_t rows = t->shape[0], cols = t->shape[1], r = t->a ? t->a->shape[0] : 0;
    float *a = NULL, *b = NULL, *magnitude = NULL;
    tn_status status = TN_OK;
    if (t->full) {
        const tn_tensor_info *trained = m->trained[t->full - m->adapter->params];
        tn_dequantize(trained->dtype, trained->data, 0, t->count, values);
        return TN_OK;
    }
    if (t->a) {
        TN_TRY(decode(m, t->a, &a));
        TN_TRY(decode(m, t->b, &b));
    }
    if (t->magnitude) TN_TRY(decode(m, t->magnitude, &magnitude));
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        tn_base_row(m->files, t->base, m->arch->head_dim, row, values + row * cols);
        if (r) add_delta(values + row * cols, cols, b + row * r, a, r, (float)t->a->scale);
        if (magnitude) set_length(values + row * cols, cols, magnitude[row]);
    }
    for (int64_t i = 0; t->rows && i < t->rows->shape[0]; i++) {
        const tn_tensor_info *trained = m->trained[t->rows - m->adapter->params];
        tn_dequantize(trained->dtype, trained->data, i * cols, cols, values + t->rows->ids[i] * cols);
    }
done:
    free(a);
    free(b);
    free(magnitude);
    return status;
}
