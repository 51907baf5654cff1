/* test_model_golden.c: the model against Transformers + PEFT on tiny random models of every family and rope
 * kind (golden/, made by make_model_golden.py), on bases that bitsandbytes quantised
 * (make_quantised_golden.py) or that are in FP8 (make_fp8_golden.py), and the language half of Qwen2.5-VL
 * (make_vl_golden.py): logits, every adapter gradient, 50-step loss curves, and what must not change them:
 * packing, accumulation, recomputation, resuming.
 */
#include <math.h>

#include "base/hash.h"
#include "testing.h"
#include "train/engine.h"

#define GOLDEN "tests/parity/golden/"

static const char *const cases[] = {"llama",
                                    "llama_bias_tied",
                                    "llama_embed_head",
                                    "qwen2",
                                    "qwen2_yarn",
                                    "mistral_window",
                                    "qwen3",
                                    "granite",
                                    "smollm3",
                                    "seed_oss",
                                    "qwen2_5_vl",
                                    "qwen2_5_vl_tied",
                                    "llama_linear",
                                    "llama_dynamic",
                                    "llama_longrope",
                                    "smollm3_window",
                                    "qwen3_layer_types",
                                    "llama_partial",
                                    "qwen2_window",
                                    "qwen3_window",
                                    "llama_fp16",
                                    "mistral_yarn_attention",
                                    "llama_longrope_short",
                                    "llama_tokens",
                                    "granite_tokens",
                                    "qwen2_tokens",
                                    "llama_head_tokens",
                                    "llama_dora",
                                    "granite_dora",
                                    "qwen2_dora",
                                    "qwen3_dora",
                                    "bnb_nf4",
                                    "bnb_nf4_crossing",
                                    "bnb_fp4",
                                    "bnb_int8",
                                    "bnb_nf4_dora",
                                    "fp8_tiles",
                                    "fp8_rows",
                                    "fp8_tensor"};
enum { CASES = sizeof cases / sizeof *cases, STEPS = 50 };

static const char *path_of(const char *name, const char *rest) {
    static char paths[8][256];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, 256, GOLDEN "%s/%s", name, rest);
    return path;
}

/* TENON_TEST_DEVICE=cuda runs all of it on a card, where products of another size may add in another order. */
static double allowed(double on_the_cpu, double on_a_card) {
    return strcmp(test_device(), "cpu") == 0 ? on_the_cpu : on_a_card;
}

static tn_config *configure(const char *verb, const char *name, const char *const *pairs) {
    tn_config *config;
    must(tn_config_new(verb, &config));
    must(tn_config_set(config, "model", path_of(name, "model")));
    must(tn_config_set(config, "device", test_device()));
    for (; pairs && *pairs; pairs += 2) must(tn_config_set(config, pairs[0], pairs[1]));
    return config;
}

static double relative_l2(const float *got, const float *want, int64_t count) {
    double error = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        error += pow((double)got[i] - want[i], 2);
        norm += pow(want[i], 2);
    }
    return norm > 0 ? sqrt(error / norm) : sqrt(error);
}

static const float *golden_f32(const tn_safetensors *golden, const char *name, int64_t count) {
    const tn_tensor_info *t = tn_safetensors_find(golden, name);
    assert_non_null(t);
    assert_int_equal(t->dtype, TN_DTYPE_F32);
    assert_int_equal(t->elements, count);
    return t->data;
}

/* A batch of the one record of the golden file. */
static void golden_batch(const tn_safetensors *golden, tn_batch *batch) {
    const tn_tensor_info *ids = tn_safetensors_find(golden, "input_ids"),
                         *labels = tn_safetensors_find(golden, "labels");
    must(tn_batch_set(batch, ids->data, labels->data, ids->elements));
}

