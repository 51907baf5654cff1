/* fuzz_safetensors.c: any bytes as a safetensors file. What is accepted must have its tensors inside the file
 * and be found by name. Build: clang -fsanitize=fuzzer,address,undefined with src/base and src/format. */
#define _GNU_SOURCE
#include "format/safetensors.h"
#include "fuzz/fuzz_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tn_safetensors *file;
    if (tn_safetensors_open(fuzz_file(data, size), &file) != TN_OK) return 0;
    int64_t total = 0;
    for (int64_t i = 0; i < tn_safetensors_count(file); i++) {
        const tn_tensor_info *t = tn_safetensors_at(file, i);
        if (tn_safetensors_find(file, t->name) != t) abort();
        fuzz_touch(t->data, t->bytes);
        total += t->bytes;
    }
    if (total > (int64_t)size - 10) abort();
    tn_safetensors_close(file);
    return 0;
}
