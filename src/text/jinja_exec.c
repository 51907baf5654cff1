/* jinja_exec.c: statements, scopes and macros.
 *
 * A loop's iteration, a macro, a with, filter, set or generation block has a scope of its own, an if has
 * none; what is set in a scope ends with it (only a namespace survives). Break and continue travel as
 * run->flow.
 */
#include <string.h>

#include "text/jinja_run.h"

/* ---- Scopes ---- */

tn_status jinja_open_scope(jinja_run *run, jinja_scope *parent) {
    jinja_scope *scope;
    tn_status status = jinja_take(run, &scope, 1, sizeof *scope);
    if (status != TN_OK) return status;
    scope->parent = parent;
    run->scope = scope;
    return TN_OK;
}

tn_status jinja_set(jinja_run *run, const char *name, jinja_value value) {
    tn_status status = TN_OK;
    jinja_scope *scope = run->scope;
    for (int64_t i = 0; i < scope->count; i++)
        if (scope->variables[i].name == name) {
            scope->variables[i].value = value;
            return TN_OK;
        }
    if (scope->count == scope->capacity) {
        int64_t capacity = scope->capacity ? scope->capacity * 2 : 4;
        jinja_variable *variables;
        TN_TRY(jinja_take(run, &variables, capacity, sizeof *variables));
        if (scope->count > 0) memcpy(variables, scope->variables, (size_t)scope->count * sizeof *variables);
        scope->variables = variables, scope->capacity = capacity;
    }
    TN_TRY(jinja_step(run, scope->count / 16));
    scope->variables[scope->count++] = (jinja_variable){name, value};
done:
    return status;
}

static tn_status assign_attribute(jinja_run *run, const jinja_node *target, const jinja_value *value) {
    tn_status status = TN_OK;
    jinja_node name = {.kind = JINJA_N_NAME, .line = target->line, .name = target->name};
    jinja_value namespace, key;
    TN_TRY(jinja_eval(run, &name, &namespace));
    if (namespace.kind != JINJA_NAMESPACE)
        return jinja_fail(run, "cannot assign attribute on non-namespace object");
    if (target->text[0] == '_')
        return jinja_fail(run, "a namespace cannot hold an attribute with a leading underscore");
    TN_TRY(jinja_make_view(run, target->text, (int64_t)strlen(target->text), &key));
    TN_TRY(jinja_dict_set(run, namespace.dict, key, *value));
done:
    return status;
}

tn_status jinja_assign(jinja_run *run, const jinja_node *target, const jinja_value *value) {
    tn_status status = TN_OK;
    jinja_list items;
    if (target->kind == JINJA_N_NAME) return jinja_set(run, target->name, *value);
    if (target->kind == JINJA_N_NAMESPACE_ATTRIBUTE) return assign_attribute(run, target, value);
    TN_TRY(jinja_iterate(run, value, &items));
    if (items.count < target->count)
        return jinja_fail(run, "not enough values to unpack (expected %lld, got %lld)",
                          (long long)target->count, (long long)items.count);
    if (items.count > target->count)
        return jinja_fail(run, "too many values to unpack (expected %lld)", (long long)target->count);
    for (int64_t i = 0; i < target->count; i++) TN_TRY(jinja_assign(run, target->items[i], &items.items[i]));
done:
    return status;
}

/* ---- Output ---- */

static tn_status check_output(jinja_run *run) {
    return run->out->failed ? jinja_fail(run, "the output is longer than %d MiB", JINJA_MAX_TEXT >> 20) : TN_OK;
}

static tn_status print(jinja_run *run, const jinja_value *value) {
    tn_status status = jinja_str(run, value, run->out);
    return status == TN_OK ? check_output(run) : status;
}

/* Runs a body in a scope inside `parent`, its output into a value. */
static tn_status capture(jinja_run *run, const jinja_node *body, jinja_scope *parent, jinja_value *out) {
    tn_str text = {0}, *outer = run->out;
    jinja_scope *scope = run->scope;
    run->out = &text;
    tn_status status = jinja_open_scope(run, parent);
    if (status == TN_OK) status = jinja_exec(run, body);
    run->out = outer;
    run->scope = scope;
    if (status == TN_OK) status = jinja_make_from(run, &text, out);
    tn_str_free(&text);
    return status;
}

/* ---- Loops ---- */

tn_status jinja_loop_read(jinja_run *run, jinja_loop *loop, int64_t count) {
    tn_status status = TN_OK;
    const jinja_node *node = loop->node;
    jinja_scope *scope = run->scope;
    jinja_value holds,
        *items = (jinja_value *)loop->list.items; /* a list of the loop's own where there is a test */
    while (loop->list.count < count && loop->source_next < loop->source.count) {
        const jinja_value *item = &loop->source.items[loop->source_next++];
        TN_TRY(jinja_open_scope(run, loop->scope));
        TN_TRY(jinja_assign(run, node->a, item));
        TN_TRY(jinja_eval(run, node->c, &holds));
        run->scope = scope;
        if (jinja_truth(&holds)) items[loop->list.count++] = *item;
    }
done:
    return status;
}