static void check_logits(const char *name, const tn_safetensors *golden, bool adapter, bool half) {
    tn_engine e;
    tn_batch batch = {0};
    const char *pairs[] = {"dtype", half ? "bfloat16" : "float32", adapter ? "adapter" : NULL,
                           path_of(name, "adapter"), NULL};
    tn_config *config = configure("eval", name, pairs);
    must(tn_config_set(config, "dataset", path_of(name, "train.jsonl")));
    must(tn_engine_open(config, TN_USE_EVAL, true, NULL, &e));
    golden_batch(golden, &batch);
    must(tn_engine_plan(&e, batch.tokens, 1, batch.tokens, 0));
    must(tn_engine_allocate(&e));
    int64_t count = batch.tokens * e.arch.vocab;
    float *logits = malloc((size_t)count * sizeof *logits);
    must(tn_pass_all_logits(e.pass, &batch, logits));
    double error =
        relative_l2(logits, golden_f32(golden, adapter ? "logits_adapter" : "logits_base", count), count);
    print_message("%-18s logits %-7s %s relative L2 %.1e\n", name, adapter ? "adapter" : "base",
                  half ? "bf16" : "fp32", error);
    assert_true(error <= (half ? 3e-2 : allowed(1e-5, 1e-4)));
    free(logits);
    tn_batch_free(&batch);
    tn_engine_close(&e);
    tn_config_free(config);
}

static void logits_agree_with_transformers(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) {
        tn_safetensors *golden;
        must(tn_safetensors_open(path_of(cases[i], "golden.safetensors"), &golden));
        for (int half = 0; half < 2; half++) {
            check_logits(cases[i], golden, false, half);
            check_logits(cases[i], golden, true, half);
        }
        tn_safetensors_close(golden);
    }
}

static void count_dropout(void *user, tn_log_level level, const char *line) {
    if (level == TN_LOG_WARNING && strstr(line, "dropout of 0.1")) ++*(int *)user;
}

static int dropout_warnings(const char *name, tn_use use) {
    tn_engine e;
    int count = 0;
    tn_config *config = configure("bench", name, NULL);
    tn_log_set(count_dropout, &count);
    must(tn_engine_open(config, use, true, NULL, &e));
    tn_log_set(NULL, NULL);
    tn_engine_close(&e);
    tn_config_free(config);
    return count;
}

static void dropout_inside_the_base_is_said_where_it_matters(void **state) {
    (void)state;
    assert_int_equal(dropout_warnings("seed_oss", TN_USE_TRAIN), 1);
    assert_int_equal(dropout_warnings("seed_oss", TN_USE_EVAL), 0);
    assert_int_equal(dropout_warnings("llama", TN_USE_TRAIN), 0);
}

/* Returns the hash of all gradients. */
static uint64_t check_gradients(const char *name, bool full, const char *policy, double *worst) {
    uint64_t hash = 0;
    tn_engine e;
    tn_batch batch = {0};
    tn_safetensors *golden;
    const char *pairs[] = {"dtype",
                           "float32",
                           "gradient_checkpointing",
                           policy,
                           full ? "full_finetuning" : "adapter",
                           full ? "true" : path_of(name, "adapter"),
                           NULL};
    tn_config *config = configure("bench", name, pairs);
    must(tn_safetensors_open(path_of(name, full ? "full.safetensors" : "golden.safetensors"), &golden));
    must(tn_engine_open(config, TN_USE_TRAIN, true, NULL, &e));
    golden_batch(golden, &batch);
    e.device->pinnable = INT64_MAX; /* so that offload moves on the CPU too */
    must(tn_engine_plan(&e, batch.tokens, 1, batch.tokens, 0));
    assert_string_equal(tn_policy_name(e.plan.limits.policy), policy);
    assert_int_equal(e.plan.pinned.used > 0, strcmp(policy, "offload") == 0);
    must(tn_engine_allocate(&e));
    must(tn_pass_train(e.pass, &batch, 1.0f / (float)batch.labelled, NULL));
    *worst = 0;
    int64_t trainable = 0;
    for (int64_t i = 0; i < e.adapter->param_count; i++) {
        const tn_param *p = &e.adapter->params[i];
        char key[256];
        float *values = malloc((size_t)p->count * sizeof *values);
        snprintf(key, sizeof key, "grad.%s", p->name);
        must(e.device->backend->download(e.device, values, e.adapter->grads + p->offset, p->count * 4));
        double error = relative_l2(values, golden_f32(golden, key, p->count), p->count);
        hash = hash * 31 + tn_hash64(values, p->count * 4);
        if (error > 1e-4) fail_msg("%s: gradient of %s off by %g", name, p->name, error);
        if (error > *worst) *worst = error;
        trainable += p->count;
        free(values);
    }
    assert_int_equal(trainable, *(const int64_t *)tn_safetensors_find(golden, "trainable")->data);
    tn_safetensors_close(golden);
    tn_batch_free(&batch);
    tn_engine_close(&e);
    tn_config_free(config);
    return hash;
}

