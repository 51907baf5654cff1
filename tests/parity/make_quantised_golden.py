#!/usr/bin/env python3
"""Golden files of quantised bases for tests/parity/test_model_golden.c: the tiny models of make_model_golden.py, quantised and saved by Transformers and
bitsandbytes. golden/NAME/ holds what its cases hold; the model that answers is the plain one made of the decoded weights in fp32 (activations times decoded
weight), because on a CPU bitsandbytes' own products are not exact. Its decoding is held against ours on the way, which is written from its documentation.
usage: make_quantised_golden.py [CASE...]     Made with: torch 2.15, transformers 5.24, peft 0.21, bitsandbytes 0.50 (CPU).
"""
import json, os, shutil, sys, tempfile

import bitsandbytes, torch, transformers
from bitsandbytes.functional import QuantState, dequantize_4bit
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import BitsAndBytesConfig

import make_model_golden as plain

HALF, SINGLE = torch.bfloat16, torch.float32
FOUR = dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
CASES = {  # name: (the case of make_model_golden it starts from, quantisation, keys of the config)
    "bnb_nf4": ("llama", dict(FOUR, bnb_4bit_compute_dtype=HALF), dict(hidden_size=64, intermediate_size=192)),
    # Rows of 40 and 72 elements: blocks of 64 cross their ends, and the last one is short.
    "bnb_nf4_crossing": ("qwen2", dict(FOUR, llm_int8_skip_modules=["lm_head", "model.layers.1.mlp.down_proj"]), dict(hidden_size=40, intermediate_size=72)),
    "bnb_fp4": ("qwen3", dict(load_in_4bit=True, bnb_4bit_quant_storage=HALF), dict(hidden_size=64, intermediate_size=128)),
    "bnb_int8": ("llama_bias_tied", dict(load_in_8bit=True), {}),
    "bnb_nf4_dora": ("llama_dora", dict(FOUR, bnb_4bit_compute_dtype=HALF), dict(hidden_size=64, intermediate_size=192)),
}


def values(tensors, name):
    """fp32 values of a weight of the checkpoint, by the layout's description."""
    w = tensors[name]
    if name[: -len("weight")] + "SCB" in tensors:
        return w.float() * (tensors[name[: -len("weight")] + "SCB"] * torch.tensor(1 / 127, dtype=SINGLE))[:, None]
    keys = [k for k in tensors if k.startswith(name + ".quant_state.")]
    if not keys: return w.float()
    state = json.loads(bytes(tensors[keys[0]].tolist()))
    raw, absmax = w.view(torch.uint8).flatten(), tensors[name + ".absmax"]
    if "nested_offset" in state:
        per = state["nested_blocksize"]
        scales = tensors[name + ".nested_absmax"].repeat_interleave(per)[: len(absmax)]
        absmax = tensors[name + ".nested_quant_map"][absmax.long()] * scales + torch.tensor(state["nested_offset"], dtype=SINGLE)
    codes = torch.stack([raw >> 4, raw & 15], 1).flatten().long()
    count = state["shape"][0] * state["shape"][1]
    out = (tensors[name + ".quant_map"][codes] * absmax.repeat_interleave(state["blocksize"])[: len(codes)])[:count].reshape(state["shape"])
    if state["shape"][1] % state["blocksize"] == 0:  # where the library's CPU decoder can be trusted
        rest = {k[len(name) + 1 :]: v for k, v in tensors.items() if k.startswith(name + ".")}
        theirs = dequantize_4bit(raw[:, None], QuantState.from_dict(rest, torch.device("cpu")))
        assert torch.equal(theirs, out.to(theirs.dtype)), name
    return out


def quantise(name, folder):
    start, quantisation, keys = CASES[name]
    case = list(plain.CASES[start])
    case[1] = {**case[1], **keys}
    plain.CASES[name] = tuple(case)
    config, model, _ = plain.build(name)
    work = tempfile.mkdtemp()
    config.dtype = "bfloat16"
    state = {k.replace("base_model.model.", "").replace(".base_layer", ""): v.to(HALF).contiguous().clone() for k, v in model.state_dict().items() if "lora_" not in k}
    if config.tie_word_embeddings: state.pop("lm_head.weight", None)
    config.save_pretrained(work)
    save_file(state, work + "/model.safetensors", {"format": "pt"})
    bnb = transformers.AutoModelForCausalLM.from_pretrained(work, dtype=HALF, device_map="cpu", quantization_config=BitsAndBytesConfig(**quantisation))
    bnb.save_pretrained(folder + "/model")
    shutil.rmtree(work)
    return case[2]


def make(name):
    folder = f"{plain.HERE}/golden/{name}"
    lora = dict(dict(target_modules=plain.ALL), **quantise(name, folder))
    tensors = load_file(folder + "/model/model.safetensors")
    config = transformers.AutoConfig.from_pretrained(folder + "/model")
    del config.quantization_config
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=SINGLE, attn_implementation="eager")
    weights = {k: values(tensors, k) for k in model.state_dict() if k in tensors}
    missing = model.load_state_dict(weights, strict=False).missing_keys
    assert missing == (["lm_head.weight"] if config.tie_word_embeddings else []), missing
    wrapped = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **lora))
    torch.manual_seed(len(name))
    with torch.no_grad():
        for key, p in wrapped.named_parameters():
            if "lora_magnitude" in key: p.mul_(1 + 0.2 * torch.randn_like(p))
            elif "lora_" in key: p.normal_(0, 0.15)
    data = plain.records(name)
    wrapped.save_pretrained(folder + "/adapter")
    os.remove(folder + "/adapter/README.md")
    path = folder + "/adapter/adapter_config.json"
    adapter = json.load(open(path)); adapter["base_model_name_or_path"] = None
    json.dump(adapter, open(path, "w"), indent=1, sort_keys=True)
    with open(folder + "/train.jsonl", "w") as f:
        for ids, labels in data: f.write(json.dumps({"input_ids": ids, "labels": labels}) + "\n")
    longest = max(data, key=lambda r: len(r[0]))
    golden = {"input_ids": torch.tensor(longest[0], dtype=torch.int32), "labels": torch.tensor(longest[1], dtype=torch.int32)}
    wrapped.eval()
    with torch.no_grad():
        golden["logits_adapter"] = wrapped(input_ids=torch.tensor([longest[0]]), use_cache=False).logits[0]
        with wrapped.disable_adapter():
            golden["logits_base"] = wrapped(input_ids=torch.tensor([longest[0]]), use_cache=False).logits[0].clone()
    loss, count = plain.loss_sum(wrapped, *longest)
    (loss / count).backward()
    for k, v in plain.clean(wrapped, [(k, p.grad) for k, p in wrapped.named_parameters() if p.requires_grad]).items(): golden["grad." + k] = v
    golden["trainable"] = torch.tensor([sum(p.numel() for p in wrapped.parameters() if p.requires_grad)], dtype=torch.int64)
    if name == "bnb_nf4":
        wrapped.zero_grad()
        losses, norms = plain.curve(wrapped, data)
        golden["curve_fp32"], golden["norm_fp32"] = torch.tensor(losses, dtype=torch.float64), torch.tensor(norms, dtype=torch.float64)
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, bitsandbytes {bitsandbytes.__version__}"
    save_file(golden, folder + "/golden.safetensors", {"versions": versions})
    print(name, "trainable", int(golden["trainable"]), "loss", float(loss / count))


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES: make(case)
