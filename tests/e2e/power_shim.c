/* power_shim.c: a library for LD_PRELOAD that cuts the power of a program, or fails one of its calls. It counts
 * the calls that change files below $SHIM_DIR (an absolute path) and at number $SHIM_AT does what $SHIM_MODE
 * says:
 *
 *   fail    the call fails: no space is left
 *   kill    the process ends; whatever it did so far stays
 *   data    the power fails: what was written and not flushed is gone, while names are as they were last
 *   names   the power fails: neither unflushed data nor names that no flush of their directory made last are
 * there
 *
 * The process ends with exit code 99. Without $SHIM_AT calls are only counted; their number, and every name
 * that a flush made last, are written to $SHIM_LOG. Files are put aside in $SHIM_ATTIC instead of being
 * deleted, so that they can come back. Streams are seen where the program calls fopen, fflush and fclose.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST = 4096, EXIT_CODE = 99 };
typedef char path_text[512];

/* Names that have not lasted yet, in the order of the calls. */
typedef enum change_kind { DONE, CREATED, RENAMED, DELETED, MADE, REMOVED } change_kind;
typedef struct change {
    change_kind kind;
    path_text path, from, aside; /* aside: what it replaced or deleted, "" for nothing */
} change;
static change changes[MOST];
static int change_count;

/* Files with the bytes of them that have been flushed. */
typedef struct file_state {
    path_text path;
    off_t flushed;
} file_state;
static file_state files[MOST];
static int file_count;

static long calls;

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) _exit(98);
    return found;
}
#define REAL(type, name, ...) ((type(*)(__VA_ARGS__))real(name))

static void copy(path_text to, const char *from) { snprintf(to, sizeof(path_text), "%s", from); }

/* The absolute path into `out`; false where it lies elsewhere. */
static int is_ours(const char *path, path_text out) {
    const char *directory = getenv("SHIM_DIR");
    char here[256];
    size_t length = directory ? strlen(directory) : 0;
    if (!directory || !path) return 0;
    if (*path == '/' || !getcwd(here, sizeof here)) copy(out, path);
    else snprintf(out, sizeof(path_text), "%s/%s", here, path);
    for (size_t end = strlen(out); end > 1 && out[end - 1] == '/'; end--) out[end - 1] = '\0';
    return strncmp(out, directory, length) == 0 && (out[length] == '/' || !out[length]);
}

static void note(const char *text) {
    const char *name = getenv("SHIM_LOG");
    int fd = name ? REAL(int, "open", const char *, int, ...)(name, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    if (fd < 0) return;
    if (write(fd, text, strlen(text)) < 0) _exit(98);
    REAL(int, "close", int)(fd);
}

static void set_flushed(const char *path, off_t bytes) {
    int i = 0;
    while (i < file_count && strcmp(files[i].path, path) != 0) i++;
    if (i == MOST) _exit(98);
    if (i == file_count) copy(files[file_count++].path, path);
    files[i].flushed = bytes;
}

static int lies_in(const char *path, const char *directory) {
    size_t length = strlen(directory);
    return strncmp(path, directory, length) == 0 && (path[length] == '/' || !path[length]);
}

static void move_text(path_text path, const char *from, const char *to) {
    path_text moved;
    if (!lies_in(path, from)) return;
    snprintf(moved, sizeof moved, "%.255s%.255s", to, path + strlen(from));
    copy(path, moved);
}

static void new_change(change_kind kind, const char *path, const char *from, const char *aside) {
    if (change_count == MOST) _exit(98);
    change *c = &changes[change_count++];
    c->kind = kind;
    copy(c->path, path), copy(c->from, from), copy(c->aside, aside);
}

/* ---- The cut --------------------------------------------------------------------------------------- */

static void lose_data(void) {
    for (int i = 0; i < file_count; i++) {
        struct stat info;
        if (stat(files[i].path, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > files[i].flushed &&
            REAL(int, "truncate", const char *, off_t)(files[i].path, files[i].flushed) != 0)
            _exit(98);
    }
}

static void remove_all(const char *path) {
    char command[1200];
    snprintf(command, sizeof command, "env -u LD_PRELOAD rm -rf '%s'", path);
    if (system(command) != 0) _exit(98);
}

static void undo(const change *c) {
    int (*move)(const char *, const char *) = REAL(int, "rename", const char *, const char *);
    switch (c->kind) {
        case DONE: return;
        case CREATED:
        case MADE: remove_all(c->path); break;
        case RENAMED: move(c->path, c->from); break;
        case DELETED: break;
        case REMOVED: REAL(int, "mkdir", const char *, mode_t)(c->path, 0777); break;
    }
    if (*c->aside) move(c->aside, c->path);
}

/* Before a call. 0: go on; -1: let it fail. */
static int before(void) {
    const char *at = getenv("SHIM_AT"), *mode = getenv("SHIM_MODE");
    calls++;
    if (!at || calls != atol(at)) return 0;
    if (strcmp(mode, "fail") == 0) {
        errno = ENOSPC;
        return -1;
    }
    if (strcmp(mode, "kill") != 0) lose_data();
    if (strcmp(mode, "names") == 0)
        for (int i = change_count - 1; i >= 0; i--) undo(&changes[i]);
    _exit(EXIT_CODE);
}

__attribute__((destructor)) static void say_number(void) {
    char text[32];
    snprintf(text, sizeof text, "calls %ld\n", calls);
    note(text);
}

/* ---- Calls ----------------------------------------------------------------------------------------- */

FILE *fopen(const char *path, const char *mode) {
    path_text whole;
    FILE *(*open_stream)(const char *, const char *) = REAL(FILE *, "fopen", const char *, const char *);
    struct stat info;
    if (*mode == 'r' || !is_ours(path, whole)) return open_stream(path, mode);
    int there = stat(whole, &info) == 0;
    if (before() != 0) return NULL;
    FILE *stream = open_stream(path, mode);
    if (!stream) return NULL;
    if (!there) new_change(CREATED, whole, "", "");
    if (!there || *mode == 'w') set_flushed(whole, 0);
    else set_flushed(whole, info.st_size); /* it is appended to: older than this run */
    return stream;
}

static int stream_is_ours(FILE *stream) {
    char link[64], name[512];
    path_text whole;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fileno(stream));
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (length <= 0 || (fcntl(fileno(stream), F_GETFL) & O_ACCMODE) == O_RDONLY) return 0;
    name[length] = '\0';
    return is_ours(name, whole);
}

int fflush(FILE *stream) {
    if (stream && fileno(stream) > 2 && stream_is_ours(stream) && before() != 0) return EOF;
    return REAL(int, "fflush", FILE *)(stream);
}

int fclose(FILE *stream) {
    int fails = fileno(stream) > 2 && stream_is_ours(stream) && before() != 0;
    int result = REAL(int, "fclose", FILE *)(stream);
    if (fails) errno = ENOSPC;
    return fails ? EOF : result;
}

int fsync(int fd) {
    char link[64], name[512];
    path_text whole;
    struct stat info;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, sizeof name - 1);
    name[length > 0 ? length : 0] = '\0';
    if (!is_ours(name, whole)) return REAL(int, "fsync", int)(fd);
    if (before() != 0) return -1;
    if (fstat(fd, &info) != 0) return -1;
    if (!S_ISDIR(info.st_mode)) set_flushed(whole, info.st_size);
    for (int i = 0; S_ISDIR(info.st_mode) && i < change_count; i++) {
        change *c = &changes[i];
        const size_t in = strlen(whole);
        if (strncmp(c->path, whole, in) != 0 || c->path[in] != '/' || strchr(c->path + in + 1, '/')) continue;
        if (c->kind == RENAMED) note("lasts "), note(c->path), note("\n");
        c->kind = DONE, c->aside[0] = '\0';
    }
    return 0; /* nothing is lost but by this library: no need to wait for the disk */
}