static void check_policies(const char *name, bool full) {
    static const char *const policies[] = {"none", "selective", "full", "offload"};
    double worst;
    const uint64_t hash = check_gradients(name, full, policies[0], &worst);
    print_message("%-18s gradients %s worst relative L2 %.1e\n", name,
                  full ? "of all weights" : "of the adapter", worst);
    for (int p = 1; p < 4; p++) /* neither recomputing nor moving changes a bit */
        assert_true(check_gradients(name, full, policies[p], &worst) == hash);
}

static void every_adapter_gradient_agrees_with_peft(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) check_policies(cases[i], false);
}

/* Tied and untied heads, biases, norms of queries and keys, multipliers: full.safetensors by
 * make_full_golden.py. */
static const char *const full_cases[] = {"llama", "llama_bias_tied", "qwen2", "qwen3", "granite", "smollm3"};
enum { FULL_CASES = sizeof full_cases / sizeof *full_cases };

static void every_gradient_of_full_finetuning_agrees_with_transformers(void **state) {
    (void)state;
    for (int i = 0; i < FULL_CASES; i++) check_policies(full_cases[i], true);
}

/* ---- Curves through the public interface ---------------------------------------------------------- */

typedef struct curve {
    double loss[STEPS + 1], norm[STEPS + 1];
    int64_t steps, stop_after;
} curve;

static void note_step(void *user, const tn_event *event) {
    curve *c = user;
    if (event->kind != TN_EVENT_STEP) return;
    assert_in_range(event->step, 1, STEPS);
    c->loss[event->step] = event->loss;
    c->norm[event->step] = event->grad_norm;
    c->steps = event->step;
}

static bool stop(void *user) {
    const curve *c = user;
    return c->stop_after && c->steps >= c->stop_after;
}

static const char *fresh_directory(void) {
    static int runs;
    char name[32];
    snprintf(name, sizeof name, "run-%d", ++runs);
    return scratch(name);
}

static tn_status train(const char *name, const char *output, const char *const *more, curve *c) {
    const bool full = more[0] && strcmp(more[0], "full_finetuning") == 0;
    const char *pairs[] = {full ? "full_finetuning" : "adapter",
                           full ? "true" : path_of(name, "adapter"),
                           "dataset",
                           path_of(name, "train.jsonl"),
                           "output_dir",
                           output,
                           "learning_rate",
                           "5e-3",
                           "weight_decay",
                           "0.01",
                           "warmup_steps",
                           "4",
                           "max_steps",
                           "50",
                           "packing",
                           "false",
                           "shuffle",
                           "false",
                           "max_length",
                           "32",
                           "per_device_train_batch_size",
                           "2",
                           "gradient_accumulation_steps",
                           "2",
                           NULL};
    tn_config *config = configure("train", name, pairs);
    tn_hooks hooks = {c, note_step, stop};
    tn_doc *doc = NULL;
    for (; more && *more; more += 2) must(tn_config_set(config, more[0], more[1]));
    tn_status status = tn_train(config, &hooks, &doc);
    tn_doc_free(doc);
    tn_config_free(config);
    return status;
}

