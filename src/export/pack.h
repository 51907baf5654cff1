/* pack.h: fp32 values to the bytes of a storage format, row by row on all threads. */
#ifndef TN_EXPORT_PACK_H
#define TN_EXPORT_PACK_H

#include "base/dtype.h"

/* `out` gets rows · cols values in `dtype`; a row is whole blocks. `name` stands in messages. Errors:
 * TN_NUMERIC for a value beyond float16's range and for one that is not finite where blocks are asked for. */
tn_status tn_pack(const char *name, tn_dtype dtype, const float *values, int64_t rows, int64_t cols, void *out);

#endif
