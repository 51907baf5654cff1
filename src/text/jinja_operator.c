/* jinja_operator.c: Python's ==, <, in and arithmetic on template values. Integers are 64 bits wide here;
 * what would leave them is an error, never a wrapped number. */
#include <math.h>
#include <string.h>

#include "text/jinja_string.h"

static tn_status equal_lists(jinja_run *run, const jinja_list *a, const jinja_list *b, bool *equal) {
    tn_status status = TN_OK;
    *equal = a->count == b->count;
    for (int64_t i = 0; *equal && i < a->count; i++)
        TN_TRY(jinja_equal(run, &a->items[i], &b->items[i], equal));
done:
    return status;
}

static tn_status equal_dicts(jinja_run *run, const jinja_dict *a, const jinja_dict *b, bool *equal) {
    tn_status status = TN_OK;
    *equal = a->count == b->count;
    for (int64_t i = 0; *equal && i < a->count; i++) {
        jinja_value *other;
        TN_TRY(jinja_dict_get(run, b, a->pairs[i].key, &other));
        *equal = other != NULL;
        if (other) TN_TRY(jinja_equal(run, &a->pairs[i].value, other, equal));
    }
done:
    return status;
}

static bool equal_numbers(const jinja_value *a, const jinja_value *b) {
    if (jinja_is_integer(a) && jinja_is_integer(b)) return jinja_integer(a) == jinja_integer(b);
    return jinja_real(a) == jinja_real(b);
}

static tn_status equal_ranges(const jinja_range *a, const jinja_range *b, bool *equal) {
    *equal = a->count == b->count &&
             (a->count == 0 || (a->start == b->start && (a->count == 1 || a->step == b->step)));
    return TN_OK;
}

tn_status jinja_equal(jinja_run *run, const jinja_value *a, const jinja_value *b, bool *equal) {
    tn_status status = TN_OK;
    *equal = false;
    TN_TRY(jinja_step(run, 1)); /* lists that hold each other twice over are as many as 2^depth */
    if (jinja_is_number(a) && jinja_is_number(b)) {
        *equal = equal_numbers(a, b);
        return TN_OK;
    }
    if (a->kind != b->kind) return TN_OK;
    TN_TRY(jinja_enter(run));
    switch (a->kind) {
        case JINJA_UNDEFINED:
        case JINJA_NONE: *equal = true; break;
        case JINJA_STRING:
        case JINJA_BIG:
            TN_TRY(jinja_step(run, a->string->length / 64));
            *equal = a->string->length == b->string->length &&
                     memcmp(a->string->data, b->string->data, (size_t)a->string->length) == 0;
            break;
        case JINJA_LIST:
        case JINJA_TUPLE: TN_TRY(equal_lists(run, a->list, b->list, equal)); break;
        case JINJA_DICT: TN_TRY(equal_dicts(run, a->dict, b->dict, equal)); break;
        case JINJA_RANGE: TN_TRY(equal_ranges(a->range, b->range, equal)); break;
        default: *equal = a->dict == b->dict; /* the same object: all of these are pointers */
    }
    run->depth--;
done:
    return status;
}

