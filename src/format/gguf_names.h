/* gguf_names.h: what llama.cpp and Hugging Face call the same things (llama.cpp: gguf-py/gguf/constants.py,
 * tensor_mapping.py), in tables that reading and writing share.
 */
#ifndef TN_FORMAT_GGUF_NAMES_H
#define TN_FORMAT_GGUF_NAMES_H

#include "base/status.h"

/* An architecture whose tensors and metadata are translated. */
typedef struct tn_gguf_family {
    const char *name;  /* general.architecture, and the model_type it is read as */
    const char *class; /* stands in "architectures" */
    bool permuted;     /* q and k rows are stored interleaved */
} tn_gguf_family;
/* NULL for an unknown architecture. */
const tn_gguf_family *tn_gguf_find_family(const char *architecture);
/* The one a model_type is written as: mistral's is llama. NULL where there is none. */
const tn_gguf_family *tn_gguf_family_of(const char *model_type);
/* All architectures, comma-separated, into `out`. */
const char *tn_gguf_family_names(char out[256]);

/* Hugging Face's name of a GGUF tensor into `out`; false where it has none (rope factors). And back. */
bool tn_gguf_hf_name(const char *name, char out[128]);
bool tn_gguf_own_name(const char *hf_name, char out[128]);

/* A number of the metadata ("<architecture>.<gguf>") under its name in config.json. */
typedef struct tn_gguf_number {
    const char *gguf, *hf;
    bool required; /* by every loader */
    bool real;     /* FLOAT32, else UINT32 */
} tn_gguf_number;
extern const tn_gguf_number tn_gguf_numbers[];
extern const int tn_gguf_number_count;
extern const tn_gguf_number tn_gguf_kv_heads, tn_gguf_head_dim, tn_gguf_rope_base;
/* Members of rope_scaling; the attention factor is longrope's alone: elsewhere llama.cpp multiplies it onto
 * yarn's own. */
extern const tn_gguf_number tn_gguf_rope_factor, tn_gguf_rope_length, tn_gguf_rope_attention;

#endif
