/* test_template.c: what the template engine promises beyond the golden chats: Python's semantics feature by
 * feature, white space control, generation ranges, messages with a line, and bounds that no template escapes;
 * and what tn_chat finds in a model's files. Wider comparison with Jinja2 itself:
 * tests/parity/fuzz_templates.py. */
#include "../testing.h"
#include "base/json.h"
#include "text/chat.h"

static const char variables_text[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"h\\u00e9\"}, {\"role\": \"assistant\", \"content\": "
    "\"yo\"}],"
    " \"n\": 7, \"l\": [3, 1, 2], \"d\": {\"b\": 1, \"a\": 2}, \"none\": null, \"s\": \"Hello\", \"big\": "
    "123456789012345678901234567890}";

static tn_status render(const char *source, tn_str *out, bool *rejected, tn_text_range **ranges,
                        int64_t *count) {
    tn_arena arena = {0};
    const tn_json *variables;
    tn_template *compiled;
    must(tn_json_parse(&arena, variables_text, (int64_t)strlen(variables_text), 0, "variables", &variables));
    tn_status status = tn_template_compile(source, (int64_t)strlen(source), "t", &compiled);
    if (status == TN_OK) status = tn_template_render(compiled, variables, out, rejected, ranges, count);
    tn_template_free(compiled);
    tn_arena_free(&arena);
    return status;
}

static void gives(const char *source, const char *wanted) {
    tn_str out = {0};
    must(render(source, &out, NULL, NULL, NULL));
    if (strcmp(tn_str_text(&out), wanted) != 0)
        fail_msg("%s\ngives\n%s\nnot\n%s", source, tn_str_text(&out), wanted);
    tn_str_free(&out);
}

static void fails(const char *source, const char *part) {
    tn_str out = {0};
    tn_status status = render(source, &out, NULL, NULL, NULL);
    must_fail(status, TN_BAD_DATA, part);
    assert_int_equal(out.length, 0);
    tn_str_free(&out);
}

/* `count` times `piece` between `before` and `after`. */
static tn_str repeated(const char *before, const char *piece, int count, const char *after) {
    tn_str source = {0};
    tn_str_puts(&source, before);
    for (int i = 0; i < count; i++) tn_str_puts(&source, piece);
    tn_str_puts(&source, after);
    return source;
}

static void fails_repeated(const char *before, const char *piece, int count, const char *after,
                           const char *part) {
    tn_str source = repeated(before, piece, count, after);
    fails(source.data, part);
    tn_str_free(&source);
}

static void white_space_follows_trim_and_lstrip_blocks(void **state) {
    (void)state;
    gives("a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc");
    gives("a\n  {%- if true -%}\n  b\n  {%- endif -%}\n  c\n\n", "abc\n");
    gives("a\n  {%+ if true +%}\n  b{% endif %}", "a\n  \n  b");
    gives(" {{ n }}\n {{- n -}} \n.", " 77.");
    gives("x {# c #}\n  {#- c -#} y", "x y");
    gives("{% raw %}{{ n }}{% endraw %}", "{{ n }}");
    gives("a\r\nb\rc", "a\nb\nc");
}

static void expressions_follow_python(void **state) {
    (void)state;
    gives("{{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ -2 ** 2 }}", "-4 2 3.5 1024 4");
    gives("{{ 1e16 }} {{ 1e-5 }} {{ 0.1 + 0.2 }} {{ 1.0 }} {{ big }}",
          "1e+16 1e-05 0.30000000000000004 1.0 123456789012345678901234567890");
    gives("{{ [none, true, 1.0, 'a\\'b', {'k': (1,)}] }}", "[None, True, 1.0, \"a'b\", {'k': (1,)}]");
    gives("{{ 'h\xC3\xA9llo'[1] }}{{ 'h\xC3\xA9llo'[::-1] }}{{ l[-2:] }}{{ 'abc'[9] }}",
          "\xC3\xA9oll\xC3\xA9h[1, 2]");
    gives("{{ 1 < 2 < 3 }} {{ 'x' not in d }} {{ 1 == 1.0 == true }} {{ d == {'a': 2, 'b': 1} }}",
          "True True True True");
    gives("{{ 'a' if false }}|{{ 'a' if false else 'b' }}|{{ n or l }}|{{ none and l }}", "|b|7|None");
    gives("{{ 'a' ~ 1 ~ none }} {{ 'a' 'b' }} {{ [1] + [2] }} {{ 'ab' * 2 }}", "a1None ab [1, 2] abab");
    gives("{{ '%s %05.1f %x' % ('a', 2.25, 255) }} {{ '{:>4}|{x!r}'.format('a', x='b') }}",
          "a 002.2 ff    a|'b'");
    gives("{{ 'a,b,c'.split(',', 1) }} {{ ' \\n x '.strip() }} {{ '\\n x'.lstrip('\\n') }}",
          "['a', 'b,c'] x  x");
    fails("{{ 1 + 'a' }}", "unsupported operand type(s) for +: 'int' and 'str'");
    fails("{{ 9223372036854775807 + 1 }}", "beyond 64 bits");
    fails("{{ 1 // 0 }}", "by zero");
}

static void undefined_prints_nothing_and_has_no_attributes(void **state) {
    (void)state;
    gives("[{{ nope }}{{ d.nope }}{{ l[9] }}] {{ nope is defined }} {{ nope or 'x' }} {{ nope|default('y') }}",
          "[] False x y");
    fails("a\n{{ nope.x }}", "t, line 2: 'nope' is undefined");
    fails("{{ d.nope.x }}", "'dict object' has no attribute 'nope'");
    fails("{{ nope + 1 }}", "'nope' is undefined");
    fails("{{ d.update({'x': 1}) }}", "access to attribute 'update' of 'dict' object is unsafe.");
}

static void scopes_end_with_their_block(void **state) {
    (void)state;
    gives("{% set x = 1 %}{% for i in l %}{% set x = i %}{% endfor %}{{ x }}{{ i is defined }}", "1False");
    gives("{% set ns = namespace(x=0) %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}", "6");
    gives("{% if true %}{% set x = 5 %}{% endif %}{{ x }}{% with x = 6 %}{{ x }}{% endwith %}{{ x }}", "565");
    gives("{% set x | upper %}a{% set y = 1 %}{% endset %}{{ x }}{{ y }}", "A");
    gives(
        "{% macro m(a, b='B') %}{{ a }}{{ b }}{{ later }}{% endmacro %}{% set later = '!' %}{{ m(1) }}{{ "
        "m(b=2, a=1) }}",
        "1B!12!");
    gives("{% macro m() %}<{{ caller(2) }}>{% endmacro %}{% call(x) m() %}{{ x }}{% endcall %}", "<2>");
}

static void a_name_set_later_hides_the_callers(void **state) {
    (void)state;
    gives("{% for i in l %}{{ n }}{% endfor %}{% set n = 1 %}|{{ n }}", "|1");
    gives("{% macro m() %}{{ n }}{% endmacro %}{{ m() }}{% set n = 1 %}{{ m() }}", "1");
    gives("{% set n %}{{ n }}x{% endset %}{{ n }}", "x");
    gives("{% for j in l %}{% for i in l if n %}{{ i }}{% endfor %}{% set n = 1 %}{% endfor %}", "");
    /* but not where the body reads it first, sets it under an if, or a body around it uses it */
    gives("{{ n }}{% for i in [1] %}{{ n }}{% endfor %}{% set n = 1 %}", "77");
    gives("{% for i in [1] %}{{ n }}{% endfor %}{% if n %}{% set n = 1 %}{% endif %}", "7");
    gives("{% for j in [1] %}{% for i in [1] %}{{ n }}{% endfor %}{% set n = 1 %}{% endfor %}{{ n }}", "77");
}

static void unknown_filters_fail_before_anything_runs(void **state) {
    (void)state;
    fails("{% for i in [] %}{{ i | nope }}{% endfor %}", "No filter named 'nope'.");
    fails("{% macro m() %}{{ 1 is nope }}{% endmacro %}", "No test named 'nope'.");
    fails("{% if 0 %}{% for i in l %}{{ i | nope }}{% endfor %}{% endif %}", "No filter named 'nope'.");
    gives("{% if 0 %}{{ n | nope }}{% elif n is defined %}y{% endif %}{{ n | nope if 0 }}", "y");
}

static void loops_know_their_place(void **state) {
    (void)state;
    gives("{% for i in l if i > 1 %}{{ loop.index }}{{ loop.length }}{{ loop.last }};{% endfor %}",
          "12False;22True;");
    gives("{% for k, v in d.items() %}{{ k }}{{ v }}{{ ',' if not loop.last }}{% endfor %}", "b1,a2");
    gives("{% for i in [] %}x{% else %}none{% endfor %}", "none");
    gives(
        "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i == 4 %}{% break %}{% endif %}{{ i }}{% "
        "endfor %}",
        "023");
    gives(
        "{% for i in [1, [2, [3]]] recursive %}{{ loop(i) if i is iterable else i }}{{ loop.depth }}{% endfor "
        "%}",
        "11223321");
    fails("{% for a, b in [[1]] %}{% endfor %}", "not enough values to unpack (expected 2, got 1)");
    fails("{% for i in none %}{% endfor %}", "'NoneType' object is not iterable");
}

static void filters_read_their_keywords(void **state) {
    (void)state;
    gives("{{ d|tojson }} {{ d|tojson(indent=1, sort_keys=true) }}",
          "{\"b\": 1, \"a\": 2} {\n \"a\": 2,\n \"b\": 1\n}");
    gives("{{ '\xC3\xA9<'|tojson }} {{ '\xC3\xA9'|tojson(ensure_ascii=true) }}", "\"\xC3\xA9<\" \"\\u00e9\"");
    gives("{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|list }}",
          "['h\xC3\xA9']");
    gives(
        "{{ l|sort(reverse=true)|join('-') }} {{ d|dictsort }} {{ l|sum }} {{ 'a\nb'|indent(2, first=true) }}",
        "3-2-1 [('a', 2), ('b', 1)] 6   a\n  b");
    fails("{{ l|nope }}", "No filter named 'nope'.");
    fails("{{ l is nope }}", "No test named 'nope'.");
    fails("{{ 'a'|replace('b') }}", "replace() missing required argument: 'new'");
}

static void an_iterator_is_read_once(void **state) {
    (void)state;
    gives("{% set g = l|select('odd') %}{{ g is sequence }}{{ g|list }}{{ g|list }}", "False[3, 1][]");
    fails("{{ l|select|length }}", "object of type 'generator' has no len()");
}

static void raise_exception_rejects_with_the_templates_own_words(void **state) {
    (void)state;
    tn_str out = {0};
    bool rejected = false;
    tn_status status = render("a{{ raise_exception('no ' ~ n) }}", &out, &rejected, NULL, NULL);
    must_fail(status, TN_BAD_DATA, "");
    assert_string_equal(tn_error_message(), "no 7");
    assert_true(rejected);
    must_fail(render("{{ nope.x }}", &out, &rejected, NULL, NULL), TN_BAD_DATA, "undefined");
    assert_false(rejected);
    tn_str_free(&out);
}

static void generation_blocks_report_their_bytes(void **state) {
    (void)state;
    tn_str out = {0};
    tn_text_range *ranges;
    int64_t count;
    must(
        render("\xC3\xA9{% for m in messages %}{{ m.role }}:{% if m.role == 'assistant' %}{% generation %}{{ "
               "m.content }}"
               "\n{% endgeneration %}{% endif %}{% endfor %}.",
               &out, NULL, &ranges, &count));
    assert_string_equal(out.data, "\xC3\xA9user:assistant:yo\n.");
    assert_int_equal(count, 1);
    assert_int_equal(ranges[0].start, 17);
    assert_int_equal(ranges[0].end, 20);
    free(ranges);
    tn_str_free(&out);
}

static void syntax_errors_name_the_line(void **state) {
    (void)state;
    fails("a\n\n{% if x %}", "t, line 3: Unexpected end of template. Jinja was looking for 'endif'.");
    fails("{{ 1 +\n }}", "line 2: expected an expression, got 'end of print statement'");
    fails("\n{% nope %}", "line 2: Encountered unknown tag 'nope'.");
    fails("{{ (1 }}", "unexpected '}', expected ')'");
    fails("{{ 'a }}", "unexpected char");
    fails("{% break %}", "'break' outside loop");
    fails("{{ namespace(missing) }}", "'missing' is undefined");
    fails("{# a", "Missing end of comment tag");
}

static void nesting_ends_in_an_error(void **state) {
    (void)state;
    fails_repeated("{{ ", "(", 100000, "", "brackets nest too deeply");
    fails_repeated("{{ ", "(", 900, "1", "nests too deeply");
    fails_repeated("{{ ", "-", 100000, "1 }}", "nests too deeply");
    fails_repeated("", "{% if n %}", 100000, "", "nests too deeply");
    fails_repeated("{{ 1", " if 1 else 1", 100000, " }}", "nests too deeply");
    fails_repeated("{{ n", " + 1", 100000, " }}", "maximum recursion depth");
    fails_repeated("{{ n", ".x", 100000, " }}", "maximum recursion depth");
    fails("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "maximum recursion depth");
    fails("{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns }}", "maximum recursion depth");
    fails(
        "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x == "
        "[ns.x] }}{{ ns.x|tojson }}",
        "maximum recursion depth");
    tn_str source = repeated("{{ ", "not ", 99999, "n }}");
    gives(source.data, "False");
    tn_str_free(&source);
    source = repeated("{% if 0 %}", "{% elif 0 %}", 20000, "{% else %}x{% endif %}");
    gives(source.data, "x");
    tn_str_free(&source);
}

static void work_and_memory_are_bounded(void **state) {
    (void)state;
    fails("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "steps");
    fails("{{ range(100001) }}", "Range too big");
    fails("{{ 'x' * 99999999999 }}", "longer than 64 MiB");
    fails("{{ '%99999999999d' % 1 }}", "too big");
    fails("{{ 'x'.center(99999999999) }}", "longer than 64 MiB");
    fails("{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
          "longer than 64 MiB");
    fails("{% set ns = namespace(x=[1, 2]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
          "the template ");
    fails(
        "{% set ns = namespace(x=[1]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ "
        "ns.x }}",
        "the template ");
    fails(
        "{% set ns = namespace(x=[1]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ "
        "ns.x == [ns.x[0], ns.x[1]] }}",
        "steps");
    fails("{% for i in range(9999) %}{{ s * 9999 }}{% endfor %}", "longer than 64 MiB");
}

/* ---- tn_chat ---- */

static const char tokenizer_json[] =
    "{\"added_tokens\": [{\"id\": 3, \"content\": \"<s>\", \"special\": true, \"normalized\": false},"
    " {\"id\": 4, \"content\": \"<e>\", \"special\": true, \"normalized\": false}], \"normalizer\": null, "
    "\"pre_tokenizer\": null,"
    " \"post_processor\": null, \"decoder\": null, \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": "
    "1, \"ab\": 2}, \"merges\": [\"a b\"]}}";

static const char *put(const char *name, const char *text) {
    return write_scratch(name, text, (int64_t)strlen(text));
}

static int clear_scratch(void **state) {
    (void)state;
    remove_scratch();
    must(tn_make_directories(scratch("")));
    return 0;
}

static tn_chat *open_scratch(void) {
    tn_chat *chat;
    put("tokenizer.json", tokenizer_json);
    must(tn_chat_open(scratch(""), &chat));
    return chat;
}

static void chat_gives(const tn_chat *chat, const char *record, const char *wanted) {
    tn_arena arena = {0};
    tn_str out = {0};
    const tn_json *root;
    must(tn_json_parse(&arena, record, (int64_t)strlen(record), 0, "record", &root));
    must(tn_chat_render(chat, root, &out, NULL, NULL, NULL));
    assert_string_equal(tn_str_text(&out), wanted);
    tn_str_free(&out);
    tn_arena_free(&arena);
}

static void special_tokens_become_variables(void **state) {
    (void)state;
    put("tokenizer_config.json",
        "{\"bos_token\": {\"content\": \"<s>\"}, \"eos_token\": \"<e>\", \"pad_token\": null, \"image_token\": "
        "\"<i>\", \"chat_template\":"
        " \"{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ image_token }}{{ pad_token is defined "
        "}}{{ unk_token }}"
        "{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}{{ x }}\"}");
    put("special_tokens_map.json", "{\"pad_token\": \"<p>\", \"unk_token\": \"b\", \"eos_token\": \"a\"}");
    tn_chat *chat = open_scratch();
    assert_int_equal(tn_chat_bos(chat), 3);
    assert_int_equal(tn_chat_eos(chat), 4);
    assert_int_equal(tn_chat_pad(chat), -1);
    chat_gives(chat, "{\"messages\": [{\"content\": \"hi\"}], \"kwargs\": {\"x\": 5, \"eos_token\": \"E\"}}",
               "<s>hiE<i>FalsebTrueTrueFalse5");
    tn_chat_free(chat);
}

static void a_list_of_templates_has_one_for_tools(void **state) {
    (void)state;
    put("tokenizer_config.json",
        "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"T{{ tools|length }}\"},"
        " {\"name\": \"default\", \"template\": \"D\"}]}");
    tn_chat *chat = open_scratch();
    assert_string_equal(tn_chat_template_source(chat), "D");
    chat_gives(chat, "{\"messages\": []}", "D");
    chat_gives(chat, "{\"messages\": [], \"tools\": [{}]}", "T1");
    must(tn_chat_save(chat, scratch("saved")));
    tn_chat_free(chat);
    must(tn_chat_open(scratch("saved"), &chat));
    chat_gives(chat, "{\"messages\": []}", "D");
    chat_gives(chat, "{\"messages\": [], \"tools\": [{}]}", "T1");
    tn_chat_free(chat);
}

static void the_jinja_file_wins(void **state) {
    (void)state;
    put("chat_template.json", "{\"chat_template\": \"json\"}");
    tn_chat *chat = open_scratch();
    chat_gives(chat, "{\"messages\": []}", "json");
    tn_chat_free(chat);
    put("tokenizer_config.json", "{\"chat_template\": \"config\"}");
    chat = open_scratch();
    chat_gives(chat, "{\"messages\": []}", "config");
    tn_chat_free(chat);
    put("chat_template.jinja", "jinja\n");
    chat = open_scratch();
    chat_gives(chat, "{\"messages\": []}", "jinja");
    assert_string_equal(tn_chat_template_source(chat), "jinja\n");
    tn_chat_free(chat);
}

static void saved_files_give_the_same_chat(void **state) {
    (void)state;
    char before[33], after[33];
    put("chat_template.jinja", "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}\n");
    put("special_tokens_map.json", "{\"bos_token\": \"<s>\", \"eos_token\": \"<e>\"}");
    tn_chat *chat = open_scratch();
    tn_chat_hash(chat, before);
    must(tn_chat_save(chat, scratch("saved")));
    must(tn_chat_save(chat, scratch(""))); /* onto itself, too */
    tn_chat_free(chat);
    must(tn_chat_open(scratch("saved/tokenizer.json"), &chat));
    tn_chat_hash(chat, after);
    assert_string_equal(before, after);
    assert_int_equal(tn_chat_eos(chat), 4);
    tn_chat_free(chat);
    put("chat_template.jinja", "{{ bos_token }}");
    chat = open_scratch();
    tn_chat_hash(chat, after);
    assert_string_not_equal(before, after);
    tn_chat_free(chat);
}

static void a_bad_template_fails_only_where_it_is_used(void **state) {
    (void)state;
    tn_arena arena = {0};
    tn_str out = {0};
    const tn_json *root;
    must(tn_json_parse(&arena, "{\"messages\": []}", 16, 0, "record", &root));
    tn_chat *chat = open_scratch();
    assert_false(tn_chat_has_template(chat));
    must_fail(tn_chat_render(chat, root, &out, NULL, NULL, NULL), TN_USAGE, "no chat template");
    tn_chat_free(chat);
    put("chat_template.jinja", "{% include 'x' %}");
    chat = open_scratch();
    must_fail(tn_chat_render(chat, root, &out, NULL, NULL, NULL), TN_BAD_DATA, "unknown tag 'include'");
    assert_true(tn_chat_template_broken(chat, root));
    tn_chat_free(chat);
    must_fail(tn_chat_open(scratch("absent"), &chat), TN_USAGE, "absent");
    assert_null(chat);
    tn_str_free(&out);
    tn_arena_free(&arena);
}

static void a_record_becomes_a_line(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"{\"text\": \"aba<e>\"}", "{\"ids\": [2, 0, 4], \"text\": \"aba<e>\"}"},
        {"{\"messages\": [{\"content\": \"ab\"}]}", "{\"ids\": [3, 2], \"text\": \"<s>ab\"}"},
        {"{\"messages\": []}", "{\"error\": \"empty\"}"},
    };
    tn_tokenizer *tokenizer;
    tn_doc *doc;
    put("tokenizer.json", tokenizer_json);
    put("tokenizer_config.json",
        "{\"bos_token\": \"<s>\", \"chat_template\":"
        " \"{{ bos_token ~ messages[0].content if messages else raise_exception('empty') }}\"}");
    must(tn_tokenizer_open(scratch(""), &tokenizer));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        must(tn_tokenize_record(tokenizer, cases[i][0], (int64_t)strlen(cases[i][0]), true, &doc));
        assert_string_equal(tn_doc_text(doc), cases[i][1]);
        tn_doc_free(doc);
    }
    must_fail(tn_tokenize_record(tokenizer, "{}", 2, true, &doc), TN_BAD_DATA,
              "needs \"text\" or \"messages\"");
    must_fail(tn_tokenize_record(tokenizer, "{", 1, true, &doc), TN_BAD_DATA, "record");
    tn_tokenizer_free(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(white_space_follows_trim_and_lstrip_blocks),
        cmocka_unit_test(expressions_follow_python),
        cmocka_unit_test(undefined_prints_nothing_and_has_no_attributes),
        cmocka_unit_test(scopes_end_with_their_block),
        cmocka_unit_test(a_name_set_later_hides_the_callers),
        cmocka_unit_test(unknown_filters_fail_before_anything_runs),
        cmocka_unit_test(loops_know_their_place),
        cmocka_unit_test(filters_read_their_keywords),
        cmocka_unit_test(an_iterator_is_read_once),
        cmocka_unit_test(raise_exception_rejects_with_the_templates_own_words),
        cmocka_unit_test(generation_blocks_report_their_bytes),
        cmocka_unit_test(syntax_errors_name_the_line),
        cmocka_unit_test(nesting_ends_in_an_error),
        cmocka_unit_test(work_and_memory_are_bounded),
        cmocka_unit_test_setup_teardown(special_tokens_become_variables, clear_scratch, clear_scratch),
        cmocka_unit_test_setup_teardown(a_list_of_templates_has_one_for_tools, clear_scratch, clear_scratch),
        cmocka_unit_test_setup_teardown(the_jinja_file_wins, clear_scratch, clear_scratch),
        cmocka_unit_test_setup_teardown(saved_files_give_the_same_chat, clear_scratch, clear_scratch),
        cmocka_unit_test_setup_teardown(a_bad_template_fails_only_where_it_is_used, clear_scratch,
                                        clear_scratch),
        cmocka_unit_test_setup_teardown(a_record_becomes_a_line, clear_scratch, clear_scratch),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_scratch();
    return failed;
}
