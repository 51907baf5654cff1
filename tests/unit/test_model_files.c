/* test_model_files.c: a model directory, a GGUF file and a bare config.json through one interface. */
#include <math.h>

#include "format/model_files.h"
#include "format/safetensors.h"
#include "gguf_builder.h"
#include "testing.h"

#define REAL_GGUF "build/models/SmolLM2-135M-Instruct.Q4_1.gguf"

/* ---- Directories --------------------------------------------------------------------------------- */

static int directories;

/* A fresh directory with this config.json (none where NULL). */
static void new_directory(char path[64], const char *config) {
    char name[32];
    snprintf(name, sizeof name, "model-%d", directories++);
    snprintf(path, 64, "%s", scratch(name));
    must(tn_make_directories(path));
    snprintf(name + strlen(name), sizeof name - strlen(name), "/config.json");
    if (config) write_scratch(name, config, (int64_t)strlen(config));
}

static const char *inside(const char *directory, const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static void save(const char *directory, const char *name, const char *text) {
    must(tn_save_text(inside(directory, name), text, (int64_t)strlen(text)));
}

static tn_status give(void *user, int64_t declared, const void **bytes) {
    static const float values[] = {1, 2, 3, 4};
    (void)user;
    *bytes = values + declared % 4;
    return TN_OK;
}

/* A file with one-element F32 tensors of these names. */
static void save_tensors(const char *directory, const char *file, const char *const *names) {
    static const int64_t one[] = {1};
    tn_safetensors_writer *w;
    must(tn_safetensors_writer_new(&w));
    for (; *names; names++) must(tn_safetensors_declare(w, *names, TN_DTYPE_F32, 1, one));
    must(tn_safetensors_write(w, inside(directory, file), give, NULL));
    tn_safetensors_writer_free(w);
}

#define INDEX "model.safetensors.index.json"
static const char *const first[] = {"a", "b", NULL}, *const second[] = {"c", NULL};

static void new_sharded(char path[64]) {
    new_directory(path, "{\"model_type\":\"llama\",\"rope_parameters\":{\"rope_theta\":5}}");
    save_tensors(path, "model-00001-of-00002.safetensors", first);
    save_tensors(path, "model-00002-of-00002.safetensors", second);
    /* the index does not know of b, and has c in the wrong file: the headers count */
    save(path, INDEX,
         "{\"metadata\":{\"total_size\":12},\"weight_map\":{\"c\":\"model-00001-of-00002.safetensors\","
         "\"a\":\"model-00002-of-00002.safetensors\"}}");
}

static void a_single_file_is_opened_and_the_config_handed_on(void **state) {
    (void)state;
    char path[64];
    tn_model_files *f;
    new_directory(path, "{\"model_type\":\"qwen3\",\"rope_parameters\":{\"rope_theta\":1000000.0}}");
    save_tensors(path, "model.safetensors", first);
    save(path, INDEX, "not looked at");
    save(path, "generation_config.json", "{\"eos_token_id\":[1,2]}");
    must(tn_model_files_open(path, true, &f));
    assert_int_equal(tn_model_files_get_kind(f), TN_MODEL_DIRECTORY);
    assert_int_equal(tn_model_files_count(f), 2);
    assert_string_equal(tn_model_files_find(f, "b")->name, "b");
    assert_null(tn_model_files_find(f, "c"));
    assert_true(tn_json_number(tn_json_path(tn_model_files_config(f), "rope_parameters.rope_theta"), 0) == 1e6);
    assert_int_equal(tn_json_get(tn_model_files_generation_config(f), "eos_token_id")->count, 2);
    assert_false(tn_model_files_permuted(f, tn_model_files_at(f, 0)));
    assert_string_equal(tn_model_files_path(f), path);
    tn_model_files_close(f);
}

static void shards_are_joined_and_their_headers_trusted(void **state) {
    (void)state;
    char path[64];
    tn_model_files *f;
    new_sharded(path);
    must(tn_model_files_open(path, true, &f));
    assert_int_equal(tn_model_files_count(f), 3);
    assert_true(tn_ends_with(tn_model_files_find(f, "c")->file, "model-00002-of-00002.safetensors"));
    assert_true(tn_ends_with(tn_model_files_find(f, "b")->file, "model-00001-of-00002.safetensors"));
    assert_null(tn_model_files_generation_config(f));
    tn_model_files_close(f);
}

static void a_missing_shard_is_named(void **state) {
    (void)state;
    char path[64];
    tn_model_files *f;
    new_sharded(path);
    assert_int_equal(remove(inside(path, "model-00002-of-00002.safetensors")), 0);
    must_fail(tn_model_files_open(path, true, &f), TN_USAGE, "model-00002-of-00002.safetensors is missing");
    assert_non_null(strstr(tn_error_remedy(), "all 2"));
    assert_null(f);
    must(tn_model_files_open(path, false, &f)); /* what a plan needs is there */
    assert_int_equal(tn_model_files_count(f), 0);
    tn_model_files_close(f);
}

static void a_damaged_shard_or_index_is_damage(void **state) {
    (void)state;
    static const char *const indexes[] = {"{",
                                          "{}",
                                          "[]",
                                          "{\"weight_map\":{}}",
                                          "{\"weight_map\":{\"a\":1}}",
                                          "{\"weight_map\":{\"a\":\"../secret.safetensors\"}}",
                                          "{\"weight_map\":{\"a\":\"\"}}"};
    char path[64];
    tn_model_files *f;
    new_sharded(path);
    save(path, "model-00002-of-00002.safetensors", "short");
    must_fail(tn_model_files_open(path, true, &f), TN_BAD_DATA, "model-00002-of-00002.safetensors");
    for (size_t i = 0; i < sizeof indexes / sizeof *indexes; i++) {
        save(path, INDEX, indexes[i]);
        must_fail(tn_model_files_open(path, true, &f), TN_BAD_DATA, INDEX);
    }
}

static void a_tensor_in_two_shards_is_refused(void **state) {
    (void)state;
    char path[64];
    tn_model_files *f;
    new_sharded(path);
    save_tensors(path, "model-00002-of-00002.safetensors", first);
    must_fail(tn_model_files_open(path, true, &f), TN_BAD_DATA, "stands twice");
}

static void what_is_missing_is_a_usage_error_with_a_remedy(void **state) {
    (void)state;
    char path[64];
    tn_model_files *f;
    must_fail(tn_model_files_open("/nonexistent/model", true, &f), TN_USAGE,
              "/nonexistent/model does not exist");
    new_directory(path, NULL);
    must_fail(tn_model_files_open(path, false, &f), TN_USAGE, "config.json");
    save(path, "config.json", "{}");
    must(tn_model_files_open(path, false, &f));
    tn_model_files_close(f);
    must_fail(tn_model_files_open(path, true, &f), TN_USAGE, "neither model.safetensors nor");
    save(path, "pytorch_model.bin", "x");
    must_fail(tn_model_files_open(path, true, &f), TN_USAGE, "neither model.safetensors nor");
    assert_non_null(strstr(tn_error_remedy(), "pickle"));
    save(path, "config.json", "[1]");
    must_fail(tn_model_files_open(path, false, &f), TN_BAD_DATA, "config.json is an array");
    save(path, "config.json", "{\"a\":");
    must_fail(tn_model_files_open(path, false, &f), TN_BAD_DATA, "config.json");
}

static void a_bare_config_is_a_model_without_weights(void **state) {
    (void)state;
    char path[64];
    tn_model_files *f;
    new_directory(path, "{\"hidden_size\":64}");
    must(tn_model_files_open(inside(path, "config.json"), false, &f));
    assert_int_equal(tn_model_files_get_kind(f), TN_MODEL_CONFIG_ONLY);
    assert_int_equal(tn_model_files_count(f), 0);
    assert_null(tn_model_files_find(f, "model.norm.weight"));
    assert_int_equal(tn_json_integer(tn_json_get(tn_model_files_config(f), "hidden_size"), 0), 64);
    tn_model_files_close(f);
    must_fail(tn_model_files_open(inside(path, "config.json"), true, &f), TN_USAGE, "without weights");
    save(path, "weights.bin", "what is this");
    must_fail(tn_model_files_open(inside(path, "weights.bin"), true, &f), TN_BAD_DATA,
              "neither a GGUF file nor");
}

static void the_hash_tells_configurations_and_shapes_apart(void **state) {
    (void)state;
    char path[64], digits[3][33];
    const char *const configs[] = {"{\"a\":1}", "{\"a\":1}", "{\"a\":2}"};
    for (int i = 0; i < 3; i++) {
        tn_model_files *f;
        new_directory(path, configs[i]);
        save_tensors(path, "model.safetensors", first);
        must(tn_model_files_open(path, true, &f));
        must(tn_model_files_hash(f, digits[i]));
        tn_model_files_close(f);
    }
    assert_string_equal(digits[0], digits[1]); /* where the model lies does not matter */
    assert_string_not_equal(digits[0], digits[2]);
    tn_model_files *f;
    save_tensors(path, "model.safetensors", second);
    must(tn_model_files_open(path, true, &f));
    must(tn_model_files_hash(f, digits[0]));
    tn_model_files_close(f);
    assert_string_not_equal(digits[0], digits[2]);
}

/* ---- GGUF ---------------------------------------------------------------------------------------- */

static tn_str bytes;

static tn_status open_gguf(gguf_builder *b, tn_model_files **f) {
    build_gguf(b, &bytes);
    return tn_model_files_open(write_scratch("model.bin", bytes.data, bytes.length), true, f);
}

/* The keys every loader needs. */
static void add_model(gguf_builder *b, const char *name) {
    static const struct {
        const char *key;
        uint32_t value;
    } keys[] = {{"context_length", 512},     {"embedding_length", 32},    {"block_count", 2},
                {"feed_forward_length", 48}, {"attention.head_count", 4}, {"attention.head_count_kv", 2}};
    char key[96];
    add_string(b, "general.architecture", name);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        snprintf(key, sizeof key, "%s.%s", name, keys[i].key);
        add_u32(b, key, keys[i].value);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", name);
    add_f32(b, key, 1e-5f);
}

static void add_zeros(gguf_builder *b, const char *name, int64_t rows, int64_t cols) {
    static const float zeros[4096];
    const int64_t ne[] = {cols, rows};
    assert_true(rows * cols <= 4096);
    add_tensor(b, name, rows > 1 ? 2 : 1, ne, 0, zeros, 4 * rows * cols);
}

/* One layer with everything Q/K/V can have. */
static void add_layer(gguf_builder *b) {
    static const char *const names[] = {"attn_norm",   "attn_q",   "attn_k",      "attn_v",
                                        "attn_output", "ffn_gate", "attn_q_norm", "attn_k_norm",
                                        "ffn_up",      "ffn_down", "ffn_norm"};
    char name[64];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(name, sizeof name, "blk.11.%s.weight", names[i]);
        add_zeros(b, name, 2, 32);
    }
    add_zeros(b, "blk.11.attn_q.bias", 1, 32);
    add_zeros(b, "blk.11.attn_v.bias", 1, 16);
}

