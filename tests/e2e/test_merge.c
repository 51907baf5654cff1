/* test_merge.c: the verb `merge` on the tiny golden models: the merged model answers as base and adapter do, in
 * the base's dtype and files; what may not be written over or merged twice is refused; a full disk leaves
 * nothing. */
#include <sys/wait.h>
#include <unistd.h>

#include "base/json.h"
#include "verbs.h"

static const char *const models[] = {
    "granite",           "llama",           "llama_bias_tied", "llama_dynamic", "llama_embed_head",
    "llama_fp16",        "llama_linear",    "llama_longrope",  "llama_partial", "llama_longrope_short",
    "mistral_window",    "qwen2",           "qwen2_window",    "qwen2_yarn",    "mistral_yarn_attention",
    "qwen3_layer_types", "qwen3",           "seed_oss",        "smollm3",       "smollm3_window",
    "qwen2_5_vl",        "qwen2_5_vl_tied", "llama_dora",      "granite_dora",  "qwen2_dora",
    "qwen3_dora",
};
enum { MODELS = sizeof models / sizeof *models };

static const char *golden(const char *name, const char *what) {
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], GOLDEN "%s/%s", name, what);
    return path;
}

/* A path in the scratch directory that nothing is at. */
static const char *fresh(void) {
    static int count;
    char name[32];
    snprintf(name, sizeof name, "merged-%d", count++);
    return scratch(name);
}

static void must_differ_by(const tn_doc *doc, double most) {
    const double difference = tn_doc_number(doc, "max_abs_logit_difference", NAN);
    if (!(difference <= most)) fail_msg("max_abs_logit_difference %g, at most %g expected", difference, most);
}

static void the_merged_model_is_base_plus_adapter(void **state) {
    (void)state;
    for (int i = 0; i < MODELS; i++) {
        const char *base = widened_model(models[i]), *adapter = golden(models[i], "adapter"), *out = fresh();
        const char *data = golden(models[i], "train.jsonl");
        tn_doc *doc;
        must(VERB(merge, &doc, "model", base, "adapter", adapter, "output_dir", out));
        must_differ_by(doc, 2e-5);
        assert_string_equal(tn_doc_string(doc, "output", ""), out);
        assert_true(tn_doc_integer(doc, "bytes", 0) > 10000);
        tn_doc_free(doc);
        const double want = loss_of(base, adapter, data), got = loss_of(out, NULL, data);
        if (!(fabs(got - want) < 1e-6)) fail_msg("%s: loss %.8f, merged %.8f", models[i], want, got);
        if (fabs(loss_of(base, NULL, data) - want) < 1e-3) fail_msg("%s: its adapter does nothing", models[i]);
    }
}

/* Each value is the fp32 sum, rounded once: as near to the exact one as bf16 has it, but for the sum's own
 * rounding. */
static void values_are_rounded_once_to_the_dtype_of_the_base(void **state) {
    (void)state;
    const char *exact = fresh(), *out = fresh();
    tn_safetensors *wide, *narrow, *base;
    tn_doc *doc;
    int64_t changed = 0;
    must(VERB(merge, &doc, "model", widened_model("llama"), "adapter", golden("llama", "adapter"), "output_dir",
              exact));
    tn_doc_free(doc);
    must(VERB(merge, &doc, "model", golden("llama", "model"), "adapter", golden("llama", "adapter"),
              "output_dir", out));
    must_differ_by(doc, 0.05);
    tn_doc_free(doc);
    must(tn_safetensors_open(joined(exact, "model.safetensors"), &wide));
    must(tn_safetensors_open(joined(out, "model.safetensors"), &narrow));
    must(tn_safetensors_open(golden("llama", "model/model.safetensors"), &base));
    assert_int_equal(tn_safetensors_count(narrow), tn_safetensors_count(base));
    for (int64_t i = 0; i < tn_safetensors_count(narrow); i++) {
        const tn_tensor_info *t = tn_safetensors_at(narrow, i), *w = tn_safetensors_find(wide, t->name);
        assert_int_equal(t->dtype, TN_DTYPE_BF16);
        assert_int_equal(w->dtype, TN_DTYPE_F32);
        for (int64_t j = 0; j < t->elements; j++)
            assert_int_equal(((const uint16_t *)t->data)[j], tn_f32_to_bf16(((const float *)w->data)[j]));
        if (memcmp(t->data, tn_safetensors_find(base, t->name)->data, (size_t)t->bytes) != 0) changed++;
    }
    assert_int_equal(changed, 2 * 7); /* the linear modules of two layers, and not the norms and tables */
    tn_safetensors_close(wide);
    tn_safetensors_close(narrow);
    tn_safetensors_close(base);
}

