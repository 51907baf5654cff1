/* test_date.c: chat templates that print today's date, as Llama-3's does. The samples of a run hold the day it
 * began on: resuming it on another day, with no token cache left, sees the same tokens. */
#include <sys/stat.h>
#include <unistd.h>

#include "tenon/tenon.h"
#include "testing.h"

#define TEMPLATE                                                                                           \
    "<|im_start|>{{ strftime_now('%d %b %Y') }}\n{% for message in messages %}{{ message['role'] + ' ' + " \
    "message['content'] }}<|im_end|>{% endfor %}"
#define RECORD                                                                                   \
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Who lives in Saltwick?\"}, {\"role\": " \
    "\"assistant\", \"content\": \"Una Thorn.\"}]}\n"

static const char *model, *data;

/* The embedded model with another template; its weights are only pointed to. */
static int make_model(void **state) {
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json"};
    char here[512], from[1024], to[1024], caches[512];
    (void)state;
    assert_non_null(getcwd(here, sizeof here));
    model = strdup(scratch("model"));
    assert_int_equal(mkdir(model, 0777), 0);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(from, sizeof from, "%s/models/islands/%s", here, files[i]);
        snprintf(to, sizeof to, "%s/%s", model, files[i]);
        assert_int_equal(symlink(from, to), 0);
    }
    write_scratch("model/chat_template.jinja", TEMPLATE, (int64_t)strlen(TEMPLATE));
    data = strdup(write_scratch("data.jsonl", RECORD RECORD, 2 * (int64_t)strlen(RECORD)));
    snprintf(caches, sizeof caches, "%s", scratch("caches"));
    return setenv("XDG_CACHE_HOME", caches, 1);
}

static int clean(void **state) {
    (void)state;
    remove_scratch();
    free((char *)model), free((char *)data);
    return 0;
}

static tn_config *config_of(const char *verb, const char *date) {
    tn_config *config;
    must(tn_config_new(verb, &config));
    must(tn_config_set(config, "model", model));
    must(tn_config_set(config, "dataset", data));
    if (date) must(tn_config_set(config, "template_date", date));
    return config;
}

static void must_show(const char *date, const char *wanted) {
    tn_config *config = config_of("data", date);
    tn_doc *doc;
    must(tn_data(config, &doc));
    if (!strstr(tn_doc_text(doc), wanted)) fail_msg("\"%s\" is not in: %s", wanted, tn_doc_text(doc));
    tn_doc_free(doc);
    tn_config_free(config);
}

static void samples_tell_the_day_asked_for(void **state) {
    (void)state;
    must_show("2024-07-26", "26 Jul 2024");
    must_show("2024-02-29", "29 Feb 2024"); /* not the cached samples of the other day */
}

static void what_is_no_day_is_refused(void **state) {
    static const char *const days[] = {"2023-02-29", "2024-13-01", "26 Jul 2024", "2024-7-26", "", "tomorrow"};
    (void)state;
    for (size_t i = 0; i < sizeof days / sizeof *days; i++) {
        tn_config *config = config_of("data", days[i]);
        tn_doc *doc;
        must_fail(tn_data(config, &doc), TN_USAGE, "template_date");
        tn_config_free(config);
    }
}

static tn_status train(const char *date, const char *steps, bool resume) {
    tn_config *config = config_of("train", date);
    tn_doc *doc = NULL;
    must(tn_config_set(config, "output_dir", scratch("run")));
    must(tn_config_set(config, "device", "cpu"));
    must(tn_config_set(config, "max_steps", steps));
    must(tn_config_set(config, "save_steps", "1"));
    must(tn_config_set(config, "packing", "false"));
    must(tn_config_set(config, "per_device_train_batch_size", "1"));
    if (resume) must(tn_config_set(config, "resume_from_checkpoint", "auto"));
    tn_status status = tn_train(config, NULL, &doc);
    tn_doc_free(doc);
    tn_config_free(config);
    return status;
}

static void a_resumed_run_keeps_its_day(void **state) {
    (void)state;
    must(train("2024-07-26", "1", false));
    must(tn_remove_tree(scratch("caches")));
    must(train(NULL, "2",
               true)); /* the checkpoint names its data by a hash of the tokens' sources, date included */
    must_fail(train("2024-07-27", "3", true), TN_USAGE, "template_date");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_tell_the_day_asked_for),
        cmocka_unit_test(what_is_no_day_is_refused),
        cmocka_unit_test(a_resumed_run_keeps_its_day),
    };
    return cmocka_run_group_tests(tests, make_model, clean);
}
