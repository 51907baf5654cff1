/* test_pictures.c: pictures become the bytes that Pillow makes of them and the patches of Transformers'
 * processor, to the last bit (JPEG: within two levels, since libraries differ); what is refused says why.
 */
#include <math.h>

#include "base/hash.h"
#include "image/patches.h"
#include "image/resize.h"
#include "testing.h"

#define FOLDER "tests/parity/golden/pictures/"

/* ---- Golden pictures ----------------------------------------------------------------------------- */

static void must_hash(const void *bytes, int64_t length, const tn_json *line, const char *key,
                      const char *path) {
    char digits[33];
    tn_hash_memory(bytes, length, digits);
    if (!tn_json_is_string(tn_json_get(line, key), digits)) fail_msg("%s: other %s", path, key);
}

/* Two levels of 255, after division by image_std. */
static void must_be_near(const tn_json *sample, const float *rows, const char *path) {
    for (int64_t i = 0; i < sample->count; i++)
        if (fabs(tn_json_number(tn_json_at(sample, i), NAN) - (double)rows[997 * i]) > 0.031)
            fail_msg("%s: value %lld is %g", path, (long long)i, (double)rows[997 * i]);
}

static void check_picture(const tn_json *line, const char *path) {
    const tn_json *size = tn_json_get(line, "grid"), *sample = tn_json_get(line, "sample");
    tn_image_processor processor;
    tn_picture picture;
    tn_grid grid;
    float *rows = NULL;
    must(tn_image_processor_read(tn_json_get(line, "settings"), "settings", &processor));
    must(tn_picture_open(path, &picture));
    assert_int_equal(picture.width, tn_json_integer(tn_json_get(line, "width"), -1));
    assert_int_equal(picture.height, tn_json_integer(tn_json_get(line, "height"), -1));
    must(tn_image_grid(&processor, picture.width, picture.height, path, &grid));
    assert_int_equal(grid.t, tn_json_integer(tn_json_at(size, 0), -1));
    assert_int_equal(grid.h, tn_json_integer(tn_json_at(size, 1), -1));
    assert_int_equal(grid.w, tn_json_integer(tn_json_at(size, 2), -1));
    const int64_t values = tn_grid_patches(grid) * tn_patch_values(&processor);
    must(tn_alloc(&rows, values, (int64_t)sizeof *rows, "rows"));
    must(tn_image_patches(&processor, &picture, grid, rows));
    if (tn_json_is_null(sample)) {
        must_hash(picture.rgb, picture.width * picture.height * 3, line, "rgb", path);
        must_hash(rows, values * (int64_t)sizeof *rows, line, "patches", path);
    } else {
        must_be_near(sample, rows, path);
    }
    free(rows);
    tn_picture_free(&picture);
}

static void check_golden(bool shared) {
    tn_str file = {0};
    tn_arena arena = {0};
    int64_t checked = 0;
    must(tn_read_file(FOLDER "pictures.jsonl", 1 << 20, &file));
    for (const char *at = tn_str_text(&file), *end; (end = strchr(at, '\n')); at = end + 1) {
        const tn_json *line;
        must(tn_json_parse(&arena, at, end - at, TN_JSON_DEFAULT, "pictures.jsonl", &line));
        if (tn_json_boolean(tn_json_get(line, "shared"), false) != shared) continue;
        const char *name = tn_json_string(tn_json_get(line, "file"), "?");
        check_picture(line, tn_arena_printf(&arena, "%s%s", shared ? "build/data/" : FOLDER, name));
        checked++;
    }
    assert_true(checked > 20);
    tn_arena_free(&arena);
    tn_str_free(&file);
}

static void every_kind_of_file_is_pillows(void **state) {
    (void)state;
    check_golden(false);
}

static void shared_pictures_are_the_processors(void **state) {
    (void)state;
    if (!tn_is_file("build/data/vision/tuxpaint/captions.jsonl")) skip();
    check_golden(true);
}

/* ---- What is refused ----------------------------------------------------------------------------- */

static void must_refuse(const char *path, tn_status wanted, const char *part) {
    tn_picture picture;
    must_fail(tn_picture_open(path, &picture), wanted, part);
    assert_non_null(strstr(tn_error_message(), tn_path_base(path)));
    assert_true(strlen(tn_error_remedy()) > 0);
    tn_picture_free(&picture);
}

static void other_kinds_are_refused_by_name(void **state) {
    (void)state;
    must_refuse(FOLDER "cmyk.jpg", TN_BAD_DATA, "CMYK");
    must_refuse(FOLDER "grey16.png", TN_BAD_DATA, "16-bit grey");
    must_refuse(FOLDER "animated.png", TN_BAD_DATA, "animated");
    must_refuse(FOLDER "picture.webp", TN_USAGE, "is a WebP file");
    must_refuse(FOLDER "pictures.jsonl", TN_USAGE, "is no picture");
    must_refuse(write_scratch("empty.png", "", 0), TN_USAGE, "is no picture");
    must_refuse(scratch("nowhere.png"), TN_USAGE, "nowhere.png");
}

