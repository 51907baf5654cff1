/* launch.c: `--processes N` (`--gpus N`): one process becomes a launcher of N, as torchrun is one of many.
 *
 * They are forked, not started anew: everything of the command line is read already, and no thread or GPU is in
 * use yet. Each has a process group of its own, so that Ctrl-C reaches it once, through here, and is asked to
 * end where this process dies. They notice one another's end themselves (train/team.c); here it is only waited
 * for.
 */
#define _GNU_SOURCE /* sched_getaffinity */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "cli/cli.h"

enum { MOST_PROCESSES = 1024 };

static bool first = true;
bool cli_is_first(void) { return first; }

static void set_number(const char *name, long value) {
    char text[32];
    snprintf(text, sizeof text, "%ld", value);
    setenv(name, text, 1);
}

/* Those that this process may run on, which a container or taskset makes fewer than there are. */
static long cores_at_hand(void) {
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    return sysconf(_SC_NPROCESSORS_ONLN);
}

/* Cores are shared out where nobody said how many threads there shall be (0: auto). */
static void share_threads(const cli_run *run, int processes) {
    const long cores = cores_at_hand();
    char text[32];
    if (strcmp(tn_config_get(run->config, "threads"), "0") != 0 || getenv("OMP_NUM_THREADS")) return;
    snprintf(text, sizeof text, "%ld", cores > processes ? cores / processes : 1);
    (void)tn_config_set(run->config, "threads", text);
}

/* What the processes find each other by. */
static void set_meeting(int processes) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    set_number("TENON_RUN", (long)getpid() * 1000003 + now.tv_nsec);
    if (!getenv("MASTER_PORT")) set_number("MASTER_PORT", 20000 + (long)getpid() % 1800 * 16);
    setenv("MASTER_ADDR", "127.0.0.1", 1);
    set_number("WORLD_SIZE", processes);
    set_number("LOCAL_WORLD_SIZE", processes);
}

static void become(int rank, pid_t parent) {
    set_number("RANK", rank);
    set_number("LOCAL_RANK", rank);
    setpgid(0, 0);
    signal(SIGTTOU, SIG_IGN); /* a group in the background may write to the terminal all the same */
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGTERM);
#endif
    if (getppid() != parent) _exit(CLI_FAILED);
}

static void tell_all(const pid_t *child, int count, int number) {
    for (int i = 0; i < count; i++)
        if (child[i] > 0) kill(child[i], number);
}

/* Rank 0's code, unless it was killed, which nobody else can say to the user of this one. */
static int wait_for_all(pid_t *child, int count, bool json) {
    int told = 0, code = CLI_FAILED, left = 0, killed = 0;
    for (int i = 0; i < count; i++) left += child[i] > 0;
    while (left > 0) {
        int state;
        pid_t ended = waitpid(-1, &state, 0);
        if (ended < 0 && errno != EINTR) break;
        if (cli_signal() && !told) tell_all(child, count, told = cli_signal());
        for (int i = 0; ended > 0 && i < count; i++) {
            if (child[i] != ended) continue;
            child[i] = 0;
            left--;
            if (i == 0 && WIFEXITED(state)) code = WEXITSTATUS(state);
            if (i == 0 && WIFSIGNALED(state)) killed = WTERMSIG(state);
        }
    }
    if (!killed) return code;
    if (told) return CLI_SIGNAL + told;
    return cli_error(json, CLI_FAILED,
                     "the last checkpoint stands: continue with --resume_from_checkpoint auto",
                     "rank 0 was ended by signal %d", killed);
}

/* true in the launcher, with the exit code; false in a process that it has started. */
static bool start_all(const cli_run *run, int processes, int *code) {
    static pid_t child[MOST_PROCESSES];
    const pid_t parent = getpid();
    set_meeting(processes);
    share_threads(run, processes);
    fflush(NULL);
    cli_catch_signals();
    for (int i = 0; i < processes; i++) {
        child[i] = fork();
        if (child[i] == 0) {
            become(i, parent);
            return false;
        }
        if (child[i] > 0) continue;
        *code = cli_error(run->json, CLI_FAILED, "raise the limit on processes (ulimit -u), or take fewer",
                          "process %d of %d could not be started: %s", i + 1, processes, strerror(errno));
        tell_all(child, i, SIGKILL);
        (void)wait_for_all(child, i, true);
        return true;
    }
    *code = wait_for_all(child, processes, run->json);
    return true;
}

bool cli_launch(const cli_run *run, int *code) {
    const char *text = tn_config_get(run->config, "processes");
    const double processes = text ? strtod(text, NULL) : 0; /* 1e1 is a whole number too; "none" is 0 */
    tn_ranks ranks;
    if (tn_ranks_read(&ranks) != TN_OK) {
        *code = cli_fail(run->json, TN_USAGE);
        return true;
    }
    if (processes > MOST_PROCESSES) {
        *code = cli_error(run->json, CLI_USAGE, "one a GPU, or a few on the CPU",
                          "%.0f processes on one machine", processes);
        return true;
    }
    if (ranks.world == 1 && processes > 1) {
        if (start_all(run, (int)processes, code)) return true;
        if (tn_ranks_read(&ranks) != TN_OK) ranks.rank = 0; /* what was set just now */
    }
    first = ranks.rank == 0;
    if (!first) tn_log_set(NULL, NULL);
    return false;
}
