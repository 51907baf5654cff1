/* gguf_export.c: a merged model as one GGUF file, tensor by tensor: two buffers hold the tensor in hand, in
 * fp32 and as it is written. Rows of q and k are interleaved on the way where the family's graph wants them so.
 */
#include "export/gguf_export.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "export/gguf_arch.h"
#include "export/pack.h"
#include "model/base_values.h"

enum { QUANTIZATION_VERSION = 2 };

typedef struct job {
    tn_arena arena;
    const tn_merged *merged;
    const tn_staging *staging;
    tn_gguf_choice choice;
    tn_gguf_arch arch;
    tn_dtype *dtypes; /* [merged->count] */
    float *values;
    void *packed;
} job;

/* The format of the next size up whose blocks a row is made of (llama.cpp: src/llama-quant.cpp). */
static tn_dtype fitting(tn_dtype dtype, int64_t cols) {
    static const struct {
        tn_dtype wanted, instead;
    } fallback[] = {
        {TN_DTYPE_Q4_K, TN_DTYPE_Q5_0}, {TN_DTYPE_Q5_K, TN_DTYPE_Q5_1}, {TN_DTYPE_Q6_K, TN_DTYPE_Q8_0}};
    for (size_t i = 0; i < sizeof fallback / sizeof *fallback && cols % tn_dtype_block(dtype); i++)
        if (dtype == fallback[i].wanted) dtype = fallback[i].instead;
    return cols % tn_dtype_block(dtype) ? TN_DTYPE_F16 : dtype;
}

static bool is_encodable(tn_dtype dtype) {
    static const tn_dtype known[] = {TN_DTYPE_F32,  TN_DTYPE_F16,  TN_DTYPE_BF16, TN_DTYPE_Q8_0,
                                     TN_DTYPE_Q4_0, TN_DTYPE_Q4_1, TN_DTYPE_Q5_0, TN_DTYPE_Q5_1,
                                     TN_DTYPE_Q4_K, TN_DTYPE_Q5_K, TN_DTYPE_Q6_K};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i] == dtype) return true;
    return false;
}

/* The file's order of rows is llama.cpp's interleaved one. */
static bool is_interleaved(const job *j, const tn_merged_tensor *t) {
    return j->arch.family->permuted && (t->module == TN_MODULE_Q || t->module == TN_MODULE_K);
}

/* The base's bytes are what the file gets; formats whose scales lie apart have no place in one. */
static bool keeps_bytes(const job *j, const tn_merged_tensor *t, tn_dtype dtype) {
    return !tn_merged_changes(t) && t->base->dtype == dtype && !t->base->scales &&
           tn_model_files_permuted(j->merged->files, t->base) == is_interleaved(j, t);
}

static void choose_dtypes(job *j) {
    int64_t fallen = 0;
    const char *example = NULL;
    for (int64_t i = 0; i < j->merged->count; i++) {
        const tn_merged_tensor *t = &j->merged->tensors[i];
        tn_dtype dtype = j->choice.given ? j->choice.dtype : t->base->dtype;
        if (t->rank == 1) dtype = TN_DTYPE_F32;
        if (!j->choice.given && !is_encodable(dtype) && !keeps_bytes(j, t, dtype)) dtype = TN_DTYPE_Q8_0;
        j->dtypes[i] = fitting(dtype, t->shape[t->rank - 1]);
        if (t->rank == 2 && j->choice.given && j->dtypes[i] != dtype && fallen++ == 0) example = t->name;
    }
    if (fallen > 0)
        tn_warn(
            "%lld matrices have rows that are no whole blocks of %s and are written in another format (%s, …)",
            (long long)fallen, tn_dtype_name(j->choice.dtype), example);
}

/* llama.cpp's number for what most of a file is in (llama.h: enum llama_ftype); plain Q4_K and Q5_K are
 * "small". */
static int file_type(tn_dtype dtype) {
    static const struct {
        tn_dtype dtype;
        int number;
    } types[] = {{TN_DTYPE_F32, 0},   {TN_DTYPE_F16, 1},     {TN_DTYPE_Q4_0, 2},   {TN_DTYPE_Q4_1, 3},
                 {TN_DTYPE_Q8_0, 7},  {TN_DTYPE_Q5_0, 8},    {TN_DTYPE_Q5_1, 9},   {TN_DTYPE_Q2_K, 10},
                 {TN_DTYPE_Q3_K, 11}, {TN_DTYPE_Q4_K, 14},   {TN_DTYPE_Q5_K, 16},  {TN_DTYPE_Q6_K, 18},
                 {TN_DTYPE_BF16, 32}, {TN_DTYPE_IQ4_NL, 25}, {TN_DTYPE_IQ4_XS, 30}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].dtype == dtype) return types[i].number;
    return 0;
}

/* What the first layer's gate is in stands for the file. */
static tn_dtype main_dtype(const job *j) {
    if (j->choice.given) return j->choice.dtype;
    for (int64_t i = 0; i < j->merged->count; i++)
        if (j->merged->tensors[i].module == TN_MODULE_GATE) return j->dtypes[i];
    return TN_DTYPE_F32;
}