static double worst_difference(const double *a, const double *want) {
    double worst = 0;
    for (int i = 0; i < STEPS; i++) worst = fmax(worst, fabs(a[i] - want[i]));
    return worst;
}

static double mean_difference(const double *a, const double *want) {
    double sum = 0;
    for (int i = 0; i < STEPS; i++) sum += fabs(a[i] - want[i]);
    return sum / STEPS;
}

/* A bf16 curve is as near to the exact one as PEFT's own, within a factor of two. */
static void rounds_as_little(const double *ours, const double *theirs, const double *exact) {
    print_message("  from the exact curve %.1e (PEFT's bf16: %.1e), in the mean %.1e (%.1e)\n",
                  worst_difference(ours, exact), worst_difference(theirs, exact), mean_difference(ours, exact),
                  mean_difference(theirs, exact));
    assert_true(worst_difference(ours, exact) <= 2 * worst_difference(theirs, exact));
    assert_true(mean_difference(ours, exact) <= 2 * mean_difference(theirs, exact));
}

/* Of the bf16 curves only these two are held to PEFT's at every step. For the others that measures chance:
 * PEFT's own is up to 1.1e-2 from its fp32 one (llama_dora), and ours of one model (qwen2_tokens) is 4e-3
 * (AVX2) to 1.02e-2 (AVX-512) from PEFT's by the order of the sums alone. */
static bool follows_at_every_step(const char *name) {
    return strcmp(name, "llama") == 0 || strcmp(name, "qwen2") == 0;
}

static void fifty_steps_follow_peft(void **state) {
    static const char *const curves[] = {"llama",        "llama_embed_head", "qwen2",     "bnb_nf4",
                                         "qwen2_tokens", "llama_dora",       "qwen2_dora"};
    (void)state;
    for (size_t i = 0; i < sizeof curves / sizeof *curves; i++) {
        tn_safetensors *golden;
        must(tn_safetensors_open(path_of(curves[i], "golden.safetensors"), &golden));
        /* PEFT steps full modules of a bf16 model in bf16, where small updates round away; ours have fp32
         * masters: no bf16 oracle. Nor has the decoded base one. */
        bool halves = tn_safetensors_find(golden, "curve_bf16") && strcmp(curves[i], "llama_embed_head") != 0;
        for (int half = 0; half < (halves ? 2 : 1); half++) {
            const char *more[] = {"dtype", half ? "bfloat16" : "float32", NULL};
            curve c = {0};
            must(train(curves[i], fresh_directory(), more, &c));
            const double *exact = tn_safetensors_find(golden, "curve_fp32")->data;
            const double *oracle = half ? tn_safetensors_find(golden, "curve_bf16")->data : exact;
            double worst = worst_difference(c.loss + 1, oracle);
            print_message("%-18s 50 steps %s: loss %.4f to %.4f, worst difference %.1e\n", curves[i],
                          half ? "bf16" : "fp32", c.loss[1], c.loss[STEPS], worst);
            if (half) rounds_as_little(c.loss + 1, oracle, exact);
            if (!half || follows_at_every_step(curves[i])) assert_true(worst <= (half ? 1e-2 : 1e-4));
        }
        tn_safetensors_close(golden);
    }
}

static void fifty_steps_of_full_finetuning_follow_transformers(void **state) {
    (void)state;
    for (int i = 0; i < FULL_CASES; i++) {
        const char *more[] = {"full_finetuning", "true", "dtype", "float32", NULL};
        tn_safetensors *golden;
        curve c = {0};
        must(tn_safetensors_open(path_of(full_cases[i], "full.safetensors"), &golden));
        must(train(full_cases[i], fresh_directory(), more, &c));
        double worst = worst_difference(c.loss + 1, tn_safetensors_find(golden, "curve_fp32")->data);
        print_message("%-18s 50 steps of all weights: loss %.4f to %.4f, worst difference %.1e\n",
                      full_cases[i], c.loss[1], c.loss[STEPS], worst);
        assert_true(worst <= 1e-4);
        tn_safetensors_close(golden);
    }
}

