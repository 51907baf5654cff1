"""cpu_vs_peft.py: what bench/cpu_vs_peft runs. Every measurement is a process of its own, so that peak memory and
first steps are its own; `--peer` makes this file that process for the peer. Rounds go through all contenders in turn,
because a shared machine changes its speed by the minute."""
import json
import os
import platform
import subprocess
import sys
import time

LENGTH = 512
SHAPE = dict(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
             num_key_value_heads=3, max_position_embeddings=8192, rope_theta=100000.0, rms_norm_eps=1e-5,
             tie_word_embeddings=True)
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def median(values):
    values = sorted(values)
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2


def peer(kind, threads, batch, steps):
    """Times steps of Transformers + PEFT and prints one JSON line."""
    begun = time.monotonic()
    import torch
    import peft
    import transformers

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    dtype = getattr(torch, kind.removesuffix("-compiled"))
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE)).to(dtype)
    model = peft.get_peft_model(model, peft.LoraConfig(r=16, lora_alpha=32, target_modules=TARGETS,
                                                       task_type="CAUSAL_LM"))
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4)
    forward = torch.compile(model) if kind.endswith("-compiled") else model
    results, first = [], 0.0
    for step in range(steps + 1):
        ids = torch.randint(0, SHAPE["vocab_size"], (batch, LENGTH))
        start = time.monotonic()
        loss = forward(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        results.append((time.monotonic() - start, loss.item(), norm.item()))
        if step == 0:
            first = time.monotonic() - begun
    seconds = median([r[0] for r in results[1:]])
    print(json.dumps(dict(tokens_per_second=batch * LENGTH / seconds, loss=results[-1][1], grad_norm=results[-1][2],
                          first_step_seconds=first, ceiling=None,
                          versions=f"torch {torch.__version__}, transformers {transformers.__version__}, "
                                   f"peft {peft.__version__}")))


def run(command):
    """Its last line of output as JSON, and its peak memory in GiB (the kernel's own number for this one child)."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    output, errors = child.stdout.read(), child.stderr.read()
    _, code, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(code)
    if child.returncode != 0:
        print(f"  failed with {child.returncode}: {errors.strip()[-400:]}", flush=True)
        return None
    return json.loads(output.strip().splitlines()[-1]), usage.ru_maxrss / 2**20


def measure_tenon(tenon, dtype, threads, batch, steps):
    answer = run([tenon, "bench", "--model", "smollm2-135m", "--device", "cpu", "--dtype", dtype, "--threads",
                  str(threads), "--max_length", str(LENGTH), "--per_device_train_batch_size", str(batch), "--steps",
                  str(steps), "--warmup", "1", "--json"])
    if not answer:
        return None
    document, memory = answer
    last = document["steps"][-1]
    return dict(tokens_per_second=document["tokens_per_second"], loss=last["loss"], grad_norm=last["grad_norm"],
                first_step_seconds=document["first_step_seconds"], ceiling=document["percent_of_ceiling"],
                memory=memory)


def measure_peer(kind, threads, batch, steps):
    answer = run([sys.executable, os.path.abspath(__file__), "--peer", kind, str(threads), str(batch), str(steps)])
    return answer and dict(answer[0], memory=answer[1])


def show(name, r):
    ceiling = f"{r['ceiling']:5.0f} % of ceiling" if r["ceiling"] else ""
    print(f"  {name:26s} {r['tokens_per_second']:8.1f} tok/s  loss {r['loss']:.4f}  grad_norm {r['grad_norm']:.4f}  "
          f"peak {r['memory']:.2f} GiB  first step {r['first_step_seconds']:.1f} s {ceiling}", flush=True)


def best(results, side):
    """The fastest kind of a side by the median over its rounds."""
    kinds = {name: median([r["tokens_per_second"] for r in rounds])
             for (which, name), rounds in results.items() if which == side}
    name = max(kinds, key=kinds.get)
    return name, kinds[name], max(r["memory"] for r in results[side, name])


def compare(tenon, threads, batch, steps, rounds, peers, ours):
    print(f"{platform.machine()}, {threads} threads, {batch}x{LENGTH} tokens, {steps} steps a process, {rounds} rounds")
    results = {}
    for turn in range(rounds):
        print(f"round {turn + 1}  (load {os.getloadavg()[0]:.1f})")
        contenders = [("peft", k, lambda k=k: measure_peer(k, threads, batch, steps)) for k in peers]
        contenders[1:1] = [("tenon", k, lambda k=k: measure_tenon(tenon, k, threads, batch, steps)) for k in ours]
        for side, kind, measured in contenders:
            result = measured()
            if result:
                if "versions" in result and turn == 0 and not any(s == "peft" for s, _ in results):
                    print("  " + result["versions"])
                show(f"{side} {kind}", result)
                results.setdefault((side, kind), []).append(result)
    if not {"peft", "tenon"} <= {side for side, _ in results}:
        sys.exit("cpu_vs_peft: one side has no result")
    theirs, mine = best(results, "peft"), best(results, "tenon")
    print(f"best: tenon {mine[0]} {mine[1]:.1f} tok/s, {mine[2]:.2f} GiB; peft {theirs[0]} {theirs[1]:.1f} tok/s, "
          f"{theirs[2]:.2f} GiB")
    print(f"speed {mine[1] / theirs[1]:.2f}x, memory {mine[2] / theirs[2]:.2f}x")


if sys.argv[1] == "--peer":
    peer(sys.argv[2], *map(int, sys.argv[3:6]))
else:
    compare(sys.argv[1], *map(int, sys.argv[2:6]), sys.argv[6].split(), sys.argv[7].split())
