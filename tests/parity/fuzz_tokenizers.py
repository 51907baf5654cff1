#!/usr/bin/env python3
"""Compares our tokenizer with Hugging Face's `tokenizers` on random Unicode strings. Not part of the suite.

    fuzz_tokenizers.py LINES DATA [--count N] [--seed S] [--only NAME]

LINES is the program made of tokenizer_lines.c, DATA the unpacked ../shared/data. Runs the real tokenizers of
DATA/tokenizers and small ones made here, which between them use every normalizer, pre-tokenizer, decoder,
model, post-processor and flag of an added token. Prints every difference; exit status 1 where there is one.
"""
import argparse, itertools, json, os, random, subprocess, sys, tempfile, unicodedata

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = ["The quick brown fox jumps over the lazy dog. It's 1234567 o'clock, don't you think?",
          "Größe, café, naïve — ﬁne ligatures; Ελληνικά, русский текст, 日本語テキスト, 한국어, ไทย, हिन्दी",
          "def f(x):\n    return x + 1\t# comment\n\n\n", "<tag attr='v'>text</tag> a_b-c --- ... !!! ??", "aaaa bbbb abab baba " * 3]
WORDS = ["the", "The", "don't", "I'LL", "it's", "ſ", "'ſ", "3.14", "1234567", "½", "²", "٣", "hello", "world", "café", "cafe\u0301",
         "ﬁ", "Å", "Å", "한국어", "\u1112\u1161\u11ab", "각", "日本語", "テキスト", "が", "か\u3099", "İ", "ß", "ẞ", "Σ", "ς", "ǅ", "ʰ",
         "👩\u200d👩\u200d👧", "🇩🇪", "👍🏽", "é", "e\u0301\u0323", "\u0344", "\u0958", "ﷺ", "①", "Ⅷ", "ⓐ", "_", "▁", "▁▁", "Ġ", "Ċ",
         "##", "<unk>", "<s>", "</s>", "<mask>", "[SEP]", "tok", "TOK", "<0x41>", "<0xE2>", "<|im_start|>", "<|im_end|>", "<|im_",
         "<bos>", "<start_of_turn>", "<think>", "<|begin_of_text|>", "[INST]", "<|endoftext|>", "n't", "</w>", "|", "def", "\x00", "\x01"]
SPACES = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\u0085", "\u200b", "\u180e", "\ufeff", "\x0b", "\x1c", ""]
PUNCTUATION = list(".,;:!?'\"()[]{}<>/\\|@#$%^&*-_=+~`") + ["—", "…", "。", "，", "«", "»", "¿", "·", "€", "±", "'s", "'S", "'re", "..."]
RANGES = [(0, 0x7F), (0x80, 0x24F), (0x250, 0x36F), (0x370, 0x5FF), (0x600, 0x10FF), (0x1100, 0x1FFF), (0x2000, 0x2BFF),
          (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xF8FF), (0xF900, 0xFFFD), (0x10000, 0x1FFFF), (0x20000, 0x2FFFF)]


def random_char(rng, low, high):
    """A character whose classes every Unicode version since 14 agrees on (marks: since 3.2; the libraries' tables differ in age)."""
    for _ in range(50):
        c = chr(rng.randint(low, high))
        category = unicodedata.category(c)
        if category != "Cn" and not (category[0] == "M" and unicodedata.ucd_3_2_0.category(c) == "Cn"):
            return c
    return "x"


def random_text(rng):
    kind, parts = rng.random(), []
    for _ in range(rng.choice([1, 2, 3, 5, 8, 13, 30])):
        r = rng.random()
        if r < 0.45:
            parts.append(rng.choice(WORDS))
        elif r < 0.7:
            parts.append(rng.choice(SPACES))
        elif r < 0.85:
            parts.append(rng.choice(PUNCTUATION))
        elif kind < 0.5:
            parts.append("".join(rng.choice("abcdefghijABC '0129") for _ in range(rng.randint(1, 9))))
        else:
            low, high = rng.choice(RANGES)
            parts.append("".join(random_char(rng, low, high) for _ in range(rng.randint(1, 4))))
        if rng.random() < 0.3:
            parts.append(" ")
    return "".join(parts)


