/* number.h: decimal text to numbers and back, the same under every locale (strtod and printf alone would
 * read and write a comma where LC_NUMERIC says so). */
#ifndef TN_BASE_NUMBER_H
#define TN_BASE_NUMBER_H

#include <stdbool.h>
#include <stdint.h>

/* Decimal text (sign, digits, point, exponent; all of it must be used) to the nearest double; beyond the range:
 * ±Inf. */
bool tn_parse_real(const char *text, int64_t length, double *value);
/* Decimal digits with an optional sign; false where they do not fit in 64 bits or are none. */
bool tn_parse_integer(const char *text, int64_t length, int64_t *value);
/* Python's repr of a float: "1.0", "1e-05", "nan", "-inf": the shortest text that reads back the same. */
const char *tn_real_text(double value, char out[40]);
/* The same for a float: reads back as the same float. */
const char *tn_float_text(float value, char out[40]);

#endif