/* -1, 0, 1 for a before, equal to, behind b; 2 where neither holds (NaN). */
static tn_status compare(jinja_run *run, const char *operator_text, const jinja_value *a, const jinja_value *b,
                         int *order) {
    tn_status status = TN_OK;
    if (jinja_is_integer(a) && jinja_is_integer(b)) {
        int64_t x = jinja_integer(a), y = jinja_integer(b);
        *order = (x > y) - (x < y);
    } else if (jinja_is_number(a) && jinja_is_number(b)) {
        double x = jinja_real(a), y = jinja_real(b);
        *order = x < y ? -1 : x > y ? 1 : x == y ? 0 : 2;
    } else if (a->kind == JINJA_STRING && b->kind == JINJA_STRING) {
        int64_t n = a->string->length < b->string->length ? a->string->length : b->string->length;
        TN_TRY(jinja_step(run, n / 64));
        int bytes = memcmp(a->string->data, b->string->data, (size_t)n); /* UTF-8 sorts as its code points do */
        int64_t longer = a->string->length - b->string->length;
        *order = bytes ? (bytes > 0) - (bytes < 0) : (longer > 0) - (longer < 0);
    } else if (a->kind == b->kind && (a->kind == JINJA_LIST || a->kind == JINJA_TUPLE)) {
        TN_TRY(jinja_enter(run));
        int64_t n = a->list->count < b->list->count ? a->list->count : b->list->count, i = 0;
        bool equal = true;
        for (; i < n; i++) {
            TN_TRY(jinja_equal(run, &a->list->items[i], &b->list->items[i], &equal));
            if (!equal) break;
        }
        if (i < n) TN_TRY(compare(run, operator_text, &a->list->items[i], &b->list->items[i], order));
        else *order = (a->list->count > b->list->count) - (a->list->count < b->list->count);
        run->depth--;
    } else if (a->kind == JINJA_UNDEFINED || b->kind == JINJA_UNDEFINED) {
        status = jinja_fail_undefined(run, a->kind == JINJA_UNDEFINED ? a : b);
    } else {
        status = jinja_fail(run, "'%s' not supported between instances of '%s' and '%s'", operator_text,
                            jinja_type_name(a), jinja_type_name(b));
    }
done:
    return status;
}

tn_status jinja_order(jinja_run *run, const char *operator_text, const jinja_value *a, const jinja_value *b,
                      bool *holds) {
    int order = 0;
    tn_status status = jinja_step(run, 1);
    if (status == TN_OK) status = compare(run, operator_text, a, b, &order);
    bool or_equal = operator_text[1] == '=';
    *holds = order == (operator_text[0] == '<' ? -1 : 1) || (or_equal && order == 0);
    return status;
}

static tn_status merge_sort(jinja_run *run, jinja_pair *pairs, jinja_pair *scratch, int64_t count,
                            bool reverse) {
    tn_status status = TN_OK;
    int64_t half = count / 2;
    if (count < 2) return TN_OK;
    TN_TRY(merge_sort(run, pairs, scratch, half, reverse));
    TN_TRY(merge_sort(run, pairs + half, scratch, count - half, reverse));
    memcpy(scratch, pairs, (size_t)count * sizeof *pairs);
    for (int64_t i = 0, j = half, k = 0; k < count; k++) {
        bool second = i == half;
        if (i < half && j < count)
            TN_TRY(
                jinja_order(run, "<", &scratch[reverse ? i : j].key, &scratch[reverse ? j : i].key, &second));
        pairs[k] = second ? scratch[j++] : scratch[i++];
    }
done:
    return status;
}

tn_status jinja_sort(jinja_run *run, jinja_pair *pairs, int64_t count, bool reverse) {
    jinja_pair *scratch;
    tn_status status = jinja_take(run, &scratch, count, sizeof *scratch);
    return status == TN_OK ? merge_sort(run, pairs, scratch, count, reverse) : status;
}

static tn_status contains_text(jinja_run *run, const jinja_string *text, const jinja_value *item, bool *found) {
    if (item->kind != JINJA_STRING)
        return jinja_fail(run, "'in <string>' requires string as left operand, not %s", jinja_type_name(item));
    *found = jinja_search(text, 0, text->length, item->string) >= 0;
    return jinja_step(run, text->length / 64);
}

tn_status jinja_contains(jinja_run *run, const jinja_value *container, const jinja_value *item, bool *found) {
    tn_status status = TN_OK;
    *found = false;
    if (container->kind == JINJA_STRING) return contains_text(run, container->string, item, found);
    const jinja_dict *dict = container->kind == JINJA_DICT ? container->dict
                             : container->kind == JINJA_VIEW && container->view->part == JINJA_KEYS
                                 ? container->view->dict
                                 : NULL;
    if (dict) {
        jinja_value *value;
        TN_TRY(jinja_dict_get(run, dict, *item, &value));
        *found = value != NULL;
        goto done;
    }
    if (container->kind == JINJA_ITERATOR) { /* reads up to the item found, as Python does */
        jinja_iterator *iterator = container->iterator;
        while (!*found && iterator->next < iterator->list.count)
            TN_TRY(jinja_equal(run, &iterator->list.items[iterator->next++], item, found));
        goto done;
    }
    bool iterable =
        (container->kind >= JINJA_LIST && container->kind <= JINJA_RANGE) || container->kind == JINJA_UNDEFINED;
    if (!iterable) return jinja_fail(run, "argument of type '%s' is not iterable", jinja_type_name(container));
    jinja_list items;
    TN_TRY(jinja_iterate(run, container, &items));
    for (int64_t i = 0; i < items.count && !*found; i++) {
        TN_TRY(jinja_step(run, 1));
        TN_TRY(jinja_equal(run, &items.items[i], item, found));
    }
done:
    return status;
}

