/* device.c: opening a GPU, its memory, and the table of the backend.
 *
 * One cudaMalloc per allocate(); upload and download of small things use ordinary copies on the compute
 * stream and wait. context_bytes is what the driver takes beside that: measured around the creation of the
 * context and the library handles, plus LAZY_MODULES for kernels the libraries load at their first use.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/host_memory.h"
#include "base/integer.h"
#include "base/mem.h"
#include "op/cuda/cuda.h"

enum { LAZY_MODULES = 96 << 20, OLDEST_CAPABILITY = 80 };
enum { PINNED_SHARE = 512 }; /* 8 bytes of page table for each 4 KiB */

tn_status tn_cuda_check(cudaError_t error, const char *what) {
    if (error == cudaSuccess) return TN_OK;
    tn_fail(error == cudaErrorMemoryAllocation ? TN_NO_FIT : TN_FAILED, "GPU: %s: %s", what,
            cudaGetErrorString(error));
    if (error == cudaErrorMemoryAllocation)
        tn_remedy("close other programs on this GPU, or choose a smaller batch");
    return error == cudaErrorMemoryAllocation ? TN_NO_FIT : TN_FAILED;
}

tn_status tn_cuda_launched(const char *what) { return tn_cuda_check(cudaGetLastError(), what); }

void tn_cuda_begin(tn_device *device) { tn_cuda(device)->used = TN_CUDA_WORKSPACE; }

void *tn_cuda_take(tn_device *device, int64_t bytes) {
    tn_cuda_device *cuda = tn_cuda(device);
    bytes = tn_cuda_round(bytes);
    if (bytes > device->scratch_size - cuda->used) {
        tn_fail(TN_FAILED, "GPU: an operation needs %lld bytes of scratch and %lld are left", (long long)bytes,
                (long long)(device->scratch_size - cuda->used));
        return NULL;
    }
    void *memory = (char *)device->scratch + cuda->used;
    cuda->used += bytes;
    return memory;
}

/* ---- Open and close ---------------------------------------------------------------------------------- */

/* Bytes in use on the card by everybody, as nvidia-smi counts them; -1 where NVML cannot say. The driver's own
 * reserve is no part of it. cudaMemGetInfo would not do: it needs the context that is to be measured. */
static int64_t used_on_card(int index) {
    typedef struct nvml_memory { /* nvmlMemory_v2_t */
        unsigned version;
        unsigned long long total, reserved, free, used;
    } nvml_memory;
    nvml_memory memory = {.version = (unsigned)sizeof memory | 2u << 24};
    char bus[32];
    int64_t used = -1;
    void *handle = NULL, *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) return -1;
    int (*start)(void), (*find)(const char *, void **), (*ask)(void *, nvml_memory *);
    *(void **)(&start) = dlsym(library, "nvmlInit_v2");
    *(void **)(&find) = dlsym(library, "nvmlDeviceGetHandleByPciBusId_v2");
    *(void **)(&ask) = dlsym(library, "nvmlDeviceGetMemoryInfo_v2");
    if (start && find && ask && start() == 0 && cudaDeviceGetPCIBusId(bus, sizeof bus, index) == cudaSuccess &&
        find(bus, &handle) == 0 && ask(handle, &memory) == 0)
        used = (int64_t)memory.used;
    dlclose(library);
    return used;
}

static tn_status describe(tn_cuda_device *cuda) {
    struct cudaDeviceProp properties;
    tn_status status =
        tn_cuda_check(cudaGetDeviceProperties(&properties, cuda->base.index), "device properties");
    if (status != TN_OK) return status;
    snprintf(cuda->base.name, sizeof cuda->base.name, "%.127s", properties.name);
    cuda->multiprocessors = properties.multiProcessorCount;
    cuda->capability = properties.major * 10 + properties.minor;
    /* scales by row: Hopper alone, and results of 16 bits */
    cuda->base.fp8_products = cuda->capability == 90 && cuda->base.dtype != TN_DTYPE_F32;
    cuda->shared_limit = (int)properties.sharedMemPerBlockOptin;
    if (cuda->capability >= OLDEST_CAPABILITY) return TN_OK;
    tn_fail(TN_USAGE, "%s has compute capability %d.%d; 8.0 or later is needed", properties.name,
            properties.major, properties.minor);
    return tn_remedy("use --device cpu");
}

