/* memory.c: the reference as a device: host memory, no queue, so every operation is over when it returns. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/host_memory.h"
#include "base/mem.h"
#include "op/ref/reference.h"

void tn_host_memory(tn_device *device) {
    device->memory_total = tn_host_memory_total();
    device->memory_free = tn_host_memory_available();
}

tn_status tn_ref_open(const tn_backend *backend, int index, tn_dtype dtype, tn_device **device) {
    tn_status status = tn_alloc(device, 1, sizeof **device, "device");
    if (status != TN_OK) return status;
    (*device)->backend = backend;
    (*device)->dtype = dtype;
    (*device)->index = index;
    snprintf((*device)->name, sizeof(*device)->name, "plain C reference");
    tn_host_memory(*device);
    return TN_OK;
}

void tn_ref_close(tn_device *device) { free(device); }

tn_status tn_ref_allocate(tn_device *device, int64_t bytes, void **memory) {
    (void)device;
    return tn_alloc_aligned(memory, bytes, "the arena");
}

void tn_ref_release(tn_device *device, void *memory) {
    (void)device;
    free(memory);
}

tn_status tn_ref_upload(tn_device *device, void *to, const void *from, int64_t bytes) {
    (void)device;
    if (bytes > 0) memcpy(to, from, (size_t)bytes);
    return TN_OK;
}

tn_status tn_ref_download(tn_device *device, void *to, const void *from, int64_t bytes) {
    return tn_ref_upload(device, to, from, bytes);
}

tn_status tn_ref_zero(tn_device *device, void *memory, int64_t bytes) {
    (void)device;
    if (bytes > 0) memset(memory, 0, (size_t)bytes);
    return TN_OK;
}

tn_status tn_ref_sync(tn_device *device) {
    (void)device;
    return TN_OK;
}

tn_status tn_ref_host_allocate(tn_device *device, int64_t bytes, void **memory) {
    (void)device;
    return tn_alloc_aligned(memory, bytes, "what is moved out of the device");
}

void tn_ref_host_release(tn_device *device, void *memory, int64_t bytes) {
    (void)bytes;
    tn_ref_release(device, memory);
}

tn_status tn_ref_move(tn_device *device, void *to, const void *from, int64_t bytes) {
    return tn_ref_upload(device, to, from, bytes);
}

int64_t tn_ref_scratch_bytes(tn_device *device, const tn_limits *limits) {
    (void)device, (void)limits;
    return 0;
}