static const tn_json *config_of(const tn_model_files *f, const char *key) {
    return tn_json_path(tn_model_files_config(f), key);
}

static void a_gguf_reads_like_a_directory(void **state) {
    (void)state;
    gguf_builder b = {0};
    tn_model_files *f;
    add_model(&b, "llama");
    add_u32(&b, "tokenizer.ggml.bos_token_id", 1);
    add_u32(&b, "tokenizer.ggml.eos_token_id", 2);
    add_zeros(&b, "token_embd.weight", 50, 32);
    add_zeros(&b, "output_norm.weight", 1, 32);
    add_layer(&b);
    must(open_gguf(&b, &f));
    assert_int_equal(tn_model_files_get_kind(f), TN_MODEL_GGUF);
    assert_true(tn_json_is_string(config_of(f, "model_type"), "llama"));
    assert_true(tn_json_is_string(config_of(f, "architectures[0]"), "LlamaForCausalLM"));
    static const struct {
        const char *key;
        int64_t value;
    } want[] = {{"hidden_size", 32},        {"intermediate_size", 48},        {"num_hidden_layers", 2},
                {"num_attention_heads", 4}, {"num_key_value_heads", 2},       {"head_dim", 8},
                {"vocab_size", 50},         {"max_position_embeddings", 512}, {"bos_token_id", 1},
                {"eos_token_id", 2}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        if (tn_json_integer(config_of(f, want[i].key), -1) != want[i].value) fail_msg("%s", want[i].key);
    assert_true(tn_json_number(config_of(f, "rms_norm_eps"), 0) ==
                1e-5); /* as written by people, not 9.99…e-06 */
    assert_true(tn_json_number(config_of(f, "rope_theta"), 0) == 10000.0);
    assert_true(tn_json_boolean(config_of(f, "tie_word_embeddings"), false));
    assert_null(config_of(f, "rope_scaling"));
    assert_null(config_of(f, "tenon_rope_divisors"));
    assert_null(config_of(f, "attention_bias"));
    static const char *const names[] = {"model.embed_tokens.weight",
                                        "model.norm.weight",
                                        "model.layers.11.input_layernorm.weight",
                                        "model.layers.11.self_attn.q_proj.weight",
                                        "model.layers.11.self_attn.k_proj.weight",
                                        "model.layers.11.self_attn.v_proj.weight",
                                        "model.layers.11.self_attn.o_proj.weight",
                                        "model.layers.11.self_attn.q_norm.weight",
                                        "model.layers.11.self_attn.k_norm.weight",
                                        "model.layers.11.mlp.gate_proj.weight",
                                        "model.layers.11.mlp.up_proj.weight",
                                        "model.layers.11.mlp.down_proj.weight",
                                        "model.layers.11.post_attention_layernorm.weight",
                                        "model.layers.11.self_attn.q_proj.bias",
                                        "model.layers.11.self_attn.v_proj.bias"};
    assert_int_equal(tn_model_files_count(f), sizeof names / sizeof *names);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const tn_tensor_info *t = tn_model_files_find(f, names[i]);
        if (!t) fail_msg("%s is not found", names[i]);
        /* q and k of the llama layout, bias included, and not their norms */
        assert_int_equal(tn_model_files_permuted(f, t),
                         strstr(names[i], "q_proj") || strstr(names[i], "k_proj"));
    }
    tn_model_files_close(f);
}

