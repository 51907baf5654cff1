"""The plan's device bytes against what the driver reports, over 22 configurations of `tenon bench` on a machine with an NVIDIA GPU
that nothing else uses. usage: device_memory.py PROGRAM... (the command that runs tenon), e.g. `device_memory.py sh build-device/run tenon`

nvidia-smi is read every 20 ms while a configuration runs; its peak less its reading before is what the process held. The plan keeps its
promise where it is not below that and at most 5 % or 256 MiB above. Exit status 1 where it is not kept. Speed, loss and norm stand beside."""
import json, os, subprocess, sys, threading

SHAPES = [  # shape, rows, length, policy, more
    ("smollm2-135m", 8, 512, "none", []), ("smollm2-135m", 4, 2048, "full", []),
    ("qwen2.5-0.5b", 1, 1024, "none", []), ("qwen2.5-0.5b", 4, 2048, "none", []), ("qwen2.5-0.5b", 1, 8192, "full", []),
    ("qwen2.5-0.5b", 8, 512, "selective", ["--lora_dropout", "0.1"]),
    ("llama-3.2-1b", 4, 2048, "none", []), ("llama-3.2-1b", 4, 2048, "selective", []), ("llama-3.2-1b", 4, 2048, "full", []),
    ("llama-3.2-1b", 1, 8192, "none", []), ("llama-3.2-1b", 2, 512, "none", ["--dtype", "float32"]),
    ("llama-3.2-1b", 2, 1024, "none", ["--dtype", "float16"]), ("llama-3.2-1b", 1, 512, "none", ["--target_modules", "attention"]),
    ("llama-3.2-1b", 1, 1024, "none", ["--modules_to_save", "embed_tokens"]),
    ("qwen2.5-7b", 4, 2048, "none", []), ("qwen2.5-7b", 1, 4096, "full", []),
    ("llama-3.1-8b", 4, 2048, "none", []), ("llama-3.1-8b", 4, 2048, "full", []), ("llama-3.1-8b", 1, 8192, "none", []),
    ("llama-3.1-8b", 1, 2048, "selective", ["--lora_r", "64"]),
    ("llama-3.2-1b", 1, 32768, "offload", []), ("llama-3.1-8b", 4, 2048, "offload", []),
]


def used():
    return int(subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"], capture_output=True, text=True).stdout.split()[0])


def watch(process, peak):
    for line in process.stdout: peak[0] = max(peak[0], int(line.split()[0]))


def run(program, shape, rows, length, policy, more):
    before, peak = used(), [0]
    poll = subprocess.Popen(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-lms", "20"], stdout=subprocess.PIPE, text=True)
    thread = threading.Thread(target=watch, args=(poll, peak)); thread.start()
    command = program + ["bench", "--device", "cuda", "--model", shape, "--per_device_train_batch_size", str(rows), "--max_length", str(length),
                         "--gradient_checkpointing", policy, "--steps", "5", "--warmup", "2", "--json"] + more
    result = subprocess.run(command, capture_output=True, text=True)
    poll.terminate(); thread.join()
    name = f"{shape} {rows}x{length} {policy} {' '.join(more)}".strip()
    if result.returncode: print(f"{name:60s} FAILED {result.stderr.strip()[-300:]}"); return False
    d = json.loads(result.stdout)
    held, plan = peak[0] - before, d["memory"]["device"] / 2**20
    over = plan - held
    good = over >= 0 and over <= max(256, 0.05 * held)
    segments = {s["name"]: round(s["bytes"] / 2**20) for s in d["memory"]["segments"]}
    last = d["steps"][-1]
    print(f"{name:60s} plan {plan:8.0f} driver {held:6d} over {over:+7.0f} MiB  {'kept' if good else 'BROKEN'}  context {segments['context']} "
          f"{d['tokens_per_second']:8.0f} tok/s {d['percent_of_ceiling']:.0f}% loss {last['loss']:.4f} norm {last['grad_norm']:.4f}", flush=True)
    return good


if __name__ == "__main__":
    kept = [run(sys.argv[1:], *s) for s in SHAPES]
    print(f"{sum(kept)} of {len(kept)} kept")
    sys.exit(not all(kept))
