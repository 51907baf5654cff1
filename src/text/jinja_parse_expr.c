/* jinja_parse_expr.c: expressions of chat templates, one function for each level of precedence:
 * if-else, or, and, not, comparison, + -, ~, * / // %, **, sign, postfix, filters and tests.
 */
#include <string.h>

#include "text/jinja_parse.h"

typedef tn_status parse_function(jinja_parser *parser, const jinja_node **node);

static tn_status parse_condition(jinja_parser *parser, const jinja_node **node);
static tn_status parse_unary(jinja_parser *parser, const jinja_node **node);

tn_status jinja_node_list_add(jinja_parser *parser, jinja_node_list *list, const jinja_node *node) {
    if (list->count == list->capacity) {
        int64_t capacity = list->capacity ? list->capacity * 2 : 4;
        const jinja_node **items = tn_arena_take(parser->source->arena, capacity * (int64_t)sizeof *items);
        if (!items) return tn_fail_memory(capacity * (int64_t)sizeof *items, "template syntax tree");
        if (list->count > 0) memcpy(items, list->items, (size_t)list->count * sizeof *items);
        list->items = items, list->capacity = capacity;
    }
    list->items[list->count++] = node;
    return TN_OK;
}

/* A string constant. Its length in code points is counted here, because a compiled template is immutable. */
static tn_status make_string(jinja_parser *parser, const char *text, int64_t length, jinja_value *value) {
    jinja_string *string = tn_arena_take(parser->source->arena, sizeof *string);
    if (!string) return tn_fail_memory(sizeof *string, "template string");
    *string = (jinja_string){text, length, -1};
    jinja_points(string);
    *value = (jinja_value){.kind = JINJA_STRING, .string = string};
    return TN_OK;
}

static tn_status parse_arguments(jinja_parser *parser, const jinja_arguments **result) {
    tn_status status = TN_OK;
    jinja_node_list positional = {0}, values = {0};
    jinja_arguments *arguments = tn_arena_take(parser->source->arena, sizeof *arguments);
    const jinja_node *value;
    if (!arguments) TN_THROW(TN_FAILED, "out of memory for a template call");
    TN_TRY(jinja_expect_operator(parser, "("));
    while (!jinja_at_operator(parser, ")")) {
        const jinja_token *first = parser->token;
        bool star = jinja_accept_operator(parser, "*"), stars = !star && jinja_accept_operator(parser, "**");
        bool keyword = !star && !stars && first->kind == JINJA_T_NAME && first[1].kind == JINJA_T_OPERATOR &&
                       strcmp(first[1].text, "=") == 0;
        if (keyword) parser->token += 2;
        TN_TRY(jinja_parse_expression(parser, &value));
        if ((star && arguments->star) || arguments->double_star ||
            (!star && !stars && !keyword && (arguments->star || values.count > 0)))
            return jinja_fail_at(parser->source, first->line, "invalid syntax for function call expression");
        if (star) arguments->star = value;
        else if (stars) arguments->double_star = value;
        else TN_TRY(jinja_node_list_add(parser, keyword ? &values : &positional, value));
        if (keyword) { /* the name travels in a node of its own until the count is known */
            jinja_node *name;
            TN_TRY(jinja_new_node(parser, JINJA_N_NAME, &name));
            name->name = first->text, name->length = first->length;
            TN_TRY(jinja_node_list_add(parser, &values, name));
        }
        if (!jinja_at_operator(parser, ")")) TN_TRY(jinja_expect_operator(parser, ","));
    }
    TN_TRY(jinja_expect_operator(parser, ")"));
    jinja_keyword *keywords =
        tn_arena_take(parser->source->arena, values.count / 2 * (int64_t)sizeof *keywords);
    if (!keywords) TN_THROW(TN_FAILED, "out of memory for a template call");
    for (int64_t i = 0; i < values.count / 2; i++)
        keywords[i] = (jinja_keyword){values.items[2 * i + 1]->name, values.items[2 * i + 1]->length,
                                      values.items[2 * i]};
    arguments->positional = positional.items, arguments->count = positional.count;
    arguments->keywords = keywords, arguments->keyword_count = values.count / 2;
    *result = arguments;
done:
    return status;
}

