/* encode.c: text, conversations and ready-made ids to samples. Every step is a pure function of the record and
 * the encoder, so that records can be encoded in any order by any thread. */
#include "data/encode.h"

#include <stdlib.h>
#include <string.h>

#include "data/pictures.h"

tn_status tn_encoder_prepare(tn_encoder *e, tn_shape shape) {
    if (shape == TN_SHAPE_INPUT_IDS) return TN_OK;
    if (!e->chat) {
        tn_fail(TN_USAGE, "records of the shape %s need a tokenizer, and the model has none",
                tn_shape_name(shape));
        return tn_remedy("put tokenizer.json beside the model, or use records of input_ids");
    }
    bool rendered = shape != TN_SHAPE_TEXT && shape != TN_SHAPE_ALPACA_PROMPT && tn_chat_has_template(e->chat);
    if (!rendered || e->marked || !e->options->train_on_responses_only) return TN_OK;
    tn_status status = tn_markers_find(e->chat, &e->markers);
    e->marked = status == TN_OK;
    return status;
}

void tn_encoder_free(tn_encoder *e) { tn_markers_free(&e->markers); }

void tn_encoding_free(tn_encoding *out) {
    free(out->labels);
    tn_ids_free(&out->ids);
    free(out->spans.starts_ends);
    tn_str_free(&out->text);
    free(out->pictures);
    tn_str_free(&out->paths);
    *out = (tn_encoding){0};
}

/* ---- Ids ---- */

static bool in_vocabulary(const tn_encoder *e, int64_t id) {
    int64_t size = e->options->vocab_size > 0 ? e->options->vocab_size : (int64_t)INT32_MAX + 1;
    return id >= 0 && id < size;
}

static tn_status fail_id(const tn_encoder *e, const char *what, int64_t at, int64_t id, const char *remedy) {
    if (e->options->vocab_size > 0)
        tn_fail(TN_BAD_DATA, "%s %lld at position %lld is outside the model's vocabulary of %lld", what,
                (long long)id, (long long)at, (long long)e->options->vocab_size);
    else tn_fail(TN_BAD_DATA, "%s %lld at position %lld is no token id", what, (long long)id, (long long)at);
    return tn_remedy("%s", remedy);
}

static tn_status read_ids(const tn_encoder *e, const tn_json *list, tn_ids *ids) {
    for (int64_t i = 0; i < list->count; i++) {
        if (list->items[i].type != TN_JSON_INTEGER)
            return tn_fail(TN_BAD_DATA, "input_ids[%lld] is %s, an integer was expected", (long long)i,
                           tn_json_type_name(&list->items[i]));
        int64_t id = list->items[i].integer;
        if (!in_vocabulary(e, id))
            return fail_id(e, "id", i, id,
                           "the ids were made with another tokenizer, or the record is damaged");
        tn_status status = tn_ids_push(ids, (int32_t)id);
        if (status != TN_OK) return status;
    }
    return TN_OK;
}

static tn_status read_labels(const tn_encoder *e, const tn_json *list, int64_t count, int32_t *labels) {
    for (int64_t i = 0; i < count; i++) {
        if (list->items[i].type != TN_JSON_INTEGER)
            return tn_fail(TN_BAD_DATA, "labels[%lld] is %s, an integer was expected", (long long)i,
                           tn_json_type_name(&list->items[i]));
        int64_t label = list->items[i].integer;
        if (label != TN_NO_LABEL && !in_vocabulary(e, label))
            return fail_id(e, "label", i, label, "a label is a token id, or -100 for a token without a loss");
        labels[i] = (int32_t)label;
    }
    return TN_OK;
}

/* A tokenizer with more entries than the model has rows would read beyond the embedding. */
static tn_status check_ids(const tn_encoder *e, const tn_ids *ids) {
    for (int64_t i = 0; i < ids->count; i++)
        if (!in_vocabulary(e, ids->ids[i]))
            return fail_id(e, "the tokenizer's id", i, ids->ids[i],
                           "this tokenizer does not belong to this model");
    return TN_OK;
}

/* ---- From a record to ids, its length settled; then labels ---- */

static void cut(const tn_encoder *e, tn_encoding *out) {
    out->cut = e->options->stage == TN_STAGE_SFT && out->ids.count > e->options->max_length;
    if (out->cut) tn_pictures_cut(out, e->options->max_length);
}

static tn_status make_labels(tn_encoding *out) {
    tn_status status =
        tn_grow(&out->labels, &out->label_capacity, out->ids.count, (int64_t)sizeof *out->labels, "labels");
    if (status == TN_OK && out->ids.count > 0)
        memcpy(out->labels, out->ids.ids, (size_t)out->ids.count * sizeof *out->labels);
    return status;
}

/* BOS as the post-processor does it, and one EOS. */
static tn_status encode_text(const tn_encoder *e, const tn_record *record, tn_encoding *out) {
    int32_t eos = tn_chat_eos(e->chat);
    tn_status status;
    TN_TRY(tn_text_encode(tn_chat_text(e->chat), record->text, record->bytes, true, &out->ids, &out->spans));
    bool ended = out->ids.count > 0 && out->ids.ids[out->ids.count - 1] == eos;
    if (eos >= 0 && !ended) TN_TRY(tn_ids_push(&out->ids, eos));
    TN_TRY(check_ids(e, &out->ids));
    cut(e, out);
    status = make_labels(out);
done:
    return status;
}

