/* jinja_names.c: what Jinja decides about names while it compiles, in one walk over the finished tree.
 *
 * A body with a scope of its own that sets a name owns the name from its start: what reads it in there, in a
 * scope further in and before it is set, finds it undefined and does not see the caller's variable. (Not where
 * the body reads the name itself first, sets it under an if only, or a scope around it uses the name.) Such a
 * body begins with a HIDE.
 *
 * A filter or test that is not known is an error at once; in an if and directly under it, or in an inline if,
 * only when it is run.
 */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "text/jinja_parse.h"
#include "text/jinja_run.h"

enum { DEEPEST = 1000 };

typedef enum use { READ, WRITE, WRITE_UNDER_IF, READ_INSIDE } use;
typedef enum state { READ_INSIDE_ONLY = 1, OWN, HIDDEN } state;

typedef struct entry {
    const char *name; /* NULL: empty */
    state state;
} entry;

/* The names of one body, by open addressing. */
typedef struct body_names {
    const struct body_names *outer;
    entry *entries;
    int64_t count, slots; /* a power of two */
    int64_t hidden;
} body_names;

typedef struct walker {
    jinja_source *source;
    int depth;
} walker;

/* How a stretch of the tree is looked at. */
typedef struct look {
    body_names *names;
    bool under_if, inside; /* inside: in a scope of its own within the body */
} look;

/* ---- The names of a body ---- */

static entry *find(const body_names *names, const char *name) {
    uint64_t mask = (uint64_t)(names->slots - 1), at = tn_hash64((const char *)&name, sizeof name) & mask;
    while (names->entries[at].name && names->entries[at].name != name) at = (at + 1) & mask;
    return &names->entries[at];
}

static tn_status make_room(body_names *names) {
    body_names larger = *names;
    if (names->count * 2 < names->slots) return TN_OK;
    larger.slots = names->slots ? names->slots * 2 : 16;
    tn_status status = tn_alloc(&larger.entries, larger.slots, sizeof *larger.entries, "template names");
    if (status != TN_OK) return status;
    for (int64_t i = 0; i < names->slots; i++)
        if (names->entries[i].name) *find(&larger, names->entries[i].name) = names->entries[i];
    free(names->entries);
    *names = larger;
    return TN_OK;
}

static bool used_around(const body_names *names, const char *name) {
    for (names = names->outer; names; names = names->outer)
        if (names->slots > 0 && find(names, name)->state >= OWN) return true;
    return false;
}

static tn_status see(const look *at, const char *name, use how) {
    body_names *names = at->names;
    tn_status status = make_room(names);
    if (status != TN_OK) return status;
    entry *e = find(names, name);
    names->count += e->name == NULL;
    e->name = name;
    if (at->inside) how = READ_INSIDE;
    if (how == READ_INSIDE) {
        if (e->state == 0) e->state = READ_INSIDE_ONLY;
    } else if (e->state <= READ_INSIDE_ONLY) {
        bool hides = how == WRITE && e->state == READ_INSIDE_ONLY && !used_around(names, name);
        e->state = hides ? HIDDEN : OWN;
        names->hidden += hides;
    }
    return TN_OK;
}

/* ---- Expressions ---- */

static tn_status look_at(walker *w, const look *at, const jinja_node *node);

static tn_status look_at_arguments(walker *w, const look *at, const jinja_arguments *arguments) {
    tn_status status = TN_OK;
    for (int64_t i = 0; i < arguments->count; i++) TN_TRY(look_at(w, at, arguments->positional[i]));
    for (int64_t i = 0; i < arguments->keyword_count; i++) TN_TRY(look_at(w, at, arguments->keywords[i].value));
    TN_TRY(look_at(w, at, arguments->star));
    TN_TRY(look_at(w, at, arguments->double_star));
done:
    return status;
}

/* An expression. The chain of left operands may be as long as the template. */
static tn_status look_at(walker *w, const look *at, const jinja_node *node) {
    tn_status status = TN_OK;
    if (node && ++w->depth > DEEPEST) return jinja_fail_at(w->source, node->line, "nests too deeply");
    for (const jinja_node *n = node; n; n = n->a) {
        if (n->kind == JINJA_N_NAME || n->kind == JINJA_N_NAMESPACE_ATTRIBUTE) TN_TRY(see(at, n->name, READ));
        TN_TRY(look_at(w, at, n->b));
        TN_TRY(look_at(w, at, n->c));
        for (int64_t i = 0; i < n->count; i++) TN_TRY(look_at(w, at, n->items[i]));
        if (n->arguments) TN_TRY(look_at_arguments(w, at, n->arguments));
    }
    if (node) w->depth--;
done:
    return status;
}

static tn_status look_at_target(walker *w, const look *at, const jinja_node *target) {
    tn_status status = TN_OK;
    if (target->kind == JINJA_N_NAME) return see(at, target->name, at->under_if ? WRITE_UNDER_IF : WRITE);
    if (target->kind == JINJA_N_NAMESPACE_ATTRIBUTE) return see(at, target->name, READ);
    for (int64_t i = 0; i < target->count; i++) TN_TRY(look_at_target(w, at, target->items[i]));
done:
    return status;
}

