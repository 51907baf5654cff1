/* dtype.c: the table of storage formats and the conversions of floats of 16 and 8 bits. */
#include "base/dtype.h"

#include <string.h>

#include "base/mem.h"

static const struct {
    const char *name, *code;
    int16_t block, bytes;
} table[TN_DTYPE_COUNT] = {
    [TN_DTYPE_F32] = {"float32", "F32", 1, 4},
    [TN_DTYPE_F16] = {"float16", "F16", 1, 2},
    [TN_DTYPE_BF16] = {"bfloat16", "BF16", 1, 2},
    [TN_DTYPE_F64] = {"float64", "F64", 1, 8},
    [TN_DTYPE_I8] = {"int8", "I8", 1, 1},
    [TN_DTYPE_U8] = {"uint8", "U8", 1, 1},
    [TN_DTYPE_I16] = {"int16", "I16", 1, 2},
    [TN_DTYPE_U16] = {"uint16", "U16", 1, 2},
    [TN_DTYPE_I32] = {"int32", "I32", 1, 4},
    [TN_DTYPE_U32] = {"uint32", "U32", 1, 4},
    [TN_DTYPE_I64] = {"int64", "I64", 1, 8},
    [TN_DTYPE_U64] = {"uint64", "U64", 1, 8},
    [TN_DTYPE_BOOL] = {"bool", "BOOL", 1, 1},
    [TN_DTYPE_F8_E4M3] = {"float8_e4m3", "F8_E4M3", 1, 1},
    [TN_DTYPE_F8_E5M2] = {"float8_e5m2", "F8_E5M2", 1, 1},
    [TN_DTYPE_F8_E8M0] = {"float8_e8m0", "F8_E8M0", 1, 1},
    [TN_DTYPE_C64] = {"complex64", "C64", 1, 8},
    [TN_DTYPE_Q4_0] = {"q4_0", "Q4_0", 32, 18},
    [TN_DTYPE_Q4_1] = {"q4_1", "Q4_1", 32, 20},
    [TN_DTYPE_Q5_0] = {"q5_0", "Q5_0", 32, 22},
    [TN_DTYPE_Q5_1] = {"q5_1", "Q5_1", 32, 24},
    [TN_DTYPE_Q8_0] = {"q8_0", "Q8_0", 32, 34},
    [TN_DTYPE_Q2_K] = {"q2_k", "Q2_K", 256, 84},
    [TN_DTYPE_Q3_K] = {"q3_k", "Q3_K", 256, 110},
    [TN_DTYPE_Q4_K] = {"q4_k", "Q4_K", 256, 144},
    [TN_DTYPE_Q5_K] = {"q5_k", "Q5_K", 256, 176},
    [TN_DTYPE_Q6_K] = {"q6_k", "Q6_K", 256, 210},
    [TN_DTYPE_IQ4_NL] = {"iq4_nl", "IQ4_NL", 32, 18},
    [TN_DTYPE_IQ4_XS] = {"iq4_xs", "IQ4_XS", 256, 136},
    [TN_DTYPE_NF4] = {"nf4", "NF4", 2, 1},
    [TN_DTYPE_FP4] = {"fp4", "FP4", 2, 1},
    [TN_DTYPE_LLM_INT8] = {"llm_int8", "LLM_INT8", 1, 1},
    [TN_DTYPE_FP8] = {"fp8", "FP8", 1, 1},
};

const char *tn_dtype_name(tn_dtype dtype) { return dtype < TN_DTYPE_COUNT ? table[dtype].name : "unknown"; }
const char *tn_dtype_code(tn_dtype dtype) { return dtype < TN_DTYPE_COUNT ? table[dtype].code : "?"; }
int64_t tn_dtype_block(tn_dtype dtype) { return table[dtype].block; }
int64_t tn_dtype_block_bytes(tn_dtype dtype) { return table[dtype].bytes; }

bool tn_dtype_bytes(tn_dtype dtype, int64_t count, int64_t *bytes) {
    if (dtype >= TN_DTYPE_COUNT || count < 0) return false;
    int64_t rest = count % table[dtype].block;
    if (rest && !tn_dtype_has_scales(dtype)) return false;
    return tn_mul(count / table[dtype].block + (rest > 0), table[dtype].bytes, bytes);
}

bool tn_dtype_is_float(tn_dtype dtype) {
    return dtype == TN_DTYPE_F32 || dtype == TN_DTYPE_F16 || dtype == TN_DTYPE_BF16;
}

bool tn_dtype_has_scales(tn_dtype dtype) {
    return dtype == TN_DTYPE_NF4 || dtype == TN_DTYPE_FP4 || dtype == TN_DTYPE_LLM_INT8 ||
           dtype == TN_DTYPE_FP8;
}

bool tn_dtype_is_block(tn_dtype dtype) {
    return dtype < TN_DTYPE_COUNT && (table[dtype].block > 1 || tn_dtype_has_scales(dtype));
}