static tn_status check_index(int index, tn_dtype dtype) {
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || count == 0) {
        tn_fail(TN_USAGE, "device cuda: no usable GPU: %s",
                error != cudaSuccess ? cudaGetErrorString(error) : "none was found");
        return tn_remedy("check nvidia-smi and the driver's version, or use --device cpu");
    }
    if (index >= count) {
        tn_fail(TN_USAGE, "device cuda:%d: there is no such GPU, this machine has %d", index, count);
        return tn_remedy("numbers start at 0: cuda:0 … cuda:%d", count - 1);
    }
    if (!tn_dtype_is_float(dtype))
        return tn_fail(TN_USAGE, "%s is no format to compute in", tn_dtype_name(dtype));
    return TN_OK;
}

static void close_device(tn_device *device) {
    tn_cuda_device *cuda = tn_cuda(device);
    cudaSetDevice(device->index);
    tn_cuda_reducer.leave(device);
    tn_cuda_ring_close(cuda);
    tn_cuda_plans_close(cuda);
    tn_cuda_gemms_close(cuda);
    if (cuda->copies) cudaStreamDestroy(cuda->copies);
    if (cuda->stream) cudaStreamDestroy(cuda->stream);
    free(cuda);
}

static tn_status open_device(const tn_backend *backend, int index, tn_dtype dtype, tn_device **device) {
    tn_cuda_device *cuda = NULL;
    size_t left = 0, total = 0;
    tn_status status = check_index(index, dtype);
    if (status != TN_OK) return status;
    TN_TRY(tn_alloc(&cuda, 1, sizeof *cuda, "GPU device"));
    cuda->base = (tn_device){.backend = backend, .dtype = dtype, .index = index};
    TN_TRY(describe(cuda));
    int64_t before = used_on_card(index);
    TN_TRY(tn_cuda_check(cudaSetDevice(index), "selecting the device"));
    TN_TRY(tn_cuda_check(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking), "creating a stream"));
    TN_TRY(tn_cuda_check(cudaStreamCreateWithFlags(&cuda->copies, cudaStreamNonBlocking), "creating a stream"));
    TN_TRY(tn_cuda_gemms_open(cuda));
    TN_TRY(tn_cuda_plans_open(cuda));
    TN_TRY(tn_cuda_check(cudaMemGetInfo(&left, &total), "asking for free memory"));
    cuda->base.memory_total = (int64_t)total;
    int64_t used = before >= 0 ? used_on_card(index) - before : (int64_t)(total - left);
    cuda->base.context_bytes = used + LAZY_MODULES;
    cuda->base.memory_free = (int64_t)left - LAZY_MODULES;
    cuda->base.pinned_share = PINNED_SHARE;
    cuda->base.pinnable = tn_host_memory_available() / 8 * 7; /* the rest for everybody else */
    *device = &cuda->base;
    return TN_OK;
done:
    if (cuda) close_device(&cuda->base);
    return status;
}

/* ---- Memory ------------------------------------------------------------------------------------------ */

static tn_status allocate(tn_device *device, int64_t bytes, void **memory) {
    char size[64];
    snprintf(size, sizeof size, "allocating %lld bytes", (long long)bytes);
    cudaSetDevice(device->index);
    return tn_cuda_check(cudaMalloc(memory, (size_t)(bytes > 0 ? bytes : 1)), size);
}

static void release(tn_device *device, void *memory) {
    cudaStreamSynchronize(tn_cuda(device)->stream);
    cudaFree(memory);
}

static tn_status sync_device(tn_device *device) {
    return tn_cuda_check(cudaStreamSynchronize(tn_cuda(device)->stream), "computing");
}

