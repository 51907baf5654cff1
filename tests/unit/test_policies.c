/* test_policies.c: what is kept, recomputed or moved to the host changes no bit of losses and gradients, and
 * the plan takes the fastest that fits. TENON_TEST_DEVICE=cuda runs it on a card; on the CPU, where offload
 * gains nothing, the device is told that it may move all the same.
 */
#include <math.h>

#include "base/hash.h"
#include "base/rng.h"
#include "testing.h"
#include "train/engine.h"

/* Documents of several lengths in more tokens than one tile of the model holds. */
enum { DOCUMENTS = 100, SHORTEST = 40, VOCAB = 96, LAYERS = 5, SEED = 11, ROWS = 4096 /* of a plan */ };

static const char *const policies[] = {"none", "selective", "full", "offload", "offload_inputs"};

static const char *model(void) {
    static const char text[] =
        "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], \"vocab_size\": 96, "
        "\"hidden_size\": 32, \"intermediate_size\": 48, \"num_hidden_layers\": 5, \"num_attention_heads\": 4, "
        "\"num_key_value_heads\": 2, \"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0, "
        "\"max_position_embeddings\": 131072, \"tie_word_embeddings\": false, \"torch_dtype\": \"bfloat16\"}";
    return write_scratch("config.json", text, (int64_t)strlen(text));
}

/* Host memory for the inputs of all layers but the last, which is too little for attention's outputs too. */
static int64_t inputs_alone(const tn_engine *e, int64_t rows) {
    return (LAYERS - 1) * rows * e->arch.hidden * tn_dtype_block_bytes(e->device->dtype) + 256 * LAYERS;
}

static bool is_inputs_alone(const char *policy) { return strcmp(policy, "offload_inputs") == 0; }

static tn_config *configure(const char *policy, const char *const *more) {
    tn_config *config;
    must(tn_config_new("bench", &config));
    must(tn_config_set(config, "model", model()));
    must(tn_config_set(config, "device", test_device()));
    must(tn_config_set(config, "gradient_checkpointing", is_inputs_alone(policy) ? "offload" : policy));
    for (; more && *more; more += 2) must(tn_config_set(config, more[0], more[1]));
    return config;
}

static void make_batch(uint64_t number, tn_batch *batch) {
    int64_t tokens = 0;
    int32_t *ids;
    must(tn_alloc(&ids, DOCUMENTS * (SHORTEST + DOCUMENTS), sizeof *ids, "ids"));
    must(tn_alloc(&batch->cu_seqlens, DOCUMENTS + 1, sizeof *batch->cu_seqlens, "boundaries"));
    for (int64_t d = 0; d < DOCUMENTS; d++) batch->cu_seqlens[d + 1] = (int32_t)(tokens += SHORTEST + d);
    for (int64_t i = 0; i < tokens; i++)
        ids[i] =
            (int32_t)(tn_random_uniform(SEED, TN_STREAM(TN_PURPOSE_BENCH, number, 1), (uint64_t)i) * VOCAB);
    must(tn_alloc(&batch->positions, tokens, sizeof *batch->positions, "positions"));
    must(tn_alloc(&batch->targets, tokens, sizeof *batch->targets, "targets"));
    for (int64_t d = 0; d < DOCUMENTS; d++)
        for (int32_t i = batch->cu_seqlens[d]; i < batch->cu_seqlens[d + 1]; i++) {
            bool last = i + 1 == batch->cu_seqlens[d + 1];
            batch->positions[i] = i - batch->cu_seqlens[d];
            batch->targets[i] = last || i % 3 == 0 ? -100 : ids[i + 1];
            batch->labelled += batch->targets[i] >= 0;
        }
    batch->ids = ids, batch->tokens = tokens, batch->documents = DOCUMENTS;
    batch->longest = SHORTEST + DOCUMENTS - 1;
}