static void families_differ_in_what_is_permuted_and_said(void **state) {
    (void)state;
    static const struct {
        const char *name;
        bool permuted;
    } families[] = {{"llama", true}, {"granite", true}, {"smollm3", true}, {"qwen2", false}, {"qwen3", false}};
    for (int i = 0; i < 5; i++) {
        gguf_builder b = {0};
        tn_model_files *f;
        add_model(&b, families[i].name);
        add_zeros(&b, "token_embd.weight", 50, 32);
        add_zeros(&b, "output.weight", 50, 32);
        add_layer(&b);
        must(open_gguf(&b, &f));
        const tn_tensor_info *q = tn_model_files_find(f, "model.layers.11.self_attn.q_proj.weight");
        assert_int_equal(tn_model_files_permuted(f, q), families[i].permuted);
        assert_false(tn_json_boolean(config_of(f, "tie_word_embeddings"), true));
        assert_non_null(tn_model_files_find(f, "lm_head.weight"));
        assert_int_equal(tn_json_integer(config_of(f, "head_dim"), 0), 8); /* 128 by Qwen3's class default */
        tn_model_files_close(f);
    }
}

static void optional_keys_find_their_names(void **state) {
    (void)state;
    gguf_builder b = {0};
    tn_model_files *f;
    add_model(&b, "granite");
    add_f32(&b, "granite.embedding_scale", 12.0f);
    add_f32(&b, "granite.residual_scale", 0.22f);
    add_f32(&b, "granite.logit_scale", 8.0f);
    add_f32(&b, "granite.attention.scale", 0.015625f);
    add_f32(&b, "granite.rope.freq_base", 5e6f);
    add_u32(&b, "granite.attention.key_length", 16);
    add_u32(&b, "granite.attention.sliding_window", 128);
    add_u32(&b, "tokenizer.ggml.eos_token_id", 7);
    add_u32(&b, "tokenizer.ggml.eot_token_id", 9);
    add_zeros(&b, "blk.0.attn_output.bias", 1, 32);
    must(open_gguf(&b, &f));
    assert_true(tn_json_number(config_of(f, "embedding_multiplier"), 0) == 12);
    assert_true(tn_json_number(config_of(f, "residual_multiplier"), 0) == 0.22);
    assert_true(tn_json_number(config_of(f, "logits_scaling"), 0) == 8);
    assert_true(tn_json_number(config_of(f, "attention_multiplier"), 0) == 0.015625);
    assert_true(tn_json_number(config_of(f, "rope_theta"), 0) == 5e6);
    assert_int_equal(tn_json_integer(config_of(f, "head_dim"), 0), 16);
    assert_int_equal(tn_json_integer(config_of(f, "sliding_window"), 0), 128);
    assert_int_equal(tn_json_integer(config_of(f, "eos_token_id[1]"), 0), 9);
    assert_true(tn_json_boolean(config_of(f, "attention_bias"), false));
    tn_model_files_close(f);
}