/* ---- Arithmetic ---- */

static tn_status overflow(jinja_run *run) { return jinja_fail(run, "an integer beyond 64 bits"); }

static tn_status integer_power(jinja_run *run, int64_t base, int64_t exponent, jinja_value *out) {
    int64_t result = 1;
    if (exponent < 0) {
        if (base == 0) return jinja_fail(run, "0.0 cannot be raised to a negative power");
        *out = JINJA_MAKE_FLOAT(pow((double)base, (double)exponent));
        return TN_OK;
    }
    for (;;) {
        if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) return overflow(run);
        exponent >>= 1;
        if (exponent == 0) break;
        if (__builtin_mul_overflow(base, base, &base)) return overflow(run);
    }
    *out = JINJA_MAKE_INTEGER(result);
    return TN_OK;
}

static tn_status integers(jinja_run *run, char operation, int64_t a, int64_t b, jinja_value *out) {
    int64_t result = 0;
    bool too_large = false;
    switch (operation) {
        case '+': too_large = __builtin_add_overflow(a, b, &result); break;
        case '-': too_large = __builtin_sub_overflow(a, b, &result); break;
        case '*': too_large = __builtin_mul_overflow(a, b, &result); break;
        case 'p': return integer_power(run, a, b, out);
        case '/':
            if (b == 0) return jinja_fail(run, "division by zero");
            *out = JINJA_MAKE_FLOAT((double)a / (double)b);
            return TN_OK;
        default: /* floor division and its remainder, which has the divisor's sign */
            if (b == 0)
                return jinja_fail(run, "integer %s by zero",
                                  operation == '%' ? "modulo" : "division or modulo");
            if (b == -1) {
                too_large = operation == 'f' && __builtin_sub_overflow((int64_t)0, a, &result);
                break;
            }
            result = operation == 'f' ? a / b - ((a % b != 0) && ((a < 0) != (b < 0))) : a % b;
            if (operation == '%' && result != 0 && (result < 0) != (b < 0)) result += b;
    }
    if (too_large) return overflow(run);
    *out = JINJA_MAKE_INTEGER(result);
    return TN_OK;
}

static tn_status reals(jinja_run *run, char operation, double a, double b, jinja_value *out) {
    double result;
    if (b == 0 && (operation == '/' || operation == 'f' || operation == '%'))
        return jinja_fail(run, operation == '/'   ? "float division by zero"
                               : operation == 'f' ? "float floor division by zero"
                                                  : "float modulo");
    double remainder = operation == 'f' || operation == '%' ? fmod(a, b) : 0;
    switch (operation) {
        case '+': result = a + b; break;
        case '-': result = a - b; break;
        case '*': result = a * b; break;
        case '/': result = a / b; break;
        case 'p':
            if (a < 0 && b != floor(b)) return jinja_fail(run, "a complex number");
            if (a == 0 && b < 0) return jinja_fail(run, "0.0 cannot be raised to a negative power");
            result = pow(a, b);
            if (isinf(result) && isfinite(a) && isfinite(b))
                return jinja_fail(run, "(34, 'Numerical result out of range')");
            break;
        case '%':
            result = remainder != 0 && (remainder < 0) != (b < 0) ? remainder + b : remainder;
            if (result == 0) result = copysign(0, b);
            break;
        default:
            result = (a - remainder) / b;
            if (remainder != 0 && (remainder < 0) != (b < 0)) result -= 1;
            result = result == 0 ? copysign(0, a / b) : floor(result) + (result - floor(result) > 0.5);
    }
    *out = JINJA_MAKE_FLOAT(result);
    return TN_OK;
}

