/* store_limit.c: keeps the token cache from filling the disk: entries used longest ago go first. When an entry
 * was used is its modification time, which every use renews; that it is in use is a shared lock on it. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "data/store.h"

enum { DAY = 24 * 60 * 60 };

typedef struct cached {
    const char *path;
    int64_t bytes;
    struct timespec used;
} cached;

void tn_store_hold(tn_store *store, const char *path) {
    store->held = fopen(path, "rbe");
    if (!store->held) return;
    (void)flock(fileno(store->held), LOCK_SH | LOCK_NB); /* without locks there it is only found by its age */
    (void)utimensat(AT_FDCWD, path, NULL, 0);            /* used now */
}

int64_t tn_store_limit(const char *path) {
    const int64_t most = (int64_t)4 << 30;
    struct statvfs disk;
    int64_t bytes;
    if (statvfs(path, &disk) != 0) return most;
    if (!tn_mul((int64_t)disk.f_blocks, (int64_t)disk.f_frsize, &bytes) || bytes / 10 > most) return most;
    return bytes / 10;
}

static int by_use(const void *a, const void *b) {
    const struct timespec *x = &((const cached *)a)->used, *y = &((const cached *)b)->used;
    if (x->tv_sec != y->tv_sec) return x->tv_sec < y->tv_sec ? -1 : 1;
    return x->tv_nsec < y->tv_nsec ? -1 : x->tv_nsec > y->tv_nsec;
}

/* Another process that has it open keeps its mapping, but it would have to make it again at its next start. */
static bool remove_unused(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool removed = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && unlink(path) == 0;
    if (fd >= 0) close(fd);
    return removed;
}

/* The entries of a directory; what a killed run left of one a day ago is removed at once. */
static tn_status list_entries(tn_arena *arena, const char *directory, cached **entries, int64_t *count) {
    const char **names;
    int64_t all;
    tn_status status = tn_list_directory(arena, directory, &names, &all);
    if (status != TN_OK) return status;
    *entries = tn_arena_take(arena, (all + 1) * (int64_t)sizeof **entries);
    if (!*entries) return tn_fail_memory(all, "names of the token cache");
    *count = 0;
    for (int64_t i = 0; i < all; i++) {
        struct stat info;
        if (!tn_starts_with(names[i], "tokens-")) continue;
        const char *path = tn_path_join(arena, directory, names[i]);
        if (!path || lstat(path, &info) != 0 || !S_ISREG(info.st_mode)) continue;
        if (strstr(names[i], ".bin.tmp-") && time(NULL) - info.st_mtim.tv_sec > DAY) (void)unlink(path);
        if (!tn_ends_with(names[i], ".bin")) continue;
        (*entries)[(*count)++] = (cached){path, (int64_t)info.st_size, info.st_mtim};
    }
    return TN_OK;
}

void tn_store_trim(const char *path, int64_t limit) {
    tn_arena arena = {0};
    cached *entries;
    int64_t count, bytes = 0, removed = 0;
    const char *base = tn_path_base(path);
    const char *directory = tn_arena_text(&arena, path, base - path);
    if (!directory || list_entries(&arena, directory, &entries, &count) != TN_OK) goto done;
    qsort(entries, (size_t)count, sizeof *entries, by_use);
    for (int64_t i = 0; i < count; i++) bytes += entries[i].bytes;
    for (int64_t i = 0; i < count && bytes > limit; i++) {
        if (strcmp(tn_path_base(entries[i].path), base) == 0 || !remove_unused(entries[i].path)) continue;
        bytes -= entries[i].bytes;
        removed++;
    }
    if (removed > 0)
        tn_info("the token cache %s was full: %lld entries, those used longest ago, are removed", directory,
                (long long)removed);
done:
    tn_arena_free(&arena);
}
