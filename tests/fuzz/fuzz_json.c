/* fuzz_json.c: any bytes give a tree or TN_BAD_DATA; a tree that is written reads back, and writes the same
 * again. The first byte chooses the flags. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const tn_json *parse(tn_arena *arena, const char *text, int64_t length, int flags) {
    const tn_json *root = NULL;
    tn_status status = tn_json_parse(arena, text, length, flags, "fuzz", &root);
    if (status != TN_OK && status != TN_BAD_DATA) abort();
    if ((status == TN_OK) != (root != NULL)) abort();
    return root;
}

static tn_str write(const tn_json *root, int indent) {
    tn_str out = {0};
    tn_json_writer w = tn_json_write_to(&out, indent);
    tn_json_put(&w, root);
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tn_arena arena = {0};
    if (size == 0) return 0;
    int flags = data[0] & 3;
    const tn_json *root = parse(&arena, (const char *)data + 1, (int64_t)size - 1, flags);
    if (root) {
        tn_str first = write(root, data[0] & 4 ? 2 : 0);
        const tn_json *again = parse(&arena, first.data, first.length, TN_JSON_DEFAULT);
        if (!again) abort();
        tn_str second = write(again, data[0] & 4 ? 2 : 0);
        if (first.length != second.length || memcmp(first.data, second.data, (size_t)first.length) != 0)
            abort();
        tn_str_free(&first);
        tn_str_free(&second);
    }
    tn_arena_free(&arena);
    return 0;
}