/* Tokens from the post-processor have no bytes: those in front of the text belong to the prompt, those behind
 * it to the completion. */
static void mask_prompt(const tn_record *record, tn_encoding *out) {
    for (int64_t i = 0; i < out->ids.count && i < out->spans.count; i++) {
        if (out->spans.starts_ends[2 * i + 1] > record->prompt_bytes) return;
        out->labels[i] = TN_NO_LABEL;
    }
}

static tn_status encode_completion(const tn_encoder *e, const tn_record *record, tn_encoding *out) {
    tn_status status = encode_text(e, record, out);
    if (status == TN_OK && e->options->train_on_responses_only) mask_prompt(record, out);
    return status;
}

/* Messages that carry no loss can be told only where the template shows each of the assistant's once. */
static tn_status fail_silence(const tn_encoder *e, int64_t answers) {
    if (!e->options->train_on_responses_only) {
        tn_fail(TN_BAD_DATA, "a message is marked to carry no loss, and train_on_responses_only is false");
        return tn_remedy("leave out the mark (weight, train), or train_on_responses_only: false");
    }
    tn_fail(TN_BAD_DATA,
            "a message is marked to carry no loss, and the %lld of the assistant are not told apart in the "
            "rendered "
            "conversation",
            (long long)answers);
    return tn_remedy("split the conversation where the loss ends, or give ids with labels");
}

/* Leaves out the ranges of silent messages. */
static int64_t drop_silent(tn_text_range *ranges, int64_t count, const bool *silent) {
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i++)
        if (!silent[i]) ranges[kept++] = ranges[i];
    return kept;
}

/* A record of stage cpt is split at any token, and a picture is not. */
static tn_status expand_pictures(const tn_encoder *e, const tn_record *record, const char *file,
                                 bool with_spans, tn_encoding *out) {
    if (e->options->stage == TN_STAGE_SFT)
        return tn_pictures_expand(e->options->pictures, record, file, with_spans, out);
    if (record->picture_count == 0) return TN_OK;
    tn_fail(TN_USAGE, "a record with pictures cannot be split, as stage cpt does with long ones");
    return tn_remedy("train on conversations with stage: sft");
}

static tn_status encode_chat(const tn_encoder *e, const tn_record *record, const char *file, tn_encoding *out) {
    bool by_blocks = e->options->train_on_responses_only && e->markers.generation;
    tn_text_range *ranges = NULL;
    int64_t range_count = 0;
    tn_status status;
    TN_TRY(tn_chat_render(e->chat, record->chat, &out->text, NULL, by_blocks ? &ranges : NULL,
                          by_blocks ? &range_count : NULL));
    TN_TRY(tn_text_encode(tn_chat_text(e->chat), tn_str_text(&out->text), out->text.length, false, &out->ids,
                          by_blocks ? &out->spans : NULL));
    TN_TRY(check_ids(e, &out->ids));
    if (e->options->pictures) TN_TRY(expand_pictures(e, record, file, by_blocks, out));
    int64_t whole = out->ids.count;
    bool told = !record->silent || (by_blocks && range_count == record->answers);
    cut(e, out);
    TN_TRY(make_labels(out));
    if (by_blocks) {
        if (record->silent && told) range_count = drop_silent(ranges, range_count, record->silent);
        tn_label_ranges(ranges, range_count, out->spans.starts_ends, out->ids.ids, out->ids.count, out->labels);
    } else if (e->options->train_on_responses_only) {
        tn_label_responses(&e->markers, out->ids.ids, out->ids.count, out->labels);
        told = told || tn_label_silence(&e->markers, out->ids.ids, whole, out->ids.count, record->silent,
                                        record->answers, out->labels);
    }
    if (e->options->pictures) tn_pictures_silence(e->options->pictures, out);
    if (!told) status = fail_silence(e, record->answers);
done:
    free(ranges);
    return status;
}

static tn_status encode_ids(const tn_encoder *e, const tn_record *record, tn_encoding *out) {
    tn_status status;
    TN_TRY(read_ids(e, record->ids, &out->ids));
    for (int64_t i = 0; e->options->pictures && i < out->ids.count; i++)
        if (out->ids.ids[i] == e->options->pictures->image) {
            status = tn_fail(TN_USAGE, "input_ids[%lld] is a picture's token, and ids bring no pictures",
                             (long long)i);
            tn_remedy("give the conversation with its pictures");
            goto done;
        }
    cut(e, out);
    TN_TRY(make_labels(out));
    if (record->labels) status = read_labels(e, record->labels, out->ids.count, out->labels);
done:
    return status;
}

tn_status tn_encode(const tn_encoder *e, tn_arena *arena, const tn_json *json, tn_shape shape, const char *file,
                    tn_encoding *out) {
    tn_record record;
    bool chat_template = e->chat && tn_chat_has_template(e->chat);
    out->ids.count = out->spans.count = 0;
    out->cut = false;
    out->picture_count = 0;
    tn_str_clear(&out->text);
    tn_str_clear(&out->paths);
    tn_status status =
        tn_record_convert(arena, json, shape, chat_template, e->options->pictures != NULL, &record);
    if (status != TN_OK) return status;
    switch (record.kind) {
        case TN_RECORD_CHAT: return encode_chat(e, &record, file, out);
        case TN_RECORD_TEXT: return encode_text(e, &record, out);
        case TN_RECORD_COMPLETION: return encode_completion(e, &record, out);
        case TN_RECORD_IDS: return encode_ids(e, &record, out);
    }
    return TN_OK;
}
