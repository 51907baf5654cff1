/* testing.h: what the tests of files share: cmocka with the headers it needs before it, a scratch directory of
 * the running test program, and checks that say the library's own message. */
#ifndef TN_TESTS_TESTING_H
#define TN_TESTS_TESTING_H

/* cmocka.h wants the others before it. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

static inline void must(tn_status status) {
    if (status != TN_OK) fail_msg("%s (%s)", tn_error_message(), tn_error_remedy());
}

/* TENON_TEST_DEVICE=cuda runs the tests that ask on a card. */
static inline const char *test_device(void) {
    const char *name = getenv("TENON_TEST_DEVICE");
    return name ? name : "cpu";
}

/* The call failed with `wanted`, and the message holds `part`. */
static inline void must_fail(tn_status status, tn_status wanted, const char *part) {
    if (status == TN_OK) fail_msg("accepted, although \"%s\" was expected", part);
    if (status != wanted) fail_msg("status %d instead of %d: %s", (int)status, (int)wanted, tn_error_message());
    if (!strstr(tn_error_message(), part)) fail_msg("\"%s\" is not in: %s", part, tn_error_message());
}

static inline void must_match(const void *got, const void *want, int64_t bytes) {
    const unsigned char *a = got, *b = want;
    for (int64_t i = 0; i < bytes; i++)
        if (a[i] != b[i])
            fail_msg("byte %lld of %lld is %02x, not %02x", (long long)i, (long long)bytes, a[i], b[i]);
}

/* A path in this program's scratch directory; good until eight more were asked for. */
static inline const char *scratch(const char *name) {
    static char paths[8][512], directory[] = "/tmp/tenon-test-XXXXXX";
    static int next;
    char *path = paths[next++ % 8];
    if (strstr(directory, "XXXXXX") && !mkdtemp(directory)) fail_msg("no scratch directory");
    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

static inline void remove_scratch(void) {
    const char *path = scratch("");
    must(tn_remove_tree(path));
}

static inline const char *write_scratch(const char *name, const void *bytes, int64_t length) {
    const char *path = scratch(name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_true(length == 0 || fwrite(bytes, 1, (size_t)length, file) == (size_t)length);
    assert_int_equal(fclose(file), 0);
    return path;
}

#endif
