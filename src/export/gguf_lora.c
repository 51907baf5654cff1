/* gguf_lora.c: an adapter alone. llama.cpp computes y = W x + (alpha / r)·B (A x), alpha of the file and r of
 * the tensors; B's rows are in the order of W's.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "export/gguf_arch.h"
#include "export/gguf_export.h"
#include "model/base_values.h"
#include "quant/quant.h"

typedef struct job {
    tn_arena arena;
    const tn_merged *merged;
    const tn_param **params; /* in the order of declaration */
    int64_t count;
    double alpha;
    bool permuted;
    float *values, *permuted_values;
} job;

static tn_status check(const tn_merged *m, const char *path) {
    const tn_adapter *adapter = m->adapter;
    for (int64_t i = 0; i < adapter->param_count; i++) {
        const tn_param *p = &adapter->params[i];
        if (p->kind == TN_PARAM_MAGNITUDE) {
            tn_fail(TN_USAGE, "%s: %s is DoRA's, and an adapter in GGUF has LoRA alone", path, p->name);
            return tn_remedy("merge it first: export base and adapter as one model (--to gguf)");
        }
        if (!tn_param_is_lora(p)) {
            tn_fail(TN_USAGE, "%s: %s was trained in full, and an adapter in GGUF has LoRA alone", path,
                    p->name);
            return tn_remedy("export base and adapter as one model (--to gguf)");
        }
        if (p->module == TN_MODULE_HEAD && m->arch->tied) {
            tn_fail(TN_USAGE,
                    "%s: %s stands on a head that is the embedding, which a GGUF base has no tensor for", path,
                    p->name);
            return tn_remedy("export base and adapter as one model (--to gguf), where the head stands apart");
        }
    }
    return TN_OK;
}

static bool is_interleaved(const job *j, const tn_param *p) {
    return j->permuted && p->kind == TN_PARAM_LORA_B && (p->module == TN_MODULE_Q || p->module == TN_MODULE_K);
}

static tn_status give(void *user, int64_t declared, const void **bytes) {
    const job *j = user;
    const tn_param *p = j->params[declared];
    const tn_tensor_info *t = j->merged->trained[p - j->merged->adapter->params];
    const int64_t cols = p->shape[1], head_dim = j->merged->arch->head_dim;
    /* B is the one whose columns are the rank */
    const double factor = p->kind == TN_PARAM_LORA_B ? p->scale * (double)cols / j->alpha : 1;
    tn_dequantize(t->dtype, t->data, 0, p->count, j->values);
    for (int64_t i = 0; fabs(factor - 1) > 1e-12 && i < p->count; i++)
        j->values[i] = (float)((double)j->values[i] * factor);
    *bytes = j->values;
    if (!is_interleaved(j, p)) return TN_OK;
    for (int64_t row = 0; row < p->shape[0]; row++)
        memcpy(j->permuted_values + row * cols, j->values + tn_interleaved_to_halves(row, head_dim) * cols,
               (size_t)cols * sizeof(float));
    *bytes = j->permuted_values;
    return TN_OK;
}

/* Every A with its B behind it, in the order of the model's tensors. */
static tn_status declare(job *j, tn_gguf_writer *w) {
    char name[128], whole[144];
    tn_status status = TN_OK;
    for (int64_t i = 0; i < j->merged->count; i++) {
        const tn_merged_tensor *t = &j->merged->tensors[i];
        const tn_param *const pair[] = {t->a, t->b};
        if (!t->a) continue;
        if (!tn_gguf_own_name(t->name, name))
            return tn_fail(TN_FAILED, "the tensor %s has no name in GGUF", t->name);
        for (int k = 0; k < 2; k++) {
            snprintf(whole, sizeof whole, "%s.lora_%c", name, 'a' + k);
            TN_TRY(tn_gguf_declare(w, whole, TN_DTYPE_F32, 2, pair[k]->shape));
            j->params[j->count++] = pair[k];
        }
    }
done:
    return status;
}

tn_status tn_gguf_export_lora(const tn_merged *merged, const char *path) {
    const tn_adapter *adapter = merged->adapter;
    const char *name = merged->adapter_file ? merged->trained[0]->file : "the adapter";
    job j = {.merged = merged};
    tn_gguf_arch arch;
    tn_gguf_writer *w = NULL;
    int64_t largest = 1;
    tn_status status;
    TN_TRY(check(merged, name));
    TN_TRY(tn_gguf_arch_read(&j.arena, merged->arch, tn_model_files_path(merged->files), &arch));
    j.permuted = arch.family->permuted;
    j.alpha =
        adapter->config->lora_alpha * (adapter->config->use_rslora ? sqrt((double)adapter->config->r) : 1);
    j.params = tn_arena_take(&j.arena, adapter->param_count * (int64_t)sizeof *j.params);
    if (!j.params) TN_THROW(TN_FAILED, "out of memory for a list of parameters");
    for (int64_t i = 0; i < adapter->param_count; i++)
        if (adapter->params[i].count > largest) largest = adapter->params[i].count;
    TN_TRY(tn_alloc(&j.values, largest, (int64_t)sizeof *j.values, "LoRA matrices"));
    TN_TRY(tn_alloc(&j.permuted_values, largest, (int64_t)sizeof *j.values, "LoRA matrices"));
    TN_TRY(tn_gguf_writer_new(&w));
    tn_gguf_put_string(w, "general.architecture", arch.family->name, -1);
    tn_gguf_put_string(w, "general.type", "adapter", -1);
    tn_gguf_put_u32(w, "general.file_type", 0);
    tn_gguf_put_string(w, "adapter.type", "lora", -1);
    tn_gguf_put_f32(w, "adapter.lora.alpha", j.alpha);
    TN_TRY(declare(&j, w));
    status = tn_gguf_write(w, path, give, &j);
done:
    tn_gguf_writer_free(w);
    free(j.values);
    free(j.permuted_values);
    tn_arena_free(&j.arena);
    return status;
}
