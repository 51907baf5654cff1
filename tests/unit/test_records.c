/* Every accepted shape becomes the conversation, text or ids that the documentation says. */
#include "data/records.h"
#include "testing.h"

/* Converts one record and writes what it became, or "ERROR n: message". */
static char *convert(const char *json, const char *format, bool chat_template) {
    tn_arena arena = {0};
    tn_str out = {0};
    const tn_json *tree;
    tn_record r;
    tn_shape shape;
    tn_status status = tn_json_parse(&arena, json, (int64_t)strlen(json), TN_JSON_DEFAULT, "test", &tree);
    if (status == TN_OK) status = format ? tn_shape_from_name(format, &shape) : tn_shape_detect(tree, &shape);
    if (status == TN_OK) status = tn_record_convert(&arena, tree, shape, chat_template, false, &r);
    tn_json_writer w = tn_json_write_to(&out, 0);
    if (status != TN_OK) {
        tn_str_printf(&out, "ERROR %d: %s | %s", (int)status, tn_error_message(), tn_error_remedy());
    } else if (r.kind == TN_RECORD_CHAT) {
        tn_json_put(&w, r.chat);
    } else if (r.kind == TN_RECORD_IDS) {
        tn_json_put(&w, r.ids);
        if (r.labels) {
            w = tn_json_write_to(&out, 0);
            tn_str_puts(&out, " labels ");
            tn_json_put(&w, r.labels);
        }
    } else {
        if (r.kind == TN_RECORD_COMPLETION) {
            tn_str_add(&out, r.text, r.prompt_bytes);
            tn_str_puts(&out, " => ");
        }
        tn_str_add(&out, r.text + r.prompt_bytes, r.bytes - r.prompt_bytes);
    }
    tn_arena_free(&arena);
    return out.data ? out.data : strdup("");
}

static void expect(const char *json, bool chat_template, const char *wanted) {
    char *got = convert(json, NULL, chat_template);
    assert_string_equal(got, wanted);
    free(got);
}

static void expect_error(const char *json, const char *format, bool chat_template, tn_status status,
                         const char *part) {
    char *got = convert(json, format, chat_template), start[16];
    snprintf(start, sizeof start, "ERROR %d:", (int)status);
    if (strncmp(got, start, strlen(start)) != 0 || !strstr(got, part))
        fail_msg("\"%s\" does not start with %s or lacks \"%s\"", got, start, part);
    free(got);
}

static void messages_pass_as_they_are(void **state) {
    (void)state;
    expect(
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"extra\":1},{\"role\":\"assistant\",\"content\":"
        "null,"
        "\"tool_calls\":[]}],\"id\":7}",
        true,
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\", \"extra\": 1}, {\"role\": \"assistant\", "
        "\"content\": null, \"tool_calls\": []}]}");
    /* as a column of a CSV file */
    expect("{\"messages\":\"[{\\\"role\\\":\\\"user\\\",\\\"content\\\":\\\"a\\\"}]\",\"tools\":\"\"}", true,
           "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}");
}

static void tools_system_and_kwargs_go_to_the_template(void **state) {
    (void)state;
    expect(
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"tools\":\"[{\\\"name\\\":\\\"f\\\"}]\","
        "\"system\":\"be kind\","
        "\"chat_template_kwargs\":{\"enable_thinking\":false}}",
        true,
        "{\"messages\": [{\"role\": \"system\", \"content\": \"be kind\"}, {\"role\": \"user\", \"content\": "
        "\"a\"}], "
        "\"tools\": [{\"name\": \"f\"}], \"kwargs\": {\"enable_thinking\": false}}");
    expect("{\"messages\":[{\"role\":\"system\",\"content\":\"s\"}],\"tools\":[],\"system\":\"other\"}", true,
           "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}]}");
}

