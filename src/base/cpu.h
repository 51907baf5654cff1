/* cpu.h: what the processor offers beyond what __builtin_cpu_supports() knows by name in every compiler we
 * build with. */
#ifndef TN_BASE_CPU_H
#define TN_BASE_CPU_H

#include <stdbool.h>

#if defined(__x86_64__)
#include <cpuid.h>

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
#else
static inline bool tn_cpu_has_avx512_bf16(void) { return false; }
static inline bool tn_cpu_has_f16c(void) { return false; }
#endif

#endif
