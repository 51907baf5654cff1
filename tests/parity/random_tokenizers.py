"""Tokenizers put together at random, for fuzz_tokenizers.py: any normalizers, pre-tokenizers, decoders and
post-processors behind one another around any model with any of its options, and added tokens that overlap, repeat
each other, hold spaces or exist in the vocabulary already.
"""
import json

import fuzz_tokenizers as fuzz
from tokenizers import normalizers as N, pre_tokenizers as P, models, trainers

CONTENTS = ["<a>", "<ab>", "<a", "a>", "tok", "TOK", "the", "The", " the", "the ", " ", "  ", "\n", "▁", "▁the", "é", "e\u0301", "ﬁ", "日本", "日", "İ", "##s", "</w>", "Ġ", "Ċ", "<s>", "</s>",
            "[SEP]", "<mask>", "<|im_start|>", "<|im_", "'s", "12", "x y", "\u3000", "<0x41>", "<unk>", "don't", "ß", "ͅ", "_", "a_b", "ſ"]
SPLITS = [r"\s+", r"\d{1,3}", r"'s|'t| ?\p{L}+| ?\p{N}+|\s+(?!\S)|\s+", r"\p{Lu}", r"[^\w\s]", "▁", r"\w+", r"(?i:'s|the)", r"(?<=\s)\S", r"x*", "^|$", r"\p{Han}", r"[aeiou]{2,}", r".", r"(?=t)", r"\b"]


def pattern(rng):
    return {"Regex": rng.choice(SPLITS)} if rng.random() < 0.6 else {"String": rng.choice([" ", "a", "th", "▁", "e", ".", "\n", "é", "--", "1"])}


def normalizer(rng, depth=0):
    kind = rng.choice(["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Replace", "Prepend", "Nmt", "BertNormalizer", "ByteLevel", "Sequence"])
    node = {"type": kind}
    flag = lambda: rng.random() < 0.5
    if kind == "Strip":
        node |= {"strip_left": flag(), "strip_right": flag()}
    elif kind == "Replace":
        node |= {"pattern": pattern(rng), "content": rng.choice(["", " ", "▁", "x", "ab", "é"])}
    elif kind == "Prepend":
        node |= {"prepend": rng.choice(["▁", " ", "x", "é"])}
    elif kind == "BertNormalizer":
        node |= {"clean_text": flag(), "handle_chinese_chars": flag(), "strip_accents": rng.choice([None, True, False]), "lowercase": flag()}
    elif kind == "ByteLevel" and rng.random() < 0.6:
        return normalizer(rng, depth)
    elif kind == "Sequence":
        node |= {"normalizers": [normalizer(rng, depth + 1) for _ in range(rng.randint(0, 3) if depth < 2 else 0)]}
    return node


BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]


def pre_tokenizer(rng, depth=0):
    kind = rng.choice(["ByteLevel", "Split", "Split", "Split", "Metaspace", "Digits", "Whitespace", "WhitespaceSplit", "Punctuation", "BertPreTokenizer", "UnicodeScripts", "CharDelimiterSplit", "Sequence", "Sequence"])
    node = {"type": kind}
    flag = lambda: rng.random() < 0.5
    if kind == "ByteLevel":
        node |= {"add_prefix_space": flag(), "trim_offsets": flag(), "use_regex": flag()}
    elif kind == "Split":
        node |= {"pattern": pattern(rng), "behavior": rng.choice(BEHAVIORS), "invert": flag()}
    elif kind == "Metaspace":
        scheme = rng.choice(["always", "first", "never"])
        node |= {"replacement": rng.choice("▁▁_"), "prepend_scheme": scheme, "split": flag()}
    elif kind == "Digits":
        node |= {"individual_digits": flag()}
    elif kind == "Punctuation":
        node |= {"behavior": rng.choice(BEHAVIORS)}
    elif kind == "CharDelimiterSplit":
        node |= {"delimiter": rng.choice(" -e▁日")}
    elif kind == "Sequence":
        node |= {"pretokenizers": [pre_tokenizer(rng, depth + 1) for _ in range(rng.randint(1, 3) if depth < 2 else 0)]}
    return node


