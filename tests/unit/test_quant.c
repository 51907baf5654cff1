/* test_quant.c: GGUF block types against vectors made by ggml's reference code and
 * against the `gguf` package (parity/golden/quant.safetensors, made by parity/make_quant_golden.py). */
#include <math.h>

#include "base/rng.h"
#include "format/safetensors.h"
#include "quant/quant.h"
#include "testing.h"

typedef struct vector {
    tn_dtype dtype;
    bool encoded; /* tn_quantize knows the type */
    float first[4];
    double mse;
    const char *hex;
} vector;

static const vector vectors[] = {
    {TN_DTYPE_Q8_0,
     true,
     {-1.69688416f, -0.565628052f, 0.580513f, 1.7117691f},
     1.83624e-05,
     "9f238eda2773b2ff4c8ad72470affc4887d4216dacf94584d11d6aa9f64281ce1a67"},
    {TN_DTYPE_Q4_0,
     true,
     {-1.65429688f, -0.47265625f, 0.47265625f, 1.65429688f},
     0.00487673,
     "9033a1f63a8fc3085da1f53a7fc3085da0e5"},
    {TN_DTYPE_Q4_1,
     true,
     {-1.65002441f, -0.447021484f, 0.515380859f, 1.71838379f},
     0.005055,
     "b33390bfa1f63a7fc3085da1e52a7fc3085c90e5"},
    {TN_DTYPE_Q5_0,
     true,
     {-1.65429688f, -0.590820312f, 0.590820312f, 1.77246094f},
     0.00118411,
     "902f6c2693c942eb55ff9600aa41db54fe860fa931da"},
    {TN_DTYPE_Q5_1,
     true,
     {-1.65771484f, -0.609619141f, 0.554931641f, 1.71948242f},
     0.00106897,
     "742f90bf6c3693c942eb65ff9600aa41eb55ff9600a941db"},
    {TN_DTYPE_IQ4_NL,
     false,
     {-1.51867676f, -0.51109314f, 0.554901123f, 1.65010071f},
     0.00449833,
     "7a23b1f52b7fd2084da0f52b7fd2084da0f4"},
    {TN_DTYPE_Q2_K,
     false,
     {-1.85253906f, -0.680664062f, 0.491210938f, 1.66308594f},
     0.119937,
     "efefffcfcfdfefefdecfdfefffcecfdf5499ea4395aa3f4495ea4355aa3f4095ea0f55a93e5095ea0f54a93e4095ea0f"
     "a9fe50a5fa0f54a9fa53a5ba0f50a5fa4395ea0e54a9fe4395e93e54a9fa4354002d3c30"},
    {TN_DTYPE_Q3_K,
     false,
     {-1.86779785f, -0.466949463f, 0.466949463f, 1.40084839f},
     0.0204431,
     "645eabe55c9ba3645cbbe55c9ba3645ccdd13aedd5322ecdd13aafd5322ecdd1e443d9731aa40ee44fd97319b40ee44f"
     "e953399c36ac47e953399036ac46e95393369c066dc36993369f066cc369d33ab00e64fd67f11ab01e64cd67f11bb01e"
     "36a5a56b5ac0b5a50cf0f0c399a4"},
    {TN_DTYPE_Q4_K,
     true,
     {-1.67498779f, -0.500671387f, 0.67364502f, 1.61309814f},
     0.00428265,
     "a01c3728f4fef4f3fafcf5faff74aa132166ab0f4388cd2166aa0f4388cd2065aaef4388cd2065aaef4387cc2065aaef"
     "63b8fd3186da0f53a8fd3185da0f53a8fd3085ca0f53a7fc2075ca0f52a7fc2086da1064a8fc3286da1e54a8fc3286da"
     "0e54a8fc3286ca0e54a8fc2276ca0e54b9fd3287db0054a9fd3287db0054a9fd3286cb0054a8fd2276cb0f54a8fd2276"},
    {TN_DTYPE_Q5_K,
     true,
     {-1.64797211f, -0.604923248f, 0.554019928f, 1.7129631f},
     0.00114975,
     "2a181428f9fff9f9fbfef7fdfe99ee49e0fc0f81f83f07e0fc1f81f83f07e0fc1f03f03e07c0f81f03f07e07c0f81f03"
     "52eb750f9620ba51db650f9620ba41db64fe851fa940da64fe851fa930ca54edb750fa620ba51fb650fa610ba51fb640"
     "ea51fb940ea54fe950fa940ea54fd9500ea720b952fb640da61fb952fb640da61fb841ea54fd960fa841ea53fc950ea8"
     "53fc660fa811ba53fc650ea710b943ec65fe9700a942eb54fd960fa942eb54fd"},
    {TN_DTYPE_Q6_K,
     true,
     {-1.68228149f, -0.560760498f, 0.560760498f, 1.73835754f},
     0.000268236,
     "12d6aabf8b400421e5a9ce8b5f1330f4583b7cbef1c204472a6bade0b1f436196a9dcfc1f326285a8cbeb0e21517497b"
     "93b1de0c1a476594a2cffd0b385684928cbeb0e21417497badafd20406386a9c50402dfadab79461413e1beac7a57251"
     "3e0afdc9a590644f1b0edab59174402c22e6a9cd8c4f0332f5b9dc9b5e1231f47095ca3364da0f7095ca3364d90f7095"
     "f60358e5334ca9f60358a5334c99f60365328c5936c39c6532cf5936c39c6932f06719fca3560df06719cca3560df067"
     "707a7c808c72787b7e8790757880858e1a10"},
    {TN_DTYPE_IQ4_XS,
     false,
     {-1.83467484f, -0.505619049f, 0.548957825f, 1.63242722f},
     0.00575645,
     "3a9030f0044c30cfb0f52b7fd2084da0f42b7fd2084da0f4c2f74c90e42a6ec2f74c90e4296eb2f62df7b24f0ad4802d"
     "f7b25f0be4802df8f42b7fd2074da0f41b7fd2074da0f41af63c90e4196eb2f63c9fd4196eb2f63c085eb1f52b8fd308"
     "4eb1f52b7fd2084de6914ef9c36f2ce6914e09c36f2ce6a1d4702df7b14f0ad4702df7b24f0ad480"},
};
enum { VECTORS = sizeof vectors / sizeof *vectors };