/* ---- Statements ---- */

static tn_status look_at_body(walker *w, const look *at, const jinja_node *body);

/* What a statement says in the scope it stands in, before any body of its own. */
static tn_status look_at_statement(walker *w, const look *at, const jinja_node *node) {
    tn_status status = TN_OK;
    switch (node->kind) {
        case JINJA_N_OUTPUT: return look_at(w, at, node->a);
        case JINJA_N_FOR: return look_at(w, at, node->b);
        case JINJA_N_SET: TN_TRY(look_at(w, at, node->b)); return look_at_target(w, at, node->a);
        case JINJA_N_MACRO: return see(at, node->name, at->under_if ? WRITE_UNDER_IF : WRITE);
        case JINJA_N_CALL_BLOCK:
        case JINJA_N_FILTER_BLOCK: return look_at(w, at, node->a);
        case JINJA_N_WITH:
            for (int64_t i = 1; i < node->count; i += 2) TN_TRY(look_at(w, at, node->items[i]));
            break;
        default: break;
    }
done:
    return status;
}

static tn_status look_at_signature(walker *w, const look *at, const jinja_signature *signature) {
    tn_status status = TN_OK;
    for (int64_t i = 0; i < signature->count; i++) TN_TRY(see(at, signature->names[i], WRITE));
    for (int64_t i = 0; i < signature->count; i++) TN_TRY(look_at(w, at, signature->defaults[i]));
done:
    return status;
}

/* What a statement sets or reads in the scope it makes, before its body. */
static tn_status look_at_head(walker *w, const look *at, const jinja_node *node) {
    tn_status status = TN_OK;
    if (node->kind == JINJA_N_FOR) TN_TRY(look_at_target(w, at, node->a));
    for (int64_t i = 0; node->kind == JINJA_N_WITH && i < node->count; i += 2)
        TN_TRY(look_at_target(w, at, node->items[i]));
    if (node->signature) TN_TRY(look_at_signature(w, at, node->signature));
done:
    return status;
}

static bool has_scope(const jinja_node *node) {
    return node->kind != JINJA_N_IF &&
           (node->body || node->otherwise || node->kind == JINJA_N_FOR || node->kind == JINJA_N_SET_BLOCK);
}

static tn_status look_at_if(walker *w, const look *at, const jinja_node *node) {
    tn_status status = TN_OK;
    look under = *at;
    under.under_if = true;
    for (bool first = true; node; first = false) { /* an elif is an IF alone in `otherwise` */
        TN_TRY(look_at(w, first ? at : &under, node->a));
        TN_TRY(look_at_body(w, &under, node->body));
        const jinja_node *rest = node->otherwise;
        bool is_elif = rest && rest->kind == JINJA_N_IF && !rest->next;
        if (!is_elif) TN_TRY(look_at_body(w, &under, rest));
        node = is_elif ? rest : NULL;
    }
done:
    return status;
}

static tn_status look_at_body(walker *w, const look *at, const jinja_node *body) {
    tn_status status = TN_OK;
    look inside = *at;
    inside.inside = true;
    if (++w->depth > DEEPEST && body) return jinja_fail_at(w->source, body->line, "nests too deeply");
    for (const jinja_node *n = body; n; n = n->next) {
        if (n->kind == JINJA_N_IF) {
            TN_TRY(look_at_if(w, at, n));
            continue;
        }
        TN_TRY(look_at_statement(w, at, n));
        if (!has_scope(n)) continue;
        TN_TRY(look_at_head(w, &inside, n));
        if (n->kind == JINJA_N_FOR) TN_TRY(look_at(w, &inside, n->c));
        if (n->kind == JINJA_N_SET_BLOCK) TN_TRY(look_at(w, &inside, n->b));
        TN_TRY(look_at_body(w, &inside, n->body));
        TN_TRY(look_at_body(w, &inside, n->otherwise));
        if (n->kind == JINJA_N_SET_BLOCK) TN_TRY(look_at_target(w, at, n->a)); /* set behind its body */
    }
    w->depth--;
done:
    return status;
}

/* ---- Unknown filters and tests ---- */

static tn_status check(walker *w, const jinja_node *node, bool soft);

static tn_status check_arguments(walker *w, const jinja_arguments *arguments, bool soft) {
    tn_status status = TN_OK;
    for (int64_t i = 0; i < arguments->count; i++) TN_TRY(check(w, arguments->positional[i], soft));
    for (int64_t i = 0; i < arguments->keyword_count; i++) TN_TRY(check(w, arguments->keywords[i].value, soft));
    TN_TRY(check(w, arguments->star, soft));
    TN_TRY(check(w, arguments->double_star, soft));
done:
    return status;
}

static tn_status check_name(const walker *w, const jinja_node *node) {
    const jinja_string *name = node->value.string;
    bool filter = node->kind == JINJA_N_FILTER;
    if (filter ? jinja_has_filter(name) : jinja_has_test(name)) return TN_OK;
    return jinja_fail_at(w->source, node->line, "No %s named '%.*s'.", filter ? "filter" : "test",
                         (int)name->length, name->data);
}