/* Two micro-batches with an evaluation between them: a hash of the gradients and of the losses. */
static uint64_t bits(const char *policy, const char *const *more) {
    tn_engine e;
    tn_batch batches[3] = {0};
    tn_config *config = configure(policy, more);
    double loss;
    must(tn_engine_open(config, TN_USE_TRAIN, false, NULL, &e));
    tn_model_files_close(e.files), e.files = NULL; /* random weights */
    for (uint64_t i = 0; i < 3; i++) make_batch(i, &batches[i]);
    e.device->pinnable = is_inputs_alone(policy) ? inputs_alone(&e, batches[0].tokens) : INT64_MAX;
    must(tn_engine_plan(&e, batches[0].tokens, DOCUMENTS, batches[0].longest, 0));
    assert_string_equal(tn_policy_name(e.plan.limits.policy), policy);
    must(tn_engine_allocate(&e));
    must(tn_pass_reset_loss(e.pass));
    for (uint32_t i = 0; i < 3; i++) {
        const tn_dropout dropout = {
            .p = (float)(e.adapter->config ? e.adapter->config->lora_dropout : 0), .seed = SEED, .step = i};
        if (i == 1) must(tn_pass_eval(e.pass, &batches[i], NULL));
        else must(tn_pass_train(e.pass, &batches[i], 1.0f / (float)batches[i].labelled, &dropout));
    }
    must(tn_pass_read_loss(e.pass, &loss));
    assert_true(isfinite(loss));
    const int64_t bytes = e.adapter->elements * (int64_t)sizeof(float);
    float *grads = malloc((size_t)bytes);
    must(e.device->backend->download(e.device, grads, e.adapter->grads, bytes));
    double norm = 0;
    for (int64_t i = 0; i < e.adapter->elements; i++) norm += (double)grads[i] * grads[i];
    print_message("%-10s loss %.9g, gradient norm %.9g\n", policy, loss, sqrt(norm));
    assert_true(norm > 0);
    const uint64_t hash = tn_hash64(grads, bytes) ^ tn_hash64(&loss, sizeof loss);
    free(grads);
    for (int i = 0; i < 3; i++) tn_batch_free(&batches[i]);
    tn_engine_close(&e);
    tn_config_free(config);
    return hash;
}

static void same_bits(const char *const *more) {
    const uint64_t wanted = bits(policies[0], more);
    for (size_t i = 1; i < sizeof policies / sizeof *policies; i++)
        assert_true(bits(policies[i], more) == wanted);
}

static void no_policy_changes_a_bit(void **state) {
    static const char *const fp32[] = {"dtype", "float32", "lora_dropout", "0.1", NULL},
                             *const bf16[] = {"dtype", "bfloat16", NULL},
                             *const some[] = {"dtype", "float32", "layers_to_transform", "2,3", NULL},
                             *const all[] = {"dtype", "float32", "full_finetuning", "true", NULL},
                             *const dora[] = {"dtype",        "float32", "use_dora", "true",
                                              "lora_dropout", "0.1",     NULL};
    (void)state;
    same_bits(fp32);
    same_bits(bf16);
    same_bits(some);
    same_bits(all);
    same_bits(dora);
}

/* Rows that train alone are looked up in a tile, however many tokens of a batch they are; here a tile of the
 * residual stream is nearly all that there is, so that whoever writes beyond it leaves the block. */
static void trained_tokens_may_fill_a_batch(void **state) {
    enum { COUNT = 3000, LENGTH = 16, TOKENS = COUNT * LENGTH };
    static const char text[] =
        "{\"model_type\": \"llama\", \"vocab_size\": 96, \"hidden_size\": 512, \"intermediate_size\": 8, "
        "\"num_hidden_layers\": 1, \"num_attention_heads\": 1, \"num_key_value_heads\": 1, \"head_dim\": 8}";
    tn_engine e;
    tn_batch batch = {0};
    tn_config *config;
    int32_t *ids = malloc(TOKENS * sizeof *ids);
    float *losses = malloc(TOKENS * sizeof *losses);
    (void)state;
    must(tn_config_new("bench", &config));
    must(tn_config_set(config, "model", write_scratch("wide.json", text, (int64_t)strlen(text))));
    must(tn_config_set(config, "device", test_device()));
    must(tn_config_set(config, "dtype", "float32"));
    must(tn_config_set(config, "trainable_token_indices", "9,61"));
    must(tn_engine_open(config, TN_USE_TRAIN, false, NULL, &e));
    tn_model_files_close(e.files), e.files = NULL;
    e.use = TN_USE_EVAL; /* of a fresh adapter */
    for (int i = 0; i < TOKENS; i++) ids[i] = i % 2 ? 9 : 61;
    must(tn_batch_set(&batch, ids, NULL, TOKENS));
    batch.cu_seqlens = realloc(batch.cu_seqlens, (COUNT + 1) * sizeof *batch.cu_seqlens);
    for (int d = 0; d <= COUNT; d++) batch.cu_seqlens[d] = d * LENGTH;
    for (int i = 0; i < TOKENS; i++) {
        batch.positions[i] = i % LENGTH;
        if (i % LENGTH == LENGTH - 1) batch.targets[i] = -100;
    }
    batch.documents = COUNT, batch.longest = LENGTH;
    must(tn_engine_plan(&e, TOKENS, COUNT, LENGTH, 0));
    must(tn_engine_allocate(&e));
    must(tn_pass_eval(e.pass, &batch, losses));
    for (int i = LENGTH; i < TOKENS; i++) assert_true(fabsf(losses[i] - losses[i % LENGTH]) < 1e-4f);
    free(losses);
    free(ids);
    tn_batch_free(&batch);
    tn_engine_close(&e);
    tn_config_free(config);
}