static tn_status start_loop(jinja_run *run, const jinja_node *node, const jinja_value *iterable,
                            jinja_loop *loop) {
    tn_status status = TN_OK;
    jinja_list items;
    jinja_value *passed;
    TN_TRY(jinja_iterate(run, iterable, &items));
    loop->node = node;
    loop->list = items;
    if (!node->c) goto done;
    TN_TRY(jinja_take(run, &passed, items.count, sizeof *passed));
    loop->source = items;
    loop->list = (jinja_list){passed, 0};
done:
    return status;
}

static tn_status loop_body(jinja_run *run, const jinja_node *node, jinja_loop *loop, jinja_scope *outer) {
    tn_status status = TN_OK;
    TN_TRY(jinja_open_scope(run, outer));
    for (;; loop->index0++) {
        TN_TRY(jinja_loop_read(run, loop, loop->index0 + 1));
        if (loop->index0 >= loop->list.count) break;
        if (run->scope->captured) TN_TRY(jinja_open_scope(run, outer));
        run->scope->count = 0; /* every iteration starts anew */
        TN_TRY(jinja_step(run, 1));
        TN_TRY(jinja_set(run, run->names->loop, (jinja_value){.kind = JINJA_LOOP, .loop = loop}));
        TN_TRY(jinja_assign(run, node->a, &loop->list.items[loop->index0]));
        TN_TRY(jinja_exec(run, node->body));
        bool leave = run->flow == JINJA_BREAK;
        run->flow = JINJA_ONWARD;
        if (leave) goto done;
    }
    if (loop->list.count > 0 || !node->otherwise) goto done;
    TN_TRY(jinja_open_scope(run, outer));
    TN_TRY(jinja_exec(run, node->otherwise));
done:
    run->scope = outer;
    return status;
}

static tn_status exec_for(jinja_run *run, const jinja_node *node) {
    tn_status status = TN_OK;
    jinja_value iterable;
    jinja_loop *loop;
    TN_TRY(jinja_eval(run, node->b, &iterable));
    TN_TRY(jinja_take(run, &loop, 1, sizeof *loop));
    loop->scope = run->scope;
    TN_TRY(start_loop(run, node, &iterable, loop));
    TN_TRY(loop_body(run, node, loop, run->scope));
done:
    return status;
}

tn_status jinja_recurse(jinja_run *run, const jinja_loop *loop, const jinja_value *items, jinja_value *out) {
    tn_status status = TN_OK;
    const jinja_node *node = loop->node;
    tn_str text = {0}, *outer = run->out;
    jinja_scope *scope = run->scope;
    jinja_loop *inner;
    if (!node->flag)
        return jinja_fail(run, "The loop must have the 'recursive' marker to be called recursively.");
    TN_TRY(jinja_enter(run));
    TN_TRY(jinja_take(run, &inner, 1, sizeof *inner));
    inner->depth0 = loop->depth0 + 1;
    inner->scope = loop->scope;
    TN_TRY(start_loop(run, node, items, inner));
    run->out = &text;
    status = loop_body(run, node, inner, loop->scope);
    run->out = outer;
    run->scope = scope;
    if (status == TN_OK) status = jinja_make_from(run, &text, out);
    run->depth--;
done:
    tn_str_free(&text);
    return status;
}

/* ---- Macros ---- */

static tn_status make_macro(jinja_run *run, const jinja_node *node, jinja_value *out) {
    jinja_macro *macro;
    tn_status status = jinja_take(run, &macro, 1, sizeof *macro);
    if (status != TN_OK) return status;
    *macro = (jinja_macro){node, run->scope};
    for (jinja_scope *scope = run->scope; scope && !scope->captured; scope = scope->parent)
        scope->captured = true;
    *out = (jinja_value){.kind = JINJA_MACRO, .macro = macro};
    return TN_OK;
}

/* Parameter `index`: given by position, by keyword, by default, or undefined. */
static tn_status set_parameter(jinja_run *run, const jinja_signature *signature, int64_t index,
                               const jinja_call *call, jinja_value *rest) {
    tn_status status = TN_OK;
    const char *name = signature->names[index];
    jinja_value value, key;
    jinja_value *given = jinja_dict_find(rest->dict, name, (int64_t)strlen(name));
    if (index < call->count) {
        value = call->positional[index];
        if (given)
            return jinja_fail(run, "macro takes no keyword argument '%s': it was given by position", name);
    } else if (given && given->kind != JINJA_MISSING) {
        value = *given;
        given->kind = JINJA_MISSING; /* taken */
    } else {
        TN_TRY(jinja_make_view(run, name, (int64_t)strlen(name), &key));
        TN_TRY(jinja_make_undefined(run, NULL, NULL, &key, &value));
        TN_TRY(jinja_set(run, name, value)); /* a default that names its own parameter finds it undefined */
        if (signature->defaults[index]) TN_TRY(jinja_eval(run, signature->defaults[index], &value));
    }
    TN_TRY(jinja_set(run, name, value));
done:
    return status;
}

