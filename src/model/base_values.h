/* base_values.h: values of the base's tensors in Hugging Face's order and in fp32, whatever the file's format:
 * block types are decoded, and the interleaved rows of llama.cpp's q and k are put back in their places.
 */
#ifndef TN_MODEL_BASE_VALUES_H
#define TN_MODEL_BASE_VALUES_H

#include "format/model_files.h"

/* Row `row` of a matrix, [cols], or element `row` of a vector. The tensor must be of a float or block type. */
void tn_base_row(const tn_model_files *files, const tn_tensor_info *tensor, int64_t head_dim, int64_t row,
                 float *out);
/* The whole tensor, [elements]. */
void tn_base_tensor(const tn_model_files *files, const tn_tensor_info *tensor, int64_t head_dim, float *out);

#endif
