/* jinja_eval.c: expressions. Every node costs a step and, while it is evaluated, a level of depth. */
#include <string.h>

#include "text/jinja_run.h"

/* NULL: in no scope. */
static const jinja_value *find_in_scopes(const jinja_run *run, const char *name) {
    for (const jinja_scope *scope = run->scope; scope; scope = scope->parent)
        for (int64_t i = 0; i < scope->count; i++)
            if (scope->variables[i].name == name) return &scope->variables[i].value;
    return NULL;
}

static tn_status eval_name(jinja_run *run, const jinja_node *node, jinja_value *out) {
    const jinja_value *variable = find_in_scopes(run, node->name);
    bool hidden = variable && variable->kind == JINJA_MISSING;
    int64_t length = (int64_t)strlen(node->name);
    if (!variable) variable = jinja_dict_find(run->variables, node->name, length);
    const jinja_builtin *function = variable ? NULL : jinja_global(node->name);
    if (variable && !hidden) *out = *variable;
    else if (function) *out = (jinja_value){.kind = JINJA_FUNCTION, .function = function};
    else {
        jinja_value name;
        tn_status status = jinja_make_view(run, node->name, length, &name);
        return status == TN_OK ? jinja_make_undefined(run, NULL, NULL, &name, out) : status;
    }
    return TN_OK;
}

static tn_status eval_items(jinja_run *run, const jinja_node *node, jinja_value *out) {
    tn_status status = TN_OK;
    jinja_value *items;
    TN_TRY(jinja_take(run, &items, node->count, sizeof *items));
    for (int64_t i = 0; i < node->count; i++) TN_TRY(jinja_eval(run, node->items[i], &items[i]));
    TN_TRY(
        jinja_make_list(run, node->kind == JINJA_N_LIST ? JINJA_LIST : JINJA_TUPLE, items, node->count, out));
done:
    return status;
}

static tn_status eval_dict(jinja_run *run, const jinja_node *node, jinja_value *out) {
    tn_status status = TN_OK;
    jinja_value key, value;
    TN_TRY(jinja_make_dict(run, out));
    for (int64_t i = 0; i < node->count; i += 2) {
        TN_TRY(jinja_eval(run, node->items[i], &key));
        TN_TRY(jinja_eval(run, node->items[i + 1], &value));
        TN_TRY(jinja_dict_set(run, out->dict, key, value));
    }
done:
    return status;
}

static tn_status eval_slice(jinja_run *run, const jinja_node *node, jinja_value *out) {
    tn_status status = TN_OK;
    jinja_value object, bounds[3] = {{.kind = JINJA_NONE}, {.kind = JINJA_NONE}, {.kind = JINJA_NONE}};
    TN_TRY(jinja_eval(run, node->a, &object));
    for (int i = 0; i < 3; i++)
        if (node->items[i]) TN_TRY(jinja_eval(run, node->items[i], &bounds[i]));
    TN_TRY(jinja_get_slice(run, &object, bounds, out));
done:
    return status;
}

static tn_status eval_compare(jinja_run *run, const jinja_node *node, jinja_value *out) {
    tn_status status = TN_OK;
    jinja_value left, right;
    bool holds = true;
    TN_TRY(jinja_eval(run, node->items[0], &left));
    for (int64_t i = 1; i < node->count && holds; i++, left = right) {
        const char *operator_text = node->operators[i - 1];
        TN_TRY(jinja_eval(run, node->items[i], &right));
        bool negated = strcmp(operator_text, "!=") == 0 || strcmp(operator_text, "not in") == 0;
        if (strchr("<>", operator_text[0])) TN_TRY(jinja_order(run, operator_text, &left, &right, &holds));
        else if (operator_text[1] == '=') TN_TRY(jinja_equal(run, &left, &right, &holds));
        else TN_TRY(jinja_contains(run, &right, &left, &holds));
        if (negated) holds = !holds;
    }
    *out = JINJA_MAKE_BOOLEAN(holds);
done:
    return status;
}

static tn_status eval_concat(jinja_run *run, const jinja_node *node, jinja_value *out) {
    tn_status status = TN_OK;
    tn_str text = {0};
    jinja_value item;
    for (int64_t i = 0; i < node->count; i++) {
        TN_TRY(jinja_eval(run, node->items[i], &item));
        TN_TRY(jinja_str(run, &item, &text));
    }
    TN_TRY(jinja_make_from(run, &text, out));
done:
    tn_str_free(&text);
    return status;
}

