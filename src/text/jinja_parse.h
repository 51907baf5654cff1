/* jinja_parse.h: what the two halves of the parser share: the cursor over the tokens and small readers.
 * The cursor never passes the END token, because nothing consumes it.
 */
#ifndef TN_TEXT_JINJA_PARSE_H
#define TN_TEXT_JINJA_PARSE_H

#include "text/jinja_ast.h"

typedef struct jinja_parser {
    jinja_source *source;
    const jinja_token *token;
    int depth, loops;
    jinja_signature *function; /* of the macro being read, or NULL */
} jinja_parser;

typedef struct jinja_node_list {
    const jinja_node **items;
    int64_t count, capacity;
} jinja_node_list;

tn_status jinja_parse_fail(const jinja_parser *parser, const char *expected);
tn_status jinja_new_node(jinja_parser *parser, jinja_node_kind kind, jinja_node **node);
tn_status jinja_node_list_add(jinja_parser *parser, jinja_node_list *list, const jinja_node *node);
/* One level of nesting deeper; undone with depth--. Parsing stops at the first failure, so only success undoes
 * it. */
tn_status jinja_parse_enter(jinja_parser *parser);
bool jinja_at_operator(const jinja_parser *parser, const char *text);
bool jinja_at_name(const jinja_parser *parser, const char *text);
bool jinja_accept_operator(jinja_parser *parser, const char *text);
bool jinja_accept_name(jinja_parser *parser, const char *text);
tn_status jinja_expect_operator(jinja_parser *parser, const char *text);
tn_status jinja_expect_name(jinja_parser *parser, const char **name);

/* How jinja_parse_tuple reads its items. */
typedef enum jinja_tuple_mode {
    JINJA_WITH_CONDITION,   /* expressions */
    JINJA_NO_CONDITION,     /* expressions without "a if b else c" */
    JINJA_TARGET,           /* names and literals only */
    JINJA_TARGET_NAMESPACE, /* and name.attribute */
    JINJA_IN_PARENTHESES,   /* expressions; may be empty */
} jinja_tuple_mode;
/* One item, or several with commas between as a TUPLE. `end`: a name that ends a trailing comma, or NULL. */
tn_status jinja_parse_tuple(jinja_parser *parser, jinja_tuple_mode mode, const char *end,
                            const jinja_node **node);
tn_status jinja_parse_expression(jinja_parser *parser, const jinja_node **node);
/* "| a | b(…)" over the text of a block; *node is NULL where there is none. `inside` = the first name has no
 * bar. */
tn_status jinja_parse_filter_chain(jinja_parser *parser, bool inside, const jinja_node **node);

#endif