/* Name of the model: its directory's or file's, where that is text. */
static const char *name_of(tn_arena *arena, const char *path) {
    char *whole = realpath(path, NULL); /* "." has a name, too */
    const char *name = whole ? tn_arena_printf(arena, "%s", tn_path_base(whole)) : NULL;
    free(whole);
    return name && *name && tn_utf8_valid(name, (int64_t)strlen(name)) ? name : "model";
}

static void put_general(job *j, tn_gguf_writer *w) {
    tn_gguf_put_string(w, "general.architecture", j->arch.family->name, -1);
    tn_gguf_put_string(w, "general.type", "model", -1);
    tn_gguf_put_string(w, "general.name", name_of(&j->arena, tn_model_files_path(j->merged->files)), -1);
    tn_gguf_put_u32(w, "general.file_type", file_type(main_dtype(j)));
    tn_gguf_put_u32(w, "general.quantization_version", QUANTIZATION_VERSION);
}

static tn_status declare(job *j, tn_gguf_writer *w) {
    const int64_t half = j->merged->arch->head_dim / 2;
    char name[128];
    tn_status status = TN_OK;
    for (int64_t i = 0; i < j->merged->count; i++) {
        const tn_merged_tensor *t = &j->merged->tensors[i];
        if (!tn_gguf_own_name(t->name, name))
            return tn_fail(TN_FAILED, "the tensor %s has no name in GGUF", t->name);
        TN_TRY(tn_gguf_declare(w, name, j->dtypes[i], t->rank, t->shape));
    }
    for (int i = 0; i < j->arch.factor_count; i++)
        TN_TRY(tn_gguf_declare(w, j->arch.factors[i].name, TN_DTYPE_F32, 1, &half));
done:
    return status;
}

/* Rows in the interleaved order: row 2i+p of a head is row p·(head_dim/2)+i. `packed` is scratch of the same
 * size. */
static void interleave(const job *j, const tn_merged_tensor *t) {
    float *copy = j->packed;
    const int64_t cols = t->shape[1], head_dim = j->merged->arch->head_dim;
    for (int64_t row = 0; row < t->shape[0]; row++)
        memcpy(copy + row * cols, j->values + tn_interleaved_to_halves(row, head_dim) * cols,
               (size_t)cols * sizeof *copy);
    memcpy(j->values, copy, (size_t)t->count * sizeof *copy);
}

static tn_status give(void *user, int64_t declared, const void **bytes) {
    const job *j = user;
    tn_status status = tn_staging_go_on(j->staging);
    if (status != TN_OK) return status;
    if (declared >= j->merged->count) {
        *bytes = j->arch.factors[declared - j->merged->count].values;
        return TN_OK;
    }
    const tn_merged_tensor *t = &j->merged->tensors[declared];
    const tn_dtype dtype = j->dtypes[declared];
    *bytes = t->base->data;
    if (keeps_bytes(j, t, dtype)) return TN_OK;
    status = tn_merged_values(j->merged, t, j->values);
    if (status != TN_OK) return status;
    if (is_interleaved(j, t)) interleave(j, t);
    *bytes = j->packed;
    const int64_t rows = t->rank == 2 ? t->shape[0] : 1;
    return tn_pack(t->name, dtype, j->values, rows, t->count / rows, j->packed);
}

tn_status tn_gguf_export(const tn_merged *merged, const tn_chat *chat, const int32_t *stops, int64_t stop_count,
                         tn_gguf_choice choice, const tn_staging *staging) {
    job j = {.merged = merged, .staging = staging, .choice = choice};
    const tn_arch *arch = merged->arch;
    const int64_t largest = tn_merged_largest(merged);
    tn_gguf_writer *w = NULL;
    tn_status status;
    TN_TRY(tn_gguf_arch_read(&j.arena, arch, tn_model_files_path(merged->files), &j.arch));
    TN_TRY(tn_alloc(&j.dtypes, merged->count, (int64_t)sizeof *j.dtypes, "tensor formats"));
    choose_dtypes(&j);
    TN_TRY(tn_gguf_writer_new(&w));
    put_general(&j, w);
    tn_gguf_put_config(w, j.arch.family, j.arch.config);
    TN_TRY(tn_chat_put_gguf(chat, arch->vocab, stops, stop_count, w));
    TN_TRY(declare(&j, w));
    TN_TRY(tn_alloc(&j.values, largest, (int64_t)sizeof *j.values, "a tensor"));
    TN_TRY(tn_alloc(&j.packed, largest, (int64_t)sizeof *j.values, "a tensor"));
    status = tn_gguf_write(w, staging->file, give, &j);
done:
    tn_gguf_writer_free(w);
    free(j.dtypes);
    free(j.values);
    free(j.packed);
    tn_arena_free(&j.arena);
    return status;
}
