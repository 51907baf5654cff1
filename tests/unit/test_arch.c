/* test_arch.c: config.json as an architecture: what Transformers ignores is said, what it refuses is refused,
 * and where two keys say the same thing the one that it takes wins.
 */
#include "model/arch.h"
#include "testing.h"

static int partial_warnings;

static void count_partial(void *user, tn_log_level level, const char *line) {
    (void)user;
    if (level == TN_LOG_WARNING && strstr(line, "partial_rotary_factor 0.5 is not used")) partial_warnings++;
}

/* A model of this family with hidden_size 256, 32 heads and two layers, and with `more` in its config.json:
 * each key with a comma before it; of two equal keys the reader takes the last. */
static tn_status read(const char *family, const char *more, tn_arch *arch) {
    static tn_arena arena; /* the architecture points into it, until the next one */
    const tn_json *config;
    char text[1024];
    tn_arena_free(&arena);
    snprintf(text, sizeof text,
             "{\"model_type\":\"%s\",\"hidden_size\":256,\"num_attention_heads\":32,"
             "\"num_hidden_layers\":2,\"max_position_embeddings\":64%s}",
             family, more);
    must(tn_json_parse(&arena, text, (int64_t)strlen(text), 0, "test", &config));
    return tn_arch_read(&arena, config, NULL, "config.json", arch);
}

static const char *const families[] = {"llama", "mistral", "qwen2", "qwen3", "granite", "smollm3", "seed_oss"};
enum { FAMILIES = sizeof families / sizeof *families };

static void a_part_of_a_head_never_turns(void **state) {
    (void)state;
    tn_arch arch;
    for (int i = 0; i < FAMILIES; i++) {
        partial_warnings = 0;
        tn_log_set(count_partial, NULL);
        must(read(families[i], ",\"partial_rotary_factor\":0.5", &arch));
        must(read(families[i], ",\"rope_parameters\":{\"rope_type\":\"default\",\"partial_rotary_factor\":0.5}",
                  &arch));
        tn_log_set(NULL, NULL);
        assert_int_equal(partial_warnings, 2);
        assert_int_equal(arch.rope.half, arch.head_dim / 2);
        must_fail(
            read(families[i],
                 ",\"partial_rotary_factor\":0.5,\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}", &arch),
            TN_USAGE, "partial_rotary_factor 0.5");
    }
    /* what is written inside rope_parameters is what counts */
    must(read("llama",
              ",\"partial_rotary_factor\":0.5,\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":2,"
              "\"partial_rotary_factor\":1.0}",
              &arch));
    must_fail(read("llama", ",\"partial_rotary_factor\":1.5", &arch), TN_BAD_DATA, "must be in (0, 1]");
    must_fail(read("llama", ",\"partial_rotary_factor\":\"half\"", &arch), TN_BAD_DATA, "must be in (0, 1]");
}

static void of_two_generations_of_rope_keys_the_old_one_wins(void **state) {
    (void)state;
    tn_arch arch;
    must(read("llama",
              ",\"rope_theta\":7,\"rope_scaling\":{\"type\":\"linear\",\"factor\":2},"
              "\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":5}",
              &arch));
    assert_int_equal(arch.rope.kind, TN_ROPE_LINEAR);
    assert_true(arch.rope.theta == 7);
    must(read("llama",
              ",\"rope_theta\":7,\"rope_scaling\":{},"
              "\"rope_parameters\":{\"rope_type\":\"dynamic\",\"factor\":3,\"rope_theta\":5}",
              &arch));
    assert_int_equal(arch.rope.kind, TN_ROPE_DYNAMIC);
    assert_true(arch.rope.theta == 5);
}

static void null_asks_for_the_size_that_follows(void **state) {
    (void)state;
    tn_arch arch;
    must(read("seed_oss", ",\"head_dim\":null,\"num_key_value_heads\":null", &arch));
    assert_int_equal(arch.head_dim, 8);
    assert_int_equal(arch.kv_heads, 32);
    must(read("seed_oss", "", &arch));
    assert_int_equal(arch.head_dim, 128);
    assert_int_equal(arch.kv_heads, 8);
}

static void layer_types_speak_of_every_layer(void **state) {
    (void)state;
    static const char *const wrong[] = {"[\"full_attention\"]", "[]", "\"full_attention\"",
                                        "[\"full_attention\",\"full_attention\",\"sliding_attention\"]"};
    tn_arch arch;
    char keys[256];
    for (int i = 0; i < FAMILIES; i++)
        for (int k = 0; k < 4; k++) {
            snprintf(keys, sizeof keys, ",\"layer_types\":%s", wrong[k]);
            must_fail(read(families[i], keys, &arch), TN_BAD_DATA, "one entry for each of the 2 layers");
        }
    must_fail(read("qwen3", ",\"layer_types\":[\"full_attention\",\"linear_attention\"]", &arch), TN_USAGE,
              "layer_types[1] \"linear_attention\"");
    must(read("qwen3", ",\"layer_types\":null", &arch));
    must(read("qwen2",
              ",\"layer_types\":[\"sliding_attention\",\"full_attention\"],\"use_sliding_window\":true,"
              "\"sliding_window\":4",
              &arch));
    assert_true(arch.layer_windowed[0] && !arch.layer_windowed[1]);
}

/* inv_freq of Transformers 5.23, to the bit: at position 100,000 a last bit is an angle of 0.006. */
static void inverse_frequencies_are_those_of_transformers_to_the_bit(void **state) {
    static const struct {
        const char *keys;
        float inv_freq[8];
    } rows[] = {
        {"\"rope_type\":\"dynamic\",\"rope_theta\":10000,\"factor\":1.5",
         {0x1p+0f, 0x1.1edaeap-2f, 0x1.416dep-4f, 0x1.682b9ep-6f, 0x1.9394bcp-8f, 0x1.c43946p-10f,
          0x1.fabab4p-12f, 0x1.1be6f4p-13f}},
        {"\"rope_type\":\"yarn\",\"rope_theta\":10000,\"factor\":8,\"truncate\":false,"
         "\"original_max_position_embeddings\":64",
         {0x1p+0f, 0x1.6e8b0cp-3f, 0x1.b05b22p-7f, 0x1.030dc6p-8f, 0x1.47ae14p-10f, 0x1.9e7c7p-12f,
          0x1.0624dep-13f, 0x1.4b96cp-15f}},
        {"\"rope_type\":\"llama3\",\"rope_theta\":123,\"factor\":1.5,\"low_freq_factor\":1,"
         "\"high_freq_factor\":4,\"original_max_position_embeddings\":64",
         {0x1p+0f, 0x1.18905cp-1f, 0x1.13527ap-2f, 0x1.f3f1eep-4f, 0x1.ec6e8ep-5f, 0x1.0dd74ep-5f,
          0x1.27bba8p-6f, 0x1.441c06p-7f}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char keys[512];
        tn_arch arch;
        float got[8];
        snprintf(keys, sizeof keys, ",\"head_dim\":16,\"rope_parameters\":{%s}", rows[i].keys);
        must(read("llama", keys, &arch));
        assert_int_equal(arch.rope.half, 8);
        tn_rope_inv_freq(&arch.rope, 121, got);
        must_match(got, rows[i].inv_freq, sizeof got);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_part_of_a_head_never_turns),
        cmocka_unit_test(inverse_frequencies_are_those_of_transformers_to_the_bit),
        cmocka_unit_test(of_two_generations_of_rope_keys_the_old_one_wins),
        cmocka_unit_test(null_asks_for_the_size_that_follows),
        cmocka_unit_test(layer_types_speak_of_every_layer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
