#!/usr/bin/env python3
"""Writes golden/text_parts.jsonl: small tokenizers with what Hugging Face's `tokenizers` makes of texts.

    make_text_golden.py OUT.jsonl

The first line is a tokenizer.json; each further one {"change": its members to replace, "texts": [{"text", "ids",
"special", "decoded", "plain"}]}: ids without and with special tokens, the former decoded with and without them. They hold what real files use and the
golden tokenizers do not: expressions that Oniguruma reads in its own way, the normalizers Nmt and Precompiled, characters younger than the library's
tables, odd lists of added tokens, post-processors behind one another, replacements in nothing.
"""
import itertools, json, random, struct, sys

import fuzz_tokenizers as fuzz
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers

YOUNG = "e\u0301\u0c3c\u0301 \u0899\u0320\u0301e\u07fd\u0323 \U000107ad\u32ff \u08d4\u1734\u1885\u1cf2 \u0c84\u166d\u2e4f \u05ef\uac00\u11a7 \u036e\u0f82\ua7f3 \U0002b81e"
REPLACED = {"ﬁ": "fi", "①": "1", "e\u0301": "é", "\u3000": " ", "é": "E", "Ⅷ": "VIII", "\u200b": "", "か\u3099": "が", "日本": "never: two graphemes", "ab": "never: two graphemes"}


def charsmap(replaced):
    """A table as SentencePiece compiles it: a double-array trie over UTF-8 and the replacements."""
    texts, offsets = b"", {}
    for key, value in replaced.items():
        offsets[key.encode()], texts = len(texts), texts + value.encode() + b"\0"
    units, taken = {0: 0}, {0}

    def place(at, keys):
        labels = sorted({k[0] if k else 0 for k in keys})
        base = next(b for b in range(1, 1 << 20) if all(b ^ l not in taken for l in labels))
        taken.update(base ^ l for l in labels)
        units[at] |= (at ^ base) << 10 | (0 in labels) << 8
        for l in labels:
            if l == 0:
                units[base] = 1 << 31 | keys[b""]
            else:
                units[base ^ l] = l
                place(base ^ l, {k[1:]: v for k, v in keys.items() if k and k[0] == l})
    place(0, offsets)
    count = (max(taken) | 255) + 1
    return struct.pack("<I", 4 * count) + b"".join(struct.pack("<I", units.get(i, 0)) for i in range(count)) + texts


def added(i, content, **flags):
    return dict(id=i, content=content, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True) | flags