static tn_status eval_condition(jinja_run *run, const jinja_node *node, jinja_value *out) {
    jinja_value condition;
    tn_status status = jinja_eval(run, node->b, &condition);
    if (status != TN_OK) return status;
    if (jinja_truth(&condition)) return jinja_eval(run, node->a, out);
    if (node->c) return jinja_eval(run, node->c, out);
    return jinja_make_undefined(
        run, "the inline if-expression evaluated to false and no else section was defined.", NULL, NULL, out);
}

static tn_status eval_binary(jinja_run *run, const jinja_node *node, jinja_value *out) {
    tn_status status = TN_OK;
    jinja_value a, b;
    TN_TRY(jinja_eval(run, node->a, &a));
    TN_TRY(jinja_eval(run, node->b, &b));
    TN_TRY(jinja_binary(run, node->operation, &a, &b, out));
done:
    return status;
}

/* ---- Calls, filters, tests ---- */

static tn_status push_keyword(jinja_run *run, jinja_pair *keywords, int64_t *count, jinja_value key,
                              jinja_value value) {
    for (int64_t i = 0; i < *count; i++) {
        bool same;
        tn_status status = jinja_equal(run, &keywords[i].key, &key, &same);
        if (status != TN_OK) return status;
        if (same) return jinja_fail(run, "got multiple values for a keyword argument");
    }
    keywords[(*count)++] = (jinja_pair){key, value};
    return TN_OK;
}

static tn_status eval_keywords(jinja_run *run, const jinja_arguments *arguments, jinja_call *call) {
    tn_status status = TN_OK;
    jinja_value stars = {0}, key, value;
    int64_t room = arguments->keyword_count + 1; /* one more for a call block's caller */
    jinja_pair *keywords;
    if (arguments->double_star) {
        TN_TRY(jinja_eval(run, arguments->double_star, &stars));
        if (stars.kind != JINJA_DICT) return jinja_fail(run, "argument after ** must be a mapping");
        room += stars.dict->count;
    }
    TN_TRY(jinja_take(run, &keywords, room, sizeof *keywords));
    call->keywords = keywords;
    for (int64_t i = 0; i < arguments->keyword_count; i++) {
        TN_TRY(jinja_make_view(run, arguments->keywords[i].name, arguments->keywords[i].length, &key));
        TN_TRY(jinja_eval(run, arguments->keywords[i].value, &value));
        TN_TRY(push_keyword(run, keywords, &call->keyword_count, key, value));
    }
    for (int64_t i = 0; stars.kind == JINJA_DICT && i < stars.dict->count; i++) {
        if (stars.dict->pairs[i].key.kind != JINJA_STRING) return jinja_fail(run, "keywords must be strings");
        TN_TRY(jinja_step(run, call->keyword_count));
        TN_TRY(push_keyword(run, keywords, &call->keyword_count, stars.dict->pairs[i].key,
                            stars.dict->pairs[i].value));
    }
done:
    return status;
}

tn_status jinja_eval_call(jinja_run *run, const jinja_arguments *arguments, jinja_call *call) {
    tn_status status = TN_OK;
    jinja_builder positional = {0};
    jinja_value value;
    jinja_list more = {0};
    *call = (jinja_call){0};
    if (!arguments) return TN_OK;
    for (int64_t i = 0; i < arguments->count; i++) {
        TN_TRY(jinja_eval(run, arguments->positional[i], &value));
        TN_TRY(jinja_push(run, &positional, value));
    }
    if (arguments->star) {
        TN_TRY(jinja_eval(run, arguments->star, &value));
        TN_TRY(jinja_iterate(run, &value, &more));
    }
    for (int64_t i = 0; i < more.count; i++) TN_TRY(jinja_push(run, &positional, more.items[i]));
    call->positional = positional.items, call->count = positional.count;
    TN_TRY(eval_keywords(run, arguments, call));
done:
    return status;
}

static tn_status eval_call(jinja_run *run, const jinja_node *node, jinja_value *out) {
    tn_status status = TN_OK;
    jinja_value callee;
    jinja_call call;
    TN_TRY(jinja_eval(run, node->a, &callee));
    TN_TRY(jinja_eval_call(run, node->arguments, &call));
    run->line = node->line;
    TN_TRY(jinja_invoke(run, &callee, &call, out));
done:
    return status;
}

