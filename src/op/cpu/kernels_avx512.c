/* kernels_avx512.c: kernels.inc compiled for AVX-512. */
#if defined(__x86_64__)
#define TABLE tn_kernels_avx512
#include "op/cpu/kernels.inc"
#endif
