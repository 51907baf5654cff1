/* template.h: chat templates. An engine for the part of Jinja (jinja.palletsprojects.com/templates) that chat
 * templates use, with what Transformers' chat_template_utils.py adds, in a sandbox: it reads its inputs, writes
 * its output, and is bounded in steps, depth and output bytes; nothing else of the machine is within its reach
 * (strftime_now reads the clock, or a date that was set).
 */
#ifndef TN_TEXT_TEMPLATE_H
#define TN_TEXT_TEMPLATE_H

#include <time.h>

#include "base/json.h"

typedef struct tn_template tn_template;

/* Compiles template source with transformers' settings (trim_blocks, lstrip_blocks, loop controls).
 * Errors: TN_BAD_DATA with line number. */
tn_status tn_template_compile(const char *source, int64_t length, const char *name, tn_template **compiled);
void tn_template_free(tn_template *compiled);
/* strftime_now tells this time from now on, not the clock's. Not while another thread renders. */
void tn_template_set_time(tn_template *compiled, const struct tm *now);

/* A byte range of the rendered text that stood inside {% generation %}. */
typedef struct tn_text_range {
    int64_t start, end;
} tn_text_range;

/* Renders with the members of the object `variables` (messages, tools, add_generation_prompt, bos_token, …).
 * A conversation the template rejects through raise_exception: TN_BAD_DATA, the message is the template's own
 * and *rejected is set (rejected may be NULL). Exceeded bounds: TN_BAD_DATA. `ranges`/`count` (may be NULL) get
 * the generation ranges, to be freed by the caller. */
tn_status tn_template_render(const tn_template *compiled, const tn_json *variables, tn_str *out, bool *rejected,
                             tn_text_range **ranges, int64_t *count);

#endif
