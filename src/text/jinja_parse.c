/* jinja_parse.c: tokens to a syntax tree, statements here and expressions in jinja_parse_expr.c.
 *
 * Recursive descent with the grammar of Jinja 3.1. A body is a chain of statements; nesting is bounded,
 * so that a hostile template gives an error and no stack overflow.
 */
#include "text/jinja_parse.h"

#include <string.h>

#include "text/jinja_run.h"

tn_status jinja_parse_fail(const jinja_parser *parser, const char *expected) {
    const jinja_token *token = parser->token;
    static const char *const names[] = {"end of template",          "template data",
                                        "begin of print statement", "end of print statement",
                                        "begin of statement block", "end of statement block"};
    if (token->kind < JINJA_T_NAME)
        return jinja_fail_at(parser->source, token->line, "expected %s, got '%s'", expected,
                             names[token->kind]);
    return jinja_fail_at(parser->source, token->line, "expected %s, got '%s'", expected,
                         token->text ? token->text : "a number");
}

tn_status jinja_new_node(jinja_parser *parser, jinja_node_kind kind, jinja_node **node) {
    *node = tn_arena_take(parser->source->arena, sizeof **node);
    if (!*node) return tn_fail_memory(sizeof **node, "template syntax tree");
    (*node)->kind = kind;
    (*node)->line = parser->token->line;
    return TN_OK;
}

tn_status jinja_parse_enter(jinja_parser *parser) {
    enum { DEEPEST = 150 };
    if (++parser->depth > DEEPEST)
        return jinja_fail_at(parser->source, parser->token->line, "nests too deeply");
    return TN_OK;
}

bool jinja_at_operator(const jinja_parser *parser, const char *text) {
    return parser->token->kind == JINJA_T_OPERATOR && strcmp(parser->token->text, text) == 0;
}

bool jinja_at_name(const jinja_parser *parser, const char *text) {
    return parser->token->kind == JINJA_T_NAME && strcmp(parser->token->text, text) == 0;
}

bool jinja_accept_operator(jinja_parser *parser, const char *text) {
    return jinja_at_operator(parser, text) ? parser->token++, true : false;
}

bool jinja_accept_name(jinja_parser *parser, const char *text) {
    return jinja_at_name(parser, text) ? parser->token++, true : false;
}

tn_status jinja_expect_operator(jinja_parser *parser, const char *text) {
    char expected[16] = "'";
    strncat(strncat(expected, text, 8), "'", 2);
    return jinja_accept_operator(parser, text) ? TN_OK : jinja_parse_fail(parser, expected);
}

tn_status jinja_expect_name(jinja_parser *parser, const char **name) {
    if (parser->token->kind != JINJA_T_NAME) return jinja_parse_fail(parser, "a name");
    *name = parser->token++->text;
    return TN_OK;
}

static tn_status expect_block_end(jinja_parser *parser) {
    if (parser->token->kind != JINJA_T_BLOCK_END) return jinja_parse_fail(parser, "'end of statement block'");
    parser->token++;
    return TN_OK;
}

static tn_status parse_body(jinja_parser *parser, const char *const *ends, const jinja_node **body, int *which);

/* "%}", then a body up to one of `ends` (ended by NULL), whose name is read; its "%}" is not. */
static tn_status parse_block(jinja_parser *parser, const char *const *ends, const jinja_node **body,
                             int *which) {
    tn_status status = TN_OK;
    jinja_accept_operator(parser, ":");
    TN_TRY(expect_block_end(parser));
    TN_TRY(parse_body(parser, ends, body, which));
done:
    return status;
}

static bool can_assign(const jinja_node *target) {
    if (target->kind != JINJA_N_TUPLE)
        return target->kind == JINJA_N_NAME || target->kind == JINJA_N_NAMESPACE_ATTRIBUTE;
    for (int64_t i = 0; i < target->count; i++)
        if (!can_assign(target->items[i])) return false;
    return true;
}

