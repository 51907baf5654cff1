/* progress.c: the events of a running job on stderr. A terminal gets one line that is written over, anything
 * else a line every logging_steps; lines of the library's log never run into it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

/* The log function knows no object of ours; there is one terminal, and one line in progress. */
static bool *open_line;

static void close_line(void) {
    if (open_line && *open_line) fputs("\r\033[K", stderr);
    if (open_line) *open_line = false;
}

static void show_line(void *user, tn_log_level level, const char *line) {
    (void)user;
    close_line();
    fprintf(stderr, "%s%s\n", level == TN_LOG_WARNING ? "warning: " : "", line);
}

void cli_show_log(void) { tn_log_set(show_line, NULL); }

static void remember(cli_progress *p, double loss) {
    if (p->count == p->capacity) {
        int64_t capacity = p->capacity ? 2 * p->capacity : 1024;
        double *losses = realloc(p->losses, (size_t)capacity * sizeof *losses);
        if (!losses) return; /* the curve is an ornament: without memory it just ends early */
        p->losses = losses;
        p->capacity = capacity;
    }
    p->losses[p->count++] = loss;
}

static void print_step(cli_progress *p, const tn_event *e) {
    char left[32], speed[32];
    bool last = e->step == e->steps;
    if (!p->terminal && !last && e->step % p->every != 0) return;
    if (p->terminal) fputs("\r\033[K", stderr);
    fprintf(stderr, "step %lld/%lld  loss %.4f", (long long)e->step, (long long)e->steps, e->loss);
    if (!isnan(e->grad_norm)) fprintf(stderr, "  grad_norm %.3f", e->grad_norm);
    if (!isnan(e->learning_rate)) fprintf(stderr, "  lr %.2e", e->learning_rate);
    fprintf(stderr, "  %s tokens/s", cli_count((int64_t)e->tokens_per_second, speed));
    if (isfinite(e->percent_of_ceiling)) fprintf(stderr, "  %.0f%% of ceiling", e->percent_of_ceiling);
    if (!last) fprintf(stderr, "  %s left", cli_duration(e->seconds_left, left));
    if (!p->terminal || last) fputc('\n', stderr);
    p->line_open = p->terminal && !last;
    fflush(stderr);
}

static void on_event(void *user, const tn_event *event) {
    cli_progress *p = user;
    if (event->kind == TN_EVENT_STEP) {
        if (p->count == 0) p->first_step = event->step;
        p->last_step = event->step;
        remember(p, event->loss);
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
    const char *every = tn_config_get(run->config, "logging_steps"), *plot = tn_config_get(run->config, "plot");
    *progress =
        (cli_progress){.terminal = isatty(STDERR_FILENO), .every = every ? strtoll(every, NULL, 10) : 1};
    if (progress->every < 1) progress->every = 1;
    progress->plot = plot && (*plot ? strcmp(plot, "true") == 0 : progress->terminal);
    open_line = &progress->line_open;
    *hooks = (tn_hooks){.user = progress, .on_event = on_event, .should_stop = cli_should_stop};
    cli_catch_signals();
}

void cli_progress_end(cli_progress *progress) {
    if (progress->line_open) fputc('\n', stderr);
    open_line = NULL;
    if (progress->plot)
        cli_draw_curve(stderr, progress->losses, progress->count, progress->first_step, progress->last_step);
    free(progress->losses);
    *progress = (cli_progress){0};
}
