/* exif.c: finds the one tag of EXIF data that changes what a picture shows. Whatever is not as TIFF 6.0 has it
 * counts as absent.
 */
#include "image/codecs.h"

typedef struct tiff {
    const unsigned char *bytes;
    int64_t length;
    bool big_endian;
} tiff;

/* 0 beyond the end: no tag, no entries. */
static int64_t number(const tiff *t, int64_t at, int bytes) {
    int64_t value = 0;
    if (at < 0 || at > t->length - bytes) return 0;
    for (int i = 0; i < bytes; i++)
        value |= (int64_t)t->bytes[at + i] << 8 * (t->big_endian ? bytes - 1 - i : i);
    return value;
}

int tn_exif_orientation(const unsigned char *bytes, int64_t length) {
    enum { ORIENTATION = 0x112, SHORT = 3, ENTRY = 12 };
    if (length < 8 || bytes[0] != bytes[1] || (bytes[0] != 'I' && bytes[0] != 'M')) return 1;
    const tiff t = {bytes, length, bytes[0] == 'M'};
    const int64_t directory = number(&t, 4, 4), entries = number(&t, directory, 2);
    for (int64_t i = 0; number(&t, 2, 2) == 42 && i < entries; i++) {
        const int64_t at = directory + 2 + i * ENTRY;
        if (number(&t, at, 2) != ORIENTATION || number(&t, at + 2, 2) != SHORT) continue;
        const int64_t value = number(&t, at + 8, 2);
        return value >= 1 && value <= 8 ? (int)value : 1;
    }
    return 1;
}
