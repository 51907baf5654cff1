/* fuzz_picture.c: any bytes as a picture file. What is accepted has a pixel for every place; small ones go
 * through resampling and patches too. Build: clang -fsanitize=fuzzer,address,undefined with src/base and
 * src/image. */
#define _GNU_SOURCE
#include "fuzz/fuzz_file.h"
#include "image/patches.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tn_image_processor p;
    tn_picture picture;
    tn_grid grid;
    float *rows = NULL;
    if (tn_picture_open(fuzz_file(data, size), &picture) != TN_OK) goto done;
    fuzz_touch(picture.rgb, picture.width * picture.height * 3);
    if (picture.width * picture.height > 1 << 16 || tn_image_processor_read(NULL, "none", &p) != TN_OK)
        goto done;
    if (tn_image_grid(&p, picture.width, picture.height, "fuzz", &grid) != TN_OK) goto done;
    const int64_t values = tn_grid_patches(grid) * tn_patch_values(&p);
    if (tn_alloc(&rows, values, (int64_t)sizeof *rows, "rows") != TN_OK) goto done;
    if (tn_image_patches(&p, &picture, grid, rows) != TN_OK) goto done;
    fuzz_touch(rows, values * (int64_t)sizeof *rows);
done:
    free(rows);
    tn_picture_free(&picture);
    return 0;
}