/* Moves what is at `path` to the attic; its place there into `aside`. */
static void put_aside(const char *path, path_text aside) {
    static int number;
    snprintf(aside, sizeof(path_text), "%s/%d-%d", getenv("SHIM_ATTIC"), (int)getpid(), number++);
    if (REAL(int, "rename", const char *, const char *)(path, aside) != 0) _exit(98);
}

int rename(const char *from, const char *to) {
    path_text old, new, aside = "";
    struct stat info;
    int (*move)(const char *, const char *) = REAL(int, "rename", const char *, const char *);
    if (!is_ours(from, old) || !is_ours(to, new)) return move(from, to);
    if (before() != 0) return -1;
    if (stat(new, &info) == 0 && S_ISREG(info.st_mode)) put_aside(new, aside);
    if (move(old, new) != 0) return -1;
    for (int i = 0; i < file_count; i++) move_text(files[i].path, old, new);
    for (int i = 0; i < change_count; i++)
        if (changes[i].kind != DONE && lies_in(changes[i].path, old) && strcmp(changes[i].path, old) != 0)
            move_text(changes[i].path, old, new), move_text(changes[i].from, old, new);
    new_change(RENAMED, new, old, aside);
    return 0;
}

int unlink(const char *path) {
    path_text whole, aside;
    struct stat info;
    if (!is_ours(path, whole)) return REAL(int, "unlink", const char *)(path);
    if (before() != 0) return -1;
    if (lstat(whole, &info) != 0) return -1;
    put_aside(whole, aside);
    new_change(DELETED, whole, "", aside);
    return 0;
}

int mkdir(const char *path, mode_t mode) {
    path_text whole;
    int (*make)(const char *, mode_t) = REAL(int, "mkdir", const char *, mode_t);
    if (!is_ours(path, whole) || access(whole, F_OK) == 0) return make(path, mode);
    if (before() != 0) return -1;
    int result = make(path, mode);
    if (result == 0) new_change(MADE, whole, "", "");
    return result;
}

int rmdir(const char *path) {
    path_text whole;
    int (*drop)(const char *) = REAL(int, "rmdir", const char *);
    if (!is_ours(path, whole)) return drop(path);
    if (before() != 0) return -1;
    int result = drop(path);
    if (result == 0) new_change(REMOVED, whole, "", "");
    return result;
}

int truncate(const char *path, off_t length) {
    path_text whole;
    int (*cut)(const char *, off_t) = REAL(int, "truncate", const char *, off_t);
    if (!is_ours(path, whole)) return cut(path, length);
    return before() != 0 ? -1 : cut(path, length);
}
