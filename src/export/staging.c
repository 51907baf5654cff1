/* staging.c: see staging.h. */
#include "export/staging.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char suffix[] = ".tmp-tenon";
static const char last[] = "config.json"; /* without it a directory is no model */

static tn_status is_there(const char *path, const char *key) {
    tn_fail(TN_USAGE, "%s is there already", path);
    return tn_remedy("choose another %s, or remove this one; nothing is overwritten", key);
}

/* A link to nothing cannot be renamed to. */
static tn_status check_link(const char *path, const char *key) {
    struct stat info;
    if (lstat(path, &info) != 0 || !S_ISLNK(info.st_mode) || stat(path, &info) == 0) return TN_OK;
    tn_fail(TN_USAGE, "%s is a link to nothing", path);
    return tn_remedy("choose another %s, make what it points to, or remove the link", key);
}

static tn_status check_directory(tn_staging *s, const char *path, const char *key) {
    const char **names;
    int64_t count;
    if (!tn_is_directory(path)) return access(path, F_OK) == 0 ? is_there(path, key) : check_link(path, key);
    s->inside = true;
    tn_status status = tn_list_directory(&s->arena, path, &names, &count);
    const bool only_ours = count == 1 && strcmp(names[0], suffix) == 0; /* of a run that was killed */
    return status == TN_OK && count > 0 && !only_ours ? is_there(path, key) : status;
}

/* `path` without slashes behind it, and the directory of the files. */
static tn_status set_paths(tn_staging *s, const char *path) {
    int64_t length = (int64_t)strlen(path);
    while (length > 1 && path[length - 1] == '/') length--;
    s->target = tn_arena_text(&s->arena, path, length);
    s->directory = tn_arena_printf(&s->arena, "%.*s%s%s", (int)length, path, s->inside ? "/" : "", suffix);
    return s->target && s->directory ? TN_OK : tn_fail_memory(length, "a path");
}

tn_status tn_staging_directory(tn_staging *s, const char *path, const char *key, const tn_hooks *hooks) {
    *s = (tn_staging){.hooks = hooks, .lock = -1};
    tn_status status = check_directory(s, path, key);
    return status == TN_OK ? set_paths(s, path) : status;
}

tn_status tn_staging_file(tn_staging *s, const char *path, const char *key, const tn_hooks *hooks) {
    *s = (tn_staging){.hooks = hooks, .lock = -1};
    if (tn_is_directory(path)) {
        tn_fail(TN_USAGE, "cannot write %s: it is a directory", path);
        return tn_remedy("give the path of a file as %s", key);
    }
    if (tn_is_file(path) && tn_file_size(path) > 0) return is_there(path, key);
    tn_status status = check_link(path, key);
    if (status == TN_OK) status = set_paths(s, path);
    if (status != TN_OK) return status;
    if (access(path, F_OK) == 0 && !tn_is_file(path)) { /* nothing is beside a pipe */
        s->directory = NULL;
        s->file = s->target;
        return TN_OK;
    }
    s->file = tn_path_join(&s->arena, s->directory, tn_path_base(s->target));
    return s->file ? TN_OK : tn_fail_memory(256, "a path");
}

/* Removes the entries of the directory, not itself: another process may wait for its lock. */
static tn_status clear(tn_staging *s) {
    const char **names;
    int64_t count;
    tn_status status = tn_list_directory(&s->arena, s->directory, &names, &count);
    for (int64_t i = 0; status == TN_OK && i < count; i++) {
        const char *entry = tn_path_join(&s->arena, s->directory, names[i]);
        status = entry ? tn_remove_tree(entry) : tn_fail_memory(256, "a path");
    }
    return status;
}

/* It may have been renamed by its owner between being opened and locked. */
static bool is_same(int lock, const char *path) {
    struct stat a, b;
    return fstat(lock, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

tn_status tn_staging_begin(tn_staging *s) {
    struct stat info;
    tn_status status = TN_OK;
    if (!s->directory) return TN_OK;
    if (lstat(s->directory, &info) == 0 && !S_ISDIR(info.st_mode)) TN_TRY(tn_remove_tree(s->directory));
    if (s->file) { /* folders are made for a model, not for a file */
        if (!tn_is_directory(s->directory) && mkdir(s->directory, 0777) != 0)
            TN_TRY(tn_fail_errno("write", s->directory));
    } else TN_TRY(tn_make_directories(s->directory));
    TN_TRY(tn_lock_directory(s->directory, &s->lock));
    if (!is_same(s->lock, s->directory)) {
        tn_unlock_directory(&s->lock);
        tn_fail(TN_USAGE, "another process was writing to %s", s->directory);
        return tn_remedy("look at what it has made, or give the same command again");
    }
    status = clear(s);
done:
    return status;
}

tn_status tn_staging_go_on(const tn_staging *s) {
    const tn_hooks *hooks = s->hooks;
    if (!hooks || !hooks->should_stop || !hooks->should_stop(hooks->user)) return TN_OK;
    tn_fail(TN_INTERRUPTED, "interrupted before %s was whole", s->target);
    return tn_remedy("nothing was written; give the same command again");
}

static tn_status count_bytes(tn_staging *s, const char *directory, int64_t *bytes) {
    const char **names;
    int64_t count;
    tn_status status = tn_list_directory(&s->arena, directory, &names, &count);
    for (int64_t i = 0; status == TN_OK && i < count; i++) {
        const char *path = tn_path_join(&s->arena, directory, names[i]);
        if (!path) return tn_fail_memory(256, "a path");
        if (tn_is_directory(path)) status = count_bytes(s, path, bytes);
        else *bytes += tn_file_size(path);
    }
    return status;
}

tn_status tn_staging_bytes(tn_staging *s, int64_t *bytes) {
    *bytes = 0;
    return s->directory ? count_bytes(s, s->directory, bytes) : TN_OK;
}

static tn_status move_up(tn_staging *s, const char *name) {
    const char *from = tn_path_join(&s->arena, s->directory, name);
    const char *to = tn_path_join(&s->arena, s->target, name);
    return from && to ? tn_rename(from, to) : tn_fail_memory(256, "a path");
}

static tn_status move_all_up(tn_staging *s) {
    const char **names;
    int64_t count;
    bool has_last = false;
    tn_status status;
    TN_TRY(tn_list_directory(&s->arena, s->directory, &names, &count));
    for (int64_t i = 0; i < count; i++) {
        const bool is_last = strcmp(names[i], last) == 0;
        has_last |= is_last;
        if (!is_last) TN_TRY(move_up(s, names[i]));
    }
    if (has_last) TN_TRY(move_up(s, last));
    status = tn_remove_tree(s->directory);
done:
    return status;
}

tn_status tn_staging_commit(tn_staging *s) {
    tn_status status = TN_OK;
    if (!s->directory) return TN_OK;
    TN_TRY(tn_sync_directory(s->directory));
    if (s->file) {
        if (tn_is_file(s->target) && tn_file_size(s->target) > 0) return is_there(s->target, "output");
        TN_TRY(tn_rename(s->file, s->target));
        (void)tn_remove_tree(s->directory);
    } else if (s->inside) TN_TRY(move_all_up(s));
    else TN_TRY(tn_rename(s->directory, s->target));
    tn_unlock_directory(&s->lock);
done:
    return status;
}

tn_status tn_staging_end(tn_status status, tn_staging *s) {
    if (s->directory && s->lock >= 0) {
        status = tn_discard_tree(status, s->directory);
        tn_unlock_directory(&s->lock);
    }
    tn_arena_free(&s->arena);
    *s = (tn_staging){.lock = -1};
    return status;
}
