/* post.c: post-processors, as far as ids go: what they put around one text. (The trimming of offsets has no use
 * here.)
 *
 * A processor gets one sequence or, behind a template that made several of one, these; so the sequences are
 * kept apart until the end, and a template meets two of them as a pair.
 */
#include <stdlib.h>

#include "text/pipeline.h"

enum { MOST_SEQUENCES = 64 };

typedef struct sequences {
    tn_ids list[MOST_SEQUENCES];
    int count;
    bool special; /* are special tokens asked for? */
} sequences;

static void free_all(sequences *s) {
    for (int i = 0; i < s->count; i++) tn_ids_free(&s->list[i]);
    s->count = 0;
}

static tn_status push_id(tn_ids *to, int64_t id) {
    if (id < 0 || id >= TN_LARGEST_ID)
        return tn_fail(TN_BAD_DATA, "post-processor: %lld is no id", (long long)id);
    return tn_ids_push(to, (int32_t)id);
}

static tn_status append(tn_ids *to, const tn_ids *ids) {
    tn_status status = TN_OK;
    for (int64_t i = 0; i < ids->count && status == TN_OK; i++) status = tn_ids_push(to, ids->ids[i]);
    return status;
}

/* ---- Templates ---- */

static tn_status put_special(const tn_json *node, const tn_json *special, tn_ids *to) {
    tn_status status = TN_OK;
    const char *name = tn_json_string(tn_json_get(special, "id"), "");
    const tn_json *ids = tn_json_get(tn_json_get(tn_json_get(node, "special_tokens"), name), "ids");
    if (!ids || ids->type != TN_JSON_ARRAY)
        return tn_fail(TN_BAD_DATA, "post-processor: special token \"%s\" is not described", name);
    for (int64_t i = 0; i < ids->count && status == TN_OK; i++)
        status = push_id(to, tn_json_integer(&ids->items[i], -1));
    return status;
}

static tn_status put_sequence(const tn_json *piece, const sequences *in, tn_ids *to) {
    const tn_json *sequence = tn_json_get(piece, "Sequence");
    int which = tn_json_is_string(tn_json_get(sequence, "id"), "B") ? 1 : 0;
    if (!sequence || which >= in->count)
        return tn_fail(TN_BAD_DATA,
                       "post-processor: a template's piece is neither a token nor one of its texts");
    return append(to, &in->list[which]);
}

static tn_status run_template(const tn_json *node, sequences *s) {
    tn_status status = TN_OK;
    sequences made = {.special = s->special};
    const tn_json *template = tn_json_get(node, s->count == 1 ? "single" : "pair");
    if (!template || template->type != TN_JSON_ARRAY || template->count > MOST_SEQUENCES || s->count > 2)
        TN_THROW(TN_BAD_DATA, "post-processor: no template for %d sequences", s->count);
    for (int64_t i = 0; i < template->count; i++) {
        const tn_json *piece = &template->items[i], *special = tn_json_get(piece, "SpecialToken");
        if (special && !s->special) continue;
        tn_ids *to = &made.list[made.count++];
        TN_TRY(special ? put_special(node, special, to) : put_sequence(piece, s, to));
    }
    free_all(s);
    *s = made;
    made.count = 0;
done:
    free_all(&made);
    return status;
}

/* ---- The fixed kinds ---- */

/* cls text sep, further texts followed by sep and, for Roberta, led by it; both given as [string, id]. */
static tn_status run_bert(const tn_json *node, bool roberta, sequences *s) {
    tn_status status = TN_OK;
    tn_ids made = {0};
    int64_t cls = tn_json_integer(tn_json_at(tn_json_get(node, "cls"), 1), -1);
    int64_t sep = tn_json_integer(tn_json_at(tn_json_get(node, "sep"), 1), -1);
    for (int i = 0; i < s->count && s->special; i++) {
        if (i == 0 || roberta) TN_TRY(push_id(&made, i == 0 ? cls : sep));
        TN_TRY(append(&made, &s->list[i]));
        TN_TRY(push_id(&made, sep));
        tn_ids_free(&s->list[i]);
        s->list[i] = made;
        made = (tn_ids){0};
    }
done:
    tn_ids_free(&made);
    return status;
}

static tn_status run(const tn_json *node, sequences *s, int depth) {
    const tn_json *type = tn_json_get(node, "type"), *list = tn_json_get(node, "processors");
    if (depth > 32) return tn_fail(TN_BAD_DATA, "post-processors are nested too deeply");
    if (tn_json_is_string(type, "Sequence")) {
        tn_status status = TN_OK;
        for (int64_t i = 0; list && list->type == TN_JSON_ARRAY && i < list->count && status == TN_OK; i++)
            status = run(&list->items[i], s, depth + 1);
        return status;
    }
    if (tn_json_is_string(type, "ByteLevel")) return TN_OK;
    if (tn_json_is_string(type, "TemplateProcessing")) return run_template(node, s);
    if (tn_json_is_string(type, "BertProcessing")) return run_bert(node, false, s);
    if (tn_json_is_string(type, "RobertaProcessing")) return run_bert(node, true, s);
    return tn_fail(TN_BAD_DATA, "post-processor type \"%s\" is not supported", tn_json_string(type, "(none)"));
}

static tn_status load(const tn_json *node, bool special, tn_ids *parts) {
    tn_status status = TN_OK;
    sequences s = {.count = 1, .special = special};
    TN_TRY(tn_ids_push(&s.list[0], TN_POST_TEXT));
    if (!tn_json_is_null(node)) TN_TRY(run(node, &s, 0));
    for (int i = 0; i < s.count; i++) TN_TRY(append(parts, &s.list[i]));
done:
    free_all(&s);
    return status;
}

tn_status tn_post_load(const tn_json *node, tn_post *post) {
    tn_status status = load(node, true, &post->special);
    return status == TN_OK ? load(node, false, &post->plain) : status;
}

void tn_post_free(tn_post *post) {
    tn_ids_free(&post->special);
    tn_ids_free(&post->plain);
}
