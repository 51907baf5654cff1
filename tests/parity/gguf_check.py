"""GGUF files that tenon writes, read by the `gguf` package, on small random models of every family with an adapter: metadata keys and tensor names as the
package's own tables have them, values against PEFT's merged weights with llama.cpp's order of q and k rows, bytes of f32, f16, bf16, q8_0 and q4_0 against
the package's encoders, q4_k and q6_k decoded by it within their error; the adapter alone; and, with the unpacked ../shared/data, real tokenizers whose ids
have to be those of their tokenizer.json.
usage: gguf_check.py TENON [DATA]      (gguf 0.19, torch 2.15, transformers 5.23, peft 0.21.2)"""
import json, os, shutil, subprocess, sys, tempfile, warnings

import gguf, numpy as np, torch, transformers
from peft import LoraConfig, get_peft_model

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error(); transformers.logging.disable_progress_bar()
HERE, TENON, DATA = os.path.dirname(os.path.abspath(__file__)), sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
SMALL = dict(vocab_size=96, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
             initializer_range=0.05, bos_token_id=0, eos_token_id=1, pad_token_id=None)
rope = lambda kind, **more: {"rope_parameters": {"rope_type": kind, "rope_theta": 20000.0, **more}}
MODELS = {  # name: (config class, its keys, general.architecture)
    "llama": ("LlamaConfig", rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32), "llama"),
    "llama biases, linear": ("LlamaConfig", dict(attention_bias=True, mlp_bias=True, **rope("linear", factor=2.0)), "llama"),
    "mistral": ("MistralConfig", dict(sliding_window=None, head_dim=32, **rope("default")), "llama"),
    "qwen2 tied": ("Qwen2Config", dict(tie_word_embeddings=True, **rope("default")), "qwen2"),
    "qwen2 yarn": ("Qwen2Config", rope("yarn", factor=4.0, original_max_position_embeddings=32), "qwen2"),
    "qwen3": ("Qwen3Config", dict(head_dim=128, **rope("default")), "qwen3"),
    "granite": ("GraniteConfig", dict(embedding_multiplier=3, residual_multiplier=0.4, logits_scaling=2, attention_multiplier=0.2, **rope("default")), "granite"),
    "smollm3": ("SmolLM3Config", dict(no_rope_layer_interval=4, tie_word_embeddings=True, **rope("default")), "smollm3"),
}
LORA = dict(r=8, lora_alpha=16, task_type="CAUSAL_LM", target_modules="all-linear", rank_pattern={"v_proj": 4}, alpha_pattern={"o_proj": 3})
TYPES = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7, "q4_0": 2, "q4_k": 14, "q6_k": 18}
WORST = {"q4_k": 0.08, "q6_k": 0.025}  # relative L2 of what comes back, of normally distributed weights
FALLBACK = {"q4_k": "q5_0", "q6_k": "q8_0"}  # of rows that are no whole blocks
failures = 0


def expect(name, held, what):
    global failures
    if held: return
    failures += 1
    print(f"FAILED: {name}: {what}", flush=True)


