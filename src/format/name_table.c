/* name_table.c: see name_table.h. */
#include "format/name_table.h"

#include <string.h>

#include "base/hash.h"

/* Slot of `name`, or the empty one where it would go. */
static int64_t slot_of(const tn_name_table *table, const char *name) {
    int64_t at = (int64_t)(tn_hash64(name, (int64_t)strlen(name)) & (uint64_t)(table->size - 1));
    while (table->slots[at] && strcmp(table->slots[at]->name, name) != 0) at = (at + 1) & (table->size - 1);
    return at;
}

tn_status tn_name_table_build(tn_name_table *table, tn_arena *arena, const tn_tensor_info *tensors,
                              int64_t count) {
    table->size = 16;
    while (table->size < 2 * count) table->size *= 2;
    table->slots = tn_arena_take(arena, table->size * (int64_t)sizeof *table->slots);
    if (!table->slots) return tn_fail_memory(table->size * 8, "a table of names");
    for (int64_t i = 0; i < count; i++) {
        int64_t at = slot_of(table, tensors[i].name);
        if (table->slots[at])
            return tn_fail(TN_BAD_DATA, "%s: tensor %s stands twice", tensors[i].file, tensors[i].name);
        table->slots[at] = &tensors[i];
    }
    return TN_OK;
}

const tn_tensor_info *tn_name_table_find(const tn_name_table *table, const char *name) {
    return table->slots ? table->slots[slot_of(table, name)] : NULL;
}
