/* gemm.h: which cublasLt algorithm computes which product: the store behind gemm.c, in memory and on disk
 * (~/.cache/tenon/cublaslt-<card>-<version>.txt, one line an entry, guarded by a checksum).
 */
#ifndef TN_OP_CUDA_GEMM_H
#define TN_OP_CUDA_GEMM_H

#include <cublasLt.h>

#include "op/cuda/cuda.h"

enum { TN_GEMM_KEY_NUMBERS = 13 };
typedef union tn_gemm_key {
    struct {
        int64_t dtype, flags, m, n, k, lda, ldb, ldc, ldd, align_a, align_b, align_c, align_d;
    };
    int64_t numbers[TN_GEMM_KEY_NUMBERS];
} tn_gemm_key;

typedef struct tn_gemm_entry {
    uint64_t hash; /* of the key: most comparisons end here */
    tn_gemm_key key;
    cublasLtMatmulAlgo_t algorithm;
    bool saved; /* timed, so worth a line on disk */
} tn_gemm_entry;

typedef struct tn_cuda_gemms {
    cublasLtHandle_t handle;
    cudaEvent_t start, stop;
    tn_gemm_entry *entries;
    int64_t count, capacity;
    tn_gemm_key asked; /* the product being computed */
    char path[1024];   /* "" where there is no place for a cache */
} tn_cuda_gemms;

const tn_gemm_entry *tn_gemms_find(const tn_cuda_gemms *gemms, const tn_gemm_key *key);
/* Stores the algorithm for gemms->asked, and on disk where it was timed. */
tn_status tn_gemms_remember(tn_cuda_gemms *gemms, const cublasLtMatmulAlgo_t *algorithm, bool timed);
void tn_gemms_locate(tn_cuda_gemms *gemms, const char *card);
/* Adds the entries on disk that are not in memory. Damaged lines are skipped. */
void tn_gemms_read(tn_cuda_gemms *gemms);

#endif
