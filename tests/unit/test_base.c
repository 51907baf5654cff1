/* test_base.c: the ground everything stands on: messages, checked memory, text, atomic files, random numbers,
 * hashes and 16-bit floats. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
/* clang-format on */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/dtype.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/rng.h"

/* ---- Status ---- */

static void a_failure_keeps_message_remedy_and_context(void **state) {
    (void)state;
    assert_int_equal(tn_fail(TN_BAD_DATA, "tensor %s: %d", "q", 3), TN_BAD_DATA);
    assert_int_equal(tn_remedy("do %s", "this"), TN_BAD_DATA);
    assert_int_equal(tn_context(TN_BAD_DATA, "file %s", "f"), TN_BAD_DATA);
    assert_string_equal(tn_error_message(), "file f: tensor q: 3");
    assert_string_equal(tn_error_remedy(), "do this");
    tn_fail(TN_FAILED, "again: %s", tn_error_message());
    assert_string_equal(tn_error_message(), "again: file f: tensor q: 3");
    assert_string_equal(tn_error_remedy(), "");
    assert_int_equal(tn_context(TN_OK, "x"), TN_OK);
}

static void a_long_message_is_cut_between_characters(void **state) {
    (void)state;
    for (int shift = 0; shift < 3; shift++) {
        tn_str text = {0};
        tn_str_add(&text, "aa", shift);
        for (int i = 0; i < 3000; i++) tn_str_puts(&text, "\xE2\x82\xAC");
        tn_fail(TN_FAILED, "%s", text.data);
        assert_true(tn_utf8_valid(tn_error_message(), (int64_t)strlen(tn_error_message())));
        tn_context(TN_FAILED, "%s", text.data + 3000 + shift);
        assert_true(tn_utf8_valid(tn_error_message(), (int64_t)strlen(tn_error_message())));
        tn_str_free(&text);
    }
}

/* ---- Memory ---- */

static void sizes_are_checked_against_overflow(void **state) {
    (void)state;
    int64_t value;
    assert_true(tn_mul(3, 4, &value) && value == 12);
    assert_true(tn_mul(0, INT64_MAX, &value) && value == 0);
    assert_false(tn_mul(INT64_MAX, 2, &value));
    assert_false(tn_mul(-1, 2, &value));
    assert_false(tn_mul(2, -1, &value));
    assert_true(tn_add(INT64_MAX - 1, 1, &value) && value == INT64_MAX);
    assert_false(tn_add(INT64_MAX, 1, &value));
    assert_false(tn_add(-1, 1, &value));
}

static void impossible_allocations_fail_as_a_status(void **state) {
    (void)state;
    char *memory = NULL;
    int64_t capacity = 0;
    tn_arena arena = {0};
    assert_int_equal(tn_alloc(&memory, INT64_MAX, 8, "x"), TN_FAILED);
    assert_int_equal(tn_alloc(&memory, -1, 8, "x"), TN_FAILED);
    assert_int_equal(tn_alloc_aligned(&memory, -1, "x"), TN_FAILED);
    assert_int_equal(tn_grow(&memory, &capacity, INT64_MAX, 8, "x"), TN_FAILED);
    assert_null(tn_arena_take(&arena, -1));
    assert_null(tn_arena_take(&arena, INT64_MAX));
    assert_null(tn_arena_text(&arena, "", -1));
    assert_int_equal(tn_alloc(&memory, 0, 8, "x"), TN_OK);
    assert_non_null(memory);
    free(memory);
    assert_int_equal(tn_alloc_aligned(&memory, 0, "x"), TN_OK);
    assert_int_equal((uintptr_t)memory % 64, 0);
    free(memory);
    tn_arena_free(&arena);
}

static void arena_pieces_are_zeroed_aligned_and_apart(void **state) {
    (void)state;
    tn_arena arena = {0};
    for (int64_t bytes = 0; bytes < 20000; bytes = bytes * 2 + 1) {
        unsigned char *piece = tn_arena_take(&arena, bytes);
        assert_non_null(piece);
        assert_int_equal((uintptr_t)piece % 16, 0);
        for (int64_t i = 0; i < bytes; i++) assert_int_equal(piece[i], 0);
        memset(piece, 0xAA, (size_t)bytes);
    }
    assert_string_equal(tn_arena_text(&arena, "abc", 2), "ab");
    assert_string_equal(tn_arena_printf(&arena, "%d-%s", 7, "x"), "7-x");
    tn_arena_free(&arena);
    assert_null(arena.blocks);
}

