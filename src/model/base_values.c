/* base_values.c: see base_values.h. A bias is permuted like the rows of its weight. */
#include "model/base_values.h"

#include "quant/scaled.h"

void tn_base_row(const tn_model_files *files, const tn_tensor_info *t, int64_t head_dim, int64_t row,
                 float *out) {
    const int64_t cols = t->rank == 2 ? t->shape[1] : 1;
    const int64_t stored = tn_model_files_permuted(files, t) ? tn_halves_to_interleaved(row, head_dim) : row;
    tn_tensor_values(t, stored * cols, cols, out);
}

void tn_base_tensor(const tn_model_files *files, const tn_tensor_info *t, int64_t head_dim, float *out) {
    const int64_t cols = t->rank == 2 ? t->shape[1] : 1;
    if (!tn_model_files_permuted(files, t)) {
        tn_tensor_values(t, 0, t->elements, out);
        return;
    }
    for (int64_t row = 0; row < t->shape[0]; row++) tn_base_row(files, t, head_dim, row, out + row * cols);
}