/* Cut at any byte a picture is refused, and the library's faults stay in the library. */
static void truncated_files_are_refused(void **state) {
    (void)state;
    static const char *const files[] = {"palette8_transparent.png", "exif6.jpg", "progressive.jpg"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[256];
        tn_map map;
        snprintf(path, sizeof path, FOLDER "%s", files[i]);
        must(tn_map_open(path, &map));
        const int64_t step = map.bytes / 100;
        for (int64_t length = 10; length < map.bytes - 2; length += step) {
            tn_picture picture;
            unsigned char *cut = NULL;
            must(tn_alloc(&cut, length, 1, "bytes")); /* of its own length: a sanitizer sees a byte too far */
            memcpy(cut, map.data, (size_t)length);
            must_fail(tn_picture_decode(cut, length, "cut", &picture), TN_BAD_DATA, "damaged");
            tn_picture_free(&picture);
            free(cut);
        }
        tn_map_close(&map);
    }
}

/* The width and height of IHDR, its checksum left wrong: the size is looked at before the pixels. */
static void absurd_sizes_take_no_memory(void **state) {
    (void)state;
    static const unsigned char head[] =
        "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\x01\x86\xa0\0\x01\x86\xa0\x08\x02\0\0\0\x27"
        "\x30\x9c\x9f\0\0\0\0IDAT\x35\xaf\x06\x1e";
    must_refuse(write_scratch("large.png", head, sizeof head - 1), TN_BAD_DATA, "100000 × 100000");
}

static void pictures_like_a_line_are_refused(void **state) {
    (void)state;
    tn_image_processor p;
    tn_picture picture;
    tn_grid grid;
    must(tn_image_processor_read(NULL, "settings", &p));
    must(tn_picture_open(FOLDER "thin.png", &picture));
    must_fail(tn_image_grid(&p, picture.width, picture.height, "thin.png", &grid), TN_BAD_DATA, "200 times");
    tn_picture_free(&picture);
}

/* ---- Sizes and settings -------------------------------------------------------------------------- */

static void sizes_follow_the_table(void **state) {
    (void)state;
    static const struct {
        int64_t h, w, max, out_h, out_w;
    } table[] = {
        {480, 640, 12845056, 476, 644}, {1080, 1920, 12845056, 1092, 1932}, {224, 224, 12845056, 224, 224},
        {512, 512, 12845056, 504, 504}, {1080, 1920, 1003520, 728, 1316},   {42, 70, 12845056, 56, 56},
        {10, 200, 12845056, 28, 252},   {100, 37, 12845056, 112, 28},       {4000, 6000, 12845056, 2912, 4368}};
    tn_image_processor p;
    tn_grid grid;
    must(tn_image_processor_read(NULL, "settings", &p));
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        p.max_pixels = table[i].max;
        must(tn_image_grid(&p, table[i].w, table[i].h, "x", &grid));
        assert_int_equal(grid.h * 14, table[i].out_h);
        assert_int_equal(grid.w * 14, table[i].out_w);
    }
}

/* Four rows are a square of four patches, its upper left first; the next four lie to its right. */
static void patches_go_square_by_square(void **state) {
    (void)state;
    tn_picture ramp = {.width = 56, .height = 56};
    tn_image_processor p;
    float *rows = NULL;
    must(tn_image_processor_read(NULL, "settings", &p));
    must(tn_alloc(&ramp.rgb, 56 * 56, 3, "pixels"));
    must(tn_alloc(&rows, 16 * tn_patch_values(&p), (int64_t)sizeof *rows, "rows"));
    for (int y = 0; y < 56; y++)
        for (int x = 0; x < 56; x++) ramp.rgb[(y * 56 + x) * 3] = (unsigned char)(y / 14 * 4 + x / 14);
    must(tn_image_patches(&p, &ramp, (tn_grid){1, 4, 4}, rows));
    static const int order[] = {0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15};
    for (int i = 0; i < 16; i++) assert_true(rows[i * tn_patch_values(&p)] == p.value[0][order[i]]);
    free(rows);
    tn_picture_free(&ramp);
}

static void must_refuse_settings(const char *text, tn_status wanted, const char *part) {
    tn_arena arena = {0};
    const tn_json *config;
    tn_image_processor p;
    must(tn_json_parse(&arena, text, (int64_t)strlen(text), TN_JSON_DEFAULT, "x", &config));
    must_fail(tn_image_processor_read(config, "preprocessor_config.json", &p), wanted, part);
    tn_arena_free(&arena);
}

static void other_settings_are_refused(void **state) {
    (void)state;
    must_refuse_settings("{\"do_normalize\": false}", TN_USAGE, "do_normalize");
    must_refuse_settings("{\"resample\": 2}", TN_USAGE, "resample");
    must_refuse_settings("{\"patch_size\": 0}", TN_BAD_DATA, "patch_size");
    must_refuse_settings("{\"min_pixels\": 100, \"max_pixels\": 50}", TN_BAD_DATA, "max_pixels 50");
    must_refuse_settings("{\"image_std\": [0.1, 0, 0.1]}", TN_BAD_DATA, "image_std");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_file_is_pillows),   cmocka_unit_test(shared_pictures_are_the_processors),
        cmocka_unit_test(other_kinds_are_refused_by_name), cmocka_unit_test(truncated_files_are_refused),
        cmocka_unit_test(absurd_sizes_take_no_memory),     cmocka_unit_test(pictures_like_a_line_are_refused),
        cmocka_unit_test(sizes_follow_the_table),          cmocka_unit_test(patches_go_square_by_square),
        cmocka_unit_test(other_settings_are_refused),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_scratch();
    return failed;
}
