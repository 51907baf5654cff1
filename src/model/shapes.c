/* shapes.c: config.json of a few well-known models, so that `plan` and `bench` need no download. Figures: the
 * models' own published configurations.
 */
#include <string.h>

#include "model/arch.h"

static const struct {
    const char *name, *config;
} shapes[] = {
    {"llama-3.1-8b",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"vocab_size\": 128256, "
     "\"hidden_size\": 4096, "
     "\"intermediate_size\": 14336, \"num_hidden_layers\": 32, \"num_attention_heads\": 32, "
     "\"num_key_value_heads\": 8, "
     "\"rms_norm_eps\": 1e-05, \"rope_theta\": 500000.0, \"max_position_embeddings\": 131072, "
     "\"tie_word_embeddings\": false, "
     "\"bos_token_id\": 128000, \"eos_token_id\": [128001, 128008, 128009], \"torch_dtype\": \"bfloat16\", "
     "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, "
     "\"high_freq_factor\": 4.0, "
     "\"original_max_position_embeddings\": 8192}}"},
    {"llama-3.2-1b",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"vocab_size\": 128256, "
     "\"hidden_size\": 2048, "
     "\"intermediate_size\": 8192, \"num_hidden_layers\": 16, \"num_attention_heads\": 32, "
     "\"num_key_value_heads\": 8, "
     "\"head_dim\": 64, \"rms_norm_eps\": 1e-05, \"rope_theta\": 500000.0, \"max_position_embeddings\": "
     "131072, "
     "\"tie_word_embeddings\": true, \"bos_token_id\": 128000, \"eos_token_id\": [128001, 128008, 128009], "
     "\"torch_dtype\": \"bfloat16\", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 32.0, "
     "\"low_freq_factor\": 1.0, "
     "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 8192}}"},
    {"qwen2.5-7b",
     "{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", \"vocab_size\": 152064, "
     "\"hidden_size\": 3584, "
     "\"intermediate_size\": 18944, \"num_hidden_layers\": 28, \"num_attention_heads\": 28, "
     "\"num_key_value_heads\": 4, "
     "\"rms_norm_eps\": 1e-06, \"rope_theta\": 1000000.0, \"max_position_embeddings\": 32768, "
     "\"tie_word_embeddings\": false, "
     "\"use_sliding_window\": false, \"bos_token_id\": 151643, \"eos_token_id\": 151645, \"torch_dtype\": "
     "\"bfloat16\"}"},
    {"qwen2.5-0.5b",
     "{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", \"vocab_size\": 151936, "
     "\"hidden_size\": 896, "
     "\"intermediate_size\": 4864, \"num_hidden_layers\": 24, \"num_attention_heads\": 14, "
     "\"num_key_value_heads\": 2, "
     "\"rms_norm_eps\": 1e-06, \"rope_theta\": 1000000.0, \"max_position_embeddings\": 32768, "
     "\"tie_word_embeddings\": true, "
     "\"use_sliding_window\": false, \"bos_token_id\": 151643, \"eos_token_id\": 151645, \"torch_dtype\": "
     "\"bfloat16\"}"},
    {"smollm2-135m",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"vocab_size\": 49152, "
     "\"hidden_size\": 576, "
     "\"intermediate_size\": 1536, \"num_hidden_layers\": 30, \"num_attention_heads\": 9, "
     "\"num_key_value_heads\": 3, "
     "\"rms_norm_eps\": 1e-05, \"rope_theta\": 100000.0, \"max_position_embeddings\": 8192, "
     "\"tie_word_embeddings\": true, "
     "\"bos_token_id\": 1, \"eos_token_id\": 2, \"torch_dtype\": \"bfloat16\"}"},
};

const char *tn_shape_config(const char *name) {
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (strcmp(name, shapes[i].name) == 0) return shapes[i].config;
    return NULL;
}

const char *tn_shape_names(void) {
    return "llama-3.1-8b, llama-3.2-1b, qwen2.5-7b, qwen2.5-0.5b, smollm2-135m";
}