def decoder(rng, depth=0):
    kind = rng.choice(["ByteLevel", "ByteFallback", "Fuse", "Replace", "Strip", "Metaspace", "WordPiece", "BPEDecoder", "CTC", "Sequence", "Sequence", "Sequence"])
    node = {"type": kind}
    if kind == "ByteLevel":
        node |= {"add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    elif kind == "Replace":
        node |= {"pattern": pattern(rng), "content": rng.choice(["", " ", "x", "ab"])}
    elif kind == "Strip":
        node |= {"content": rng.choice(" ae▁é"), "start": rng.randint(0, 2), "stop": 0}
    elif kind == "Metaspace":
        node |= {"replacement": "▁", "prepend_scheme": rng.choice(["always", "first", "never"]), "split": True}
    elif kind == "WordPiece":
        node |= {"prefix": rng.choice(["##", "▁", "e", ""]), "cleanup": rng.random() < 0.5}
    elif kind == "BPEDecoder":
        node |= {"suffix": rng.choice(["</w>", "e", "Ġ"])}
    elif kind == "CTC":
        node |= {"pad_token": rng.choice(["<pad>", "a", "▁"]), "word_delimiter_token": rng.choice("|e▁"), "cleanup": rng.random() < 0.5}
    elif kind == "Sequence":
        node |= {"decoders": [decoder(rng, depth + 1) for _ in range(rng.randint(0, 4) if depth < 2 else 0)]}
    return node


def post_processor(rng, names, depth=0):
    kind = rng.choice(["TemplateProcessing", "TemplateProcessing", "ByteLevel", "BertProcessing", "RobertaProcessing", "Sequence"])
    node = {"type": kind}
    if kind == "ByteLevel":
        node |= {"add_prefix_space": True, "trim_offsets": rng.random() < 0.5, "use_regex": True}
    elif kind in ("BertProcessing", "RobertaProcessing"):
        node |= {"sep": list(rng.choice(names)), "cls": list(rng.choice(names))}
        if kind[0] == "R":
            node |= {"trim_offsets": True, "add_prefix_space": False}
    elif kind == "Sequence":
        node |= {"processors": [post_processor(rng, names, depth + 1) for _ in range(rng.randint(1, 2) if depth < 2 else 0)]}
    else:
        token = lambda: {"SpecialToken": {"id": rng.choice(names)[0], "type_id": 0}}
        text = lambda name: {"Sequence": {"id": name, "type_id": 0}}
        single = [token() for _ in range(rng.randint(0, 2))] + [text("A")] + [token() for _ in range(rng.randint(0, 2))]
        node |= {"single": single, "pair": [text("A"), token(), text("B")], "special_tokens": {n: {"id": n, "ids": [i], "tokens": [n]} for n, i in names}}
    return node


def base_models():
    """Vocabularies of all kinds, as tokenizer.json."""
    quiet = {"show_progress": False}
    bases = [fuzz.bpe(P.ByteLevel(add_prefix_space=False), alphabet=fuzz.BYTES, vocab=420), fuzz.bpe(P.Metaspace(), unk_token="<unk>", special=["<unk>", "<s>"], vocab=400),
             fuzz.bpe(P.Metaspace(), unk_token="<unk>", special=["<unk>", "<s>"] + fuzz.FALLBACK, vocab=700),
             fuzz.bpe(P.Metaspace(), unk_token="<unk>", special=["<unk>"] + fuzz.FALLBACK[:200], vocab=700),
             fuzz.bpe(P.WhitespaceSplit(), unk_token="[UNK]", continuing_subword_prefix="##", special=["[UNK]"]),
             fuzz.bpe(P.WhitespaceSplit(), unk_token="[UNK]", end_of_word_suffix="</w>", special=["[UNK]"]),
             fuzz.bpe(P.WhitespaceSplit(), continuing_subword_prefix="é", end_of_word_suffix="▁", special=fuzz.FALLBACK, vocab=700),
             fuzz.trained(models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", "[CLS]"], **quiet), P.BertPreTokenizer(), N.BertNormalizer()),
             fuzz.trained(models.WordLevel(unk_token="[UNK]"), trainers.WordLevelTrainer(special_tokens=["[UNK]", "<s>"], **quiet), P.Whitespace()),
             fuzz.trained(models.Unigram(), trainers.UnigramTrainer(vocab_size=250, unk_token="<unk>", special_tokens=["<unk>", "<s>"], **quiet), P.Metaspace()),
             fuzz.trained(models.Unigram(), trainers.UnigramTrainer(vocab_size=520, unk_token="<unk>", special_tokens=["<unk>"] + fuzz.FALLBACK, **quiet), P.Metaspace())]
    return [json.loads(b.to_str()) for b in bases]


def vary_model(rng, model):
    model = dict(model)
    coin = lambda: rng.random() < 0.5
    if model["type"] == "BPE":
        model |= {"fuse_unk": coin(), "byte_fallback": coin(), "ignore_merges": coin(), "dropout": rng.choice([None, None, 0.0])}
        if rng.random() < 0.2:
            model["unk_token"] = None
        if coin() and all(" " not in part for m in model["merges"] for part in m):
            model["merges"] = [" ".join(m) for m in model["merges"]]
    elif model["type"] == "Unigram":
        model |= {"byte_fallback": coin()}
    elif model["type"] == "WordPiece":
        model |= {"max_input_chars_per_word": rng.choice([100, 5]), "continuing_subword_prefix": rng.choice(["##", "##", ""])}
    return model


def without_chance(tokenizer):
    """Leaves out the added tokens that the normalizer turns into nothing (they match everywhere in the library, also
    inside of a character, where it panics) or into another's text (which of them it finds is chance)."""
    probe = fuzz.Tokenizer.from_str(json.dumps(tokenizer | {"added_tokens": [], "post_processor": None}))
    shown = {t["content"]: probe.normalizer.normalize_str(t["content"]) for t in tokenizer["added_tokens"] if t["normalized"] and probe.normalizer}
    clear = [t for t in tokenizer["added_tokens"] if shown.get(t["content"], "x") and list(shown.values()).count(shown.get(t["content"])) < 2]
    return tokenizer | {"added_tokens": clear}


def size_of(model):
    return len(model["vocab"])


def compositions(rng, count):
    bases = base_models()
    for i in range(count):
        base = rng.choice(bases)
        model = vary_model(rng, base["model"])
        contents = rng.sample(CONTENTS, rng.randint(0, 6))
        known = dict(model["vocab"]) if isinstance(model["vocab"], dict) else {p: n for n, (p, _) in enumerate(model["vocab"])}
        tokens, following = [], size_of(model)
        for content in contents:
            number = known.get(content, following)
            following += content not in known
            flags = {f: rng.random() < 0.35 for f in ("single_word", "lstrip", "rstrip", "normalized", "special")}
            tokens.append({"id": number, "content": content} | flags)
        names = [(t["content"], t["id"]) for t in tokens] or [("x", 0)]
        maybe = lambda make, chance: make() if rng.random() < chance else None
        byte_level = base is bases[0]
        pre = maybe(lambda: pre_tokenizer(rng), 0.8)
        if byte_level and rng.random() < 0.7:
            level = {"type": "ByteLevel", "add_prefix_space": rng.random() < 0.3, "trim_offsets": True, "use_regex": rng.random() < 0.5}
            pre = {"type": "Sequence", "pretokenizers": ([pre] if pre else []) + [level]}
        tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens, "normalizer": maybe(lambda: normalizer(rng), 0.7), "pre_tokenizer": pre,
                     "post_processor": maybe(lambda: post_processor(rng, names), 0.6), "decoder": maybe(lambda: decoder(rng), 0.9), "model": model}
        yield f"composition {i}", without_chance(tokenizer)
