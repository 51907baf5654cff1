#!/usr/bin/env python3
"""What `tenon quantize` writes, loaded by Transformers + bitsandbytes without a word: every tiny golden model to nf4 and int8. Each weight must decode to the
same values there as bitsandbytes' own decoder makes of the file, the losses must be those of tenon, and the layers must be of its quantised kinds.
usage: quantize_check.py TENON [MODEL_DIRECTORY EVAL.jsonl [NF4.safetensors]]      (torch 2.15, transformers 5.24, bitsandbytes 0.50, CPU)
With a third argument the bytes of a file that the CUDA library wrote are compared (the acceptance case llama_nf4); of its offset 4 ulp are allowed.
"""
import json, os, subprocess, sys, tempfile, warnings

import numpy, torch, transformers
from safetensors.torch import load_file

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error(); transformers.logging.disable_progress_bar()
HERE, TENON, BOUND = os.path.dirname(os.path.abspath(__file__)) + "/golden/", sys.argv[1], 2e-5


def tenon(verb, **keys):
    words = [TENON, verb, "--json", *(w for k, v in keys.items() for w in ("--" + k, str(v)))]
    r = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if r.returncode: raise SystemExit(f"{' '.join(words)}\nexit {r.returncode}: {r.stderr[-600:]}")
    return json.loads(r.stdout)


def decoded(path):
    """Transformers' model of the directory, its quantised layers replaced by plain ones of their decoded weights (its products on a CPU are not exact)."""
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    kinds = {}
    for name, layer in list(model.named_modules()):
        kind = type(layer).__name__
        if kind not in ("Linear4bit", "Linear8bitLt"): continue
        kinds[kind] = kinds.get(kind, 0) + 1
        w = layer.weight
        if kind == "Linear4bit":
            state = w.quant_state
            raw, absmax = w.data.view(torch.uint8).flatten(), state.absmax
            if state.nested: absmax = state.state2.code[absmax.long()] * state.state2.absmax.repeat_interleave(state.state2.blocksize)[: len(absmax)] + state.offset
            codes = torch.stack([raw >> 4, raw & 15], 1).flatten().long()
            n = state.shape.numel()
            value = (state.code[codes][:n] * absmax.repeat_interleave(state.blocksize)[:n]).reshape(state.shape)
        else:
            value = w.data.float() * (w.SCB * torch.tensor(1 / 127, dtype=torch.float32))[:, None]
        plain = torch.nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
        plain.weight = torch.nn.Parameter(value.float())
        if layer.bias is not None: plain.bias = torch.nn.Parameter(layer.bias.float())
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, plain)
    for p in (*model.parameters(), *model.buffers()):
        if p.is_floating_point(): p.data = p.data.float()
    return model.eval(), kinds


def check(name, path, data, to):
    work = tempfile.mkdtemp()
    tenon("quantize", model=path, to=to, output_dir=work + "/q")
    tenon("eval", model=work + "/q", dataset=data, device="cpu", dtype="float32", per_token=work + "/p.jsonl")
    model, kinds = decoded(work + "/q")
    worst = 0.0
    for record in map(json.loads, open(work + "/p.jsonl")):
        ids = torch.tensor([record["ids"]])
        with torch.no_grad():
            model(input_ids=ids[:, :1])  # dynamic rope forgets
            p = model(input_ids=ids).logits[0].log_softmax(-1)
        for i, got in enumerate(record["logprobs"]):
            if got is not None: worst = max(worst, abs(got - p[i - 1, ids[0, i]].item()))
    layers = 7 * model.config.num_hidden_layers
    held = worst <= BOUND and kinds == {"Linear4bit" if to == "nf4" else "Linear8bitLt": layers}
    print(f"{'ok' if held else 'FAILED'}: {name} to {to}: {worst:.1e}, {kinds}", flush=True)
    return held, work + "/q"


def same_bytes(ours, theirs):
    ours, theirs, apart = load_file(ours + "/model.safetensors"), load_file(theirs), []
    ulp = 4 * max(numpy.spacing(numpy.float32(json.loads(bytes(v.tolist()))["nested_offset"])) for k, v in theirs.items() if "quant_state" in k)
    for k, v in theirs.items():
        if "quant_state" in k:
            a, b = (json.loads(bytes(t.tolist())) for t in (ours[k], v))
            x, y = (numpy.float32(s.pop("nested_offset")) for s in (a, b))
            same = list(a.items()) == list(b.items()) and abs(x - y) <= ulp
        elif k.endswith("nested_absmax"): same = (ours[k] - v).abs().max().item() <= ulp  # distances from the offset
        else: same = torch.equal(ours[k], v)
        if not same: apart.append(k)
    print(f"{'ok' if not apart else 'FAILED'}: {len(theirs)} tensors of the CUDA library, {len(apart)} differ {apart[:5]}")
    return not apart


if len(sys.argv) > 2:
    results = [check(sys.argv[2], sys.argv[2], sys.argv[3], to) for to in ("int8", "nf4")]
    held = [r[0] for r in results] + ([same_bytes(results[1][1], sys.argv[4])] if len(sys.argv) > 4 else [])
else:
    names = sorted(n for n in os.listdir(HERE) if os.path.exists(HERE + n + "/model/config.json") and not n.startswith(("bnb_", "fp8_", "qwen2_5_vl")))
    held = [check(n, HERE + n + "/model", HERE + n + "/train.jsonl", to)[0] for n in names for to in ("nf4", "int8")]
print(f"{sum(held)} passed, {len(held) - sum(held)} failed")
sys.exit(not all(held))
