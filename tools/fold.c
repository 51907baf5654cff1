/* fold.c: a model out of a base and an adapter whose modules are all trained in full (modules_to_save): the
 * base's tensors, those that the adapter holds taken from it, written in bf16 or as they are.
 *
 *   fold BASE_DIRECTORY ADAPTER_DIRECTORY OUTPUT_DIRECTORY [bfloat16]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "format/safetensors.h"

typedef struct folder {
    tn_safetensors *base, *adapter;
    int64_t replaced;
    bool narrow;
    uint16_t *values; /* the tensor in hand, in bf16 */
} folder;

/* The tensor that stands for the base's `index`: the adapter's of the same module, else the base's own. */
static const tn_tensor_info *chosen(const folder *f, int64_t index) {
    const tn_tensor_info *own = tn_safetensors_at(f->base, index);
    char name[256];
    snprintf(name, sizeof name, "base_model.model.%s", own->name);
    const tn_tensor_info *trained = tn_safetensors_find(f->adapter, name);
    return trained ? trained : own;
}

static tn_status give(void *user, int64_t index, const void **bytes) {
    folder *f = user;
    const tn_tensor_info *t = chosen(f, index);
    *bytes = t->data;
    if (!f->narrow) return TN_OK;
    uint16_t *grown = realloc(f->values, (size_t)t->elements * sizeof *grown);
    if (!grown) return tn_fail_memory(t->elements * 2, t->name);
    f->values = grown;
    for (int64_t i = 0; i < t->elements; i++) f->values[i] = tn_f32_to_bf16(((const float *)t->data)[i]);
    *bytes = f->values;
    return TN_OK;
}

static tn_status declare(folder *f, tn_safetensors_writer *writer) {
    tn_status status = tn_safetensors_metadata_add(writer, "format", "pt");
    for (int64_t i = 0; status == TN_OK && i < tn_safetensors_count(f->base); i++) {
        const tn_tensor_info *own = tn_safetensors_at(f->base, i), *t = chosen(f, i);
        if (t->dtype != TN_DTYPE_F32) return tn_fail(TN_USAGE, "%s is not in float32", t->name);
        f->replaced += t != own;
        status = tn_safetensors_declare(writer, own->name, f->narrow ? TN_DTYPE_BF16 : TN_DTYPE_F32, own->rank,
                                        own->shape);
    }
    if (status == TN_OK && f->replaced != tn_safetensors_count(f->adapter))
        return tn_fail(TN_USAGE, "the adapter holds tensors that are no whole modules of the base");
    return status;
}

static tn_status fold(char **argv, bool narrow) {
    folder f = {.narrow = narrow};
    tn_safetensors_writer *writer = NULL;
    tn_arena arena = {0};
    tn_status status;
    TN_TRY(tn_make_directories(argv[3]));
    TN_TRY(tn_safetensors_open(tn_path_join(&arena, argv[1], "model.safetensors"), &f.base));
    TN_TRY(tn_safetensors_open(tn_path_join(&arena, argv[2], "adapter_model.safetensors"), &f.adapter));
    TN_TRY(tn_safetensors_writer_new(&writer));
    TN_TRY(declare(&f, writer));
    status = tn_safetensors_write(writer, tn_path_join(&arena, argv[3], "model.safetensors"), give, &f);
done:
    free(f.values);
    tn_safetensors_writer_free(writer);
    tn_safetensors_close(f.adapter);
    tn_safetensors_close(f.base);
    tn_arena_free(&arena);
    return status;
}

int main(int argc, char **argv) {
    bool narrow = argc == 5 && strcmp(argv[4], "bfloat16") == 0;
    if (argc != 4 && !narrow) return fprintf(stderr, "usage: fold BASE ADAPTER OUTPUT [bfloat16]\n"), 2;
    if (fold(argv, narrow) == TN_OK) return 0;
    fprintf(stderr, "fold: %s\n", tn_error_message());
    return 1;
}
