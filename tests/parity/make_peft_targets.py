#!/usr/bin/env python3
"""Writes golden/peft_targets.json: which modules PEFT itself gives LoRA (with which r and alpha) or trains in full, for
many configurations on tiny models. test_peft_config asks tenon the same questions.

Each case holds the configuration as a user writes it ("given") or as PEFT saved and loaded it ("saved": all-linear
expanded, keys sorted), the model, and "lora": {module: [r, alpha]}, "full": [modules], or "error": true where PEFT
refuses the configuration itself. A case where PEFT finds nothing to target has both empty.

usage: make_peft_targets.py OUT.json
"""
import json
import sys
import tempfile
import warnings

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM, Qwen3Config, Qwen3ForCausalLM

warnings.simplefilter("ignore")
SMALL = dict(vocab_size=16, hidden_size=16, intermediate_size=24, num_attention_heads=2, num_key_value_heads=1,
             max_position_embeddings=32, pad_token_id=None, bos_token_id=1, eos_token_id=2)
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(num_hidden_layers=4, **SMALL)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(num_hidden_layers=12, head_dim=8, tie_word_embeddings=True, **SMALL)),
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(num_hidden_layers=2, **SMALL)),
}
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = [
    ("suffixes", "llama", dict(target_modules=["q_proj", "v_proj"], r=4, lora_alpha=12)),
    ("seven", "llama", dict(target_modules=SEVEN)),
    ("dotted suffix", "llama", dict(target_modules=["self_attn.q_proj", "mlp.down_proj"])),
    ("suffix needs a dot", "llama", dict(target_modules=["_proj", "proj", "q_proj"])),
    ("full names", "llama", dict(target_modules=["model.layers.1.self_attn.q_proj", "model.layers.3.mlp.up_proj"])),
    ("all-linear", "llama", dict(target_modules="all-linear")),
    ("all-linear in capitals", "llama", dict(target_modules="All-Linear")),
    ("all-linear on a long tied model", "qwen3", dict(target_modules="all-linear")),
    ("all-linear on fused projections", "phi3", dict(target_modules="all-linear")),
    ("all-linear with exclusion", "llama", dict(target_modules="all-linear", exclude_modules=["down_proj"])),
    ("all-linear with full head", "llama", dict(target_modules="all-linear", modules_to_save=["embed_tokens", "lm_head"])),
    ("regex", "llama", dict(target_modules=r".*\.(q|v)_proj")),
    ("regex must match the whole name", "llama", dict(target_modules=r"model\.layers\.1\.mlp\.up")),
    ("regex needs the beginning", "llama", dict(target_modules=r"layers\.1\.self_attn\.q_proj")),
    ("regex is a plain word", "llama", dict(target_modules="q_proj")),
    ("regex alternatives, short one first", "llama", dict(target_modules=r"model\.lay|model\.layers\.0\.self_attn\.q_proj")),
    ("regex backtracks to the end", "llama", dict(target_modules=r"(model|model\.layers\.\d)\.self_attn\.o_proj")),
    ("regex with back reference", "llama", dict(target_modules=r"model\.layers\.(\d)\.(mlp|self_attn)\.(gate|[qk])_proj")),
    ("regex repeats a group", "qwen3", dict(target_modules=r"model\.layers\.(\d)\1\.mlp\.up_proj")),
    ("regex with named group", "llama", dict(target_modules=r"model\.(?P<a>layers)\.[02]\.mlp\.(?:up|gate)_proj")),
    ("regex with lookahead", "llama", dict(target_modules=r"model\.layers\.(?!1\.)\d+\.self_attn\.[qkvo]_proj")),
    ("regex ignoring case", "llama", dict(target_modules=r"(?i)MODEL\.LAYERS\.0\..*Q_PROJ")),
    ("regex in verbose form", "llama", dict(target_modules="(?x) model \\. layers \\. 2 \\. mlp \\. .*_proj  # the third")),
    ("regex with end anchor", "llama", dict(target_modules=r"^model\.layers\.\d+\.mlp\.gate_proj$")),
    ("regex on two digits", "qwen3", dict(target_modules=r"model\.layers\.1\d?\.self_attn\.q_proj")),
    ("regex with the head", "llama", dict(target_modules=r".*q_proj|lm_head")),
    ("exclude by list", "llama", dict(target_modules=SEVEN, exclude_modules=["o_proj", "layers.2.mlp.up_proj"])),
    ("exclude by full name", "llama", dict(target_modules=["q_proj"], exclude_modules=["model.layers.0.self_attn.q_proj"])),
    ("exclude by regex", "llama", dict(target_modules=["q_proj", "up_proj"], exclude_modules=r".*layers\.[01]\..*")),
    ("exclude regex is anchored", "llama", dict(target_modules=["q_proj"], exclude_modules=r"layers\.[01]\..*")),
    ("exclude wins over a full name", "llama", dict(target_modules=["model.layers.0.mlp.up_proj", "v_proj"], exclude_modules=["up_proj"])),
    ("layers", "llama", dict(target_modules=["q_proj", "v_proj"], layers_to_transform=[0, 2])),
    ("one layer", "llama", dict(target_modules=["q_proj"], layers_to_transform=3)),
    ("layer zero", "llama", dict(target_modules=["q_proj"], layers_to_transform=0)),
    ("layers, two digits", "qwen3", dict(target_modules=["k_proj"], layers_to_transform=[1, 11])),
    ("layers leave out the head", "llama", dict(target_modules=["q_proj", "lm_head"], layers_to_transform=[1])),
    ("layers do not bind full names", "llama", dict(target_modules=["model.layers.3.mlp.up_proj", "lm_head", "q_proj"], layers_to_transform=[1])),
    ("empty layers", "llama", dict(target_modules=["q_proj"], layers_to_transform=[])),
    ("a negative layer is none", "llama", dict(target_modules=["q_proj", "model.layers.2.mlp.up_proj"], layers_to_transform=[1, -1])),
    ("layers pattern without layers", "llama", dict(target_modules=["q_proj"], layers_pattern=["layers"])),
    ("layers with a regex", "llama", dict(target_modules=r".*q_proj", layers_to_transform=[0])),
    ("layers with all-linear", "llama", dict(target_modules="all-linear", layers_to_transform=[0])),
    ("layers pattern", "llama", dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern="layers")),
    ("layers pattern that is not there", "llama", dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern="blocks")),
    ("layers patterns", "llama", dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern=["h", "layers"])),
    ("layers pattern with alternatives", "llama", dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern="h|layers")),
    ("layers pattern with a group", "llama", dict(target_modules=["q_proj"], layers_to_transform=[1, 2], layers_pattern="(h|layers)")),
    ("rank pattern", "llama", dict(target_modules=SEVEN, rank_pattern={"q_proj": 2, "layers.1.mlp.up_proj": 3})),
    ("rank pattern, first wins", "llama", dict(target_modules=SEVEN, rank_pattern={"v_proj": 2, r"layers\.1\..*": 5, "k_proj": 7})),
    ("rank pattern needs a dot before", "llama", dict(target_modules=SEVEN, rank_pattern={"proj": 3, "_proj": 5, ".*_proj": 6})),
    ("rank pattern with anchors", "llama", dict(target_modules=SEVEN, rank_pattern={"^model.layers.0.mlp.up_proj": 3, "^layers": 9})),
    ("rank pattern with alternatives", "llama", dict(target_modules=SEVEN, rank_pattern={"q_proj|k_proj": 3})),
    ("rank pattern with a back reference", "qwen3", dict(target_modules=["up_proj"], rank_pattern={r"layers\.(\d)\3\.mlp\.up_proj": 3})),
    ("alpha pattern", "llama", dict(target_modules=SEVEN, lora_alpha=16, alpha_pattern={r"layers\.[0-2]\.self_attn\.q_proj": 4, "down_proj": 64})),
    ("both patterns", "llama", dict(target_modules="all-linear", rank_pattern={"mlp.*": 2}, alpha_pattern={r".*\.3\..*": 1})),
    ("full modules", "llama", dict(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])),
    ("full modules, tied", "qwen3", dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"])),
    ("target is trained in full", "llama", dict(target_modules=["q_proj", "lm_head", "embed_tokens"], modules_to_save=["lm_head"])),
    ("a full block is no target", "llama", dict(target_modules=SEVEN, modules_to_save=["layers.1.mlp"])),
    ("full norms", "llama", dict(target_modules=["q_proj"], modules_to_save=["norm"])),
    ("full module by its whole name", "llama", dict(target_modules=["up_proj"], modules_to_save=["model.layers.0.mlp.up_proj"])),
    ("embedding and head as targets", "llama", dict(target_modules=["embed_tokens", "lm_head", "q_proj"])),
    ("a target that is not there", "llama", dict(target_modules=["q_proj", "query_key_value"])),
    ("nothing there", "llama", dict(target_modules=["query_key_value"])),
    ("rslora", "llama", dict(target_modules=["q_proj"], r=16, lora_alpha=8.5, use_rslora=True)),
]


