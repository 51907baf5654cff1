/* name_table.h: tensors by name, for files that hold thousands: open addressing over XXH3. */
#ifndef TN_FORMAT_NAME_TABLE_H
#define TN_FORMAT_NAME_TABLE_H

#include "base/mem.h"
#include "format/tensor.h"

typedef struct tn_name_table {
    const tn_tensor_info **slots;
    int64_t size; /* a power of two, at least twice the names */
} tn_name_table;

/* TN_BAD_DATA for a name that stands twice. `tensors` must outlive the table. */
tn_status tn_name_table_build(tn_name_table *table, tn_arena *arena, const tn_tensor_info *tensors,
                              int64_t count);
const tn_tensor_info *tn_name_table_find(const tn_name_table *table, const char *name);

#endif