static void accumulation_eight_times_one_is_one_times_eight(void **state) {
    static const char *const one[] = {
        "dtype", "float32", "per_device_train_batch_size", "8", "gradient_accumulation_steps", "1", NULL};
    static const char *const eight[] = {
        "dtype", "float32", "per_device_train_batch_size", "1", "gradient_accumulation_steps", "8", NULL};
    curve a = {0}, b = {0};
    (void)state;
    must(train("llama", fresh_directory(), one, &a));
    must(train("llama", fresh_directory(), eight, &b));
    double worst = worst_difference(a.loss + 1, b.loss + 1);
    print_message("accumulation 1x8 against 8x1: worst loss difference %.1e\n", worst);
    assert_true(worst <= allowed(1e-6, 1e-5));
}

static double eval_loss(const char *name, const char *packing) {
    const char *pairs[] = {
        "dtype",   "float32", "adapter", path_of(name, "adapter"), "dataset", path_of(name, "train.jsonl"),
        "packing", packing,   NULL};
    tn_config *config = configure("eval", name, pairs);
    tn_doc *doc = NULL;
    must(tn_eval(config, NULL, &doc));
    double loss = tn_doc_number(doc, "loss", NAN);
    tn_doc_free(doc);
    tn_config_free(config);
    return loss;
}

/* One step over the same records, packed into rows and each in a row of its own: the same loss and the same
 * gradient norm. */
static void packed_equals_unpacked(void **state) {
    static const char *const alone[] = {"dtype",
                                        "float32",
                                        "max_steps",
                                        "1",
                                        "per_device_train_batch_size",
                                        "12",
                                        "gradient_accumulation_steps",
                                        "1",
                                        NULL};
    static const char *const packed[] = {"dtype",
                                         "float32",
                                         "max_steps",
                                         "1",
                                         "packing",
                                         "true",
                                         "max_length",
                                         "64",
                                         "per_device_train_batch_size",
                                         "12",
                                         "gradient_accumulation_steps",
                                         "1",
                                         NULL};
    static const char *const names[] = {"llama", "mistral_window", "qwen3", "llama_longrope"};
    (void)state;
    for (int i = 0; i < 4; i++) {
        curve a = {0}, b = {0};
        must(train(names[i], fresh_directory(), alone, &a));
        must(train(names[i], fresh_directory(), packed, &b));
        print_message("%-18s packed against unpacked: loss %.1e, gradient norm %.1e\n", names[i],
                      fabs(a.loss[1] - b.loss[1]), fabs(a.norm[1] - b.norm[1]));
        assert_true(fabs(a.loss[1] - b.loss[1]) <= allowed(1e-6, 1e-5));
        assert_true(fabs(a.norm[1] - b.norm[1]) <= 1e-5 * a.norm[1]);
        assert_true(fabs(eval_loss(names[i], "true") - eval_loss(names[i], "false")) <= allowed(0, 1e-5));
    }
}

/* Trains 17 steps, resumes, and compares the curve with that of a run in one piece. */
static void resume_once(const char *name, const char *const *keys) {
    const char *again[20];
    int count = 0;
    curve whole = {0}, parts = {.stop_after = 17};
    for (; keys[count]; count++) again[count] = keys[count];
    again[count] = "resume_from_checkpoint", again[count + 1] = "auto", again[count + 2] = NULL;
    must(train(name, fresh_directory(), keys, &whole));
    char *output = strdup(fresh_directory());
    assert_int_equal(train(name, output, keys, &parts), TN_INTERRUPTED);
    assert_int_equal(parts.steps, 17);
    parts.stop_after = 0;
    must(train(name, output, again, &parts));
    for (int s = 1; s <= STEPS; s++) {
        assert_true(whole.loss[s] == parts.loss[s]);
        assert_true(whole.norm[s] == parts.norm[s]);
    }
    free(output);
}

