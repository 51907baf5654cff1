"""tenon against Transformers + PEFT on one GPU: a model of Llama-3.2-1B's shape with random weights from `tenon init`, one adapter (r 16 on all
seven projections, B random and B zero), the same four records of 1024 tokens. Compared: every adapter gradient of the first step (relative L2 over all,
and the worst tensor), and the losses of 20 AdamW steps. usage: gpu_parity.py FOLDER (of tests/op/device.sh, built WITH_TENON=1)

Gradients in fp32 must agree within 2e-2; in bf16, where either rounds on its own, tenon's may not lie further from the fp32 ones than
2e-2 or than PEFT's own bf16 gradients do."""
import json, os, subprocess, sys, tempfile

import torch, transformers, peft
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

RUN = ["sh", os.path.join(sys.argv[1], "run")]
ROWS, LENGTH, STEPS, LR = 4, 1024, 20, 1e-3
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
work = tempfile.mkdtemp()
model_path, adapter_path = work + "/model", work + "/adapter"
tenon = lambda *words: subprocess.run([*RUN, *words], check=True, stdout=subprocess.PIPE, text=True).stdout
tenon("tenon", "init", "--model", "llama-3.2-1b", "--output_dir", model_path, "--dtype", "bfloat16", "--json")


def build(dtype):
    base = transformers.AutoModelForCausalLM.from_pretrained(model_path, dtype=dtype).cuda()
    torch.manual_seed(0)
    model = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules=ALL, task_type="CAUSAL_LM"))
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, p in sorted(model.named_parameters()):
            if "lora_" in key: p.copy_((0.02 if "lora_A" in key else 0.01) * torch.randn(p.shape, generator=g))
    return model.train()


def loss_of(model, ids):
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1))


def gradients(model, ids):
    loss_of(model, ids).backward()
    found = {k.replace(".default", ""): p.grad.float().cpu() for k, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def distance(got, want):
    error = sum((got[k] - want[k]).double().pow(2).sum() for k in want); size = sum(want[k].double().pow(2).sum() for k in want)
    assert all(got[k].abs().max() == 0 for k in want if want[k].norm() == 0)  # dA where B is zero
    worst = max((((got[k] - want[k]).norm() / want[k].norm()).item(), k) for k in want if want[k].norm() > 0)
    return (error / size).sqrt().item(), worst


def save(model, b_scale):
    """The adapter in files, its B multiplied by b_scale (0: as fine-tuning begins)."""
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "lora_B" in key: p.mul_(b_scale)
    model.save_pretrained(adapter_path)
    config = json.load(open(adapter_path + "/adapter_config.json")); config["base_model_name_or_path"] = None
    json.dump(config, open(adapter_path + "/adapter_config.json", "w"))


def ours(dtype):
    tenon("adapter_gradients", model_path, adapter_path, work + "/train.jsonl", "cuda", dtype, work + "/gradients.safetensors")
    return load_file(work + "/gradients.safetensors")


def report(what, got, want):
    total, worst = distance(got, want)
    print(f"first step's gradients, {what}: relative L2 {total:.2e}, worst tensor {worst[0]:.2e} ({worst[1]})", flush=True)
    return total


def curve(model):
    tenon("tenon", "train", "--device", "cuda", "--dtype", "bfloat16", "--adapter", adapter_path, "--model", model_path, "--dataset", work + "/train.jsonl",
          "--output_dir", work + "/run", "--packing", "false", "--shuffle", "false", "--max_length", str(LENGTH), "--per_device_train_batch_size", str(ROWS),
          "--gradient_accumulation_steps", "1", "--max_steps", str(STEPS), "--learning_rate", str(LR), "--lr_scheduler_type", "constant",
          "--warmup_steps", "0", "--json")
    got = [l["loss"] for l in map(json.loads, open(work + "/run/train_log.jsonl")) if "grad_norm" in l]
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer, want = torch.optim.AdamW(params, lr=LR, weight_decay=0), []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, ids); loss.backward(); want.append(loss.item())
        torch.nn.utils.clip_grad_norm_(params, 1.0); optimizer.step()
    worst = max(abs(a - b) for a, b in zip(got, want))
    print(f"{len(got)} steps bf16: tenon {got[0]:.4f} to {got[-1]:.4f}, PEFT {want[0]:.4f} to {want[-1]:.4f}, worst difference {worst:.2e}", flush=True)
    return worst


ids = torch.randint(1000, 3000, (ROWS, LENGTH), generator=torch.Generator().manual_seed(2)).cuda()
with open(work + "/train.jsonl", "w") as f:
    for row in ids.tolist(): f.write(json.dumps({"input_ids": row}) + "\n")
print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}")
torch.backends.cuda.matmul.allow_tf32 = False
good = True
for b_scale, name in ((1, "B random"), (0, "B zero")):
    exact = build(torch.float32); save(exact, b_scale)
    truth = gradients(exact, ids); del exact; torch.cuda.empty_cache()
    good &= report(f"{name}, tenon fp32 against PEFT fp32", ours("float32"), truth) <= 2e-2
    model = build(torch.bfloat16); save(model, b_scale)
    half, peers = ours("bfloat16"), gradients(model, ids)
    report(f"{name}, tenon bf16 against PEFT bf16", half, peers)
    mine, theirs = report(f"{name}, tenon bf16 against PEFT fp32", half, truth), report(f"{name}, PEFT bf16 against PEFT fp32", peers, truth)
    good &= mine <= max(2e-2, theirs)
    if b_scale == 1: good &= curve(model) <= 1e-2
    del model; torch.cuda.empty_cache()
sys.exit(not good)
