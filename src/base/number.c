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

/* Digits and exponent as "d.ddde±xx" with the fewest digits that read back as `value` (finite, >= 0). Up to
 * the digits that every number of the type carries (15, 6) more digits only add zeros, so the search starts
 * there; subnormal numbers carry fewer. */
static void find_shortest(double value, bool is_float, char text[40]) {
    bool subnormal = value < (is_float ? 0x1p-126 : 0x1p-1022);
    int digits = subnormal ? 1 : is_float ? 6 : 15, most = is_float ? 9 : 17, exponent;
    bool power_of_two = frexp(value, &exponent) == 0.5;
    for (;; digits++) {
        snprintf(text, 40, "%.*e", digits - 1, value);
        if (digits == most || (is_float ? strtof(text, NULL) == (float)value : strtod(text, NULL) == value))
            return;
        /* Numbers lie twice as dense below a power of two: the decimal above may fit where the nearest does
         * not. */
        char *last = &text[digits > 1 ? digits : 0];
        if (!power_of_two || *last == '9') continue;
        ++*last;
        if (is_float ? strtof(text, NULL) == (float)value : strtod(text, NULL) == value) return;
    }
}

/* "d.ddde±xx" as Python writes it: without an exponent where that lies in -4 … 15. */
static void lay_out(const char *scientific, bool negative, char out[40]) {
    char digits[24];
    int count = 0, exponent = atoi(strchr(scientific, 'e') + 1), at = 0;
    for (const char *p = scientific; *p != 'e'; p++)
        if (*p != '.') digits[count++] = *p;
    while (count > 1 && digits[count - 1] == '0') count--;
    bool fixed = exponent >= -4 && exponent < 16;
    int whole = fixed ? exponent + 1 : 1; /* digits before the point */
    if (negative) out[at++] = '-';
    if (whole <= 0) out[at++] = '0';
    for (int i = 0; i < whole; i++) out[at++] = i < count ? digits[i] : '0';
    if (fixed || count > 1) out[at++] = '.';
    for (int i = whole; i < 0; i++) out[at++] = '0';
    for (int i = whole > 0 ? whole : 0; i < count; i++) out[at++] = digits[i];
    if (fixed && whole >= count) out[at++] = '0';
    out[at] = '\0';
    if (!fixed) snprintf(out + at, (size_t)(40 - at), "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
}

static const char *shortest_text(double value, bool is_float, char out[40]) {
    char scientific[40];
    if (!isfinite(value)) return strcpy(out, isnan(value) ? "nan" : value < 0 ? "-inf" : "inf");
    locale_t before = enter_c_locale();
    find_shortest(fabs(value), is_float, scientific);
    uselocale(before);
    lay_out(scientific, signbit(value) != 0, out);
    return out;
}

const char *tn_real_text(double value, char out[40]) { return shortest_text(value, false, out); }
const char *tn_float_text(float value, char out[40]) { return shortest_text((double)value, true, out); }
