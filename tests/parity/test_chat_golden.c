/* test_chat_golden.c: every conversation of the golden chat files (../shared/data) renders to its exact text
 * and ids, and what a template rejects is rejected in its own words. */
#include "../testing.h"
#include "base/json.h"
#include "text/chat.h"

static const char *data_directory(void) {
    static const char data[] = "build/data";
    if (!tn_is_file("build/data/golden/chat_errors.jsonl") && tn_is_file("../shared/data/unpack.sh") &&
        system("sh ../shared/data/unpack.sh build/data > /dev/null") != 0)
        return NULL;
    return tn_is_file("build/data/golden/chat_errors.jsonl") ? data : NULL;
}

static tn_chat *open_chat(const char *name) {
    char path[256];
    tn_chat *chat;
    snprintf(path, sizeof path, "%s/tokenizers/%s", data_directory(), name);
    must(tn_chat_open(path, &chat));
    return chat;
}

static void check_text(const char *name, int64_t line, const tn_json *record, const tn_str *text) {
    const tn_json *wanted = tn_json_get(record, "text");
    if (text->length == wanted->count && memcmp(tn_str_text(text), wanted->string, (size_t)text->length) == 0)
        return;
    fail_msg("%s, line %lld (%s) renders as\n%s\ninstead of\n%s", name, (long long)line,
             tn_json_string(tn_json_get(record, "tag"), ""), tn_str_text(text), wanted->string);
}

static void check_ids(const char *name, int64_t line, const tn_json *record, const tn_chat *chat,
                      const tn_str *text) {
    const tn_json *wanted = tn_json_get(record, "ids");
    tn_ids ids = {0};
    must(tn_text_encode(tn_chat_text(chat), tn_str_text(text), text->length, false, &ids, NULL));
    if (ids.count != wanted->count)
        fail_msg("%s, line %lld: %lld ids", name, (long long)line, (long long)ids.count);
    for (int64_t i = 0; i < ids.count; i++)
        if (ids.ids[i] != tn_json_integer(tn_json_at(wanted, i), -1))
            fail_msg("%s, line %lld: id %lld differs", name, (long long)line, (long long)i);
    tn_ids_free(&ids);
}

static void check_record(const char *name, int64_t line, const tn_json *record, const tn_chat *chat) {
    tn_str text = {0};
    bool rejected;
    const tn_json *error = tn_json_get(record, "error");
    tn_status status = tn_chat_render(chat, record, &text, &rejected, NULL, NULL);
    if (error) {
        must_fail(status, TN_BAD_DATA, "");
        assert_true(rejected);
        assert_string_equal(tn_error_message(), error->string);
    } else {
        must(status);
        check_text(name, line, record, &text);
        check_ids(name, line, record, chat, &text);
    }
    tn_str_free(&text);
}

/* Lines of a golden file; `tokenizer` NULL: each line names its own in "template". Gives their number. */
static int64_t check_file(const char *name, const char *tokenizer) {
    tn_str text = {0};
    char path[256], opened[64] = "";
    tn_chat *chat = NULL;
    int64_t line = 0;
    if (!data_directory()) {
        print_message("SKIP: no ../shared/data\n");
        skip();
    }
    snprintf(path, sizeof path, "%s/golden/%s", data_directory(), name);
    must(tn_read_file(path, 64 << 20, &text));
    for (char *at = text.data, *end; *at; at = end + 1) {
        tn_arena arena = {0};
        const tn_json *record;
        end = strchr(at, '\n');
        assert_non_null(end);
        must(tn_json_parse(&arena, at, end - at, 0, name, &record));
        const char *wanted = tokenizer ? tokenizer : tn_json_string(tn_json_get(record, "template"), "");
        if (strcmp(opened, wanted) != 0) {
            tn_chat_free(chat);
            chat = open_chat(wanted);
            snprintf(opened, sizeof opened, "%s", wanted);
        }
        check_record(name, ++line, record, chat);
        tn_arena_free(&arena);
    }
    tn_chat_free(chat);
    tn_str_free(&text);
    return line;
}

#define GOLDEN(name, lines)                                                 \
    static void name##_chats_render_exactly(void **state) {                 \
        (void)state;                                                        \
        assert_int_equal(check_file("chat_" #name ".jsonl", #name), lines); \
    }
GOLDEN(llama3_2, 47)
GOLDEN(qwen2_5, 50)
GOLDEN(qwen3, 52)
GOLDEN(mistral_nemo, 49)
GOLDEN(gemma3, 37)
GOLDEN(qwen2_5_vl, 41)

static void what_other_engines_get_wrong_renders_as_python_does(void **state) {
    (void)state;
    assert_int_equal(check_file("chat_jinja2.jsonl", NULL), 16);
}

static void rejected_conversations_give_the_templates_own_message(void **state) {
    (void)state;
    assert_int_equal(check_file("chat_errors.jsonl", NULL), 11);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama3_2_chats_render_exactly),
        cmocka_unit_test(qwen2_5_chats_render_exactly),
        cmocka_unit_test(qwen3_chats_render_exactly),
        cmocka_unit_test(mistral_nemo_chats_render_exactly),
        cmocka_unit_test(gemma3_chats_render_exactly),
        cmocka_unit_test(qwen2_5_vl_chats_render_exactly),
        cmocka_unit_test(what_other_engines_get_wrong_renders_as_python_does),
        cmocka_unit_test(rejected_conversations_give_the_templates_own_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
