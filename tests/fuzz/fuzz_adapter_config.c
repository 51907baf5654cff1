/* fuzz_adapter_config.c: any bytes as the adapter_config.json of an adapter. What is accepted has a rank and an
 * alpha that can be computed with for every module, and is handed on whole: written, read and written again it
 * is the same text. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "format/peft_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A directory in memory; the reader wants one. */
static char directory[32], path[64]; /* of adapter_config.json in it */

static void remove_directory(void) {
    unlink(path);
    rmdir(directory);
}

static void write_input(const uint8_t *data, size_t size) {
    if (!*directory) {
        snprintf(directory, sizeof directory, "/dev/shm/fuzz-XXXXXX");
        if (!mkdtemp(directory)) abort();
        snprintf(path, sizeof path, "%s/adapter_config.json", directory);
        atexit(remove_directory);
    }
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, size, file) != size || fclose(file) != 0) abort();
}

static void ask(const tn_peft_config *config) {
    static const char *const modules[] = {"model.embed_tokens", "model.layers.0.self_attn.q_proj",
                                          "model.layers.11.mlp.down_proj", "model.layers.11.input_layernorm",
                                          "lm_head"};
    tn_targeting *targeting;
    if (tn_targeting_new(config, &targeting) != TN_OK) return;
    for (size_t i = 0; i < sizeof modules / sizeof *modules; i++) {
        int64_t r = 0;
        double alpha = NAN;
        (void)tn_targeting_full(targeting, modules[i]);
        if (!tn_targeting_lora(targeting, modules[i], i == 4, &r, &alpha)) continue;
        if (r < 1 || r > 1 << 20 || !isfinite(alpha)) abort();
    }
    (void)tn_targeting_unmatched(targeting);
    tn_targeting_free(targeting);
}

/* The text that `config` is written as. */
static tn_str written(const tn_peft_config *config) {
    tn_str text = {0};
    if (tn_peft_config_write(config, directory) != TN_OK || tn_read_file(path, 1 << 24, &text) != TN_OK)
        abort();
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tn_peft_config *config, *again;
    write_input(data, size);
    if (tn_peft_config_read(directory, &config) != TN_OK) {
        if (config) abort();
        return 0;
    }
    ask(config);
    if (!config->unsupported) { /* others are never written */
        tn_str first = written(config);
        if (tn_peft_config_read(directory, &again) != TN_OK) abort();
        tn_str second = written(again);
        if (first.length != second.length || memcmp(first.data, second.data, (size_t)first.length) != 0)
            abort();
        tn_str_free(&first);
        tn_str_free(&second);
        tn_peft_config_free(again);
    }
    tn_peft_config_free(config);
    return 0;
}
