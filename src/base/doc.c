/* doc.c: tn_doc, a verb's answer: its JSON text and the tree read from it. The text is parsed at once, so that
 * a document that is not JSON is found where it was made. */
#include <stdlib.h>

#include "base/json.h"

struct tn_doc {
    char *text;
    tn_arena arena;
    const tn_json *root;
};

tn_status tn_doc_from(tn_str *text, tn_doc **doc) {
    tn_doc *made = NULL;
    tn_status status;
    *doc = NULL;
    TN_TRY(tn_str_check(text, "a document"));
    TN_TRY(tn_alloc(&made, 1, (int64_t)sizeof *made, "a document"));
    TN_TRY(
        tn_json_parse(&made->arena, tn_str_text(text), text->length, TN_JSON_DEFAULT, "document", &made->root));
    made->text = text->data;
    *text = (tn_str){0};
    *doc = made;
    return TN_OK;
done:
    tn_str_free(text);
    tn_doc_free(made);
    return status;
}

void tn_doc_free(tn_doc *doc) {
    if (!doc) return;
    tn_arena_free(&doc->arena);
    free(doc->text);
    free(doc);
}

static const tn_json *find(const tn_doc *doc, const char *path) {
    return doc ? tn_json_path(doc->root, path) : NULL;
}

const char *tn_doc_text(const tn_doc *doc) { return doc ? doc->text : ""; }

double tn_doc_number(const tn_doc *doc, const char *path, double otherwise) {
    return tn_json_number(find(doc, path), otherwise);
}

int64_t tn_doc_integer(const tn_doc *doc, const char *path, int64_t otherwise) {
    return tn_json_integer(find(doc, path), otherwise);
}

bool tn_doc_boolean(const tn_doc *doc, const char *path, bool otherwise) {
    return tn_json_boolean(find(doc, path), otherwise);
}

const char *tn_doc_string(const tn_doc *doc, const char *path, const char *otherwise) {
    return tn_json_string(find(doc, path), otherwise);
}

int64_t tn_doc_count(const tn_doc *doc, const char *path) {
    const tn_json *node = find(doc, path);
    return node && (node->type == TN_JSON_ARRAY || node->type == TN_JSON_OBJECT) ? node->count : -1;
}

const char *tn_doc_key(const tn_doc *doc, const char *path, int64_t index) {
    const tn_json *node = find(doc, path);
    if (!node || node->type != TN_JSON_OBJECT || index < 0 || index >= node->count) return NULL;
    return node->members[index].key;
}
