/* jinja_tests.c: what may stand behind "is", and in select and its kin by name. */
#include <string.h>

#include "text/jinja_string.h"

static bool is_defined(const jinja_value *v) { return v->kind != JINJA_UNDEFINED; }
static bool is_undefined(const jinja_value *v) { return v->kind == JINJA_UNDEFINED; }
static bool is_none(const jinja_value *v) { return v->kind == JINJA_NONE; }
static bool is_boolean(const jinja_value *v) { return v->kind == JINJA_BOOLEAN; }
static bool is_true(const jinja_value *v) { return v->kind == JINJA_BOOLEAN && v->boolean; }
static bool is_false(const jinja_value *v) { return v->kind == JINJA_BOOLEAN && !v->boolean; }
static bool is_integer(const jinja_value *v) { return v->kind == JINJA_INTEGER || v->kind == JINJA_BIG; }
static bool is_float(const jinja_value *v) { return v->kind == JINJA_FLOAT; }
static bool is_number(const jinja_value *v) { return jinja_is_number(v) || v->kind == JINJA_BIG; }
static bool is_string(const jinja_value *v) { return v->kind == JINJA_STRING; }
static bool is_mapping(const jinja_value *v) { return v->kind == JINJA_DICT; }
static bool is_iterable(const jinja_value *v) {
    return is_undefined(v) || is_string(v) || (v->kind >= JINJA_LIST && v->kind <= JINJA_ITERATOR) ||
           v->kind == JINJA_LOOP;
}
static bool is_sequence(const jinja_value *v) {
    return is_iterable(v) && v->kind != JINJA_VIEW && v->kind != JINJA_ITERATOR && v->kind != JINJA_LOOP;
}
static bool is_callable(const jinja_value *v) {
    return is_undefined(v) || v->kind == JINJA_LOOP || v->kind >= JINJA_JOINER;
}
static bool is_escaped(const jinja_value *v) {
    (void)v; /* nothing is: automatic escaping is off */
    return false;
}

static const struct {
    const char *name;
    bool (*holds)(const jinja_value *value);
} plain_tests[] = {
    {"defined", is_defined},   {"undefined", is_undefined}, {"none", is_none},       {"boolean", is_boolean},
    {"true", is_true},         {"false", is_false},         {"integer", is_integer}, {"float", is_float},
    {"number", is_number},     {"string", is_string},       {"mapping", is_mapping}, {"iterable", is_iterable},
    {"sequence", is_sequence}, {"callable", is_callable},   {"escaped", is_escaped},
};

/* Tests with one argument, by the operator they stand for ("is" = the same object). */
static const struct {
    const char *name, *operator_text;
} comparisons[] = {
    {"==", "=="},      {"eq", "=="},         {"equalto", "=="}, {"!=", "!="}, {"ne", "!="},     {">", ">"},
    {"gt", ">"},       {"greaterthan", ">"}, {">=", ">="},      {"ge", ">="}, {"<", "<"},       {"lt", "<"},
    {"lessthan", "<"}, {"<=", "<="},         {"le", "<="},      {"in", "in"}, {"sameas", "is"},
};

static bool is_text(const jinja_string *string, const char *text) {
    return string->length == (int64_t)strlen(text) && memcmp(string->data, text, (size_t)string->length) == 0;
}

static bool is_same(const jinja_value *a, const jinja_value *b) {
    if (a->kind != b->kind) return false;
    if (a->kind == JINJA_NONE) return true;
    if (a->kind == JINJA_BOOLEAN) return a->boolean == b->boolean;
    return a->kind == JINJA_FLOAT ? a->real == b->real : a->integer == b->integer; /* pointers are as wide */
}

static tn_status compare(jinja_run *run, const char *operator_text, const jinja_value *value,
                         const jinja_value *other, bool *holds) {
    if (strcmp(operator_text, "in") == 0) return jinja_contains(run, other, value, holds);
    if (strcmp(operator_text, "is") == 0) {
        *holds = is_same(value, other);
        return TN_OK;
    }
    if (operator_text[0] == '<' || operator_text[0] == '>')
        return jinja_order(run, operator_text, value, other, holds);
    tn_status status = jinja_equal(run, value, other, holds);
    if (operator_text[0] == '!') *holds = !*holds;
    return status;
}

/* odd, even, divisibleby(n): value % n compared with `rest`. */
static tn_status has_remainder(jinja_run *run, const jinja_value *value, const jinja_value *divisor,
                               int64_t rest, bool *holds) {
    jinja_value remainder, wanted = JINJA_MAKE_INTEGER(rest);
    tn_status status = jinja_binary(run, '%', value, divisor, &remainder);
    return status == TN_OK ? jinja_equal(run, &remainder, &wanted, holds) : status;
}

bool jinja_has_test(const jinja_string *name) {
    static const char *const others[] = {"odd", "even", "divisibleby", "lower", "upper", "filter", "test"};
    for (size_t i = 0; i < sizeof plain_tests / sizeof *plain_tests; i++)
        if (is_text(name, plain_tests[i].name)) return true;
    for (size_t i = 0; i < sizeof comparisons / sizeof *comparisons; i++)
        if (is_text(name, comparisons[i].name)) return true;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (is_text(name, others[i])) return true;
    return false;
}

static tn_status other_test(jinja_run *run, const jinja_string *name, const jinja_value *value,
                            const jinja_call *call, bool *holds) {
    jinja_value two = JINJA_MAKE_INTEGER(2), text;
    if (is_text(name, "odd")) return has_remainder(run, value, &two, 1, holds);
    if (is_text(name, "even")) return has_remainder(run, value, &two, 0, holds);
    if (is_text(name, "divisibleby")) return has_remainder(run, value, &call->positional[0], 0, holds);
    bool lower = is_text(name, "lower");
    if (lower || is_text(name, "upper")) {
        tn_status status = jinja_to_string(run, value, &text);
        if (status == TN_OK)
            *holds = jinja_all_of_class(text.string, lower ? JINJA_LOWER_CASE : JINJA_UPPER_CASE);
        return status;
    }
    if (is_text(name, "filter") || is_text(name, "test")) {
        *holds = value->kind == JINJA_STRING &&
                 (is_text(name, "filter") ? jinja_has_filter(value->string) : jinja_has_test(value->string));
        return TN_OK;
    }
    return jinja_fail(run, "No test named '%.*s'.", (int)name->length, name->data);
}

tn_status jinja_apply_test(jinja_run *run, const jinja_string *name, const jinja_value *value,
                           const jinja_call *call, bool *holds) {
    const char *operator_text = NULL;
    tn_status status = jinja_step(run, 1);
    if (status != TN_OK) return status;
    for (size_t i = 0; i < sizeof plain_tests / sizeof *plain_tests; i++) {
        if (!is_text(name, plain_tests[i].name)) continue;
        if (call->count > 0 || call->keyword_count > 0)
            return jinja_fail(run, "the test '%s' takes no arguments", plain_tests[i].name);
        *holds = plain_tests[i].holds(value);
        return TN_OK;
    }
    for (size_t i = 0; i < sizeof comparisons / sizeof *comparisons; i++)
        if (is_text(name, comparisons[i].name)) operator_text = comparisons[i].operator_text;
    bool one = operator_text || is_text(name, "divisibleby");
    if (jinja_has_test(name) && (call->count != one || call->keyword_count > 0))
        return jinja_fail(run, "the test '%.*s' takes %d argument(s)", (int)name->length, name->data, one);
    if (operator_text) return compare(run, operator_text, value, &call->positional[0], holds);
    return other_test(run, name, value, call, holds);
}
