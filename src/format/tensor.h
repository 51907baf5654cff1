/* tensor.h: what a file says of one tensor, whatever the file's format: name, storage format, shape in
 * row-major (torch) order and where its bytes are mapped.
 */
#ifndef TN_FORMAT_TENSOR_H
#define TN_FORMAT_TENSOR_H

#include "base/dtype.h"

enum { TN_MAX_RANK = 8 };

typedef struct tn_tensor_info {
    const char *name;
    tn_dtype dtype;
    int rank;
    int64_t shape[TN_MAX_RANK]; /* row-major: a weight is [out, in] */
    int64_t elements, bytes;
    const void *data; /* into the mapping; aligned to the dtype's size at best */
    const char *file; /* path, for messages */
} tn_tensor_info;

/* "[768, 3072]" into `out`. */
const char *tn_shape_text(const tn_tensor_info *tensor, char out[128]);

#endif
