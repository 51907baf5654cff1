/* host_memory.c: see host_memory.h. A container sees its own limit at the top of /sys/fs/cgroup, in files whose
 * names differ between the two versions of cgroups; what its page cache holds can be taken back and counts as
 * free.
 */
#include "base/host_memory.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The number behind `key` in a file of lines "key number", or the first number where `key` is ""; -1 where
 * there is none (no such file, "max"). */
static int64_t number_in(const char *path, const char *key) {
    FILE *file = fopen(path, "r");
    char line[256];
    long long value = -1;
    const size_t length = strlen(key);
    if (!file) return -1;
    while (value < 0 && fgets(line, sizeof line, file))
        if (strncmp(line, key, length) == 0 && sscanf(line + length, " %lld", &value) != 1) value = -1;
    fclose(file);
    return value;
}

/* What the container may still take; -1 where nothing limits it. */
static int64_t left_in_container(void) {
    static const struct {
        const char *limit, *used, *detail, *cache;
    } versions[] = {
        {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat",
         "inactive_file"},
        {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
         "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file"},
    };
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        int64_t limit = number_in(versions[i].limit, ""), used = number_in(versions[i].used, "");
        int64_t cache = number_in(versions[i].detail, versions[i].cache);
        if (limit < 0 || used < 0) continue;
        int64_t left = limit - used + (cache > 0 ? cache : 0);
        return left > 0 ? left : 0;
    }
    return -1;
}

int64_t tn_host_memory_total(void) { return (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE); }

int64_t tn_host_memory_available(void) {
    const int64_t kib = number_in("/proc/meminfo", "MemAvailable:"), left = left_in_container();
    const int64_t available = kib < 0 ? tn_host_memory_total() : kib * 1024;
    return left >= 0 && left < available ? left : available;
}