static tn_status parse_call(jinja_parser *parser, const jinja_node **node) {
    tn_status status = TN_OK;
    jinja_node *call;
    TN_TRY(jinja_new_node(parser, JINJA_N_CALL, &call));
    call->a = *node;
    TN_TRY(parse_arguments(parser, &call->arguments));
    *node = call;
done:
    return status;
}

/* The name of a filter or test, dots included, as its value. */
static tn_status parse_dotted_name(jinja_parser *parser, jinja_value *value) {
    tn_status status = TN_OK;
    const char *name, *more;
    TN_TRY(jinja_expect_name(parser, &name));
    while (jinja_accept_operator(parser, ".")) {
        TN_TRY(jinja_expect_name(parser, &more));
        name = tn_arena_printf(parser->source->arena, "%s.%s", name, more);
        if (!name) TN_THROW(TN_FAILED, "out of memory for a template name");
    }
    TN_TRY(make_string(parser, name, (int64_t)strlen(name), value));
done:
    return status;
}

static tn_status parse_filter(jinja_parser *parser, const jinja_node **node) {
    tn_status status = TN_OK;
    jinja_node *filter;
    TN_TRY(jinja_new_node(parser, JINJA_N_FILTER, &filter));
    filter->a = *node;
    TN_TRY(parse_dotted_name(parser, &filter->value));
    if (jinja_at_operator(parser, "(")) TN_TRY(parse_arguments(parser, &filter->arguments));
    *node = filter;
done:
    return status;
}

tn_status jinja_parse_filter_chain(jinja_parser *parser, bool inside, const jinja_node **node) {
    tn_status status = TN_OK;
    jinja_node *text;
    *node = NULL;
    if (!inside && !jinja_at_operator(parser, "|")) return TN_OK;
    TN_TRY(jinja_new_node(parser, JINJA_N_BLOCK_TEXT, &text));
    *node = text;
    if (inside) TN_TRY(parse_filter(parser, node));
    while (jinja_accept_operator(parser, "|")) TN_TRY(parse_filter(parser, node));
done:
    return status;
}

static tn_status parse_list(jinja_parser *parser, jinja_node *node) {
    tn_status status = TN_OK;
    jinja_node_list items = {0};
    const jinja_node *item;
    bool is_dict = jinja_accept_operator(parser, "{");
    const char *close = is_dict ? "}" : "]";
    node->kind = is_dict ? JINJA_N_DICT : JINJA_N_LIST;
    if (!is_dict) TN_TRY(jinja_expect_operator(parser, "["));
    while (!jinja_at_operator(parser, close)) {
        if (items.count > 0) TN_TRY(jinja_expect_operator(parser, ","));
        if (jinja_at_operator(parser, close)) break;
        TN_TRY(jinja_parse_expression(parser, &item));
        TN_TRY(jinja_node_list_add(parser, &items, item));
        if (!is_dict) continue;
        TN_TRY(jinja_expect_operator(parser, ":"));
        TN_TRY(jinja_parse_expression(parser, &item));
        TN_TRY(jinja_node_list_add(parser, &items, item));
    }
    TN_TRY(jinja_expect_operator(parser, close));
    node->items = items.items, node->count = items.count;
done:
    return status;
}

static tn_status parse_strings(jinja_parser *parser, jinja_node *node) {
    tn_status status = TN_OK;
    tn_str joined = {0};
    const char *text = parser->token->text;
    int64_t length = parser->token++->length;
    if (parser->token->kind == JINJA_T_STRING) { /* neighbouring literals are one string */
        tn_str_add(&joined, text, length);
        for (; parser->token->kind == JINJA_T_STRING; parser->token++)
            tn_str_add(&joined, parser->token->text, parser->token->length);
        TN_TRY(tn_str_check(&joined, "template string"));
        length = joined.length;
        text = tn_arena_text(parser->source->arena, tn_str_text(&joined), length);
        if (!text) TN_THROW(TN_FAILED, "out of memory for a template string");
    }
    TN_TRY(make_string(parser, text, length, &node->value));
done:
    tn_str_free(&joined);
    return status;
}

static void note_use(jinja_parser *parser, const char *name) {
    if (!parser->function) return;
    if (strcmp(name, "varargs") == 0) parser->function->uses_varargs = true;
    if (strcmp(name, "kwargs") == 0) parser->function->uses_kwargs = true;
    if (strcmp(name, "caller") == 0) parser->function->uses_caller = true;
}

