/* signal.c: SIGINT, SIGTERM, and SIGHUP (a terminal that went away). The first sets a flag that running jobs
 * ask for between steps; a second one ends the program at once. What comes within MOMENT of the first is the
 * same wish: `timeout` and service managers send two. SIGBUS is how the system says that a mapped file has lost
 * its end, or its disk; that gets a message and an exit code.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"

enum { MOMENT = 300 /* milliseconds */ };

static volatile sig_atomic_t caught;
static volatile int64_t caught_at;

static void set_handlers(void (*handler)(int)) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler; /* no SA_RESTART: chat's wait for a line must end */
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    struct sigaction hangup; /* ignored under nohup, and to stay so */
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, NULL);
}

static void on_signal(int number) {
    struct timespec now = {0, 0};
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t milliseconds = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    if (!caught) {
        caught = number, caught_at = milliseconds;
    } else if (milliseconds - caught_at >= MOMENT) {
        set_handlers(SIG_DFL);
        raise(number); /* blocked until this handler returns */
    }
}

/* Products that oneDNN makes at run time use the stack pointer as one more pointer into their buffers; a signal
 * that comes then would be delivered over the heap (one interrupted run in nine died of it). So signals have a
 * stack of their own in the first thread, which is the one that gets them. */
static void set_stack(void) {
    static char memory[1 << 16];
    const stack_t stack = {.ss_sp = memory, .ss_size = sizeof memory};
    (void)sigaltstack(&stack, NULL);
}

void cli_catch_signals(void) {
    set_stack();
    set_handlers(on_signal);
}
int cli_signal(void) { return caught; }

void cli_clear_signal(void) {
    caught = 0;
    cli_catch_signals();
}

bool cli_should_stop(void *user) {
    (void)user;
    return caught != 0;
}

/* ---- Mapped files that went away ----------------------------------------------------------------- */

/* In a handler nothing but plain system calls is allowed: no stdio, no memory. */
static void put(int fd, const char *text) {
    size_t length = strlen(text);
    while (length > 0) {
        ssize_t written = write(fd, text, length);
        if (written <= 0) return;
        text += written;
        length -= (size_t)written;
    }
}

static const char *read_hex(const char *text, uintptr_t *value) {
    static const char digits[] = "0123456789abcdef";
    const char *digit;
    for (*value = 0; *text && (digit = strchr(digits, *text)); text++)
        *value = *value * 16 + (uintptr_t)(digit - digits);
    return text;
}

/* A line of /proc/self/maps is "from-to flags offset device inode   path". The path where it holds `address`.
 */
static const char *path_of(const char *line, uintptr_t address) {
    uintptr_t from, to;
    const char *rest = read_hex(line, &from);
    if (*rest != '-') return NULL;
    read_hex(rest + 1, &to);
    return from <= address && address < to ? strchr(line, '/') : NULL;
}

/* The file mapped at `address`, NULL where there is none to be found. */
static const char *mapped_file(uintptr_t address) {
    static char line[8192]; /* the signal's thread has a stack of unknown size */
    const char *path = NULL;
    size_t used = 0;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && !path && read(fd, line + used, 1) == 1) {
        if (line[used] != '\n') {
            used += used + 2 < sizeof line;
            continue;
        }
        line[used] = '\0';
        used = 0;
        path = path_of(line, address);
    }
    if (fd >= 0) close(fd);
    return path;
}

static bool bus_json;

static void on_bus_error(int number, siginfo_t *info, void *context) {
    static const char remedy[] = "put the file back and give the same command again, or resume a run";
    const char *path = mapped_file((uintptr_t)info->si_addr);
    (void)context;
    if (!path) { /* another kind of fault: the instruction runs again, and ends the program as it would have */
        signal(number, SIG_DFL);
        return;
    }
    put(STDERR_FILENO, "\ntenon: ");
    put(STDERR_FILENO, path);
    put(STDERR_FILENO, " was cut short while it was read, or its disk failed\n  ");
    put(STDERR_FILENO, remedy);
    put(STDERR_FILENO, "\n");
    if (bus_json) {
        put(STDOUT_FILENO,
            "{\"error\":{\"code\":6,\"message\":\"a file was cut short while it was read, or its "
            "disk failed\",\"remedy\":\"");
        put(STDOUT_FILENO, remedy);
        put(STDOUT_FILENO, "\"}}\n");
    }
    _exit(CLI_STORAGE);
}

void cli_catch_bus_errors(bool json) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO;
    bus_json = json;
    sigaction(SIGBUS, &action, NULL);
}
