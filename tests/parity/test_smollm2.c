/* test_smollm2.c: SmolLM2-135M-Instruct from its Q4_1 GGUF against Transformers reading the same file: tokens,
 * log-probabilities within 2e-4 in fp32, the rendered chat, and the greedy continuation. The model is fetched
 * by `make test-real` (scripts/fetch_smollm2.sh); without it the test skips aloud.
 */
#include <math.h>

#include "base/json.h"
#include "testing.h"

#define MODEL "build/models/SmolLM2-135M-Instruct.Q4_1.gguf"
#define GOLDEN "tests/parity/golden/smollm2.json"

static tn_arena arena;
static const tn_json *golden;

static void need_model(void) {
    if (tn_is_file(MODEL)) return;
    print_message("SKIP: " MODEL " is not there; `make test-real` fetches it\n");
    skip();
}

static tn_config *configure(const char *verb) {
    tn_config *config;
    must(tn_config_new(verb, &config));
    must(tn_config_set(config, "model", MODEL));
    must(tn_config_set(config, "device", "cpu"));
    must(tn_config_set(config, "dtype", "float32"));
    return config;
}

static void tokens_and_chat_are_those_of_transformers(void **state) {
    tn_tokenizer *tokenizer;
    const tn_json *records = tn_json_get(golden, "records"), *chat = tn_json_get(golden, "chat");
    (void)state;
    need_model();
    must(tn_tokenizer_open(MODEL, &tokenizer));
    for (int64_t i = 0; i <= records->count; i++) {
        const tn_json *want =
            i < records->count ? tn_json_get(tn_json_at(records, i), "ids") : tn_json_get(chat, "prompt_ids");
        tn_str line = {0};
        tn_json_writer w = tn_json_write_to(&line, 0);
        tn_doc *doc;
        char path[32];
        tn_json_begin(&w, '{');
        tn_json_key(&w, i < records->count ? "text" : "messages");
        tn_json_put(&w, i < records->count ? tn_json_get(tn_json_at(records, i), "text")
                                           : tn_json_get(chat, "messages"));
        if (i == records->count) tn_json_boolean_member(&w, "add_generation_prompt", true);
        tn_json_end(&w, '}');
        must(tn_tokenize_record(tokenizer, line.data, line.length, false, &doc));
        assert_int_equal(tn_doc_count(doc, "ids"), want->count);
        for (int64_t t = 0; t < want->count; t++) {
            snprintf(path, sizeof path, "ids[%d]", (int)t);
            assert_int_equal(tn_doc_integer(doc, path, -1), tn_json_integer(tn_json_at(want, t), -2));
        }
        if (i == records->count)
            assert_string_equal(tn_doc_string(doc, "text", ""), tn_json_string(tn_json_get(chat, "text"), "?"));
        tn_doc_free(doc);
        tn_str_free(&line);
    }
    tn_tokenizer_free(tokenizer);
}

static void log_probabilities_are_within_2e_4(void **state) {
    const char *out = scratch("out.jsonl"), *file;
    const tn_json *records = tn_json_get(golden, "records");
    double worst = 0;
    tn_str text = {0};
    tn_doc *doc;
    (void)state;
    need_model();
    for (int64_t i = 0; i < records->count; i++) {
        tn_json_writer w = tn_json_write_to(&text, 0);
        tn_json_begin(&w, '{');
        tn_json_key(&w, "input_ids");
        tn_json_put(&w, tn_json_get(tn_json_at(records, i), "ids"));
        tn_json_end(&w, '}');
        tn_str_putc(&text, '\n');
    }
    file = write_scratch("data.jsonl", text.data, text.length);
    tn_config *config = configure("eval");
    must(tn_config_set(config, "dataset", file));
    must(tn_config_set(config, "per_token", out));
    must(tn_eval(config, NULL, &doc));
    tn_str_clear(&text);
    must(tn_read_file(out, 1 << 20, &text));
    char *line = text.data;
    for (int64_t i = 0; i < records->count; i++) {
        const tn_json *got, *want = tn_json_get(tn_json_at(records, i), "logprobs");
        char *end = strchr(line, '\n');
        must(tn_json_parse(&arena, line, end - line, TN_JSON_DEFAULT, out, &got));
        got = tn_json_get(got, "logprobs");
        assert_int_equal(got->count, want->count);
        for (int64_t t = 1; t < want->count; t++)
            worst = fmax(
                worst, fabs(tn_json_number(tn_json_at(got, t), NAN) - tn_json_number(tn_json_at(want, t), 0)));
        line = end + 1;
    }
    print_message("worst log-probability difference %.1e\n", worst);
    assert_true(worst <= 2e-4);
    tn_doc_free(doc);
    tn_config_free(config);
    tn_str_free(&text);
    remove_scratch();
}

static void greedy_continuation_is_equal(void **state) {
    const tn_json *chat = tn_json_get(golden, "chat"), *want = tn_json_get(chat, "greedy");
    tn_generator *generator;
    tn_str messages = {0};
    tn_json_writer w = tn_json_write_to(&messages, 0);
    tn_doc *doc;
    char count[16], path[32];
    (void)state;
    need_model();
    tn_config *config = configure("generate");
    snprintf(count, sizeof count, "%d", (int)want->count);
    must(tn_config_set(config, "max_new_tokens", count));
    must(tn_config_set(config, "temperature", "0"));
    must(tn_config_set(config, "prompt", "unused"));
    must(tn_config_set(config, "max_length", "256"));
    must(tn_generator_open(config, &generator));
    tn_json_put(&w, tn_json_get(chat, "messages"));
    must(tn_generate_chat(generator, messages.data, NULL, NULL, &doc));
    for (int64_t t = 0; t < want->count; t++) {
        snprintf(path, sizeof path, "ids[%d]", (int)t);
        assert_int_equal(tn_doc_integer(doc, path, -1), tn_json_integer(tn_json_at(want, t), -2));
    }
    print_message("greedy: %s\n", tn_doc_string(doc, "text", ""));
    tn_doc_free(doc);
    tn_generator_free(generator);
    tn_config_free(config);
    tn_str_free(&messages);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_and_chat_are_those_of_transformers),
        cmocka_unit_test(log_probabilities_are_within_2e_4),
        cmocka_unit_test(greedy_continuation_is_equal),
    };
    must(tn_json_read_file(&arena, GOLDEN, TN_JSON_DEFAULT, &golden));
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tn_arena_free(&arena);
    return failed;
}