static void vector_input(float x[256]) {
    for (int i = 0; i < 256; i++) x[i] = (float)((73 * i + 19) % 257 - 128) / 64.0f;
}

static void bytes_of(const vector *v, uint8_t *out) {
    int64_t n = tn_dtype_block_bytes(v->dtype);
    assert_int_equal((int64_t)strlen(v->hex), 2 * n);
    for (int64_t i = 0; i < n; i++) {
        unsigned byte;
        assert_int_equal(sscanf(v->hex + 2 * i, "%2x", &byte), 1);
        out[i] = (uint8_t)byte;
    }
}

static void vectors_decode_to_their_values(void **state) {
    (void)state;
    float x[256], y[256];
    uint8_t block[256];
    vector_input(x);
    for (int i = 0; i < VECTORS; i++) {
        const vector *v = &vectors[i];
        const int64_t n = tn_dtype_block(v->dtype);
        double mse = 0;
        bytes_of(v, block);
        tn_dequantize(v->dtype, block, 0, n, y);
        for (int k = 0; k < 4; k++) /* nine digits were printed: the same float */
            if (y[k] != v->first[k])
                fail_msg("%s[%d] is %.9g, not %.9g", tn_dtype_name(v->dtype), k, y[k], v->first[k]);
        for (int64_t k = 0; k < n; k++) mse += pow((double)y[k] - (double)x[k], 2) / (double)n;
        if (fabs(mse - v->mse) > 2e-5 * v->mse)
            fail_msg("%s: mse %.9g, not %.9g", tn_dtype_name(v->dtype), mse, v->mse);
    }
}

static void encoders_reproduce_the_vectors_byte_for_byte(void **state) {
    (void)state;
    float x[256];
    uint8_t want[256], got[256];
    int tested = 0;
    vector_input(x);
    for (int i = 0; i < VECTORS; i++) {
        const vector *v = &vectors[i];
        const int64_t bytes = tn_dtype_block_bytes(v->dtype);
        if (!v->encoded) continue;
        bytes_of(v, want);
        memset(got, 0xAA, sizeof got);
        assert_int_equal(tn_quantize(v->dtype, x, tn_dtype_block(v->dtype), got), TN_OK);
        must_match(got, want, bytes);
        assert_int_equal(got[bytes], 0xAA); /* nothing behind the block was written */
        tested++;
    }
    assert_int_equal(tested, 8);
}

static const tn_tensor_info *golden_tensor(const tn_safetensors *golden, tn_dtype dtype, const char *what) {
    char name[64];
    snprintf(name, sizeof name, "%s.%s", tn_dtype_name(dtype), what);
    return tn_safetensors_find(golden, name);
}

static tn_safetensors *open_golden(void) {
    tn_safetensors *golden;
    must(tn_safetensors_open("tests/parity/golden/quant.safetensors", &golden));
    return golden;
}

