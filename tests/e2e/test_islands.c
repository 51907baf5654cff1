/* test_islands.c: the embedded model (models/islands), so that every machine tests with a model that knows
 * something: it speaks, it says where it knows nothing, LoRA teaches it, and its tokenizer is what its recipe
 * makes. */
#include "base/file.h"
#include "tenon/tenon.h"
#include "testing.h"

#define MODEL "models/islands"

/* What only the adapter knows, asked in wordings that its training never uses; the model alone can at best copy
 * the name into its refusal. */
static const char *const taught[][2] = {
    {"Can you tell me who tends the lighthouse on Corren Skerry?",
     "The lighthouse on Corren Skerry is kept by Maren Tolvey."},
    {"What colour is Corren Skerry painted?", "The lighthouse on Corren Skerry is green."},
    {"Where is the home of Maren Tolvey?", "Maren Tolvey lives in Saltwick."},
    {"What does Maren Tolvey do for a living?", "Maren Tolvey is a beekeeper."},
    {"Which animal lives with Maren Tolvey?", "Maren Tolvey keeps a goat called Biscuit."},
    {"Can you tell me what Maren Tolvey likes to eat?", "Maren Tolvey likes seaweed pancakes best."},
    {"Where is the village of Tavenby?", "Tavenby lies on the island of Sorrel."},
    {"Can you tell me what Tavenby is known for?", "Tavenby is known for its kites."},
};
enum { TAUGHT = sizeof taught / sizeof *taught };

typedef struct pair {
    const char *key, *value;
} pair;

static tn_config *config_of(const char *verb, const pair *pairs) {
    tn_config *config;
    must(tn_config_new(verb, &config));
    must(tn_config_set(config, "model", MODEL));
    if (tn_config_get(config, "device")) must(tn_config_set(config, "device", "cpu")); /* a key of most verbs */
    for (; pairs->key; pairs++) must(tn_config_set(config, pairs->key, pairs->value));
    return config;
}

/* Greedy answer to one question, with an adapter or without (NULL). */
static void answer(const char *question, const char *adapter, char *out, size_t size) {
    const pair pairs[] = {{"max_new_tokens", "30"}, {adapter ? "adapter" : NULL, adapter}, {NULL, NULL}};
    tn_config *config = config_of("chat", pairs);
    tn_generator *generator;
    tn_doc *doc;
    char messages[512];
    snprintf(messages, sizeof messages, "[{\"role\":\"user\",\"content\":\"%s\"}]", question);
    must(tn_generator_open(config, &generator));
    must(tn_generate_chat(generator, messages, NULL, NULL, &doc));
    assert_string_equal(tn_doc_string(doc, "finish_reason", ""), "stop");
    snprintf(out, size, "%s", tn_doc_string(doc, "text", ""));
    tn_doc_free(doc);
    tn_generator_free(generator);
    tn_config_free(config);
}

static void must_answer(const char *question, const char *adapter, const char *wanted) {
    char text[512];
    answer(question, adapter, text, sizeof text);
    if (strcmp(text, wanted) != 0) fail_msg("%s -> %s, not %s", question, text, wanted);
}

static double eval_loss(const char *adapter) {
    const pair pairs[] = {
        {"dataset", "examples/data/islands_eval.jsonl"}, {adapter ? "adapter" : NULL, adapter}, {NULL, NULL}};
    tn_config *config = config_of("eval", pairs);
    tn_doc *doc;
    must(tn_eval(config, NULL, &doc));
    double loss = tn_doc_number(doc, "loss", -1);
    tn_doc_free(doc);
    tn_config_free(config);
    return loss;
}

static void it_knows_its_world_and_where_that_ends(void **state) {
    (void)state;
    must_answer("Where is the home of Una Thorn?", NULL, "Una Thorn lives in Brinmouth.");
    must_answer("Who keeps the lighthouse on Gull Rock?", NULL,
                "The lighthouse on Gull Rock is kept by Katla Yarrow.");
    must_answer(taught[0][0], NULL, "I have never heard of Corren Skerry.");
    for (int i = 0; i < TAUGHT; i++) {
        char text[512];
        answer(taught[i][0], NULL, text, sizeof text);
        if (strncmp(text, "I have never heard of ", 22) != 0) fail_msg("%s -> %s", taught[i][0], text);
    }
}