def tenon(*words):
    r = subprocess.run([TENON, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if r.returncode: raise SystemExit(f"{' '.join(words)}\nexit {r.returncode}: {r.stderr[-600:]}")
    return r


def permute(w, heads):  # convert_hf_to_gguf.py, LlamaModel.permute
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def in_order(hf, w, config, arch):
    if arch not in ("llama", "granite", "smollm3"): return w
    if ".q_proj." in hf: return permute(w, config.num_attention_heads)
    return permute(w, config.num_key_value_heads) if ".k_proj." in hf else w


def tokenizer_into(folder):
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    added = [{"id": i, "content": c, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True} for i, c in enumerate(("<s>", "</s>"))]
    doc = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None, "pre_tokenizer": level, "post_processor": None, "decoder": level,
           "model": {"type": "BPE", "vocab": {"<s>": 0, "</s>": 1, "a": 2, "b": 3, "ab": 4}, "merges": [["a", "b"]]}}
    json.dump(doc, open(folder + "/tokenizer.json", "w"))
    json.dump({"bos_token": "<s>", "eos_token": "</s>", "chat_template": "{{ messages }}"}, open(folder + "/tokenizer_config.json", "w"))


def close(a, b): return abs(a - b) <= 1e-6 * max(1, abs(b))


def check_keys(name, reader, config, arch, to):
    key = lambda k: reader.fields[k].contents() if k in reader.fields else None
    n = {"context_length": "max_position_embeddings", "embedding_length": "hidden_size", "block_count": "num_hidden_layers", "feed_forward_length": "intermediate_size",
         "attention.head_count": "num_attention_heads", "attention.head_count_kv": "num_key_value_heads", "attention.layer_norm_rms_epsilon": "rms_norm_eps", "vocab_size": "vocab_size"}
    for k, hf in n.items(): expect(name, close(key(f"{arch}.{k}"), getattr(config, hf)), f"{arch}.{k} is {key(f'{arch}.{k}')}")
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    for k in ("attention.key_length", "attention.value_length", "rope.dimension_count"): expect(name, key(f"{arch}.{k}") == head_dim, k)
    expect(name, key("general.architecture") == arch and key("general.type") == "model" and key("general.file_type") == TYPES[to], "general keys")
    expect(name, close(key(f"{arch}.rope.freq_base"), 20000.0), "rope.freq_base")
    r = config.rope_parameters
    scaling = r["rope_type"] if r["rope_type"] in ("linear", "yarn") else None
    expect(name, key(f"{arch}.rope.scaling.type") == scaling, "rope.scaling.type")
    if scaling: expect(name, key(f"{arch}.rope.scaling.factor") == r["factor"], "rope.scaling.factor")
    if scaling == "yarn": expect(name, key(f"{arch}.rope.scaling.original_context_length") == 32, "original_context_length")
    if arch == "granite":
        for k, v in {"embedding_scale": 3, "residual_scale": 0.4, "logit_scale": 2, "attention.scale": 0.2}.items(): expect(name, close(key(f"granite.{k}"), v), k)
    expect(name, key("tokenizer.ggml.model") == "gpt2" and key("tokenizer.ggml.pre") == "gpt-2", "tokenizer kind")
    tokens, types = key("tokenizer.ggml.tokens"), key("tokenizer.ggml.token_type")
    expect(name, tokens == ["<s>", "</s>", "a", "b", "ab"] + [f"[PAD{i}]" for i in range(5, 96)] and types == [3, 3, 1, 1, 1] + [5] * 91, "tokens")
    expect(name, key("tokenizer.ggml.merges") == ["a b"] and key("tokenizer.ggml.bos_token_id") == 0 and key("tokenizer.ggml.eos_token_id") == 1, "merges, ids")
    expect(name, key("tokenizer.ggml.add_bos_token") is False and key("tokenizer.chat_template") == "{{ messages }}", "bos, template")


def check_tensors(name, reader, state, config, arch, to):
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch.upper()], config.num_hidden_layers)
    wanted = {names.get_name(k, try_suffixes=(".weight", ".bias")): (k, v) for k, v in state.items()}
    if config.tie_word_embeddings: wanted.pop("output.weight", None)
    got = {t.name: t for t in reader.tensors}
    if config.rope_parameters["rope_type"] == "llama3":
        t = got.pop("rope_freqs.weight")
        inv, _ = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        plain = 1 / (20000.0 ** (torch.arange(0, 64, 2) / 64))
        expect(name, np.abs(t.data * inv.numpy() / plain.numpy() - 1).max() < 1e-5, "rope_freqs")
    expect(name, set(got) == set(wanted), f"names {set(got) ^ set(wanted)}")
    for n, (hf, w) in wanted.items():
        t, w = got[n], in_order(hf, w, config, arch)
        word = FALLBACK[to] if to in FALLBACK and w.shape[-1] % 256 else to
        kind = gguf.GGMLQuantizationType[word.upper()] if w.ndim == 2 else gguf.GGMLQuantizationType.F32
        expect(name, t.tensor_type == kind and list(t.shape) == list(w.shape[::-1]), f"{n} is {t.tensor_type} {t.shape}")
        if to in WORST and w.ndim == 2:
            back = gguf.quants.dequantize(t.data, kind)
            apart = np.linalg.norm(back - w) / np.linalg.norm(w)
            expect(name, apart < WORST[to], f"{n} {apart:.4f} away")
            worst[to] = max(worst.get(to, 0), apart)
        elif kind == gguf.GGMLQuantizationType.F32: expect(name, np.abs(t.data - w).max() <= 1e-6, f"{n} differs")
        else:
            # Where the merged weights themselves differ in their last bit (the sum's order), a rounding may fall otherwise.
            want = gguf.quants.quantize(w, kind).view(np.uint8).reshape(-1)
            wrong = (t.data.view(np.uint8).reshape(-1) != want).mean()
            expect(name, wrong <= (0 if exact(hf) else 2e-3), f"{n}: {wrong:.2e} of the bytes differ")


