#!/usr/bin/env python3
"""Writes GGUF files of real and made tokenizers with the `gguf` package, as llama.cpp's converter does, and compares
how tenon reads them with the tokenizer they were made of.

    gguf_tokenizers.py LINES TENON DATA [--count N] [--seed S] [--only NAME] [--transformers]

LINES is the program made of tokenizer_lines.c, TENON the program, DATA the unpacked ../shared/data. Texts: the golden
ones and random Unicode. Made tokenizers are GPT-2's vocabulary with the expression of every `pre` that tenon knows,
and SentencePiece's kind with and without a space in front. --transformers says too how often Transformers' reading of
the GGUF differs from the original (it knows no `pre`, so it does; no failure). Exit status 1 where tenon differs.
"""
import argparse, json, os, random, re, subprocess, sys, tempfile

import fuzz_tokenizers as fuzz
import gguf
from tokenizers import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def tekken(suffix, digits):
    return rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{suffix}|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{suffix}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


SEED = SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
# pre: (expression, single digits first, NFC, ignore_merges)
PRES = {"llama-bpe": (LLAMA3, 0, 0, 1), "llama3": (LLAMA3, 0, 0, 1), "falcon3": (LLAMA3, 0, 0, 1), "pixtral": (LLAMA3, 0, 0, 1), "dbrx": (LLAMA3, 0, 0, 0), "smaug-bpe": (LLAMA3, 0, 0, 0),
        "qwen2": (LLAMA3.replace("{1,3}", ""), 0, 1, 0), "deepseek-r1-qwen": (LLAMA3.replace("{1,3}", ""), 0, 1, 0), "gpt-2": (GPT2, 0, 0, 0), "smollm": (GPT2, 1, 0, 0), "starcoder": (GPT2, 1, 0, 0),
        "refact": (GPT2, 1, 0, 0), "command-r": (GPT2, 1, 0, 0), "tekken": (tekken("", r"\p{N}"), 0, 0, 1), "gpt-4o": (tekken(SHORT + "?", r"\p{N}{1,3}"), 0, 0, 1),
        "llama4": (tekken(SHORT + "?", r"\p{N}{1,3}"), 0, 0, 1), "seed-coder": (SEED, 0, 0, 0)}
REAL = {"gpt2": "gpt-2", "llama3_2": "llama-bpe", "mistral_nemo": "tekken", "qwen2_5": "qwen2", "qwen3": "qwen2", "gemma3": None}


def looks_special(content):
    return content == "<pad>" or re.fullmatch(r"<\|.*\|>|<unused\d+>", content, re.S)


def tokens_and_types(doc, rows, sentencepiece):
    """Lists by id, filled up to `rows`."""
    tokens, types = {i: t for t, i in doc["model"]["vocab"].items()}, {}
    for t in doc["added_tokens"]:
        special = t["special"] or looks_special(t["content"])
        types[t["id"]] = CONTROL if special else USER_DEFINED
        tokens[t["id"]] = t["content"] if special or not sentencepiece else t["content"].replace("▁", " ")
    for i, t in list(tokens.items()):
        if sentencepiece and re.fullmatch(r"<0x[0-9A-F]{2}>", t):
            types[i] = BYTE
        if sentencepiece and t == doc["model"].get("unk_token"):
            types[i] = UNKNOWN
    rows = max(rows, max(tokens) + 1)
    return [tokens.get(i, f"[PAD{i}]") for i in range(rows)], [types.get(i, NORMAL) if i in tokens else UNUSED for i in range(rows)]


def scores(doc, tokens):
    """SentencePiece's: the earlier a token is merged, the higher. Characters that no merge makes come last."""
    rank = {}
    for i, m in enumerate(doc["model"]["merges"]):
        rank.setdefault("".join(m if isinstance(m, list) else m.split(" ")), i)
    order = {t: i for i, t in enumerate(sorted(rank, key=rank.get))}
    return [-float(order.get(t, len(order) + 1)) for t in tokens]


def write(path, doc, pre, bos=None, rows=0, space=None, arch="llama"):
    sentencepiece = pre is None
    w = gguf.GGUFWriter(path, arch)
    tokens, types = tokens_and_types(doc, rows, sentencepiece)
    w.add_tokenizer_model("llama" if sentencepiece else "gpt2")
    w.add_tokenizer_pre("default" if sentencepiece else pre)
    w.add_token_list([t.encode() for t in tokens])
    w.add_token_types(types)
    if sentencepiece:
        w.add_token_scores(scores(doc, tokens))
        w.add_add_space_prefix(space)
    else:
        w.add_token_merges([m if isinstance(m, str) else " ".join(p.replace(" ", "Ġ") for p in m) for m in doc["model"]["merges"]])
    w.add_add_bos_token(bos is not None)
    if bos is not None:
        w.add_bos_token_id(bos)
    w.add_eos_token_id(0)
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()


