/* quant_encode.c: encoding into GGUF block types by the reference quantisers (ggml-quants.c; no
 * importance matrix), each operation in fp32 in the order they have, so that the bytes are ggml's. Each
 * encoder turns the 32 or 256 values of one block into its bytes.
 */
#include <math.h>
#include <string.h>

#include "quant/quant.h"

enum { SUPER = 256, GROUPS = 8, GROUP = 32 }; /* a K block of Q4_K and Q5_K */

/* Round half to even by adding 1.5·2^23. For finite results up to 2^22; anything else, a product that
 * overflowed for one, still gives some number that the caller's clamp brings into range. */
static int near(float value) {
    float shifted = value + 12582912.0f;
    int32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    return (bits & 0x007FFFFF) - 0x00400000;
}

static int clamp(int value, int low, int high) { return value < low ? low : value > high ? high : value; }

/* To an integer by cutting the fraction. Inverse scales of subnormal blocks overflow, hence the bounds. */
static int cut(float value, int low, int high) { return (int)fminf(fmaxf(value, (float)low), (float)high); }

static float inverse(float d) { return d != 0.0f ? 1.0f / d : 0.0f; }

static void put_half(uint8_t *out, float value) {
    uint16_t bits = tn_f32_to_f16(value);
    out[0] = (uint8_t)bits, out[1] = (uint8_t)(bits >> 8);
}

static float rounded_to_half(float value) { return tn_f16_to_f32(tn_f32_to_f16(value)); }

/* The value of largest magnitude with its sign; the first of equals. */
static float extreme(const float *x, int n) {
    float found = 0.0f;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(found)) found = x[i];
    return found;
}

static void range(const float *x, int n, float *low, float *high) {
    *low = *high = x[0];
    for (int i = 1; i < n; i++) {
        if (x[i] < *low) *low = x[i];
        if (x[i] > *high) *high = x[i];
    }
}

/* ---- Blocks of 32 -------------------------------------------------------------------------------- */

static void pack_nibbles(const uint8_t q[32], uint8_t *out) {
    for (int i = 0; i < 16; i++) out[i] = (uint8_t)((q[i] & 15) | (q[i + 16] & 15) << 4);
}

static void pack_fifth_bits(const uint8_t q[32], uint8_t *out) {
    memset(out, 0, 4);
    for (int i = 0; i < 32; i++) out[i / 8] |= (uint8_t)((q[i] >> 4) << (i % 8));
}

/* Codes 0 … levels-1 around the middle: Q4_0 and Q5_0. */
static void symmetric_codes(const float *x, int levels, float d, uint8_t q[32]) {
    const float id = inverse(d), middle = (float)(levels / 2) + 0.5f;
    for (int i = 0; i < 32; i++) q[i] = (uint8_t)cut(x[i] * id + middle, 0, levels - 1);
}

/* Codes 0 … levels-1 from the smallest value up: Q4_1 and Q5_1. */
static void offset_codes(const float *x, int levels, float low, float d, uint8_t q[32]) {
    const float id = inverse(d);
    for (int i = 0; i < 32; i++) q[i] = (uint8_t)cut((x[i] - low) * id + 0.5f, 0, levels - 1);
}

static void q4_0(const float *x, uint8_t *out) {
    uint8_t q[32];
    float d = extreme(x, 32) / -8.0f;
    symmetric_codes(x, 16, d, q);
    put_half(out, d);
    pack_nibbles(q, out + 2);
}

static void q5_0(const float *x, uint8_t *out) {
    uint8_t q[32];
    float d = extreme(x, 32) / -16.0f;
    symmetric_codes(x, 32, d, q);
    put_half(out, d);
    pack_fifth_bits(q, out + 2);
    pack_nibbles(q, out + 6);
}

static void q4_1(const float *x, uint8_t *out) {
    uint8_t q[32];
    float low, high;
    range(x, 32, &low, &high);
    float d = (high - low) / 15.0f;
    offset_codes(x, 16, low, d, q);
    put_half(out, d);
    put_half(out + 2, low);
    pack_nibbles(q, out + 4);
}

static void q5_1(const float *x, uint8_t *out) {
    uint8_t q[32];
    float low, high;
    range(x, 32, &low, &high);
    float d = (high - low) / 31.0f;
    offset_codes(x, 32, low, d, q);
    put_half(out, d);
    put_half(out + 2, low);
    pack_fifth_bits(q, out + 4);
    pack_nibbles(q, out + 8);
}