static void rope_scaling_and_divisors_go_into_the_config(void **state) {
    (void)state;
    static const int64_t half[] = {4};
    static const float divisors[] = {1, 1.5f, 4, 8};
    static const char *const kinds[] = {"linear", "yarn", "longrope"};
    for (int i = 0; i < 3; i++) {
        gguf_builder b = {0};
        tn_model_files *f;
        add_model(&b, "llama");
        add_string(&b, "llama.rope.scaling.type", kinds[i]);
        add_f32(&b, "llama.rope.scaling.factor", 4.0f);
        add_u32(&b, "llama.rope.scaling.original_context_length", 128);
        add_f32(&b, "llama.rope.scaling.attn_factor", 1.25f);
        add_tensor(&b, "rope_factors_long.weight", 1, half, 0, divisors, 16);
        add_tensor(&b, "rope_factors_short.weight", 1, half, 0, divisors, 16);
        must(open_gguf(&b, &f));
        assert_int_equal(tn_model_files_count(f), i == 2 ? 0 : 2); /* what is not used is still shown */
        assert_true(tn_json_is_string(config_of(f, "rope_scaling.rope_type"), kinds[i]));
        assert_true(tn_json_number(config_of(f, "rope_scaling.factor"), 0) == 4);
        assert_int_equal(tn_json_integer(config_of(f, "rope_scaling.original_max_position_embeddings"), 0),
                         128);
        assert_int_equal(config_of(f, "rope_scaling.long_factor[3]") != NULL, i == 2);
        assert_true(tn_json_number(config_of(f, "rope_scaling.attention_factor"), 0) == (i == 2 ? 1.25 : 0));
        tn_model_files_close(f);
    }
    gguf_builder b = {0};
    tn_model_files *f;
    add_model(&b, "llama");
    add_string(&b, "llama.rope.scaling.type", "none");
    add_tensor(&b, "rope_freqs.weight", 1, half, 0, divisors, 16);
    must(open_gguf(&b, &f));
    assert_int_equal(config_of(f, "tenon_rope_divisors")->count, 4);
    assert_true(tn_json_number(config_of(f, "tenon_rope_divisors[1]"), 0) == 1.5);
    assert_null(config_of(f, "rope_scaling"));
    tn_model_files_close(f);
}

