/* source.h: what every backend has to know of a tn_source while it loads: the format its weight is held in, its
 * values in order, and its quantised form. Model and backends ask here, so that the plan's sizes and what is
 * loaded cannot disagree.
 */
#ifndef TN_OP_SOURCE_H
#define TN_OP_SOURCE_H

#include "op/op.h"
#include "quant/scaled.h"

/* The format a weight is held in: a trained one in the compute dtype, a block type as it is in the file,
 * another one in what `quantise_to` asks for or else in the compute dtype. */
tn_dtype tn_source_held(const tn_source *source, tn_dtype compute, bool trained);
/* Is it quantised while it is loaded, rather than taken as it is? */
bool tn_source_is_encoded(const tn_source *source, bool trained);
/* Does the tensor fit [rows, cols] in a format for weights? TN_BAD_DATA says how it does not. */
tn_status tn_source_check(const tn_source *source, int64_t rows, int64_t cols);
/* The file's row that belongs at `row`. */
int64_t tn_source_row(const tn_source *source, int64_t row);
/* Elements first … first+count-1 of one row, as floats (multiples of the block where the tensor's blocks hold
 * their scales). */
void tn_source_values(const tn_source *source, int64_t row, int64_t cols, int64_t first, int64_t count,
                      float *out);
/* Layout of a matrix held with scales apart. */
bool tn_source_layout(const tn_source *source, int64_t rows, int64_t cols, tn_scaled_layout *layout);
/* Quantises the matrix into `memory` (on the host) by its layout; *offset is that of its scales. */
tn_status tn_source_encode(const tn_source *source, int64_t rows, int64_t cols, const tn_scaled_layout *layout,
                           void *memory, float *offset);

#endif
