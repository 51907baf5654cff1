/* kernels_base.c: kernels.inc compiled for whatever the compiler targets by default. */
#define TABLE tn_kernels_base
#include "op/cpu/kernels.inc"
