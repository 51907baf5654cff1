/* status.c: the thread-local store behind tn_fail() and tn_error_message(). */
#undef __clang_analyzer__ /* the functions themselves are here */
#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_BYTES = 2048 };

static _Thread_local char message[MESSAGE_BYTES];
static _Thread_local char remedy[MESSAGE_BYTES];
static _Thread_local tn_status last = TN_OK;

const char *tn_error_message(void) { return message; }
const char *tn_error_remedy(void) { return remedy; }

/* A cut in the middle of a UTF-8 character would make the JSON error document invalid. */
static void trim_partial_character(char *text) {
    size_t n = strlen(text), i = n;
    if (n + 1 < MESSAGE_BYTES) return;
    while (i > 0 && ((unsigned char)text[i - 1] & 0xC0) == 0x80) i--;
    if (i > 0 && ((unsigned char)text[i - 1] & 0x80)) text[i - 1] = '\0';
}

tn_status tn_fail(tn_status status, const char *format, ...) {
    char text[MESSAGE_BYTES]; /* the arguments may point into `message` */
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    trim_partial_character(text);
    memcpy(message, text, sizeof text);
    remedy[0] = '\0';
    last = status;
    return status;
}

tn_status tn_remedy(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(remedy, sizeof remedy, format, arguments);
    va_end(arguments);
    trim_partial_character(remedy);
    return last;
}

tn_status tn_context(tn_status status, const char *format, ...) {
    char text[MESSAGE_BYTES];
    va_list arguments;
    if (status == TN_OK) return status;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    size_t used = strlen(text), room = sizeof text - used;
    bool cut = snprintf(text + used, room, ": %s", message) >= (int)room;
    if (cut) trim_partial_character(text);
    memcpy(message, text, sizeof text);
    return status;
}

tn_status tn_fail_errno(const char *verb, const char *path) {
    int number = errno;
    tn_status status = number == ENOENT || number == ENOTDIR || number == EISDIR ? TN_USAGE : TN_STORAGE;
    tn_fail(status, "cannot %s %s: %s", verb, path, strerror(number));
    if (number == ENOENT) tn_remedy("check the path; relative paths start at the current directory");
    if (number == ENOSPC) tn_remedy("free disk space or choose another output_dir, then resume");
    if (number == EACCES || number == EPERM || number == EROFS) tn_remedy("check the permissions of this path");
    return status;
}

tn_status tn_fail_memory(int64_t bytes, const char *what) {
    return tn_fail(TN_FAILED, "out of memory: %lld bytes for %s", (long long)bytes, what);
}
