/* quant.c: decoding of GGUF block types. Layouts and formulas: ggml-common.h and ggml-quants.c, fp32 in ggml's
 * order of operations, so the results are the same bits. Each decoder turns one block into its 32 or 256
 * values.
 */
#include "quant/quant.h"

#include <string.h>

static const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

static float half_at(const uint8_t *p) { return tn_f16_to_f32((uint16_t)(p[0] | p[1] << 8)); }

static uint32_t word_at(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* ---- Blocks of 32: element t < 16 is the low nibble of byte t, t >= 16 the high nibble of byte t - 16 --- */

static void q4_0(const uint8_t *b, float *y) {
    float d = half_at(b);
    for (int i = 0; i < 16; i++)
        y[i] = (float)((b[2 + i] & 15) - 8) * d, y[i + 16] = (float)((b[2 + i] >> 4) - 8) * d;
}

static void q4_1(const uint8_t *b, float *y) {
    float d = half_at(b), m = half_at(b + 2);
    for (int i = 0; i < 16; i++)
        y[i] = (float)(b[4 + i] & 15) * d + m, y[i + 16] = (float)(b[4 + i] >> 4) * d + m;
}

static void q5_0(const uint8_t *b, float *y) {
    float d = half_at(b);
    uint32_t high = word_at(b + 2);
    for (int i = 0; i < 16; i++) {
        int low = (b[6 + i] & 15) | (int)((high >> i) & 1) << 4,
            top = (b[6 + i] >> 4) | (int)((high >> (i + 16)) & 1) << 4;
        y[i] = (float)(low - 16) * d, y[i + 16] = (float)(top - 16) * d;
    }
}

static void q5_1(const uint8_t *b, float *y) {
    float d = half_at(b), m = half_at(b + 2);
    uint32_t high = word_at(b + 4);
    for (int i = 0; i < 16; i++) {
        int low = (b[8 + i] & 15) | (int)((high >> i) & 1) << 4,
            top = (b[8 + i] >> 4) | (int)((high >> (i + 16)) & 1) << 4;
        y[i] = (float)low * d + m, y[i + 16] = (float)top * d + m;
    }
}

static void q8_0(const uint8_t *b, float *y) {
    float d = half_at(b);
    for (int i = 0; i < 32; i++) y[i] = (float)(int8_t)b[2 + i] * d;
}

static void iq4_nl(const uint8_t *b, float *y) {
    float d = half_at(b);
    for (int i = 0; i < 16; i++)
        y[i] = d * (float)iq4_values[b[2 + i] & 15], y[i + 16] = d * (float)iq4_values[b[2 + i] >> 4];
}

/* ---- Blocks of 256 ------------------------------------------------------------------------------- */

static void q2_k(const uint8_t *b, float *y) {
    const uint8_t *scales = b, *qs = b + 16;
    float d = half_at(b + 80), dmin = half_at(b + 82);
    for (int t = 0; t < 256; t++) {
        int scale = scales[t / 16], q = (qs[32 * (t / 128) + t % 32] >> (2 * (t % 128 / 32))) & 3;
        float dl = d * (float)(scale & 15), ml = dmin * (float)(scale >> 4);
        y[t] = dl * (float)q - ml;
    }
}

static void q3_k(const uint8_t *b, float *y) {
    const uint8_t *hmask = b, *qs = b + 32, *scales = b + 96;
    float d = half_at(b + 108);
    for (int t = 0; t < 256; t++) {
        int g = t / 16, l = t % 32;
        int low = g < 8 ? scales[g] & 15 : scales[g - 8] >> 4, high = (scales[8 + g % 4] >> (2 * (g / 4))) & 3;
        int q = ((qs[32 * (t / 128) + l] >> (2 * (t % 128 / 32))) & 3) - ((hmask[l] >> (t / 32)) & 1 ? 0 : 4);
        float dl = d * (float)((low | high << 4) - 32);
        y[t] = dl * (float)q;
    }
}

/* 6-bit scale and minimum of group k from the 12 packed bytes. */
static void unpack6(const uint8_t *s, int k, int *scale, int *minimum) {
    if (k < 4) *scale = s[k] & 63, *minimum = s[k + 4] & 63;
    else *scale = (s[k + 4] & 15) | (s[k - 4] >> 6) << 4, *minimum = (s[k + 4] >> 4) | (s[k] >> 6) << 4;
}

static void q45_k(const uint8_t *b, float *y, const uint8_t *fifth, const uint8_t *qs) {
    float d = half_at(b), dmin = half_at(b + 2);
    for (int g = 0; g < 8; g++) {
        int scale, minimum;
        unpack6(b + 4, g, &scale, &minimum);
        float dl = d * (float)scale, ml = dmin * (float)minimum;
        for (int l = 0; l < 32; l++) {
            int byte = qs[32 * (g / 2) + l], q = g % 2 ? byte >> 4 : byte & 15;
            if (fifth) q |= ((fifth[l] >> g) & 1) << 4;
            y[32 * g + l] = dl * (float)q - ml;
        }
    }
}

static void q4_k(const uint8_t *b, float *y) { q45_k(b, y, NULL, b + 16); }
static void q5_k(const uint8_t *b, float *y) { q45_k(b, y, b + 16, b + 48); }

static void q6_k(const uint8_t *b, float *y) {
    const uint8_t *ql = b, *qh = b + 128;
    const int8_t *scales = (const int8_t *)(b + 192);
    float d = half_at(b + 208);
    for (int t = 0; t < 256; t++) {
        int n = t / 128, j = t % 128 / 32, l = t % 32, byte = ql[64 * n + l + 32 * (j & 1)];
        int q = ((j >= 2 ? byte >> 4 : byte & 15) | ((qh[32 * n + l] >> (2 * j)) & 3) << 4) - 32;
        y[t] = d * (float)scales[t / 16] * (float)q;
    }
}

static void iq4_xs(const uint8_t *b, float *y) {
    const uint8_t *low = b + 4, *qs = b + 8;
    float d = half_at(b);
    uint32_t high = (uint32_t)b[2] | (uint32_t)b[3] << 8;
    for (int g = 0; g < 8; g++) {
        int scale = ((low[g / 2] >> (4 * (g & 1))) & 15) | (int)((high >> (2 * g)) & 3) << 4;
        float dl = d * (float)(scale - 32);
        for (int l = 0; l < 16; l++) {
            int byte = qs[16 * g + l];
            y[32 * g + l] = dl * (float)iq4_values[byte & 15],
                       y[32 * g + l + 16] = dl * (float)iq4_values[byte >> 4];
        }
    }
}

typedef void decoder(const uint8_t *block, float *values);
static decoder *const decoders[TN_DTYPE_COUNT] = {
    [TN_DTYPE_Q4_0] = q4_0, [TN_DTYPE_Q4_1] = q4_1, [TN_DTYPE_Q5_0] = q5_0,     [TN_DTYPE_Q5_1] = q5_1,
    [TN_DTYPE_Q8_0] = q8_0, [TN_DTYPE_Q2_K] = q2_k, [TN_DTYPE_Q3_K] = q3_k,     [TN_DTYPE_Q4_K] = q4_k,
    [TN_DTYPE_Q5_K] = q5_k, [TN_DTYPE_Q6_K] = q6_k, [TN_DTYPE_IQ4_NL] = iq4_nl, [TN_DTYPE_IQ4_XS] = iq4_xs,
};

static void widen(tn_dtype dtype, const void *data, int64_t first, int64_t count, float *out) {
    const unsigned char *at = (const unsigned char *)data + first * tn_dtype_block_bytes(dtype);
    if (dtype == TN_DTYPE_F32) {
        memcpy(out, at, (size_t)count * sizeof *out);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, at + 2 * i, sizeof bits); /* tensors may lie at odd addresses */
        out[i] = dtype == TN_DTYPE_BF16 ? tn_bf16_to_f32(bits) : tn_f16_to_f32(bits);
    }
}

void tn_dequantize(tn_dtype dtype, const void *data, int64_t first, int64_t count, float *out) {
    decoder *decode = decoders[dtype];
    if (!decode) {
        widen(dtype, data, first, count, out);
        return;
    }
    const int64_t block = tn_dtype_block(dtype), bytes = tn_dtype_block_bytes(dtype);
    const uint8_t *at = (const uint8_t *)data + first / block * bytes;
    for (int64_t i = 0; i < count; i += block, at += bytes) decode(at, out + i);
}
