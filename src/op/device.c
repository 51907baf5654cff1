/* device.c: from what the user writes ("auto", "cpu", "cuda:1") to an open device. The GPU backend is a library
 * of its own, looked for at run time, so that one build serves machines with and without a GPU.
 */
#define _GNU_SOURCE /* dladdr */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/number.h"
#include "op/cpu/cpu.h"
#include "op/op.h"

static const char library[] = "libtenon-cuda.so";

/* A handle on the library beside this program, in ../lib next to it, or where the loader finds it. */
static void *open_library(void) {
    static const char *const places[] = {"", "../lib/"};
    Dl_info info;
    char path[4096];
    void *handle = NULL;
    /* The address of this function names the file we live in: the program, or libtenon.so. */
    bool known = dladdr((void *)(uintptr_t)&library, &info) != 0 && info.dli_fname;
    const char *slash = known ? strrchr(info.dli_fname, '/') : NULL;
    for (size_t i = 0; slash && !handle && i < sizeof places / sizeof *places; i++) {
        int length = snprintf(path, sizeof path, "%.*s/%s%s", (int)(slash - info.dli_fname), info.dli_fname,
                              places[i], library);
        if (length > 0 && (size_t)length < sizeof path) handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    }
    return handle ? handle : dlopen(library, RTLD_NOW | RTLD_LOCAL);
}

const tn_backend *tn_backend_cuda(const char **why) {
    static const tn_backend *backend;
    static const char *reason;
    if (!backend && !reason) {
        void *handle = open_library();
        const tn_backend *(*entry)(int) = NULL;
        if (handle) *(void **)(&entry) = dlsym(handle, "tn_backend_open");
        if (!handle) reason = "libtenon-cuda.so or one of the libraries it needs was not found";
        else if (!entry) reason = "libtenon-cuda.so has no tn_backend_open";
        else if (!(backend = entry(TN_BACKEND_VERSION)))
            reason = "libtenon-cuda.so is of another version, or there is no driver or no GPU";
    }
    if (why) *why = backend ? NULL : reason;
    return backend;
}

static tn_status open_cuda(int index, tn_dtype dtype, bool dtype_auto, tn_device **device) {
    const char *why;
    const tn_backend *backend = tn_backend_cuda(&why);
    if (!backend) {
        tn_fail(TN_USAGE, "device cuda: %s", why);
        return tn_remedy("build it with `make cuda`, or use --device cpu");
    }
    return backend->open(backend, index, dtype_auto ? TN_DTYPE_BF16 : dtype, device);
}

tn_status tn_device_open(const char *spec, tn_dtype dtype, bool dtype_auto, tn_device **device) {
    int64_t index = 0;
    const char *colon = strchr(spec, ':');
    const size_t length = colon ? (size_t)(colon - spec) : strlen(spec);
    bool known = !colon || (tn_parse_integer(colon + 1, (int64_t)strlen(colon + 1), &index) && index >= 0 &&
                            index <= 1023);
    bool automatic = known && length == 4 && strncmp(spec, "auto", length) == 0;
    if (known && length == 4 && strncmp(spec, "cuda", length) == 0)
        return open_cuda((int)index, dtype, dtype_auto, device);
    if (!automatic && strcmp(spec, "cpu") != 0) {
        tn_fail(TN_USAGE, "unknown device '%s'", spec);
        return tn_remedy("use auto, cpu, cuda or cuda:N");
    }
    if (automatic) {
        if (open_cuda((int)index, dtype, dtype_auto, device) == TN_OK) return TN_OK;
        tn_info("no GPU: %s; computing on the CPU (%s)", tn_error_message(), tn_error_remedy());
    }
    const tn_backend *cpu = tn_backend_cpu();
    return cpu->open(cpu, 0, dtype_auto ? tn_cpu_best_dtype() : dtype, device);
}

void tn_device_close(tn_device *device) {
    if (device) device->backend->close(device);
}
