/* file.c: mapped reading, atomic saving, directories. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

tn_status tn_map_open(const char *path, tn_map *map) {
    struct stat info;
    tn_status status = TN_OK;
    *map = (tn_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe is refused below, not waited for */
    if (fd < 0) return tn_fail_errno("open", path);
    if (fstat(fd, &info) != 0) {
        status = tn_fail_errno("read", path);
        goto done;
    }
    if (!S_ISREG(info.st_mode)) {
        tn_fail(TN_USAGE, "%s is not a regular file", path);
        status = tn_remedy("give the path of a file; a pipe or a directory cannot be mapped");
        goto done;
    }
    if (info.st_size == 0) goto done;
    void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
        status = tn_fail_errno("map", path);
        goto done;
    }
    map->data = data;
    map->bytes = info.st_size;
done:
    close(fd);
    return status;
}

void tn_map_close(tn_map *map) {
    if (map->data) munmap((void *)(uintptr_t)map->data, (size_t)map->bytes);
    *map = (tn_map){0};
}

tn_status tn_read_file(const char *path, int64_t limit, tn_str *out) {
    tn_status status = TN_OK;
    char buffer[1 << 16];
    size_t got;
    if (tn_is_directory(path)) return tn_fail(TN_USAGE, "%s is a directory, a file was expected", path);
    FILE *file = fopen(path, "rbe");
    if (!file) return tn_fail_errno("open", path);
    while ((got = fread(buffer, 1, sizeof buffer, file)) > 0) {
        if (out->length + (int64_t)got > limit)
            TN_THROW(TN_BAD_DATA, "%s is larger than the %lld bytes allowed here", path, (long long)limit);
        tn_str_add(out, buffer, (int64_t)got);
    }
    if (ferror(file)) {
        status = tn_fail_errno("read", path);
        goto done;
    }
    TN_TRY(tn_str_check(out, path));
done:
    fclose(file);
    return status;
}

/* fsync of the directory that holds `path`, so that a rename in it survives a power cut. */
static tn_status sync_parent(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return tn_sync_directory(".");
    tn_str directory = {0};
    tn_str_add(&directory, path, slash == path ? 1 : slash - path);
    tn_status status = tn_str_check(&directory, path);
    if (status == TN_OK) status = tn_sync_directory(directory.data);
    tn_str_free(&directory);
    return status;
}

/* A device or a pipe is written to: renaming a file over it would replace it. */
static tn_status begin_special(tn_save *save, const char *path) {
    save->path = strdup(path);
    save->file = fopen(path, "wbe");
    if (save->path && save->file) return TN_OK;
    tn_status status = save->path ? tn_fail_errno("write", path) : tn_fail_memory(0, "a path");
    tn_save_abort(save);
    return status;
}

tn_status tn_save_begin(tn_save *save, const char *path) {
    static atomic_int saves; /* two threads of a program may save the same file, such as a token cache */
    struct stat info;
    tn_str temporary = {0};
    *save = (tn_save){0};
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        tn_fail(TN_USAGE, "cannot write %s: it is a directory", path);
        return tn_remedy("give the path of a file");
    }
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) return begin_special(save, path);
    tn_str_printf(&temporary, "%s.tmp-%ld-%d", path, (long)getpid(), atomic_fetch_add(&saves, 1));
    save->temporary = temporary.data;
    save->path = strdup(path);
    if (temporary.failed || !save->path) {
        tn_save_abort(save);
        return tn_fail_memory((int64_t)strlen(path), "a path");
    }
    save->file = fopen(save->temporary, "wbe");
    if (!save->file) {
        tn_status status = tn_fail_errno("write", save->temporary);
        tn_save_abort(save);
        return status;
    }
    return TN_OK;
}

tn_status tn_save_commit(tn_save *save) {
    tn_status status = TN_OK;
    const char *failed = NULL;
    errno = 0; /* that of an earlier failed fwrite is gone; what stands there now may be anybody's */
    if (fflush(save->file) != 0 || ferror(save->file)) failed = "write";
    else if (save->temporary && fsync(fileno(save->file)) != 0) failed = "flush";
    if (failed) {
        const char block[4096] = {0}; /* the file goes anyway: does it still take something? */
        if (errno == 0 && write(fileno(save->file), block, sizeof block) == (ssize_t)sizeof block) errno = EIO;
        if (errno == 0) errno = ENOSPC; /* it took a part */
        status = tn_fail_errno(failed, save->path);
        goto done;
    }
    int closed = fclose(save->file);
    save->file = NULL;
    if (closed != 0) {
        status = tn_fail_errno("close", save->path);
        goto done;
    }
    if (!save->temporary) goto done;
    TN_TRY(tn_rename(save->temporary, save->path));
    free(save->temporary);
    save->temporary = NULL; /* nothing left to delete */
done:
    tn_save_abort(save);
    return status;
}

void tn_save_abort(tn_save *save) {
    if (save->file) fclose(save->file);
    if (save->temporary) {
        unlink(save->temporary);
        free(save->temporary);
    }
    free(save->path);
    *save = (tn_save){0};
}

tn_status tn_save_text(const char *path, const char *text, int64_t length) {
    tn_save save;
    tn_status status = tn_save_begin(&save, path);
    if (status != TN_OK) return status;
    fwrite(text, 1, (size_t)length, save.file);
    return tn_save_commit(&save);
}