static void q8_0(const float *x, uint8_t *out) {
    float d = fabsf(extreme(x, 32)) / 127.0f, id = inverse(d);
    put_half(out, d);
    for (int i = 0; i < 32; i++) out[2 + i] = (uint8_t)cut(roundf(x[i] * id), -128, 127);
}

/* ---- Blocks of 256: searches for scales ---------------------------------------------------------- */

/* What the search of one group of 32 tries and finds: x ≈ scale·code − offset. */
typedef struct group_fit {
    float scale, offset;
    uint8_t codes[GROUP];
} group_fit;

static void codes_for(const float *x, float iscale, float low, int most, uint8_t codes[GROUP]) {
    for (int i = 0; i < GROUP; i++) codes[i] = (uint8_t)clamp(near(iscale * (x[i] - low)), 0, most);
}

static float weighted_error(const float *x, const float *w, float scale, float low,
                            const uint8_t codes[GROUP]) {
    float error = 0.0f;
    for (int i = 0; i < GROUP; i++) {
        float difference = scale * (float)codes[i] + low - x[i];
        error += w[i] * (difference * difference);
    }
    return error;
}

/* Best scale and smallest value for given codes: weighted least squares, the smallest value kept at most 0. */
static bool least_squares(const float *x, const float *w, float sum_w, float sum_x, const uint8_t codes[GROUP],
                          float *scale, float *low) {
    float sum_l = 0.0f, sum_l2 = 0.0f, sum_xl = 0.0f;
    for (int i = 0; i < GROUP; i++) {
        float wl = w[i] * (float)codes[i];
        sum_l += wl;
        sum_l2 += wl * (float)codes[i];
        sum_xl += wl * x[i];
    }
    float d = sum_w * sum_l2 - sum_l * sum_l;
    if (!(d > 0.0f)) return false;
    *scale = (sum_w * sum_xl - sum_x * sum_l) / d;
    *low = (sum_l2 * sum_x - sum_l * sum_xl) / d;
    if (*low > 0.0f) *low = 0.0f, *scale = sum_xl / sum_l2;
    return true;
}

/* The asymmetric search (qkx2): several first guesses of the inverse scale, each refined once. The trap: a
 * better fit moves the smallest value that the later guesses start from, while the largest stays. */
static group_fit asymmetric_search(const float *x, const float *w, int most, float first, float step,
                                   int steps) {
    group_fit best = {0};
    float low, high, sum_w = 0.0f, sum_x = 0.0f;
    range(x, GROUP, &low, &high);
    for (int i = 0; i < GROUP; i++) sum_w += w[i], sum_x += w[i] * x[i];
    if (low > 0.0f) low = 0.0f;
    best.offset = -low;
    if (high == low) return best;
    float iscale = (float)most / (high - low), error;
    best.scale = 1.0f / iscale;
    codes_for(x, iscale, low, most, best.codes);
    error = weighted_error(x, w, best.scale, low, best.codes);
    for (int k = 0; k <= steps; k++) {
        uint8_t codes[GROUP];
        float scale, lowest;
        codes_for(x, (first + step * (float)k + (float)most) / (high - low), low, most, codes);
        if (!least_squares(x, w, sum_w, sum_x, codes, &scale, &lowest)) continue;
        float now = weighted_error(x, w, scale, lowest, codes);
        if (!(now < error)) continue;
        error = now;
        low = lowest;
        best.scale = scale;
        memcpy(best.codes, codes, sizeof codes);
    }
    best.offset = -low;
    return best;
}

/* The symmetric search (qx) of Q6_K over 16 values, weights x²: codes −32 … 31, stored from 0. Returns the
 * scale. */
