/* progress.c: the events of a running job on stderr. A terminal gets one line that is written over and never
 * wider than it, anything else (TERM=dumb too) a line every logging_steps; lines of the library's log never run
 * into it. At the end the loss curve, which for a resumed run begins where the run began. */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/cli.h"

enum { FIELDS = 7, USUAL_COLUMNS = 80 };

/* The log function knows no object of ours; there is one terminal, and one line in progress. */
static bool *open_line;

static void close_line(void) {
    if (open_line && *open_line) fputs("\r\033[K", stderr);
    if (open_line) *open_line = false;
}

/* merge opens its devices one behind the other, and each would say that there is no GPU. */
static bool was_said_last(const char *line) {
    static char last[512];
    if (strcmp(line, last) == 0) return true;
    snprintf(last, sizeof last, "%s", line);
    return false;
}

static void show_line(void *user, tn_log_level level, const char *line) {
    (void)user;
    if (level != TN_LOG_WARNING && was_said_last(line)) return;
    close_line();
    fprintf(stderr, "%s%s\n", level == TN_LOG_WARNING ? "warning: " : "", line);
}

void cli_show_log(void) { tn_log_set(show_line, NULL); }

/* ---- The terminal -------------------------------------------------------------------------------- */

/* Can a line be written over? */
static bool can_rewrite(void) {
    const char *term = getenv("TERM");
    return isatty(STDERR_FILENO) && term && *term && strcmp(term, "dumb") != 0;
}

/* Asked each time: windows change their size. */
static int terminal_columns(void) {
    struct winsize size;
    const char *variable = getenv("COLUMNS");
    long columns = 0;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0) columns = size.ws_col;
    if (columns <= 0 && variable) columns = strtol(variable, NULL, 10);
    return columns > 0 && columns <= INT_MAX ? (int)columns : USUAL_COLUMNS;
}

/* ---- The losses of the curve ---------------------------------------------------------------------- */

/* Asked late: a resumed run has its checkpoint's. */
static int64_t logging_steps(const cli_progress *p) {
    const char *every = tn_config_get(p->config, "logging_steps");
    int64_t steps = every ? strtoll(every, NULL, 10) : 1;
    return steps < 1 ? 1 : steps;
}

/* The loss of each step from the first; steps that were not reported (logging_steps) had the next one's. */
static void remember(cli_progress *p, int64_t step, double loss) {
    if (p->count == 0) p->first_step = step <= logging_steps(p) ? 1 : step;
    while (p->first_step + p->count <= step) {
        if (p->count == p->capacity) {
            int64_t capacity = p->capacity ? 2 * p->capacity : 1024;
            double *losses = realloc(p->losses, (size_t)capacity * sizeof *losses);
            if (!losses) return; /* the curve is an ornament: without memory it just ends early */
            p->losses = losses;
            p->capacity = capacity;
        }
        p->losses[p->count++] = loss;
    }
}

/* What a resumed run's log says of the steps before `step`. */
static void remember_log(cli_progress *p, int64_t step) {
    char path[PATH_MAX], *line = NULL;
    size_t capacity = 0;
    long long at;
    double loss;
    const char *directory = tn_config_get(p->config, "output_dir");
    if (!directory || !*directory) return; /* bench */
    if (snprintf(path, sizeof path, "%s/train_log.jsonl", directory) >= (int)sizeof path) return;
    FILE *file = fopen(path, "re");
    if (!file) return;
    while (getline(&line, &capacity, file) >= 0)
        if (sscanf(line, "{\"step\": %lld, \"loss\": %lf", &at, &loss) == 2 && at >= 1 && at < step)
            remember(p, at, loss);
    free(line);
    fclose(file);
}

/* ---- Events -------------------------------------------------------------------------------------- */

/* The fields of a step's line; a narrow terminal loses them in this order: the share of the ceiling, the
 * learning rate, the norm, the speed, the time left. Step and loss stay. */
static void print_fields(char field[FIELDS][48], int columns) {
    static const int dropped[] = {5, 3, 2, 4, 6};
    char line[FIELDS * 50] = "";
    size_t width = 0;
    for (int i = 0; i < FIELDS; i++) width += strlen(field[i]);
    for (size_t i = 0; i < sizeof dropped / sizeof *dropped && width >= (size_t)columns; i++) {
        width -= strlen(field[dropped[i]]);
        field[dropped[i]][0] = '\0';
    }
    for (int i = 0; i < FIELDS; i++) strcat(line, field[i]);
    fprintf(stderr, "%.*s", columns - 1, line); /* a full last column wraps on some */
}

static void print_step(cli_progress *p, const tn_event *e) {
    char left[32], speed[32], field[FIELDS][48] = {{0}};
    const size_t size = sizeof *field;
    bool last = e->step == e->steps;
    if (!p->terminal && !last && e->step % logging_steps(p) != 0) return;
    if (p->terminal) fputs("\r\033[K", stderr);
    snprintf(field[0], size, "step %lld/%lld", (long long)e->step, (long long)e->steps);
    snprintf(field[1], size, "  loss %.4f", e->loss);
    if (!isnan(e->grad_norm)) snprintf(field[2], size, "  grad_norm %.3f", e->grad_norm);
    if (!isnan(e->learning_rate)) snprintf(field[3], size, "  lr %.2e", e->learning_rate);
    snprintf(field[4], size, "  %s tokens/s", cli_count((int64_t)e->tokens_per_second, speed));
    if (isfinite(e->percent_of_ceiling)) snprintf(field[5], size, "  %.0f%% of ceiling", e->percent_of_ceiling);
    if (!last) snprintf(field[6], size, "  %s left", cli_duration(e->seconds_left, left));
    print_fields(field, p->terminal ? terminal_columns() : INT_MAX);
    if (!p->terminal || last) fputc('\n', stderr);
    p->line_open = p->terminal && !last;
    fflush(stderr);
}

static void on_event(void *user, const tn_event *event) {
    cli_progress *p = user;
    if (event->kind == TN_EVENT_STEP) {
        if (p->plot && p->count == 0) remember_log(p, event->step);
        remember(p, event->step, event->loss);
        print_step(p, event);
        return;
    }
    close_line();
    if (event->kind == TN_EVENT_BANNER && event->text) fprintf(stderr, "%s\n", event->text);
    if (event->kind == TN_EVENT_EVAL)
        fprintf(stderr, "step %lld/%lld  eval_loss %.4f\n", (long long)event->step, (long long)event->steps,
                event->loss);
    if (event->kind == TN_EVENT_SAVE && event->text) fprintf(stderr, "saved %s\n", event->text);
}

void cli_progress_start(cli_progress *progress, const cli_run *run, tn_hooks *hooks) {
    const char *plot = tn_config_get(run->config, "plot");
    *progress = (cli_progress){.config = run->config, .terminal = can_rewrite()};
    progress->plot = plot && cli_is_first() && (*plot ? strcmp(plot, "true") == 0 : progress->terminal);
    open_line = &progress->line_open;
    *hooks = (tn_hooks){.user = progress, .on_event = on_event, .should_stop = cli_should_stop};
    cli_catch_signals();
}

void cli_progress_end(cli_progress *progress) {
    if (progress->line_open) fputc('\n', stderr);
    open_line = NULL;
    if (progress->plot)
        cli_draw_curve(stderr, progress->losses, progress->count, progress->first_step,
                       progress->terminal ? terminal_columns() : INT_MAX);
    free(progress->losses);
    *progress = (cli_progress){0};
}
