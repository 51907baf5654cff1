/* test_qwen2_5_vl.c: Qwen2.5-VL with pictures against Transformers + PEFT
 * (golden/qwen2_5_vl/vision.safetensors, made by make_vl_golden.py): logits at every position, every adapter
 * gradient; the order of windows; what is refused.
 */
#include <math.h>

#include "data/pictures.h"
#include "infer/generate.h"
#include "testing.h"
#include "train/engine.h"

#define MODEL "tests/parity/golden/qwen2_5_vl/model"
#define ADAPTER "tests/parity/golden/qwen2_5_vl/adapter"

static tn_safetensors *golden;

static int set_up(void **state) {
    (void)state;
    must(tn_safetensors_open("tests/parity/golden/qwen2_5_vl/vision.safetensors", &golden));
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    tn_safetensors_close(golden);
    return 0;
}

static const tn_tensor_info *golden_tensor(const char *name) {
    const tn_tensor_info *t = tn_safetensors_find(golden, name);
    if (!t) fail_msg("no %s in the golden file", name);
    return t;
}

static double relative_l2(const float *got, const float *want, int64_t count) {
    double error = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        error += pow((double)got[i] - want[i], 2);
        norm += pow(want[i], 2);
    }
    return sqrt(error / norm);
}

/* ---- Logits and gradients ------------------------------------------------------------------------ */

/* The golden sample as the loader would make it, its pixels given. */
static void golden_batch(tn_batch *batch) {
    const tn_tensor_info *ids = golden_tensor("input_ids"), *pixels = golden_tensor("pixels");
    const int32_t *places = golden_tensor("pictures")->data;
    tn_sample_picture pictures[2];
    must(tn_batch_set(batch, ids->data, golden_tensor("labels")->data, ids->elements));
    must(tn_alloc(&batch->pictures, 2, (int64_t)sizeof *batch->pictures, "pictures"));
    must(tn_alloc(&batch->pixels, pixels->elements, (int64_t)sizeof *batch->pixels, "pixels"));
    memcpy(batch->pixels, pixels->data, (size_t)pixels->bytes);
    for (int i = 0; i < 2; i++, places += 3) {
        pictures[i] = (tn_sample_picture){.first = places[0], .rows = places[1], .columns = places[2]};
        batch->pictures[i] = (tn_batch_picture){places[0], places[1], places[2], batch->patches};
        batch->patches += 4 * places[1] * places[2];
    }
    batch->picture_count = 2;
    batch->patch_values = pixels->elements / batch->patches;
    const tn_sample sample = {.length = ids->elements, .pictures = pictures, .picture_count = 2};
    tn_picture_positions(&sample, batch->axes[0], batch->axes[1], batch->axes[2]);
}

typedef struct run {
    tn_config *config;
    tn_engine engine;
    tn_batch batch;
} run;

static void open_run(run *r, tn_use use, const char *dtype, bool adapter, const char *policy) {
    *r = (run){0};
    must(tn_config_new(use == TN_USE_TRAIN ? "bench" : "eval", &r->config));
    must(tn_config_set(r->config, "model", MODEL));
    must(tn_config_set(r->config, "device", test_device()));
    must(tn_config_set(r->config, "dtype", dtype));
    if (adapter) must(tn_config_set(r->config, "adapter", ADAPTER));
    if (use == TN_USE_EVAL)
        must(tn_config_set(r->config, "dataset", "tests/parity/golden/qwen2_5_vl/train.jsonl"));
    if (policy) must(tn_config_set(r->config, "gradient_checkpointing", policy));
    must(tn_engine_open(r->config, use, true, NULL, &r->engine));
    golden_batch(&r->batch);
    r->engine.patches = 4 * 45;
    must(tn_engine_plan(&r->engine, r->batch.tokens, 1, r->batch.tokens, 0));
    must(tn_engine_allocate(&r->engine));
}

static void close_run(run *r) {
    tn_batch_free(&r->batch);
    tn_engine_close(&r->engine);
    tn_config_free(r->config);
}

