"""Golden files of tests/parity/test_model_golden.c: tiny random models of every family and rope kind through Transformers + PEFT.

For each case tests/parity/golden/NAME/ gets a model directory (weights that its dtype, mostly bf16, holds exactly), an adapter with A and B not zero,
train.jsonl, and golden.safetensors: input_ids, logits of base and adapter, the gradient of every adapter tensor of the mean loss
over one record, and 50-step loss curves (fp32, and bf16 where wanted). usage: make_model_golden.py [CASE...]
Made with the versions it prints: torch 2.15, transformers 5.23, peft 0.21 (CPU).
"""
import json, math, os, sys

import torch, transformers, peft
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
VOCAB, RECORDS, LENGTH = 96, 12, 24
SMALL = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=128, initializer_range=0.15, bos_token_id=1, eos_token_id=2, pad_token_id=None)
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def rope(kind, **more):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **more}}


HALF = 4  # head_dim 8
CASES = {  # name: (config class, config keys, LoRA keys, curves)
    "llama": ("LlamaConfig", dict(rms_norm_eps=1e-5, **rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                                           original_max_position_embeddings=16)), {}, True),
    "llama_bias_tied": ("LlamaConfig", dict(attention_bias=True, mlp_bias=True, tie_word_embeddings=True, head_dim=6, **rope("default")),
                        dict(use_rslora=True, rank_pattern={"layers.1.self_attn.q_proj": 6}, alpha_pattern={"down_proj": 5}), False),
    "llama_embed_head": ("LlamaConfig", rope("default"), dict(modules_to_save=["embed_tokens", "lm_head"]), True),
    "qwen2": ("Qwen2Config", dict(tie_word_embeddings=True, **rope("default")), {}, True),
    "qwen2_yarn": ("Qwen2Config", rope("yarn", factor=4.0, original_max_position_embeddings=32), dict(target_modules=["q_proj", "v_proj"]), False),
    "mistral_window": ("MistralConfig", dict(sliding_window=8, head_dim=12, **rope("default")), {}, False),
    "qwen3": ("Qwen3Config", dict(head_dim=16, **rope("default")), {}, False),
    "granite": ("GraniteConfig", dict(embedding_multiplier=3, residual_multiplier=0.4, logits_scaling=2, attention_multiplier=0.2,
                                      **rope("default")), {}, False),
    "smollm3": ("SmolLM3Config", dict(no_rope_layer_interval=2, tie_word_embeddings=True, **rope("default")), {}, False),
    "seed_oss": ("SeedOssConfig", dict(head_dim=12, **rope("default")), {}, False),
    "llama_linear": ("LlamaConfig", rope("linear", factor=2.0), {}, False),
    "llama_dynamic": ("LlamaConfig", dict(max_position_embeddings=12, **rope("dynamic", factor=2.0)), {}, False),
    "llama_longrope": ("LlamaConfig", rope("longrope", factor=4.0, original_max_position_embeddings=16, long_factor=[1.0, 1.5, 2.5, 4.0],
                                           short_factor=[1.0, 1.1, 1.2, 1.3]), {}, False),
    "smollm3_window": ("SmolLM3Config", dict(no_rope_layer_interval=2, use_sliding_window=True, sliding_window=5, **rope("default")), {}, False),
    "qwen3_layer_types": ("Qwen3Config", dict(head_dim=10, num_key_value_heads=1, use_sliding_window=True, sliding_window=4, max_window_layers=28, attention_bias=True,
                                              layer_types=["sliding_attention", "full_attention"],
                                              **rope("yarn", factor=None, mscale=1.0, mscale_all_dim=0.5, truncate=False, original_max_position_embeddings=12)), {}, False),
}
CASES.update({
    # partial_rotary_factor is read by no class of these families: with the default rope Transformers turns the whole head.
    "llama_partial": ("LlamaConfig", rope("default", partial_rotary_factor=0.5), dict(target_modules=["q_proj", "k_proj"]), False),
    "qwen2_window": ("Qwen2Config", dict(use_sliding_window=True, sliding_window=4, max_window_layers=1, **rope("default")), dict(target_modules=["q_proj", "v_proj"]), False),
    "qwen3_window": ("Qwen3Config", dict(head_dim=10, use_sliding_window=True, sliding_window=5, max_window_layers=1, **rope("default")), dict(target_modules=["k_proj", "o_proj"]), False),
    "llama_fp16": ("LlamaConfig", rope("default"), dict(target_modules=["v_proj", "down_proj"]), False),
    "mistral_yarn_attention": ("MistralConfig", dict(sliding_window=None, **rope("yarn", factor=4.0, attention_factor=1.3, beta_fast=4.0, beta_slow=0.5, original_max_position_embeddings=16)),
                               dict(target_modules=["q_proj", "k_proj"]), False),
    # Every record is shorter than the original length: the short factors; the scaling follows from the two lengths.
    "llama_longrope_short": ("LlamaConfig", rope("longrope", original_max_position_embeddings=32, long_factor=[1.0, 1.5, 2.5, 4.0], short_factor=[1.0, 1.2, 1.5, 2.0]),
                             dict(target_modules=["q_proj", "k_proj"]), False),
})
CASES.update({  # rows of the tables that train alone; of a tied model the head's are the embedding's
    "llama_tokens": ("LlamaConfig", rope("default"), dict(target_modules=ALL + ["lm_head"], trainable_token_indices=[9, 5, 61]), False),
    "granite_tokens": ("GraniteConfig", dict(embedding_multiplier=3, residual_multiplier=0.4, logits_scaling=2, attention_multiplier=0.2, **rope("default")),
                       dict(target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [9, 5, 61], "lm_head": [61, 20]}), False),
    "qwen2_tokens": ("Qwen2Config", dict(tie_word_embeddings=True, **rope("default")), dict(trainable_token_indices=[9, 5, 61, 20, 33]), True),
    "llama_head_tokens": ("LlamaConfig", dict(tie_word_embeddings=True, **rope("default")), dict(target_modules=["v_proj"], trainable_token_indices={"lm_head": [44, 9]}), False),
})
CASES.update({  # DoRA: on everything; beside biases, a scaled residual stream and targets without LoRA; on the head of a tied model
    "llama_dora": ("LlamaConfig", rope("default"), dict(use_dora=True), True),
    "granite_dora": ("GraniteConfig", dict(embedding_multiplier=3, residual_multiplier=0.4, logits_scaling=2, attention_multiplier=0.2, attention_bias=True, mlp_bias=True,
                                           **rope("default")), dict(use_dora=True, target_modules=["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]), False),
    "qwen2_dora": ("Qwen2Config", dict(tie_word_embeddings=True, **rope("default")),
                   dict(use_dora=True, use_rslora=True, target_modules=ALL + ["lm_head"], rank_pattern={"layers.1.self_attn.q_proj": 6}, alpha_pattern={"down_proj": 5}), True),
    "qwen3_dora": ("Qwen3Config", dict(head_dim=16, **rope("default")), dict(use_dora=True, modules_to_save=["k_proj", "lm_head"]), False),
})
STORED = {"llama_fp16": torch.float16}  # what the base's file holds; bf16 otherwise
# Written by Transformers 5 beside what it follows from; without it max_window_layers is what has to be read.
LEFT_OUT = {"qwen2_window": "layer_types", "qwen3_window": "layer_types"}
STEPS, WARMUP, LR, DECAY, ROWS, GROUP = 50, 4, 5e-3, 0.01, 2, 2


def stored(name):
    return STORED.get(name, torch.bfloat16)


def build(name):
    cls, keys, lora, _ = CASES[name]
    torch.manual_seed(sum(map(ord, name)))
    config = getattr(transformers, cls)(**{**SMALL, **keys})
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        for key, p in model.named_parameters():
            if key.endswith("bias"): p.normal_(0, 0.1)
            if "norm" in key: p.add_(0.2 * torch.randn_like(p))
            p.copy_(p.to(stored(name)).float())
    lora = dict(dict(target_modules=ALL), **lora)
    wrapped = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **lora))
    with torch.no_grad():
        for key, p in wrapped.named_parameters():
            if "lora_magnitude" in key: p.mul_(1 + 0.2 * torch.randn_like(p))
            elif "lora_" in key: p.normal_(0, 0.15)
            if "modules_to_save" in key: p.add_(0.05 * torch.randn_like(p)); p.copy_(p.bfloat16().float())
            if "trainable_tokens" in key: p.add_(0.05 * torch.randn_like(p))
    return config, model, wrapped


def records(name):
    g = torch.Generator().manual_seed(len(name))
    out = []
    for i in range(RECORDS):
        n = int(torch.randint(6, LENGTH + 1, (1,), generator=g))
        ids = torch.randint(3, VOCAB, (n,), generator=g)
        ids[1::3] = (ids[0::3][: len(ids[1::3])] * 7 + 3) % (VOCAB - 3) + 3  # something to learn
        labels = ids.clone()
        labels[: int(torch.randint(1, 4, (1,), generator=g))] = -100
        out.append((ids.tolist(), labels.tolist()))
    return out


def loss_sum(model, ids, labels):
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    target = torch.tensor(labels[1:])
    return torch.nn.functional.cross_entropy(logits[:-1], target, ignore_index=-100, reduction="sum"), int((target >= 0).sum())


def groups(model):
    full = [p for k, p in model.named_parameters() if p.requires_grad and "lora_" not in k]
    lora = [p for k, p in model.named_parameters() if p.requires_grad and "lora_" in k]
    return [{"params": lora, "lr": LR}] + ([{"params": full, "lr": LR / 10}] if full else [])


def curve(model, data):
    optimizer = torch.optim.AdamW(groups(model), lr=LR, weight_decay=DECAY)
    schedule = transformers.get_scheduler("cosine", optimizer, WARMUP, STEPS)
    params = [p for g in optimizer.param_groups for p in g["params"]]
    losses, norms, at = [], [], 0
    for _ in range(STEPS):
        batch = data[at : at + ROWS * GROUP]
        at = (at + ROWS * GROUP) % len(data)
        optimizer.zero_grad()
        count = sum(sum(1 for l in labels[1:] if l >= 0) for _, labels in batch)
        total = 0.0
        for ids, labels in batch:
            loss, _ = loss_sum(model, ids, labels)
            (loss / count).backward()
            total += loss.item()
        norms.append(torch.nn.utils.clip_grad_norm_(params, 1.0).item())
        losses.append(total / count)
        optimizer.step(); schedule.step()
    return losses, norms


def clean(model, state):
    return {k.replace(".default", "").replace("modules_to_save.", "").replace("magnitude_vector.weight", "magnitude_vector"): v.detach().float().contiguous().clone() for k, v in state}


def make(name):
    folder = f"{HERE}/golden/{name}"
    config, model, wrapped = build(name)
    data = records(name)
    # Save before anything is wrapped: base weights under their plain names, in bf16.
    base = {k.replace("base_model.model.", "").replace(".token_adapter", "").replace(".base_layer", "").replace(".original_module", ""): v
            for k, v in wrapped.state_dict().items() if "lora_" not in k and "modules_to_save" not in k and "trainable_tokens" not in k}
    if config.tie_word_embeddings: base.pop("lm_head.weight", None)
    os.makedirs(folder + "/model", exist_ok=True)
    config.dtype = str(stored(name)).split(".")[1]
    config.save_pretrained(folder + "/model")
    if name in LEFT_OUT:
        path = folder + "/model/config.json"
        doc = json.load(open(path)); del doc[LEFT_OUT[name]]
        json.dump(doc, open(path, "w"), indent=2, sort_keys=True)
    save_file({k: v.detach().to(stored(name)).contiguous().clone() for k, v in base.items()}, folder + "/model/model.safetensors", {"format": "pt"})
    wrapped.save_pretrained(folder + "/adapter")
    if os.path.exists(folder + "/adapter/README.md"): os.remove(folder + "/adapter/README.md")
    path = folder + "/adapter/adapter_config.json"
    adapter = json.load(open(path)); adapter["base_model_name_or_path"] = None
    json.dump(adapter, open(path, "w"), indent=1, sort_keys=True)
    with open(folder + "/train.jsonl", "w") as f:
        for ids, labels in data: f.write(json.dumps({"input_ids": ids, "labels": labels}) + "\n")
    golden = {}
    longest = max(data, key=lambda r: len(r[0]))
    golden["input_ids"] = torch.tensor(longest[0], dtype=torch.int32)
    golden["labels"] = torch.tensor(longest[1], dtype=torch.int32)
    wrapped.eval()
    with torch.no_grad():
        golden["logits_adapter"] = wrapped(input_ids=torch.tensor([longest[0]]), use_cache=False).logits[0].float()
        with wrapped.disable_adapter():
            golden["logits_base"] = wrapped(input_ids=torch.tensor([longest[0]]), use_cache=False).logits[0].float()
    loss, count = loss_sum(wrapped, *longest)
    (loss / count).backward()
    for k, v in clean(wrapped, [(k, p.grad) for k, p in wrapped.named_parameters() if p.requires_grad]).items(): golden["grad." + k] = v
    wrapped.zero_grad()
    golden["trainable"] = torch.tensor([sum(p.numel() for p in wrapped.parameters() if p.requires_grad)], dtype=torch.int64)
    if CASES[name][3]:
        losses, norms = curve(wrapped, data)
        golden["curve_fp32"], golden["norm_fp32"] = torch.tensor(losses, dtype=torch.float64), torch.tensor(norms, dtype=torch.float64)
        half = transformers.AutoModelForCausalLM.from_pretrained(folder + "/model", dtype=torch.bfloat16, attn_implementation="eager")
        half = peft.PeftModel.from_pretrained(half, folder + "/adapter", is_trainable=True)
        losses, _ = curve(half, data)
        golden["curve_bf16"] = torch.tensor(losses, dtype=torch.float64)
    save_file(golden, folder + "/golden.safetensors", {"versions": f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}"})
    print(name, "trainable", int(golden["trainable"]), "loss", golden.get("curve_fp32", torch.zeros(1))[[0, -1]].tolist() if "curve_fp32" in golden else float(loss / count))


if __name__ == "__main__":
    print("torch", torch.__version__, "transformers", transformers.__version__, "peft", peft.__version__)
    for case in sys.argv[1:] or CASES: make(case)