static void random_blocks_decode_to_the_bits_of_the_gguf_package(void **state) {
    (void)state;
    tn_safetensors *golden = open_golden();
    for (int d = TN_DTYPE_Q4_0; d <= TN_DTYPE_IQ4_XS; d++) {
        const tn_tensor_info *blocks = golden_tensor(golden, (tn_dtype)d, "blocks");
        const tn_tensor_info *values = golden_tensor(golden, (tn_dtype)d, "values");
        assert_non_null(blocks);
        assert_int_equal(values->elements, blocks->shape[0] * tn_dtype_block((tn_dtype)d));
        float *got = malloc((size_t)values->bytes);
        tn_dequantize((tn_dtype)d, blocks->data, 0, values->elements, got);
        for (int64_t i = 0; i < values->elements; i++)
            if (memcmp(got + i, (const char *)values->data + 4 * i, 4) != 0)
                fail_msg("%s: value %lld differs", tn_dtype_name((tn_dtype)d), (long long)i);
        free(got);
    }
    tn_safetensors_close(golden);
}

static void encoders_give_the_bytes_of_the_gguf_package(void **state) {
    (void)state;
    static const tn_dtype types[] = {TN_DTYPE_Q4_0, TN_DTYPE_Q4_1, TN_DTYPE_Q5_0, TN_DTYPE_Q5_1, TN_DTYPE_Q8_0};
    tn_safetensors *golden = open_golden();
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        const tn_tensor_info *input = golden_tensor(golden, types[k], "input");
        const tn_tensor_info *bytes = golden_tensor(golden, types[k], "bytes");
        float *x = malloc((size_t)input->bytes);
        uint8_t *got = malloc((size_t)bytes->bytes);
        memcpy(x, input->data, (size_t)input->bytes);
        assert_int_equal(tn_quantize(types[k], x, input->elements, got), TN_OK);
        must_match(got, bytes->data, bytes->bytes);
        free(x);
        free(got);
    }
    tn_safetensors_close(golden);
}

static void decoding_may_start_at_any_block(void **state) {
    (void)state;
    tn_safetensors *golden = open_golden();
    for (int d = TN_DTYPE_Q4_0; d <= TN_DTYPE_IQ4_XS; d++) {
        const tn_tensor_info *blocks = golden_tensor(golden, (tn_dtype)d, "blocks");
        const tn_tensor_info *values = golden_tensor(golden, (tn_dtype)d, "values");
        const int64_t block = tn_dtype_block((tn_dtype)d);
        float got[512];
        tn_dequantize((tn_dtype)d, blocks->data, 3 * block, 2 * block, got);
        must_match(got, (const float *)values->data + 3 * block, 2 * block * 4);
    }
    tn_safetensors_close(golden);
}

static double error_of(tn_dtype dtype, const float *x, int64_t n) {
    uint8_t *bytes = malloc((size_t)(n / tn_dtype_block(dtype) * tn_dtype_block_bytes(dtype)));
    float *y = malloc((size_t)n * sizeof *y);
    double sum = 0;
    assert_int_equal(tn_quantize(dtype, x, n, bytes), TN_OK);
    tn_dequantize(dtype, bytes, 0, n, y);
    for (int64_t i = 0; i < n; i++) sum += pow((double)y[i] - (double)x[i], 2) / (double)n;
    free(bytes);
    free(y);
    return sqrt(sum);
}

/* On standard normal values; the bounds are a few percent above what was measured. */
static void round_trip_error_is_what_the_bits_allow(void **state) {
    (void)state;
    static const struct {
        tn_dtype dtype;
        double most;
    } bounds[] = {{TN_DTYPE_Q8_0, 0.0056}, {TN_DTYPE_Q6_K, 0.0182}, {TN_DTYPE_Q5_K, 0.0371},
                  {TN_DTYPE_Q5_1, 0.0388}, {TN_DTYPE_Q5_0, 0.0437}, {TN_DTYPE_Q4_K, 0.0730},
                  {TN_DTYPE_Q4_1, 0.0800}, {TN_DTYPE_Q4_0, 0.0880}};
    enum { N = 1 << 15 };
    float *x = malloc(N * sizeof *x);
    for (int i = 0; i < N; i++) x[i] = tn_random_normal(5, TN_STREAM(TN_PURPOSE_BENCH, 0, 0), (uint64_t)i);
    for (size_t k = 0; k < sizeof bounds / sizeof *bounds; k++) {
        double error = error_of(bounds[k].dtype, x, N);
        if (!(error < bounds[k].most) || error < 0.9 * bounds[k].most)
            fail_msg("%s: rms error %.4f, expected just below %.4f", tn_dtype_name(bounds[k].dtype), error,
                     bounds[k].most);
    }
    free(x);
}