static void parse_name(jinja_parser *parser, jinja_node *node) {
    const char *name = parser->token++->text;
    bool is_true = strcmp(name, "true") == 0 || strcmp(name, "True") == 0;
    if (is_true || strcmp(name, "false") == 0 || strcmp(name, "False") == 0) {
        node->value = JINJA_MAKE_BOOLEAN(is_true);
    } else if (strcmp(name, "none") == 0 || strcmp(name, "None") == 0) {
        node->value = JINJA_MAKE_NONE;
    } else {
        node->kind = JINJA_N_NAME;
        node->name = name;
        note_use(parser, name);
    }
}

static tn_status parse_primary(jinja_parser *parser, bool with_namespace, const jinja_node **result) {
    tn_status status = TN_OK;
    jinja_node *node;
    const jinja_token *token = parser->token;
    TN_TRY(jinja_new_node(parser, JINJA_N_CONSTANT, &node));
    *result = node;
    if (token->kind == JINJA_T_NAME) {
        parse_name(parser, node);
        if (with_namespace && node->kind == JINJA_N_NAME && jinja_accept_operator(parser, ".")) {
            node->kind = JINJA_N_NAMESPACE_ATTRIBUTE;
            TN_TRY(jinja_expect_name(parser, &node->text));
        }
    } else if (token->kind == JINJA_T_STRING) {
        TN_TRY(parse_strings(parser, node));
    } else if (token->kind == JINJA_T_INTEGER) {
        node->value = JINJA_MAKE_INTEGER(token->integer), parser->token++;
    } else if (token->kind == JINJA_T_FLOAT) {
        node->value = JINJA_MAKE_FLOAT(token->real), parser->token++;
    } else if (jinja_accept_operator(parser, "(")) {
        TN_TRY(jinja_parse_tuple(parser, JINJA_IN_PARENTHESES, NULL, result));
        TN_TRY(jinja_expect_operator(parser, ")"));
    } else if (jinja_at_operator(parser, "[") || jinja_at_operator(parser, "{")) {
        TN_TRY(parse_list(parser, node));
    } else {
        status = jinja_parse_fail(parser, "an expression");
    }
done:
    return status;
}

/* One bound of a slice; NULL where it is left out. */
static tn_status parse_bound(jinja_parser *parser, const jinja_node **bound) {
    *bound = NULL;
    if (jinja_at_operator(parser, ":") || jinja_at_operator(parser, "]") || jinja_at_operator(parser, ","))
        return TN_OK;
    return jinja_parse_expression(parser, bound);
}

static tn_status parse_subscript(jinja_parser *parser, const jinja_node **node) {
    tn_status status = TN_OK;
    jinja_node *item, *empty;
    jinja_node_list bounds = {0};
    const jinja_node *bound;
    TN_TRY(jinja_new_node(parser, JINJA_N_ITEM, &item));
    item->a = *node;
    TN_TRY(jinja_expect_operator(parser, "["));
    TN_TRY(parse_bound(parser, &bound));
    if (jinja_at_operator(parser, ":")) {
        item->kind = JINJA_N_SLICE;
        TN_TRY(jinja_node_list_add(parser, &bounds, bound));
        for (int i = 1; i < 3; i++) {
            bound = NULL;
            if (jinja_accept_operator(parser, ":")) TN_TRY(parse_bound(parser, &bound));
            TN_TRY(jinja_node_list_add(parser, &bounds, bound));
        }
        item->items = bounds.items, item->count = bounds.count;
    } else if (bound) {
        item->b = bound;
    } else { /* x[]: the empty tuple as the key */
        TN_TRY(jinja_new_node(parser, JINJA_N_TUPLE, &empty));
        item->b = empty;
    }
    if (bound && item->b && jinja_at_operator(parser, ",")) { /* x[1, 2]: a tuple as the key */
        TN_TRY(jinja_node_list_add(parser, &bounds, bound));
        while (jinja_accept_operator(parser, ",")) {
            TN_TRY(jinja_parse_expression(parser, &bound));
            TN_TRY(jinja_node_list_add(parser, &bounds, bound));
        }
        jinja_node *key;
        TN_TRY(jinja_new_node(parser, JINJA_N_TUPLE, &key));
        key->items = bounds.items, key->count = bounds.count;
        item->b = key;
    }
    TN_TRY(jinja_expect_operator(parser, "]"));
    *node = item;
done:
    return status;
}

