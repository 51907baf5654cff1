/* template.c: the public face of the template engine: compile once, render often, from any thread.
 * A rendering has an arena of its own, freed with it; the compiled tree is never written to.
 */
#include "text/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja_run.h"

enum { LONGEST_TEMPLATE = 4 << 20 };

struct tn_template {
    tn_arena arena;
    const char *name;
    const jinja_node *body;
    jinja_names names;
    bool has_time; /* `now` was set */
    struct tm now;
};

tn_status jinja_fail_at(const jinja_source *source, int line, const char *format, ...) {
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return tn_fail(TN_BAD_DATA, "%s, line %d: %s", source->name, line, message);
}

/* Makes every line end \n and drops the last one, as Jinja does before it reads. */
static void normalize_newlines(jinja_source *source, char *copy, const char *text, int64_t length) {
    int64_t used = 0;
    for (int64_t i = 0; i < length; i++) {
        if (text[i] == '\r' && i + 1 < length && text[i + 1] == '\n') continue;
        copy[used++] = text[i] == '\r' ? '\n' : text[i];
    }
    if (used > 0 && copy[used - 1] == '\n') used--;
    source->text = copy, source->length = used;
}

static tn_status intern_names(jinja_source *source, jinja_names *names) {
    names->loop = jinja_intern(source, "loop", 4);
    names->caller = jinja_intern(source, "caller", 6);
    names->varargs = jinja_intern(source, "varargs", 7);
    names->kwargs = jinja_intern(source, "kwargs", 6);
    bool all = names->loop && names->caller && names->varargs && names->kwargs;
    return all ? TN_OK : tn_fail_memory(64, "template names");
}

tn_status tn_template_compile(const char *source, int64_t length, const char *name, tn_template **compiled) {
    tn_status status = TN_OK;
    jinja_source input = {0};
    jinja_token *tokens = NULL;
    tn_template *result = NULL;
    int64_t count = 0;
    *compiled = NULL;
    if (length > LONGEST_TEMPLATE)
        TN_THROW(TN_BAD_DATA, "%s: a chat template of %lld bytes", name, (long long)length);
    if (!tn_utf8_valid(source, length)) TN_THROW(TN_BAD_DATA, "%s: the chat template is not UTF-8", name);
    TN_TRY(tn_alloc(&result, 1, sizeof *result, "chat template"));
    char *copy = tn_arena_take(&result->arena, length + 1);
    result->name = tn_arena_text(&result->arena, name, (int64_t)strlen(name));
    if (!copy || !result->name) TN_THROW(TN_FAILED, "out of memory for a chat template");
    input.arena = &result->arena, input.name = result->name;
    normalize_newlines(&input, copy, source, length);
    TN_TRY(intern_names(&input, &result->names));
    TN_TRY(jinja_lex(&input, &tokens, &count));
    TN_TRY(jinja_parse(&input, tokens, &result->body));
    TN_TRY(jinja_settle_names(&input, &result->body));
    *compiled = result;
    result = NULL;
done:
    free(tokens);
    free(input.interned);
    tn_template_free(result);
    return status;
}

void tn_template_free(tn_template *compiled) {
    if (!compiled) return;
    tn_arena_free(&compiled->arena);
    free(compiled);
}

void tn_template_set_time(tn_template *compiled, const struct tm *now) {
    compiled->now = *now;
    compiled->has_time = true;
}

tn_status tn_template_render(const tn_template *compiled, const tn_json *variables, tn_str *out, bool *rejected,
                             tn_text_range **ranges, int64_t *count) {
    tn_status status = TN_OK;
    /* Apart from what `out` holds already, so that ranges count from 0 and a failure leaves it. */
    tn_str text = {0};
    jinja_run run = {.name = compiled->name, .names = &compiled->names, .line = 1, .out = &text, .root = &text};
    jinja_value values;
    if (compiled->has_time) run.now = &compiled->now;
    if (rejected) *rejected = false;
    if (ranges) *ranges = NULL, *count = 0;
    if (variables && variables->type != TN_JSON_OBJECT)
        TN_THROW(TN_BAD_DATA, "%s: the variables of a template are an object", compiled->name);
    if (variables) TN_TRY(jinja_make_json(&run, variables, &values));
    else TN_TRY(jinja_make_dict(&run, &values));
    run.variables = values.dict;
    TN_TRY(jinja_open_scope(&run, NULL));
    TN_TRY(jinja_exec(&run, compiled->body));
    tn_str_add(out, text.data, text.length);
    TN_TRY(tn_str_check(out, "rendered chat"));
    if (ranges) {
        for (int64_t i = 0; i < run.range_count; i++) { /* a captured block may never have been printed */
            if (run.ranges[i].start > text.length) run.ranges[i].start = text.length;
            if (run.ranges[i].end > text.length) run.ranges[i].end = text.length;
        }
        *ranges = run.ranges, *count = run.range_count;
        run.ranges = NULL;
    }
done:
    if (rejected) *rejected = run.rejected;
    tn_str_free(&text);
    free(run.ranges);
    tn_arena_free(&run.arena);
    return status;
}