static void logits_with_pictures_agree_with_transformers(void **state) {
    (void)state;
    for (int half = 0; half < 2; half++)
        for (int adapter = 0; adapter < 2; adapter++) {
            const tn_tensor_info *want = golden_tensor(adapter ? "logits_adapter" : "logits_base");
            float *logits = NULL;
            run r;
            open_run(&r, TN_USE_EVAL, half ? "bfloat16" : "float32", adapter, NULL);
            assert_int_equal(want->elements, r.batch.tokens * r.engine.arch.vocab);
            must(tn_alloc(&logits, want->elements, (int64_t)sizeof *logits, "logits"));
            must(tn_pass_all_logits(r.engine.pass, &r.batch, logits));
            const double error = relative_l2(logits, want->data, want->elements);
            print_message("logits %s %s relative L2 %.1e\n", adapter ? "adapter" : "base",
                          half ? "bf16" : "fp32", error);
            assert_true(error <= (half ? 4e-2 : 1e-5));
            free(logits);
            close_run(&r);
        }
}

static void gradients_with_pictures_agree_with_peft(void **state) {
    static const char *const policies[] = {"none", "selective", "full"};
    (void)state;
    for (int p = 0; p < 3; p++) {
        double worst = 0;
        run r;
        open_run(&r, TN_USE_TRAIN, "float32", true, policies[p]);
        must(tn_pass_train(r.engine.pass, &r.batch, 1.0f / (float)r.batch.labelled, NULL));
        for (int64_t i = 0; i < r.engine.adapter->param_count; i++) {
            const tn_param *param = &r.engine.adapter->params[i];
            char key[256];
            snprintf(key, sizeof key, "grad.%s", param->name);
            const tn_tensor_info *want = golden_tensor(key);
            assert_int_equal(want->elements, param->count);
            float *got = malloc((size_t)param->count * sizeof *got);
            must(r.engine.device->backend->download(r.engine.device, got,
                                                    r.engine.adapter->grads + param->offset,
                                                    param->count * (int64_t)sizeof *got));
            const double error = relative_l2(got, want->data, param->count);
            free(got);
            if (error > 1e-4) fail_msg("gradient of %s off by %g", param->name, error);
            worst = fmax(worst, error);
        }
        print_message("gradients %s worst relative L2 %.1e\n", policies[p], worst);
        close_run(&r);
    }
}

/* The logits behind the prompt, whose pieces begin and end anywhere in a picture; asked again, when all but the
 * last token is cached, the same. */
static void pieces_of_a_prompt_may_cut_through_pictures(void **state) {
    static const int64_t chunks[] = {1, 5, 7, 46, 65};
    const tn_tensor_info *want = golden_tensor("logits_adapter");
    const tn_generation how = {.sampling = {.top_p = 1, .repetition_penalty = 1}, .max_new_tokens = 1};
    (void)state;
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        tn_session session;
        tn_ids out = {0};
        bool stopped;
        run r = {0};
        must(tn_config_new("chat", &r.config));
        must(tn_config_set(r.config, "model", MODEL));
        must(tn_config_set(r.config, "adapter", ADAPTER));
        must(tn_config_set(r.config, "device", test_device()));
        must(tn_config_set(r.config, "dtype", "float32"));
        must(tn_engine_open(r.config, TN_USE_GENERATE, true, NULL, &r.engine));
        golden_batch(&r.batch);
        r.engine.patches = 4 * 45;
        must(tn_engine_plan(&r.engine, chunks[i], 1, r.batch.tokens, r.batch.tokens));
        must(tn_engine_allocate(&r.engine));
        const int64_t vocab = r.engine.arch.vocab, last = (r.batch.tokens - 1) * vocab;
        must(tn_session_new(r.engine.pass, vocab, r.batch.tokens, chunks[i], &session));
        for (int again = 0; again < 2; again++) {
            must(tn_session_generate(&session, &r.batch, &how, NULL, NULL, &out, &stopped));
            const double error = relative_l2(session.logits, (const float *)want->data + last, vocab);
            if (error > 1e-5) fail_msg("pieces of %lld: off by %g", (long long)chunks[i], error);
        }
        tn_session_free(&session);
        tn_ids_free(&out);
        close_run(&r);
    }
}

