/* verb_generate.c: the public generator: an engine opened for inference, a session over its cache, text in and
 * text out.
 */
#include <stdlib.h>
#include <string.h>

#include "data/pictures.h"
#include "infer/generate.h"
#include "train/engine.h"

enum { PREFILL = 512 };

struct tn_generator {
    tn_engine engine;
    tn_session session;
    int32_t stops[TN_MOST_STOPS];
    int64_t stop_count;
};

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
    TN_TRY(tn_engine_plan(&g->engine, chunk, 1, capacity, capacity));
    TN_TRY(tn_engine_allocate(&g->engine));
    TN_TRY(tn_session_new(g->engine.pass, g->engine.arch.vocab, capacity, chunk, &g->session));
    g->stop_count = tn_engine_stops(&g->engine, g->stops);
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

static void write_ids(tn_json_writer *w, const char *key, const tn_ids *ids) {
    tn_json_key(w, key);
    tn_json_begin(w, '[');
    for (int64_t i = 0; i < ids->count; i++) tn_json_put_integer(w, ids->ids[i]);
    tn_json_end(w, ']');
}

static tn_status run(tn_generator *g, const tn_ids *prompt, tn_text_function *on_text, void *user,
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
    write_ids(&w, "ids", &out);
    write_ids(&w, "prompt_ids", prompt);
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

tn_status tn_generate_text(tn_generator *g, const char *prompt, tn_text_function *on_text, void *user,
                           tn_doc **doc) {
    tn_ids ids = {0};
    tn_status status;
    *doc = NULL;
    TN_TRY(tn_text_encode(tn_chat_text(g->engine.chat), prompt, (int64_t)strlen(prompt), true, &ids, NULL));
    status = run(g, &ids, on_text, user, doc);
done:
    tn_ids_free(&ids);
    return status;
}

/* They would be dropped, or stand there as a single token that means nothing. */
static tn_status refuse_pictures(void) {
    tn_fail(TN_USAGE, "generate does not show pictures to the model yet");
    return tn_remedy("give text alone; eval takes conversations with pictures");
}

/* Of a prompt as ids: pictures have their tokens there. */
static tn_status check_no_pictures(const tn_generator *g, const tn_ids *ids) {
    for (int64_t i = 0; g->engine.pictures && i < ids->count; i++)
        if (ids->ids[i] == g->engine.pictures->image) return refuse_pictures();
    return TN_OK;
}

tn_status tn_generate_ids(tn_generator *g, const int32_t *ids, int64_t count, tn_text_function *on_text,
                          void *user, tn_doc **doc) {
    const tn_ids prompt = {.ids = (int32_t *)(uintptr_t)ids, .count = count};
    *doc = NULL;
    if (count < 1) return tn_fail(TN_BAD_DATA, "there are no ids to continue");
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= g->engine.arch.vocab) {
            tn_fail(TN_BAD_DATA, "id %d at position %lld is outside the model's vocabulary of %lld",
                    (int)ids[i], (long long)i, (long long)g->engine.arch.vocab);
            return tn_remedy("give ids that the model's own tokenizer made");
        }
    tn_status status = check_no_pictures(g, &prompt);
    return status == TN_OK ? run(g, &prompt, on_text, user, doc) : status;
}

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
    if (!tn_json_is_null(tn_json_get(root, "images")) || !tn_json_is_null(tn_json_get(root, "image"))) {
        status = refuse_pictures();
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

tn_status tn_generate_chat(tn_generator *g, const char *messages_json, tn_text_function *on_text, void *user,
                           tn_doc **doc) {
    tn_arena arena = {0};
    tn_str record = {0}, text = {0};
    tn_ids ids = {0};
    const tn_json *root;
    tn_status status;
    *doc = NULL;
    if (!tn_chat_has_template(g->engine.chat)) {
        status = tn_fail(TN_USAGE, "%s has no chat template", g->engine.settings->model);
        tn_remedy("give raw text with --prompt, or put a chat_template.jinja beside the tokenizer");
        goto done;
    }
    TN_TRY(conversation(messages_json, &record));
    TN_TRY(tn_json_parse(&arena, record.data, record.length, TN_JSON_DEFAULT, "messages", &root));
    TN_TRY(tn_chat_render(g->engine.chat, root, &text, NULL, NULL, NULL));
    TN_TRY(tn_text_encode(tn_chat_text(g->engine.chat), tn_str_text(&text), text.length, false, &ids, NULL));
    TN_TRY(check_no_pictures(g, &ids));
    status = run(g, &ids, on_text, user, doc);
done:
    tn_ids_free(&ids);
    tn_str_free(&text);
    tn_str_free(&record);
    tn_arena_free(&arena);
    return status;
}