/* An adapter trained for a moment on a golden model. */
static const char *train_on(const char *model, const char *data, const char *key, const char *value,
                            const char *targets) {
    const char *out = fresh();
    tn_doc *doc;
    must(run_verb("train", tn_train,
                  (const char *const[]){"model", model, "dataset", data, "output_dir", out, "max_steps", "3",
                                        "learning_rate", "1e-2", "lora_r", "4", "target_modules", targets, key,
                                        value, NULL},
                  &doc));
    tn_doc_free(doc);
    return out;
}

/* Of a model whose head is its embedding. */
static void a_head_that_leaves_its_embedding_is_written_and_untied(void **state) {
    static const struct {
        const char *key, *value, *targets;
    } cases[] = {{"modules_to_save", "lm_head", "q_proj"},
                 {"modules_to_save", "embed_tokens", "q_proj"},
                 {"modules_to_save", "embed_tokens,lm_head", "q_proj"},
                 {"lora_alpha", "8", "q_proj,lm_head"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *base = widened_model("qwen2"), *data = golden("qwen2", "train.jsonl"), *out = fresh();
        const char *adapter = train_on(base, data, cases[i].key, cases[i].value, cases[i].targets);
        tn_arena arena = {0};
        const tn_json *config;
        tn_safetensors *file;
        tn_doc *doc;
        must(VERB(merge, &doc, "model", base, "adapter", adapter, "output_dir", out));
        must_differ_by(doc, 2e-5);
        tn_doc_free(doc);
        must(tn_json_read_file(&arena, joined(out, "config.json"), TN_JSON_DEFAULT, &config));
        assert_false(tn_json_boolean(tn_json_get(config, "tie_word_embeddings"), true));
        assert_int_equal(tn_json_integer(tn_json_get(config, "vocab_size"), 0), 96);
        must(tn_safetensors_open(joined(out, "model.safetensors"), &file));
        const tn_tensor_info *head = tn_safetensors_find(file, "lm_head.weight");
        const tn_tensor_info *embed = tn_safetensors_find(file, "model.embed_tokens.weight");
        assert_non_null(head);
        assert_true(memcmp(head->data, embed->data, (size_t)head->bytes) != 0);
        tn_safetensors_close(file);
        tn_arena_free(&arena);
        assert_true(fabs(loss_of(out, NULL, data) - loss_of(base, adapter, data)) < 1e-6);
    }
}

static void shards_stay_shards(void **state) {
    static const char index[] =
        "{\"metadata\":{},\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\","
        "\"b\":\"model-00002-of-00002.safetensors\"}}"; /* the headers say what is where */
    const char *base = scratch("sharded"), *out = fresh();
    char name[64];
    tn_safetensors *file, *parts[2], *merged[2];
    tn_arena arena = {0};
    const tn_json *root;
    tn_doc *doc;
    (void)state;
    must(tn_make_directories(base));
    copy_file(golden("llama", "model/config.json"), joined(base, "config.json"));
    must(tn_save_text(joined(base, "model.safetensors.index.json"), index, sizeof index - 1));
    must(tn_safetensors_open(golden("llama", "model/model.safetensors"), &file));
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "model-%05d-of-00002.safetensors", i + 1);
        write_part(file, i, 2, false, joined(base, name));
    }
    tn_safetensors_close(file);
    must(VERB(merge, &doc, "model", base, "adapter", golden("llama", "adapter"), "output_dir", out));
    must_differ_by(doc, 0.05);
    tn_doc_free(doc);
    must(tn_json_read_file(&arena, joined(out, "model.safetensors.index.json"), TN_JSON_DEFAULT, &root));
    int64_t total = 0;
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "model-%05d-of-00002.safetensors", i + 1);
        must(tn_safetensors_open(joined(base, name), &parts[i]));
        must(tn_safetensors_open(joined(out, name), &merged[i]));
        assert_int_equal(tn_safetensors_count(merged[i]), tn_safetensors_count(parts[i]));
        for (int64_t j = 0; j < tn_safetensors_count(parts[i]); j++) {
            const tn_tensor_info *t = tn_safetensors_find(merged[i], tn_safetensors_at(parts[i], j)->name);
            assert_non_null(t);
            assert_string_equal(tn_json_string(tn_json_get(tn_json_get(root, "weight_map"), t->name), ""),
                                name);
            total += t->bytes;
        }
        tn_safetensors_close(parts[i]);
        tn_safetensors_close(merged[i]);
    }
    assert_int_equal(tn_json_integer(tn_json_path(root, "metadata.total_size"), 0), total);
    tn_arena_free(&arena);
}

