/* test_peft_config.c: adapter_config.json, and the module rules against PEFT's own answers
 * (parity/golden/peft_targets.json, made by parity/make_peft_targets.py). */
#include <math.h>

#include "format/peft_config.h"
#include "testing.h"

static const char *write_config(const char *text) {
    write_scratch("adapter_config.json", text, (int64_t)strlen(text));
    return scratch("");
}

static tn_peft_config *read_config(const char *text) {
    tn_peft_config *config;
    must(tn_peft_config_read(write_config(text), &config));
    return config;
}

static void must_refuse(const char *text, tn_status wanted, const char *part) {
    tn_peft_config *config;
    must_fail(tn_peft_config_read(write_config(text), &config), wanted, part);
    assert_null(config);
}

/* ---- Targeting against PEFT ---------------------------------------------------------------------- */

static void check_module(const tn_json *entry, const tn_targeting *t, const char *name) {
    const char *title = tn_json_string(tn_json_get(entry, "name"), "");
    const tn_json *lora = tn_json_get(tn_json_get(entry, "lora"), name), *full = tn_json_get(entry, "full");
    bool wanted_full = false;
    int64_t r = -1;
    double alpha = NAN;
    for (int64_t i = 0; i < full->count; i++)
        wanted_full = wanted_full || tn_json_is_string(tn_json_at(full, i), name);
    if (tn_targeting_full(t, name) != wanted_full)
        fail_msg("%s: %s is %strained in full by PEFT", title, name, wanted_full ? "" : "not ");
    if (tn_ends_with(name, "norm")) return; /* LoRA is asked for linear modules and embeddings only */
    if (tn_targeting_lora(t, name, strcmp(name, "lm_head") == 0, &r, &alpha) != (lora != NULL))
        fail_msg("%s: %s has %sLoRA in PEFT", title, name, lora ? "" : "no ");
    if (!lora) return;
    if (r != tn_json_integer(tn_json_at(lora, 0), 0) || alpha != tn_json_number(tn_json_at(lora, 1), 0))
        fail_msg("%s: %s has r %lld and alpha %g", title, name, (long long)r, alpha);
}

static void check_case(const tn_json *root, const tn_json *entry) {
    tn_str text = {0};
    tn_targeting *t = NULL;
    tn_json_writer w = tn_json_write_to(&text, 0);
    tn_json_put(&w, tn_json_get(entry, "config"));
    tn_peft_config *config = read_config(text.data);
    if (tn_json_get(entry, "error")) {
        must_fail(tn_targeting_new(config, &t), TN_USAGE, "layers_to_transform");
        assert_null(t);
    } else {
        must(tn_targeting_new(config, &t));
        const tn_json *modules = tn_json_get(root, "modules");
        modules = tn_json_get(modules, tn_json_string(tn_json_get(entry, "model"), ""));
        assert_true(modules->count > 8);
        for (int64_t i = 0; i < modules->count; i++)
            check_module(entry, t, tn_json_string(tn_json_at(modules, i), ""));
    }
    tn_targeting_free(t);
    tn_peft_config_free(config);
    tn_str_free(&text);
}

static void the_same_modules_as_in_peft_get_lora_with_the_same_rank_and_alpha(void **state) {
    (void)state;
    tn_arena arena = {0};
    const tn_json *root;
    must(tn_json_read_file(&arena, "tests/parity/golden/peft_targets.json", TN_JSON_DEFAULT, &root));
    const tn_json *cases = tn_json_get(root, "cases");
    assert_true(cases->count > 100);
    for (int64_t i = 0; i < cases->count; i++) check_case(root, tn_json_at(cases, i));
    tn_arena_free(&arena);
}