static tn_status parse_target(jinja_parser *parser, bool with_namespace, const char *end,
                              const jinja_node **target) {
    tn_status status = TN_OK;
    int line = parser->token->line;
    TN_TRY(jinja_parse_tuple(parser, with_namespace ? JINJA_TARGET_NAMESPACE : JINJA_TARGET, end, target));
    if (!can_assign(*target)) status = jinja_fail_at(parser->source, line, "can't assign to this expression");
done:
    return status;
}

static tn_status parse_for(jinja_parser *parser, jinja_node *node) {
    static const char *const ends[] = {"endfor", "else", NULL}, *const last[] = {"endfor", NULL};
    tn_status status = TN_OK;
    int which = 0;
    node->kind = JINJA_N_FOR;
    TN_TRY(parse_target(parser, false, "in", &node->a));
    if (!jinja_accept_name(parser, "in")) return jinja_parse_fail(parser, "'in'");
    TN_TRY(jinja_parse_tuple(parser, JINJA_NO_CONDITION, "recursive", &node->b));
    if (jinja_accept_name(parser, "if")) TN_TRY(jinja_parse_expression(parser, &node->c));
    node->flag = jinja_accept_name(parser, "recursive");
    parser->loops++;
    TN_TRY(parse_block(parser, ends, &node->body, &which));
    parser->loops--;
    if (which == 1) TN_TRY(parse_block(parser, last, &node->otherwise, &which));
done:
    return status;
}

static tn_status parse_if(jinja_parser *parser, jinja_node *node) {
    static const char *const ends[] = {"endif", "else", "elif", NULL}, *const last[] = {"endif", NULL};
    tn_status status = TN_OK;
    int which = 0;
    for (;;) { /* an elif is an IF of its own in `otherwise`, built without recursion */
        node->kind = JINJA_N_IF;
        TN_TRY(jinja_parse_tuple(parser, JINJA_NO_CONDITION, NULL, &node->a));
        TN_TRY(parse_block(parser, ends, &node->body, &which));
        if (which != 2) break;
        jinja_node *alternative;
        TN_TRY(jinja_new_node(parser, JINJA_N_IF, &alternative));
        node->otherwise = alternative;
        node = alternative;
    }
    if (which == 1) TN_TRY(parse_block(parser, last, &node->otherwise, &which));
done:
    return status;
}

static tn_status parse_set(jinja_parser *parser, jinja_node *node) {
    static const char *const ends[] = {"endset", NULL};
    tn_status status = TN_OK;
    int which = 0;
    node->kind = JINJA_N_SET;
    TN_TRY(parse_target(parser, true, NULL, &node->a));
    if (jinja_accept_operator(parser, "=")) {
        TN_TRY(jinja_parse_tuple(parser, JINJA_WITH_CONDITION, NULL, &node->b));
        goto done;
    }
    node->kind = JINJA_N_SET_BLOCK;
    TN_TRY(jinja_parse_filter_chain(parser, false, &node->b));
    TN_TRY(parse_block(parser, ends, &node->body, &which));
done:
    return status;
}

static tn_status parse_signature(jinja_parser *parser, jinja_signature *signature) {
    tn_status status = TN_OK;
    jinja_node_list names = {0}, defaults = {0};
    TN_TRY(jinja_expect_operator(parser, "("));
    while (!jinja_at_operator(parser, ")")) {
        if (names.count > 0) TN_TRY(jinja_expect_operator(parser, ","));
        jinja_node *name;
        const jinja_node *otherwise = NULL;
        TN_TRY(jinja_new_node(parser, JINJA_N_NAME, &name));
        TN_TRY(jinja_expect_name(parser, &name->name));
        if (jinja_accept_operator(parser, "=")) TN_TRY(jinja_parse_expression(parser, &otherwise));
        else if (defaults.count > 0 && defaults.items[defaults.count - 1])
            return jinja_fail_at(parser->source, name->line, "non-default argument follows default argument");
        TN_TRY(jinja_node_list_add(parser, &names, name));
        TN_TRY(jinja_node_list_add(parser, &defaults, otherwise));
    }
    TN_TRY(jinja_expect_operator(parser, ")"));
    signature->count = names.count;
    signature->defaults = defaults.items;
    signature->names = tn_arena_take(parser->source->arena, names.count * (int64_t)sizeof *signature->names);
    if (!signature->names) TN_THROW(TN_FAILED, "out of memory for a template macro");
    for (int64_t i = 0; i < names.count; i++) signature->names[i] = names.items[i]->name;
done:
    return status;
}