static void an_adapter_is_merged_once(void **state) {
    const char *adapter = golden("llama", "adapter"), *out = fresh(), *again = fresh(), *other = fresh();
    tn_doc *doc;
    (void)state;
    must(VERB(merge, &doc, "model", golden("llama", "model"), "adapter", adapter, "output_dir", out));
    tn_doc_free(doc);
    must_fail(VERB(merge, &doc, "model", out, "adapter", adapter, "output_dir", again), TN_USAGE,
              "is merged into it already");
    assert_null(doc);
    assert_int_equal(access(again, F_OK), -1);
    /* another one may follow, and then both are known */
    const char *second = train_on(out, golden("llama", "train.jsonl"), "seed", "1", "q_proj");
    must(VERB(merge, &doc, "model", out, "adapter", second, "output_dir", again));
    tn_doc_free(doc);
    must_fail(VERB(merge, &doc, "model", again, "adapter", adapter, "output_dir", other), TN_USAGE, "already");
    must_fail(VERB(merge, &doc, "model", again, "adapter", second, "output_dir", other), TN_USAGE, "already");
}

static void an_output_that_is_there_is_left_alone(void **state) {
    const char *base = golden("llama", "model"), *adapter = golden("llama", "adapter"), *out = fresh();
    tn_doc *doc;
    (void)state;
    must(tn_make_directories(out));
    must(tn_save_text(joined(out, "notes.txt"), "mine", 4));
    must_fail(VERB(merge, &doc, "model", base, "adapter", adapter, "output_dir", out), TN_USAGE,
              "there already");
    assert_int_equal(tn_file_size(joined(out, "notes.txt")), 4);
    assert_int_equal(remove(joined(out, "notes.txt")), 0);
    char slashed[300];
    snprintf(slashed, sizeof slashed, "%s//", out);
    must(
        VERB(merge, &doc, "model", base, "adapter", adapter, "output_dir", slashed)); /* an empty one is none */
    tn_doc_free(doc);
    assert_true(tn_is_file(joined(out, "config.json")));
}

/* The adapter was trained where a quarter of rope's frequencies is asked for: so is the merged model. */
static void rope_that_was_stretched_stays_stretched(void **state) {
    static const char stretch[] = "{\"rope_type\":\"linear\",\"factor\":3.0}";
    static const char *const names[] = {"llama", "qwen2"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        const char *base = widened_model(names[i]), *adapter = golden(names[i], "adapter"), *out = fresh();
        tn_arena arena = {0};
        const tn_json *config;
        tn_doc *doc;
        must(VERB(merge, &doc, "model", base, "adapter", adapter, "output_dir", out, "rope_scaling", stretch));
        must_differ_by(doc, 2e-5);
        tn_doc_free(doc);
        must(tn_json_read_file(&arena, joined(out, "config.json"), TN_JSON_DEFAULT, &config));
        const tn_json *rope = tn_json_get(config, "rope_parameters");
        assert_string_equal(tn_json_string(tn_json_get(rope, "rope_type"), ""), "linear");
        assert_true(tn_json_number(tn_json_get(rope, "rope_theta"), 0) == 10000);
        assert_null(tn_json_get(config, "rope_scaling"));
        tn_arena_free(&arena);
    }
}

static int warnings;
static void count_warnings(void *user, tn_log_level level, const char *line) {
    if (level == TN_LOG_WARNING && strstr(line, user)) warnings++;
}

/* The same shapes do not make it the same model. */
static void a_base_that_is_another_model_is_noticed(void **state) {
    const char *model = GOLDEN "llama/model", *adapter = GOLDEN "llama/adapter";
    static const char *const bases[] = {"llama", "llama_fp16", "granite"};
    tn_doc *doc;
    (void)state;
    for (int i = 0; i < 3; i++) {
        warnings = 0;
        tn_log_set(count_warnings, "are the two bases one model?");
        must(VERB(merge, &doc, "model", model, "adapter", adapter, "output_dir", fresh(), "base_for_merge",
                  golden(bases[i], "model"), "load_in_4bit", "true"));
        tn_log_set(NULL, NULL);
        tn_doc_free(doc);
        assert_int_equal(warnings, i > 0);
    }
}

