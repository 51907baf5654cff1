/* verb_verify.c: accounts for every tensor of an adapter, against its own configuration and (with --model) the
 * base, and with --reference says how far each has moved.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "format/safetensors.h"
#include "quant/quant.h"
#include "train/engine.h"

static void put_names(tn_json_writer *w, const char *key, const char *const *names, int64_t count) {
    tn_json_key(w, key);
    tn_json_begin(w, '[');
    for (int64_t i = 0; i < count; i++) tn_json_put_string(w, names[i], -1);
    tn_json_end(w, ']');
}

/* ‖new−old‖ / ‖old‖ over the whole tensor; 1 where old is zero (0 where both are). */
static double relative_change(const tn_tensor_info *now, const tn_tensor_info *old) {
    float a[1024], b[1024];
    double moved = 0, norm = 0;
    for (int64_t at = 0; at < now->elements; at += 1024) {
        int64_t n = now->elements - at < 1024 ? now->elements - at : 1024;
        tn_dequantize(now->dtype, now->data, at, n, a);
        tn_dequantize(old->dtype, old->data, at, n, b);
        for (int64_t i = 0; i < n; i++) {
            moved += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
            norm += (double)b[i] * b[i];
        }
    }
    if (norm == 0) return moved == 0 ? 0 : 1;
    return sqrt(moved / norm);
}

static tn_status put_changes(tn_json_writer *w, tn_arena *arena, const tn_safetensors *file,
                             const char *reference) {
    tn_safetensors *old;
    tn_status status = tn_safetensors_open(tn_path_join(arena, reference, "adapter_model.safetensors"), &old);
    if (status != TN_OK) return status;
    tn_json_key(w, "tensors");
    tn_json_begin(w, '[');
    for (int64_t i = 0; i < tn_safetensors_count(file); i++) {
        const tn_tensor_info *t = tn_safetensors_at(file, i), *before = tn_safetensors_find(old, t->name);
        bool comparable = before && before->elements == t->elements && tn_dtype_is_float(t->dtype) &&
                          tn_dtype_is_float(before->dtype);
        tn_json_begin(w, '{');
        tn_json_string_member(w, "name", t->name);
        tn_json_real_member(w, "relative_change", comparable ? relative_change(t, before) : 1);
        tn_json_end(w, '}');
    }
    tn_json_end(w, ']');
    tn_safetensors_close(old);
    return TN_OK;
}

static tn_status with_base(const tn_engine *e, const tn_safetensors *file, tn_arena *arena, tn_accounting *a,
                           tn_json_writer *w) {
    const tn_base base = {&e->arch, e->files};
    tn_status status = tn_adapter_account(e->adapter, &base, file, arena, a);
    tn_json_begin(w, '{');
    tn_engine_write_params(e, w);
    return status;
}

/* Name of the other half of a LoRA pair; NULL for another kind of tensor. */
static const char *partner(tn_arena *arena, const char *name) {
    const char *half = strstr(name, ".lora_A.");
    const char *other = half ? ".lora_B." : ".lora_A.";
    if (!half) half = strstr(name, ".lora_B.");
    return half ? tn_arena_printf(arena, "%.*s%s%s", (int)(half - name), name, other, half + 8) : NULL;
}

static tn_group group_of(const char *name) {
    if (strstr(name, ".lora_")) return TN_GROUP_LORA;
    if (strstr(name, ".embed_tokens.")) return TN_GROUP_EMBED;
    return strstr(name, ".lm_head.") ? TN_GROUP_HEAD : TN_GROUP_FULL;
}

/* As the engine's, of the groups in the file; how many parameters stand beside them only the base knows. */
static void put_params(tn_json_writer *w, const int64_t counts[TN_GROUPS]) {
    int64_t trainable = 0;
    for (int g = 0; g < TN_GROUPS; g++) trainable += counts[g];
    tn_json_key(w, "params");
    tn_json_begin(w, '{');
    tn_json_integer_member(w, "trainable", trainable);
    tn_json_key(w, "all");
    tn_json_put_null(w);
    tn_json_key(w, "groups");
    tn_json_begin(w, '[');
    for (int g = 0; g < TN_GROUPS; g++) {
        if (counts[g] == 0) continue;
        tn_json_begin(w, '{');
        tn_json_string_member(w, "name", tn_group_name((tn_group)g));
        tn_json_integer_member(w, "count", counts[g]);
        tn_json_key(w, "learning_rate");
        tn_json_put_null(w);
        tn_json_end(w, '}');
    }
    tn_json_end(w, ']');
    tn_json_end(w, '}');
}