static void resume_is_bit_exact(void **state) {
    (void)state;
    for (int half = 0; half < 2; half++) {
        const char *dtype = half ? "bfloat16" : "float32";
        const char *keys[] = {"dtype", dtype, "lora_dropout", "0", NULL},
                   *full[] = {"full_finetuning", "true", "dtype", dtype, NULL};
        resume_once("llama", keys);
        resume_once("llama_embed_head", keys);
        resume_once("llama_dora", keys);
        resume_once("llama_bias_tied", full);
    }
}

static double loss_with(const char *model, const char *adapter, const char *format) {
    const char *pairs[] = {"dtype", "float32", "dataset", path_of(model, "train.jsonl"), "adapter", adapter,
                           format,  "true",    NULL};
    tn_config *config = configure("eval", model, pairs);
    tn_doc *doc = NULL;
    must(tn_eval(config, NULL, &doc));
    double loss = tn_doc_number(doc, "loss", NAN);
    tn_doc_free(doc);
    tn_config_free(config);
    return loss;
}

/* Trained on in three formats, each run is the same after a resume, learns, and its adapter is near itself on
 * the base in another format: the base is not what the adapter holds. */
static void quantised_bases_train_resume_and_are_evaluated(void **state) {
    static const char *const formats[] = {"load_in_4bit", "load_in_8bit"};
    (void)state;
    for (int f = 0; f < 2; f++) {
        const char *keys[] = {formats[f], "true", "dtype", "float32", NULL};
        curve c = {0};
        resume_once("llama_embed_head", keys);
        const char *output = fresh_directory();
        must(train("llama", output, keys, &c));
        double own = loss_with("llama", output, formats[f]), other = loss_with("llama", output, formats[!f]);
        double before = loss_with("llama", path_of("llama", "adapter"), formats[f]);
        print_message("%s: loss %.4f before, %.4f after, %.4f with %s\n", formats[f], before, own, other,
                      formats[!f]);
        assert_true(own < before - 1.5 && other < before - 1 && fabs(own - other) > 1e-4);
    }
    const char *keys[] = {"dtype", "bfloat16", NULL};
    resume_once("qwen2_tokens", keys);
    resume_once("bnb_nf4", keys);
    resume_once("bnb_int8", keys);
    resume_once("bnb_nf4_dora", keys);
    resume_once("fp8_tiles", keys);
}

/* What an optimizer keeps is saved and comes back: one array, two, or none. */
static void resume_is_bit_exact_with_every_optimizer(void **state) {
    static const char *const variants[][10] = {
        {"optim", "sgd", "learning_rate", "0.5", "weight_decay", "0.01", NULL},
        {"optim", "sgd", "momentum", "0.9", "learning_rate", "0.1", NULL},
        {"optim", "lion", "learning_rate", "1e-4", "weight_decay", "0.1", NULL},
        {"optim", "adamw_8bit", "weight_decay", "0.1", NULL}};
    (void)state;
    for (int i = 0; i < 4; i++) resume_once("llama_embed_head", variants[i]);
}

static int remove_runs(void **state) {
    (void)state;
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_agree_with_transformers),
        cmocka_unit_test(dropout_inside_the_base_is_said_where_it_matters),
        cmocka_unit_test(every_adapter_gradient_agrees_with_peft),
        cmocka_unit_test(fifty_steps_follow_peft),
        cmocka_unit_test(every_gradient_of_full_finetuning_agrees_with_transformers),
        cmocka_unit_test(fifty_steps_of_full_finetuning_follow_transformers),
        cmocka_unit_test(packed_equals_unpacked),
        cmocka_unit_test(accumulation_eight_times_one_is_one_times_eight),
        cmocka_unit_test(resume_is_bit_exact),
        cmocka_unit_test(resume_is_bit_exact_with_every_optimizer),
        cmocka_unit_test(quantised_bases_train_resume_and_are_evaluated),
    };
    return cmocka_run_group_tests(tests, NULL, remove_runs);
}
