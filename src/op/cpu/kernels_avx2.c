/* kernels_avx2.c: kernels.inc compiled for AVX2 and FMA. */
#if defined(__x86_64__)
#define TABLE tn_kernels_avx2
#include "op/cpu/kernels.inc"
#endif
