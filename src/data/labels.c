/* labels.c: finding the markers of a chat template, and the scan that turns ids into labels.
 *
 * The probe is user, assistant, user, assistant with words that occur nowhere else. What stands between an
 * answer and the next question is the end of the assistant's turn and the user's marker; what follows the last
 * answer is that end alone, so their difference is the marker. In the same way the assistant's marker is what
 * stands between question and answer, less what follows a question that has no answer yet. */
#include "data/labels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char probe[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"QuestionProbeOne\"},"
    "{\"role\": \"assistant\", \"content\": \"AnswerProbeOne\"},"
    "{\"role\": \"user\", \"content\": \"QuestionProbeTwo\"},"
    "{\"role\": \"assistant\", \"content\": \"AnswerProbeTwo\"}]}";
static const char unanswered[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"QuestionProbeOne\"}]}";
static const char *const words[4] = {"QuestionProbeOne", "AnswerProbeOne", "QuestionProbeTwo",
                                     "AnswerProbeTwo"};

/* ---- The scans ---- */

static bool stands_at(const tn_ids *marker, const int32_t *ids, int64_t count, int64_t at) {
    return marker->count > 0 && count - at >= marker->count &&
           memcmp(ids + at, marker->ids, (size_t)marker->count * sizeof *ids) == 0;
}

/* Quirks kept from the original: the last token ends a span even where a user marker begins at it, and is
 * labelled; behind a user marker the scan skips one token, so an assistant marker standing right there is
 * missed; an assistant marker at the very end gives no span. */
void tn_label_responses(const tn_markers *m, const int32_t *ids, int64_t count, int32_t *labels) {
    for (int64_t i = 0; i < count; i++) labels[i] = TN_NO_LABEL;
    for (int64_t at = 0; at < count; at++) {
        if (!stands_at(&m->assistant_ids, ids, count, at)) continue;
        int64_t start = at + m->assistant_ids.count, end = start;
        while (end < count - 1 && !stands_at(&m->user_ids, ids, count, end)) end++;
        if (end >= count) return;
        at = end + m->user_ids.count;
        if (end == count - 1) at = end = count;
        for (int64_t i = start; i < end; i++) labels[i] = ids[i];
    }
}

bool tn_label_silence(const tn_markers *m, const int32_t *ids, int64_t whole, int64_t count, const bool *silent,
                      int64_t answers, int32_t *labels) {
    bool quiet = false;
    int64_t answer = 0;
    for (int64_t at = 0; at < whole; at++) {
        if (stands_at(&m->assistant_ids, ids, whole, at)) {
            if (answer == answers) return false;
            quiet = silent[answer++];
        } else if (stands_at(&m->user_ids, ids, whole, at)) {
            quiet = false;
        }
        if (quiet && at < count) labels[at] = TN_NO_LABEL;
    }
    return answer == answers;
}

void tn_label_ranges(const tn_text_range *ranges, int64_t range_count, const int64_t *starts_ends,
                     const int32_t *ids, int64_t count, int32_t *labels) {
    for (int64_t i = 0, r = 0; i < count; i++) {
        int64_t start = starts_ends[2 * i], end = starts_ends[2 * i + 1];
        while (r < range_count && ranges[r].end <= start) r++;
        bool inside = r < range_count && start < ranges[r].end && end > ranges[r].start;
        labels[i] = inside ? ids[i] : TN_NO_LABEL;
    }
}

/* ---- The markers ---- */

static tn_status render(const tn_chat *chat, const char *json, tn_str *out, bool *rejected,
                        int64_t *generated) {
    tn_arena arena = {0};
    const tn_json *record;
    tn_text_range *ranges = NULL;
    tn_status status;
    TN_TRY(tn_json_parse(&arena, json, (int64_t)strlen(json), TN_JSON_DEFAULT, "probe", &record));
    status = tn_chat_render(chat, record, out, rejected, &ranges, generated);
done:
    free(ranges);
    tn_arena_free(&arena);
    return status;
}

/* The probe as text and tokens, and where its four words stand in it. */
typedef struct probing {
    tn_str text;
    tn_text_range at[4];
    tn_ids ids;
    tn_spans spans;
} probing;

static bool find_words(probing *p) {
    const char *text = tn_str_text(&p->text), *from = text;
    for (int i = 0; i < 4; i++) {
        const char *found = strstr(from, words[i]);
        if (!found) return false;
        p->at[i].start = found - text;
        from = found + strlen(words[i]);
        p->at[i].end = from - text;
    }
    return true;
}

/* Bytes that `a` and `b` have in common at their start. Where both go on differently, moved back to the end of
 * a bracket or white space, so that no marker is cut through: "<|end|>\n<|user|>" and "<|end|>\n<|endoftext|>"
 * share "<|end|>\n". */
static int64_t common_start(const char *a, const char *b) {
    int64_t n = 0;
    while (a[n] && a[n] == b[n]) n++;
    if (!a[n] || !b[n]) return n;
    while (n > 0 && !strchr("> ]\n", a[n - 1])) n--;
    return n;
}

static bool is_blank(const char *text) { return text[strspn(text, " \t\r\n")] == '\0'; }

/* `between` without what it shares with `ending`; whole where nothing else is in it. */
static tn_status without(const char *between, const char *ending, tn_str *marker) {
    const char *rest = between + common_start(between, ending);
    tn_str_puts(marker, is_blank(rest) ? between : rest);
    return tn_str_check(marker, "a chat marker");
}

static tn_status cut_markers(const tn_chat *chat, const probing *p, tn_markers *m) {
    const char *text = tn_str_text(&p->text);
    tn_str to_answer = {0}, to_question = {0}, open = {0};
    int64_t generated;
    bool rejected = false;
    tn_status status;
    tn_str_add(&to_answer, text + p->at[0].end, p->at[1].start - p->at[0].end);
    tn_str_add(&to_question, text + p->at[1].end, p->at[2].start - p->at[1].end);
    TN_TRY(tn_str_check(&to_answer, "a chat marker"));
    TN_TRY(tn_str_check(&to_question, "a chat marker"));
    status = render(chat, unanswered, &open, &rejected, &generated);
    if (status != TN_OK && !rejected) goto done;
    const char *asked = status == TN_OK ? strstr(tn_str_text(&open), words[0]) : NULL;
    const char *after_question = asked ? asked + strlen(words[0]) : "";
    TN_TRY(without(tn_str_text(&to_question), text + p->at[3].end, &m->user));
    TN_TRY(without(tn_str_text(&to_answer), after_question, &m->assistant));
done:
    tn_str_free(&to_answer);
    tn_str_free(&to_question);
    tn_str_free(&open);
    return status;
}

/* Do the markers label both answers wholly, and nothing of the questions? (Two equal ones would, by the scan's
 * quirk.) */
static bool proves(const probing *p, const tn_markers *m, int32_t *labels) {
    const tn_ids *a = &m->user_ids, *b = &m->assistant_ids;
    if (a->count == b->count && stands_at(a, b->ids, b->count, 0)) return false;
    tn_label_responses(m, p->ids.ids, p->ids.count, labels);
    for (int64_t i = 0; i < p->ids.count; i++) {
        int64_t start = p->spans.starts_ends[2 * i], end = p->spans.starts_ends[2 * i + 1];
        for (int w = 0; w < 4; w++) {
            bool overlaps = start < p->at[w].end && end > p->at[w].start;
            if (overlaps && (labels[i] >= 0) != (w % 2 == 1)) return false;
        }
    }
    return true;
}

/* A tokenizer may join the white space around a marker with its neighbours: then the marker is found without
 * it. Spaces go before line ends, those behind the marker before those in front of it. */
static const struct {
    const char *behind, *before;
} strippings[] = {{"", ""}, {" ", ""}, {" ", " "}, {" \t\r\n", " "}, {" \t\r\n", " \t\r\n"}};
enum { STRIPPINGS = sizeof strippings / sizeof *strippings };

static tn_status strip(tn_str *marker, int level) {
    const char *text = tn_str_text(marker), *start = text + strspn(text, strippings[level].before);
    int64_t length = (int64_t)strlen(start);
    while (length > 0 && strchr(strippings[level].behind, start[length - 1])) length--;
    tn_str stripped = {0};
    tn_str_add(&stripped, start, length);
    tn_str_free(marker);
    *marker = stripped;
    return tn_str_check(marker, "a chat marker");
}

static tn_status encode_marker(const tn_chat *chat, const tn_str *marker, tn_ids *ids) {
    ids->count = 0;
    return tn_text_encode(tn_chat_text(chat), tn_str_text(marker), marker->length, false, ids, NULL);
}

static tn_status remedy_markers(void) {
    return tn_remedy(
        "put {%% generation %%} ... {%% endgeneration %%} around the assistant's content in the chat template, "
        "or train on every token with train_on_responses_only false");
}

static tn_status fail_markers(const tn_chat *chat, const tn_markers *m) {
    tn_fail(
        TN_BAD_DATA,
        "%s: cannot tell the assistant's turns from the chat template: the texts \"%s\" and \"%s\" do not part "
        "a probe conversation",
        tn_chat_template_name(chat), tn_str_text(&m->user), tn_str_text(&m->assistant));
    return remedy_markers();
}

/* The template's own words say nothing of the probe, which is no record of the user's. */
static tn_status fail_probe(const tn_chat *chat) {
    char reason[512];
    snprintf(reason, sizeof reason, "%s", tn_error_message());
    tn_fail(TN_BAD_DATA,
            "%s: the chat template rejects a plain conversation of two questions and answers, by which the "
            "assistant's "
            "turns are found: %s",
            tn_chat_template_name(chat), reason);
    return remedy_markers();
}

static tn_status prove_markers(const tn_chat *chat, probing *p, tn_markers *m) {
    int32_t *labels = NULL;
    tn_status status;
    TN_TRY(
        tn_text_encode(tn_chat_text(chat), tn_str_text(&p->text), p->text.length, false, &p->ids, &p->spans));
    TN_TRY(tn_alloc(&labels, p->ids.count, (int64_t)sizeof *labels, "labels"));
    for (int level = 0; level < STRIPPINGS; level++) {
        TN_TRY(strip(&m->user, level));
        TN_TRY(strip(&m->assistant, level));
        TN_TRY(encode_marker(chat, &m->user, &m->user_ids));
        TN_TRY(encode_marker(chat, &m->assistant, &m->assistant_ids));
        if (proves(p, m, labels)) goto done;
    }
    status = fail_markers(chat, m);
done:
    free(labels);
    return status;
}

tn_status tn_markers_find(const tn_chat *chat, tn_markers *m) {
    probing p = {0};
    int64_t generated = 0;
    bool rejected = false;
    tn_status status;
    *m = (tn_markers){0};
    status = render(chat, probe, &p.text, &rejected, &generated);
    if (rejected) status = fail_probe(chat);
    if (status != TN_OK) goto done;
    m->generation = generated > 0;
    if (m->generation) goto done;
    if (!find_words(&p)) {
        status = fail_markers(chat, m);
        goto done;
    }
    TN_TRY(cut_markers(chat, &p, m));
    status = prove_markers(chat, &p, m);
done:
    tn_str_free(&p.text);
    tn_ids_free(&p.ids);
    free(p.spans.starts_ends);
    if (status != TN_OK) tn_markers_free(m);
    return status;
}

void tn_markers_free(tn_markers *m) {
    tn_str_free(&m->user);
    tn_str_free(&m->assistant);
    tn_ids_free(&m->user_ids);
    tn_ids_free(&m->assistant_ids);
}
