"""Random configurations through tenon and Transformers + PEFT: families, head shapes, windows, biases, tying, rope kinds in both generations of config.json,
stored dtypes and LoRA targets. Each case compares (within fixed bounds, or judged by float64 where it is ill-conditioned) `eval --per_token` of base and adapter at every position (past the original length too), and of
three AdamW steps the loss and the gradient norm; no file is kept. Prints a case's seed where it differs: run it again with --seed SEED --count 1.
usage: sweep.py TENON [--seed N] [--count N] [--show]      (torch 2.15, transformers 5.23, peft 0.21.2; CPU, fp32)"""
import argparse, copy, json, os, random, subprocess, sys, tempfile, warnings

import torch, transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error(); transformers.logging.disable_progress_bar()
BOUNDS = 1e-5, 1e-5, 1e-5, 1e-4  # log-probabilities of base and adapter, loss, norm
# Where the two differ by more, a float64 run of the oracle is the judge: tenon may be at most so many times as far from it as the fp32 oracle is. The largest of
# some hundred roundings varies so: with the hidden units permuted, the same function, the oracle's own error moves by 2.4 times; a formula that is wrong is hundreds of times as far.
FARTHER = 4
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
STEPS, LR, EPSILON = 3, 1e-3, 1e-4  # with Adam's usual epsilon of 1e-8 the rounding of a gradient near zero becomes a whole step