tn_status tn_make_directories(const char *path) {
    tn_status status = TN_OK;
    if (path[0] == '\0') return tn_fail(TN_USAGE, "cannot create a directory without a name");
    char *copy = strdup(path);
    if (!copy) return tn_fail_memory((int64_t)strlen(path), "a path");
    for (char *p = copy + 1;; p++) {
        if (*p != '/' && *p != '\0') continue;
        char kept = *p;
        *p = '\0';
        if (mkdir(copy, 0777) == 0) status = sync_parent(copy); /* or a power cut takes all that is in it */
        else if (!(errno == EEXIST && tn_is_directory(copy))) {
            if (errno == EEXIST || errno == ENOTDIR)
                status = tn_fail(TN_USAGE, "cannot create directory %s: %s is a file", path, copy);
            else status = tn_fail_errno("create directory", copy);
        }
        *p = kept;
        if (status != TN_OK || kept == '\0') break;
    }
    free(copy);
    return status;
}

tn_status tn_sync_directory(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return tn_fail_errno("open", path);
    tn_status status = TN_OK;
    /* Some file systems cannot flush a directory and say EINVAL; their rename is as good as it gets. */
    if (fsync(fd) != 0 && errno != EINVAL) status = tn_fail_errno("flush", path);
    close(fd);
    return status;
}

tn_status tn_lock_directory(const char *path, int *lock) {
    *lock = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*lock < 0) return tn_fail_errno("open", path);
    if (flock(*lock, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return TN_OK;
    close(*lock);
    *lock = -1;
    tn_fail(TN_USAGE, "another process is writing to %s", path);
    return tn_remedy("wait until it has ended, or choose another directory");
}

void tn_unlock_directory(int *lock) {
    if (*lock >= 0) close(*lock);
    *lock = -1;
}

tn_status tn_remove_tree(const char *path) {
    tn_arena arena = {0};
    const char **names = NULL;
    int64_t count = 0;
    struct stat info;
    tn_status status = TN_OK;
    if (lstat(path, &info) != 0)
        return errno == ENOENT || errno == ENOTDIR ? TN_OK : tn_fail_errno("delete", path);
    if (!S_ISDIR(info.st_mode)) return unlink(path) == 0 ? TN_OK : tn_fail_errno("delete", path);
    TN_TRY(tn_list_directory(&arena, path, &names, &count));
    for (int64_t i = 0; i < count; i++) {
        const char *entry = tn_path_join(&arena, path, names[i]);
        if (!entry) TN_THROW(TN_FAILED, "out of memory while deleting %s", path);
        TN_TRY(tn_remove_tree(entry));
    }
    if (rmdir(path) != 0) status = tn_fail_errno("delete", path);
done:
    tn_arena_free(&arena);
    return status;
}

tn_status tn_discard_tree(tn_status failure, const char *path) {
    tn_str message = {0}, remedy = {0};
    tn_str_puts(&message, tn_error_message());
    tn_str_puts(&remedy, tn_error_remedy());
    (void)tn_remove_tree(path);
    tn_fail(failure, "%s", tn_str_text(&message));
    tn_remedy("%s", tn_str_text(&remedy));
    tn_str_free(&message);
    tn_str_free(&remedy);
    return failure;
}

tn_status tn_rename(const char *from, const char *to) {
    return rename(from, to) == 0 ? sync_parent(to) : tn_fail_errno("rename to", to);
}

bool tn_is_directory(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool tn_is_file(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

int64_t tn_file_size(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 ? (int64_t)info.st_size : -1;
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

tn_status tn_list_directory(tn_arena *arena, const char *path, const char ***names, int64_t *count) {
    tn_status status = TN_OK;
    const char **list = NULL;
    int64_t n = 0, capacity = 0;
    struct dirent *entry;
    DIR *directory = opendir(path);
    if (!directory) return tn_fail_errno("open directory", path);
    while (errno = 0, (entry = readdir(directory))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        TN_TRY(tn_grow(&list, &capacity, n + 1, (int64_t)sizeof *list, "directory names"));
        list[n] = tn_arena_text(arena, entry->d_name, (int64_t)strlen(entry->d_name));
        if (!list[n++]) TN_THROW(TN_FAILED, "out of memory while listing %s", path);
    }
    if (errno != 0) {
        status = tn_fail_errno("list directory", path);
        goto done;
    }
    *names = tn_arena_take(arena, (n > 0 ? n : 1) * (int64_t)sizeof *list);
    if (!*names) TN_THROW(TN_FAILED, "out of memory while listing %s", path);
    if (n > 0) {
        qsort(list, (size_t)n, sizeof *list, by_name);
        memcpy(*names, list, (size_t)n * sizeof *list);
    }
    *count = n;
done:
    free(list);
    closedir(directory);
    return status;
}

const char *tn_path_join(tn_arena *arena, const char *directory, const char *name) {
    if (name[0] == '/' || directory[0] == '\0') return tn_arena_text(arena, name, (int64_t)strlen(name));
    return tn_arena_printf(arena, "%s%s%s", directory, tn_ends_with(directory, "/") ? "" : "/", name);
}

const char *tn_path_base(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}