static float symmetric_search(const float *x, uint8_t codes[16]) {
    const float peak = extreme(x, 16);
    float scale = 0.0f, best = 0.0f;
    memset(codes, 0, 16);
    if (fabsf(peak) < 1e-15f) return 0.0f;
    for (int k = -10; k <= 9;
         k++) { /* k = -10 stands for the plain guess, which comes first; 0 would repeat it */
        int tried[16];
        float sum_lx = 0.0f, sum_l2 = 0.0f;
        if (k == 0) continue;
        const float iscale = k == -10 ? -32.0f / peak : -(32.0f + 0.1f * (float)k) / peak;
        for (int i = 0; i < 16; i++) {
            tried[i] = clamp(near(iscale * x[i]), -32, 31);
            float w = x[i] * x[i];
            sum_lx += w * x[i] * (float)tried[i];
            sum_l2 += w * (float)tried[i] * (float)tried[i];
        }
        if (k > -10 && !(sum_l2 > 0.0f && sum_lx * sum_lx > best * sum_l2)) continue;
        scale = sum_l2 != 0.0f ? sum_lx / sum_l2 : 0.0f;
        best = scale * sum_lx;
        for (int i = 0; i < 16; i++) codes[i] = (uint8_t)(tried[i] + 32);
    }
    return scale;
}

/* ---- Blocks of 256: packing ---------------------------------------------------------------------- */

/* Eight 6-bit scales and minima into 12 bytes; the inverse is unpack6 in quant.c. */
static void pack6(const int scale[GROUPS], const int minimum[GROUPS], uint8_t out[12]) {
    for (int k = 0; k < 4; k++) {
        out[k] = (uint8_t)(scale[k] | (scale[k + 4] >> 4) << 6);
        out[k + 4] = (uint8_t)(minimum[k] | (minimum[k + 4] >> 4) << 6);
        out[k + 8] = (uint8_t)((scale[k + 4] & 15) | (minimum[k + 4] & 15) << 4);
    }
}

/* Six-bit code of `value` in units where the largest is 63. */
static int six_bits(float value, float largest) {
    const float to_code = largest > 0.0f ? 63.0f / largest : 0.0f;
    uint8_t code = (uint8_t)near(to_code * value); /* wraps like ggml's store into a byte */
    return code > 63 ? 63 : code;
}

/* Header and codes of Q4_K (most 15) and Q5_K (most 31). */
static void fit_super_block(const float *x, int most, float first, int steps, uint8_t *out,
                            uint8_t codes[SUPER]) {
    group_fit fits[GROUPS];
    int scale[GROUPS], minimum[GROUPS];
    float max_scale = 0.0f, max_offset = 0.0f;
    for (int g = 0; g < GROUPS; g++) {
        const float *v = x + GROUP * g;
        float weights[GROUP], squares = 0.0f;
        for (int i = 0; i < GROUP; i++) squares += v[i] * v[i];
        const float rms = sqrtf(squares / (float)GROUP);
        for (int i = 0; i < GROUP; i++) weights[i] = rms + fabsf(v[i]);
        fits[g] = asymmetric_search(v, weights, most, first, 0.1f, steps);
        if (fits[g].scale > max_scale) max_scale = fits[g].scale;
        if (fits[g].offset > max_offset) max_offset = fits[g].offset;
    }
    for (int g = 0; g < GROUPS; g++) {
        scale[g] = six_bits(fits[g].scale, max_scale);
        minimum[g] = six_bits(fits[g].offset, max_offset);
    }
    put_half(out, max_scale / 63.0f);
    put_half(out + 2, max_offset / 63.0f);
    pack6(scale, minimum, out + 4);
    const float d = rounded_to_half(max_scale / 63.0f), dmin = rounded_to_half(max_offset / 63.0f);
    for (int g = 0; g < GROUPS; g++) { /* codes again, with the scales as they were rounded */
        const float dl = d * (float)scale[g], ml = dmin * (float)minimum[g];
        memcpy(codes + GROUP * g, fits[g].codes, GROUP);
        if (dl == 0.0f) continue;
        for (int i = GROUP * g; i < GROUP * (g + 1); i++)
            codes[i] = (uint8_t)clamp(near((x[i] + ml) / dl), 0, most);
    }
}

/* Low nibbles of groups 2g and 2g+1 share 32 bytes. */
static void pack_group_nibbles(const uint8_t codes[SUPER], uint8_t *out) {
    for (int g = 0; g < GROUPS; g += 2)
        for (int i = 0; i < GROUP; i++)
            *out++ = (uint8_t)((codes[GROUP * g + i] & 15) | (codes[GROUP * (g + 1) + i] & 15) << 4);
}

