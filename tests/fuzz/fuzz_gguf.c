/* fuzz_gguf.c: any bytes as a GGUF file, opened as a container and as a model. What is accepted must have its
 * tensors inside the file. Build: clang -fsanitize=fuzzer,address,undefined with src/base and src/format. */
#define _GNU_SOURCE
#include "format/gguf.h"
#include "format/model_files.h"
#include "fuzz/fuzz_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *path = fuzz_file(data, size);
    tn_gguf *file;
    tn_model_files *model;
    char digits[33];
    if (tn_gguf_open(path, &file) != TN_OK) return 0;
    for (int64_t i = 0; i < tn_gguf_count(file); i++) {
        const tn_tensor_info *t = tn_gguf_at(file, i);
        if (tn_gguf_find(file, t->name) != t || t->bytes > (int64_t)size) abort();
        fuzz_touch(t->data, t->bytes);
    }
    tn_gguf_close(file);
    if (tn_model_files_open(path, true, &model) != TN_OK) return 0;
    if (tn_model_files_hash(model, digits) != TN_OK) abort();
    tn_model_files_close(model);
    return 0;
}
