"""Golden files of full fine-tuning for tests/parity/test_model_golden.c: on models that make_model_golden.py made, golden/NAME/full.safetensors gets the
gradient of every weight of the mean loss over one record, and losses and gradient norms of 50 AdamW steps (norms and biases not decayed, as in
Transformers' Trainer), all fp32. usage: make_full_golden.py [CASE...]      Made with torch 2.15, transformers 5.23 (CPU)."""
import json, sys

import torch, transformers
from safetensors.torch import load_file, save_file

import make_model_golden as common

CASES = ["llama", "llama_bias_tied", "qwen2", "qwen3", "granite", "smollm3"]


def decays(key):
    return not (key.endswith("bias") or "norm" in key)


def make(name):
    folder = f"{common.HERE}/golden/{name}"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder + "/model", dtype=torch.float32, attn_implementation="eager")
    data = [(r["input_ids"], r["labels"]) for r in map(json.loads, open(folder + "/train.jsonl"))]
    record = load_file(folder + "/golden.safetensors")
    golden = {k: record[k] for k in ("input_ids", "labels")}
    loss, count = common.loss_sum(model, golden["input_ids"].tolist(), golden["labels"].tolist())
    (loss / count).backward()
    named = list(model.named_parameters())
    for k, p in named: golden["grad." + k] = p.grad.float().clone().contiguous()
    golden["trainable"] = torch.tensor([sum(p.numel() for _, p in named)], dtype=torch.int64)
    common.groups = lambda _: [{"params": [p for k, p in named if decays(k)]}, {"params": [p for k, p in named if not decays(k)], "weight_decay": 0.0}]
    losses, norms = common.curve(model, data)
    golden["curve_fp32"], golden["norm_fp32"] = torch.tensor(losses, dtype=torch.float64), torch.tensor(norms, dtype=torch.float64)
    save_file(golden, folder + "/full.safetensors", {"versions": f"torch {torch.__version__}, transformers {transformers.__version__}"})
    print(name, "trainable", int(golden["trainable"]), "loss", losses[0], losses[-1])


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES: make(case)
