/* fuzz_yaml.c: any bytes give a tree or a status; the tree is small enough to be written (aliases are bounded),
 * and what was written is JSON. */
#include <stdlib.h>

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tn_arena arena = {0};
    const tn_json *root = NULL, *again = NULL;
    tn_status status = tn_yaml_parse(&arena, (const char *)data, (int64_t)size, "fuzz", &root);
    if (status != TN_OK && status != TN_BAD_DATA && status != TN_USAGE) abort();
    if ((status == TN_OK) != (root != NULL)) abort();
    if (root) {
        tn_str out = {0};
        tn_json_writer w = tn_json_write_to(&out, 0);
        tn_json_put(&w, root);
        if (out.length > 16 * ((int64_t)size + (1 << 20))) abort();
        if (tn_json_parse(&arena, out.data, out.length, TN_JSON_UNIQUE_KEYS, "written", &again) != TN_OK)
            abort();
        tn_str_free(&out);
    }
    tn_arena_free(&arena);
    return 0;
}
