/* gguf_model_write.c: a configuration in Hugging Face's terms as GGUF metadata: gguf_model.c the other way
 * round, by the same tables.
 */
#include <stdio.h>

#include "format/gguf_model.h"

typedef struct put {
    tn_gguf_writer *w;
    const tn_gguf_family *family;
} put;

static const char *own(const put *p, const char *key, char out[160]) {
    snprintf(out, 160, "%s.%s", p->family->name, key);
    return out;
}

static void put_u32(const put *p, const char *key, int64_t value) {
    char name[160];
    tn_gguf_put_u32(p->w, own(p, key, name), value);
}

static void put_number(const put *p, const tn_json *config, const tn_gguf_number *number) {
    const tn_json *value = tn_json_get(config, number->hf);
    char name[160];
    if (tn_json_is_null(value)) return;
    if (number->real) tn_gguf_put_f32(p->w, own(p, number->gguf, name), tn_json_number(value, 0));
    else put_u32(p, number->gguf, tn_json_integer(value, 0));
}

void tn_gguf_put_config(tn_gguf_writer *w, const tn_gguf_family *family, const tn_json *config) {
    const put p = {w, family};
    const tn_json *rope = tn_json_get(config, "rope_scaling");
    const int64_t head_dim = tn_json_integer(tn_json_get(config, tn_gguf_head_dim.hf), 0);
    char name[160];
    for (int i = 0; i < tn_gguf_number_count; i++) put_number(&p, config, &tn_gguf_numbers[i]);
    put_number(&p, config, &tn_gguf_kv_heads);
    put_number(&p, config, &tn_gguf_head_dim);
    put_u32(&p, "attention.value_length", head_dim);
    put_u32(&p, "rope.dimension_count", head_dim);
    put_number(&p, config, &tn_gguf_rope_base);
    put_u32(&p, "vocab_size", tn_json_integer(tn_json_get(config, "vocab_size"), 0));
    if (!rope) return;
    const char *type = tn_json_string(tn_json_get(rope, "rope_type"), "none");
    tn_gguf_put_string(w, own(&p, "rope.scaling.type", name), type, -1);
    put_number(&p, rope, &tn_gguf_rope_factor);
    put_number(&p, rope, &tn_gguf_rope_length);
    put_number(&p, rope, &tn_gguf_rope_attention);
}
