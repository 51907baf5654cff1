/* gemm.c: matrix products through cublasLt, each shape with the algorithm that was fastest on this card.
 *
 * The first product of a shape asks cublasLt for CANDIDATES algorithms, times them on the real operands and
 * remembers the best in memory and on disk (gemm_cache.c), so that later runs take the same one: the same
 * bits. Split-K is allowed only where partial sums go through fp32 workspace in a fixed order. The number of
 * tokens varies from batch to batch: it enters the key rounded up to a quarter of an octave, and the
 * remembered algorithm is checked against the exact shape before use.
 */
#include "op/cuda/gemm.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { CANDIDATES = 12, ROUNDS = 3 };
static const int64_t worth_timing = (int64_t)1 << 24; /* multiply-adds */
static const float hopeless = 1.15f;                  /* times slower than the best in the first round */

static tn_status failed(cublasStatus_t error, const char *what) {
    return tn_fail(TN_FAILED, "GPU: %s: %s", what, cublasLtGetStatusString(error));
}

/* A product as cublasLt sees it: column-major, so d' = b'·a' with the operands swapped. */
typedef struct problem {
    cublasLtMatmulDescOpaque_t operation;
    cublasLtMatrixLayoutOpaque_t first, second, c, d;
} problem;

static int64_t alignment_of(const void *pointer, int64_t stride, int64_t size) {
    uintptr_t bits = (uintptr_t)pointer | (uintptr_t)(stride * size) | 256;
    return (int64_t)(bits & (~bits + 1));
}

static cublasStatus_t describe_scales(const tn_cuda_gemm *g, problem *p) {
    static const cublasLtMatmulDescAttributes_t modes[2] = {CUBLASLT_MATMUL_DESC_A_SCALE_MODE,
                                                            CUBLASLT_MATMUL_DESC_B_SCALE_MODE},
                                                pointers[2] = {CUBLASLT_MATMUL_DESC_A_SCALE_POINTER,
                                                               CUBLASLT_MATMUL_DESC_B_SCALE_POINTER};
    const float *scales[2] = {g->b_scales, g->a_scales};
    int32_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    cublasStatus_t s = CUBLAS_STATUS_SUCCESS;
    for (int i = 0; i < 2 && s == 0; i++) {
        s = cublasLtMatmulDescSetAttribute(&p->operation, modes[i], &mode, sizeof mode);
        if (s == 0)
            s = cublasLtMatmulDescSetAttribute(&p->operation, pointers[i], &scales[i], sizeof scales[i]);
    }
    return s;
}