/* ---- Through the verbs --------------------------------------------------------------------------- */

#define RECORDS "tests/parity/golden/qwen2_5_vl/pictures.jsonl"

static tn_config *configure(const char *verb, const char *const *pairs) {
    tn_config *config;
    must(tn_config_new(verb, &config));
    must(tn_config_set(config, "model", MODEL));
    must(tn_config_set(config, "device", test_device()));
    must(tn_config_set(config, "dtype", "float32"));
    for (; *pairs; pairs += 2) must(tn_config_set(config, pairs[0], pairs[1]));
    return config;
}

/* From files of pictures and words to the loss, with Transformers' own tokens, patches and positions. */
static void eval_of_conversations_is_transformers(void **state) {
    (void)state;
    static const char *const pairs[] = {"adapter", ADAPTER, "dataset", RECORDS, NULL};
    tn_config *config = configure("eval", pairs);
    tn_doc *doc;
    must(tn_eval(config, NULL, &doc));
    const double want = *(const double *)golden_tensor("eval_loss")->data;
    assert_int_equal(tn_doc_integer(doc, "tokens", -1), *(const int64_t *)golden_tensor("eval_tokens")->data);
    assert_true(fabs(tn_doc_number(doc, "loss", NAN) - want) < 1e-5);
    tn_doc_free(doc);
    tn_config_free(config);
}

static void note_loss(void *user, const tn_event *event) {
    double *losses = user;
    if (event->kind == TN_EVENT_STEP && event->step <= 8) losses[event->step - 1] = event->loss;
}

static void train(const char *output, const char *steps, const char *resume, double losses[8]) {
    const char *pairs[] = {"dataset",
                           RECORDS,
                           "output_dir",
                           output,
                           "max_steps",
                           steps,
                           "max_length",
                           "128",
                           "learning_rate",
                           "1e-2",
                           "per_device_train_batch_size",
                           "2",
                           "lr_scheduler_type",
                           "constant",
                           "warmup_ratio",
                           "0",
                           resume ? "resume_from_checkpoint" : NULL,
                           resume,
                           NULL};
    tn_config *config = configure("train", pairs);
    tn_hooks hooks = {.user = losses, .on_event = note_loss};
    tn_doc *doc;
    must(tn_train(config, &hooks, &doc));
    tn_doc_free(doc);
    tn_config_free(config);
}

/* Packed rows with pictures: the loss falls, and 4 steps, resumed for 4 more, are 8 steps to the bit. */
static void training_on_pictures_learns_and_resumes_bit_for_bit(void **state) {
    (void)state;
    double whole[8] = {0}, parts[8] = {0};
    train(scratch("whole"), "8", NULL, whole);
    train(scratch("parts"), "4", NULL, parts);
    train(scratch("parts"), "8", "auto", parts);
    assert_memory_equal(whole, parts, sizeof whole);
    assert_true(whole[7] < 0.8 * whole[0]);
}

/* Parameters of the published 7B. */
static void every_parameter_is_counted(void **state) {
    (void)state;
    const tn_vision_arch published = {.depth = 32,
                                      .hidden = 1280,
                                      .intermediate = 3420,
                                      .heads = 16,
                                      .out = 3584,
                                      .patch = 14,
                                      .temporal = 2,
                                      .merge = 2};
    assert_int_equal(tn_vision_parameters(&published), 676550144);
}

/* ---- Windows ------------------------------------------------------------------------------------- */

static void windows_follow_one_another(void **state) {
    (void)state;
    static const bool full[1];
    static const int32_t begin[] = {0, 1, 2, 3, 10, 11, 12, 13, 20}, cu[] = {0, 64, 128, 160, 192, 224, 240},
                         square[] = {0, 64, 128, 192, 256};
    const tn_vision_arch arch = {.depth = 1, .hidden = 80, .heads = 1, .merge = 2, .window = 4, .full = full};
    tn_vision_layout l;
    must(tn_vision_layout_new(&arch, 6, 10, &l));
    must_match(l.order, begin, sizeof begin);
    assert_int_equal(l.order[16 + 12 + 4], 8); /* the second window is whole, the third two columns wide */
    assert_int_equal(l.windows, 6);
    assert_int_equal(l.longest, 64);
    must_match(l.cu_windows, cu, sizeof cu);
    tn_vision_layout_free(&l);
    must(tn_vision_layout_new(&arch, 8, 8, &l));
    assert_int_equal(l.windows, 4);
    must_match(l.cu_windows, square, sizeof square);
    tn_vision_layout_free(&l);
}

