/* jinja_string.h: the string operations that methods and filters share. */
#ifndef TN_TEXT_JINJA_STRING_H
#define TN_TEXT_JINJA_STRING_H

#include "text/jinja_run.h"

typedef enum jinja_case_mode {
    JINJA_LOWER,
    JINJA_SWAPCASE,
    JINJA_UPPER,
    JINJA_CAPITALIZE,
    JINJA_TITLE,        /* Python's: a capital behind every character without case */
    JINJA_TITLE_FILTER, /* Jinja's: a capital behind white space and opening brackets */
} jinja_case_mode;
tn_status jinja_case(jinja_run *run, const jinja_string *string, jinja_case_mode mode, jinja_value *out);

typedef enum jinja_class {
    JINJA_ALPHA,
    JINJA_DECIMAL,
    JINJA_DIGIT,
    JINJA_NUMERIC,
    JINJA_ALNUM,
    JINJA_SPACE,
    JINJA_ASCII,
    JINJA_LOWER_CASE,
    JINJA_UPPER_CASE,
} jinja_class;
/* Python's "".isalpha() and its like: all characters are, and there is one. */
bool jinja_all_of_class(const jinja_string *string, jinja_class class);
bool jinja_is_word(uint32_t code_point); /* \w of Python's re */

/* First place of `what` in [from, to) of `text` in bytes, -1 where it is not. Linear in time. */
int64_t jinja_search(const jinja_string *text, int64_t from, int64_t to, const jinja_string *what);
/* Without the characters in `characters` (NULL: white space) at its ends. */
tn_status jinja_strip(jinja_run *run, const jinja_string *string, const jinja_string *characters, bool left,
                      bool right, jinja_value *out);
/* `count` < 0: all. */
tn_status jinja_replace(jinja_run *run, const jinja_string *string, const jinja_string *old,
                        const jinja_string *replacement, int64_t count, jinja_value *out);
tn_status jinja_split_lines(jinja_run *run, const jinja_string *string, bool keep_ends, jinja_value *out);
tn_status jinja_center(jinja_run *run, jinja_string *string, int64_t width, const jinja_string *fill,
                       jinja_value *out);

#endif
