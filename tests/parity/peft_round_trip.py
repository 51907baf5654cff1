"""Adapters between tenon and PEFT, both ways, on the tiny golden models: what tenon saves loads in PEFT and gives the same log-probabilities, what PEFT
saves loads in tenon and does too, and both count the same trainable parameters. Each model with each form of adapter below, all on the CPU in fp32.
usage: peft_round_trip.py TENON [MODEL...]      (torch 2.15, transformers 5.23, peft 0.21.2)"""
import json, os, subprocess, sys, tempfile, warnings

import torch, transformers
from peft import LoraConfig, PeftModel, get_peft_model

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error(); transformers.logging.disable_progress_bar()
HERE, TENON, BOUND = os.path.dirname(os.path.abspath(__file__)) + "/golden/", sys.argv[1], 2e-5
MODELS = sys.argv[2:] or sorted(n for n in os.listdir(HERE) if os.path.exists(HERE + n + "/model/config.json") and not n.startswith(("bnb_", "fp8_", "qwen2_5_vl")))
FORMS = {  # keys of tenon, arguments of PEFT
    "all-linear": ({"target_modules": "all-linear"}, {"target_modules": "all-linear"}),
    "list": ({"target_modules": "q_proj,down_proj"}, {"target_modules": ["q_proj", "down_proj"]}),
    "expression": ({"target_modules": r".*layers\.0\..*(q|up)_proj"}, {"target_modules": r".*layers\.0\..*(q|up)_proj"}),
    "rslora, ranks": ({"target_modules": "all-linear", "use_rslora": "true", "rank_pattern": '{"v_proj":2}', "alpha_pattern": '{"o_proj":3}'},
                      {"target_modules": "all-linear", "use_rslora": True, "rank_pattern": {"v_proj": 2}, "alpha_pattern": {"o_proj": 3}}),
    "embed and head": ({"target_modules": "all-linear", "modules_to_save": "embed_tokens,lm_head"},
                       {"target_modules": "all-linear", "modules_to_save": ["embed_tokens", "lm_head"]}),
    # PEFT writes the head's own weight beside its LoRA here.
    "LoRA on head": ({"target_modules": "q_proj,lm_head"}, {"target_modules": ["q_proj", "lm_head"]}),
    "LoRA on head, embed": ({"target_modules": "v_proj,lm_head", "modules_to_save": "embed_tokens"}, {"target_modules": ["v_proj", "lm_head"], "modules_to_save": ["embed_tokens"]}),
    "tokens": ({"target_modules": "q_proj,down_proj", "trainable_token_indices": "7,3,40"},
               {"target_modules": ["q_proj", "down_proj"], "trainable_token_indices": [7, 3, 40]}),
    "tokens of both": ({"target_modules": "q_proj", "trainable_token_indices": '{"embed_tokens":[7,3],"lm_head":[3,50,7]}'},
                       {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [7, 3], "lm_head": [3, 50, 7]}}),
    "dora": ({"target_modules": "all-linear", "use_dora": "true"}, {"target_modules": "all-linear", "use_dora": True}),
    "dora, rslora, ranks": ({"target_modules": "q_proj,up_proj,lm_head", "use_dora": "true", "use_rslora": "true", "rank_pattern": '{"q_proj":2}', "alpha_pattern": '{"up_proj":3}'},
                            {"target_modules": ["q_proj", "up_proj", "lm_head"], "use_dora": True, "use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"up_proj": 3}}),
    "norms, biases": ({"target_modules": "q_proj,down_proj", "modules_to_save": "norm,v_proj"},
                      {"target_modules": ["q_proj", "down_proj"], "modules_to_save": ["norm", "v_proj"]}),
}


def tenon(verb, **keys):
    words = [TENON, verb, "--json", *(w for k, v in keys.items() for w in ("--" + k, str(v)))]
    r = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if r.returncode: raise SystemExit(f"{' '.join(words)}\nexit {r.returncode}: {r.stderr[-600:]}")
    return json.loads(r.stdout)


def logprobs_of(model, ids):
    with torch.no_grad():
        model(input_ids=torch.tensor([ids[:1]]))  # Transformers' dynamic rope forgets the longest length seen before
        l = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return [l[i - 1, ids[i]].item() for i in range(1, len(ids))]


def apart(model, path, adapter, data, work):
    """Largest difference over all labelled tokens between a PEFT model and tenon's eval."""
    tenon("eval", model=path, adapter=adapter, dataset=data, device="cpu", dtype="float32", per_token=work + "/p.jsonl")
    worst = 0.0
    for record in map(json.loads, open(work + "/p.jsonl")):
        for got, want in zip(record["logprobs"][1:], logprobs_of(model, record["ids"])):
            if got is not None: worst = max(worst, abs(got - want))
    return worst


def check(name, form):
    keys, arguments = FORMS[form]
    work, path, data = tempfile.mkdtemp(), HERE + name + "/model", HERE + name + "/train.jsonl"
    base = lambda: transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    common = {"model": path, "dataset": data, "device": "cpu", "dtype": "float32", "lora_r": 4, "lora_alpha": 8, **keys}
    count = tenon("plan", **common, output_dir=work + "/none")["params"]["trainable"]
    tenon("train", **common, max_steps=5, learning_rate=1e-2, output_dir=work + "/ours")
    ours = PeftModel.from_pretrained(base(), work + "/ours").eval()
    there = apart(ours, path, work + "/ours", data, work)
    torch.manual_seed(1)
    theirs = get_peft_model(base(), LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **arguments)).eval()
    counted = theirs.get_nb_trainable_parameters()[0]
    with torch.no_grad():
        for key, p in theirs.named_parameters():
            if p.requires_grad: p.add_(0.05 * torch.randn(p.shape))
    theirs.save_pretrained(work + "/theirs")
    back = apart(theirs, path, work + "/theirs", data, work)
    tenon("verify", model=path, adapter=work + "/theirs")
    held = there <= BOUND and back <= BOUND and count == counted
    print(f"{'ok' if held else 'FAILED'}: {name}, {form}: tenon -> PEFT {there:.1e}, PEFT -> tenon {back:.1e}, trainable {count} and {counted}", flush=True)
    return held


results = [check(name, form) for name in MODELS for form in FORMS]
print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
sys.exit(0 if all(results) else 1)