/* Body of a macro or call block: a function of its own, so loops outside it cannot be left from within. */
static tn_status parse_function_body(jinja_parser *parser, jinja_node *node, jinja_signature *signature,
                                     const char *const *ends) {
    int which, loops = parser->loops;
    jinja_signature *outer = parser->function;
    parser->loops = 0;
    if (signature) parser->function = signature;
    tn_status status = parse_block(parser, ends, &node->body, &which);
    parser->loops = loops;
    parser->function = outer;
    return status;
}

static tn_status new_signature(jinja_parser *parser, jinja_node *node, jinja_signature **signature) {
    *signature = tn_arena_take(parser->source->arena, sizeof **signature);
    node->signature = *signature;
    return *signature ? TN_OK : tn_fail_memory(sizeof **signature, "template macro");
}

static tn_status parse_macro(jinja_parser *parser, jinja_node *node) {
    static const char *const ends[] = {"endmacro", NULL};
    tn_status status = TN_OK;
    jinja_signature *signature;
    node->kind = JINJA_N_MACRO;
    TN_TRY(jinja_expect_name(parser, &node->name));
    TN_TRY(new_signature(parser, node, &signature));
    TN_TRY(parse_signature(parser, signature));
    TN_TRY(parse_function_body(parser, node, signature, ends));
done:
    return status;
}

static tn_status parse_call_block(jinja_parser *parser, jinja_node *node) {
    static const char *const ends[] = {"endcall", NULL};
    tn_status status = TN_OK;
    jinja_signature *signature;
    node->kind = JINJA_N_CALL_BLOCK;
    TN_TRY(new_signature(parser, node, &signature));
    if (jinja_at_operator(parser, "(")) TN_TRY(parse_signature(parser, signature));
    TN_TRY(jinja_parse_expression(parser, &node->a));
    if (node->a->kind != JINJA_N_CALL) return jinja_fail_at(parser->source, node->line, "expected call");
    TN_TRY(parse_function_body(parser, node, signature, ends));
done:
    return status;
}

static tn_status parse_filter_block(jinja_parser *parser, jinja_node *node) {
    static const char *const ends[] = {"endfilter", NULL};
    tn_status status = TN_OK;
    int which = 0;
    node->kind = JINJA_N_FILTER_BLOCK;
    TN_TRY(jinja_parse_filter_chain(parser, true, &node->a));
    TN_TRY(parse_block(parser, ends, &node->body, &which));
done:
    return status;
}

static tn_status parse_with(jinja_parser *parser, jinja_node *node) {
    static const char *const ends[] = {"endwith", NULL};
    tn_status status = TN_OK;
    jinja_node_list items = {0};
    const jinja_node *item;
    int which = 0;
    node->kind = JINJA_N_WITH;
    while (parser->token->kind != JINJA_T_BLOCK_END) {
        if (items.count > 0) TN_TRY(jinja_expect_operator(parser, ","));
        TN_TRY(parse_target(parser, false, NULL, &item));
        TN_TRY(jinja_node_list_add(parser, &items, item));
        TN_TRY(jinja_expect_operator(parser, "="));
        TN_TRY(jinja_parse_expression(parser, &item));
        TN_TRY(jinja_node_list_add(parser, &items, item));
    }
    node->items = items.items, node->count = items.count;
    TN_TRY(parse_block(parser, ends, &node->body, &which));
done:
    return status;
}

static tn_status parse_generation(jinja_parser *parser, jinja_node *node) {
    static const char *const ends[] = {"endgeneration", NULL};
    node->kind = JINJA_N_GENERATION;
    return parse_function_body(parser, node, NULL, ends);
}

static tn_status parse_break(jinja_parser *parser, jinja_node *node) {
    node->kind = JINJA_N_BREAK;
    return parser->loops > 0 ? TN_OK : jinja_fail_at(parser->source, node->line, "'break' outside loop");
}