static void a_target_that_names_nothing_is_found_out(void **state) {
    (void)state;
    tn_peft_config *config = read_config(
        "{\"peft_type\":\"LORA\",\"target_modules\":[\"lm_head\",\"q_proj\",\"self_attn.q_proj\",\"Wqkv\"],"
        "\"modules_to_save\":[\"lm_head\",\"score\"]}");
    tn_targeting *t;
    int64_t r;
    double alpha;
    must(tn_targeting_new(config, &t));
    assert_string_equal(tn_targeting_unmatched(t), "lm_head");
    assert_true(tn_targeting_full(t, "lm_head")); /* names a module, although it gets no LoRA */
    assert_true(tn_targeting_lora(t, "model.layers.0.self_attn.q_proj", false, &r, &alpha));
    assert_string_equal(tn_targeting_unmatched(t), "Wqkv"); /* two names for one module are no fault */
    assert_false(tn_targeting_lora(t, "model.layers.0.attn.xWqkv", false, &r, &alpha));
    assert_true(tn_targeting_lora(t, "model.layers.0.attn.Wqkv", false, &r, &alpha));
    assert_string_equal(tn_targeting_unmatched(t), "score");
    assert_true(tn_targeting_full(t, "score.dense"));
    assert_null(tn_targeting_unmatched(t));
    tn_targeting_free(t);
    tn_peft_config_free(config);
}

static void an_expression_that_does_not_compile_is_a_usage_error(void **state) {
    (void)state;
    static const char *const rules[] = {
        "\"target_modules\":\"(q_proj\"", "\"target_modules\":[\"q_proj\"],\"exclude_modules\":\"*\"",
        "\"target_modules\":[\"q_proj\"],\"rank_pattern\":{\"[\":4}",
        "\"target_modules\":[\"q_proj\"],\"alpha_pattern\":{\"q_proj\":1,\"a)\":4}",
        "\"target_modules\":[\"q_proj\"],\"layers_to_transform\":1,\"layers_pattern\":\"(\""};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        char text[256];
        tn_targeting *t;
        snprintf(text, sizeof text, "{\"peft_type\":\"LORA\",%s}", rules[i]);
        tn_peft_config *config = read_config(text);
        must_fail(tn_targeting_new(config, &t), TN_USAGE, "does not compile");
        assert_null(t);
        tn_peft_config_free(config);
    }
}

/* ---- Rules as typed ------------------------------------------------------------------------------ */

static void rules_are_lists_or_expressions_by_their_characters(void **state) {
    (void)state;
    tn_arena arena = {0};
    tn_name_rule rule;
    must(tn_name_rule_parse(&arena, " q_proj, v_proj ,,mlp.up_proj", &rule));
    assert_int_equal(rule.count, 3);
    assert_string_equal(rule.names[2], "mlp.up_proj");
    must(tn_name_rule_parse(&arena, "a,b", &rule));
    assert_int_equal(rule.count, 2);
    must(tn_name_rule_parse(&arena, "[\"q_proj\", \"k_proj\"]", &rule));
    assert_int_equal(rule.count, 2);
    assert_null(rule.regex);
    must(tn_name_rule_parse(&arena, "[]", &rule));
    assert_int_equal(rule.count, 0);
    must(tn_name_rule_parse(&arena, "", &rule));
    assert_int_equal(rule.count, 0);
    must(tn_name_rule_parse(&arena, "[qk]_proj", &rule)); /* a character class, not a list */
    assert_string_equal(rule.regex, "[qk]_proj");
    must(tn_name_rule_parse(&arena, ".*\\.(q|v)_proj", &rule));
    assert_string_equal(rule.regex, ".*\\.(q|v)_proj");
    must_fail(tn_name_rule_parse(&arena, "[\"q_proj\", 3]", &rule), TN_USAGE, "not the name of a module");
    must_fail(tn_name_rule_parse(&arena, "[\"q_proj\"", &rule), TN_USAGE, "a list of modules");
    tn_arena_free(&arena);
}

/* ---- Reading ------------------------------------------------------------------------------------- */

