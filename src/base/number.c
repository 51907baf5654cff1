/* number.c: text and numbers through libc, with the thread switched to the C locale meanwhile. libc rounds
 * correctly; the shortest text is found by printing with more and more digits until it reads back the same. */
#include "base/number.h"

#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static locale_t c_locale;
static pthread_once_t c_locale_once = PTHREAD_ONCE_INIT;
static void make_c_locale(void) { c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0); }

static locale_t enter_c_locale(void) {
    pthread_once(&c_locale_once, make_c_locale);
    return uselocale(c_locale);
}

static bool is_decimal(const char *text, int64_t length) {
    int64_t i = 0, digits = 0;
    if (i < length && (text[i] == '-' || text[i] == '+')) i++;
    for (; i < length && text[i] >= '0' && text[i] <= '9'; i++) digits++;
    if (i < length && text[i] == '.')
        for (i++; i < length && text[i] >= '0' && text[i] <= '9'; i++) digits++;
    if (digits == 0) return false;
    if (i == length) return true;
    if (text[i] != 'e' && text[i] != 'E') return false;
    i++;
    if (i < length && (text[i] == '-' || text[i] == '+')) i++;
    if (i == length) return false;
    for (; i < length; i++)
        if (text[i] < '0' || text[i] > '9') return false;
    return true;
}

bool tn_parse_real(const char *text, int64_t length, double *value) {
    char local[64], *copy = local; /* strtod wants a terminator, which the text need not have */
    if (!is_decimal(text, length)) return false;
    if (length >= (int64_t)sizeof local && !(copy = malloc((size_t)length + 1))) return false;
    memcpy(copy, text, (size_t)length);
    copy[length] = '\0';
    locale_t before = enter_c_locale();
    *value = strtod(copy, NULL);
    uselocale(before);
    if (copy != local) free(copy);
    return true;
}

bool tn_parse_integer(const char *text, int64_t length, int64_t *value) {
    int64_t i = 0, sum = 0; /* summed as a negative number, whose range is the larger one */
    bool negative = length > 0 && text[0] == '-';
    if (length > 0 && (text[0] == '-' || text[0] == '+')) i++;
    if (i == length) return false;
    for (; i < length; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        if (__builtin_mul_overflow(sum, (int64_t)10, &sum)) return false;
        if (__builtin_sub_overflow(sum, (int64_t)(text[i] - '0'), &sum)) return false;
    }
    if (!negative && sum == INT64_MIN) return false;
    *value = negative ? sum : -sum;
    return true;
}