static tn_status parse_attribute(jinja_parser *parser, const jinja_node **node) {
    tn_status status = TN_OK;
    jinja_node *attribute, *index;
    TN_TRY(jinja_new_node(parser, JINJA_N_ATTRIBUTE, &attribute));
    TN_TRY(jinja_expect_operator(parser, "."));
    attribute->a = *node;
    const jinja_token *token = parser->token;
    if (token->kind == JINJA_T_INTEGER) {
        TN_TRY(jinja_new_node(parser, JINJA_N_CONSTANT, &index));
        index->value = JINJA_MAKE_INTEGER(token->integer);
        attribute->kind = JINJA_N_ITEM;
        attribute->b = index;
        parser->token++;
    } else {
        const char *name;
        TN_TRY(jinja_expect_name(parser, &name));
        TN_TRY(make_string(parser, name, token->length, &attribute->value));
    }
    *node = attribute;
done:
    return status;
}

static tn_status parse_postfix(jinja_parser *parser, const jinja_node **node) {
    for (;;) {
        tn_status status;
        if (jinja_at_operator(parser, ".")) status = parse_attribute(parser, node);
        else if (jinja_at_operator(parser, "[")) status = parse_subscript(parser, node);
        else if (jinja_at_operator(parser, "(")) status = parse_call(parser, node);
        else return TN_OK;
        if (status != TN_OK) return status;
    }
}

/* Behind "is": [not] name [arguments, or one operand without parentheses]. */
static tn_status parse_test(jinja_parser *parser, const jinja_node **node) {
    tn_status status = TN_OK;
    jinja_node *test, *negated;
    bool negate = jinja_accept_name(parser, "not");
    TN_TRY(jinja_new_node(parser, JINJA_N_TEST, &test));
    test->a = *node;
    TN_TRY(parse_dotted_name(parser, &test->value));
    const jinja_token *token = parser->token;
    bool operand = (token->kind >= JINJA_T_NAME && token->kind <= JINJA_T_FLOAT) ||
                   jinja_at_operator(parser, "[") || jinja_at_operator(parser, "{");
    if (jinja_at_operator(parser, "(")) {
        TN_TRY(parse_arguments(parser, &test->arguments));
    } else if (operand && !jinja_at_name(parser, "else") && !jinja_at_name(parser, "or") &&
               !jinja_at_name(parser, "and")) {
        if (jinja_at_name(parser, "is"))
            return jinja_fail_at(parser->source, token->line, "You cannot chain multiple tests with is");
        jinja_arguments *arguments = tn_arena_take(parser->source->arena, sizeof *arguments);
        if (!arguments) TN_THROW(TN_FAILED, "out of memory for a template test");
        jinja_node_list list = {0};
        const jinja_node *argument;
        TN_TRY(parse_primary(parser, false, &argument));
        TN_TRY(parse_postfix(parser, &argument));
        TN_TRY(jinja_node_list_add(parser, &list, argument));
        arguments->positional = list.items, arguments->count = 1;
        test->arguments = arguments;
    }
    *node = test;
    if (!negate) goto done;
    TN_TRY(jinja_new_node(parser, JINJA_N_NOT, &negated));
    negated->a = test;
    *node = negated;
done:
    return status;
}

static tn_status parse_signed(jinja_parser *parser, const jinja_node **node) {
    tn_status status = TN_OK;
    bool minus = jinja_at_operator(parser, "-");
    if (minus || jinja_at_operator(parser, "+")) {
        jinja_node *sign;
        TN_TRY(jinja_parse_enter(parser));
        TN_TRY(jinja_new_node(parser, minus ? JINJA_N_NEGATE : JINJA_N_POSITIVE, &sign));
        parser->token++;
        TN_TRY(parse_signed(parser, &sign->a));
        *node = sign;
        parser->depth--;
    } else {
        TN_TRY(parse_primary(parser, false, node));
    }
    TN_TRY(parse_postfix(parser, node));
done:
    return status;
}