static void absent_keys_have_the_defaults_of_peft(void **state) {
    (void)state;
    tn_peft_config *c = read_config("{\"peft_type\":\"LORA\",\"target_modules\":[\"q_proj\"],\"r\":null}");
    assert_int_equal(c->r, 8);
    assert_true(c->lora_alpha == 8 && c->lora_dropout == 0 && !c->use_rslora && !c->use_dora && !c->all_linear);
    assert_string_equal(c->bias, "none");
    assert_string_equal(c->init_lora_weights, "true");
    assert_int_equal(c->target_modules.count, 1);
    assert_int_equal(c->layers_count + c->rank_patterns + c->alpha_patterns + c->modules_to_save.count, 0);
    assert_null(c->base_model);
    assert_null(c->task_type);
    assert_null(c->unsupported);
    tn_peft_config_free(c);
}

static void a_value_that_cannot_be_is_damage_and_never_a_default(void **state) {
    (void)state;
#define CONFIG(rest) "{\"peft_type\":\"LORA\",\"target_modules\":[\"q_proj\"]," rest "}"
    must_refuse("[]", TN_BAD_DATA, "not a JSON object");
    must_refuse("{\"peft_type\":\"LORA\"", TN_BAD_DATA, "adapter_config.json");
    must_refuse("{}", TN_BAD_DATA, "peft_type is absent");
    must_refuse("{\"peft_type\":\"IA3\"}", TN_USAGE, "IA3");
    must_refuse("{\"peft_type\":\"LORA\",\"r\":8}", TN_BAD_DATA, "target_modules is missing");
    must_refuse("{\"peft_type\":\"LORA\",\"target_modules\":7}", TN_BAD_DATA, "target_modules is an integer");
    must_refuse("{\"peft_type\":\"LORA\",\"target_modules\":[\"\"]}", TN_BAD_DATA, "target_modules[0]");
    must_refuse(CONFIG("\"r\":\"8\""), TN_BAD_DATA, "r is a string");
    must_refuse(CONFIG("\"r\":0"), TN_BAD_DATA, "r is 0");
    must_refuse(CONFIG("\"r\":8.5"), TN_BAD_DATA, "no whole number");
    must_refuse(CONFIG("\"r\":99999999999999999999"), TN_BAD_DATA, "r is an integer");
    must_refuse(CONFIG("\"lora_alpha\":NaN"), TN_BAD_DATA, "lora_alpha");
    must_refuse(CONFIG("\"lora_dropout\":1.5"), TN_BAD_DATA, "lora_dropout");
    must_refuse(CONFIG("\"use_dora\":1"), TN_BAD_DATA, "use_dora is an integer");
    must_refuse(CONFIG("\"bias\":false"), TN_BAD_DATA, "bias is a boolean");
    must_refuse(CONFIG("\"init_lora_weights\":3"), TN_BAD_DATA, "init_lora_weights");
    must_refuse(CONFIG("\"modules_to_save\":[1]"), TN_BAD_DATA, "modules_to_save[0]");
    must_refuse(CONFIG("\"layers_to_transform\":[1,0.5]"), TN_BAD_DATA, "layers_to_transform");
    must_refuse(CONFIG("\"layers_to_transform\":\"1\""), TN_BAD_DATA, "layers_to_transform");
    must_refuse(CONFIG("\"rank_pattern\":{\"q_proj\":0}"), TN_BAD_DATA, "q_proj");
    must_refuse(CONFIG("\"rank_pattern\":{\"q_proj\":2.5}"), TN_BAD_DATA, "rank_pattern");
    must_refuse(CONFIG("\"rank_pattern\":[4]"), TN_BAD_DATA, "rank_pattern is an array");
    must_refuse(CONFIG("\"alpha_pattern\":{\"q_proj\":null}"), TN_BAD_DATA, "alpha_pattern");
    must_refuse(CONFIG("\"trainable_token_indices\":[1,\"2\"]"), TN_BAD_DATA, "trainable_token_indices");
}

