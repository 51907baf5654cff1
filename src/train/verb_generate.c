/* verb_generate.c: the public generator: an engine opened for inference, a session over its cache, text (and
 * pictures) in and text out. What pictures will come is not known when memory is taken, so there is room for
 * one as large as the context or the model's own limit.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "data/pictures.h"
#include "data/record_pictures.h"
#include "infer/generate.h"
#include "train/engine.h"

enum { PREFILL = 512 };

struct tn_generator {
    tn_engine engine;
    tn_session session;
    int32_t stops[TN_MOST_STOPS];
    int64_t stop_count;
};

/* Patches of the largest picture that may be shown: by max_pixels, but that a side is a merged patch at least,
 * and by the context. */
static int64_t most_patches(const tn_engine *e, int64_t capacity) {
    enum { LONGEST_RATIO = 200 };
    const tn_image_processor *p = e->pictures ? &e->pictures->processor : NULL;
    if (!p || p->patch == 0) return 0;
    const int64_t side = p->patch * p->merge;
    int64_t tokens = p->max_pixels / (side * side);
    if (tokens < LONGEST_RATIO) tokens = LONGEST_RATIO;
    return (tokens < capacity ? tokens : capacity) * p->merge * p->merge;
}

/* Sampling that is asked for beside the default temperature of 0. */
static void tell_of_greedy(const tn_settings *s) {
    const char *name = s->top_p < 1 ? "top_p" : s->top_k > 0 ? "top_k" : s->min_p > 0 ? "min_p" : NULL;
    if (name && s->temperature <= 0)
        tn_warn("%s has no effect: temperature is 0, which takes the likeliest token", name);
}

tn_status tn_generator_open(tn_config *config, tn_generator **out) {
    tn_generator *g = calloc(1, sizeof *g);
    tn_status status;
    *out = NULL;
    if (!g) return tn_fail_memory((int64_t)sizeof *g, "a generator");
    TN_TRY(tn_engine_open(config, TN_USE_GENERATE, true, NULL, &g->engine));
    if (!g->engine.chat) {
        status = tn_fail(TN_USAGE, "%s has no tokenizer.json", g->engine.settings->model);
        tn_remedy("put the model's tokenizer.json beside its weights");
        goto done;
    }
    int64_t capacity = g->engine.max_length, chunk = capacity < PREFILL ? capacity : PREFILL;
    g->engine.patches = most_patches(&g->engine, capacity);
    TN_TRY(tn_engine_plan(&g->engine, chunk, 1, capacity, capacity));
    TN_TRY(tn_engine_allocate(&g->engine));
    TN_TRY(tn_session_new(g->engine.pass, g->engine.arch.vocab, capacity, chunk, &g->session));
    g->stop_count = tn_engine_stops(&g->engine, g->stops);
    tell_of_greedy(g->engine.settings);
    *out = g;
    g = NULL;
done:
    tn_generator_free(g);
    return status;
}

void tn_generator_free(tn_generator *g) {
    if (!g) return;
    tn_session_free(&g->session);
    tn_engine_close(&g->engine);
    free(g);
}

/* What only sampling reads, so that nothing that was opened depends on it. */
static bool is_sampling_key(const char *key) {
    static const char *const keys[] = {"max_new_tokens", "temperature",        "top_k", "top_p",
                                       "min_p",          "repetition_penalty", "seed"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(key, keys[i]) == 0) return true;
    return false;
}

tn_status tn_generator_set(tn_generator *g, const char *key, const char *value) {
    if (!is_sampling_key(key)) {
        tn_fail(TN_USAGE, "'%s' cannot be changed while the model is open", key);
        return tn_remedy(
            "max_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty and seed can; open another "
            "generator for the rest");
    }
    tn_status status = tn_config_set(g->engine.config, key, value);
    return status == TN_OK ? tn_config_resolve(g->engine.config, &g->engine.settings) : status;
}

/* Text on its way to the caller, held back until it is certain. */
typedef struct streamer {
    tn_text_stream *stream;
    tn_text_function *on_text;
    void *user;
    tn_str text, piece;
    tn_status status;
} streamer;

static bool pass_on(streamer *s) {
    bool more = true;
    if (s->piece.length > 0) {
        tn_str_add(&s->text, s->piece.data, s->piece.length);
        if (s->on_text) more = s->on_text(s->user, s->piece.data, s->piece.length);
    }
    tn_str_clear(&s->piece);
    return more;
}