static tn_status parse_unary(jinja_parser *parser, const jinja_node **node) {
    tn_status status = TN_OK;
    TN_TRY(parse_signed(parser, node));
    for (;;) {
        if (jinja_accept_operator(parser, "|")) TN_TRY(parse_filter(parser, node));
        else if (jinja_accept_name(parser, "is")) TN_TRY(parse_test(parser, node));
        else if (jinja_at_operator(parser, "(")) TN_TRY(parse_call(parser, node));
        else break;
    }
done:
    return status;
}

typedef struct binary_operator {
    const char *text;
    char operation; /* as jinja_binary names it */
} binary_operator;

/* Operands of `next` joined from the left by any of `operators` (ended by NULL). */
static tn_status parse_left(jinja_parser *parser, const binary_operator *operators, parse_function *next,
                            const jinja_node **node) {
    tn_status status = TN_OK;
    TN_TRY(next(parser, node));
    for (const binary_operator *o = operators; o->text;) {
        if (!jinja_at_operator(parser, o->text)) {
            o++;
            continue;
        }
        jinja_node *binary;
        TN_TRY(jinja_new_node(parser, JINJA_N_BINARY, &binary));
        parser->token++;
        binary->operation = o->operation;
        binary->a = *node;
        TN_TRY(next(parser, &binary->b));
        *node = binary;
        o = operators;
    }
done:
    return status;
}

static tn_status parse_power(jinja_parser *parser, const jinja_node **node) {
    static const binary_operator operators[] = {{"**", 'p'}, {NULL, 0}};
    return parse_left(parser, operators, parse_unary, node);
}

static tn_status parse_product(jinja_parser *parser, const jinja_node **node) {
    static const binary_operator operators[] = {{"*", '*'}, {"/", '/'}, {"//", 'f'}, {"%", '%'}, {NULL, 0}};
    return parse_left(parser, operators, parse_power, node);
}

static tn_status parse_concat(jinja_parser *parser, const jinja_node **node) {
    tn_status status = TN_OK;
    jinja_node_list items = {0};
    TN_TRY(parse_product(parser, node));
    if (!jinja_at_operator(parser, "~")) goto done;
    jinja_node *concat;
    TN_TRY(jinja_new_node(parser, JINJA_N_CONCAT, &concat));
    TN_TRY(jinja_node_list_add(parser, &items, *node));
    while (jinja_accept_operator(parser, "~")) {
        TN_TRY(parse_product(parser, node));
        TN_TRY(jinja_node_list_add(parser, &items, *node));
    }
    concat->items = items.items, concat->count = items.count;
    *node = concat;
done:
    return status;
}

static tn_status parse_sum(jinja_parser *parser, const jinja_node **node) {
    static const binary_operator operators[] = {{"+", '+'}, {"-", '-'}, {NULL, 0}};
    return parse_left(parser, operators, parse_concat, node);
}

/* Reads a comparison operator; NULL where there is none. "not in" is one. */
static const char *comparison(jinja_parser *parser) {
    static const char *const operators[] = {"==", "!=", "<=", ">=", "<", ">"};
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++)
        if (jinja_accept_operator(parser, operators[i])) return operators[i];
    if (jinja_accept_name(parser, "in")) return "in";
    if (!jinja_at_name(parser, "not") || parser->token[1].kind != JINJA_T_NAME ||
        strcmp(parser->token[1].text, "in") != 0)
        return NULL;
    parser->token += 2;
    return "not in";
}

static tn_status parse_compare(jinja_parser *parser, const jinja_node **node) {
    tn_status status = TN_OK;
    jinja_node_list items = {0};
    const char *operators[64], *operator_text;
    int64_t count = 0;
    TN_TRY(parse_sum(parser, node));
    const jinja_node *first = *node;
    while ((operator_text = comparison(parser))) {
        if (count == 64)
            return jinja_fail_at(parser->source, parser->token->line, "too long a chain of comparisons");
        operators[count++] = operator_text;
        if (items.count == 0) TN_TRY(jinja_node_list_add(parser, &items, first));
        TN_TRY(parse_sum(parser, node));
        TN_TRY(jinja_node_list_add(parser, &items, *node));
    }
    if (count == 0) goto done;
    jinja_node *compare;
    TN_TRY(jinja_new_node(parser, JINJA_N_COMPARE, &compare));
    compare->operators = tn_arena_take(parser->source->arena, count * (int64_t)sizeof *operators);
    if (!compare->operators) TN_THROW(TN_FAILED, "out of memory for a template comparison");
    memcpy(compare->operators, operators, (size_t)count * sizeof *operators);
    compare->items = items.items, compare->count = items.count;
    *node = compare;
done:
    return status;
}

