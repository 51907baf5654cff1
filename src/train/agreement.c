/* agreement.c: processes on several machines may find other files under the same names, or be started with
 * other keys; all of that would train something without a word.
 */
#include "train/agreement.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"

/* Where a rank computes and what it shows is its own affair, and rank 0 alone writes. */
static bool is_own(const char *line) {
    static const char *const own[] = {"device:", "threads:", "memory_limit:", "json:", "plot:", "output_dir:"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (strncmp(line, own[i], strlen(own[i])) == 0) return true;
    return false;
}

/* A line of config.resolved.yaml is "key: value"; what is longer than a record stands for itself as a hash. */
static tn_status agree_on_line(tn_team *team, const char *line, int64_t length) {
    const char *colon = memchr(line, ':', (size_t)length);
    const int64_t name = colon ? colon - line : 0, rest = length - name;
    char key[64], value[64];
    snprintf(key, sizeof key, "%.*s", (int)name, line);
    if (rest < (int64_t)sizeof value) snprintf(value, sizeof value, "%.*s", (int)rest, line + name);
    else snprintf(value, sizeof value, ": %016llx", (unsigned long long)tn_hash64(line + name, rest));
    return tn_team_same(team, name ? key : "configuration", value + (name ? strspn(value, ": ") : 0));
}

/* Key by key, so that the one that differs is named. */
static tn_status agree_on_keys(tn_team *team, const tn_config *config) {
    tn_str yaml = {0};
    int64_t lines = 0;
    char count[32];
    tn_status status;
    TN_TRY(tn_config_write_yaml(config, &yaml));
    for (const char *at = tn_str_text(&yaml); (at = strchr(at, '\n')); at++) lines++;
    snprintf(count, sizeof count, "%lld", (long long)lines);
    TN_TRY(tn_team_same(team, "number of settings", count));
    for (const char *line = tn_str_text(&yaml), *end; (end = strchr(line, '\n')); line = end + 1)
        if (!is_own(line)) TN_TRY(agree_on_line(team, line, end - line));
done:
    tn_str_free(&yaml);
    return status;
}

tn_status tn_agree(tn_team *team, const tn_engine *e, const char *data_hash, int64_t step) {
    char at[32];
    tn_status status;
    if (team->world <= 1) return TN_OK;
    snprintf(at, sizeof at, "step %lld", (long long)step);
    TN_TRY(tn_team_same(team, "version", TENON_VERSION));
    TN_TRY(tn_team_same(team, "kind of device", e->device->backend->name));
    TN_TRY(tn_team_same(team, "dtype", tn_dtype_name(e->device->dtype)));
    TN_TRY(tn_team_same(team, "base", e->base_hash));
    TN_TRY(tn_team_same(team, "base (values)", e->base_values));
    TN_TRY(tn_team_same(team, "dataset", data_hash));
    TN_TRY(agree_on_keys(team, e->config));
    status = tn_team_same(team, "checkpoint to go on from", at);
done:
    return status;
}
