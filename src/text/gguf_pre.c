/* gguf_pre.c: the table, and how a tokenizer.json is found in it: its steps are read into the same few fields,
 * and the expressions must be the same text, since no two spellings of one are in use.
 */
#include "text/gguf_pre.h"

#include <stdio.h>
#include <string.h>

#define GPT2_KIND "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define LLAMA_KIND(digits)                                \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits \
                 "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define TEKKEN_KIND(suffix, digits)                                                                     \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+" suffix  \
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*" suffix \
    "|" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

#define SEED_KIND                                                                     \
    CONTRACTIONS                                                                      \
    "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|\\s*[\\r\\n]+" \
    "|\\s+(?!\\S)|\\s+"

static const tn_gguf_pre pre_kinds[] = {
    {",llama-bpe,llama3,llama-v3,falcon3,falcon-h1,pixtral,midm-2.0,lfm2,", LLAMA_KIND("\\p{N}{1,3}"), false,
     false, true, true},
    {",smaug-bpe,dbrx,chatglm-bpe,glm4,", LLAMA_KIND("\\p{N}{1,3}"), false, false, false, false},
    {",qwen2,deepseek-r1-qwen,kormo,megrez,", LLAMA_KIND("\\p{N}"), false, true, false, false},
    {",stablelm2,hunyuan,", LLAMA_KIND("\\p{N}"), false, false, false, false},
    {",seed-coder,", SEED_KIND, false, false, false, false},
    {",smollm,starcoder,refact,command-r,codeshell,exaone,minerva-7b,", GPT2_KIND, true, false, false, false},
    {",tekken,", TEKKEN_KIND("", "\\p{N}"), false, false, true, true},
    {",gpt-4o,llama4,", TEKKEN_KIND(CONTRACTIONS "?", "\\p{N}{1,3}"), false, false, true, false},
    {",gpt-2,default,phi-2,mpt,olmo,jais,jina-es,jina-de,jina-v2-es,jina-v2-de,jina-v2-code,gigachat,mellum,",
     GPT2_KIND, false, false, false, false},
};
enum { KINDS = sizeof pre_kinds / sizeof *pre_kinds };

const tn_gguf_pre *tn_gguf_pre_named(const char *name) {
    char wanted[80];
    snprintf(wanted, sizeof wanted, ",%.70s,", name);
    for (int i = 0; i < KINDS; i++)
        if (strchr(name, ',') == NULL && strstr(pre_kinds[i].names, wanted)) return &pre_kinds[i];
    return NULL;
}

const char *tn_gguf_pre_name(const tn_gguf_pre *pre, char out[64]) {
    const int length = (int)strcspn(pre->names + 1, ",");
    snprintf(out, 64, "%.*s", length, pre->names + 1);
    return out;
}

static bool is_type(const tn_json *step, const char *type) {
    return tn_json_is_string(tn_json_get(step, "type"), type);
}

/* Takes one step into account; false where no kind has it. */
static bool read_step(const tn_json *step, tn_gguf_pre *found) {
    if (is_type(step, "Digits")) {
        const bool first = !found->expression && !found->single_digits;
        found->single_digits = tn_json_boolean(tn_json_get(step, "individual_digits"), false);
        return first && found->single_digits;
    }
    if (is_type(step, "Split")) {
        const bool once = !found->expression;
        found->expression = tn_json_string(tn_json_path(step, "pattern.Regex"), NULL);
        return once && found->expression && tn_json_is_string(tn_json_get(step, "behavior"), "Isolated") &&
               !tn_json_boolean(tn_json_get(step, "invert"), false);
    }
    if (!is_type(step, "ByteLevel") || tn_json_boolean(tn_json_get(step, "add_prefix_space"), true))
        return false;
    if (!tn_json_boolean(tn_json_get(step, "use_regex"), true)) return found->expression != NULL;
    if (found->expression) return false;
    found->expression = GPT2_KIND; /* the one it has built in */
    return true;
}

static bool read_steps(const tn_json *pre, tn_gguf_pre *found) {
    const tn_json *steps = is_type(pre, "Sequence") ? tn_json_get(pre, "pretokenizers") : NULL;
    if (!steps) return read_step(pre, found) && found->expression;
    for (int64_t i = 0; i < steps->count; i++)
        if (!read_step(tn_json_at(steps, i), found)) return false;
    return found->expression && steps->count > 0 && is_type(tn_json_at(steps, steps->count - 1), "ByteLevel");
}

const tn_gguf_pre *tn_gguf_pre_of(const tn_json *tokenizer) {
    const tn_json *normalizer = tn_json_get(tokenizer, "normalizer");
    tn_gguf_pre found = {0};
    if (!read_steps(tn_json_get(tokenizer, "pre_tokenizer"), &found)) return NULL;
    found.nfc = is_type(normalizer, "NFC");
    found.ignore_merges = tn_json_boolean(tn_json_path(tokenizer, "model.ignore_merges"), false);
    if (!tn_json_is_null(normalizer) && !found.nfc) return NULL;
    for (int i = 0; i < KINDS; i++) {
        const tn_gguf_pre *k = &pre_kinds[i];
        if (strcmp(k->expression, found.expression) == 0 && k->single_digits == found.single_digits &&
            k->nfc == found.nfc && k->ignore_merges == found.ignore_merges)
            return k;
    }
    return NULL;
}
