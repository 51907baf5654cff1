/* dtype.h: the storage formats a tensor can have, in one table: plain numbers, GGUF block types, and formats
 * that keep their scales apart. Everything that sizes a tensor asks here (docs/add-a-storage-format.md).
 */
#ifndef TN_BASE_DTYPE_H
#define TN_BASE_DTYPE_H

#include "base/status.h"

typedef enum tn_dtype {
    TN_DTYPE_F32,
    TN_DTYPE_F16,
    TN_DTYPE_BF16,
    TN_DTYPE_F64,
    TN_DTYPE_I8,
    TN_DTYPE_U8,
    TN_DTYPE_I16,
    TN_DTYPE_U16,
    TN_DTYPE_I32,
    TN_DTYPE_U32,
    TN_DTYPE_I64,
    TN_DTYPE_U64,
    TN_DTYPE_BOOL,
    TN_DTYPE_F8_E4M3,
    TN_DTYPE_F8_E5M2,
    TN_DTYPE_F8_E8M0,
    TN_DTYPE_C64,
    /* GGUF block types (layouts: ggml-common.h) */
    TN_DTYPE_Q4_0,
    TN_DTYPE_Q4_1,
    TN_DTYPE_Q5_0,
    TN_DTYPE_Q5_1,
    TN_DTYPE_Q8_0,
    TN_DTYPE_Q2_K,
    TN_DTYPE_Q3_K,
    TN_DTYPE_Q4_K,
    TN_DTYPE_Q5_K,
    TN_DTYPE_Q6_K,
    TN_DTYPE_IQ4_NL,
    TN_DTYPE_IQ4_XS,
    /* Codes whose scales lie apart (tn_scales of format/tensor.h; layouts: bitsandbytes' functional.py) */
    TN_DTYPE_NF4,
    TN_DTYPE_FP4,
    TN_DTYPE_LLM_INT8, /* one scale a row, where a plain I8 has none */
    TN_DTYPE_FP8,      /* E4M3 with a scale a row, or a tile, where a plain F8_E4M3 has none */
    TN_DTYPE_COUNT
} tn_dtype;

/* Name as users read it: "bfloat16", "q4_1". */
const char *tn_dtype_name(tn_dtype dtype);
/* Name as safetensors and GGUF files spell it: "BF16", "Q4_1". */
const char *tn_dtype_code(tn_dtype dtype);
/* Elements and bytes of one block (1 element for plain numbers). */
int64_t tn_dtype_block(tn_dtype dtype);
int64_t tn_dtype_block_bytes(tn_dtype dtype);
/* Bytes of `count` elements; false on overflow or where count is no whole number of blocks. Of formats with
 * scales apart these are the codes; the last byte of an odd count is half empty. */
bool tn_dtype_bytes(tn_dtype dtype, int64_t count, int64_t *bytes);
/* F32, F16 or BF16: what activations and plain weights are held in. */
bool tn_dtype_is_float(tn_dtype dtype);
/* Quantised: blocks of elements share a scale, and have to be decoded before anything reads them. */
bool tn_dtype_is_block(tn_dtype dtype);
/* Those of them whose scales lie apart. */
bool tn_dtype_has_scales(tn_dtype dtype);
/* The 16 values that codes of NF4 or FP4 stand for, before their scale. */
const float *tn_dtype_code_book(tn_dtype dtype);
/* "float32", "fp32", "float", "bfloat16", "bf16", "float16", "fp16", "half", "torch.bfloat16". */
bool tn_dtype_from_name(const char *name, tn_dtype *dtype);

/* Conversions of single numbers, round to nearest even; NaN stays a quiet NaN. */
float tn_bf16_to_f32(uint16_t bits);
uint16_t tn_f32_to_bf16(float value);
float tn_f16_to_f32(uint16_t bits);
uint16_t tn_f32_to_f16(float value);
/* E4M3 as torch's float8_e4m3fn: bias 7, no infinities, NaN is 0x7F and 0xFF. What is beyond ±448 becomes ±448.
 */
float tn_e4m3_to_f32(uint8_t bits);
uint8_t tn_f32_to_e4m3(float value);

#endif