/* `false and b`, `true or b`: b is not looked at. */
static bool is_decided(const jinja_node *node) {
    bool logic = node->kind == JINJA_N_AND || node->kind == JINJA_N_OR;
    return logic && node->a->kind == JINJA_N_CONSTANT &&
           jinja_truth(&node->a->value) == (node->kind == JINJA_N_OR);
}

static tn_status check(walker *w, const jinja_node *node, bool soft) {
    tn_status status = TN_OK;
    if (node && ++w->depth > DEEPEST) return jinja_fail_at(w->source, node->line, "nests too deeply");
    for (const jinja_node *n = node; n; n = n->a) {
        soft = soft || n->kind == JINJA_N_CONDITION;
        if ((n->kind == JINJA_N_FILTER || n->kind == JINJA_N_TEST) && !soft) TN_TRY(check_name(w, n));
        if (!is_decided(n)) TN_TRY(check(w, n->b, soft));
        TN_TRY(check(w, n->c, soft));
        for (int64_t i = 0; i < n->count; i++) TN_TRY(check(w, n->items[i], soft));
        if (n->arguments) TN_TRY(check_arguments(w, n->arguments, soft));
    }
    if (node) w->depth--;
done:
    return status;
}

/* ---- Every body in turn ---- */

static tn_status settle_body(walker *w, const body_names *outer, const jinja_node *owner,
                             const jinja_node **body);

/* Puts a HIDE before a body, for the names that it hides. */
static tn_status hide(walker *w, const body_names *names, const jinja_node **body) {
    jinja_node *node = tn_arena_take(w->source->arena, sizeof *node);
    const char **list = tn_arena_take(w->source->arena, names->hidden * (int64_t)sizeof *list);
    if (!node || !list) return tn_fail_memory(sizeof *node, "template syntax tree");
    node->kind = JINJA_N_HIDE;
    node->line = (*body)->line;
    node->operators = list;
    for (int64_t i = 0; i < names->slots; i++)
        if (names->entries[i].state == HIDDEN) list[node->count++] = names->entries[i].name;
    node->next = *body;
    *body = node;
    return TN_OK;
}

static tn_status settle_expressions(walker *w, const jinja_node *node, bool soft) {
    tn_status status = TN_OK;
    bool in_scope =
        node->kind == JINJA_N_FILTER_BLOCK || node->kind == JINJA_N_SET_BLOCK; /* is the filter run there? */
    if (node->kind != JINJA_N_FOR && node->kind != JINJA_N_WITH)
        TN_TRY(check(w, node->a, (soft && !in_scope) || node->kind == JINJA_N_IF));
    TN_TRY(check(w, node->b, soft && node->kind != JINJA_N_SET_BLOCK));
    if (node->kind == JINJA_N_FOR) TN_TRY(check(w, node->c, false));
    for (int64_t i = 1; node->kind == JINJA_N_WITH && i < node->count; i += 2)
        TN_TRY(check(w, node->items[i], soft));
    for (int64_t i = 0; node->signature && i < node->signature->count; i++)
        TN_TRY(check(w, node->signature->defaults[i], false));
done:
    return status;
}

/* The statements of a body whose names are known. */
static tn_status settle(walker *w, const body_names *names, const jinja_node *body, bool soft) {
    tn_status status = TN_OK;
    if (++w->depth > DEEPEST && body) return jinja_fail_at(w->source, body->line, "nests too deeply");
    for (const jinja_node *n = body; n; n = n->next) {
        TN_TRY(settle_expressions(w, n, soft));
        if (has_scope(n)) {
            TN_TRY(settle_body(w, names, n, &((jinja_node *)n)->body));
            TN_TRY(settle_body(w, names, NULL, &((jinja_node *)n)->otherwise));
            continue;
        }
        for (const jinja_node *i = n; i && i->kind == JINJA_N_IF;) {
            const jinja_node *rest = i->otherwise;
            bool is_elif = rest && rest->kind == JINJA_N_IF && !rest->next;
            TN_TRY(settle(w, names, i->body, true));
            if (!is_elif) TN_TRY(settle(w, names, rest, true));
            else TN_TRY(check(w, rest->a, true));
            i = is_elif ? rest : NULL;
        }
    }
    w->depth--;
done:
    return status;
}

static tn_status settle_body(walker *w, const body_names *outer, const jinja_node *owner,
                             const jinja_node **body) {
    tn_status status = TN_OK;
    body_names names = {.outer = outer};
    look at = {.names = &names};
    if (!*body) return TN_OK;
    const jinja_node *first = *body;
    if (owner) TN_TRY(look_at_head(w, &at, owner));
    TN_TRY(look_at_body(w, &at, first));
    if (names.hidden > 0) TN_TRY(hide(w, &names, body));
    status = settle(w, &names, first, false);
done:
    free(names.entries);
    return status;
}

tn_status jinja_settle_names(jinja_source *source, const jinja_node **body) {
    walker w = {.source = source};
    return settle_body(&w, NULL, NULL, body);
}
