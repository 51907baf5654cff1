/* fuzz_template.c: arbitrary template source over fixed variables. Whatever a template does, compiling and
 * rendering it ends in a text or an error, within the engine's bounds; generation ranges lie inside the text.
 *   clang -fsanitize=fuzzer,address,undefined … tests/fuzz/fuzz_template.c */
#include <stdlib.h>
#include <string.h>

#include "text/template.h"

static const char variables_text[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \"Be \\u00e9.\"}, {\"role\": \"user\", \"content\": "
    "\"a b\\n c\"},"
    " {\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"function\": {\"name\": \"f\", "
    "\"arguments\": {\"x\": 1.5}}}]}],"
    " \"tools\": [{\"name\": \"f\", \"n\": 12345678901234567890123}], \"bos_token\": \"<s>\", "
    "\"add_generation_prompt\": true,"
    " \"n\": 3, \"x\": -0.5, \"s\": \"\\ud83d\\ude00 text\", \"l\": [3, 1, 2], \"d\": {\"b\": 1, \"a\": [2]}}";

static const tn_json *variables(void) {
    static tn_arena arena;
    static const tn_json *root;
    if (!root &&
        tn_json_parse(&arena, variables_text, (int64_t)strlen(variables_text), 0, "variables", &root) != TN_OK)
        abort();
    return root;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tn_template *compiled;
    tn_str text = {0};
    tn_text_range *ranges = NULL;
    int64_t count = 0;
    if (tn_template_compile((const char *)data, (int64_t)size, "fuzz", &compiled) != TN_OK) return 0;
    if (tn_template_render(compiled, variables(), &text, NULL, &ranges, &count) == TN_OK) {
        if (!tn_utf8_valid(tn_str_text(&text), text.length)) abort();
        for (int64_t i = 0; i < count; i++)
            if (ranges[i].start < 0 || ranges[i].end < ranges[i].start || ranges[i].end > text.length) abort();
    }
    free(ranges);
    tn_str_free(&text);
    tn_template_free(compiled);
    return 0;
}