static void q4_k(const float *x, uint8_t *out) {
    uint8_t codes[SUPER];
    fit_super_block(x, 15, -1.0f, 20, out, codes);
    pack_group_nibbles(codes, out + 16);
}

static void q5_k(const float *x, uint8_t *out) {
    uint8_t codes[SUPER];
    fit_super_block(x, 31, -0.5f, 15, out, codes);
    memset(out + 16, 0, 32);
    for (int t = 0; t < SUPER; t++) out[16 + t % 32] |= (uint8_t)((codes[t] >> 4) << (t / 32));
    pack_group_nibbles(codes, out + 48);
}

static void q6_k(const float *x, uint8_t *out) {
    uint8_t codes[SUPER];
    float scales[16];
    uint8_t *ql = out, *qh = out + 128;
    for (int g = 0; g < 16; g++) scales[g] = symmetric_search(x + 16 * g, codes + 16 * g);
    const float largest = extreme(scales, 16);
    memset(out, 0, 210);
    if (fabsf(largest) < 1e-15f) return;
    const float iscale = -128.0f / largest, d = rounded_to_half(1.0f / iscale);
    put_half(out + 208, 1.0f / iscale);
    for (int g = 0; g < 16; g++) {
        int scale = clamp(near(iscale * scales[g]), -128, 127);
        const float dl = d * (float)scale;
        out[192 + g] = (uint8_t)scale;
        if (dl == 0.0f) continue;
        for (int i = 16 * g; i < 16 * (g + 1); i++) codes[i] = (uint8_t)(clamp(near(x[i] / dl), -32, 31) + 32);
    }
    for (int t = 0; t < SUPER; t++) {
        int half = t / 128, j = t % 128 / 32, l = t % 32;
        ql[64 * half + l + 32 * (j & 1)] |= (uint8_t)(j >= 2 ? (codes[t] & 15) << 4 : codes[t] & 15);
        qh[32 * half + l] |= (uint8_t)((codes[t] >> 4) << (2 * j));
    }
}

/* ---- Face ---------------------------------------------------------------------------------------- */

static void narrow(tn_dtype dtype, const float *values, int64_t count, uint8_t *out) {
    for (int64_t i = 0; i < count; i++) {
        uint16_t bits = dtype == TN_DTYPE_BF16 ? tn_f32_to_bf16(values[i]) : tn_f32_to_f16(values[i]);
        memcpy(out + 2 * i, &bits, sizeof bits);
    }
}

tn_status tn_quantize(tn_dtype dtype, const float *values, int64_t count, void *out) {
    typedef void encoder(const float *values, uint8_t *block);
    static encoder *const encoders[TN_DTYPE_COUNT] = {
        [TN_DTYPE_Q4_0] = q4_0, [TN_DTYPE_Q4_1] = q4_1, [TN_DTYPE_Q5_0] = q5_0, [TN_DTYPE_Q5_1] = q5_1,
        [TN_DTYPE_Q8_0] = q8_0, [TN_DTYPE_Q4_K] = q4_k, [TN_DTYPE_Q5_K] = q5_k, [TN_DTYPE_Q6_K] = q6_k,
    };
    if (dtype == TN_DTYPE_F32) {
        memcpy(out, values, (size_t)count * sizeof *values);
        return TN_OK;
    }
    if (dtype == TN_DTYPE_F16 || dtype == TN_DTYPE_BF16) {
        narrow(dtype, values, count, out);
        return TN_OK;
    }
    encoder *encode = dtype < TN_DTYPE_COUNT ? encoders[dtype] : NULL;
    if (!encode) {
        tn_fail(TN_USAGE, "weights cannot be encoded as %s", tn_dtype_name(dtype));
        return tn_remedy("choose f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k or q6_k");
    }
    const int64_t block = tn_dtype_block(dtype), bytes = tn_dtype_block_bytes(dtype);
    if (count % block)
        return tn_fail(TN_USAGE, "%lld values are no whole number of %s blocks of %lld", (long long)count,
                       tn_dtype_name(dtype), (long long)block);
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(values[i]))
            return tn_fail(TN_BAD_DATA, "value %lld of %lld is not finite and has no %s code", (long long)i,
                           (long long)count, tn_dtype_name(dtype));
    for (int64_t i = 0; i < count; i += block) encode(values + i, (uint8_t *)out + i / block * bytes);
    return TN_OK;
}
