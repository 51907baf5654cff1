"""Adapters that PEFT (and Unsloth, by the spelling of its keys) wrote, continued by tenon: every tensor of the file is still trained, counted and saved, whatever
changes beside it: the dtype of the file, the base's format, the length and rope scaling. For each form of adapter: tenon's plan counts what PEFT's
get_nb_trainable_parameters counts, verify accounts for all, a step moves every tensor, what is saved loads in PEFT again, and a learning rate of 0 gives the file's values back.
usage: continue_check.py TENON      (torch 2.15, transformers 5.24, peft 0.21.2)"""
import json, os, shutil, subprocess, sys, tempfile, warnings

import torch, transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error(); transformers.logging.disable_progress_bar()
HERE, TENON = os.path.dirname(os.path.abspath(__file__)) + "/golden/", sys.argv[1]
Q, BOTH = ["q_proj", "down_proj"], ["embed_tokens", "lm_head"]
FORMS = {
    "embed and head": dict(target_modules=Q, modules_to_save=BOTH),
    "embed": dict(target_modules=Q, modules_to_save=["embed_tokens"]),
    "head": dict(target_modules=Q, modules_to_save=["lm_head"]),
    "head named twice": dict(target_modules=Q + ["lm_head"], modules_to_save=["lm_head"]),
    "LoRA on head": dict(target_modules=Q + ["lm_head"]),
    "tokens": dict(target_modules=Q, trainable_token_indices=[7, 3, 40]),
    "tokens tied": dict(target_modules=Q, trainable_token_indices=[7, 3, 40], ensure_weight_tying=True),
    "tokens of both": dict(target_modules=Q, trainable_token_indices={"embed_tokens": [7, 3], "lm_head": [7, 50]}),
    "norms": dict(target_modules=Q, modules_to_save=["norm", "embed_tokens"]),
}
VARIANTS = {  # what is done to the file; keys of the run
    "as it is": ("", {}),
    "bf16": ("bf16", {}),
    "fp16": ("fp16", {}),
    "Unsloth's names": ("unsloth", {}),
    "4 bit": ("", {"load_in_4bit": "true"}),
    "8 bit, longer": ("", {"load_in_8bit": "true", "max_length": 300, "rope_scaling": '{"rope_type":"yarn","factor":4}'}),
    "override": ("", {"override": '{"lora_alpha":32,"lora_dropout":0.1}'}),
    "embeddings beside it": ("beside", {}),
}


def tenon(verb, must=True, **keys):
    words = [TENON, verb, "--json", *(w for k, v in keys.items() for w in ("--" + k, str(v)))]
    r = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if r.returncode and must: raise SystemExit(f"{' '.join(words)}\nexit {r.returncode}: {r.stderr[-900:]}")
    return json.loads(r.stdout)


def rewrite(path, how):
    tensors = load_file(path)
    if how == "bf16": tensors = {k: v.bfloat16() for k, v in tensors.items()}
    if how == "fp16": tensors = {k: v.half() for k, v in tensors.items()}
    if how == "unsloth":
        tensors = {k if "lora_" in k or "token_adapter" in k or "base_layer" in k else k.replace(".weight", ".modules_to_save.default.weight"): v for k, v in tensors.items()}
        tensors = {k.replace("lora_A.weight", "lora_A.default.weight").replace("lora_B.weight", "lora_B.default.weight")
                    .replace("trainable_tokens_delta", "trainable_tokens_delta.default"): v for k, v in tensors.items()}
    if how != "": save_file(tensors, path, {"format": "pt"})


def check(name, form, variant):
    how, keys = VARIANTS[variant]
    work, path, data = tempfile.mkdtemp(), HERE + name + "/model", HERE + name + "/train.jsonl"
    base = lambda: transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    torch.manual_seed(1)
    theirs = get_peft_model(base(), LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **FORMS[form]))
    counted, everything = theirs.get_nb_trainable_parameters()
    with torch.no_grad():
        for key, p in theirs.named_parameters():
            if p.requires_grad: p.add_(0.05 * torch.randn(p.shape))
    theirs.save_pretrained(work + "/theirs", save_embedding_layers=True if how == "beside" else "auto")
    file = work + "/theirs/adapter_model.safetensors"
    rewrite(file, how)
    common = {"model": path, "device": "cpu", "dtype": "float32", "adapter": work + "/theirs", **keys}
    run = {**common, "dataset": data, "max_steps": 2, "gradient_accumulation_steps": 8}
    plan = tenon("plan", **run)["params"]
    verified = tenon("verify", model=path, adapter=work + "/theirs")
    problems = []
    if (plan["trainable"], plan["all"]) != (counted, everything): problems.append(f"plan {plan['trainable']} of {plan['all']}, PEFT {counted} of {everything}")
    if not verified["ok"] or verified["params"]["trainable"] != counted: problems.append("verify: " + json.dumps(verified)[:300])
    tenon("train", **run, learning_rate=0, output_dir=work + "/still")
    tenon("train", **run, learning_rate=1e-2, warmup_steps=0, output_dir=work + "/moved")
    clean = lambda k: k.replace(".default", "").replace(".modules_to_save", "").replace("base_model.model.model.", "").replace("base_model.model.", "")
    before = {clean(k): v.float() for k, v in load_file(file).items() if "base_layer" not in k and "original_module" not in k}
    for kind in ("still", "moved"):
        after = {clean(k): v.float() for k, v in load_file(f"{work}/{kind}/adapter_model.safetensors").items()}
        own = {k for k in before if k in after}
        left = [k for k in before if k not in after]
        if (how != "beside" and left) or set(after) - own: problems.append(f"{kind}: tensors {left} {set(after) - own}")
        if sum(after[k].numel() for k in own) != counted: problems.append(f"{kind}: saves {sum(after[k].numel() for k in own)} values")
        for k in sorted(own):
            same = torch.equal(after[k], before[k]) or (kind == "still" and "lora" not in k and torch.allclose(after[k], before[k], rtol=2**-8, atol=1e-7))
            if same != (kind == "still"): problems.append(f"{kind}: {k} {'moved' if kind == 'still' else 'did not move'}")
        PeftModel.from_pretrained(base(), f"{work}/{kind}")
    shutil.rmtree(work)
    print(f"{'FAILED' if problems else 'ok'}: {name}, {form}, {variant}: {counted} {'; '.join(problems)}", flush=True)
    return not problems


results = []
for name in ("llama", "qwen2"):
    for form in FORMS:
        for variant in VARIANTS:
            try: results.append(check(name, form, variant))
            except SystemExit as e: print(f"FAILED: {name}, {form}, {variant}: {e}", flush=True); results.append(False)
print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
sys.exit(0 if all(results) else 1)