def answers(program, path, texts):
    lines = "".join(json.dumps(t, ensure_ascii=False) + "\n" for t in texts)
    run = subprocess.run([program, path], input=lines.encode("utf-8", "surrogatepass"), capture_output=True)
    if run.returncode != 0:
        return None, run.stderr.decode()
    return [json.loads(line) for line in run.stdout.split(b"\n") if line], ""


def expected(hf, text):
    if isinstance(text, list):
        return {"text": hf.decode(text, skip_special_tokens=False), "plain": hf.decode(text, skip_special_tokens=True)}, []
    plain = hf.encode(text, add_special_tokens=False)
    return {"ids": plain.ids, "special": hf.encode(text).ids, "text": hf.decode(plain.ids, skip_special_tokens=False),
            "plain": hf.decode(plain.ids, skip_special_tokens=True)}, plain.offsets


def byte_spans(text, offsets):
    at = [0]
    for c in text:
        at.append(at[-1] + len(c.encode()))
    return [at[o] for pair in offsets for o in pair]


def opened(path):
    try:
        hf = Tokenizer.from_file(path)
    except BaseException:  # pyo3 panics are not Exceptions
        return None
    hf.no_truncation(), hf.no_padding()
    return hf


def fails(hf, texts):
    """Does their library fail on every one of the texts?"""
    for text in texts:
        try:
            expected(hf, text)
            return False
        except BaseException:
            continue
    return True


def compare(name, program, path, texts, spans, hf=None):
    """`hf` is the tokenizer to compare with where that is not the file itself."""
    hf = hf or opened(path)
    ours, reason = answers(program, path, texts)
    if ours is None:
        print(f"{name}: we refuse it: {reason.strip()[:300]}" + ("; so do they" if hf is None or fails(hf, texts[:20]) else ""))
        return not (hf is None or fails(hf, texts[:20]))
    if hf is None:
        print(f"{name}: they refuse it, we do not")
        return 0
    bad = failed = 0
    for text, got in zip(texts, ours):
        try:
            want, offsets = expected(hf, text)
        except BaseException as e:
            if "error" not in got and (failed := failed + 1) == 1:
                print(f"{name}: theirs fails ({str(e)[:80]}) on {text!r}")
            continue
        wrong = [k for k in want if got.get(k) != want[k]]
        if not got.get("streamed"):
            wrong.append("streamed")
        if spans and not wrong and isinstance(text, str) and text.isascii() and got["spans"] != byte_spans(text, offsets):
            wrong.append("spans")
            want["spans"] = byte_spans(text, offsets)
        if wrong:
            bad += 1
            if bad <= 3:
                for k in wrong:
                    print(f"{name}: {k} of {text!r}\n  want {want.get(k)}\n  got  {got.get(k, got.get('error'))}")
    print(f"{name}: {len(texts)} texts, {bad} differ", flush=True)
    return bad


def random_ids(rng, size):
    """Ids to decode, a few of them unknown."""
    pick = lambda: rng.randrange(size) if rng.random() < 0.95 else rng.choice([size + rng.randrange(50), 1 << 24])
    start = rng.randrange(size)
    return [[pick() if rng.random() < 0.5 else min(size - 1, start + rng.randrange(40)) for _ in range(rng.randint(0, 25))] for _ in range(60)]


def trained(model, trainer, pre=None, normalizer=None):
    t = Tokenizer(model)
    if pre is not None:
        t.pre_tokenizer = pre
    if normalizer is not None:
        t.normalizer = normalizer
    t.train_from_iterator(CORPUS * 3, trainer)
    return t


def bpe(pre, normalizer=None, vocab=400, alphabet=(), **kw):
    special = kw.pop("special", [])
    t = trained(models.BPE(**{k: v for k, v in kw.items() if k != "ignore_merges"}),
                trainers.BpeTrainer(vocab_size=vocab, special_tokens=special, initial_alphabet=list(alphabet), show_progress=False,
                                    **{k: kw[k] for k in ("continuing_subword_prefix", "end_of_word_suffix") if k in kw}), pre, normalizer)
    if kw.get("ignore_merges"):
        t.model.ignore_merges = True
    return t


BYTES = pre_tokenizers.ByteLevel.alphabet()
FALLBACK = [f"<0x{b:02X}>" for b in range(256)]