def made(rng, data):
    """(name, tokenizer.json, pre, space): the tokenizers that are not files."""
    base = json.load(open(os.path.join(data, "tokenizers/gpt2/tokenizer.json")))
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    for pre, (expression, digits, nfc, ignore) in PRES.items():
        steps = [{"type": "Digits", "individual_digits": True}] * digits + [{"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}, level]
        yield "pre " + pre, base | {"normalizer": {"type": "NFC"} if nfc else None, "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}, "post_processor": None,
                                    "model": base["model"] | {"ignore_merges": bool(ignore)}}, pre, None
    for name, t, _ in fuzz.synthetic():
        if name in ("llama2", "gemma"):
            doc = json.loads(t.to_str())
            for token in doc["added_tokens"]:  # the converter keeps byte tokens as bytes
                token["special"] = True
            doc |= {"added_tokens": [t for t in doc["added_tokens"] if not t["content"].startswith("<0x")], "post_processor": None}
            yield name, doc, None, name == "llama2"


def golden_texts(data, name):
    path = os.path.join(data, "golden", f"tokenize_{name}.jsonl")
    return [json.loads(line)["text"] for line in open(path)] if os.path.exists(path) else []


def program_agrees(tenon, path, hf, texts):
    lines = "".join(json.dumps({"text": t}) + "\n" for t in texts)
    run = subprocess.run([tenon, "tokenize", "--model", path, "--add_special_tokens", "false"], input=lines.encode(), capture_output=True)
    if run.returncode:
        print(run.stderr.decode())
        return False
    return [json.loads(line)["ids"] for line in run.stdout.split(b"\n") if line] == [hf.encode(t, add_special_tokens=False).ids for t in texts]


def count_transformers(folder, file, hf, texts):
    import transformers
    try:
        reading = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=file)
        return sum(reading(t, add_special_tokens=False)["input_ids"] != hf.encode(t, add_special_tokens=False).ids for t in texts)
    except Exception as e:
        return f"{type(e).__name__} {str(e)[:80]}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("lines"), parser.add_argument("tenon"), parser.add_argument("data")
    parser.add_argument("--count", type=int, default=1500), parser.add_argument("--seed", type=int, default=1), parser.add_argument("--only", default="")
    parser.add_argument("--transformers", action="store_true")
    a = parser.parse_args()
    rng, bad = random.Random(a.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        def check(name, doc, pre, space, texts, bos=None, rows=0, arch="llama"):
            nonlocal bad
            path = os.path.join(folder, "model.gguf")
            # a GGUF says nothing of special tokens beyond what its converter took for control tokens
            hf = Tokenizer.from_str(json.dumps(doc | {"truncation": None, "padding": None, "added_tokens": [t | {"special": bool(t["special"] or looks_special(t["content"]))} for t in doc["added_tokens"]]}))
            write(path, doc, pre, bos, rows, space, arch)
            bad += fuzz.compare(name, a.lines, path, texts, False, hf)
            if not program_agrees(a.tenon, path, hf, [t for t in texts if isinstance(t, str)][:200]):
                print(f"{name}: the program's ids differ")
                bad += 1
            if a.transformers:
                print(f"{name}: Transformers' reading differs in {count_transformers(folder, 'model.gguf', hf, [t for t in texts if isinstance(t, str)][:500])} of 500")
        for name, pre in REAL.items():
            if a.only not in name:
                continue
            doc = json.load(open(os.path.join(a.data, "tokenizers", name, "tokenizer.json")))
            bos = {"llama3_2": 128000, "mistral_nemo": 1, "gemma3": 2}.get(name)
            texts = golden_texts(a.data, name) + [""] + [fuzz.random_text(rng) for _ in range(a.count)]
            texts += fuzz.random_ids(rng, len(doc["model"]["vocab"]) if name == "gemma3" else max([*doc["model"]["vocab"].values()] + [t["id"] for t in doc["added_tokens"]]) + 1)
            check(name, doc, pre, False, texts, bos, 151936 if name.startswith("qwen") else 0, {"qwen2_5": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3", "gpt2": "gpt2"}.get(name, "llama"))
        for name, doc, pre, space in made(rng, a.data):
            if a.only in name:
                check(name, doc, pre, space, [""] + [fuzz.random_text(rng) for _ in range(a.count // 2)] + golden_texts(a.data, "gpt2")[:300])
    print("all equal" if bad == 0 else f"{bad} differ")
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