static bool on_token(void *user, int32_t token) {
    streamer *s = user;
    s->status = tn_text_stream_push(s->stream, token, &s->piece);
    return s->status == TN_OK && pass_on(s);
}

static tn_status run(tn_generator *g, const tn_batch *prompt, tn_text_function *on_text, void *user,
                     tn_doc **doc) {
    const tn_settings *set = g->engine.settings;
    tn_generation how = {.sampling = {.temperature = set->temperature,
                                      .top_p = set->top_p,
                                      .min_p = set->min_p,
                                      .repetition_penalty = set->repetition_penalty,
                                      .top_k = set->top_k,
                                      .seed = set->seed},
                         .stops = g->stops,
                         .stop_count = g->stop_count,
                         .max_new_tokens = set->max_new_tokens};
    streamer s = {.on_text = on_text, .user = user, .status = TN_OK};
    tn_ids out = {0};
    tn_str text = {0};
    bool stopped;
    tn_status status;
    TN_TRY(tn_text_stream_new(tn_chat_text(g->engine.chat), true, &s.stream));
    TN_TRY(tn_session_generate(&g->session, prompt, &how, on_token, &s, &out, &stopped));
    TN_TRY(s.status);
    TN_TRY(tn_text_stream_end(s.stream, &s.piece));
    pass_on(&s);
    tn_json_writer w = tn_json_write_to(&text, 0);
    tn_json_begin(&w, '{');
    tn_json_key(&w, "text");
    tn_json_put_string(&w, tn_str_text(&s.text), s.text.length);
    tn_json_ids_member(&w, "ids", out.ids, out.count);
    tn_json_ids_member(&w, "prompt_ids", prompt->ids, prompt->tokens);
    tn_json_string_member(&w, "finish_reason", stopped ? "stop" : "length");
    tn_json_end(&w, '}');
    status = tn_doc_from(&text, doc);
done:
    tn_str_free(&text);
    tn_str_free(&s.text);
    tn_str_free(&s.piece);
    tn_text_stream_free(s.stream);
    tn_ids_free(&out);
    return status;
}

/* ---- Text ---------------------------------------------------------------------------------------- */

static bool is_picture(const tn_generator *g, int32_t id) {
    return g->engine.pictures && id == g->engine.pictures->image;
}

/* Ids that no pictures belong to. */
static tn_status continue_ids(tn_generator *g, const int32_t *ids, int64_t count, tn_text_function *on_text,
                              void *user, tn_doc **doc) {
    tn_batch batch = {0};
    tn_status status;
    for (int64_t i = 0; i < count; i++)
        if (is_picture(g, ids[i])) {
            tn_fail(TN_USAGE,
                    "the prompt holds a picture's token, and neither raw text nor ids bring pictures");
            return tn_remedy("give a conversation with its pictures: --messages FILE");
        }
    TN_TRY(tn_batch_set(&batch, ids, NULL, count));
    status = run(g, &batch, on_text, user, doc);
done:
    tn_batch_free(&batch);
    return status;
}

tn_status tn_generate_text(tn_generator *g, const char *prompt, tn_text_function *on_text, void *user,
                           tn_doc **doc) {
    tn_ids ids = {0};
    tn_status status;
    *doc = NULL;
    TN_TRY(tn_text_encode(tn_chat_text(g->engine.chat), prompt, (int64_t)strlen(prompt), true, &ids, NULL));
    status = continue_ids(g, ids.ids, ids.count, on_text, user, doc);
done:
    tn_ids_free(&ids);
    return status;
}

tn_status tn_generate_ids(tn_generator *g, const int32_t *ids, int64_t count, tn_text_function *on_text,
                          void *user, tn_doc **doc) {
    *doc = NULL;
    if (count < 1) return tn_fail(TN_BAD_DATA, "there are no ids to continue");
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= g->engine.arch.vocab) {
            tn_fail(TN_BAD_DATA, "id %d at position %lld is outside the model's vocabulary of %lld",
                    (int)ids[i], (long long)i, (long long)g->engine.arch.vocab);
            return tn_remedy("give ids that the model's own tokenizer made");
        }
    return continue_ids(g, ids, count, on_text, user, doc);
}

/* ---- Conversations ------------------------------------------------------------------------------- */

/* A list of messages, or a record with "messages" and what may stand beside them; the generation prompt is
 * always added. */