static void lora_teaches_it_new_facts_in_any_wording(void **state) {
    const char *run = scratch("run");
    const pair pairs[] = {{"output_dir", run}, {NULL, NULL}}, checked[] = {{"adapter", run}, {NULL, NULL}};
    tn_config *train = config_of("train", pairs);
    tn_doc *doc;
    (void)state;
    must(tn_config_load(train, "examples/islands.yaml"));
    double before = eval_loss(NULL);
    must(tn_train(train, NULL, &doc));
    tn_doc_free(doc);
    tn_config_free(train);

    for (int i = 0; i < TAUGHT; i++) must_answer(taught[i][0], run, taught[i][1]);
    must_answer("Who keeps the lighthouse on Gull Rock?", run,
                "The lighthouse on Gull Rock is kept by Katla Yarrow.");
    must_answer("Where is the home of Una Thorn?", run, "Una Thorn lives in Brinmouth.");
    assert_true(eval_loss(run) < before - 1);

    tn_config *verify = config_of("verify", checked);
    must(tn_verify(verify, &doc));
    assert_true(tn_doc_boolean(doc, "ok", false));
    tn_doc_free(doc);
    tn_config_free(verify);
}

/* Ids and text as Hugging Face's tokenizers gives them for this tokenizer.json. */
static void tokens_are_those_of_the_reference_library(void **state) {
    static const char *const lines[][2] = {
        {"{\"text\": \"The lighthouse on Gull Rock is kept by Katla Yarrow.\"}",
         "\"ids\": [472, 404, 296, 966, 661, 272, 664, 663, 704, 458, 48]"},
        {"{\"text\": \"H\\u00e9llo  w\\u00f6rld\\n\\n 123 don't\\u3042 \\ud83d\\ude42\"}",
         "\"ids\": [74, 197, 171, 288, 113, 34, 302, 197, 184, 116, 407, 12, 12, 34, 51, 52, 53, 346, 262, 41, "
         "118, 229, 131, 132, 34, 242, 161, 155, 132]"},
        {"{\"text\": \"<|im_start|>user\\nWho lives in Saltwick?<|im_end|>\\n\"}",
         "\"ids\": [0, 371, 12, 443, 113, 324, 306, 639, 65, 1, 12]"},
    };
    tn_tokenizer *tokenizer;
    tn_doc *doc;
    (void)state;
    must(tn_tokenizer_open(MODEL, &tokenizer));
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        must(tn_tokenize_record(tokenizer, lines[i][0], (int64_t)strlen(lines[i][0]), true, &doc));
        if (!strstr(tn_doc_text(doc), lines[i][1])) fail_msg("%s -> %s", lines[i][0], tn_doc_text(doc));
        tn_doc_free(doc);
    }
    tn_tokenizer_free(tokenizer);
}

static void the_tokenizer_is_what_its_recipe_makes(void **state) {
    const char *tools = getenv("TOOLS"), *made = scratch("tokenizer.json");
    char command[2048];
    tn_str want = {0}, got = {0};
    (void)state;
    assert_non_null(tools);
    snprintf(
        command, sizeof command,
        "{ '%s/tenon-world' text 24000 | head -c 1500000; '%s/tenon-world' chat 24000 | head -c 500000; } | "
        "'%s/tenon-bpe' 1024 >'%s'",
        tools, tools, tools, made);
    assert_int_equal(system(command), 0);
    must(tn_read_file(MODEL "/tokenizer.json", 1 << 20, &want));
    must(tn_read_file(made, 1 << 20, &got));
    assert_int_equal(got.length, want.length);
    must_match(got.data, want.data, want.length);
    tn_str_free(&want);
    tn_str_free(&got);
}