static tn_status eval_filter(jinja_run *run, const jinja_node *node, jinja_value *out) {
    tn_status status = TN_OK;
    jinja_value value;
    jinja_call call;
    if (node->a->kind == JINJA_N_BLOCK_TEXT) value = run->block_text;
    else TN_TRY(jinja_eval(run, node->a, &value));
    TN_TRY(jinja_eval_call(run, node->arguments, &call));
    run->line = node->line;
    TN_TRY(jinja_apply_filter(run, node->value.string, &value, &call, out));
done:
    return status;
}

static tn_status eval_test(jinja_run *run, const jinja_node *node, jinja_value *out) {
    tn_status status = TN_OK;
    jinja_value value;
    jinja_call call;
    bool holds;
    TN_TRY(jinja_eval(run, node->a, &value));
    TN_TRY(jinja_eval_call(run, node->arguments, &call));
    TN_TRY(jinja_apply_test(run, node->value.string, &value, &call, &holds));
    *out = JINJA_MAKE_BOOLEAN(holds);
done:
    return status;
}

static tn_status eval_item(jinja_run *run, const jinja_node *node, jinja_value *out) {
    tn_status status = TN_OK;
    jinja_value object, key;
    TN_TRY(jinja_eval(run, node->a, &object));
    TN_TRY(jinja_eval(run, node->b, &key));
    TN_TRY(jinja_get_item(run, &object, &key, out));
done:
    return status;
}

static tn_status eval_unary(jinja_run *run, const jinja_node *node, jinja_value *out) {
    tn_status status = TN_OK;
    jinja_value a;
    TN_TRY(jinja_eval(run, node->a, &a));
    if (node->kind == JINJA_N_ATTRIBUTE) TN_TRY(jinja_get_attribute(run, &a, &node->value, out));
    else if (node->kind == JINJA_N_NOT) *out = JINJA_MAKE_BOOLEAN(!jinja_truth(&a));
    else if (node->kind == JINJA_N_NEGATE) TN_TRY(jinja_negate(run, &a, out));
    else if (jinja_is_integer(&a)) *out = JINJA_MAKE_INTEGER(jinja_integer(&a)); /* +True is 1 */
    else if (a.kind == JINJA_FLOAT) *out = a;
    else if (a.kind == JINJA_UNDEFINED) status = jinja_fail_undefined(run, &a);
    else status = jinja_fail(run, "bad operand type for unary +: '%s'", jinja_type_name(&a));
done:
    return status;
}

static tn_status eval_logic(jinja_run *run, const jinja_node *node, jinja_value *out) {
    tn_status status = jinja_eval(run, node->a, out);
    if (status != TN_OK || jinja_truth(out) == (node->kind == JINJA_N_OR)) return status;
    return jinja_eval(run, node->b, out);
}

static tn_status eval(jinja_run *run, const jinja_node *node, jinja_value *out) {
    switch (node->kind) {
        case JINJA_N_CONSTANT: *out = node->value; return TN_OK;
        case JINJA_N_NAME: return eval_name(run, node, out);
        case JINJA_N_BLOCK_TEXT: *out = run->block_text; return TN_OK;
        case JINJA_N_LIST:
        case JINJA_N_TUPLE: return eval_items(run, node, out);
        case JINJA_N_DICT: return eval_dict(run, node, out);
        case JINJA_N_ITEM: return eval_item(run, node, out);
        case JINJA_N_SLICE: return eval_slice(run, node, out);
        case JINJA_N_CALL: return eval_call(run, node, out);
        case JINJA_N_FILTER: return eval_filter(run, node, out);
        case JINJA_N_TEST: return eval_test(run, node, out);
        case JINJA_N_ATTRIBUTE:
        case JINJA_N_NOT:
        case JINJA_N_NEGATE:
        case JINJA_N_POSITIVE: return eval_unary(run, node, out);
        case JINJA_N_AND:
        case JINJA_N_OR: return eval_logic(run, node, out);
        case JINJA_N_CONDITION: return eval_condition(run, node, out);
        case JINJA_N_COMPARE: return eval_compare(run, node, out);
        case JINJA_N_BINARY: return eval_binary(run, node, out);
        case JINJA_N_CONCAT: return eval_concat(run, node, out);
        default: return jinja_fail(run, "a statement where an expression is wanted");
    }
}

tn_status jinja_eval(jinja_run *run, const jinja_node *node, jinja_value *out) {
    tn_status status = TN_OK;
    run->line = node->line;
    TN_TRY(jinja_enter(run));
    TN_TRY(jinja_step(run, 1));
    TN_TRY(eval(run, node, out));
    run->depth--;
done:
    return status;
}
