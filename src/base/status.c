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

const char *tn_version(void) { return TENON_VERSION; }
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

/* What a system error asks of the user; those that speak of the path itself are usage. */
static const struct {
    int number;
    tn_status status;
    const char *remedy;
} system_errors[] = {
    {ENOENT, TN_USAGE, "check the path; relative paths start at the current directory"},
    {ENOTDIR, TN_USAGE, "a part of this path is a file, not a directory"},
    {EISDIR, TN_USAGE, "give the path of a file"},
    {ELOOP, TN_USAGE, "a symbolic link in this path leads back to itself"},
    {ENAMETOOLONG, TN_USAGE, "give a shorter path"},
    {ENOSPC, TN_STORAGE, "free disk space or choose another output_dir, then resume"},
    {EDQUOT, TN_STORAGE, "free disk space or choose another output_dir, then resume"},
    {EFBIG, TN_STORAGE, "raise the limit on file sizes (ulimit -f), then resume"},
    {EACCES, TN_STORAGE, "check the permissions of this path"},
    {EPERM, TN_STORAGE, "check the permissions of this path"},
    {EROFS, TN_STORAGE, "the file system is mounted read-only; choose another path"},
    {EMFILE, TN_STORAGE, "raise the limit on open files (ulimit -n)"},
};
enum { SYSTEM_ERRORS = sizeof system_errors / sizeof *system_errors };

tn_status tn_fail_errno(const char *verb, const char *path) {
    int number = errno, i = 0;
    while (i < SYSTEM_ERRORS && system_errors[i].number != number) i++;
    tn_status status = i < SYSTEM_ERRORS ? system_errors[i].status : TN_STORAGE;
    tn_fail(status, "cannot %s %s: %s", verb, path, strerror(number));
    return tn_remedy("%s", i < SYSTEM_ERRORS ? system_errors[i].remedy : "check the disk and its file system");
}

tn_status tn_fail_memory(int64_t bytes, const char *what) {
    return tn_fail(TN_FAILED, "out of memory: %lld bytes for %s", (long long)bytes, what);
}