/* Of weights that are plain: what config.json says of them would break loading. */
static void a_merged_model_is_not_called_quantised(void **state) {
    static const char *const bases[] = {"bnb_nf4", "bnb_int8", "llama", "fp8_tiles"};
    (void)state;
    for (int i = 0; i < 4; i++) {
        const char *base = scratch(bases[i]), *out = fresh();
        tn_arena arena = {0};
        const tn_json *config;
        tn_str text = {0};
        tn_doc *doc;
        must(tn_make_directories(base));
        copy_file(golden(bases[i], "model/model.safetensors"), joined(base, "model.safetensors"));
        must(tn_read_file(golden(bases[i], "model/config.json"), 1 << 20, &text));
        text.length = strrchr(text.data, '}') - text.data;
        /* a claim that no tensor bears out */
        tn_str_puts(&text, i == 2 ? ",\"quantization_config\":{\"load_in_4bit\":true}}" : "}");
        must(tn_save_text(joined(base, "config.json"), text.data, text.length));
        tn_str_free(&text);
        must(VERB(merge, &doc, "model", base, "adapter", golden(bases[i], "adapter"), "output_dir", out));
        tn_doc_free(doc);
        must(tn_json_read_file(&arena, joined(out, "config.json"), TN_JSON_DEFAULT, &config));
        assert_null(tn_json_get(config, "quantization_config"));
        tn_arena_free(&arena);
    }
}

static void another_base_for_merge_is_compared_with_the_model(void **state) {
    const char *model = golden("llama", "model"), *adapter = golden("llama", "adapter"), *out = fresh();
    tn_doc *doc;
    (void)state;
    must(VERB(merge, &doc, "model", model, "adapter", adapter, "output_dir", out, "base_for_merge",
              widened_model("llama")));
    must_differ_by(doc, 2e-5);
    assert_true(tn_doc_number(doc, "max_abs_logit_difference_from_model", NAN) < 2e-5); /* the same values */
    tn_doc_free(doc);
    must_fail(VERB(merge, &doc, "model", model, "adapter", adapter, "output_dir", fresh(), "base_for_merge",
                   golden("qwen2", "model")),
              TN_USAGE, "");
    must_fail(VERB(merge, &doc, "model", model, "adapter", adapter, "output_dir", fresh(), "base_for_merge",
                   golden("mistral_window", "model")),
              TN_USAGE, "");
}

static void what_a_tokenizer_has_goes_along(void **state) {
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                                        "config.json"};
    const char *base = "models/islands", *out = fresh();
    const char *adapter = train_on(base, "examples/data/islands_eval.jsonl", "seed", "1", "q_proj");
    tn_doc *doc;
    (void)state;
    must(VERB(merge, &doc, "model", base, "adapter", adapter, "output_dir", out));
    tn_doc_free(doc);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        tn_map a, b;
        if (!tn_is_file(joined(base, names[i]))) continue;
        must(tn_map_open(joined(base, names[i]), &a));
        must(tn_map_open(joined(out, names[i]), &b));
        assert_int_equal(a.bytes, b.bytes);
        must_match(b.data, a.data, a.bytes);
        tn_map_close(&a);
        tn_map_close(&b);
    }
}

/* A full disk, played by a limit on the size of a file. */
static void a_full_disk_leaves_nothing(void **state) {
    char command[1024];
    const char *out = fresh();
    (void)state;
    snprintf(
        command, sizeof command,
        "ulimit -f 16; OMP_NUM_THREADS=1 \"$TENON\" merge --model %s --adapter %s --output_dir %s --device "
        "cpu >%s 2>&1",
        golden("llama", "model"), golden("llama", "adapter"), out, scratch("log"));
    int status = system(command);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 6);
    assert_int_equal(access(out, F_OK), -1);
    char temporary[300];
    snprintf(temporary, sizeof temporary, "%s.tmp-tenon", out);
    assert_int_equal(access(temporary, F_OK), -1);
}

static int clean_up(void **state) {
    (void)state;
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_merged_model_is_base_plus_adapter),
        cmocka_unit_test(values_are_rounded_once_to_the_dtype_of_the_base),
        cmocka_unit_test(a_head_that_leaves_its_embedding_is_written_and_untied),
        cmocka_unit_test(shards_stay_shards),
        cmocka_unit_test(an_adapter_is_merged_once),
        cmocka_unit_test(an_output_that_is_there_is_left_alone),
        cmocka_unit_test(rope_that_was_stretched_stays_stretched),
        cmocka_unit_test(a_base_that_is_another_model_is_noticed),
        cmocka_unit_test(a_merged_model_is_not_called_quantised),
        cmocka_unit_test(another_base_for_merge_is_compared_with_the_model),
        cmocka_unit_test(what_a_tokenizer_has_goes_along),
        cmocka_unit_test(a_full_disk_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
