/* nccl.c: sums over the GPUs of several processes, through NCCL, which is opened when a run of several asks for
 * it: everybody else needs no such library.
 *
 * The communicator does not block: joining and summing return at once, and poll() asks, so that the caller can
 * look after the other processes meanwhile; NCCL itself would wait for a dead one for ever. Order of the sums:
 * rings and trees of NCCL are fixed by the machine and the number of ranks. Sums in the switch (NVLS) are not
 * asked for: their order is the switch's own, and on shared hosts multicast can put the GPUs out of service.
 */
#include "op/cuda/cuda.h"

#ifdef TENON_NCCL

#include <dlfcn.h>
#include <nccl.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct tn_cuda_group {
    ncclComm_t comm;
    cudaEvent_t event;
    bool summing, recorded; /* a sum was begun; and `event` stands behind it */
};

static struct library {
    ncclResult_t (*id)(ncclUniqueId *);
    ncclResult_t (*init)(ncclComm_t *, int, ncclUniqueId, int, ncclConfig_t *);
    ncclResult_t (*sum)(const void *, void *, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t, cudaStream_t);
    ncclResult_t (*state)(ncclComm_t, ncclResult_t *);
    ncclResult_t (*abort)(ncclComm_t);
    const char *(*text)(ncclResult_t);
} nccl;

static bool present(void) {
    static void *handle;
    if (handle) return true;
    (void)setenv("NCCL_NVLS_ENABLE", "0", 0);
    handle = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!handle) return false;
    *(void **)(&nccl.id) = dlsym(handle, "ncclGetUniqueId");
    *(void **)(&nccl.init) = dlsym(handle, "ncclCommInitRankConfig");
    *(void **)(&nccl.sum) = dlsym(handle, "ncclAllReduce");
    *(void **)(&nccl.state) = dlsym(handle, "ncclCommGetAsyncError");
    *(void **)(&nccl.abort) = dlsym(handle, "ncclCommAbort");
    *(void **)(&nccl.text) = dlsym(handle, "ncclGetErrorString");
    if (nccl.id && nccl.init && nccl.sum && nccl.state && nccl.abort && nccl.text) return true;
    dlclose(handle);
    handle = NULL;
    return false;
}

static tn_status check(ncclResult_t result, const char *what) {
    if (result == ncclSuccess || result == ncclInProgress) return TN_OK;
    tn_fail(TN_FAILED, "NCCL: %s: %s", what, nccl.text(result));
    return tn_remedy("NCCL_DEBUG=INFO lets it say more; does each process have a GPU of its own?");
}

static tn_status make_name(tn_device *device, void *id) {
    ncclUniqueId unique;
    cudaSetDevice(device->index);
    tn_status status = check(nccl.id(&unique), "making a group");
    memcpy(id, &unique, TN_REDUCER_ID);
    return status;
}

static tn_status join(tn_device *device, const void *id, int rank, int world) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId unique;
    struct tn_cuda_group *group;
    tn_status status = tn_alloc(&group, 1, sizeof *group, "a group of GPUs");
    if (status != TN_OK) return status;
    tn_cuda(device)->group = group; /* from here on leave() clears up */
    cudaSetDevice(device->index);
    status =
        tn_cuda_check(cudaEventCreateWithFlags(&group->event, cudaEventDisableTiming), "creating an event");
    if (status != TN_OK) return status;
    config.blocking = 0;
    memcpy(&unique, id, sizeof unique);
    return check(nccl.init(&group->comm, world, unique, rank, &config), "joining the group");
}

static tn_status sum(tn_device *device, int64_t count, float *values) {
    struct tn_cuda_group *group = tn_cuda(device)->group;
    group->summing = true, group->recorded = false;
    return check(
        nccl.sum(values, values, (size_t)count, ncclFloat32, ncclSum, group->comm, tn_cuda(device)->stream),
        "summing gradients");
}

/* The library may still be putting the sum into the stream; only then the event behind it has a meaning. */
static tn_status poll(tn_device *device, bool *over) {
    struct tn_cuda_group *group = tn_cuda(device)->group;
    ncclResult_t state = ncclSuccess;
    *over = false;
    tn_status status = check(nccl.state(group->comm, &state), "asking for its state");
    if (status == TN_OK) status = check(state, group->summing ? "summing gradients" : "joining the group");
    if (status != TN_OK || state == ncclInProgress) return status;
    if (group->summing && !group->recorded) {
        status = tn_cuda_check(cudaEventRecord(group->event, tn_cuda(device)->stream), "recording an event");
        group->recorded = status == TN_OK;
    }
    if (status != TN_OK) return status;
    cudaError_t error = group->summing ? cudaEventQuery(group->event) : cudaSuccess;
    *over = error == cudaSuccess;
    return error == cudaErrorNotReady ? TN_OK : tn_cuda_check(error, "computing");
}

/* Aborting is the only way out that needs nobody else. */
static void leave(tn_device *device) {
    struct tn_cuda_group *group = tn_cuda(device)->group;
    if (!group) return;
    if (group->comm) (void)nccl.abort(group->comm);
    if (group->event) cudaEventDestroy(group->event);
    free(group);
    tn_cuda(device)->group = NULL;
}

#else

static bool present(void) { return false; }

/* Never called where nothing is present. */
static tn_status make_name(tn_device *device, void *id) {
    (void)device, (void)id;
    return tn_fail(TN_FAILED, "this tenon was built without NCCL");
}
static tn_status join(tn_device *device, const void *id, int rank, int world) {
    (void)rank, (void)world;
    return make_name(device, (void *)(uintptr_t)id);
}
static tn_status sum(tn_device *device, int64_t count, float *values) {
    (void)count;
    return make_name(device, values);
}
static tn_status poll(tn_device *device, bool *over) { return make_name(device, over); }
static void leave(tn_device *device) { (void)device; }

#endif

const tn_reducer tn_cuda_reducer = {.device_bytes = 1 << 30,
                                    .present = present,
                                    .name = make_name,
                                    .join = join,
                                    .sum = sum,
                                    .poll = poll,
                                    .leave = leave};