def random_rope(rng, half, longest):
    """Parameters of a rope kind, and max_position_embeddings: records are longer than what the kind was made for."""
    kind = rng.choice(["default", "linear", "dynamic", "yarn", "longrope", "llama3"])
    theta, original = rng.choice([100.0, 10000.0, 500000.0, 1000000]), rng.choice([8, 16, 32])
    rope, maximum = {"rope_type": kind, "rope_theta": theta}, 4 * longest
    if kind != "default" and kind != "longrope": rope["factor"] = rng.choice([1.5, 2.0, 4.0, 8])
    if kind == "dynamic": maximum = max(original, -int(-longest // rope["factor"]))  # what it stretches to holds the longest record
    if kind in ("yarn", "llama3", "longrope"): rope["original_max_position_embeddings"] = original
    if kind == "yarn":
        for key, values in {"attention_factor": [0.8, 1.3], "truncate": [False, True], "beta_fast": [4, 16.0], "beta_slow": [0.5, 2]}.items():
            if rng.random() < 0.4: rope[key] = rng.choice(values)
        if rng.random() < 0.5: rope.update(mscale=rng.choice([0.7, 1.0, 2]), mscale_all_dim=rng.choice([0.5, 1, 0.0]))
    if kind == "llama3": rope.update(low_freq_factor=rng.choice([1.0, 0.5, 2]), high_freq_factor=rng.choice([4.0, 8]))
    if kind == "longrope":
        rope.update(short_factor=[1 + rng.random() * 0.3 for _ in range(half)], long_factor=[1 + rng.random() * 4 for _ in range(half)])
        if rng.random() < 0.5: rope["factor"] = rng.choice([2.0, 4])
        if rng.random() < 0.3: rope["attention_factor"] = 1.2
    return rope, maximum


def random_case(rng):
    family = rng.choice(["Llama", "Mistral", "Qwen2", "Qwen3", "Granite", "SmolLM3", "SeedOss"])
    kv = rng.choice([1, 1, 2, 3])
    heads, head_dim, layers, longest = kv * rng.choice([1, 2, 3]), rng.choice([4, 6, 10, 14, 16, 22]), rng.choice([1, 2, 3]), rng.choice([24, 40, 70])
    # SmolLM3, Qwen2 and Granite derive head_dim, so theirs follows from hidden_size.
    explicit = family in ("Llama", "Mistral", "Qwen3") and rng.random() < 0.7 or family in ("Qwen3", "SeedOss")
    hidden = heads * rng.choice([6, 8, 12]) if explicit else heads * head_dim
    rope, maximum = random_rope(rng, head_dim // 2, longest)
    keys = dict(vocab_size=rng.choice([50, 97, 128]), hidden_size=hidden, intermediate_size=rng.choice([17, 32, 75]), num_hidden_layers=layers, num_attention_heads=heads,
                num_key_value_heads=kv, max_position_embeddings=maximum, tie_word_embeddings=rng.random() < 0.5, initializer_range=0.15, rms_norm_eps=rng.choice([1e-5, 1e-6]),
                bos_token_id=1, eos_token_id=2, pad_token_id=None, rope_parameters=rope)
    if explicit: keys["head_dim"] = head_dim
    if rng.random() < 0.2: keys["hidden_act"] = rng.choice(["gelu", "gelu_pytorch_tanh"])
    if family in ("Llama", "Qwen3", "Granite", "SmolLM3"): keys["attention_bias"] = rng.random() < 0.4
    if family in ("Llama", "Granite", "SmolLM3"): keys["mlp_bias"] = rng.random() < 0.4
    if family == "SeedOss" and hidden == heads * head_dim: keys["head_dim"] = None
    if family == "SeedOss": keys.update(attention_bias=rng.random() < 0.7, attention_out_bias=rng.random() < 0.4, mlp_bias=rng.random() < 0.4)
    if family == "Mistral": keys["sliding_window"] = rng.choice([None, 1, 5, 16, 1000])
    if family in ("Qwen2", "Qwen3"):
        keys.update(use_sliding_window=rng.random() < 0.6, sliding_window=rng.choice([3, 8, 20]), max_window_layers=rng.choice([0, 1, 2, 28]))
        if keys["use_sliding_window"] and rng.random() < 0.5: keys["layer_types"] = [rng.choice(["sliding_attention", "full_attention"]) for _ in range(layers)]
    if family == "SmolLM3":
        keys["no_rope_layer_interval"] = rng.choice([2, 3, 4])
        if rng.random() < 0.5: keys["no_rope_layers"] = [rng.choice([0, 1]) for _ in range(layers)]
        if rng.random() < 0.5: keys.update(use_sliding_window=True, sliding_window=rng.choice([4, 9]))
    if family == "Granite":
        keys.update(embedding_multiplier=rng.choice([1, 3.5, 12]), residual_multiplier=rng.choice([0.22, 1.0]), logits_scaling=rng.choice([1.0, 4, 8.0]), attention_multiplier=rng.choice([0.1, 0.3, 1]))
    lora = dict(r=rng.choice([1, 3, 8]), lora_alpha=rng.choice([4, 16]), use_rslora=rng.random() < 0.3,
                target_modules=rng.choice(["all-linear", LINEAR, rng.sample(LINEAR, rng.randint(1, 6)), r".*\.(q|down)_proj"]))
    if rng.random() < 0.3: lora["modules_to_save"] = rng.choice([["lm_head"], ["embed_tokens", "lm_head"]])
    if lora.get("modules_to_save") == ["lm_head"]: keys["tie_word_embeddings"] = False
    return dict(family=family, keys=keys, lora=lora, stored=rng.choice(["float32", "float16", "bfloat16"]), old=rng.random() < 0.5, longest=longest)


def old_generation(config):
    """config.json as transformers 4 wrote it."""
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else {"type": kind, **rope}
    config["torch_dtype"] = config.pop("dtype")
    if "layer_types" in config and not config.get("use_sliding_window"): del config["layer_types"]
    return config


def build(case, work):
    config = getattr(transformers, case["family"] + "Config")(**copy.deepcopy(case["keys"]))
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    stored = getattr(torch, case["stored"])
    with torch.no_grad():
        for key, p in model.named_parameters():
            if key.endswith("bias"): p.normal_(0, 0.1)
            if "norm" in key: p.add_(0.2 * torch.randn_like(p))
            p.copy_(p.to(stored).float())
    os.makedirs(work + "/model")
    state = {k: v.to(stored).contiguous().clone() for k, v in model.state_dict().items() if not (config.tie_word_embeddings and k == "lm_head.weight")}
    save_file(state, work + "/model/model.safetensors", {"format": "pt"})
    config.dtype = case["stored"]
    config.save_pretrained(work + "/model")
    if case["old"]:
        path = work + "/model/config.json"
        doc = old_generation(json.load(open(path)))
        json.dump(doc, open(path, "w"))
    # Read back, so that the oracle sees the file tenon sees.
    model = transformers.AutoModelForCausalLM.from_pretrained(work + "/model", dtype=torch.float32, attn_implementation="eager").eval()
    return model


def records(rng, vocab, longest):
    out = []
    for n in [longest] + [rng.randint(3, longest) for _ in range(5)]:
        ids = [rng.randrange(3, vocab) for _ in range(n)]
        labels = ids[:] if rng.random() < 0.5 else [i if rng.random() < 0.6 else -100 for i in ids]
        labels[-1] = ids[-1]
        out.append({"input_ids": ids, "labels": labels})
    return out


def logits(model, ids):
    with torch.no_grad(): model(input_ids=torch.tensor([ids[:1]]), use_cache=False)  # dynamic rope forgets the longest length seen
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def tenon(exe, verb, **keys):
    words = [exe, verb, "--json", *(w for k, v in keys.items() for w in ("--" + k, str(v)))]
    r = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if r.returncode: raise RuntimeError(f"{' '.join(words)}\nexit {r.returncode}: {r.stderr[-500:]}")
    return json.loads(r.stdout)


def evaluated(exe, data, work, **more):
    """tenon's log-probabilities of all positions of all records."""
    tenon(exe, "eval", model=work + "/model", dataset=work + "/all.jsonl", device="cpu", dtype="float32", per_token=work + "/p.jsonl", **more)
    out = []
    for record, r in zip(map(json.loads, open(work + "/p.jsonl")), data, strict=True):
        got = record["logprobs"]
        assert record["ids"] == r["input_ids"] and got[0] is None and None not in got[1:], "a position without a log-probability"
        out.append(torch.tensor(got[1:], dtype=torch.float64))
    return out


def train(model, data):
    params = [p for p in model.parameters() if p.requires_grad]
    full = [p for k, p in model.named_parameters() if p.requires_grad and "modules_to_save" in k]
    optimizer = torch.optim.AdamW([{"params": [p for p in params if not any(p is f for f in full)], "lr": LR}] + ([{"params": full, "lr": LR / 10}] if full else []), weight_decay=0.01, eps=EPSILON)
    out = []
    for s in range(STEPS):
        batch = data[2 * s: 2 * s + 2]
        count = sum(sum(l >= 0 for l in r["labels"][1:]) for r in batch)
        optimizer.zero_grad()
        total = 0.0
        for r in batch:
            loss = torch.nn.functional.cross_entropy(logits(model, r["input_ids"])[:-1], torch.tensor(r["labels"][1:]), ignore_index=-100, reduction="sum") / count
            loss.backward()
            total += loss.item()
        out.append((total, torch.nn.utils.clip_grad_norm_(params, 1.0).item()))
        optimizer.step()
    return out


def norm64(self, x): return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


def in_float64(model):
    """The oracle in float64: the norms and the softmax too, which are fp32 in the classes; the rope's angles stay the fp32 ones, which are part of the model."""
    model = copy.deepcopy(model).double()
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"): module.forward = norm64.__get__(module)
    return model


softmax32 = torch.nn.functional.softmax
torch.nn.functional.softmax = lambda x, dim=None, _stacklevel=3, dtype=None: softmax32(x, dim=dim, dtype=None if x.dtype == torch.float64 else dtype)


def logprobs(model, data):
    with torch.no_grad(): return [logits(model, r["input_ids"]).log_softmax(-1)[:-1].gather(1, torch.tensor(r["input_ids"][1:])[:, None])[:, 0].double() for r in data]


def farthest(states, truth):
    """Largest distances of (log-probabilities of base, of adapter, steps) from the truth: log-probability of either, loss, norm."""
    worst = lambda a, b: max((x - y).abs().max().item() for x, y in zip(a, b))
    steps = list(zip(states[2], truth[2]))
    return [worst(states[0], truth[0]), worst(states[1], truth[1]), max(abs(x[0] - y[0]) for x, y in steps), max(abs(x[1] - y[1]) / y[1] for x, y in steps)]


def check(exe, seed, show):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    case = random_case(rng)
    if show: print(json.dumps(case))
    with tempfile.TemporaryDirectory() as work:
        model = build(case, work)
        data = records(rng, case["keys"]["vocab_size"], case["longest"])
        for name, drop in (("train", False), ("all", True)):
            with open(f"{work}/{name}.jsonl", "w") as f:
                for r in data: f.write(json.dumps({"input_ids": r["input_ids"]} if drop else r) + "\n")
        ours, theirs, exact = [evaluated(exe, data, work)], [logprobs(model, data)], [logprobs(in_float64(model), data)]
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **case["lora"])).eval()
        with torch.no_grad():
            for key, p in model.named_parameters():
                if "lora_" in key: p.normal_(0, 0.15)
                elif p.requires_grad: p.add_(0.05 * torch.randn_like(p)); p.copy_(p.to(getattr(torch, case["stored"])).float())
        model.save_pretrained(work + "/adapter")
        ours.append(evaluated(exe, data, work, adapter=work + "/adapter")), theirs.append(logprobs(model, data)), exact.append(logprobs(in_float64(model), data))
        counted = tenon(exe, "plan", model=work + "/model", adapter=work + "/adapter", dataset=work + "/train.jsonl", device="cpu", max_length=case["longest"])["params"]["trainable"]
        tenon(exe, "train", model=work + "/model", adapter=work + "/adapter", dataset=work + "/train.jsonl", output_dir=work + "/run", device="cpu", dtype="float32", learning_rate=LR,
              embedding_learning_rate=LR / 10, weight_decay=0.01, adam_epsilon=EPSILON, lr_scheduler_type="constant", max_steps=STEPS, packing="false", shuffle="false", warmup_ratio=0, per_device_train_batch_size=1,
              gradient_accumulation_steps=2, max_length=case["longest"])
        log = [l for l in map(json.loads, open(work + "/run/train_log.jsonl")) if "loss" in l]
        ours.append([(l["loss"], l["grad_norm"]) for l in log]), exact.append(train(in_float64(model), data)), theirs.append(train(model, data))
    same = counted == model.get_nb_trainable_parameters()[0]
    base, adapter, loss, norm = apart = farthest(ours, theirs)
    held, why = all(x <= bound for x, bound in zip(apart, BOUNDS)), ""
    if not held:  # whose rounding is it?
        own, oracle = farthest(ours, exact), farthest(theirs, exact)
        held = all(x <= max(bound, FARTHER * y) for x, y, bound in zip(own, oracle, BOUNDS))
        why = " (from float64: tenon {:.1e} {:.1e} {:.1e} {:.1e}, the oracle {:.1e} {:.1e} {:.1e} {:.1e})".format(*own, *oracle)
    held = held and same and len(log) == STEPS
    k = case["keys"]
    print(f"{'ok' if held else 'FAILED'}: seed {seed} {case['family']} {k['rope_parameters']['rope_type']}{' (old)' if case['old'] else ''} {case['stored']}: base {base:.1e} adapter {adapter:.1e} "
          f"loss {loss:.1e} norm {norm:.1e}{why}{'' if same else ' COUNTS DIFFER'}", flush=True)
    return held


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("tenon"), parser.add_argument("--seed", type=int, default=1), parser.add_argument("--count", type=int, default=30), parser.add_argument("--show", action="store_true")
    a = parser.parse_args()
    print("torch", torch.__version__, "transformers", transformers.__version__)
    torch.set_num_threads(1)
    failed = 0
    for seed in range(a.seed, a.seed + a.count):
        try:
            failed += not check(a.tenon, seed, a.show)
        except Exception as e:
            failed += 1
            print(f"FAILED: seed {seed}: {type(e).__name__}: {str(e)[-700:]}", flush=True)
    print(f"{a.count - failed} passed, {failed} failed")
    sys.exit(failed != 0)