static cublasStatus_t describe(const tn_cuda_gemm *g, tn_dtype dtype, problem *p) {
    cudaDataType_t type = dtype == TN_DTYPE_F32    ? CUDA_R_32F
                          : dtype == TN_DTYPE_BF16 ? CUDA_R_16BF
                                                   : CUDA_R_16F;
    cudaDataType_t result = g->wide ? CUDA_R_32F : type;
    if (g->a_scales) type = CUDA_R_8F_E4M3;
    cublasOperation_t yes = CUBLAS_OP_T;
    cublasStatus_t s = cublasLtMatmulDescInit(&p->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (s == 0 && g->transpose_b)
        s = cublasLtMatmulDescSetAttribute(&p->operation, CUBLASLT_MATMUL_DESC_TRANSA, &yes, sizeof yes);
    if (s == 0 && g->transpose_a)
        s = cublasLtMatmulDescSetAttribute(&p->operation, CUBLASLT_MATMUL_DESC_TRANSB, &yes, sizeof yes);
    if (s == 0 && g->bias) {
        cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
        s = cublasLtMatmulDescSetAttribute(&p->operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                           sizeof epilogue);
        if (s == 0)
            s = cublasLtMatmulDescSetAttribute(&p->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &g->bias,
                                               sizeof g->bias);
    }
    if (s == 0 && g->a_scales) s = describe_scales(g, p);
    uint64_t m = (uint64_t)g->m, n = (uint64_t)g->n, k = (uint64_t)g->k;
    if (s == 0)
        s = cublasLtMatrixLayoutInit(&p->first, type, g->transpose_b ? k : n, g->transpose_b ? n : k, g->ldb);
    if (s == 0)
        s = cublasLtMatrixLayoutInit(&p->second, type, g->transpose_a ? m : k, g->transpose_a ? k : m, g->lda);
    if (s == 0) s = cublasLtMatrixLayoutInit(&p->c, result, n, m, g->ldc);
    if (s == 0) s = cublasLtMatrixLayoutInit(&p->d, result, n, m, g->ldd);
    return s;
}

static cublasStatus_t run(tn_cuda_device *cuda, const tn_cuda_gemm *g, problem *p,
                          const cublasLtMatmulAlgo_t *how) {
    return cublasLtMatmul(cuda->gemms->handle, &p->operation, &g->alpha, g->b, &p->first, g->a, &p->second,
                          &g->beta, g->c, &p->c, g->d, &p->d, how, cuda->base.scratch, TN_CUDA_WORKSPACE,
                          cuda->stream);
}

/* cublasLt's proposals for the product in gemms->asked. */
static cublasStatus_t propose(tn_cuda_device *cuda, problem *p, int wanted,
                              cublasLtMatmulHeuristicResult_t *results, int *count) {
    cublasLtMatmulPreferenceOpaque_t preference;
    uint64_t workspace = TN_CUDA_WORKSPACE;
    uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const tn_gemm_key *key = &cuda->gemms->asked;
    uint32_t aligned[4] = {(uint32_t)key->align_b, (uint32_t)key->align_a, (uint32_t)key->align_c,
                           (uint32_t)key->align_d};
    static const cublasLtMatmulPreferenceAttributes_t names[4] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    cublasStatus_t s = cublasLtMatmulPreferenceInit(&preference);
    if (s == 0)
        s = cublasLtMatmulPreferenceSetAttribute(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                 &workspace, sizeof workspace);
    if (s == 0)
        s = cublasLtMatmulPreferenceSetAttribute(&preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                 &schemes, sizeof schemes);
    for (int i = 0; i < 4 && s == 0; i++)
        s = cublasLtMatmulPreferenceSetAttribute(&preference, names[i], &aligned[i], sizeof aligned[i]);
    *count = 0;
    if (s == 0)
        s = cublasLtMatmulAlgoGetHeuristic(cuda->gemms->handle, &p->operation, &p->first, &p->second, &p->c,
                                           &p->d, &preference, wanted, results, count);
    return s;
}

static tn_status candidates(tn_cuda_device *cuda, const tn_cuda_gemm *g, problem *p, int wanted,
                            cublasLtMatmulHeuristicResult_t *results, int *count) {
    cublasStatus_t s = propose(cuda, p, wanted, results, count);
    if (s == 0 && *count > 0) return TN_OK;
    return tn_fail(TN_FAILED, "GPU: no matrix product [%lld, %lld] x [%lld, %lld]: %s", (long long)g->m,
                   (long long)g->k, (long long)g->k, (long long)g->n, cublasLtGetStatusString(s));
}

/* Milliseconds of one run; a huge number where it fails. */
static float time_one(tn_cuda_device *cuda, const tn_cuda_gemm *g, problem *p,
                      const cublasLtMatmulAlgo_t *how) {
    float milliseconds = 1e30f;
    cudaEventRecord(cuda->gemms->start, cuda->stream);
    cublasStatus_t s = run(cuda, g, p, how);
    cudaEventRecord(cuda->gemms->stop, cuda->stream);
    if (cudaEventSynchronize(cuda->gemms->stop) != cudaSuccess || s != CUBLAS_STATUS_SUCCESS) return 1e30f;
    cudaEventElapsedTime(&milliseconds, cuda->gemms->start, cuda->gemms->stop);
    return milliseconds;
}

/* The rounds are interleaved, because the card slows down as it heats; an earlier candidate wins a tie. */
static int fastest(tn_cuda_device *cuda, const tn_cuda_gemm *g, problem *p, int count,
                   const cublasLtMatmulHeuristicResult_t *results) {
    float times[CANDIDATES], best = 1e30f;
    int choice = 0;
    for (int i = 0; i < count; i++) {
        time_one(cuda, g, p, &results[i].algo); /* loads the kernel */
        times[i] = time_one(cuda, g, p, &results[i].algo);
        if (times[i] < best) best = times[i];
    }
    for (int round = 1; round < ROUNDS; round++)
        for (int i = 0; i < count; i++) {
            if (times[i] > best * hopeless) continue;
            float again = time_one(cuda, g, p, &results[i].algo);
            if (again < times[i]) times[i] = again;
        }
    for (int i = 1; i < count; i++)
        if (times[i] < times[choice] * 0.99f) choice = i;
    return choice;
}

/* Timing overwrites d. Where d is also read (c is d) it is saved behind the scratch in use, or, where there is
 * no room, cublasLt's first proposal is taken untimed. */
static tn_status choose(tn_cuda_device *cuda, const tn_cuda_gemm *g, problem *p, cublasLtMatmulAlgo_t *how,
                        bool *timed) {
    cublasLtMatmulHeuristicResult_t results[CANDIDATES];
    enum cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    int count, choice = 0;
    tn_status status = candidates(cuda, g, p, CANDIDATES, results, &count);
    if (status != TN_OK) return status;
    int64_t bytes = ((g->m - 1) * g->ldd + g->n) * (g->wide ? 4 : tn_cuda_size(cuda->base.dtype));
    bool read = g->c == g->d && g->beta != 0;
    void *copy = read ? (char *)cuda->base.scratch + cuda->used : NULL;
    cudaStreamIsCapturing(cuda->stream, &capture);
    *timed = count > 1 && g->m * g->n * g->k >= worth_timing && capture == cudaStreamCaptureStatusNone &&
             (!read || bytes <= cuda->base.scratch_size - cuda->used);
    if (*timed) {
        if (read) cudaMemcpyAsync(copy, g->d, (size_t)bytes, cudaMemcpyDeviceToDevice, cuda->stream);
        choice = fastest(cuda, g, p, count, results);
        if (read) cudaMemcpyAsync(g->d, copy, (size_t)bytes, cudaMemcpyDeviceToDevice, cuda->stream);
    }
    *how = results[choice].algo;
    return TN_OK;
}

/* Next of …, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, …; exact up to 64. */
static int64_t bucket(int64_t tokens) {
    int64_t step = 1;
    if (tokens <= 64) return tokens;
    while (tokens > step * 8) step *= 2;
    return (tokens + step - 1) / step * step;
}

static tn_gemm_key key_of(const tn_cuda_gemm *g, tn_dtype dtype) {
    int64_t size = g->a_scales ? 1 : tn_cuda_size(dtype), wide = g->wide ? 4 : tn_cuda_size(dtype);
    return (tn_gemm_key){
        .dtype = dtype,
        .flags = g->transpose_a | g->transpose_b << 1 | g->wide << 2 | (g->bias != NULL) << 3 |
                 (g->beta != 0) << 4 | (g->c == g->d) << 5 | (g->a_scales != NULL) << 6,
        .m = g->rows_in_k ? g->m : bucket(g->m),
        .n = g->n,
        .k = g->rows_in_k ? bucket(g->k) : g->k,
        .lda = g->lda,
        .ldb = g->ldb,
        .ldc = g->ldc,
        .ldd = g->ldd,
        .align_a = alignment_of(g->a, g->lda, size),
        .align_b = alignment_of(g->b, g->ldb, size),
        .align_c = alignment_of(g->c, g->ldc, wide),
        .align_d = alignment_of(g->d, g->ldd, wide),
    };
}

static bool usable(tn_cuda_device *cuda, problem *p, const cublasLtMatmulAlgo_t *how) {
    cublasLtMatmulHeuristicResult_t result;
    return cublasLtMatmulAlgoCheck(cuda->gemms->handle, &p->operation, &p->first, &p->second, &p->c, &p->d, how,
                                   &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= TN_CUDA_WORKSPACE;
}

static cublasStatus_t set_up(tn_cuda_device *cuda, tn_cuda_gemm *g, problem *p) {
    if (g->beta == 0) g->c = g->d, g->ldc = g->ldd;
    cuda->gemms->asked = key_of(g, cuda->base.dtype);
    return describe(g, cuda->base.dtype, p);
}

bool tn_cuda_can_multiply(tn_device *device, const tn_cuda_gemm *gemm) {
    tn_cuda_device *cuda = tn_cuda(device);
    tn_cuda_gemm g = *gemm;
    cublasLtMatmulHeuristicResult_t result;
    problem p;
    int count = 0;
    if (set_up(cuda, &g, &p) != CUBLAS_STATUS_SUCCESS) return false;
    const tn_gemm_entry *entry = tn_gemms_find(cuda->gemms, &cuda->gemms->asked);
    if (entry && usable(cuda, &p, &entry->algorithm)) return true;
    return propose(cuda, &p, 1, &result, &count) == CUBLAS_STATUS_SUCCESS && count > 0;
}

tn_status tn_cuda_multiply(tn_device *device, const tn_cuda_gemm *gemm) {
    tn_cuda_device *cuda = tn_cuda(device);
    tn_cuda_gemm g = *gemm;
    cublasLtMatmulAlgo_t how;
    problem p;
    cublasStatus_t s = set_up(cuda, &g, &p);
    if (s != CUBLAS_STATUS_SUCCESS) return failed(s, "describing a matrix product");
    const tn_gemm_entry *entry = tn_gemms_find(cuda->gemms, &cuda->gemms->asked);
    if (entry && usable(cuda, &p, &entry->algorithm)) {
        how = entry->algorithm;
    } else {
        bool timed;
        tn_status status = choose(cuda, &g, &p, &how, &timed);
        if (status == TN_OK && !entry) status = tn_gemms_remember(cuda->gemms, &how, timed);
        if (status != TN_OK) return status;
    }
    s = run(cuda, &g, &p, &how);
    return s == CUBLAS_STATUS_SUCCESS ? TN_OK : failed(s, "matrix product");
}

tn_status tn_cuda_gemms_open(tn_cuda_device *cuda) {
    tn_status status;
    TN_TRY(tn_alloc(&cuda->gemms, 1, sizeof *cuda->gemms, "matrix products"));
    cublasStatus_t s = cublasLtCreate(&cuda->gemms->handle);
    if (s != CUBLAS_STATUS_SUCCESS) return failed(s, "opening cublasLt");
    TN_TRY(tn_cuda_check(cudaEventCreate(&cuda->gemms->start), "creating an event"));
    TN_TRY(tn_cuda_check(cudaEventCreate(&cuda->gemms->stop), "creating an event"));
    tn_gemms_locate(cuda->gemms, cuda->base.name);
    tn_gemms_read(cuda->gemms);
done:
    return status;
}

void tn_cuda_gemms_close(tn_cuda_device *cuda) {
    if (!cuda->gemms) return;
    if (cuda->gemms->start) cudaEventDestroy(cuda->gemms->start);
    if (cuda->gemms->stop) cudaEventDestroy(cuda->gemms->stop);
    if (cuda->gemms->handle) cublasLtDestroy(cuda->gemms->handle);
    free(cuda->gemms->entries);
    free(cuda->gemms);
}