static tn_status download(tn_device *device, void *to, const void *from, int64_t bytes) {
    if (bytes == 0) return TN_OK;
    tn_status status =
        tn_cuda_check(cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyDeviceToHost, tn_cuda(device)->stream),
                      "copying from the GPU");
    return status == TN_OK ? sync_device(device) : status;
}

static tn_status zero(tn_device *device, void *memory, int64_t bytes) {
    if (bytes == 0) return TN_OK;
    return tn_cuda_check(cudaMemsetAsync(memory, 0, (size_t)bytes, tn_cuda(device)->stream), "zeroing");
}

/* The workspace of cublasLt and behind it what the hungriest operation takes. */
static int64_t scratch_bytes(tn_device *device, const tn_limits *limits) {
    int64_t bytes = 0;
    if (limits->scratch_for != TN_SCRATCH_ATTENTION) {
        bytes = tn_cuda_linear_scratch(device, limits);
        bytes = tn_max(bytes, tn_cuda_column_scratch(limits->hidden)); /* gradients of norm weights */
    }
    if (limits->scratch_for != TN_SCRATCH_REST) {
        bytes = tn_max(bytes, tn_cuda_flash_scratch(limits));
        bytes = tn_max(bytes, tn_cuda_cudnn_scratch(device, limits));
    }
    return TN_CUDA_WORKSPACE + bytes;
}

static const tn_backend table = {
    .name = "cuda",
    .reducer = &tn_cuda_reducer,
    .open = open_device,
    .close = close_device,
    .allocate = allocate,
    .release = release,
    .upload = tn_cuda_upload,
    .download = download,
    .zero = zero,
    .sync = sync_device,
    .host_allocate = tn_cuda_host_allocate,
    .host_release = tn_cuda_host_release,
    .move = tn_cuda_move,
    .move_wait = tn_cuda_move_wait,
    .scratch_bytes = scratch_bytes,
    .linear_bytes = tn_cuda_linear_bytes,
    .linear_load = tn_cuda_linear_load,
    .linear_refresh = tn_cuda_linear_refresh,
    .weight_bytes = tn_cuda_weight_bytes,
    .weight_load = tn_cuda_weight_load,
    .weight_refresh = tn_cuda_weight_refresh,
    .load_finish = tn_cuda_load_finish,
    .embed_forward = tn_cuda_embed_forward,
    .embed_backward = tn_cuda_embed_backward,
    .rmsnorm_forward = tn_cuda_rmsnorm_forward,
    .rmsnorm_backward = tn_cuda_rmsnorm_backward,
    .linear_forward = tn_cuda_linear_forward,
    .linear_backward = tn_cuda_linear_backward,
    .linear_inner = tn_cuda_linear_inner,
    .rope_table = tn_cuda_rope_table,
    .rope = tn_cuda_rope,
    .attention_forward = tn_cuda_attention_forward,
    .attention_backward = tn_cuda_attention_backward,
    .gated_forward = tn_cuda_gated_forward,
    .gated_backward = tn_cuda_gated_backward,
    .activate = tn_cuda_activate,
    .add = tn_cuda_add,
    .gather_rows = tn_cuda_gather_rows,
    .scatter_rows = tn_cuda_scatter_rows,
    .copy_rows = tn_cuda_copy_rows,
    .widen = tn_cuda_widen,
    .cross_entropy = tn_cuda_cross_entropy,
    .sum = tn_cuda_sum,
    .sum_squares = tn_cuda_sum_squares,
    .adamw = tn_cuda_adamw,
    .adamw_8bit = tn_cuda_adamw_8bit,
    .sgd = tn_cuda_sgd,
    .lion = tn_cuda_lion,
};

/* NULL where the program is of another version. */
TN_API const tn_backend *tn_backend_open(int version);
const tn_backend *tn_backend_open(int version) { return version == TN_BACKEND_VERSION ? &table : NULL; }