/* Known by its name alone; a bare "lm_head.weight" may as well be a module that trained, and so may
 * "lm_head.modules_to_save.weight" where it does not stand beside that. */
static bool is_base_copy(const tn_safetensors *file, const char *name, tn_arena *arena) {
    static const char infix[] = ".modules_to_save";
    if (strstr(name, ".base_layer.") || strstr(name, ".original_module.")) return true;
    const char *found = strstr(name, infix);
    if (!found) return false;
    const char *plain = tn_arena_printf(arena, "%.*s%s", (int)(found - name), name, found + strlen(infix));
    return plain && tn_safetensors_find(file, plain);
}

/* Without a base only what the file says of itself can be checked: pairs are complete and of one rank, values
 * are finite. */
static tn_status alone(const tn_safetensors *file, tn_arena *arena, tn_accounting *a, tn_json_writer *w) {
    const int64_t n = tn_safetensors_count(file);
    int64_t counts[TN_GROUPS] = {0};
    *a = (tn_accounting){.missing = tn_arena_take(arena, (n + 1) * 8),
                         .mismatched = tn_arena_take(arena, (n + 1) * 8),
                         .nonfinite = tn_arena_take(arena, (n + 1) * 8),
                         .base_copies = tn_arena_take(arena, (n + 1) * 8)};
    if (!a->missing || !a->mismatched || !a->nonfinite || !a->base_copies)
        return tn_fail_memory(32 * n, "an accounting");
    for (int64_t i = 0; i < n; i++) {
        const tn_tensor_info *t = tn_safetensors_at(file, i);
        const char *name = partner(arena, t->name);
        const tn_tensor_info *other = name ? tn_safetensors_find(file, name) : NULL;
        bool is_a = strstr(t->name, ".lora_A.") != NULL;
        if (is_base_copy(file, t->name, arena)) a->base_copies[a->base_copies_count++] = t->name;
        else counts[group_of(t->name)] += t->elements;
        if (name && !other) a->missing[a->missing_count++] = name;
        else if (name && (t->rank != 2 || !tn_dtype_is_float(t->dtype) ||
                          (is_a && other->rank == 2 && t->shape[0] != other->shape[1])))
            a->mismatched[a->mismatched_count++] = t->name;
        if (!tn_tensor_finite(t)) a->nonfinite[a->nonfinite_count++] = t->name;
    }
    tn_json_begin(w, '{');
    put_params(w, counts);
    return TN_OK;
}

static tn_status report(const tn_engine *e, const tn_safetensors *file, tn_arena *arena, tn_str *text) {
    tn_accounting a;
    tn_json_writer w = tn_json_write_to(text, 0);
    tn_status status;
    TN_TRY(e->settings->model ? with_base(e, file, arena, &a, &w) : alone(file, arena, &a, &w));
    tn_json_boolean_member(&w, "ok",
                           a.missing_count + a.unexpected_count + a.mismatched_count + a.nonfinite_count == 0);
    put_names(&w, "missing", a.missing, a.missing_count);
    put_names(&w, "unexpected", a.unexpected, a.unexpected_count);
    put_names(&w, "mismatched", a.mismatched, a.mismatched_count);
    put_names(&w, "nonfinite", a.nonfinite, a.nonfinite_count);
    put_names(&w, "base_copies", a.base_copies, a.base_copies_count);
    if (e->settings->reference) TN_TRY(put_changes(&w, arena, file, e->settings->reference));
    tn_json_end(&w, '}');
done:
    return status;
}

tn_status tn_verify(tn_config *config, tn_doc **doc) {
    tn_engine e = {0};
    tn_arena arena = {0};
    tn_safetensors *file = NULL;
    tn_str text = {0};
    tn_status status;
    *doc = NULL;
    TN_TRY(tn_config_resolve(config, &e.settings));
    if (tn_is_file(e.settings->adapter)) {
        status = tn_fail(TN_USAGE, "%s is a file, and an adapter is a directory", e.settings->adapter);
        tn_remedy("give the directory that holds adapter_config.json and adapter_model.safetensors");
        goto done;
    }
    if (e.settings->model) TN_TRY(tn_engine_open_adapter(config, &e));
    TN_TRY(tn_safetensors_open(tn_path_join(&arena, e.settings->adapter, "adapter_model.safetensors"), &file));
    TN_TRY(report(&e, file, &arena, &text));
    status = tn_doc_from(&text, doc);
done:
    tn_str_free(&text);
    tn_safetensors_close(file);
    tn_arena_free(&arena);
    tn_engine_close(&e);
    return status;
}
