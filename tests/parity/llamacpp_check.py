"""GGUF files that tenon writes, loaded in llama.cpp itself: the log-probabilities of the next token on the tiny golden models with their adapters, merged
(f32, and with blocks less near) and as base + lora-gguf, beside tenon's own of base and adapter; with the unpacked ../shared/data, ids of real tokenizers.
(llama_longrope_short is not among them: llama.cpp chooses between the factors by the size of its context, tenon and Transformers by the text's.)
usage: llamacpp_check.py TENON [DATA]      (with a Python that has xllamacpp, llama.cpp as a wheel; made with 2026.10.11549)"""
import json, os, shutil, subprocess, sys, tempfile, unicodedata, urllib.request

import xllamacpp as llama

HERE, TENON, DATA = os.path.dirname(os.path.abspath(__file__)) + "/golden/", sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
MODELS = ["llama", "llama_bias_tied", "llama_embed_head", "llama_fp16", "llama_linear", "llama_longrope", "llama_partial", "granite", "mistral_window", "qwen2", "qwen2_yarn", "qwen3"]
BOUND = 1e-2  # llama.cpp computes parts in 16 bits
WINDOW = {"mistral_window": 8}  # within it nothing differs
failures = 0


def expect(name, held, what):
    global failures
    failures += not held
    print(f"{'ok' if held else 'FAILED'}: {name}: {what}", flush=True)


def tenon(*words):
    r = subprocess.run([TENON, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if r.returncode: raise SystemExit(f"{' '.join(words)}\nexit {r.returncode}: {r.stderr[-600:]}")
    return r.stdout


def serve(path, lora=None):
    p = llama.CommonParams()
    p.model.path, p.n_ctx, p.n_parallel, p.warmup, p.cpuparams.n_threads, p.verbosity = path, 512, 1, False, 1, -1
    p.cache_type_k = p.cache_type_v = llama.ggml_type.GGML_TYPE_F32
    p.use_jinja, p.chat_template = False, "chatml"  # its engine does not know every template
    if lora: p.lora_adapters = [llama.CommonAdapterLoraInfo(lora, 1.0)]
    return llama.Server(p)


def logprob(server, ids, token, vocab):
    r = server.handle_completions({"prompt": ids, "n_predict": 1, "n_probs": vocab, "temperature": 0.0, "cache_prompt": False})
    return next(t["logprob"] for t in r["choices"][0]["logprobs"]["content"][0]["top_logprobs"] if t["id"] == token)


def check(name):
    work, source = tempfile.mkdtemp(), HERE + name
    shutil.copytree(source + "/model", work + "/base")
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    json.dump({"pre_tokenizer": level, "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}, open(work + "/base/tokenizer.json", "w"))
    tenon("eval", "--model", source + "/model", "--adapter", source + "/adapter", "--dataset", source + "/train.jsonl", "--device", "cpu", "--dtype", "float32", "--per_token", work + "/p.jsonl")
    record = max(map(json.loads, open(work + "/p.jsonl")), key=lambda r: len(r["ids"]))
    ids, want = record["ids"], record["logprobs"]
    places = [i for i in range(1, len(ids)) if want[i] is not None and i <= WINDOW.get(name, len(ids))]
    adapter = ["--adapter", source + "/adapter"]
    for to, lora, bound in (("gguf:f32", False, BOUND), ("gguf:bf16", False, 0.2), ("gguf:f32", True, BOUND)):
        if lora and name == "llama_embed_head": continue
        out, extra = f"{work}/{to[5:]}{lora}.gguf", None
        tenon("export", "--model", work + "/base", "--to", to, "--output", out, *([] if lora else adapter))
        if lora:
            extra = work + "/lora.gguf"
            tenon("export", "--model", work + "/base", *adapter, "--to", "lora-gguf", "--output", extra)
        server = serve(out, extra)
        apart = max(abs(logprob(server, ids[:i], ids[i], 96) - want[i]) for i in places)
        del server
        expect(name, apart < bound, f"{to}{' + lora-gguf' if lora else ''}: {apart:.1e} over {len(places)} tokens")
    shutil.rmtree(work)


def check_tokenizer(name):
    work, source = tempfile.mkdtemp(), f"{DATA}/tokenizers/{name}"
    doc = json.load(open(source + "/tokenizer.json"))
    rows = max([t["id"] for t in doc["added_tokens"]] + list(doc["model"]["vocab"].values())) + 3
    json.dump({"model_type": "llama", "vocab_size": rows, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "tie_word_embeddings": True}, open(work + "/c.json", "w"))
    tenon("init", "--model", work + "/c.json", "--output_dir", work + "/m", "--tokenizer", source, "--dtype", "bfloat16")
    tenon("export", "--model", work + "/m", "--to", "gguf:q8_0", "--output", work + "/m.gguf")
    texts = [json.loads(l)["text"] for l in open(f"{DATA}/golden/tokenize_{name}.jsonl")]
    texts = [t for t in texts if unicodedata.normalize("NFC", t) == t]  # llama.cpp does not normalise, and its tekken expression knows no combining marks
    lines = "".join(json.dumps({"text": t}) + "\n" for t in texts)
    run = subprocess.run([TENON, "tokenize", "--model", work + "/m"], input=lines, stdout=subprocess.PIPE, text=True)
    want = [json.loads(l)["ids"] for l in run.stdout.split("\n") if l]
    server = serve(work + "/m.gguf")

    def tokenize(text):
        body = json.dumps({"content": text, "add_special": True, "parse_special": True}).encode()
        request = urllib.request.Request(server.listening_address + "/tokenize", body, {"Content-Type": "application/json"})
        return json.loads(urllib.request.urlopen(request).read())["tokens"]

    wrong = [t for t, ids in zip(texts, want) if tokenize(t) != ids]
    expect("tokenizer " + name, len(wrong) <= len(texts) // 15, f"{len(texts) - len(wrong)} of {len(texts)} texts get the same ids{': not ' + repr(wrong[0])[:60] if wrong else ''}")
    shutil.rmtree(work)


for name in MODELS if "--tokenizers" not in sys.argv else (): check(name)
for name in ("gpt2", "llama3_2", "qwen2_5", "qwen3", "mistral_nemo", "gemma3") if DATA else (): check_tokenizer(name)
print(f"{failures} failures")
sys.exit(1 if failures else 0)
