/* mma.cuh: the instructions behind small bf16 products since compute capability 8.0: asynchronous copies into
 * shared memory, ldmatrix, and mma.sync m16n8k16 with fp32 sums. Names and fragment layouts are those of the
 * PTX manual ("Matrix fragments for mma.m16n8k16").
 */
#ifndef TN_OP_CUDA_MMA_CUH
#define TN_OP_CUDA_MMA_CUH

#include "op/cuda/kernel.cuh"

__device__ inline uint32_t shared_address(const void *pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

/* 16 bytes into shared memory; zeros where not `valid` (`from` is not read then). */
__device__ inline void copy_async(void *to, const void *from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(valid ? 16 : 0));
}
/* Everything copied since the last commit is one group; wait returns when all but the newest N are there. */
__device__ inline void copy_commit() { asm volatile("cp.async.commit_group;"); }
template <int N>
__device__ inline void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* Four 8×8 matrices; lane l gives the address of row l % 8 of matrix l / 8. */
__device__ inline void load_matrices(uint32_t (&to)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ inline void load_transposed(uint32_t (&to)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* sum[16, 8] += a[16, 16]·b[16, 8] */
__device__ inline void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#endif