static void sharegpt_roles_become_openai_roles(void **state) {
    (void)state;
    expect(
        "{\"conversations\":[{\"from\":\"system\",\"value\":\"s\"},{\"from\":\"human\",\"value\":\"h\"},{"
        "\"from\":\"gpt\","
        "\"value\":\"g\"}]}",
        true,
        "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": \"h\"}, "
        "{\"role\": \"assistant\", \"content\": \"g\"}]}");
    expect_error("{\"conversations\":[{\"from\":\"alien\",\"value\":\"h\"}]}", NULL, true, TN_BAD_DATA,
                 "\"alien\"");
    expect_error("{\"conversations\":[{\"value\":\"h\"}]}", NULL, true, TN_BAD_DATA, "turn 1");
    expect_error("{\"conversations\":[]}", NULL, true, TN_BAD_DATA, "empty");
    expect_error("{\"conversations\":[3]}", NULL, true, TN_BAD_DATA, "message 1");
}

static void sharegpt_function_calls_become_tool_calls(void **state) {
    (void)state;
    expect(
        "{\"conversations\":[{\"from\":\"human\",\"value\":\"h\"},{\"from\":\"function_call\",\"value\":\"{"
        "\\\"name\\\":"
        "\\\"f\\\",\\\"arguments\\\":{\\\"x\\\":1}}\"},{\"from\":\"observation\",\"value\":\"42\"}]}",
        true,
        "{\"messages\": [{\"role\": \"user\", \"content\": \"h\"}, {\"role\": \"assistant\", \"content\": "
        "\"\", "
        "\"tool_calls\": [{\"type\": \"function\", \"id\": \"call00001\", \"function\": {\"name\": \"f\", "
        "\"arguments\": "
        "{\"x\": 1}}}]}, {\"role\": \"tool\", \"content\": \"42\", \"tool_call_id\": \"call00001\"}]}");
    expect_error("{\"conversations\":[{\"from\":\"function_call\",\"value\":\"no json\"}]}", NULL, true,
                 TN_BAD_DATA, "function_call");
}

static void alpaca_joins_instruction_and_input_with_a_newline(void **state) {
    (void)state;
    expect("{\"instruction\":\"add\",\"input\":\"1 2\",\"output\":\"3\"}", true,
           "{\"messages\": [{\"role\": \"user\", \"content\": \"add\\n1 2\"}, {\"role\": \"assistant\", "
           "\"content\": \"3\"}]}");
    expect("{\"instruction\":\"hi\",\"input\":\"\",\"output\":\"ho\",\"text\":\"rendered\"}", false,
           "hi => ho");
    expect("{\"instruction\":\"hi\",\"input\":null,\"output\":\"ho\"}", false, "hi => ho");
    expect("{\"instruction\":\"add\",\"input\":\"1 2\",\"output\":\"3\"}", false, "add\n1 2 => 3");
    expect("{\"instruction\":\"c\",\"output\":\"d\",\"system\":\"s\",\"history\":[[\"a\",\"b\"]]}", true,
           "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": "
           "\"a\"}, {\"role\": "
           "\"assistant\", \"content\": \"b\"}, {\"role\": \"user\", \"content\": \"c\"}, {\"role\": "
           "\"assistant\", "
           "\"content\": \"d\"}]}");
    expect_error("{\"instruction\":\"c\",\"output\":5}", NULL, true, TN_BAD_DATA, "\"output\" is an integer");
}

static void pairs_become_one_user_and_one_assistant_message(void **state) {
    (void)state;
    const char *wanted =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": "
        "\"b\"}]}";
    expect("{\"prompt\":\"a\",\"completion\":\"b\"}", true, wanted);
    expect("{\"question\":\"a\",\"answer\":\"b\"}", true, wanted);
    expect(
        "{\"prompt\":[{\"role\":\"user\",\"content\":\"a\"}],\"completion\":[{\"role\":\"assistant\","
        "\"content\":\"b\"}]}",
        true, wanted);
    expect("{\"prompt\":\"a\",\"completion\":\"b\"}", false, "a => b");
    expect("{\"question\":\"a\",\"answer\":\"b\"}", false, "a => b");
    expect_error("{\"prompt\":[],\"completion\":\"b\"}", NULL, false, TN_USAGE, "chat template");
}