static tn_status conversation(const char *json, tn_str *record) {
    tn_arena arena = {0};
    const tn_json *root;
    tn_json_writer w = tn_json_write_to(record, 0);
    tn_status status;
    TN_TRY(tn_json_parse(&arena, json, (int64_t)strlen(json), TN_JSON_DEFAULT, "messages", &root));
    if (root->type != TN_JSON_ARRAY && !tn_json_get(root, "messages")) {
        status = tn_fail(TN_BAD_DATA, "messages: expected a list of messages or a record with \"messages\"");
        tn_remedy("for example [{\"role\": \"user\", \"content\": \"Hello\"}]");
        goto done;
    }
    tn_json_begin(&w, '{');
    if (root->type == TN_JSON_ARRAY) {
        tn_json_key(&w, "messages");
        tn_json_put(&w, root);
    }
    for (int64_t i = 0; root->type == TN_JSON_OBJECT && i < root->count; i++) {
        if (strcmp(root->members[i].key, "add_generation_prompt") == 0) continue;
        tn_json_key(&w, root->members[i].key);
        tn_json_put(&w, &root->members[i].value);
    }
    tn_json_boolean_member(&w, "add_generation_prompt", true);
    tn_json_end(&w, '}');
    status = tn_str_check(record, "a conversation");
done:
    tn_arena_free(&arena);
    return status;
}

/* `record` gets a part for each picture, and their paths. */
static tn_status place_pictures(const tn_generator *g, tn_arena *arena, const tn_json *root,
                                tn_record *record) {
    const tn_json *messages = tn_json_get(root, "messages");
    *record = (tn_record){.kind = TN_RECORD_CHAT, .chat = root};
    tn_status status = tn_record_refuse_media(root, g->engine.pictures != NULL);
    if (status != TN_OK || !g->engine.pictures) return status;
    if (!messages || messages->type != TN_JSON_ARRAY) {
        tn_fail(TN_BAD_DATA, "\"messages\" is %s, a list was expected", tn_json_type_name(messages));
        return tn_remedy("for example [{\"role\": \"user\", \"content\": \"Hello\"}]");
    }
    return tn_record_place_pictures(arena, root, record);
}

/* Paths are relative to the file of the messages, where they come from one. */
static tn_status encode(const tn_generator *g, const tn_record *record, tn_encoding *out) {
    const char *file = g->engine.settings->messages;
    tn_status status;
    TN_TRY(tn_chat_render(g->engine.chat, record->chat, &out->text, NULL, NULL, NULL));
    TN_TRY(tn_text_encode(tn_chat_text(g->engine.chat), tn_str_text(&out->text), out->text.length, false,
                          &out->ids, NULL));
    if (g->engine.pictures)
        status = tn_pictures_expand(g->engine.pictures, record, file ? file : "", false, out);
done:
    return status;
}

static tn_status fill_batch(const tn_generator *g, const tn_encoding *from, tn_batch *batch) {
    const tn_sample sample = {.ids = from->ids.ids,
                              .labels = from->ids.ids,
                              .length = from->ids.count,
                              .pictures = from->pictures,
                              .picture_count = from->picture_count,
                              .paths = tn_str_text(&from->paths)};
    return tn_batch_set_sample(batch, sample, g->engine.pictures);
}

tn_status tn_generate_chat(tn_generator *g, const char *messages_json, tn_text_function *on_text, void *user,
                           tn_doc **doc) {
    tn_arena arena = {0};
    tn_str text = {0};
    tn_record record;
    tn_encoding encoding = {0};
    tn_batch batch = {0};
    const tn_json *root;
    tn_status status;
    *doc = NULL;
    if (!tn_chat_has_template(g->engine.chat)) {
        status = tn_fail(TN_USAGE, "%s has no chat template", g->engine.settings->model);
        tn_remedy("give raw text with --prompt, or put a chat_template.jinja beside the tokenizer");
        goto done;
    }
    TN_TRY(conversation(messages_json, &text));
    TN_TRY(tn_json_parse(&arena, text.data, text.length, TN_JSON_DEFAULT, "messages", &root));
    TN_TRY(place_pictures(g, &arena, root, &record));
    TN_TRY(encode(g, &record, &encoding));
    TN_TRY(fill_batch(g, &encoding, &batch));
    status = run(g, &batch, on_text, user, doc);
done:
    tn_batch_free(&batch);
    tn_encoding_free(&encoding);
    tn_str_free(&text);
    tn_arena_free(&arena);
    return status;
}
