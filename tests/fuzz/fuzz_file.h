/* fuzz_file.h: an input as a file that readers can open by path, held in memory (memfd). The file that includes
 * it defines _GNU_SOURCE first, for memfd_create. */
#ifndef TN_TESTS_FUZZ_FILE_H
#define TN_TESTS_FUZZ_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* The path of a file that holds exactly these bytes; one at a time. */
static const char *fuzz_file(const uint8_t *data, size_t size) {
    static char path[32];
    static int fd = -1;
    if (fd < 0) {
        fd = memfd_create("fuzz", MFD_CLOEXEC);
        if (fd < 0) abort();
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    if (ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size) abort();
    return path;
}

/* Reads every byte, so that the sanitizer sees a pointer beyond the mapping. */
static void fuzz_touch(const void *data, int64_t bytes) {
    static volatile unsigned char sum;
    for (int64_t i = 0; i < bytes; i++) sum = (unsigned char)(sum + ((const unsigned char *)data)[i]);
}

#endif