static tn_status parse_not(jinja_parser *parser, const jinja_node **node) {
    tn_status status = TN_OK;
    int negations = 0;
    while (jinja_accept_name(parser, "not")) negations++;
    TN_TRY(parse_compare(parser, node));
    if (negations > 2) negations = 1 + (negations + 1) % 2; /* the same parity */
    for (; negations > 0; negations--) {
        jinja_node *negated;
        TN_TRY(jinja_new_node(parser, JINJA_N_NOT, &negated));
        negated->a = *node;
        *node = negated;
    }
done:
    return status;
}

static tn_status parse_logic(jinja_parser *parser, const char *word, jinja_node_kind kind, parse_function *next,
                             const jinja_node **node) {
    tn_status status = TN_OK;
    TN_TRY(next(parser, node));
    while (jinja_accept_name(parser, word)) {
        jinja_node *logic;
        TN_TRY(jinja_new_node(parser, kind, &logic));
        logic->a = *node;
        TN_TRY(next(parser, &logic->b));
        *node = logic;
    }
done:
    return status;
}

static tn_status parse_and(jinja_parser *parser, const jinja_node **node) {
    return parse_logic(parser, "and", JINJA_N_AND, parse_not, node);
}

static tn_status parse_or(jinja_parser *parser, const jinja_node **node) {
    return parse_logic(parser, "or", JINJA_N_OR, parse_and, node);
}

static tn_status parse_condition(jinja_parser *parser, const jinja_node **node) {
    tn_status status = TN_OK;
    TN_TRY(parse_or(parser, node));
    while (jinja_accept_name(parser, "if")) {
        jinja_node *condition;
        TN_TRY(jinja_new_node(parser, JINJA_N_CONDITION, &condition));
        condition->a = *node;
        TN_TRY(parse_or(parser, &condition->b));
        if (jinja_accept_name(parser, "else")) TN_TRY(jinja_parse_expression(parser, &condition->c));
        *node = condition;
    }
done:
    return status;
}

tn_status jinja_parse_expression(jinja_parser *parser, const jinja_node **node) {
    tn_status status = TN_OK;
    TN_TRY(jinja_parse_enter(parser));
    TN_TRY(parse_condition(parser, node));
    parser->depth--;
done:
    return status;
}

static tn_status parse_item(jinja_parser *parser, jinja_tuple_mode mode, const jinja_node **node) {
    tn_status status = TN_OK;
    TN_TRY(jinja_parse_enter(parser));
    if (mode == JINJA_TARGET || mode == JINJA_TARGET_NAMESPACE)
        TN_TRY(parse_primary(parser, mode == JINJA_TARGET_NAMESPACE, node));
    else if (mode == JINJA_NO_CONDITION) TN_TRY(parse_or(parser, node));
    else TN_TRY(parse_condition(parser, node));
    parser->depth--;
done:
    return status;
}

tn_status jinja_parse_tuple(jinja_parser *parser, jinja_tuple_mode mode, const char *end,
                            const jinja_node **node) {
    tn_status status = TN_OK;
    jinja_node_list items = {0};
    jinja_node *tuple;
    bool comma = false;
    for (;;) {
        const jinja_token *token = parser->token;
        if (token->kind == JINJA_T_VARIABLE_END || token->kind == JINJA_T_BLOCK_END ||
            jinja_at_operator(parser, ")") || (end && jinja_at_name(parser, end)))
            break;
        TN_TRY(parse_item(parser, mode, node));
        TN_TRY(jinja_node_list_add(parser, &items, *node));
        if (!jinja_accept_operator(parser, ",")) break;
        comma = true;
    }
    if (!comma && items.count == 1) return TN_OK;
    if (!comma && mode != JINJA_IN_PARENTHESES) return jinja_parse_fail(parser, "an expression");
    TN_TRY(jinja_new_node(parser, JINJA_N_TUPLE, &tuple));
    tuple->items = items.items, tuple->count = items.count;
    *node = tuple;
done:
    return status;
}