static void text_and_ids_are_taken_as_they_are(void **state) {
    (void)state;
    expect("{\"text\":\" x\\n\"}", true, " x\n");
    expect("{\"input_ids\":[1,2],\"labels\":[-100,2],\"text\":\"x\"}", true, "[1, 2] labels [-100, 2]");
    expect("{\"input_ids\":\"[1, 2]\",\"labels\":null}", false, "[1, 2]");
    expect("{\"input_ids\":[]}", true, "[]");
    expect_error("{\"input_ids\":[1,2],\"labels\":[1]}", NULL, true, TN_BAD_DATA, "2 input_ids, but 1 labels");
    expect_error("{\"input_ids\":{\"a\":1}}", NULL, true, TN_BAD_DATA, "list");
    expect_error("{\"text\":[\"x\"]}", NULL, true, TN_BAD_DATA, "\"text\" is an array");
}

static void padding_is_left_out_and_packed_ids_are_refused(void **state) {
    (void)state;
    expect("{\"input_ids\":[9,1,2,9],\"attention_mask\":[0,1,1,0]}", true, "[1, 2]");
    expect("{\"input_ids\":[1,2,9],\"labels\":[-100,2,9],\"attention_mask\":[1,1,0]}", true,
           "[1, 2] labels [-100, 2]");
    expect("{\"input_ids\":[1,2],\"attention_mask\":[1,1]}", true, "[1, 2]");
    expect("{\"input_ids\":[1,2],\"attention_mask\":null}", true, "[1, 2]");
    expect("{\"input_ids\":[9,9],\"attention_mask\":[0,0]}", true, "[]");
    expect_error("{\"input_ids\":[1,2],\"attention_mask\":[1]}", NULL, true, TN_BAD_DATA,
                 "an attention_mask of 1");
    expect_error("{\"input_ids\":[1,9,2],\"attention_mask\":[1,0,1]}", NULL, true, TN_BAD_DATA,
                 "attention_mask[1]");
    expect_error("{\"input_ids\":[1,2,3],\"attention_mask\":[1,2,2]}", NULL, true, TN_BAD_DATA,
                 "packed before");
}

static void an_unknown_shape_lists_its_keys_and_what_is_accepted(void **state) {
    (void)state;
    expect_error("{\"quest\":1,\"reply\":2}", NULL, true, TN_BAD_DATA, "quest, reply");
    expect_error("{\"quest\":1}", NULL, true, TN_BAD_DATA, "prompt/completion");
    expect_error("{\"messages\":null,\"output\":\"x\"}", NULL, true, TN_BAD_DATA, "messages, output");
    expect_error("[1]", NULL, true, TN_BAD_DATA, "object");
    expect_error("{\"text\":\"x\"}", "alpaca", true, TN_BAD_DATA, "\"instruction\" is missing");
    expect_error("{\"text\":\"x\"}", "chatml", true, TN_USAGE, "chatml");
}

static void what_cannot_be_trained_on_is_refused(void **state) {
    (void)state;
    expect_error("{\"messages\":[{\"role\":\"user\",\"content\":\"<image>\"}],\"images\":[\"a.jpg\"]}", NULL,
                 true, TN_USAGE, "images");
    expect_error("{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"image\":\"a.jpg\"}]}]}",
                 NULL, true, TN_USAGE, "this model sees none");
    expect_error("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", NULL, false, TN_USAGE,
                 "chat template");
    expect_error("{\"messages\":[{\"role\":\"user\"}]}", NULL, true, TN_BAD_DATA, "no \"content\"");
    expect_error("{\"messages\":\"[{]\"}", NULL, true, TN_BAD_DATA, "column \"messages\"");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_pass_as_they_are),
        cmocka_unit_test(tools_system_and_kwargs_go_to_the_template),
        cmocka_unit_test(sharegpt_roles_become_openai_roles),
        cmocka_unit_test(sharegpt_function_calls_become_tool_calls),
        cmocka_unit_test(alpaca_joins_instruction_and_input_with_a_newline),
        cmocka_unit_test(pairs_become_one_user_and_one_assistant_message),
        cmocka_unit_test(text_and_ids_are_taken_as_they_are),
        cmocka_unit_test(padding_is_left_out_and_packed_ids_are_refused),
        cmocka_unit_test(an_unknown_shape_lists_its_keys_and_what_is_accepted),
        cmocka_unit_test(what_cannot_be_trained_on_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
