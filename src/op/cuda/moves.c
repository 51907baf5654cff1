/* moves.c: pinned host memory, and copies between it and the device on the second stream, beside computing.
 *
 * cudaHostAlloc clears and pins page after page on one thread, 0.4 s a GiB. Here all threads touch the pages of
 * an ordinary mapping, in large pages where the system gives them, and the driver only has to pin what is
 * there.
 */
#include <sys/mman.h>

#include "op/cuda/cuda.h"

enum { PAGE = 2 << 20 };

tn_status tn_cuda_order(cudaStream_t earlier, cudaStream_t later) {
    cudaEvent_t event;
    tn_status status =
        tn_cuda_check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
    if (status != TN_OK) return status;
    cudaError_t error = cudaEventRecord(event, earlier);
    if (error == cudaSuccess) error = cudaStreamWaitEvent(later, event, 0);
    cudaEventDestroy(event);
    return tn_cuda_check(error, "ordering streams");
}

static tn_status no_room(int64_t bytes) {
    tn_fail(TN_NO_FIT, "%lld bytes of host memory cannot be pinned", (long long)bytes);
    return tn_remedy(
        "close other programs, lower max_length or the batch size, or set gradient_checkpointing full, which "
        "keeps "
        "everything on the GPU");
}

tn_status tn_cuda_host_allocate(tn_device *device, int64_t bytes, void **memory) {
    if (bytes < 1) bytes = 1;
    char *pages =
        mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    *memory = NULL;
    if (pages == MAP_FAILED) return no_room(bytes);
    madvise(pages, (size_t)bytes, MADV_HUGEPAGE);
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < bytes; first += PAGE)
        for (int64_t at = first; at < first + PAGE && at < bytes; at += 4096) ((volatile char *)pages)[at] = 0;
    cudaSetDevice(device->index);
    cudaError_t error = cudaHostRegister(pages, (size_t)bytes, cudaHostRegisterDefault);
    if (error == cudaSuccess) {
        *memory = pages;
        return TN_OK;
    }
    munmap(pages, (size_t)bytes);
    cudaGetLastError(); /* said here, and no failure of the next launch */
    return no_room(bytes);
}

void tn_cuda_host_release(tn_device *device, void *memory, int64_t bytes) {
    cudaStreamSynchronize(tn_cuda(device)->stream);
    cudaStreamSynchronize(tn_cuda(device)->copies);
    cudaHostUnregister(memory);
    munmap(memory, (size_t)(bytes > 0 ? bytes : 1));
}

tn_status tn_cuda_move(tn_device *device, void *to, const void *from, int64_t bytes) {
    tn_cuda_device *cuda = tn_cuda(device);
    tn_status status = tn_cuda_order(cuda->stream, cuda->copies);
    if (status != TN_OK || bytes == 0) return status;
    return tn_cuda_check(cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyDefault, cuda->copies),
                         "moving activations");
}

tn_status tn_cuda_move_wait(tn_device *device) {
    return tn_cuda_order(tn_cuda(device)->copies, tn_cuda(device)->stream);
}
