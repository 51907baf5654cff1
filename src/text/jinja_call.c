/* jinja_call.c: the bounds of a rendering, its error messages, and the binding of arguments to our
 * filters, methods and functions. */
#include <stdio.h>
#include <string.h>

#include "text/jinja_run.h"

/* ---- Bounds and messages ---- */

tn_status jinja_fail(jinja_run *run, const char *format, ...) {
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return tn_fail(TN_BAD_DATA, "%s, line %d: %s", run->name, run->line, message);
}

/* Jinja's words: "'x' is undefined", "'dict object' has no attribute 'x'", "list object has no element 3". */
tn_status jinja_fail_undefined(jinja_run *run, const jinja_value *value) {
    const jinja_undefined *undefined = value->undefined;
    tn_str name = {0};
    tn_status status = TN_OK;
    if (undefined->hint) return jinja_fail(run, "%s", undefined->hint);
    TN_TRY(jinja_repr(run, undefined->name, &name));
    if (!undefined->owner) status = jinja_fail(run, "%s is undefined", tn_str_text(&name));
    else if (undefined->name->kind == JINJA_STRING)
        status = jinja_fail(run, "'%s' has no attribute %s", undefined->owner, tn_str_text(&name));
    else status = jinja_fail(run, "%s has no element %s", undefined->owner, tn_str_text(&name));
done:
    tn_str_free(&name);
    return status;
}

tn_status jinja_step(jinja_run *run, int64_t count) {
    run->steps += count;
    if (run->steps <= JINJA_MAX_STEPS) return TN_OK;
    return jinja_fail(run, "the template runs for more than %d steps", JINJA_MAX_STEPS);
}

tn_status jinja_enter(jinja_run *run) {
    if (run->depth >= JINJA_MAX_DEPTH) return jinja_fail(run, "maximum recursion depth exceeded");
    run->depth++;
    return TN_OK;
}

tn_status jinja_take(jinja_run *run, void *pointer, int64_t count, int64_t bytes) {
    int64_t total;
    if (!tn_mul(count, bytes, &total) || total > JINJA_MAX_MEMORY - run->arena.bytes)
        return jinja_fail(run, "the template takes more than %d MiB", (int)(JINJA_MAX_MEMORY >> 20));
    void *taken = tn_arena_take(&run->arena, total > 0 ? total : 1);
    memcpy(pointer, &taken, sizeof taken);
    return taken ? TN_OK : tn_fail_memory(total, "template values");
}

/* ---- Arguments ---- */

tn_status jinja_argument_integer(jinja_run *run, const jinja_value *argument, int64_t otherwise, int64_t *out) {
    *out = otherwise;
    if (argument->kind == JINJA_MISSING || argument->kind == JINJA_NONE) return TN_OK;
    if (!jinja_is_integer(argument))
        return jinja_fail(run, "'%s' object cannot be interpreted as an integer", jinja_type_name(argument));
    *out = jinja_integer(argument);
    return TN_OK;
}

tn_status jinja_argument_text(jinja_run *run, const jinja_value *argument, const char *what,
                              const jinja_string **out) {
    if (argument->kind != JINJA_STRING)
        return jinja_fail(run, "%s: a str is wanted, not %s", what, jinja_type_name(argument));
    *out = argument->string;
    return TN_OK;
}

typedef struct parameter {
    const char *name;
    int64_t length;
    bool optional;
} parameter;

static int read_parameters(const char *text, parameter parameters[JINJA_MAX_PARAMETERS]) {
    int count = 0;
    while (*text) {
        parameter *p = &parameters[count++];
        p->optional = *text == '?';
        p->name = text + p->optional;
        p->length = (int64_t)strcspn(p->name, " ");
        text = p->name + p->length;
        if (*text == ' ') text++;
    }
    return count;
}

static tn_status bind(jinja_run *run, const jinja_builtin *builtin, const jinja_call *call,
                      jinja_value *arguments) {
    parameter parameters[JINJA_MAX_PARAMETERS];
    int count = read_parameters(builtin->parameters, parameters);
    if (call->count > count)
        return jinja_fail(run, "%s() takes %d argument(s) but %lld were given", builtin->name, count,
                          (long long)call->count);
    for (int i = 0; i < count; i++) arguments[i] = i < call->count ? call->positional[i] : (jinja_value){0};
    for (int64_t i = 0; i < call->keyword_count; i++) {
        const jinja_string *key = call->keywords[i].key.string;
        int at = 0;
        while (at < count && (parameters[at].length != key->length ||
                              memcmp(parameters[at].name, key->data, (size_t)key->length) != 0))
            at++;
        if (at >= count || arguments[at].kind != JINJA_MISSING)
            return jinja_fail(run, "%s() got %s argument '%.*s'", builtin->name,
                              at == count ? "an unexpected keyword" : "multiple values for", (int)key->length,
                              key->data);
        arguments[at] = call->keywords[i].value;
    }
    for (int i = 0; i < count; i++)
        if (arguments[i].kind == JINJA_MISSING && !parameters[i].optional)
            return jinja_fail(run, "%s() missing required argument: '%.*s'", builtin->name,
                              (int)parameters[i].length, parameters[i].name);
    return TN_OK;
}

tn_status jinja_invoke_builtin(jinja_run *run, const jinja_builtin *builtin, const jinja_value *self,
                               const jinja_call *call, jinja_value *out) {
    tn_status status = TN_OK;
    jinja_value arguments[JINJA_MAX_PARAMETERS];
    int64_t bytes = self && self->kind == JINJA_STRING ? self->string->length : 0;
    TN_TRY(jinja_step(run, 1 + bytes / 64));
    if (strcmp(builtin->parameters, "*") != 0) TN_TRY(bind(run, builtin, call, arguments));
    TN_TRY(builtin->native(run, self, arguments, call, out));
done:
    return status;
}

static tn_status call_joiner(jinja_run *run, jinja_joiner *joiner, jinja_value *out) {
    if (joiner->used) *out = joiner->separator;
    bool first = !joiner->used;
    joiner->used = true;
    return first ? jinja_make_view(run, "", 0, out) : TN_OK;
}

tn_status jinja_invoke(jinja_run *run, const jinja_value *callee, const jinja_call *call, jinja_value *out) {
    switch (callee->kind) {
        case JINJA_FUNCTION: return jinja_invoke_builtin(run, callee->function, NULL, call, out);
        case JINJA_METHOD:
            return jinja_invoke_builtin(run, callee->method->builtin, &callee->method->self, call, out);
        case JINJA_MACRO: return jinja_call_macro(run, callee->macro, call, out);
        case JINJA_JOINER: return call_joiner(run, callee->joiner, out);
        case JINJA_UNDEFINED: return jinja_fail_undefined(run, callee);
        case JINJA_LOOP:
            if (call->count != 1) return jinja_fail(run, "loop() takes the items to loop over");
            return jinja_recurse(run, callee->loop, &call->positional[0], out);
        default: return jinja_fail(run, "'%s' object is not callable", jinja_type_name(callee));
    }
}

const jinja_builtin *jinja_find(const jinja_builtin *table, const char *name, int64_t length) {
    for (; table->name; table++)
        if (strlen(table->name) == (size_t)length && memcmp(table->name, name, (size_t)length) == 0)
            return table;
    return NULL;
}
