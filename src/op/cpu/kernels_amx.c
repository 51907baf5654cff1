/* kernels_amx.c: kernels.inc compiled for AVX-512 with AMX tiles. */
#if defined(__x86_64__)
#define TABLE tn_kernels_amx
#include "op/cpu/kernels.inc"
#endif
