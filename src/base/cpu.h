/* cpu.h: what the processor offers beyond what __builtin_cpu_supports() knows by name in every compiler we
 * build with. */
#ifndef TN_BASE_CPU_H
#define TN_BASE_CPU_H

#include <stdbool.h>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* AVX-512 BF16 (leaf 7, subleaf 1, EAX bit 5), with AVX-512F enabled by the operating system. */
static inline bool tn_cpu_has_avx512_bf16(void) {
    unsigned a, b, c, d;
    return __builtin_cpu_supports("avx512f") && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1);
}
/* Conversions of 16-bit floats (leaf 1, ECX bit 29). */
static inline bool tn_cpu_has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
}
/* AMX products of bf16 (leaf 7, EDX bits 22 and 24), where the operating system lets this process have the
 * tiles: Linux wants to be asked (Documentation/arch/x86/xstate.rst), and answers the same every time. */
static inline bool tn_cpu_has_amx_bf16(void) {
#if defined(__linux__)
    enum { REQUEST = 0x1023, TILES = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1) && (d >> 24 & 1) &&
           syscall(SYS_arch_prctl, REQUEST, TILES) == 0;
#else
    return false;
#endif
}
#else
static inline bool tn_cpu_has_amx_bf16(void) { return false; }
static inline bool tn_cpu_has_avx512_bf16(void) { return false; }
static inline bool tn_cpu_has_f16c(void) { return false; }
#endif

#endif
