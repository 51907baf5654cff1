"""Merged models against PEFT's merge_and_unload, on the tiny golden models with each form of adapter of peft_round_trip.py: the weights, and the logits of
the merged directory loaded in Transformers. Where the base is tied and its head trains apart, PEFT's own merge is not taken (it merges into both), but the
unmerged PEFT model. All on the CPU in fp32, the base stored in fp32 so that nothing is rounded.
usage: merge_check.py TENON [MODEL...]      (torch 2.15, transformers 5.23, peft 0.21.2)"""
import json, os, subprocess, sys, tempfile, warnings

import torch, transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error(); transformers.logging.disable_progress_bar()
HERE, TENON, BOUND = os.path.dirname(os.path.abspath(__file__)) + "/golden/", sys.argv[1], 2e-5
MODELS = sys.argv[2:] or sorted(n for n in os.listdir(HERE) if os.path.exists(HERE + n + "/model/config.json") and not n.startswith(("bnb_", "fp8_", "qwen2_5_vl")))  # plain bases
FORMS = {
    "all-linear": dict(target_modules="all-linear"),
    "rslora, ranks": dict(target_modules="all-linear", use_rslora=True, rank_pattern={"v_proj": 2}, alpha_pattern={"o_proj": 3}),
    "embed and head": dict(target_modules="all-linear", modules_to_save=["embed_tokens", "lm_head"]),
    "LoRA on head": dict(target_modules=["q_proj", "lm_head"]),
    "tokens": dict(target_modules=["q_proj"], trainable_token_indices=[7, 3, 40]),
    "tokens of both": dict(target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [7, 3], "lm_head": [3, 50, 7]}),
    "dora": dict(target_modules="all-linear", use_dora=True),
    "dora, rslora, ranks": dict(target_modules=["q_proj", "up_proj", "lm_head"], use_dora=True, use_rslora=True, rank_pattern={"q_proj": 2}, alpha_pattern={"up_proj": 3}),
    "norms, biases": dict(target_modules=["q_proj", "down_proj"], modules_to_save=["norm", "v_proj"]),
}


def logits(model, ids):
    with torch.no_grad():
        model(input_ids=torch.tensor([ids[:1]]))  # Transformers' dynamic rope forgets the longest length seen before
        return model(input_ids=torch.tensor([ids])).logits[0]


def check(name, form):
    work = tempfile.mkdtemp()
    load = lambda path: transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    load(HERE + name + "/model").save_pretrained(work + "/base")
    torch.manual_seed(1)
    theirs = get_peft_model(load(work + "/base"), LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **FORMS[form])).eval()
    with torch.no_grad():
        for key, p in theirs.named_parameters():
            if p.requires_grad: p.add_(0.05 * torch.randn(p.shape))
    theirs.save_pretrained(work + "/adapter")
    ids = max((json.loads(line)["input_ids"] for line in open(HERE + name + "/train.jsonl")), key=len)
    want = logits(theirs, ids)
    words = [TENON, "merge", "--json", "--model", work + "/base", "--adapter", work + "/adapter", "--output_dir", work + "/merged", "--device", "cpu"]
    r = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if r.returncode: raise SystemExit(f"{' '.join(words)}\nexit {r.returncode}: {r.stderr[-600:]}")
    said = json.loads(r.stdout)["max_abs_logit_difference"]
    ours = load(work + "/merged")
    logit = (logits(ours, ids) - want).abs().max().item()
    apart = ours.config.tie_word_embeddings != theirs.config.tie_word_embeddings
    weight = 0.0
    if not apart:
        merged, state = theirs.merge_and_unload().state_dict(), ours.state_dict()
        assert set(merged) == set(state), set(merged) ^ set(state)
        weight = max((merged[k] - state[k]).abs().max().item() for k in state)
        stored = load_file(work + "/merged/model.safetensors")
        assert all(torch.equal(stored[k], state[k]) for k in stored)
    held = logit <= BOUND and weight <= 1e-6 and said <= BOUND
    print(f"{'ok' if held else 'FAILED'}: {name}, {form}: weights {weight:.1e}, logits {logit:.1e}, merge says {said:.1e}{', head untied' if apart else ''}", flush=True)
    return held


results = [check(name, form) for name in MODELS for form in FORMS]
print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
sys.exit(0 if all(results) else 1)