static tn_status parse_continue(jinja_parser *parser, jinja_node *node) {
    node->kind = JINJA_N_CONTINUE;
    return parser->loops > 0 ? TN_OK : jinja_fail_at(parser->source, node->line, "'continue' outside loop");
}

static tn_status parse_print(jinja_parser *parser, jinja_node *node) {
    node->kind = JINJA_N_OUTPUT;
    return jinja_parse_expression(parser, &node->a);
}

/* Behind the tag's "{%"; leaves the cursor behind its last "%}". */
static tn_status parse_statement(jinja_parser *parser, const char *const *ends, jinja_node **node) {
    static const struct {
        const char *name;
        tn_status (*parse)(jinja_parser *parser, jinja_node *node);
    } statements[] = {{"for", parse_for},         {"if", parse_if},
                      {"set", parse_set},         {"macro", parse_macro},
                      {"call", parse_call_block}, {"filter", parse_filter_block},
                      {"with", parse_with},       {"generation", parse_generation},
                      {"break", parse_break},     {"continue", parse_continue},
                      {"print", parse_print}};
    tn_status status = TN_OK;
    const char *name;
    TN_TRY(jinja_new_node(parser, JINJA_N_OUTPUT, node));
    if (parser->token->kind != JINJA_T_NAME)
        return jinja_fail_at(parser->source, (*node)->line, "tag name expected");
    TN_TRY(jinja_expect_name(parser, &name));
    TN_TRY(jinja_parse_enter(parser));
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        if (strcmp(name, statements[i].name) != 0) continue;
        TN_TRY(statements[i].parse(parser, *node));
        parser->depth--;
        TN_TRY(expect_block_end(parser));
        goto done;
    }
    status = jinja_fail_at(parser->source, (*node)->line, "Encountered unknown tag '%s'.%s%s%s", name,
                           ends ? " Jinja was looking for '" : "", ends ? ends[0] : "", ends ? "'." : "");
done:
    return status;
}

static int index_of_end(const jinja_parser *parser, const char *const *ends) {
    for (int i = 0; ends && ends[i]; i++)
        if (jinja_at_name(parser, ends[i])) return i;
    return -1;
}

/* Statements and text up to one of `ends`, or to the end of the template where `ends` is NULL. */
static tn_status parse_body(jinja_parser *parser, const char *const *ends, const jinja_node **body,
                            int *which) {
    tn_status status = TN_OK;
    jinja_node *node;
    for (;;) {
        switch (parser->token->kind) {
            case JINJA_T_END:
                if (!ends) return TN_OK;
                return jinja_fail_at(parser->source, parser->token->line,
                                     "Unexpected end of template. Jinja was looking for '%s'.", ends[0]);
            case JINJA_T_DATA:
                TN_TRY(jinja_new_node(parser, JINJA_N_DATA, &node));
                node->text = parser->token->text;
                node->length = parser->token++->length;
                break;
            case JINJA_T_VARIABLE_BEGIN:
                TN_TRY(jinja_new_node(parser, JINJA_N_OUTPUT, &node));
                parser->token++;
                TN_TRY(jinja_parse_tuple(parser, JINJA_WITH_CONDITION, NULL, &node->a));
                if (parser->token->kind != JINJA_T_VARIABLE_END)
                    return jinja_parse_fail(parser, "'end of print statement'");
                parser->token++;
                break;
            default: /* the lexer gives nothing but BLOCK_BEGIN here */
                parser->token++;
                *which = index_of_end(parser, ends);
                if (*which >= 0) {
                    parser->token++;
                    return TN_OK;
                }
                TN_TRY(parse_statement(parser, ends, &node));
        }
        *body = node;
        body = &node->next;
    }
done:
    return status;
}

tn_status jinja_parse(jinja_source *source, const jinja_token *tokens, const jinja_node **body) {
    int which = 0;
    jinja_parser parser = {.source = source, .token = tokens};
    *body = NULL;
    return parse_body(&parser, NULL, body, &which);
}
