/* log.c: hands formatted lines to the function set by the program. */
#include "base/log.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

static tn_log_function *sink;
static void *sink_user;

void tn_log_set(tn_log_function *function, void *user) {
    sink = function;
    sink_user = user;
}

static void send(tn_log_level level, const char *format, va_list arguments) {
    char line[4096];
    if (!sink) return;
    vsnprintf(line, sizeof line, format, arguments);
    sink(sink_user, level, line);
}

void tn_info(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    send(TN_LOG_INFO, format, arguments);
    va_end(arguments);
}

void tn_warn(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    send(TN_LOG_WARNING, format, arguments);
    va_end(arguments);
}