static void an_adapter_of_a_changed_base_is_refused(void **state) {
    (void)state;
    static const char *const changed[] = {"pissa", "pissa_niter_4", "olora", "loftq",
                                          "corda", "lora_ga",       "newer"};
    static const char *const plain[] = {"gaussian", "orthogonal", "eva"};
    char text[96];
    for (size_t i = 0; i < sizeof changed / sizeof *changed; i++) {
        snprintf(text, sizeof text, CONFIG("\"init_lora_weights\":\"%s\""), changed[i]);
        must_refuse(text, TN_USAGE, "the base was changed");
        assert_non_null(strstr(tn_error_remedy(), "path_initial_model_for_weight_conversion"));
    }
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        snprintf(text, sizeof text, CONFIG("\"init_lora_weights\":\"%s\""), plain[i]);
        tn_peft_config *c = read_config(text);
        assert_string_equal(c->init_lora_weights, plain[i]);
        tn_peft_config_free(c);
    }
}

static void a_missing_file_is_a_usage_error(void **state) {
    (void)state;
    tn_peft_config *config;
    must_fail(tn_peft_config_read("/nonexistent/adapter", &config), TN_USAGE,
              "/nonexistent/adapter/adapter_config.json");
    assert_true(strlen(tn_error_remedy()) > 0);
}

static void keys_we_cannot_honour_are_named_unless_at_rest(void **state) {
    (void)state;
    tn_peft_config *c =
        read_config(CONFIG("\"lora_bias\":false,\"arrow_config\":null,\"layer_replication\":[]"));
    assert_null(c->unsupported);
    tn_peft_config_free(c);
    c = read_config(CONFIG("\"fan_in_fan_out\":false,\"lora_bias\":true"));
    assert_string_equal(c->unsupported, "lora_bias");
    tn_peft_config_free(c);
    c = read_config(CONFIG("\"target_parameters\":[\"experts.gate_up_proj\"]"));
    assert_string_equal(c->unsupported, "target_parameters");
    tn_peft_config_free(c);
    c = read_config(CONFIG("\"trainable_token_indices\":{\"wte\":[1]}"));
    assert_string_equal(c->unsupported, "trainable_token_indices");
    tn_peft_config_free(c);
}

static void trainable_tokens_come_as_a_list_or_by_module(void **state) {
    (void)state;
    static const char *const forms[] = {CONFIG("\"trainable_token_indices\":[5,9]"),
                                        CONFIG("\"trainable_token_indices\":{\"embed_tokens\":[5,9]}")};
    for (int i = 0; i < 2; i++) {
        tn_peft_config *c = read_config(forms[i]);
        assert_int_equal(c->embed_tokens.count, 2);
        assert_int_equal(c->embed_tokens.ids[1], 9);
        assert_null(c->unsupported);
        assert_int_equal(c->head_tokens.count, 0);
        tn_peft_config_free(c);
    }
    tn_peft_config *c =
        read_config(CONFIG("\"trainable_token_indices\":{\"lm_head\":[3],\"model.embed_tokens\":[5,9]},"
                           "\"ensure_weight_tying\":true"));
    assert_int_equal(c->embed_tokens.ids[1], 9);
    assert_int_equal(c->head_tokens.ids[0], 3);
    assert_true(c->ensure_weight_tying);
    tn_peft_config_free(c);
    must_refuse(CONFIG("\"trainable_token_indices\":[5,5]"), TN_BAD_DATA, "twice");
    must_refuse(CONFIG("\"trainable_token_indices\":[-1]"), TN_BAD_DATA, "token id");
    must_refuse(CONFIG("\"trainable_token_indices\":{\"lm_head\":7}"), TN_BAD_DATA, "list");
}

static void keep_line(void *user, tn_log_level level, const char *line) {
    assert_int_equal(level, TN_LOG_WARNING);
    snprintf(user, 256, "%s", line);
}

static void unknown_keys_are_warned_of_by_name_and_left_aside(void **state) {
    (void)state;
    char line[256] = "";
    tn_log_set(keep_line, line);
    tn_peft_config_free(read_config(CONFIG("\"shiny\":{\"a\":1},\"peft_version\":\"0.21.2\",\"newer\":null")));
    tn_log_set(NULL, NULL);
    assert_non_null(strstr(line, "shiny, newer"));
    assert_null(strstr(line, "peft_version"));
}

/* ---- Writing ------------------------------------------------------------------------------------- */