static tn_status concatenate(jinja_run *run, const jinja_value *a, const jinja_value *b, jinja_value *out) {
    tn_status status = TN_OK;
    if (a->kind == JINJA_STRING) {
        int64_t length = a->string->length + b->string->length;
        char *text;
        if (length > JINJA_MAX_TEXT) return jinja_fail(run, "a text longer than %d MiB", JINJA_MAX_TEXT >> 20);
        TN_TRY(jinja_take(run, &text, length, 1));
        if (a->string->length > 0) memcpy(text, a->string->data, (size_t)a->string->length);
        if (b->string->length > 0) memcpy(text + a->string->length, b->string->data, (size_t)b->string->length);
        TN_TRY(jinja_make_view(run, text, length, out));
        goto done;
    }
    jinja_builder list = {0};
    for (int64_t i = 0; i < a->list->count; i++) TN_TRY(jinja_push(run, &list, a->list->items[i]));
    for (int64_t i = 0; i < b->list->count; i++) TN_TRY(jinja_push(run, &list, b->list->items[i]));
    TN_TRY(jinja_make_list(run, a->kind, list.items, list.count, out));
done:
    return status;
}

static tn_status repeat(jinja_run *run, const jinja_value *value, int64_t times, jinja_value *out) {
    tn_status status = TN_OK;
    if (value->kind == JINJA_STRING) {
        tn_str text = {0};
        jinja_put_times(&text, value->string->data, value->string->length, times);
        return jinja_make_from(run, &text, out);
    }
    jinja_builder list = {0};
    for (int64_t i = 0; i < times && value->list->count > 0; i++)
        for (int64_t j = 0; j < value->list->count; j++) TN_TRY(jinja_push(run, &list, value->list->items[j]));
    TN_TRY(jinja_make_list(run, value->kind, list.items, list.count, out));
done:
    return status;
}

static bool is_sequence(const jinja_value *value) {
    return value->kind == JINJA_STRING || value->kind == JINJA_LIST || value->kind == JINJA_TUPLE;
}

tn_status jinja_binary(jinja_run *run, char operation, const jinja_value *a, const jinja_value *b,
                       jinja_value *out) {
    static const struct {
        char operation;
        const char *text;
    } texts[] = {{'+', "+"}, {'-', "-"}, {'*', "*"}, {'/', "/"}, {'f', "//"}, {'%', "%"}, {'p', "** or pow()"}};
    if (a->kind == JINJA_STRING && operation == '%') return jinja_percent(run, a->string, b, out);
    if (jinja_is_integer(a) && jinja_is_integer(b))
        return integers(run, operation, jinja_integer(a), jinja_integer(b), out);
    if (jinja_is_number(a) && jinja_is_number(b))
        return reals(run, operation, jinja_real(a), jinja_real(b), out);
    if (operation == '+' && is_sequence(a) && a->kind == b->kind) return concatenate(run, a, b, out);
    if (operation == '*' && is_sequence(a) && jinja_is_integer(b)) return repeat(run, a, jinja_integer(b), out);
    if (operation == '*' && is_sequence(b) && jinja_is_integer(a)) return repeat(run, b, jinja_integer(a), out);
    if (a->kind == JINJA_UNDEFINED || b->kind == JINJA_UNDEFINED)
        return jinja_fail_undefined(run, a->kind == JINJA_UNDEFINED ? a : b);
    if (operation == '+' && is_sequence(a))
        return jinja_fail(run, "can only concatenate %s (not \"%s\") to %s", jinja_type_name(a),
                          jinja_type_name(b), jinja_type_name(a));
    const char *text = "";
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].operation == operation) text = texts[i].text;
    return jinja_fail(run, "unsupported operand type(s) for %s: '%s' and '%s'", text, jinja_type_name(a),
                      jinja_type_name(b));
}

tn_status jinja_negate(jinja_run *run, const jinja_value *a, jinja_value *out) {
    if (a->kind == JINJA_FLOAT) {
        *out = JINJA_MAKE_FLOAT(-a->real);
        return TN_OK;
    }
    if (jinja_is_integer(a)) return integers(run, '-', 0, jinja_integer(a), out);
    if (a->kind == JINJA_UNDEFINED) return jinja_fail_undefined(run, a);
    return jinja_fail(run, "bad operand type for unary -: '%s'", jinja_type_name(a));
}