/* What no parameter took: kwargs, varargs and caller, where the macro's body names them. */
static tn_status set_extras(jinja_run *run, const jinja_node *node, const jinja_call *call, jinja_value *rest) {
    tn_status status = TN_OK;
    const jinja_signature *signature = node->signature;
    const char *name = node->name ? node->name : "caller";
    jinja_value kwargs, value;
    jinja_value *caller = signature->uses_caller ? jinja_dict_find(rest->dict, "caller", 6) : NULL;
    if (signature->uses_caller) {
        bool given = caller && caller->kind != JINJA_MISSING;
        if (given) value = *caller, caller->kind = JINJA_MISSING;
        else TN_TRY(jinja_make_undefined(run, "No caller defined", NULL, NULL, &value));
        if (given || !caller) TN_TRY(jinja_set(run, run->names->caller, value));
    }
    TN_TRY(jinja_make_dict(run, &kwargs));
    for (int64_t i = 0; i < rest->dict->count; i++) {
        const jinja_pair *pair = &rest->dict->pairs[i];
        if (pair->value.kind == JINJA_MISSING) continue;
        if (!signature->uses_kwargs)
            return jinja_fail(run, "macro '%s' takes no keyword argument '%.*s'", name,
                              (int)pair->key.string->length, pair->key.string->data);
        TN_TRY(jinja_dict_set(run, kwargs.dict, pair->key, pair->value));
    }
    if (signature->uses_kwargs) TN_TRY(jinja_set(run, run->names->kwargs, kwargs));
    int64_t extra = call->count > signature->count ? call->count - signature->count : 0;
    if (extra > 0 && !signature->uses_varargs)
        return jinja_fail(run, "macro '%s' takes not more than %lld argument(s)", name,
                          (long long)signature->count);
    if (!signature->uses_varargs) goto done;
    TN_TRY(jinja_make_list(run, JINJA_TUPLE, extra > 0 ? call->positional + signature->count : NULL, extra,
                           &value));
    TN_TRY(jinja_set(run, run->names->varargs, value));
done:
    return status;
}

tn_status jinja_call_macro(jinja_run *run, const jinja_macro *macro, const jinja_call *call, jinja_value *out) {
    tn_status status = TN_OK;
    const jinja_signature *signature = macro->node->signature;
    jinja_scope *scope = run->scope;
    jinja_value rest;
    TN_TRY(jinja_enter(run));
    TN_TRY(jinja_make_dict(run, &rest));
    for (int64_t i = 0; i < call->keyword_count; i++)
        TN_TRY(jinja_dict_set(run, rest.dict, call->keywords[i].key, call->keywords[i].value));
    TN_TRY(jinja_open_scope(run, macro->scope));
    for (int64_t i = 0; i < signature->count; i++) TN_TRY(set_parameter(run, signature, i, call, &rest));
    TN_TRY(set_extras(run, macro->node, call, &rest));
    TN_TRY(capture(run, macro->node->body, run->scope, out));
    run->depth--;
done:
    run->scope = scope;
    return status;
}

static tn_status exec_call_block(jinja_run *run, const jinja_node *node) {
    tn_status status = TN_OK;
    jinja_value callee, caller, name, result;
    jinja_call call;
    TN_TRY(jinja_eval(run, node->a->a, &callee));
    TN_TRY(jinja_eval_call(run, node->a->arguments, &call));
    TN_TRY(make_macro(run, node, &caller));
    TN_TRY(jinja_make_view(run, "caller", 6, &name));
    ((jinja_pair *)call.keywords)[call.keyword_count++] =
        (jinja_pair){name, caller}; /* jinja_eval_call left room */
    TN_TRY(jinja_invoke(run, &callee, &call, &result));
    TN_TRY(print(run, &result));
done:
    return status;
}

/* ---- The other statements ---- */

static tn_status exec_set(jinja_run *run, const jinja_node *node) {
    tn_status status = TN_OK;
    jinja_value value;
    if (node->kind == JINJA_N_SET_BLOCK) {
        TN_TRY(capture(run, node->body, run->scope, &value));
        run->block_text = value;
    }
    if (node->b) TN_TRY(jinja_eval(run, node->b, &value));
    TN_TRY(jinja_assign(run, node->a, &value));
done:
    return status;
}

