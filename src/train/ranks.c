/* ranks.c: reads the variables that launchers set. The first launcher in `launchers` whose variables are there
 * is believed: torchrun's names come first, since people and our own launcher (src/cli/launch.c) set them by
 * hand too.
 */
#include "train/ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/number.h"

enum { USUAL_PORT = 29500, MOST_RANKS = 1 << 16 };

static const struct launcher {
    const char *rank, *world, *local_rank, *local_world;
    bool both; /* rank or world alone is a mistake, and not another use of the variable */
} launchers[] = {
    {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", true},
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE",
     true},
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", true},
    {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", NULL, false},
    {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", NULL, false},
};
enum { LAUNCHERS = sizeof launchers / sizeof *launchers };

static const char *variable(const char *name) {
    const char *value = name ? getenv(name) : NULL;
    return value && *value ? value : NULL;
}

/* A number from `least` on; `otherwise` where the variable is not set. */
static tn_status number(const char *name, int least, int otherwise, int *result) {
    const char *text = variable(name);
    int64_t value = otherwise;
    if (text &&
        (!tn_parse_integer(text, (int64_t)strlen(text), &value) || value < least || value > MOST_RANKS)) {
        tn_fail(TN_USAGE, "the environment says %s=%s, which is no number of processes", name, text);
        return tn_remedy("it is set by torchrun, mpirun or Slurm: unset it to run alone");
    }
    *result = (int)value;
    return TN_OK;
}

/* sbatch runs its script as task 0 of all, once: whoever starts a program there without srun wants it alone. */
static bool is_batch_script(const struct launcher *l) {
    return strncmp(l->rank, "SLURM", 5) == 0 && variable("SLURM_JOB_ID") && !variable("SLURM_STEP_ID") &&
           !variable("SLURM_STEP_NUM_TASKS");
}

static tn_status read_launcher(const struct launcher *l, tn_ranks *r) {
    tn_status status;
    TN_TRY(number(l->rank, 0, 0, &r->rank));
    TN_TRY(number(l->world, 1, 1, &r->world));
    TN_TRY(number(l->local_rank, 0, r->rank, &r->local_rank));
    TN_TRY(number(l->local_world, 1, 0, &r->local_world));
    const char *nodes =
        variable("SLURM_STEP_NUM_NODES") ? variable("SLURM_STEP_NUM_NODES") : variable("SLURM_NNODES");
    if (!l->local_world && nodes && strcmp(nodes, "1") == 0) r->local_world = r->world;
    if (r->rank < r->world && r->local_world <= r->world) goto done;
    tn_fail(TN_USAGE, "the environment says %s=%d and %s=%d", l->rank, r->rank, l->world, r->world);
    status = tn_remedy("ranks are numbered from 0 to %s - 1; unset both to run alone", l->world);
done:
    return status;
}

tn_status tn_ranks_read(tn_ranks *ranks) {
    *ranks = (tn_ranks){.world = 1, .local_world = 1};
    for (int i = 0; i < LAUNCHERS; i++) {
        const struct launcher *l = &launchers[i];
        const bool rank = variable(l->rank), world = variable(l->world);
        if (rank && world && !is_batch_script(l)) return read_launcher(l, ranks);
        if (rank == world || !l->both) continue;
        tn_fail(TN_USAGE, "the environment sets %s without %s", rank ? l->rank : l->world,
                rank ? l->world : l->rank);
        return tn_remedy("a process of several needs both; unset it to run alone");
    }
    return TN_OK;
}

/* ---- Where they meet -------------------------------------------------------------------------------- */

/* The first host of "node[07-09,12],other3": "node07". */
static void first_host(const char *list, char *host, size_t size) {
    const size_t plain = strcspn(list, ",[");
    const char *digits = list[plain] == '[' ? list + plain + 1 : "";
    snprintf(host, size, "%.*s%.*s", (int)plain, list, (int)strcspn(digits, ",-]"), digits);
}

/* What every process of one run has in common, and another run has not. */
static uint64_t run_of(void) {
    static const char *const names[] = {"TENON_RUN",
                                        "TORCHELASTIC_RUN_ID",
                                        "TORCHELASTIC_RESTART_COUNT",
                                        "OMPI_MCA_ess_base_jobid",
                                        "PMIX_NAMESPACE",
                                        "SLURM_JOB_ID",
                                        "SLURM_STEP_ID",
                                        "MASTER_PORT"};
    char text[2048] = "";
    size_t used = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names && used < sizeof text; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s\n",
                                 variable(names[i]) ? variable(names[i]) : "");
    if (used > sizeof text) used = sizeof text;
    return tn_hash64(text, (int64_t)used);
}

tn_status tn_meeting_read(tn_meeting *m) {
    const char *host = variable("MASTER_ADDR"), *port = variable("MASTER_PORT"), *nodes;
    const char *store = variable("TORCHELASTIC_USE_AGENT_STORE");
    int64_t number = USUAL_PORT;
    *m = (tn_meeting){0};
    tn_status status = tn_ranks_read(&m->ranks);
    if (status != TN_OK) return status;
    if (port && (!tn_parse_integer(port, (int64_t)strlen(port), &number) || number < 1 || number > 65000)) {
        tn_fail(TN_USAGE, "the environment says MASTER_PORT=%s, which is no port", port);
        return tn_remedy("a number from 1 to 65000, free on the machine of rank 0");
    }
    m->port = (int)number + (store && strcmp(store, "True") == 0); /* torchrun listens on the first itself */
    m->run = run_of();
    nodes = variable("SLURM_STEP_NODELIST") ? variable("SLURM_STEP_NODELIST") : variable("SLURM_JOB_NODELIST");
    m->here = m->ranks.local_world == m->ranks.world || (!host && !nodes && m->ranks.local_world == 0);
    if (m->here) snprintf(m->host, sizeof m->host, "127.0.0.1");
    else if (host) snprintf(m->host, sizeof m->host, "%s", host);
    else if (nodes) first_host(nodes, m->host, sizeof m->host);
    if (m->host[0]) return TN_OK;
    tn_fail(TN_USAGE, "%d processes on several machines, and the environment does not say where rank 0 is",
            m->ranks.world);
    return tn_remedy("set MASTER_ADDR (and MASTER_PORT) for all of them, e.g. mpirun -x MASTER_ADDR=node01 …");
}

/* ---- The split ----------------------------------------------------------------------------------------- */

tn_status tn_ranks_check(int world, int64_t processes, int64_t micro_batches) {
    const int64_t count = world > 1 || processes < 1 ? world : processes;
    if (world > 1 && processes > 0 && processes != world) {
        tn_fail(TN_USAGE, "processes says %lld, and the environment that this is one of %d",
                (long long)processes, world);
        return tn_remedy("leave the key out under torchrun, mpirun or Slurm, which count them themselves");
    }
    if (count > MOST_RANKS || count > micro_batches) {
        tn_fail(TN_USAGE, "%lld processes share the %lld micro-batches of a step (gradient_accumulation_steps)",
                (long long)count, (long long)micro_batches);
        return tn_remedy(
            "take fewer, or split the step further: half the per_device_train_batch_size with twice the "
            "gradient_accumulation_steps is the same step");
    }
    return TN_OK;
}

tn_status tn_ranks_check_started(int world, int64_t processes) {
    if (processes <= world) return TN_OK;
    tn_fail(TN_USAGE, "processes says %lld, and this process runs alone: the library starts no others",
            (long long)processes);
    return tn_remedy(
        "leave it out, or let the program start them (`tenon VERB --processes %lld` with the same keys), or "
        "torchrun, mpirun or Slurm any program",
        (long long)processes);
}

/* ---- The device ------------------------------------------------------------------------------------- */

tn_status tn_ranks_device(const char *device, char out[TN_RANKS_DEVICE]) {
    const char *visible = variable("CUDA_VISIBLE_DEVICES");
    tn_ranks ranks;
    tn_status status = tn_ranks_read(&ranks);
    if (status != TN_OK) return status;
    snprintf(out, TN_RANKS_DEVICE, "%s", device);
    if (ranks.world == 1 || strcmp(device, "cpu") == 0) return TN_OK;
    if (strchr(device, ':')) {
        tn_fail(TN_USAGE, "device %s names one GPU, and %d processes run", device, ranks.world);
        return tn_remedy("device cuda gives each process the GPU of its local rank");
    }
    /* A scheduler shows each process its own alone; our launcher shows all what it sees. */
    const bool one = visible && !strchr(visible, ',') && !variable("TENON_RUN");
    snprintf(out, TN_RANKS_DEVICE, "%s:%d", device, one ? 0 : ranks.local_rank);
    return TN_OK;
}
