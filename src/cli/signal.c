/* signal.c: SIGINT, SIGTERM, and SIGHUP (a terminal that went away). The first sets a flag that running jobs
 * ask for between steps, and gives them back to the system, so that the second ends the program at once. */
#include <signal.h>
#include <string.h>

#include "cli/cli.h"

static volatile sig_atomic_t caught;

static void set_handlers(void (*handler)(int)) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler; /* no SA_RESTART: chat's wait for a line must end */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    struct sigaction hangup; /* ignored under nohup, and to stay so */
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, NULL);
}

static void on_signal(int number) {
    caught = number;
    set_handlers(SIG_DFL);
}

void cli_catch_signals(void) { set_handlers(on_signal); }
int cli_signal(void) { return caught; }

void cli_clear_signal(void) {
    caught = 0;
    cli_catch_signals();
}

bool cli_should_stop(void *user) {
    (void)user;
    return caught != 0;
}
