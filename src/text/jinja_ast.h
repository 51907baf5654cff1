/* jinja_ast.h: tokens and syntax tree of a chat template. Both live in the arena of the compiled
 * template and are immutable afterwards. Depth of nesting is bounded while parsing.
 */
#ifndef TN_TEXT_JINJA_AST_H
#define TN_TEXT_JINJA_AST_H

#include "text/jinja_value.h"

typedef enum jinja_token_kind {
    JINJA_T_END,
    JINJA_T_DATA,
    JINJA_T_VARIABLE_BEGIN,
    JINJA_T_VARIABLE_END,
    JINJA_T_BLOCK_BEGIN,
    JINJA_T_BLOCK_END,
    JINJA_T_NAME,
    JINJA_T_STRING,
    JINJA_T_INTEGER,
    JINJA_T_FLOAT,
    JINJA_T_OPERATOR, /* text holds it: "+", "**", "==", … */
} jinja_token_kind;

typedef struct jinja_token {
    jinja_token_kind kind;
    int line;
    const char *text; /* terminated; names and operators are interned */
    int64_t length;
    int64_t integer;
    double real;
} jinja_token;

typedef enum jinja_node_kind {
    /* statements; `next` chains a body */
    JINJA_N_DATA,         /* text */
    JINJA_N_OUTPUT,       /* a */
    JINJA_N_FOR,          /* a target, b iterable, c test (or NULL), body, otherwise; flag = recursive */
    JINJA_N_IF,           /* a condition, body, otherwise (an elif is an IF in otherwise) */
    JINJA_N_SET,          /* a target, b value */
    JINJA_N_SET_BLOCK,    /* a target, b filter chain over a BLOCK_TEXT (or NULL), body */
    JINJA_N_MACRO,        /* name, signature, body */
    JINJA_N_CALL_BLOCK,   /* signature, a the CALL, body */
    JINJA_N_FILTER_BLOCK, /* a filter chain over a BLOCK_TEXT, body */
    JINJA_N_WITH,         /* items: targets and values alternating; body */
    JINJA_N_GENERATION,   /* body */
    JINJA_N_BREAK,
    JINJA_N_CONTINUE,
    JINJA_N_HIDE, /* operators: names of this scope that are undefined until they are set */
    /* expressions */
    JINJA_N_CONSTANT,            /* value */
    JINJA_N_NAME,                /* name */
    JINJA_N_NAMESPACE_ATTRIBUTE, /* name, text = the attribute; a target only */
    JINJA_N_BLOCK_TEXT,          /* the captured text a filter block works on */
    JINJA_N_LIST,                /* items */
    JINJA_N_TUPLE,               /* items */
    JINJA_N_DICT,                /* items: keys and values alternating */
    JINJA_N_ATTRIBUTE,           /* a, value = name */
    JINJA_N_ITEM,                /* a, b */
    JINJA_N_SLICE,               /* a; items: start, stop, step, each may be NULL */
    JINJA_N_CALL,                /* a, arguments */
    JINJA_N_FILTER,              /* a, value = name, arguments */
    JINJA_N_TEST,                /* a, value = name, arguments */
    JINJA_N_NOT,                 /* a */
    JINJA_N_NEGATE,              /* a */
    JINJA_N_POSITIVE,            /* a */
    JINJA_N_AND,                 /* a, b */
    JINJA_N_OR,                  /* a, b */
    JINJA_N_CONDITION,           /* a if b else c (c may be NULL) */
    JINJA_N_COMPARE,             /* items: operands; operators: one between each two */
    JINJA_N_BINARY,              /* a, b, operation */
    JINJA_N_CONCAT,              /* items */
} jinja_node_kind;

typedef struct jinja_node jinja_node;

typedef struct jinja_keyword {
    const char *name;
    int64_t length;
    const jinja_node *value;
} jinja_keyword;

typedef struct jinja_arguments {
    const jinja_node **positional;
    int64_t count;
    const jinja_keyword *keywords;
    int64_t keyword_count;
    const jinja_node *star, *double_star; /* *list, **dict; NULL where absent */
} jinja_arguments;

typedef struct jinja_signature {
    const char **names;
    const jinja_node **defaults; /* NULL where there is none */
    int64_t count;
    bool uses_varargs, uses_kwargs, uses_caller; /* named in the body */
} jinja_signature;

struct jinja_node {
    jinja_node_kind kind;
    int line;
    char operation; /* BINARY: see jinja_binary */
    bool flag;
    const char *name; /* interned */
    const char *text;
    int64_t length;
    jinja_value value;
    const jinja_node *a, *b, *c;
    const jinja_node **items;
    const char **operators;
    int64_t count;
    const jinja_node *body, *otherwise; /* first statement of each, or NULL */
    const jinja_node *next;
    const jinja_arguments *arguments;
    const jinja_signature *signature;
};

/* Names the engine itself gives values to. */
typedef struct jinja_names {
    const char *loop, *caller, *varargs, *kwargs;
} jinja_names;

/* What compiling works with. */
typedef struct jinja_source {
    tn_arena *arena;
    const char *name;
    const char *text; /* newlines are \n, the last one dropped */
    int64_t length;
    const char **interned; /* every name once: equal names are equal pointers */
    int64_t interned_count, interned_capacity;
} jinja_source;

tn_status jinja_fail_at(const jinja_source *source, int line, const char *format, ...) TN_PRINTF(3, 4);
const char *jinja_intern(jinja_source *source, const char *text, int64_t length); /* NULL: out of memory */

/* Cuts the source into tokens (an END at the end); *tokens is the caller's to free. */
tn_status jinja_lex(jinja_source *source, jinja_token **tokens, int64_t *count);
tn_status jinja_parse(jinja_source *source, const jinja_token *tokens, const jinja_node **body);
/* What is decided about names before anything runs: HIDE statements, unknown filters and tests. */
tn_status jinja_settle_names(jinja_source *source, const jinja_node **body);

#endif