/* ---- What is refused ----------------------------------------------------------------------------- */

static tn_status open_with(const char *verb, tn_use use, const char *key, const char *value, tn_engine *e,
                           tn_config **config) {
    must(tn_config_new(verb, config));
    must(tn_config_set(*config, "model", MODEL));
    must(tn_config_set(*config, "device", test_device()));
    if (key) must(tn_config_set(*config, key, value));
    return tn_engine_open(*config, use, true, NULL, e);
}

static void must_refuse(const char *verb, tn_use use, const char *key, const char *value, const char *part) {
    tn_config *config;
    tn_engine e;
    must_fail(open_with(verb, use, key, value, &e, &config), TN_USAGE, part);
    assert_true(strlen(tn_error_remedy()) > 0);
    tn_config_free(config);
}

static void targets_never_reach_the_tower_in_silence(void **state) {
    (void)state;
    tn_config *config;
    tn_engine e;
    must_refuse("bench", TN_USE_TRAIN, "target_modules", "all-linear", "vision tower");
    must_refuse("bench", TN_USE_TRAIN, "target_modules", "mlp", "vision tower");
    must_refuse("bench", TN_USE_TRAIN, "target_modules", "q_proj,qkv", "vision tower");
    must(
        open_with("bench", TN_USE_TRAIN, NULL, NULL, &e, &config)); /* the default: said, and saved as a rule */
    assert_non_null(strstr(e.adapter->config->target_modules.regex, "language_model"));
    assert_int_equal(e.adapter->param_count, 2 * 2 * 7);
    tn_engine_close(&e);
    tn_config_free(config);
    must(open_with("bench", TN_USE_TRAIN, "target_modules", "attention", &e, &config));
    assert_int_equal(e.adapter->param_count, 2 * 2 * 4);
    tn_engine_close(&e);
    tn_config_free(config);
}

static void what_would_lose_the_tower_is_refused(void **state) {
    tn_config *config;
    tn_doc *doc;
    (void)state;
    must_refuse("bench", TN_USE_TRAIN, "full_finetuning", "true", "vision tower");
    for (int quantize = 0; quantize < 2; quantize++) {
        const char *out = scratch("another");
        must(tn_config_new(quantize ? "quantize" : "export", &config));
        must(tn_config_set(config, "model", MODEL));
        must(tn_config_set(config, "to", quantize ? "nf4" : "gguf"));
        must(tn_config_set(config, quantize ? "output_dir" : "output", out));
        must_fail((quantize ? tn_quantize_model : tn_export)(config, NULL, &doc), TN_USAGE, "vision tower");
        assert_true(strlen(tn_error_remedy()) > 0);
        assert_false(tn_is_file(out) || tn_is_directory(out));
        tn_config_free(config);
    }
}

/* ---- Verbs about files --------------------------------------------------------------------------- */

/* Base + adapter in a directory of its own, whose tower is the base's byte for byte, and which sees: the loss
 * over pictures is that of base and adapter. */