def byte_level(expression=None, normalizer=None):
    t = fuzz.bpe(pre_tokenizers.ByteLevel(add_prefix_space=False), None, alphabet=fuzz.BYTES, vocab=300)
    t.decoder, level = decoders.ByteLevel(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if normalizer is not None:
        t.normalizer = normalizer
    split = [pre_tokenizers.Split(fuzz.Regex(expression), "removed")] if expression else []
    t.pre_tokenizer = pre_tokenizers.Sequence(split + [level])
    return json.loads(t.to_str())


def configurations():
    for pattern in fuzz.PATTERNS:
        yield byte_level(pattern)
    yield byte_level(normalizer=normalizers.Nmt())
    yield byte_level(normalizer=normalizers.Precompiled(charsmap(REPLACED)))
    base = byte_level()
    size = len(base["model"]["vocab"])
    lists = [[added(size + 5, "<a>"), added(size + 9, "<b>")], [added(size + 1, "<a>"), added(size, "<b>")], [added(size, "<a>"), added(size + 1, "<a>", special=False), added(size + 2, "<b>")],
             [added(size, "<a>"), added(size, "<b>")], [added(3, "<a>"), added(7, "b"), added(size + 2, "<a><b>")], [added(size, ""), added(size + 1, "<b>")]]
    yield from (base | {"added_tokens": a} for a in lists)
    merges = [m if isinstance(m, str) else " ".join(m) for m in base["model"]["merges"]]
    yield base | {"model": base["model"] | {"merges": ["#version: 0.2"] + merges}}
    yield base | {"model": base["model"] | {"merges": [m.split(" ") for m in merges]}}
    token, text = lambda name: {"SpecialToken": {"id": name, "type_id": 0}}, lambda name: {"Sequence": {"id": name, "type_id": 0}}
    template = lambda single, pair=None: {"type": "TemplateProcessing", "single": single, "pair": pair or [text("A"), text("B")], "special_tokens": {
        n: {"id": n, "ids": ids, "tokens": [n]} for n, ids in (("<s>", [size]), ("</s>", [size + 1, size]))}}
    pair = {"sep": ["</s>", size + 1], "cls": ["<s>", size]}
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    processors = [template([token("<s>"), text("A"), token("</s>")]), template([text("A"), token("<s>"), text("A")]), template([token("<s>")]), {"type": "BertProcessing"} | pair,
                  {"type": "RobertaProcessing", "trim_offsets": True, "add_prefix_space": False} | pair]
    chains = [[level, processors[0]], [processors[0], level], [processors[3], processors[4]], [template([token("<s>"), text("A")]), template([text("A")])],
              [template([token("<s>"), text("A")]), {"type": "RobertaProcessing", "trim_offsets": True, "add_prefix_space": False} | pair],
              [template([token("<s>"), text("A")]), template([text("A")], [text("B"), token("</s>"), text("A"), text("B")])]]
    for p in processors + [{"type": "Sequence", "processors": c} for c in chains]:
        yield base | {"post_processor": p, "added_tokens": [added(size, "<s>"), added(size + 1, "</s>")]}


def corners():
    """What the random compositions and every_character.py found."""
    base = byte_level()
    size = len(base["model"]["vocab"])
    for n in (normalizers.NFC(), normalizers.NFKD(), normalizers.StripAccents(), normalizers.BertNormalizer()):
        yield byte_level(normalizer=n)
    for p in (pre_tokenizers.Punctuation("removed"), pre_tokenizers.Split(fuzz.Regex(r"[[:alpha:]]|\p{Lowercase}|\P{Assigned}"), "removed")):
        yield base | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [json.loads(p.__getstate__()), base["pre_tokenizer"]]}}
    yield base | {"model": {"type": "WordLevel", "vocab": {"<unk>": 0}, "unk_token": "<unk>"}, "pre_tokenizer": {"type": "UnicodeScripts"}, "decoder": None}
    replace = lambda pattern, content: {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}
    yield base | {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Strip", "strip_left": True, "strip_right": True}, replace(r"\A(?!\S)", "#")]}}
    yield base | {"decoder": {"type": "Sequence", "decoders": [replace("a*", "-"), {"type": "Fuse"}, replace("^|b*", "+")]}}
    yield base | {"normalizer": {"type": "Nmt"}, "added_tokens": [added(size, "\t", normalized=True, special=False), added(base["model"]["vocab"].get(" ", size + 1), " ")]}


def main():
    rng = random.Random(3)
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        base = byte_level()
        out.write(json.dumps(base, ensure_ascii=False) + "\n")
        for tokenizer in itertools.chain(configurations(), corners()):
            hf = Tokenizer.from_str(json.dumps(tokenizer))
            texts = ["", "a <a> b<b> the²½ 12345678, it's", "ﬁ ① e\u0301 é\u3000Ⅷ\u200b日本 か\u3099 ab \x01\x0b\u2028"] + [fuzz.random_text(rng) for _ in range(2)]
            texts += [YOUNG, " ", "\t \u2028"]
            lines = [{"text": t, "ids": (ids := hf.encode(t, add_special_tokens=False).ids), "special": hf.encode(t).ids, "decoded": hf.decode(ids, skip_special_tokens=False),
                      "plain": hf.decode(ids)} for t in texts]
            change = {k: v for k, v in tokenizer.items() if v != base[k]}
            out.write(json.dumps({"change": change, "texts": lines}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