def synthetic():
    """Yields (name, tokenizer, are its spans ours too)."""
    N, P, D, S = normalizers, pre_tokenizers, decoders, normalizers.Sequence
    level = P.ByteLevel(add_prefix_space=False)

    def byte_level(normalizer=None, pre=level, **kw):
        t = bpe(level, None, alphabet=BYTES, **kw)
        t.pre_tokenizer, t.decoder = pre, D.ByteLevel()
        if normalizer is not None:
            t.normalizer = normalizer
        return t

    normals = {"nfc": N.NFC(), "nfd": N.NFD(), "nfkc": N.NFKC(), "nfkd": N.NFKD(), "lower": N.Lowercase(), "strip": N.Strip(),
               "lstrip": N.Strip(True, False), "rstrip": N.Strip(False, True), "accents": S([N.NFD(), N.StripAccents()]),
               "accents_alone": N.StripAccents(), "replace": N.Replace("a", "bb"), "replace_regex": N.Replace(Regex(r"\s+|\d"), "_"),
               "replace_gone": N.Replace(Regex(r"[aeiou]"), ""), "prepend": N.Prepend("▁x"), "bytelevel": N.ByteLevel(),
               "bert": N.BertNormalizer(), "bert_cased": N.BertNormalizer(lowercase=False, strip_accents=True),
               "bert_plain": N.BertNormalizer(clean_text=False, handle_chinese_chars=False, lowercase=True, strip_accents=False),
               "sequence": S([N.NFKC(), N.Lowercase(), N.Replace(" ", "▁"), N.Prepend("▁")])}
    for name, normalizer in normals.items():
        yield "normalizer " + name, byte_level(normalizer), False
    splits = {f"split {b} {inv}": P.Split(Regex(r"\d+|\s|'"), b, inv) for inv in (False, True)
              for b in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous")}
    pres = {**splits, "split string": P.Split("an", "merged_with_next"), "digits": P.Digits(), "digits individual": P.Digits(True),
            "split words": P.Split(Regex(r"\w+"), "isolated"), "split nonwords": P.Split(Regex(r"\W"), "merged_with_previous"),
            "split sets": P.Split(Regex(r" ?[^(\s|[.,!?…。，、।۔،])]+"), "isolated"), "split lines": P.Split(Regex(r"^.|$"), "isolated"),
            "split hex": P.Split(Regex(r"\h+"), "isolated"), "split empty": P.Split(Regex(r"x*"), "isolated"),
            "split case": P.Split(Regex(r"(?i:'s|k|é|ss)"), "isolated"), "split posix": P.Split(Regex(r"[[:alpha:]]+|[[:punct:]]"), "isolated"),
            "split cl100k": P.Split(Regex(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"), "isolated"),
            "split o200k": P.Split(Regex(r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"), "isolated"),
            "whitespace": P.Whitespace(), "whitespace split": P.WhitespaceSplit(), "punctuation": P.Punctuation(),
            "punctuation contiguous": P.Punctuation("contiguous"), "bert": P.BertPreTokenizer(), "delimiter": P.CharDelimiterSplit("-"),
            "scripts": P.UnicodeScripts(), "metaspace inside": P.Metaspace(), "metaspace first": P.Metaspace(prepend_scheme="first"),
            "metaspace whole": P.Metaspace(prepend_scheme="never", split=False)}
    for name, pre in pres.items():
        yield "pre " + name, byte_level(pre=P.Sequence([pre, P.ByteLevel(add_prefix_space=False, use_regex=False)])), "metaspace" not in name
    yield "pre bytelevel prefix", byte_level(pre=P.ByteLevel(add_prefix_space=True)), False
    yield "pre bytelevel twice", byte_level(pre=P.Sequence([level, level])), False
    yield "pre bytelevel first", byte_level(pre=P.Sequence([P.ByteLevel(add_prefix_space=False, use_regex=False), P.Digits(True)])), False
    yield "pre smollm", byte_level(pre=P.Sequence([P.Digits(True), level])), True
    yield "ignore_merges", byte_level(ignore_merges=True), True

    def metaspace_bpe(scheme="always", split=True, **kw):
        special = kw.pop("special", ["<unk>", "<s>", "</s>"])
        t = bpe(P.Metaspace(prepend_scheme="always"), special=special, **kw)
        t.pre_tokenizer, t.decoder = P.Metaspace(prepend_scheme=scheme, split=split), D.Metaspace(prepend_scheme=scheme)
        return t
    for scheme in ("always", "first", "never"):
        for split in (True, False):
            yield f"metaspace {scheme} {split}", metaspace_bpe(scheme, split, unk_token="<unk>"), False
    yield "unk", metaspace_bpe(unk_token="<unk>", fuse_unk=False), False
    yield "fuse_unk", metaspace_bpe(unk_token="<unk>", fuse_unk=True), False
    yield "no unk", metaspace_bpe(), False
    yield "byte_fallback", metaspace_bpe(unk_token="<unk>", byte_fallback=True, special=["<unk>"] + FALLBACK, vocab=900), False
    yield "byte_fallback partial", metaspace_bpe(unk_token="<unk>", fuse_unk=True, byte_fallback=True, special=["<unk>"] + FALLBACK[128:], vocab=900), False
    yield "byte_fallback unfused", metaspace_bpe(unk_token="<unk>", byte_fallback=True, special=["<unk>"] + FALLBACK[:250], vocab=900), False
    t = bpe(P.WhitespaceSplit(), unk_token="[UNK]", continuing_subword_prefix="##", special=["[UNK]"])
    t.decoder = D.WordPiece()
    yield "bpe prefix", t, True
    t = bpe(P.WhitespaceSplit(), unk_token="[UNK]", end_of_word_suffix="</w>", special=["[UNK]"])
    t.decoder = D.BPEDecoder()
    yield "bpe suffix", t, True
    t = bpe(P.WhitespaceSplit(), N.Lowercase(), continuing_subword_prefix="@", end_of_word_suffix="</w>", byte_fallback=True, special=FALLBACK, vocab=900)
    yield "bpe both, no decoder", t, False

    def spm(prefix):
        t = bpe(P.Metaspace(), unk_token="<unk>", fuse_unk=True, byte_fallback=True, special=["<unk>", "<s>", "</s>"] + FALLBACK, vocab=900)
        doc = json.loads(t.to_str())
        doc["pre_tokenizer"] = None
        t = Tokenizer.from_str(json.dumps(doc))
        steps, back = ([N.Prepend("▁")] if prefix else []) + [N.Replace(" ", "▁")], [D.Replace("▁", " "), D.ByteFallback(), D.Fuse()]
        t.normalizer, t.decoder = S(steps), D.Sequence(back + ([D.Strip(" ", 1, 0)] if prefix else []))
        t.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
        return t
    yield "llama2", spm(True), False
    yield "gemma", spm(False), False
    back = [D.Replace("▁", " "), D.ByteFallback(), D.Fuse()]
    for name, chain in {"strip both": back + [D.Strip(" ", 1, 1)], "strip tokens": [D.Strip("e", 1, 0)], "replace fused": [D.Fuse(), D.Replace("th", "TH")],
                        "replace regex": [D.Replace(Regex(r"[a-e]+"), "#")], "fallback bytelevel": [D.ByteFallback(), D.ByteLevel()],
                        "fuse metaspace": [D.Fuse(), D.Metaspace()], "ctc": [D.CTC("a", "e", True)], "ctc raw": [D.CTC("a", "e", False)],
                        "wordpiece": [D.WordPiece("▁", True)], "bytelevel strip": [D.ByteLevel(), D.Strip(" ", 2, 0)], "fuse": [D.Fuse(), D.Fuse()]}.items():
        t = spm(True)
        t.decoder = D.Sequence(chain)
        yield "decoder " + name, t, False

    t = trained(models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", "[CLS]", "[SEP]", "[MASK]"],
                show_progress=False), P.BertPreTokenizer(), N.BertNormalizer())
    t.decoder, t.post_processor = D.WordPiece(), processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    yield "wordpiece", t, False
    t = trained(models.WordLevel(unk_token="[UNK]"), trainers.WordLevelTrainer(special_tokens=["[UNK]", "<s>", "</s>"], show_progress=False), P.Whitespace())
    t.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 1))
    yield "wordlevel", t, False
    t = trained(models.Unigram(), trainers.UnigramTrainer(vocab_size=250, unk_token="<unk>", special_tokens=["<unk>", "<s>"], show_progress=False), P.Metaspace())
    t.decoder = D.Metaspace()
    yield "unigram", t, False
    doc = json.loads(t.to_str())
    doc["model"]["byte_fallback"] = True
    doc["model"]["vocab"] += [[b, 0.0] for b in FALLBACK]
    yield "unigram bytes", Tokenizer.from_str(json.dumps(doc)), False

    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    for bits in range(32):
        on = {f: bool(bits >> i & 1) for i, f in enumerate(flags)}
        t = byte_level(N.Sequence([N.NFC(), N.Lowercase()]) if bits & 1 == 0 else None)
        t.add_tokens([AddedToken(c, **on) for c in ("tok", "<mask>", "<|im_start|>", "<|im_", "the", " ", "café", "日本")])
        t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False),
                                                processors.TemplateProcessing(single="tok $0 the", special_tokens=[("tok", t.token_to_id("tok")), ("the", t.token_to_id("the"))])])
        yield "added " + " ".join(f for f in flags if on[f]), t, False
    for bits in range(8):
        on = {f: bool(bits >> i & 1) for i, f in enumerate(flags[:3])}
        t = spm(True)
        t.add_tokens([AddedToken(c, normalized=True, **on) for c in ("tok", "the", "a b", "<mask>")])
        t.add_special_tokens([AddedToken(c, **on) for c in ("[SEP]", "▁▁", "\n")])
        yield "added llama2 " + " ".join(f for f in flags if on.get(f)), t, False


