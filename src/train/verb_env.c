/* verb_env.c: what this machine offers and what tenon would use of it. */
#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "base/thread.h"
#include "op/op.h"
#include "train/config.h"

static void put_cpu(tn_json_writer *w) {
    tn_json_key(w, "cpu");
    tn_json_begin(w, '{');
    tn_json_integer_member(w, "threads", tn_threads());
#if defined(__x86_64__)
    tn_json_boolean_member(w, "avx2", __builtin_cpu_supports("avx2"));
    tn_json_boolean_member(w, "avx512", __builtin_cpu_supports("avx512f"));
    tn_json_boolean_member(w, "avx512_bf16", tn_cpu_has_avx512_bf16());
#endif
    tn_json_end(w, '}');
}

static void put_device(tn_json_writer *w, const char *spec) {
    tn_device *device;
    double ceiling = 0;
    if (tn_device_open(spec, TN_DTYPE_F32, true, &device) != TN_OK) return;
    tn_device_ceiling(device, &ceiling);
    tn_json_begin(w, '{');
    tn_json_string_member(w, "backend", device->backend->name);
    tn_json_string_member(w, "name", device->name);
    tn_json_string_member(w, "dtype", tn_dtype_name(device->dtype));
    tn_json_boolean_member(w, "bf16", device->dtype == TN_DTYPE_BF16);
    tn_json_boolean_member(w, "fp8", device->fp8_products);
    tn_json_integer_member(w, "memory_total", device->memory_total);
    tn_json_integer_member(w, "memory_free", device->memory_free);
    tn_json_real_member(w, "product_flops", ceiling);
    tn_json_end(w, '}');
    tn_device_close(device);
}

tn_status tn_env(tn_config *config, tn_doc **doc) {
    const tn_settings *settings;
    const char *why = "";
    tn_device *chosen = NULL;
    tn_str text = {0};
    tn_status status;
    *doc = NULL;
    TN_TRY(tn_config_resolve(config, &settings));
    TN_TRY(tn_threads_set((int)settings->threads));
    TN_TRY(tn_device_open(settings->device ? settings->device : "auto", TN_DTYPE_F32, true, &chosen));
    const bool cuda = tn_backend_cuda(&why) != NULL;
    tn_json_writer w = tn_json_write_to(&text, 0);
    tn_json_begin(&w, '{');
    tn_json_string_member(&w, "version", TENON_VERSION);
    put_cpu(&w);
    tn_json_key(&w, "devices");
    tn_json_begin(&w, '[');
    put_device(&w, "cpu");
    if (cuda) put_device(&w, "cuda");
    tn_json_end(&w, ']');
    tn_json_key(&w, "libraries");
    tn_json_begin(&w, '{');
    tn_json_string_member(&w, "matrix_products", "oneDNN");
    tn_json_string_member(&w, "cuda", cuda ? "libtenon-cuda.so" : why);
    tn_json_end(&w, '}');
    tn_json_string_member(&w, "uses", chosen->name);
    tn_json_end(&w, '}');
    status = tn_doc_from(&text, doc);
done:
    tn_str_free(&text);
    tn_device_close(chosen);
    return status;
}
