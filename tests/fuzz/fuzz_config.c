/* fuzz_config.c: any bytes as the config.json of a model. What is accepted has sizes that can be multiplied. */
#include <stdlib.h>

#include "model/module.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tn_arena arena = {0};
    const tn_json *root;
    tn_arch arch;
    if (tn_json_parse(&arena, (const char *)data, (int64_t)size, TN_JSON_DEFAULT, "fuzz", &root) == TN_OK &&
        tn_arch_read(&arena, root, NULL, "fuzz", &arch) == TN_OK) {
        if (tn_arch_parameters(&arch) < 1 || arch.trained_length < 1) abort();
        for (int i = 0; i < arch.eos_count; i++)
            if (arch.eos[i] < 0 || arch.eos[i] >= arch.vocab) abort();
    }
    tn_arena_free(&arena);
    return 0;
}
