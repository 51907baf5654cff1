/* adapter_gradients.c: tenon's side of gpu_parity.py. Writes the gradient of every adapter tensor of the mean
 * loss over the records of a file, one document each, as safetensors under PEFT's names.
 *
 *   adapter_gradients MODEL ADAPTER RECORDS.jsonl DEVICE DTYPE OUTPUT.safetensors
 */
#include <stdio.h>
#include <stdlib.h>

#include "format/safetensors.h"
#include "train/step.h"

static void must(tn_status status) {
    if (status == TN_OK) return;
    fprintf(stderr, "%s (%s)\n", tn_error_message(), tn_error_remedy());
    exit(1);
}

static tn_status gradient(void *user, int64_t declared, const void **bytes) {
    static float *values;
    const tn_engine *e = user;
    const tn_param *p = &e->adapter->params[declared];
    free(values);
    values = malloc((size_t)p->count * sizeof *values);
    *bytes = values;
    return e->device->backend->download(e->device, values, e->adapter->grads + p->offset,
                                        p->count * (int64_t)sizeof *values);
}

/* All records as one batch. */
static void read_batch(tn_engine *e, tn_batch *batch) {
    tn_dataset *data;
    tn_loader *loader;
    must(tn_engine_dataset(e, e->settings->dataset, e->settings->datasets, false, &data));
    must(tn_loader_new(data, &(tn_loader_options){.batch_size = INT32_MAX, .max_length = e->max_length},
                       &loader));
    must(tn_loader_get(loader, 0, 0, batch));
    tn_loader_free(loader);
    tn_dataset_free(data);
}

int main(int argc, char **argv) {
    static const char *const keys[] = {"model", "adapter", "dataset", "device", "dtype"};
    tn_config *config;
    tn_engine e;
    tn_batch batch = {0};
    tn_safetensors_writer *writer;
    if (argc != 7) return 2;
    must(tn_config_new("train", &config));
    for (int i = 0; i < 5; i++) must(tn_config_set(config, keys[i], argv[i + 1]));
    must(tn_config_set(config, "output_dir", "unused"));
    must(tn_engine_open(config, TN_USE_TRAIN, true, NULL, &e));
    read_batch(&e, &batch);
    must(tn_engine_plan(&e, batch.tokens, batch.documents, batch.longest, 0));
    must(tn_engine_allocate(&e));
    must(tn_pass_train(e.pass, &batch, 1.0f / (float)batch.labelled, NULL));
    must(tn_safetensors_writer_new(&writer));
    for (int64_t i = 0; i < e.adapter->param_count; i++) {
        const tn_param *p = &e.adapter->params[i];
        must(tn_safetensors_declare(writer, p->name, TN_DTYPE_F32, 2, p->shape));
    }
    must(tn_safetensors_write(writer, argv[6], gradient, &e));
    tn_safetensors_writer_free(writer);
    tn_batch_free(&batch);
    tn_engine_close(&e);
    tn_config_free(config);
    return 0;
}