def exact(hf): return not any(m in hf for m in ("_proj",))  # untouched by the adapter


def check_lora(name, path, model, config, arch):
    reader = gguf.GGUFReader(path)
    key = lambda k: reader.fields[k].contents()
    expect(name, (key("general.type"), key("adapter.type"), key("general.architecture"), key("adapter.lora.alpha")) == ("adapter", "lora", arch, 16.0), "adapter keys")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch.upper()], config.num_hidden_layers)
    got, count = {t.name: t.data for t in reader.tensors}, 0
    for hf, module in model.named_modules():
        if not hasattr(module, "lora_A"): continue
        path = hf.replace("base_model.model.", "")
        n = names.get_name(path + ".weight", try_suffixes=(".weight",))
        a, b = got[n + ".lora_a"], got[n + ".lora_b"]
        delta = 16.0 / b.shape[1] * b @ a
        want = in_order(path + ".", module.get_delta_weight("default").detach().numpy(), config, arch)
        expect(name, np.abs(delta - want).max() < 1e-6, f"{n}: delta {np.abs(delta - want).max():.1e} away")
        count += 2
    expect(name, count == len(got), f"{len(got)} tensors, {count} expected")


def check_model(name):
    cls, keys, arch = MODELS[name]
    work = tempfile.mkdtemp()
    torch.manual_seed(1)
    config = getattr(transformers, cls)(**{**SMALL, **keys})
    base = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    base.save_pretrained(work + "/base")
    tokenizer_into(work + "/base")
    model = get_peft_model(base, LoraConfig(**LORA))
    with torch.no_grad():
        for k, p in model.named_parameters():
            if "lora_" in k: p.normal_(0, 0.05)
    model.save_pretrained(work + "/adapter")
    tenon("export", "--model", work + "/base", "--adapter", work + "/adapter", "--to", "lora-gguf", "--output", work + "/lora.gguf")
    check_lora(name + ", lora-gguf", work + "/lora.gguf", model, config, arch)
    state = {k: v.numpy() for k, v in model.merge_and_unload().state_dict().items()}
    for to in TYPES:
        out = f"{work}/{to}.gguf"
        tenon("export", "--model", work + "/base", "--adapter", work + "/adapter", "--to", "gguf:" + to, "--output", out)
        reader = gguf.GGUFReader(out)
        check_keys(f"{name}, {to}", reader, config, arch, to)
        check_tensors(f"{name}, {to}", reader, state, config, arch, to)
    shutil.rmtree(work)
    print(f"{name}: done", flush=True)


