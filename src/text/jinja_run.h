/* jinja_run.h: the state of one rendering and what evaluates in it: scopes, bounds, calls.
 *
 * Names are interned by the parser, so scopes compare pointers. A scope holds the variables set in it; a
 * lookup walks outward, then to the variables of the caller, then to the global functions.
 */
#ifndef TN_TEXT_JINJA_RUN_H
#define TN_TEXT_JINJA_RUN_H

#include "text/jinja_ast.h"
#include "text/jinja_value.h"
#include "text/template.h"

/* Bounds of one rendering. Depth counts nested evaluations; Python itself stops at about as many. */
enum {
    JINJA_MAX_STEPS = 20 * 1000 * 1000,
    JINJA_MAX_DEPTH = 600,
    JINJA_MAX_TEXT = 64 << 20,
    JINJA_MAX_RANGE = 100000, /* the sandbox's own */
};
#define JINJA_MAX_MEMORY ((int64_t)512 << 20)

typedef struct jinja_variable {
    const char *name;
    jinja_value value;
} jinja_variable;

typedef struct jinja_scope {
    struct jinja_scope *parent;
    jinja_variable *variables;
    int64_t count, capacity;
    bool captured; /* a macro refers to it: not to be reused */
} jinja_scope;

struct jinja_macro {
    const jinja_node *node; /* MACRO or CALL_BLOCK */
    jinja_scope *scope;     /* where it was defined */
};

typedef enum jinja_flow { JINJA_ONWARD, JINJA_BREAK, JINJA_CONTINUE } jinja_flow;

struct jinja_run {
    tn_arena arena;
    const char *name;         /* of the template */
    const jinja_names *names; /* interned */
    int line;
    int depth;
    int64_t steps;
    const struct tm *now;  /* what strftime_now tells; NULL = the clock */
    jinja_dict *variables; /* the caller's */
    jinja_scope *scope;
    jinja_flow flow;        /* is a loop being left? */
    jinja_value block_text; /* what a filter block works on */
    tn_str *out;            /* where output goes now: the rendering or a block being captured */
    tn_str *root;           /* the rendering */
    bool rejected;
    int generations;          /* blocks within each other … */
    int64_t generation_start; /* … and where the outermost began */
    tn_text_range *ranges;
    int64_t range_count, range_capacity;
};

/* TN_BAD_DATA: "<template>, line N: <message>". */
tn_status jinja_fail(jinja_run *run, const char *format, ...) TN_PRINTF(2, 3);
tn_status jinja_fail_undefined(jinja_run *run, const jinja_value *undefined);
/* Charges `count` steps. */
tn_status jinja_step(jinja_run *run, int64_t count);
tn_status jinja_enter(jinja_run *run); /* one level deeper; leave with run->depth-- */
tn_status jinja_take(jinja_run *run, void *pointer, int64_t count, int64_t bytes);

/* ---- Evaluation (jinja_eval.c, jinja_exec.c) ---- */
tn_status jinja_eval(jinja_run *run, const jinja_node *node, jinja_value *out);
tn_status jinja_exec(jinja_run *run, const jinja_node *body);
tn_status jinja_eval_call(jinja_run *run, const jinja_arguments *arguments, jinja_call *call);
/* Makes a scope inside `parent` the current one. */
tn_status jinja_open_scope(jinja_run *run, jinja_scope *parent);
tn_status jinja_set(jinja_run *run, const char *name, jinja_value value);
tn_status jinja_assign(jinja_run *run, const jinja_node *target, const jinja_value *value);
tn_status jinja_call_macro(jinja_run *run, const jinja_macro *macro, const jinja_call *call, jinja_value *out);
/* Reads on until a loop's list holds `count` items, where there are as many. */
tn_status jinja_loop_read(jinja_run *run, jinja_loop *loop, int64_t count);
/* loop(children) of a recursive loop. */
tn_status jinja_recurse(jinja_run *run, const jinja_loop *loop, const jinja_value *items, jinja_value *out);

/* ---- Calls, attributes (jinja_call.c, jinja_object.c) ---- */
tn_status jinja_invoke(jinja_run *run, const jinja_value *callee, const jinja_call *call, jinja_value *out);
tn_status jinja_invoke_builtin(jinja_run *run, const jinja_builtin *builtin, const jinja_value *self,
                               const jinja_call *call, jinja_value *out);
/* object.name and object[key]: each falls back to the other's way. */
tn_status jinja_get_attribute(jinja_run *run, const jinja_value *object, const jinja_value *name,
                              jinja_value *out);
tn_status jinja_get_item(jinja_run *run, const jinja_value *object, const jinja_value *key, jinja_value *out);
/* object.name without the way over items; *found tells whether there is one. */
tn_status jinja_find_attribute(jinja_run *run, const jinja_value *object, const jinja_string *name,
                               jinja_value *out, bool *found);
/* object[start:stop:step]; NONE for a bound left out. */
tn_status jinja_get_slice(jinja_run *run, const jinja_value *object, const jinja_value bounds[3],
                          jinja_value *out);

const jinja_builtin *jinja_find(const jinja_builtin *table, const char *name, int64_t length);
const jinja_builtin *jinja_string_method(const char *name, int64_t length);
const jinja_builtin *jinja_global(const char *name);
tn_status jinja_apply_filter(jinja_run *run, const jinja_string *name, const jinja_value *value,
                             const jinja_call *call, jinja_value *out);
tn_status jinja_apply_test(jinja_run *run, const jinja_string *name, const jinja_value *value,
                           const jinja_call *call, bool *holds);
bool jinja_has_filter(const jinja_string *name);
bool jinja_has_test(const jinja_string *name);
const jinja_builtin *jinja_sequence_filter(const jinja_string *name);
/* Integer argument: `otherwise` where not given. Not an integer: error. */
tn_status jinja_argument_integer(jinja_run *run, const jinja_value *argument, int64_t otherwise, int64_t *out);
/* String argument, an error where it is none. */
tn_status jinja_argument_text(jinja_run *run, const jinja_value *argument, const char *what,
                              const jinja_string **out);

#endif