static void merge_keeps_the_tower_and_sees(void **state) {
    static const char *const pairs[] = {"dataset", RECORDS, NULL};
    const char *out = scratch("merged");
    tn_config *config;
    tn_safetensors *base, *merged;
    tn_doc *doc;
    int64_t tower = 0;
    (void)state;
    must(tn_config_new("merge", &config));
    must(tn_config_set(config, "model", MODEL));
    must(tn_config_set(config, "adapter", ADAPTER));
    must(tn_config_set(config, "device", test_device()));
    must(tn_config_set(config, "output_dir", out));
    must(tn_merge(config, NULL, &doc));
    assert_true(tn_doc_number(doc, "max_abs_logit_difference", NAN) < 0.1);
    tn_doc_free(doc);
    tn_config_free(config);
    must(tn_safetensors_open(MODEL "/model.safetensors", &base));
    must(tn_safetensors_open(scratch("merged/model.safetensors"), &merged));
    assert_int_equal(tn_safetensors_count(merged), tn_safetensors_count(base));
    for (int64_t i = 0; i < tn_safetensors_count(base); i++) {
        const tn_tensor_info *t = tn_safetensors_at(base, i), *now = tn_safetensors_find(merged, t->name);
        assert_non_null(now);
        assert_int_equal(now->bytes, t->bytes);
        if (strncmp(t->name, "visual.", strlen("visual.")) != 0) continue;
        assert_memory_equal(now->data, t->data, (size_t)t->bytes);
        assert_int_equal(now->rank, t->rank);
        tower++;
    }
    assert_int_equal(tower, 42);
    tn_safetensors_close(base);
    tn_safetensors_close(merged);
    config = configure("eval", pairs);
    must(tn_config_set(config, "model", out));
    must(tn_eval(config, NULL, &doc));
    const double want = *(const double *)golden_tensor("eval_loss")->data;
    assert_true(fabs(tn_doc_number(doc, "loss", NAN) - want) < 2e-2); /* the merged weights are bf16 */
    tn_doc_free(doc);
    tn_config_free(config);
}

/* Every tensor of PEFT's own adapter is known, with a base and without; the base is listed with its tower. */
static void verify_and_inspect_know_the_model(void **state) {
    (void)state;
    for (int with_base = 0; with_base < 2; with_base++) {
        tn_config *config;
        tn_doc *doc;
        must(tn_config_new("verify", &config));
        must(tn_config_set(config, "adapter", ADAPTER));
        if (with_base) must(tn_config_set(config, "model", MODEL));
        must(tn_verify(config, &doc));
        assert_true(tn_doc_boolean(doc, "ok", false));
        assert_int_equal(tn_doc_integer(doc, "params.trainable", 0), 5056);
        if (with_base) {
            tn_safetensors *base;
            int64_t parameters = 0;
            must(tn_safetensors_open(MODEL "/model.safetensors", &base));
            for (int64_t i = 0; i < tn_safetensors_count(base); i++)
                parameters += tn_safetensors_at(base, i)->elements;
            assert_int_equal(tn_doc_integer(doc, "params.all", 0), parameters + 5056);
            tn_safetensors_close(base);
        }
        tn_doc_free(doc);
        tn_config_free(config);
    }
    for (int adapter = 0; adapter < 2; adapter++) {
        tn_config *config;
        tn_doc *doc;
        must(tn_config_new("inspect", &config));
        must(tn_config_set(config, "model", adapter ? ADAPTER : MODEL));
        must(tn_inspect(config, &doc));
        assert_string_equal(tn_doc_string(doc, "kind", ""), adapter ? "adapter" : "model");
        if (adapter) assert_int_equal(tn_doc_integer(doc, "parameters", 0), 5056);
        else assert_non_null(strstr(tn_doc_text(doc), "\"visual.merger.mlp.2.weight\""));
        tn_doc_free(doc);
        tn_config_free(config);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_with_pictures_agree_with_transformers),
        cmocka_unit_test(gradients_with_pictures_agree_with_peft),
        cmocka_unit_test(pieces_of_a_prompt_may_cut_through_pictures),
        cmocka_unit_test(eval_of_conversations_is_transformers),
        cmocka_unit_test(training_on_pictures_learns_and_resumes_bit_for_bit),
        cmocka_unit_test(every_parameter_is_counted),
        cmocka_unit_test(windows_follow_one_another),
        cmocka_unit_test(targets_never_reach_the_tower_in_silence),
        cmocka_unit_test(what_would_lose_the_tower_is_refused),
        cmocka_unit_test(merge_keeps_the_tower_and_sees),
        cmocka_unit_test(verify_and_inspect_know_the_model),
    };
    int failed = cmocka_run_group_tests(tests, set_up, tear_down);
    remove_scratch();
    return failed;
}
