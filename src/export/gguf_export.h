/* gguf_export.h: GGUF files: a whole model (base + adapter), or an adapter alone as llama.cpp loads it beside
 * its base (--lora).
 */
#ifndef TN_EXPORT_GGUF_EXPORT_H
#define TN_EXPORT_GGUF_EXPORT_H

#include "export/merged.h"
#include "export/staging.h"
#include "text/chat.h"

/* Storage formats of a whole model, by the words of --to. */
typedef struct tn_gguf_choice {
    bool given; /* else every matrix keeps the format that the base has it in */
    tn_dtype dtype;
} tn_gguf_choice;

/* Writes the merged model with its tokenizer and chat template; `stops` are the ids that end a text. Matrices
 * get the chosen format; rows that are no whole blocks of it the next one that they are (Q4_K: Q5_0, Q6_K:
 * Q8_0, then F16), which is said; norms and biases are F32. Untouched tensors that are in the wanted format and
 * order keep their bytes. Errors: TN_USAGE for a model that GGUF cannot say, TN_INTERRUPTED, and as tn_pack. */
tn_status tn_gguf_export(const tn_merged *merged, const tn_chat *chat, const int32_t *stops, int64_t stop_count,
                         tn_gguf_choice choice, const tn_staging *staging);
/* Writes the adapter's LoRA matrices in F32 (llama.cpp: convert_lora_to_gguf.py). The file has one alpha for
 * all: where rank_pattern, alpha_pattern or rsLoRA say otherwise for a module, its B takes the difference.
 * Errors: TN_USAGE for modules that trained in full, and for LoRA on a tied head. */
tn_status tn_gguf_export_lora(const tn_merged *merged, const char *path);

#endif
