/* fuzz_bnb_state.c: a weight beside companions of any sizes and a state of any text. What is folded into one
 * tensor must decode from first to last element without leaving its arrays.
 *
 * Input: bytes of codes, scales and nested scales (a byte each), flags, then the state's JSON.
 */
#include <stdlib.h>
#include <string.h>

#include "format/bnb_state.h"
#include "quant/scaled.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile float sum;

/* `count` numbers in memory of exactly their size. */
static tn_tensor_info companion(const char *name, tn_dtype dtype, int64_t count) {
    tn_tensor_info t = {
        .name = name, .file = "fuzz", .dtype = dtype, .rank = 1, .shape = {count}, .elements = count};
    if (!tn_dtype_bytes(dtype, count, &t.bytes)) abort();
    t.data = calloc(1, (size_t)(t.bytes + (t.bytes == 0)));
    return t;
}

/* Code books as the format has them, so that some inputs get through. */
static void fill_book(tn_tensor_info *t, tn_dtype format) {
    for (int i = 0; i < 16; i++) ((float *)(uintptr_t)t->data)[i] = tn_dtype_code_book(format)[i];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    enum { HEAD = 4, MOST = 8 };
    tn_tensor_info tensors[MOST];
    const void *owned[MOST];
    tn_arena arena = {0};
    tn_name_table names;
    int64_t count = 0, all;
    if (size < HEAD) return 0;
    bool fp4 = data[3] & 1, nested = data[3] & 2, wide = data[3] & 4, bytes = data[3] & 8;
    tensors[count++] = companion("m.weight", bytes ? TN_DTYPE_I8 : wide ? TN_DTYPE_BF16 : TN_DTYPE_U8, data[0]);
    if (bytes)
        tensors[0].rank = 2, tensors[0].shape[0] = data[2] ? data[0] / data[2] : 0,
        tensors[0].shape[1] = data[2];
    if (bytes && tensors[0].shape[0] * tensors[0].shape[1] != tensors[0].elements) tensors[0].rank = 1;
    tensors[count++] =
        companion(bytes ? "m.SCB" : "m.weight.absmax", nested ? TN_DTYPE_U8 : TN_DTYPE_F32, data[1]);
    tensors[count++] = companion("m.weight.quant_map", TN_DTYPE_F32, 16);
    fill_book(&tensors[2], fp4 ? TN_DTYPE_FP4 : TN_DTYPE_NF4);
    tensors[count++] = companion("m.weight.nested_absmax", TN_DTYPE_F32, data[2]);
    tensors[count++] = companion("m.weight.nested_quant_map", TN_DTYPE_F32, 256);
    tensors[count++] =
        companion(fp4 ? "m.weight.quant_state.bitsandbytes__fp4" : "m.weight.quant_state.bitsandbytes__nf4",
                  TN_DTYPE_U8, (int64_t)(size - HEAD));
    memcpy((void *)(uintptr_t)tensors[count - 1].data, data + HEAD, size - HEAD);
    all = count;
    for (int64_t i = 0; i < all; i++) owned[i] = tensors[i].data;
    if (tn_name_table_build(&names, &arena, tensors, count) == TN_OK &&
        tn_bnb_fold(&arena, &names, tensors, &count) == TN_OK)
        for (int64_t i = 0; i < count; i++)
            for (int64_t at = 0; tensors[i].scales && at < tensors[i].elements; at += 7) {
                float values[7];
                int64_t left = tensors[i].elements - at;
                tn_tensor_values(&tensors[i], at, left < 7 ? left : 7, values);
                sum = values[0]; /* not optimised away */
            }
    for (int64_t i = 0; i < all; i++) free((void *)(uintptr_t)owned[i]);
    tn_arena_free(&arena);
    return 0;
}
