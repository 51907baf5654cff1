/* show.c: runs of tokens with and without labels, decoded one by one: a character whose bytes are shared
 * between two runs shows as U+FFFD. */
#include "data/show.h"

static tn_status show_run(const tn_chat *chat, const int32_t *ids, int64_t count, tn_str *out) {
    if (chat) return tn_text_decode(tn_chat_text(chat), ids, count, false, out);
    for (int64_t i = 0; i < count; i++) tn_str_printf(out, i ? " %d" : "%d", (int)ids[i]);
    return TN_OK;
}

tn_status tn_show_sample(const tn_chat *chat, tn_sample sample, tn_str *out) {
    for (int64_t start = 0, end; start < sample.length; start = end) {
        bool labelled = sample.labels[start] >= 0;
        for (end = start + 1; end < sample.length && (sample.labels[end] >= 0) == labelled;) end++;
        if (!chat && start > 0) tn_str_putc(out, ' ');
        if (!labelled) tn_str_puts(out, "⟦");
        tn_status status = show_run(chat, sample.ids + start, end - start, out);
        if (status != TN_OK) return status;
        if (!labelled) tn_str_puts(out, "⟧");
    }
    return tn_str_check(out, "a sample");
}