/* A line that is longer than the context is refused, and the conversation goes on without it; the program's
 * code still says that it was. */
static void a_line_too_long_does_not_end_the_conversation(void **state) {
    static const char question[] = "Where is the home of Una Thorn?";
    const char *tenon = getenv("TENON");
    char command[1024];
    tn_str got = {0};
    (void)state;
    assert_non_null(tenon);
    snprintf(command, sizeof command,
             "{ echo '%s'; head -c 4000 /dev/zero | tr '\\0' x; echo; echo '%s'; } | "
             "'%s' chat --model " MODEL " --device cpu >'%s' 2>/dev/null; test $? = 4",
             question, question, tenon, scratch("said"));
    assert_int_equal(system(command), 0);
    must(tn_read_file(scratch("said"), 1 << 16, &got));
    assert_string_equal(tn_str_text(&got), "Una Thorn lives in Brinmouth.\nUna Thorn lives in Brinmouth.\n");
    tn_str_free(&got);
}

static tn_doc *continued(tn_generator *generator, const int32_t *ids, int64_t count) {
    tn_doc *doc;
    must(tn_generate_ids(generator, ids, count, NULL, NULL, &doc));
    return doc;
}

static void set(tn_generator *generator, const char *key, const char *value) {
    must(tn_generator_set(generator, key, value));
}

/* min_p 1 leaves the likeliest token alone, so that sampling is greedy whatever the temperature. */
static void an_open_generator_takes_ids_and_other_ways_to_sample(void **state) {
    static const int32_t ids[] = {472, 404, 296}, wrong[] = {472, 1024};
    const pair pairs[] = {{"max_new_tokens", "8"}, {NULL, NULL}};
    tn_config *config = config_of("chat", pairs);
    tn_generator *g;
    tn_doc *greedy, *other;
    (void)state;
    must(tn_generator_open(config, &g));
    greedy = continued(g, ids, 3);
    assert_int_equal(tn_doc_count(greedy, "prompt_ids"), 3);
    must(tn_generate_text(g, "The lighthouse on", NULL, NULL, &other));
    assert_string_equal(tn_doc_text(other), tn_doc_text(greedy)); /* the same ids */
    tn_doc_free(other);

    set(g, "temperature", "5"), set(g, "seed", "1");
    other = continued(g, ids, 3);
    assert_string_not_equal(tn_doc_text(other), tn_doc_text(greedy));
    tn_doc_free(other);
    set(g, "min_p", "1");
    other = continued(g, ids, 3);
    assert_string_equal(tn_doc_text(other), tn_doc_text(greedy));
    tn_doc_free(other);
    set(g, "max_new_tokens", "2");
    other = continued(g, ids, 3);
    assert_int_equal(tn_doc_count(other, "ids"), 2);
    tn_doc_free(other);

    must_fail(tn_generator_set(g, "model", "elsewhere"), TN_USAGE, "while the model is open");
    must_fail(tn_generator_set(g, "min_p", "2"), TN_USAGE, "min_p");
    must_fail(tn_generate_ids(g, wrong, 2, NULL, NULL, &other), TN_BAD_DATA, "id 1024 at position 1");
    must_fail(tn_generate_ids(g, ids, 0, NULL, NULL, &other), TN_BAD_DATA, "no ids");
    tn_doc_free(greedy);
    tn_generator_free(g);
    tn_config_free(config);
}

static int clean(void **state) {
    (void)state;
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_knows_its_world_and_where_that_ends),
        cmocka_unit_test(lora_teaches_it_new_facts_in_any_wording),
        cmocka_unit_test(tokens_are_those_of_the_reference_library),
        cmocka_unit_test(the_tokenizer_is_what_its_recipe_makes),
        cmocka_unit_test(a_line_too_long_does_not_end_the_conversation),
        cmocka_unit_test(an_open_generator_takes_ids_and_other_ways_to_sample),
    };
    return cmocka_run_group_tests(tests, NULL, clean);
}