static void a_gguf_that_is_no_model_of_ours_is_refused(void **state) {
    (void)state;
    static const int64_t one[] = {1};
    static const float zero = 0;
    tn_model_files *f;
    gguf_builder b = {0};
    add_model(&b, "gpt-oss");
    must_fail(open_gguf(&b, &f), TN_USAGE, "the architecture \"gpt-oss\" is not supported");
    assert_null(f);
    must_fail(open_gguf(&b, &f), TN_USAGE, "the architecture \"\""); /* no metadata at all */
    add_model(&b, "llama");
    add_string(&b, "general.type", "adapter");
    must_fail(open_gguf(&b, &f), TN_USAGE, "general.type is \"adapter\"");
    add_model(&b, "llama");
    add_key(&b, "split.count", GGUF_U16);
    put_int(&b.keys, 3, 2);
    must_fail(open_gguf(&b, &f), TN_USAGE, "one of 3 parts");
    add_model(&b, "llama");
    add_string(&b, "llama.rope.scaling.type", "su");
    must_fail(open_gguf(&b, &f), TN_USAGE, "rope scaling \"su\"");
    add_model(&b, "llama");
    add_u32(&b, "llama.rope.dimension_count", 4);
    must_fail(open_gguf(&b, &f), TN_USAGE, "llama.rope.dimension_count is 4 and a head has 8 dimensions");
    add_string(&b, "general.architecture", "llama");
    must_fail(open_gguf(&b, &f), TN_BAD_DATA, "llama.context_length is missing");
    add_model(&b, "llama");
    add_f32(&b, "llama.rope.freq_base", (float)INFINITY);
    must_fail(open_gguf(&b, &f), TN_BAD_DATA, "rope.freq_base is not finite");
    add_model(&b, "llama");
    add_string(&b, "llama.attention.key_length", "64");
    must_fail(open_gguf(&b, &f), TN_USAGE, "attention.key_length is a string");
    add_model(&b, "llama");
    add_tensor(&b, "rope_freqs.weight", 1, one, 0, &zero, 4);
    must_fail(open_gguf(&b, &f), TN_BAD_DATA, "rope_freqs.weight[0] is not a positive number");
    add_model(&b, "llama");
    add_tensor(&b, "rope_freqs.weight", 1, one, 1, &zero, 2);
    must_fail(open_gguf(&b, &f), TN_BAD_DATA, "rope_freqs.weight is not a vector of float32");
}

