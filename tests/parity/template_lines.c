/* template_lines.c: the other side of fuzz_templates.py. Reads {"template": …, "variables": {…}} lines and
 * answers each with {"text": …, "ranges": [[start, end], …]} or {"error": …, "rejected": …}. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/template.h"

static void answer(const char *line, int64_t length, tn_str *out) {
    tn_arena arena = {0};
    const tn_json *record;
    tn_template *compiled = NULL;
    tn_str text = {0};
    tn_text_range *ranges = NULL;
    int64_t count = 0;
    bool rejected = false;
    tn_json_writer w = tn_json_write_to(out, 0);
    tn_status status = tn_json_parse(&arena, line, length, TN_JSON_EXTENSIONS, "line", &record);
    if (status == TN_OK) {
        const tn_json *source = tn_json_get(record, "template");
        status = tn_template_compile(source->string, source->count, "template", &compiled);
    }
    if (status == TN_OK)
        status =
            tn_template_render(compiled, tn_json_get(record, "variables"), &text, &rejected, &ranges, &count);
    tn_json_begin(&w, '{');
    if (status == TN_OK) {
        tn_json_key(&w, "text");
        tn_json_put_string(&w, tn_str_text(&text), text.length);
        tn_json_key(&w, "ranges");
        tn_json_begin(&w, '[');
        for (int64_t i = 0; i < count; i++) {
            tn_json_begin(&w, '[');
            tn_json_put_integer(&w, ranges[i].start);
            tn_json_put_integer(&w, ranges[i].end);
            tn_json_end(&w, ']');
        }
        tn_json_end(&w, ']');
    } else {
        tn_json_string_member(&w, "error", tn_error_message());
        tn_json_boolean_member(&w, "rejected", rejected);
    }
    tn_json_end(&w, '}');
    free(ranges);
    tn_str_free(&text);
    tn_template_free(compiled);
    tn_arena_free(&arena);
}

int main(void) {
    char *line = NULL;
    size_t room = 0;
    for (ssize_t length; (length = getline(&line, &room, stdin)) > 0;) {
        tn_str out = {0};
        answer(line, length, &out);
        puts(tn_str_text(&out));
        tn_str_free(&out);
    }
    free(line);
    return 0;
}