static const char written[] =
    "{\n"
    "  \"alpha_pattern\": {\n    \"up_proj\": 2.5\n  },\n"
    "  \"auto_mapping\": null,\n"
    "  \"base_model_name_or_path\": \"models/\\\"größe\\\"\",\n"
    "  \"bias\": \"none\",\n"
    "  \"exclude_modules\": \".*layers\\\\.3\\\\..*\",\n"
    "  \"fan_in_fan_out\": false,\n"
    "  \"inference_mode\": true,\n"
    "  \"init_lora_weights\": \"orthogonal\",\n"
    "  \"layers_pattern\": \"layers\",\n"
    "  \"layers_to_transform\": [\n    0,\n    2\n  ],\n"
    "  \"lora_alpha\": 32,\n"
    "  \"lora_dropout\": 0.05,\n"
    "  \"modules_to_save\": [\n    \"embed_tokens\",\n    \"lm_head\"\n  ],\n"
    "  \"peft_type\": \"LORA\",\n"
    "  \"r\": 16,\n"
    "  \"rank_pattern\": {\n    \"v_proj\": 4,\n    \"q_proj\": 2\n  },\n"
    "  \"revision\": null,\n"
    "  \"target_modules\": [\n    \"q_proj\",\n    \"v_proj\",\n    \"up_proj\"\n  ],\n"
    "  \"task_type\": \"CAUSAL_LM\",\n"
    "  \"trainable_token_indices\": [\n    7\n  ],\n"
    "  \"use_dora\": true,\n"
    "  \"use_rslora\": false\n"
    "}\n";

static void what_is_read_is_written_again_in_the_order_of_peft(void **state) {
    (void)state;
    tn_str text = {0};
    tn_peft_config *c = read_config(written);
    must(tn_peft_config_write(c, scratch("")));
    must(tn_read_file(scratch("adapter_config.json"), 1 << 20, &text));
    assert_string_equal(text.data, written);
    tn_str_free(&text);
    tn_peft_config_free(c);
}

static void a_fresh_configuration_holds_only_keys_that_old_releases_know(void **state) {
    (void)state;
    tn_str text = {0};
    tn_peft_config *c;
    must(tn_peft_config_new(&c));
    c->all_linear = true;
    must(tn_peft_config_write(c, scratch("")));
    tn_peft_config_free(c);
    must(tn_read_file(scratch("adapter_config.json"), 1 << 20, &text));
    assert_non_null(strstr(text.data, "\"target_modules\": \"all-linear\""));
    assert_non_null(strstr(text.data, "\"init_lora_weights\": true"));
    assert_non_null(strstr(text.data, "\"lora_dropout\": 0.0"));
    assert_null(strstr(text.data, "exclude_modules"));
    assert_null(strstr(text.data, "trainable_token_indices"));
    tn_str_free(&text);
    must(tn_peft_config_read(scratch(""), &c));
    assert_true(c->all_linear);
    tn_peft_config_free(c);
}

static int clean_up(void **state) {
    (void)state;
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_modules_as_in_peft_get_lora_with_the_same_rank_and_alpha),
        cmocka_unit_test(a_target_that_names_nothing_is_found_out),
        cmocka_unit_test(an_expression_that_does_not_compile_is_a_usage_error),
        cmocka_unit_test(rules_are_lists_or_expressions_by_their_characters),
        cmocka_unit_test(absent_keys_have_the_defaults_of_peft),
        cmocka_unit_test(a_value_that_cannot_be_is_damage_and_never_a_default),
        cmocka_unit_test(an_adapter_of_a_changed_base_is_refused),
        cmocka_unit_test(a_missing_file_is_a_usage_error),
        cmocka_unit_test(keys_we_cannot_honour_are_named_unless_at_rest),
        cmocka_unit_test(trainable_tokens_come_as_a_list_or_by_module),
        cmocka_unit_test(unknown_keys_are_warned_of_by_name_and_left_aside),
        cmocka_unit_test(what_is_read_is_written_again_in_the_order_of_peft),
        cmocka_unit_test(a_fresh_configuration_holds_only_keys_that_old_releases_know),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