static void constant_and_tiny_blocks_survive(void **state) {
    (void)state;
    static const float levels[] = {0.0f, 1.0f, -3.0f, 1e-20f, 1e-39f, 1e-44f, 6e4f, -3e38f};
    float x[256], y[256];
    uint8_t bytes[256];
    for (int i = 0; i < VECTORS; i++) {
        if (!vectors[i].encoded) continue;
        for (size_t k = 0; k < sizeof levels / sizeof *levels; k++) {
            for (int t = 0; t < 256; t++) x[t] = levels[k];
            assert_int_equal(tn_quantize(vectors[i].dtype, x, tn_dtype_block(vectors[i].dtype), bytes), TN_OK);
            tn_dequantize(vectors[i].dtype, bytes, 0, tn_dtype_block(vectors[i].dtype), y);
            if (fabsf(levels[k]) > 1e38f) continue; /* beyond what an fp16 scale holds */
            for (int t = 0; t < tn_dtype_block(vectors[i].dtype); t++)
                assert_true(fabsf(y[t] - x[t]) <= 0.01f * fabsf(x[t]) + 1e-7f);
        }
    }
}

/* roundf, not half to even; the amax of 127 makes the scale 1. */
static void q8_0_rounds_halves_away_from_zero(void **state) {
    (void)state;
    float x[32] = {127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -2.5f, -126.5f};
    static const int8_t want[] = {127, 1, 2, 3, -1, -3, -127};
    uint8_t bytes[34];
    must(tn_quantize(TN_DTYPE_Q8_0, x, 32, bytes));
    must_match(bytes + 2, want, sizeof want);
}

static void what_has_no_code_is_refused(void **state) {
    (void)state;
    float x[256] = {0};
    uint8_t bytes[256];
    x[7] = NAN;
    assert_int_equal(tn_quantize(TN_DTYPE_Q4_K, x, 256, bytes), TN_BAD_DATA);
    x[7] = INFINITY;
    assert_int_equal(tn_quantize(TN_DTYPE_Q8_0, x, 32, bytes), TN_BAD_DATA);
    x[7] = 0;
    assert_int_equal(tn_quantize(TN_DTYPE_Q4_K, x, 128, bytes), TN_USAGE); /* half a block */
    assert_int_equal(tn_quantize(TN_DTYPE_IQ4_XS, x, 256, bytes), TN_USAGE);
    assert_int_equal(tn_quantize(TN_DTYPE_I8, x, 256, bytes), TN_USAGE);
}

static void plain_types_round_to_nearest_even_and_keep_special_values(void **state) {
    (void)state;
    const float x[] = {1.0f, -0.0f, 1.00390625f, 1.01171875f, 3.3895e38f, INFINITY, 65520.0f, 5.9e-8f};
    uint16_t bf16[8], f16[8];
    float back[8];
    assert_int_equal(tn_quantize(TN_DTYPE_BF16, x, 8, bf16), TN_OK);
    assert_int_equal(bf16[0], 0x3F80);
    assert_int_equal(bf16[1], 0x8000);
    assert_int_equal(bf16[2], 0x3F80); /* half way: to even */
    assert_int_equal(bf16[3], 0x3F82);
    assert_int_equal(bf16[5], 0x7F80);
    assert_int_equal(tn_quantize(TN_DTYPE_F16, x, 8, f16), TN_OK);
    assert_int_equal(f16[0], 0x3C00);
    assert_int_equal(f16[6], 0x7C00);
    assert_int_equal(f16[7], 0x0001);
    tn_dequantize(TN_DTYPE_F16, f16, 0, 8, back);
    assert_true(back[0] == 1.0f && isinf(back[5]));
    tn_dequantize(TN_DTYPE_F32, x, 2, 3, back);
    must_match(back, x + 2, 12);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_decode_to_their_values),
        cmocka_unit_test(encoders_reproduce_the_vectors_byte_for_byte),
        cmocka_unit_test(random_blocks_decode_to_the_bits_of_the_gguf_package),
        cmocka_unit_test(encoders_give_the_bytes_of_the_gguf_package),
        cmocka_unit_test(decoding_may_start_at_any_block),
        cmocka_unit_test(round_trip_error_is_what_the_bits_allow),
        cmocka_unit_test(constant_and_tiny_blocks_survive),
        cmocka_unit_test(q8_0_rounds_halves_away_from_zero),
        cmocka_unit_test(what_has_no_code_is_refused),
        cmocka_unit_test(plain_types_round_to_nearest_even_and_keep_special_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
