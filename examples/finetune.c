/* finetune.c: teaches a model with LoRA, then asks it a question, through tenon's C library.
 *
 *   cc finetune.c $(pkg-config --cflags --libs tenon) -o finetune
 *   ./finetune examples/islands.yaml run "Who keeps the lighthouse on Corren Skerry?"   # in the repository's
 * root
 *
 * Behind `make install`; with a PREFIX that the system does not look at, PKG_CONFIG_PATH=PREFIX/lib/pkgconfig
 * for the first and LD_LIBRARY_PATH=PREFIX/lib for the second.
 */
#include <stdio.h>
#include <tenon/tenon.h>

static void on_event(void *user, const tn_event *e) {
    (void)user;
    if (e->kind == TN_EVENT_STEP && e->step % 20 == 0)
        printf("step %lld of %lld, loss %.3f\n", (long long)e->step, (long long)e->steps, e->loss);
}

/* Every call gives a status; `train` and `ask` take the keys of the command line. */
static tn_status run(tn_config *train, tn_config *ask, char **argv, tn_generator **generator, tn_doc **doc) {
    const tn_hooks hooks = {NULL, on_event, NULL};
    char messages[512];
    tn_status status = tn_config_load(train, argv[1]);
    if (status == TN_OK) status = tn_config_set(train, "output_dir", argv[2]);
    if (status == TN_OK) status = tn_train(train, &hooks, doc);
    if (status != TN_OK) return status;
    printf("%s\n", tn_doc_text(*doc));
    tn_doc_free(*doc), *doc = NULL;

    snprintf(messages, sizeof messages, "[{\"role\":\"user\",\"content\":\"%s\"}]", argv[3]);
    status = tn_config_set(ask, "model", tn_config_get(train, "model"));
    if (status == TN_OK) status = tn_config_set(ask, "adapter", argv[2]);
    if (status == TN_OK) status = tn_config_set(ask, "device", tn_config_get(train, "device"));
    if (status == TN_OK) status = tn_generator_open(ask, generator);
    if (status == TN_OK) status = tn_generate_chat(*generator, messages, NULL, NULL, doc);
    return status;
}

int main(int argc, char **argv) {
    tn_config *train = NULL, *ask = NULL;
    tn_generator *generator = NULL;
    tn_doc *doc = NULL;
    if (argc != 4) return fprintf(stderr, "usage: finetune RUN.yaml OUTPUT_DIR QUESTION\n"), 2;
    tn_status status = tn_config_new("train", &train);
    if (status == TN_OK) status = tn_config_new("chat", &ask);
    if (status == TN_OK) status = run(train, ask, argv, &generator, &doc);
    if (status == TN_OK) printf("%s\n", tn_doc_string(doc, "text", ""));
    else fprintf(stderr, "%s\n%s\n", tn_error_message(), tn_error_remedy());
    tn_doc_free(doc);
    tn_generator_free(generator);
    tn_config_free(ask);
    tn_config_free(train);
    return status == TN_OK ? 0 : 1;
}
