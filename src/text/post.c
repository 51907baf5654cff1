/* post.c: post-processors, as far as ids go: what they put before and behind one text. (Pairs of texts and the
 * trimming of offsets have no use here.)
 */
#include "text/pipeline.h"

static tn_status load(tn_post *post, const tn_json *node, int depth);

static tn_status push_all(tn_ids *to, const tn_json *ids) {
    if (!ids || ids->type != TN_JSON_ARRAY)
        return tn_fail(TN_BAD_DATA, "post-processor: a special token has no ids");
    for (int64_t i = 0; i < ids->count; i++) {
        int64_t id = tn_json_integer(&ids->items[i], -1);
        if (id < 0 || id >= TN_LARGEST_ID)
            return tn_fail(TN_BAD_DATA, "post-processor: %lld is no id", (long long)id);
        tn_status status = tn_ids_push(to, (int32_t)id);
        if (status != TN_OK) return status;
    }
    return TN_OK;
}

/* An outer processor's tokens go around what inner ones made. */
static tn_status wrap(tn_post *post, const tn_ids *before, const tn_ids *after) {
    tn_status status = TN_OK;
    tn_ids joined = {0};
    for (int64_t i = 0; i < before->count; i++) TN_TRY(tn_ids_push(&joined, before->ids[i]));
    for (int64_t i = 0; i < post->before.count; i++) TN_TRY(tn_ids_push(&joined, post->before.ids[i]));
    for (int64_t i = 0; i < after->count; i++) TN_TRY(tn_ids_push(&post->after, after->ids[i]));
    tn_ids_free(&post->before);
    post->before = joined;
    joined = (tn_ids){0};
done:
    tn_ids_free(&joined);
    return status;
}

static tn_status load_template(tn_post *post, const tn_json *node) {
    tn_status status = TN_OK;
    tn_ids before = {0}, after = {0};
    const tn_json *single = tn_json_get(node, "single"), *tokens = tn_json_get(node, "special_tokens");
    int texts = 0;
    if (!single || single->type != TN_JSON_ARRAY)
        TN_THROW(TN_BAD_DATA, "post-processor: \"single\" is no array");
    for (int64_t i = 0; i < single->count; i++) {
        const tn_json *special = tn_json_get(&single->items[i], "SpecialToken");
        if (!special) {
            texts++;
            continue;
        }
        const char *name = tn_json_string(tn_json_get(special, "id"), "");
        const tn_json *entry = tn_json_get(tokens, name);
        if (!entry) TN_THROW(TN_BAD_DATA, "post-processor: special token \"%s\" is not described", name);
        TN_TRY(push_all(texts > 0 ? &after : &before, tn_json_get(entry, "ids")));
    }
    if (texts != 1)
        TN_THROW(TN_BAD_DATA, "post-processor: a template with the text %d times is not supported", texts);
    status = wrap(post, &before, &after);
done:
    tn_ids_free(&before);
    tn_ids_free(&after);
    return status;
}

/* cls text sep; both given as [string, id]. */
static tn_status load_bert(tn_post *post, const tn_json *node) {
    tn_status status = TN_OK;
    tn_ids before = {0}, after = {0};
    int64_t cls = tn_json_integer(tn_json_at(tn_json_get(node, "cls"), 1), -1);
    int64_t sep = tn_json_integer(tn_json_at(tn_json_get(node, "sep"), 1), -1);
    if (cls < 0 || sep < 0 || cls >= TN_LARGEST_ID || sep >= TN_LARGEST_ID)
        TN_THROW(TN_BAD_DATA, "post-processor: cls or sep is not [token, id]");
    TN_TRY(tn_ids_push(&before, (int32_t)cls));
    TN_TRY(tn_ids_push(&after, (int32_t)sep));
    status = wrap(post, &before, &after);
done:
    tn_ids_free(&before);
    tn_ids_free(&after);
    return status;
}

static tn_status load(tn_post *post, const tn_json *node, int depth) {
    const tn_json *type = tn_json_get(node, "type"), *list = tn_json_get(node, "processors");
    if (depth > 32) return tn_fail(TN_BAD_DATA, "post-processors are nested too deeply");
    if (tn_json_is_string(type, "Sequence")) {
        tn_status status = TN_OK;
        for (int64_t i = 0; list && list->type == TN_JSON_ARRAY && i < list->count && status == TN_OK; i++)
            status = load(post, &list->items[i], depth + 1);
        return status;
    }
    if (tn_json_is_string(type, "ByteLevel")) return TN_OK;
    if (tn_json_is_string(type, "TemplateProcessing")) return load_template(post, node);
    if (tn_json_is_string(type, "BertProcessing") || tn_json_is_string(type, "RobertaProcessing"))
        return load_bert(post, node);
    return tn_fail(TN_BAD_DATA, "post-processor type \"%s\" is not supported", tn_json_string(type, "(none)"));
}

tn_status tn_post_load(const tn_json *node, tn_post *post) {
    return tn_json_is_null(node) ? TN_OK : load(post, node, 0);
}

void tn_post_free(tn_post *post) {
    tn_ids_free(&post->before);
    tn_ids_free(&post->after);
}