# What Oniguruma reads in its own way, and what real files use.
PATTERNS = [r"\w+|\W", r"[\w'-]+", r"[^\w]", r"[\W\d]+", r"\b", r"\B\w", r"[^\S\n]+", r"\H+", r"[\H]", r"[[:alnum:]]+", r"[[:punct:]]", r"[^[:space:]]+",
            r"[[:^alpha:]]+", r"[[:upper:]][[:lower:]]*", r"\p{Alpha}+", r"\p{Punct}", r"\P{Alnum}+", r"[\P{Word}x]", r"\p{^L}+", r"\P{^N}", r"\p{Letter}+\p{Mark}*",
            r"\p{Uppercase_Letter}", r"\p{other number}", r"\p{Han}+", r"[\p{Han}\p{Hiragana}ー]+", r"\p{Arabic}+|\p{Cyrillic}+", r"\p{Common}+", r"\pL", r"[\p{Nd}&&[^3]]+",
            r"[a-z&&[^aeiou]]+", r"[^a-z&&[^b]]+", r"[\p{L}&&[^\p{Han}]]+", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+", r"[^\r\n\p{L}\p{N}]?[\p{L}&&\p{Latin}]+", r"[[a-c]x[^a-z]]",
            r"[[^\w]&&[^ ]]+", r"\p{N}{1,3}+", r"\p{N}{1,3}", r"o{2}?", r"(?:ab){1,2}+", r"[a-c]{2,}+", r"l{,2}", r"(?m).+", r".+", r"^.|.$", r"\v|\f", r"\Qx\E", r"[]a]+", r"[^]a]+",
            r"[\u4e00-\u9fa5]+", r"\x{65e5}|\x41+", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}++", r"(?<q>['\"]).*?\k<q>", r"(?>a+)b", r"(?<=[a-z])(?=[A-Z])", r"(?<!\d)\d{3}(?!\d)", r"[+--]",
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
            r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            r"[一-龥぀-ゟ゠-ヿ]+", r"(?=(\d{3})+(?!\d))", r"(\p{L}|\p{M})+", r"\s?\p{L}+|\s?\p{P}+", r"[^\p{L}\s]+|[\p{L}]+\s?", r"[^(\s|[.,!?…。，、।۔،])]+"]
PARTS = [r"\w", r"\d", r"\s", r"\S", r"\p{L}", r"\p{N}", r"\p{P}", r"\p{Lu}", r"\p{M}", r"\p{Han}", r"\p{Alpha}", "a", "e", "'", " ", ".", r"\.", "[a-f]", r"[^\s\w]", r"[\p{L}&&[^a-m]]", "[0-9x]",
         r"[\W\s]", "[[:digit:]]", r"[^\r\n\p{L}\p{N}]", r"\h", "日", "é", r"\n", "(?:ab|a)", "(?i:the|s)", r"(?=\w)", r"(?!\d)", r"(?<=\s)", r"\b", "^", "$"]


def random_pattern(rng):
    """Some alternatives of some parts, most of them repeated."""
    repeats = ["", "", "?", "*", "+", "{1,2}", "{2}", "{1,3}+", "?+", "*?", "++"]
    def one():
        part = rng.choice(PARTS)
        return part + ("" if part in ("^", "$", r"\b") or part.startswith("(?=") or part.startswith("(?!") or part.startswith("(?<") else rng.choice(repeats))
    return "|".join("".join(one() for _ in range(rng.randint(1, 4))) for _ in range(rng.randint(1, 4)))


def expressions(rng, count):
    """Byte-level tokenizers with PATTERNS and `count` random expressions in a Split; (name, tokenizer, spans)."""
    base = bpe(pre_tokenizers.ByteLevel(add_prefix_space=False), None, alphabet=BYTES)
    base.decoder = decoders.ByteLevel()
    for pattern in PATTERNS + [random_pattern(rng) for _ in range(count)]:
        try:
            split = pre_tokenizers.Split(Regex(pattern), rng.choice(["isolated", "removed", "merged_with_previous", "merged_with_next"]))
        except Exception:
            continue
        base.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        yield "expression " + pattern, base, True


def configurations(rng):
    """What make_text_golden.py holds, with other texts."""
    import make_text_golden
    for i, tokenizer in enumerate(make_text_golden.configurations()):
        yield f"configuration {i}", Tokenizer.from_str(json.dumps(tokenizer)), False
    kinds = [c["post_processor"] for c in make_text_golden.configurations() if c["post_processor"]]
    base = [c for c in make_text_golden.configurations() if c["post_processor"]][0]
    for i in range(20):
        chain = base | {"post_processor": {"type": "Sequence", "processors": rng.choices(kinds, k=2)}}
        yield f"configuration chain {i}", Tokenizer.from_str(json.dumps(chain)), False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("lines"), parser.add_argument("data")
    parser.add_argument("--count", type=int, default=2000), parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=""), parser.add_argument("--expressions", type=int, default=100)
    parser.add_argument("--compositions", type=int, default=300), parser.add_argument("--keep", help="a folder for the compositions that differ")
    a = parser.parse_args()
    os.environ.setdefault("RUST_BACKTRACE", "0")
    rng, bad = random.Random(a.seed), 0
    print(f"tokenizers {tokenizers.__version__}")
    for name in sorted(os.listdir(os.path.join(a.data, "tokenizers"))):
        path = os.path.join(a.data, "tokenizers", name, "tokenizer.json")
        if a.only in name and name != "qwen2_5_vl":
            texts = [random_text(rng) for _ in range(a.count)]
            bad += compare(name, a.lines, path, texts + random_ids(rng, opened(path).get_vocab_size()), name in ("gpt2", "llama3_2", "qwen3"))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "tokenizer.json")
        for name, t, spans in itertools.chain(synthetic(), expressions(rng, a.expressions), configurations(rng)):
            if a.only in name:
                t.save(path)
                texts = [""] + [random_text(rng) for _ in range(a.count // 4)]
                bad += compare(name, a.lines, path, texts + random_ids(rng, t.get_vocab_size()), spans)
        import random_tokenizers
        for name, tokenizer in random_tokenizers.compositions(rng, a.compositions):
            texts = [""] + [random_text(rng) for _ in range(a.count // 20)] + random_ids(rng, random_tokenizers.size_of(tokenizer["model"]) + len(tokenizer["added_tokens"]))
            if a.only in name:
                with open(path, "w") as out:
                    json.dump(tokenizer, out)
                different = compare(name, a.lines, path, texts, False)
                bad += different
                if different and a.keep:
                    os.makedirs(a.keep, exist_ok=True)
                    with open(os.path.join(a.keep, f"{a.seed}-{name.split()[-1]}.json"), "w") as out:
                        json.dump(tokenizer, out)
    print("all equal" if bad == 0 else f"{bad} texts differ")
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