/* bitsandbytes: csrc/kernels.cu, dDequantizeNF4 and dDequantizeFP4Tree. */
static const float nf4[16] = {-1.0f,
                              -0.6961928009986877f,
                              -0.5250730514526367f,
                              -0.39491748809814453f,
                              -0.28444138169288635f,
                              -0.18477343022823334f,
                              -0.09105003625154495f,
                              0.0f,
                              0.07958029955625534f,
                              0.16093020141124725f,
                              0.24611230194568634f,
                              0.33791524171829224f,
                              0.44070982933044434f,
                              0.5626170039176941f,
                              0.7229568362236023f,
                              1.0f};
static const float fp4[16] = {
    0.0f,  5.208333333e-03f,  0.66666667f,  1.0f,  0.33333333f,  0.5f,  0.16666667f,  0.25f,
    -0.0f, -5.208333333e-03f, -0.66666667f, -1.0f, -0.33333333f, -0.5f, -0.16666667f, -0.25f};

const float *tn_dtype_code_book(tn_dtype dtype) { return dtype == TN_DTYPE_FP4 ? fp4 : nf4; }

bool tn_dtype_from_name(const char *name, tn_dtype *dtype) {
    static const struct {
        const char *name;
        tn_dtype dtype;
    } names[] = {{"float32", TN_DTYPE_F32}, {"fp32", TN_DTYPE_F32},     {"float", TN_DTYPE_F32},
                 {"float16", TN_DTYPE_F16}, {"fp16", TN_DTYPE_F16},     {"half", TN_DTYPE_F16},
                 {"bf16", TN_DTYPE_BF16},   {"bfloat16", TN_DTYPE_BF16}};
    if (strncmp(name, "torch.", 6) == 0) name += 6;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i].name) == 0) {
            *dtype = names[i].dtype;
            return true;
        }
    return false;
}

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

float tn_bf16_to_f32(uint16_t bits) { return float_of((uint32_t)bits << 16); }

uint16_t tn_f32_to_bf16(float value) {
    uint32_t bits = bits_of(value);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)((bits >> 16) | 0x40); /* quiet NaN */
    return (uint16_t)((bits + 0x7FFFu + ((bits >> 16) & 1)) >> 16);
}

float tn_f16_to_f32(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, rest = half & 0x7FFFu;
    if (rest >= 0x7C00u)
        return float_of(sign | 0x7F800000u | (rest & 0x3FFu) << 13 | (rest > 0x7C00u ? 0x400000u : 0));
    if (rest >= 0x400u) return float_of(sign | ((rest << 13) + 0x38000000u));
    float magnitude = (float)rest * (1.0f / 16777216.0f); /* subnormal: rest · 2^-24 */
    return sign ? -magnitude : magnitude;
}

uint16_t tn_f32_to_f16(float value) {
    uint32_t bits = bits_of(value), sign = (bits >> 16) & 0x8000u, rest = bits & 0x7FFFFFFFu;
    if (rest > 0x7F800000u) return (uint16_t)(sign | 0x7E00u | ((rest >> 13) & 0x3FFu));
    if (rest >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u); /* rounds to infinity */
    if (rest < 0x38800000u) {                                   /* subnormal: let the float adder round */
        float shifted = float_of(rest) + 0.5f;                  /* ulp of 0.5 is 2^-24 */
        return (uint16_t)(sign | (bits_of(shifted) - 0x3F000000u));
    }
    rest += 0xFFFu + ((rest >> 13) & 1);
    return (uint16_t)(sign | ((rest - 0x38000000u) >> 13));
}

float tn_e4m3_to_f32(uint8_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x80) << 24, rest = bits & 0x7F;
    if (rest == 0x7F) return float_of(sign | 0x7FC00000u);
    if (rest >= 8) return float_of(sign | ((rest << 20) + 0x3C000000u));
    float magnitude = (float)rest * (1.0f / 512.0f); /* subnormal: rest · 2^-9 */
    return sign ? -magnitude : magnitude;
}

uint8_t tn_f32_to_e4m3(float value) {
    uint32_t bits = bits_of(value), sign = (bits >> 24) & 0x80, rest = bits & 0x7FFFFFFFu;
    if (rest > 0x7F800000u) return (uint8_t)(sign | 0x7F);
    if (rest >= 0x43E00000u) return (uint8_t)(sign | 0x7E); /* 448 and beyond */
    if (rest < 0x3C800000u) {                               /* subnormal: let the float adder round */
        float shifted = float_of(rest) + 16384.0f;          /* ulp of 16384 is 2^-9 */
        return (uint8_t)(sign | (bits_of(shifted) - 0x46800000u));
    }
    rest += 0x7FFFFu + ((rest >> 20) & 1);
    return (uint8_t)(sign | ((rest - 0x3C000000u) >> 20));
}
