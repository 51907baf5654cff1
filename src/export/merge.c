/* merge.c: the weights of a merged model, tensor by tensor: two buffers hold the tensor in hand, in fp32 and
 * rounded.
 */
#include "export/merge.h"

#include <stdlib.h>
#include <string.h>

#include "export/model_write.h"
#include "export/pack.h"
#include "model/base_values.h"

const char tn_merged_adapters_key[] = "merged_adapters";

typedef struct job {
    const tn_merged *merged;
    const tn_staging *staging;
    const tn_tensor_info **extras; /* tensors of the base that no module has; declared behind the others */
    int64_t extra_count;
    float *values;
    uint16_t *rounded;
} job;

static tn_dtype written_dtype(const tn_tensor_info *base) {
    return tn_dtype_is_block(base->dtype) ? TN_DTYPE_BF16 : base->dtype;
}

/* A tower that bitsandbytes quantised becomes plain with the rest. */
static tn_status give_extra(const job *j, const tn_tensor_info *t, const void **bytes) {
    *bytes = t->data;
    if (!tn_dtype_is_block(t->dtype)) return TN_OK;
    *bytes = j->rounded;
    const int64_t cols = t->shape[t->rank - 1];
    tn_base_tensor(j->merged->files, t, j->merged->arch->head_dim, j->values);
    return tn_pack(t->name, TN_DTYPE_BF16, j->values, t->elements / cols, cols, j->rounded);
}

static tn_status give(void *user, int64_t declared, const void **bytes) {
    const job *j = user;
    tn_status status = tn_staging_go_on(j->staging);
    if (status != TN_OK) return status;
    if (declared >= j->merged->count) return give_extra(j, j->extras[declared - j->merged->count], bytes);
    const tn_merged_tensor *t = &j->merged->tensors[declared];
    const tn_dtype dtype = written_dtype(t->base);
    *bytes = t->base->data;
    if (!tn_merged_changes(t) && dtype == t->base->dtype && !tn_model_files_permuted(j->merged->files, t->base))
        return TN_OK;
    status = tn_merged_values(j->merged, t, j->values);
    *bytes = j->values;
    if (status != TN_OK || dtype == TN_DTYPE_F32) return status;
    *bytes = j->rounded;
    return tn_pack(t->name, dtype, j->values, t->shape[0], t->shape[1], j->rounded);
}

static bool is_listed(const tn_merged *m, const tn_tensor_info *base) {
    for (int64_t i = 0; i < m->count; i++)
        if (m->tensors[i].base == base || strcmp(m->tensors[i].name, base->name) == 0) return true;
    return false;
}

/* What a model file holds beyond the modules (rotary_emb.inv_freq, a second writing of a tied head) goes along.
 * A GGUF's extra tensors have no name here. */
static tn_status find_extras(job *j, tn_arena *arena) {
    const tn_model_files *files = j->merged->files;
    if (tn_model_files_get_kind(files) == TN_MODEL_GGUF) return TN_OK;
    j->extras = tn_arena_take(arena, (tn_model_files_count(files) + 1) * (int64_t)sizeof *j->extras);
    if (!j->extras) return tn_fail_memory(tn_model_files_count(files) * 8, "a list of tensors");
    for (int64_t i = 0; i < tn_model_files_count(files); i++)
        if (!is_listed(j->merged, tn_model_files_at(files, i)))
            j->extras[j->extra_count++] = tn_model_files_at(files, i);
    return TN_OK;
}

static int64_t largest_tensor(const job *j) {
    int64_t largest = tn_merged_largest(j->merged);
    for (int64_t i = 0; i < j->extra_count; i++)
        if (tn_dtype_is_block(j->extras[i]->dtype) && j->extras[i]->elements > largest)
            largest = j->extras[i]->elements;
    return largest;
}

static tn_status declare(const job *j, tn_model_writer *writer) {
    const bool gguf = tn_model_files_get_kind(j->merged->files) == TN_MODEL_GGUF;
    tn_status status = TN_OK;
    for (int64_t i = 0; i < j->merged->count; i++) {
        const tn_merged_tensor *t = &j->merged->tensors[i];
        TN_TRY(tn_model_writer_add(writer, t->name, written_dtype(t->base), t->rank, t->shape,
                                   gguf ? NULL : tn_path_base(t->base->file)));
    }
    for (int64_t i = 0; i < j->extra_count; i++) {
        const tn_tensor_info *t = j->extras[i];
        TN_TRY(
            tn_model_writer_add(writer, t->name, written_dtype(t), t->rank, t->shape, tn_path_base(t->file)));
    }
done:
    return status;
}

tn_status tn_merge_weights(const tn_merged *merged, const char *digits, const tn_staging *staging) {
    const char *earlier = tn_model_files_metadata(merged->files, tn_merged_adapters_key);
    tn_arena arena = {0};
    tn_model_writer *writer = NULL;
    job j = {.merged = merged, .staging = staging};
    tn_status status;
    TN_TRY(find_extras(&j, &arena));
    TN_TRY(tn_model_writer_new(&writer));
    const char *adapters = earlier ? tn_arena_printf(&arena, "%s,%s", earlier, digits) : digits;
    if (!adapters) TN_THROW(TN_FAILED, "out of memory for a list of adapters");
    TN_TRY(tn_model_writer_metadata(writer, tn_merged_adapters_key, adapters));
    TN_TRY(declare(&j, writer));
    const int64_t largest = largest_tensor(&j);
    TN_TRY(tn_alloc(&j.values, largest, (int64_t)sizeof *j.values, "a tensor"));
    TN_TRY(tn_alloc(&j.rounded, largest, (int64_t)sizeof *j.rounded, "a tensor"));
    status = tn_model_writer_save(writer, staging->directory, give, &j);
done:
    free(j.values);
    free(j.rounded);
    tn_model_writer_free(writer);
    tn_arena_free(&arena);
    return status;
}
