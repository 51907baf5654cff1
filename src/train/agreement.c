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

/* A digest of the lines of config.resolved.yaml that must be the same. */
static tn_status digest(const tn_config *config, char out[17]) {
    tn_str yaml = {0};
    uint64_t sum = 0;
    tn_status status;
    TN_TRY(tn_config_write_yaml(config, &yaml));
    for (const char *line = tn_str_text(&yaml), *end; (end = strchr(line, '\n')); line = end + 1)
        if (!is_own(line)) sum = sum * 31 + tn_hash64(line, end - line);
    snprintf(out, 17, "%016llx", (unsigned long long)sum);
done:
    tn_str_free(&yaml);
    return status;
}

tn_status tn_agree(tn_team *team, const tn_engine *e, const char *data_hash, int64_t step) {
    char keys[17], at[32];
    tn_status status;
    if (team->world <= 1) return TN_OK;
    TN_TRY(digest(e->config, keys));
    snprintf(at, sizeof at, "step %lld", (long long)step);
    TN_TRY(tn_team_same(team, "version", TENON_VERSION));
    TN_TRY(tn_team_same(team, "kind of device", e->device->backend->name));
    TN_TRY(tn_team_same(team, "dtype", tn_dtype_name(e->device->dtype)));
    TN_TRY(tn_team_same(team, "base", e->base_hash));
    TN_TRY(tn_team_same(team, "base (values)", e->base_values));
    TN_TRY(tn_team_same(team, "dataset", data_hash));
    TN_TRY(tn_team_same(team, "configuration", keys));
    status = tn_team_same(team, "checkpoint to go on from", at);
done:
    return status;
}