static void names_that_are_not_ours_stay_as_they_are(void **state) {
    (void)state;
    static const char *const names[] = {"blk.x.attn_q.weight",  "blk.0.attn_rot.weight",
                                        "blk. 1.attn_q.weight", "blk.1234567.attn_q.weight",
                                        "blk.-1.attn_q.weight", "v.patch_embd.weight"};
    gguf_builder b = {0};
    tn_model_files *f;
    add_model(&b, "llama");
    for (int i = 0; i < 6; i++) add_zeros(&b, names[i], 1, 4);
    must(open_gguf(&b, &f));
    for (int i = 0; i < 6; i++) assert_string_equal(tn_model_files_at(f, i)->name, names[i]);
    tn_model_files_close(f);
}

static void the_real_smollm2_is_read(void **state) {
    (void)state;
    tn_model_files *f;
    if (!tn_is_file(REAL_GGUF)) {
        print_message("SKIP: " REAL_GGUF " is not there\n");
        skip();
    }
    must(tn_model_files_open(REAL_GGUF, true, &f));
    assert_int_equal(tn_model_files_count(f), 272);
    assert_int_equal(tn_json_integer(config_of(f, "hidden_size"), 0), 576);
    assert_int_equal(tn_json_integer(config_of(f, "vocab_size"), 0), 49152);
    assert_true(tn_json_number(config_of(f, "rope_theta"), 0) == 1e5);
    const tn_tensor_info *q = tn_model_files_find(f, "model.layers.29.self_attn.q_proj.weight");
    assert_int_equal(q->dtype, TN_DTYPE_Q4_1);
    assert_true(tn_model_files_permuted(f, q));
    tn_model_files_close(f);
}

static int clean_up(void **state) {
    (void)state;
    tn_str_free(&bytes);
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_single_file_is_opened_and_the_config_handed_on),
        cmocka_unit_test(shards_are_joined_and_their_headers_trusted),
        cmocka_unit_test(a_missing_shard_is_named),
        cmocka_unit_test(a_damaged_shard_or_index_is_damage),
        cmocka_unit_test(a_tensor_in_two_shards_is_refused),
        cmocka_unit_test(what_is_missing_is_a_usage_error_with_a_remedy),
        cmocka_unit_test(a_bare_config_is_a_model_without_weights),
        cmocka_unit_test(the_hash_tells_configurations_and_shapes_apart),
        cmocka_unit_test(a_gguf_reads_like_a_directory),
        cmocka_unit_test(families_differ_in_what_is_permuted_and_said),
        cmocka_unit_test(optional_keys_find_their_names),
        cmocka_unit_test(rope_scaling_and_divisors_go_into_the_config),
        cmocka_unit_test(a_gguf_that_is_no_model_of_ours_is_refused),
        cmocka_unit_test(names_that_are_not_ours_stay_as_they_are),
        cmocka_unit_test(the_real_smollm2_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