static tn_status exec_filter_block(jinja_run *run, const jinja_node *node) {
    tn_status status = TN_OK;
    jinja_value value;
    TN_TRY(capture(run, node->body, run->scope, &run->block_text));
    TN_TRY(jinja_eval(run, node->a, &value));
    TN_TRY(print(run, &value));
done:
    return status;
}

static tn_status exec_with(jinja_run *run, const jinja_node *node) {
    tn_status status = TN_OK;
    jinja_scope *outer = run->scope;
    jinja_value *values;
    TN_TRY(jinja_take(run, &values, node->count / 2, sizeof *values));
    for (int64_t i = 0; i < node->count / 2; i++) TN_TRY(jinja_eval(run, node->items[2 * i + 1], &values[i]));
    TN_TRY(jinja_open_scope(run, outer));
    for (int64_t i = 0; i < node->count / 2; i++) TN_TRY(jinja_assign(run, node->items[2 * i], &values[i]));
    TN_TRY(jinja_exec(run, node->body));
done:
    run->scope = outer;
    return status;
}

/* Its place in the rendering is noted, as transformers does: from the length of what had been rendered when the
 * outermost such block began. */
static tn_status exec_generation(jinja_run *run, const jinja_node *node) {
    tn_status status = TN_OK;
    jinja_scope *outer = run->scope;
    int64_t before = run->out->length;
    if (run->generations++ == 0) run->generation_start = run->root->length;
    TN_TRY(jinja_open_scope(run, outer));
    TN_TRY(jinja_exec(run, node->body));
    run->generations--;
    int64_t start = run->generation_start;
    TN_TRY(tn_grow(&run->ranges, &run->range_capacity, run->range_count + 1, sizeof *run->ranges,
                   "generation ranges"));
    run->ranges[run->range_count++] = (tn_text_range){start, start + run->out->length - before};
done:
    run->scope = outer;
    return status;
}

static tn_status exec_if(jinja_run *run, const jinja_node *node) {
    tn_status status = TN_OK;
    jinja_value condition;
    for (; node; node = node->otherwise) { /* an elif is an IF alone in `otherwise` */
        TN_TRY(jinja_eval(run, node->a, &condition));
        if (jinja_truth(&condition)) return jinja_exec(run, node->body);
        if (!node->otherwise || node->otherwise->kind != JINJA_N_IF || node->otherwise->next) break;
    }
    if (node && node->otherwise) TN_TRY(jinja_exec(run, node->otherwise));
done:
    return status;
}

static tn_status exec_output(jinja_run *run, const jinja_node *node) {
    jinja_value value;
    tn_status status = jinja_eval(run, node->a, &value);
    return status == TN_OK ? print(run, &value) : status;
}

static tn_status exec_macro(jinja_run *run, const jinja_node *node) {
    jinja_value macro;
    tn_status status = make_macro(run, node, &macro);
    return status == TN_OK ? jinja_set(run, node->name, macro) : status;
}

static tn_status exec_hide(jinja_run *run, const jinja_node *node) {
    tn_status status = TN_OK;
    for (int64_t i = 0; i < node->count && status == TN_OK; i++)
        status = jinja_set(run, node->operators[i], (jinja_value){.kind = JINJA_MISSING});
    return status;
}

static tn_status exec(jinja_run *run, const jinja_node *node) {
    switch (node->kind) {
        case JINJA_N_DATA: jinja_put(run->out, node->text, node->length); return check_output(run);
        case JINJA_N_OUTPUT: return exec_output(run, node);
        case JINJA_N_FOR: return exec_for(run, node);
        case JINJA_N_IF: return exec_if(run, node);
        case JINJA_N_SET:
        case JINJA_N_SET_BLOCK: return exec_set(run, node);
        case JINJA_N_MACRO: return exec_macro(run, node);
        case JINJA_N_CALL_BLOCK: return exec_call_block(run, node);
        case JINJA_N_FILTER_BLOCK: return exec_filter_block(run, node);
        case JINJA_N_WITH: return exec_with(run, node);
        case JINJA_N_GENERATION: return exec_generation(run, node);
        case JINJA_N_BREAK: run->flow = JINJA_BREAK; return TN_OK;
        case JINJA_N_CONTINUE: run->flow = JINJA_CONTINUE; return TN_OK;
        case JINJA_N_HIDE: return exec_hide(run, node);
        default: return jinja_fail(run, "an expression where a statement is wanted");
    }
}

tn_status jinja_exec(jinja_run *run, const jinja_node *body) {
    tn_status status = TN_OK;
    TN_TRY(jinja_enter(run));
    for (; body && run->flow == JINJA_ONWARD; body = body->next) {
        run->line = body->line;
        TN_TRY(jinja_step(run, 1));
        TN_TRY(exec(run, body));
    }
    run->depth--;
done:
    return status;
}