def leaves(model):
    return [n for n, m in model.named_modules(remove_duplicate=False) if not list(m.children()) and list(m.parameters())]


def ask_peft(model_name, config):
    base = MODELS[model_name]()
    names = leaves(base)
    try:
        model = get_peft_model(base, config)
    except ValueError as e:
        if "not found in the base model" in str(e) or "were excluded" in str(e) or "No modules were targeted" in str(e):
            return {"lora": {}, "full": []}, None
        raise
    lora, wrapped = {}, []
    for name, module in model.base_model.model.named_modules(remove_duplicate=False):
        if isinstance(module, LoraLayer):
            lora[name] = [module.r["default"], module.lora_alpha["default"]]
        if isinstance(module, ModulesToSaveWrapper):
            wrapped.append(name)
    full = [n for n in names if any(n == w or n.startswith(w + ".") for w in wrapped)]
    return {"lora": lora, "full": full}, model


def plain(value):
    return sorted(value) if isinstance(value, set) else value


def main():
    torch.manual_seed(0)
    out = {"made_by": f"peft {peft.__version__}, transformers {transformers.__version__}, torch {torch.__version__}",
           "modules": {name: leaves(make()) for name, make in MODELS.items()}, "cases": []}
    for title, model_name, given in CASES:
        entry = {"name": title, "model": model_name, "config": {"peft_type": "LORA", **given}}
        try:
            config = LoraConfig(task_type="CAUSAL_LM", **given)
        except ValueError as e:
            out["cases"].append({**entry, "error": True})
            print(f"{title}: refused: {e}")
            continue
        result, model = ask_peft(model_name, config)
        out["cases"].append({**entry, **result})
        print(f"{title}: {len(result['lora'])} LoRA, {len(result['full'])} full")
        if model is None:
            continue
        with tempfile.TemporaryDirectory() as directory:
            model.save_pretrained(directory)
            saved = json.load(open(directory + "/adapter_config.json"))
            again, _ = ask_peft(model_name, LoraConfig.from_pretrained(directory))
        if isinstance(saved["target_modules"], list):
            saved["target_modules"].sort()  # sets are written in arbitrary order
        out["cases"].append({"name": title + " (saved)", "model": model_name, "config": saved, **again})
    with open(sys.argv[1], "w") as f:
        f.write('{"made_by": %s, "modules": %s, "cases": [\n' % (json.dumps(out["made_by"]), json.dumps(out["modules"])))
        f.write(",\n".join(json.dumps(c) for c in out["cases"]) + "\n]}\n")
    print(out["made_by"])


main()