def check_encoders():
    """Base weights alone: bytes must be the package's, to the last bit, on values of every size."""
    work = tempfile.mkdtemp()
    config = transformers.LlamaConfig(**SMALL, **rope("default"))
    base = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for k, p in base.named_parameters():
            if p.ndim == 2: p.copy_(torch.randn(p.shape, generator=g) * 10 ** (torch.rand(p.shape[0], p.shape[1] // 32, 1, generator=g).expand(-1, -1, 32).reshape(p.shape) * 8 - 6))
            if p.ndim == 2: p[3] = 0
    base.save_pretrained(work + "/base")
    tokenizer_into(work + "/base")
    state = {k: v.numpy() for k, v in base.state_dict().items()}
    for to in ("f32", "f16", "bf16", "q8_0", "q4_0"):
        tenon("export", "--model", work + "/base", "--to", "gguf:" + to, "--output", f"{work}/{to}.gguf")
        for t in gguf.GGUFReader(f"{work}/{to}.gguf").tensors:
            hf = {"token_embd.weight": "model.embed_tokens.weight", "output.weight": "lm_head.weight"}.get(t.name)
            if not hf and ".ffn_" in t.name and "norm" not in t.name: hf = t.name.replace("blk.", "model.layers.").replace("ffn_", "mlp.").replace(".weight", "_proj.weight")
            if not hf: continue
            want = gguf.quants.quantize(state[hf], gguf.GGMLQuantizationType[to.upper()])
            expect("encoders " + to, np.array_equal(t.data.view(np.uint8).reshape(-1), want.view(np.uint8).reshape(-1)), t.name)
    shutil.rmtree(work)
    print("encoders: done", flush=True)


def check_tokenizer(name):
    work, source = tempfile.mkdtemp(), f"{DATA}/tokenizers/{name}"
    doc = json.load(open(source + "/tokenizer.json"))
    rows = max([t["id"] for t in doc["added_tokens"]] + list(doc["model"]["vocab"].values())) + 3
    json.dump({"model_type": "llama", "vocab_size": rows, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "tie_word_embeddings": True}, open(work + "/c.json", "w"))
    tenon("init", "--model", work + "/c.json", "--output_dir", work + "/m", "--tokenizer", source, "--dtype", "bfloat16")
    r = tenon("export", "--model", work + "/m", "--to", "gguf", "--output", work + "/m.gguf")
    expect(name, "default" not in r.stderr, r.stderr)
    golden = f"{DATA}/golden/tokenize_{name}.jsonl"
    lines = [json.dumps({"text": json.loads(l)["text"]}) for l in open(golden)] if os.path.exists(golden) else []
    lines += [json.dumps({"text": t}) for t in ("Hello  world 12345!\n\n\tint x = 3;", "naïve café — 東京 🙂 it's I'LL", " leading", "", "a" * 300)]
    text = "\n".join(lines) + "\n"
    ids = lambda model: [json.loads(l)["ids"] for l in subprocess.run([TENON, "tokenize", "--model", model], input=text, stdout=subprocess.PIPE, text=True).stdout.split("\n") if l]
    want, got = ids(work + "/m"), ids(work + "/m.gguf")
    wrong = sum(a != b for a, b in zip(want, got))
    expect(name, len(want) == len(got) == len(lines) and wrong == 0, f"{wrong} of {len(lines)} texts get other ids")
    reader = gguf.GGUFReader(work + "/m.gguf")
    print(f"tokenizer {name}: {len(lines)} texts, pre {reader.fields['tokenizer.ggml.pre'].contents()}, chat template {'tokenizer.chat_template' in reader.fields}", flush=True)
    shutil.rmtree(work)


worst = {}
check_encoders()
for name in MODELS if "--tokenizers" not in sys.argv else (): check_model(name)
for name in ("gpt2", "llama3_2", "qwen2_5", "qwen3", "mistral_nemo", "gemma3") if DATA else (): check_tokenizer(name)
print("largest relative error:", {k: round(float(v), 4) for k, v in worst.items()})
print(f"{failures} failures")
sys.exit(1 if failures else 0)