/* ---- The plan -------------------------------------------------------------------------------------- */

/* `pinnable` -1: enough for the inputs alone. */
static void plan(const char *policy, int64_t pinnable, const char *limit, tn_config **config, tn_engine *e) {
    const char *more[] = {"dtype", "float32", limit ? "memory_limit" : NULL, limit, NULL};
    *config = configure(policy, more);
    must(tn_engine_open(*config, TN_USE_TRAIN, false, NULL, e));
    tn_model_files_close(e->files), e->files = NULL;
    e->device->pinnable = pinnable >= 0 ? pinnable : inputs_alone(e, ROWS);
    must(tn_engine_plan(e, ROWS, 1, ROWS, 0));
}

/* Device bytes of a policy, and pinned ones. */
static int64_t planned(const char *policy, int64_t *pinned) {
    tn_engine e;
    tn_config *config;
    plan(policy, is_inputs_alone(policy) ? -1 : INT64_MAX, NULL, &config, &e);
    const int64_t bytes = e.plan.device_bytes;
    *pinned = e.plan.pinned.used;
    tn_engine_close(&e);
    tn_config_free(config);
    return bytes;
}

/* Two buffers stay on the device of what one layer, or every layer, has under full. */
static void what_is_moved_leaves_two_buffers_on_the_device(void **state) {
    const int64_t input = ROWS * 32 * (int64_t)sizeof(float), attn = ROWS * (32 + 32) * (int64_t)sizeof(float),
                  lse = ROWS * 4 * (int64_t)sizeof(float); /* 16 columns of border, 64-byte rows */
    int64_t pinned, none;
    (void)state;
    const int64_t full = planned("full", &none), inputs = planned("offload_inputs", &pinned);
    assert_int_equal(none, 0);
    assert_int_equal(pinned, (LAYERS - 1) * input);
    assert_int_equal(full - inputs, (LAYERS - 1) * input);
    assert_int_equal(planned("offload", &pinned) - inputs, attn + lse);
    assert_int_equal(pinned, (LAYERS - 1) * input + (LAYERS - 2) * (attn + lse));
}

static void auto_takes_the_fastest_that_fits(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
        char limit[32];
        int64_t pinned;
        tn_engine e;
        tn_config *config;
        snprintf(limit, sizeof limit, "%lld", (long long)planned(policies[i], &pinned));
        plan("auto", is_inputs_alone(policies[i]) ? -1 : INT64_MAX, limit, &config, &e);
        assert_true(e.plan.fits);
        assert_string_equal(tn_policy_name(e.plan.limits.policy), policies[i]);
        tn_engine_close(&e);
        tn_config_free(config);
    }
}

static void a_host_with_too_little_memory_is_refused(void **state) {
    tn_engine e;
    tn_config *config;
    (void)state;
    plan("offload", 100000, NULL, &config, &e);
    assert_false(e.plan.fits);
    must_fail(tn_engine_allocate(&e), TN_NO_FIT, "pinned host memory");
    assert_non_null(strstr(tn_error_remedy(), "--max_length 1")); /* 195 tokens of 4·32·4 bytes */
    tn_engine_close(&e);
    tn_config_free(config);
}

static void where_nothing_can_be_moved_offload_is_full(void **state) {
    tn_engine e;
    tn_config *config;
    tn_str text = {0};
    (void)state;
    plan("offload", 0, NULL, &config, &e);
    assert_string_equal(tn_policy_name(e.plan.limits.policy), "full");
    must(tn_engine_describe(&e, &text));
    assert_non_null(strstr(tn_str_text(&text), "offload"));
    tn_str_free(&text);
    tn_engine_close(&e);
    tn_config_free(config);
}

static int remove_files(void **state) {
    (void)state;
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_policy_changes_a_bit),
        cmocka_unit_test(trained_tokens_may_fill_a_batch),
        cmocka_unit_test(what_is_moved_leaves_two_buffers_on_the_device),
        cmocka_unit_test(auto_takes_the_fastest_that_fits),
        cmocka_unit_test(a_host_with_too_little_memory_is_refused),
        cmocka_unit_test(where_nothing_can_be_moved_offload_is_full),
    };
    return cmocka_run_group_tests(tests, NULL, remove_files);
}