/* ---- Text ---- */

static void strings_grow_and_stay_terminated(void **state) {
    (void)state;
    tn_str s = {0};
    assert_string_equal(tn_str_text(&s), "");
    for (int i = 0; i < 1000; i++) tn_str_printf(&s, "%d,", i % 10);
    assert_int_equal(s.length, 2000);
    assert_int_equal(s.data[2000], 0);
    tn_str_clear(&s);
    tn_str_code_point(&s, 'a');
    tn_str_code_point(&s, 0xE9);
    tn_str_code_point(&s, 0x20AC);
    tn_str_code_point(&s, 0x1F600);
    assert_string_equal(s.data, "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
    assert_int_equal(tn_str_check(&s, "x"), TN_OK);
    tn_str_add(&s, "x", -1);
    assert_int_equal(tn_str_check(&s, "x"), TN_FAILED);
    tn_str_puts(&s, "more"); /* after a failure nothing is added */
    assert_int_equal(s.length, 10);
    tn_str_free(&s);
}

/* Every code point encodes and decodes; surrogates and what lies behind U+10FFFF do not decode. */
static void utf8_decodes_exactly_what_unicode_allows(void **state) {
    (void)state;
    tn_str s = {0};
    for (uint32_t c = 0; c < 0x120000; c++) {
        uint32_t back = 0;
        tn_str_clear(&s);
        tn_str_code_point(&s, c);
        int n = tn_utf8_decode(s.data, s.length, &back);
        bool allowed = c < 0xD800 || (c > 0xDFFF && c < 0x110000);
        if (n != (allowed ? s.length : 0) || (allowed && back != c)) fail_msg("U+%04X", c);
        for (int64_t cut = 1; allowed && cut < s.length; cut++)
            if (tn_utf8_decode(s.data, cut, &back) != 0) fail_msg("U+%04X cut", c);
    }
    tn_str_free(&s);
    static const char *const invalid[] = {"\x80",
                                          "\xBF",
                                          "\xC0\x80",
                                          "\xC1\xBF",
                                          "\xE0\x9F\xBF",
                                          "\xF0\x8F\xBF\xBF",
                                          "\xF4\x90\x80\x80",
                                          "\xF5\x80\x80\x80",
                                          "\xFE",
                                          "\xFF",
                                          "\xC3(",
                                          "\xE2\x82("};
    for (size_t i = 0; i < sizeof invalid / sizeof *invalid; i++)
        assert_false(tn_utf8_valid(invalid[i], (int64_t)strlen(invalid[i])));
    assert_int_equal(tn_utf8_valid_prefix("abcdefgh\xC3\xA9xyz\xFFq", 14), 13);
}

/* Expected texts: Python's bytes.decode("utf-8", "replace"). */
static void invalid_parts_are_replaced_as_python_does(void **state) {
    (void)state;
    static const struct {
        const char *bytes, *expected;
    } cases[] = {
        {"ab", "ab"},
        {"\xFF", "?"},
        {"a\xFF\xFE"
         "b",
         "a??b"},
        {"\xE2\x82", "?"}, /* a truncated character is one part */
        {"\xE2\x82"
         "a",
         "?a"},
        {"\xF0\x9F\x98", "?"},
        {"\xF0\x9F\xC3\xA9", "?\xC3\xA9"},
        {"\xED\xA0\x80", "???"}, /* a surrogate: its second byte is already invalid */
        {"\xC0\x80", "??"},
        {"\xF4\x90\x80\x80", "????"},
        {"\xC3\xC3\xA9", "?\xC3\xA9"},
        {"\xE0\x80\xE2\x82\xAC", "??\xE2\x82\xAC"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tn_str got = {0}, expected = {0};
        for (const char *p = cases[i].expected; *p; p++) {
            if (*p == '?') tn_str_puts(&expected, "\xEF\xBF\xBD");
            else tn_str_putc(&expected, *p);
        }
        tn_utf8_lossy(&got, cases[i].bytes, (int64_t)strlen(cases[i].bytes));
        assert_string_equal(tn_str_text(&got), tn_str_text(&expected));
        tn_str_free(&got);
        tn_str_free(&expected);
    }
}

static void an_incomplete_tail_is_only_what_may_still_become_a_character(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        int tail;
    } cases[] = {
        {"", 0},         {"a", 0},        {"\xC3", 1},         {"a\xE2\x82", 2},    {"\xF0\x9F\x98", 3},
        {"\xF0\x9F", 2}, {"\xF0", 1},     {"\xC3\xA9", 0},     {"\xE2\x82\xAC", 0}, {"\xF0\x9F\x98\x80", 0},
        {"\x82", 0},     {"\xFF", 0},     {"\xC0", 0},         {"\xED\xA0", 0},     {"\xE0\x80", 0},
        {"\xF4\x90", 0}, {"\xC3\x28", 0}, {"\x82\x82\x82", 0}, {"\xF5", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(tn_utf8_incomplete_tail(cases[i].bytes, (int64_t)strlen(cases[i].bytes)),
                         cases[i].tail);
}

static void edit_distance_counts_single_edits(void **state) {
    (void)state;
    static const struct {
        const char *a, *b;
        int distance;
    } cases[] = {{"", "", 0},
                 {"abc", "abc", 0},
                 {"", "abc", 3},
                 {"abc", "", 3},
                 {"abc", "abd", 1},
                 {"abc", "ab", 1},
                 {"abc", "xabc", 1},
                 {"ab", "ba", 1},
                 {"kitten", "sitting", 3},
                 {"lerning_rate", "learning_rate", 1},
                 {"ca", "abc", 3},
                 {"a", "b", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(tn_edit_distance(cases[i].a, cases[i].b), cases[i].distance);
        assert_int_equal(tn_edit_distance(cases[i].b, cases[i].a), cases[i].distance);
    }
    char longest[66];
    memset(longest, 'a', 65);
    longest[65] = '\0';
    assert_int_equal(tn_edit_distance(longest, "a"), 1000);
    assert_int_equal(tn_edit_distance(longest + 1, "a"), 63);
}

static void sizes_and_counts_are_readable(void **state) {
    (void)state;
    char out[32];
    assert_string_equal(tn_bytes_text(512, out), "512 B");
    assert_string_equal(tn_bytes_text(1536, out), "1.50 KiB");
    assert_string_equal(tn_bytes_text(INT64_MAX, out), "8192.00 PiB");
    assert_string_equal(tn_count_text(0, out), "0");
    assert_string_equal(tn_count_text(999, out), "999");
    assert_string_equal(tn_count_text(1218445312, out), "1,218,445,312");
    assert_string_equal(tn_count_text(-100000, out), "-100,000");
    assert_string_equal(tn_count_text(INT64_MIN, out), "-9,223,372,036,854,775,808");
    assert_true(tn_starts_with("abc", "ab") && tn_starts_with("abc", "") && !tn_starts_with("a", "ab"));
    assert_true(tn_ends_with("abc", "bc") && tn_ends_with("abc", "") && !tn_ends_with("c", "bc"));
}

/* ---- Files ---- */

static char directory[64];

static int make_directory(void **state) {
    (void)state;
    strcpy(directory, "/tmp/tenon-base-XXXXXX");
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state) {
    (void)state;
    chmod(directory, 0700);
    return tn_remove_tree(directory) == TN_OK ? 0 : -1;
}

static const char *inside(const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static void assert_content(const char *path, const char *expected) {
    tn_str got = {0};
    assert_int_equal(tn_read_file(path, 1 << 20, &got), TN_OK);
    assert_string_equal(tn_str_text(&got), expected);
    tn_str_free(&got);
}

/* Number of files in the directory: 1 where no temporary one is left behind. */
static int64_t file_count(void) {
    tn_arena arena = {0};
    const char **names;
    int64_t count;
    assert_int_equal(tn_list_directory(&arena, directory, &names, &count), TN_OK);
    tn_arena_free(&arena);
    return count;
}

static void a_save_replaces_the_file_only_at_commit(void **state) {
    (void)state;
    tn_save save;
    assert_int_equal(tn_save_text(inside("f"), "old", 3), TN_OK);
    assert_int_equal(tn_save_begin(&save, inside("f")), TN_OK);
    fputs("new", save.file);
    fflush(save.file);
    assert_content(inside("f"), "old");
    assert_int_equal(tn_save_commit(&save), TN_OK);
    tn_save_abort(&save); /* harmless */
    assert_content(inside("f"), "new");
    assert_int_equal(tn_save_begin(&save, inside("f")), TN_OK);
    fputs("never", save.file);
    tn_save_abort(&save);
    assert_content(inside("f"), "new");
    assert_int_equal(file_count(), 1);
}

/* A limit on the size of files stands for a full disk: writes fail with an errno in the middle of a file. */
static void a_failed_write_leaves_the_old_file(void **state) {
    (void)state;
    struct rlimit before, small;
    tn_save save;
    char block[4096] = {0};
    assert_int_equal(tn_save_text(inside("f"), "old", 3), TN_OK);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = (struct rlimit){.rlim_cur = 10000, .rlim_max = before.rlim_max};
    assert_int_equal(tn_save_begin(&save, inside("f")), TN_OK);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    for (int i = 0; i < 10; i++) fwrite(block, 1, sizeof block, save.file);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0); /* space is free again, but what was lost is lost */
    errno = ENOENT; /* somebody else's: must not make a usage error of a full disk */
    tn_status status = tn_save_commit(&save);
    assert_int_equal(status, TN_STORAGE);
    assert_non_null(strstr(tn_error_message(), "/f"));
    assert_content(inside("f"), "old");
    assert_int_equal(file_count(), 1);
}

static void an_unwritable_directory_is_a_storage_error(void **state) {
    (void)state;
    tn_save save;
    bool root = geteuid() == 0; /* root may write everywhere: be somebody else for a moment */
    assert_int_equal(chown(directory, root ? 65534 : geteuid(), (gid_t)-1), 0);
    assert_int_equal(chmod(directory, 0500), 0);
    if (root && seteuid(65534) != 0) {
        print_message("SKIP: root here cannot become another user\n");
        skip();
    }
    tn_status saved = tn_save_begin(&save, inside("f")), made = tn_make_directories(inside("d/e"));
    if (root) assert_int_equal(seteuid(0), 0);
    assert_int_equal(saved, TN_STORAGE);
    assert_int_equal(made, TN_STORAGE);
    assert_non_null(strstr(tn_error_remedy(), "permissions"));
    assert_null(save.file);
}

static void a_missing_directory_is_a_usage_error(void **state) {
    (void)state;
    tn_save save;
    tn_map map;
    assert_int_equal(tn_save_begin(&save, inside("no/f")), TN_USAGE);
    assert_int_equal(tn_save_text(inside("no/f"), "x", 1), TN_USAGE);
    assert_int_equal(tn_map_open(inside("no"), &map), TN_USAGE);
    assert_int_equal(tn_map_open(directory, &map), TN_USAGE);
}

static void directories_are_made_listed_and_removed(void **state) {
    (void)state;
    tn_arena arena = {0};
    const char **names;
    int64_t count;
    assert_int_equal(tn_make_directories(inside("a//b/c/")), TN_OK);
    assert_int_equal(tn_make_directories(inside("a/b/c")), TN_OK);
    assert_true(tn_is_directory(inside("a/b/c")));
    assert_int_equal(tn_save_text(inside("a/z"), "1", 1), TN_OK);
    assert_int_equal(tn_save_text(inside("a/m"), "12", 2), TN_OK);
    assert_int_equal(tn_make_directories(inside("a/z/x")), TN_USAGE);
    assert_int_equal(tn_make_directories(""), TN_USAGE);
    assert_int_equal(tn_list_directory(&arena, inside("a"), &names, &count), TN_OK);
    assert_int_equal(count, 3);
    assert_string_equal(names[0], "b");
    assert_string_equal(names[1], "m");
    assert_string_equal(names[2], "z");
    tn_arena_free(&arena);
    assert_true(tn_is_file(inside("a/m")) && !tn_is_file(inside("a")));
    assert_int_equal(tn_file_size(inside("a/m")), 2);
    assert_int_equal(tn_file_size(inside("a/none")), -1);
    assert_int_equal(symlink("/tmp", inside("a/link")), 0); /* removed itself, never followed */
    assert_int_equal(tn_remove_tree(inside("a")), TN_OK);
    assert_false(tn_is_directory(inside("a")));
    assert_true(tn_is_directory("/tmp"));
    assert_int_equal(tn_remove_tree(inside("a")), TN_OK);
}

static void files_are_mapped_and_read_within_their_limit(void **state) {
    (void)state;
    tn_map map;
    tn_str text = {0};
    assert_int_equal(tn_save_text(inside("f"), "12345", 5), TN_OK);
    assert_int_equal(tn_map_open(inside("f"), &map), TN_OK);
    assert_int_equal(map.bytes, 5);
    assert_memory_equal(map.data, "12345", 5);
    tn_map_close(&map);
    assert_int_equal(tn_read_file(inside("f"), 4, &text), TN_BAD_DATA);
    tn_str_free(&text);
    assert_int_equal(tn_read_file(directory, 4, &text), TN_USAGE);
    assert_int_equal(tn_save_text(inside("empty"), "", 0), TN_OK);
    assert_int_equal(tn_map_open(inside("empty"), &map), TN_OK);
    assert_null(map.data);
    tn_map_close(&map);
}

static void paths_are_joined_and_split(void **state) {
    (void)state;
    tn_arena arena = {0};
    assert_string_equal(tn_path_join(&arena, "a", "b"), "a/b");
    assert_string_equal(tn_path_join(&arena, "a/", "b"), "a/b");
    assert_string_equal(tn_path_join(&arena, "a", "/b"), "/b");
    assert_string_equal(tn_path_join(&arena, "", "b"), "b");
    assert_string_equal(tn_path_base("a/b/c"), "c");
    assert_string_equal(tn_path_base("c"), "c");
    tn_arena_free(&arena);
}

/* ---- Hashes and random numbers ---- */

/* `printf 'abc' | xxhsum -H128`; the digest of nothing is in xxHash's own documentation. */
static void hashes_are_those_of_xxhsum(void **state) {
    (void)state;
    char digits[33], streamed[33];
    tn_hasher hasher;
    tn_hash_memory("", 0, digits);
    assert_string_equal(digits, "99aa06d3014798d86001c324468d497f");
    tn_hash_memory("abc", 3, digits);
    assert_string_equal(digits, "06b05ab6733a618578af5f94892f3950");
    assert_int_equal(tn_hash_begin(&hasher), TN_OK);
    tn_hash_add(&hasher, "a", 1);
    tn_hash_add(&hasher, NULL, 0);
    tn_hash_add(&hasher, "bc", 2);
    tn_hash_end(&hasher, streamed);
    assert_string_equal(streamed, digits);
    assert_int_equal(tn_save_text(inside("f"), "abc", 3), TN_OK);
    assert_int_equal(tn_hash_file(inside("f"), streamed), TN_OK);
    assert_string_equal(streamed, digits);
}

/* Random123's kat_vectors, lines "philox4x32 10". */
static void philox_gives_the_published_answers(void **state) {
    (void)state;
    static const struct {
        uint64_t seed, stream, index;
        uint32_t expected[4];
    } cases[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822,
         0x0370734413198a2e,
         0x85a308d3243f6a88,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t got[4];
        tn_random4(cases[i].seed, cases[i].stream, cases[i].index, got);
        assert_memory_equal(got, cases[i].expected, sizeof got);
    }
}

/* Means over n = 10^6 have a standard error of 1/1000: five of them is the bound. */
static void uniform_and_normal_numbers_have_their_moments(void **state) {
    (void)state;
    const int64_t n = 1000000;
    double uniform = 0, normal = 0, square = 0, neighbours = 0, before = 0;
    for (int64_t i = 0; i < n; i++) {
        float u = tn_random_uniform(7, 9, (uint64_t)i), z = tn_random_normal(7, 9, (uint64_t)i);
        assert_true(u >= 0 && u < 1 && isfinite(z));
        uniform += (double)u, normal += (double)z, square += (double)z * (double)z,
            neighbours += before * (double)z;
        before = (double)z;
    }
    assert_true(fabs(uniform / (double)n - 0.5) < 0.005 * 0.289);
    assert_true(fabs(normal / (double)n) < 0.005);
    assert_true(fabs(square / (double)n - 1) < 0.005 * 1.415);
    assert_true(fabs(neighbours / (double)n) < 0.005);
}

static void a_permutation_visits_every_index_once(void **state) {
    (void)state;
    static const int64_t counts[] = {1, 2, 3, 4, 5, 15, 16, 17, 64, 100, 1000, 4096, 4097, 100000};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        int64_t count = counts[i], fixed = 0;
        bool *seen = calloc((size_t)count, sizeof *seen);
        assert_non_null(seen);
        for (int64_t at = 0; at < count; at++) {
            int64_t to = tn_random_permute(42, TN_STREAM(TN_PURPOSE_SHUFFLE, 1, 0), count, at);
            assert_true(to >= 0 && to < count && !seen[to]);
            seen[to] = true;
            fixed += to == at;
        }
        if (count >= 100) assert_true(fixed < 20); /* one is expected */
        free(seen);
    }
    int64_t huge = (int64_t)1 << 40, to = tn_random_permute(42, 1, huge, huge - 1);
    assert_true(to >= 0 && to < huge);
}

/* ---- Number formats ---- */

/* The value of a 16-bit float with `mantissa` mantissa bits, by its definition. */
static double value_of(uint32_t bits, int mantissa) {
    int exponent_bits = 15 - mantissa, bias = (1 << (exponent_bits - 1)) - 1;
    int exponent = (int)(bits >> mantissa) & ((1 << exponent_bits) - 1);
    double fraction = (double)(bits & ((1u << mantissa) - 1)) / (double)(1u << mantissa), magnitude;
    if (exponent == (1 << exponent_bits) - 1) magnitude = fraction == 0 ? INFINITY : NAN;
    else magnitude = exponent == 0 ? ldexp(fraction, 1 - bias) : ldexp(1 + fraction, exponent - bias);
    return bits & 0x8000 ? -magnitude : magnitude;
}

static void every_half_means_its_definition_and_comes_back(void **state) {
    (void)state;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        double half = value_of(bits, 10), bfloat = value_of(bits, 7);
        float from_half = tn_f16_to_f32((uint16_t)bits), from_bfloat = tn_bf16_to_f32((uint16_t)bits);
        if (isnan(half)) {
            assert_true(isnan(from_half) && isnan(tn_f16_to_f32(tn_f32_to_f16(from_half))));
            assert_int_equal(tn_f32_to_f16(from_half), bits | 0x200); /* quiet, with sign and payload */
        } else {
            assert_true((double)from_half == half && !signbit(from_half) == !signbit(half));
            assert_int_equal(tn_f32_to_f16(from_half), bits);
        }
        if (isnan(bfloat)) {
            assert_true(isnan(from_bfloat));
            assert_int_equal(tn_f32_to_bf16(from_bfloat), bits | 0x40);
        } else {
            assert_true((double)from_bfloat == bfloat && !signbit(from_bfloat) == !signbit(bfloat));
            assert_int_equal(tn_f32_to_bf16(from_bfloat), bits);
        }
    }
}

/* Between two neighbours a float goes to the nearer one, from the middle to the even one. */
static void rounding_is_to_nearest_even(void **state) {
    (void)state;
    for (uint32_t bits = 0; bits < 0x7C00; bits++) {
        bool last = bits == 0x7BFF; /* beyond it the next value would be 65536, which is infinity */
        float low = tn_f16_to_f32((uint16_t)bits), high = last ? 65536.0f : tn_f16_to_f32((uint16_t)(bits + 1));
        float middle = low + (high - low) / 2;
        uint32_t even = bits & 1 ? bits + 1 : bits;
        assert_int_equal(tn_f32_to_f16(middle), even);
        assert_int_equal(tn_f32_to_f16(nextafterf(middle, 0)), bits);
        assert_int_equal(tn_f32_to_f16(nextafterf(middle, INFINITY)), bits + 1);
        assert_int_equal(tn_f32_to_f16(-middle), even | 0x8000);
    }
    for (uint32_t bits = 0; bits < 0x7F80; bits++) {
        uint32_t middle_bits = bits << 16 | 0x8000;
        float middle;
        memcpy(&middle, &middle_bits, sizeof middle);
        assert_int_equal(tn_f32_to_bf16(middle), bits & 1 ? bits + 1 : bits);
        assert_int_equal(tn_f32_to_bf16(nextafterf(middle, 0)), bits);
        assert_int_equal(tn_f32_to_bf16(nextafterf(middle, INFINITY)), bits + 1);
        assert_int_equal(tn_f32_to_bf16(-middle), (bits & 1 ? bits + 1 : bits) | 0x8000);
    }
    assert_int_equal(tn_f32_to_f16(1e10f), 0x7C00);
    assert_int_equal(tn_f32_to_f16(-INFINITY), 0xFC00);
    assert_int_equal(tn_f32_to_f16(1e-30f), 0);
}

static void formats_know_their_names_and_sizes(void **state) {
    (void)state;
    tn_dtype dtype;
    int64_t bytes;
    for (int i = 0; i < TN_DTYPE_COUNT; i++) {
        assert_non_null(tn_dtype_name((tn_dtype)i));
        assert_true(tn_dtype_block((tn_dtype)i) > 0 && tn_dtype_block_bytes((tn_dtype)i) > 0);
    }
    assert_true(tn_dtype_from_name("torch.bfloat16", &dtype) && dtype == TN_DTYPE_BF16);
    assert_true(tn_dtype_from_name("half", &dtype) && dtype == TN_DTYPE_F16);
    assert_false(tn_dtype_from_name("int3", &dtype));
    assert_true(tn_dtype_bytes(TN_DTYPE_Q4_K, 512, &bytes) && bytes == 288);
    assert_false(tn_dtype_bytes(TN_DTYPE_Q4_K, 100, &bytes));
    assert_false(tn_dtype_bytes(TN_DTYPE_F32, INT64_MAX / 2, &bytes));
    assert_false(tn_dtype_bytes(TN_DTYPE_F32, -4, &bytes));
}

#define TEST(name) cmocka_unit_test(name)
#define FILE_TEST(name) cmocka_unit_test_setup_teardown(name, make_directory, remove_directory)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_failure_keeps_message_remedy_and_context),
        TEST(a_long_message_is_cut_between_characters),
        TEST(sizes_are_checked_against_overflow),
        TEST(impossible_allocations_fail_as_a_status),
        TEST(arena_pieces_are_zeroed_aligned_and_apart),
        TEST(strings_grow_and_stay_terminated),
        TEST(utf8_decodes_exactly_what_unicode_allows),
        TEST(invalid_parts_are_replaced_as_python_does),
        TEST(an_incomplete_tail_is_only_what_may_still_become_a_character),
        TEST(edit_distance_counts_single_edits),
        TEST(sizes_and_counts_are_readable),
        FILE_TEST(a_save_replaces_the_file_only_at_commit),
        FILE_TEST(a_failed_write_leaves_the_old_file),
        FILE_TEST(an_unwritable_directory_is_a_storage_error),
        FILE_TEST(a_missing_directory_is_a_usage_error),
        FILE_TEST(directories_are_made_listed_and_removed),
        FILE_TEST(files_are_mapped_and_read_within_their_limit),
        TEST(paths_are_joined_and_split),
        FILE_TEST(hashes_are_those_of_xxhsum),
        TEST(philox_gives_the_published_answers),
        TEST(uniform_and_normal_numbers_have_their_moments),
        TEST(a_permutation_visits_every_index_once),
        TEST(every_half_means_its_definition_and_comes_back),
        TEST(rounding_is_to_nearest_even),
        TEST(formats_know_their_names_and_sizes),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
