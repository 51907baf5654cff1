#!/usr/bin/env python3
"""Writes small tokenizer.json files to start fuzz_tokenizer_json from: seed_tokenizer_json.py FOLDER"""
import json, os, sys

VOCAB = {c: i for i, c in enumerate("abcdefghijklmnopqrstuvwxyzHIL ▁Ġ<>'.,0123456789")}
VOCAB.update({"<unk>": 60, "<0x41>": 61, "ab": 62, "el": 63, "▁w": 64, "aa": 65, "aaaa": 66, "##b": 67, "b</w>": 68, "<s>": 69})
MERGES = ["e l", ["a", "a"], ["aa", "aa"], "a b", ["▁", "w"]]
BPE = {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "vocab": VOCAB, "merges": MERGES}
ADDED = [dict(id=70 + i, content=c, special=i % 2 == 0, single_word=i == 1, lstrip=i == 2, rstrip=i == 3, normalized=i > 2)
         for i, c in enumerate(["<s>", "tok", "</s>", "<|x|>", " "])]
REPLACE = {"type": "Replace", "pattern": {"Regex": "\\s+|[a-c&]"}, "content": "▁"}
NORMALIZERS = [None, *({"type": t} for t in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "ByteLevel", "BertNormalizer")),
               {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Prepend", "prepend": "▁"}, REPLACE,
               {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}]
PRES = [None, {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"},
        {"type": "Digits", "individual_digits": True}, {"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": "Contiguous"},
        {"type": "BertPreTokenizer"}, {"type": "CharDelimiterSplit", "delimiter": "-"}, {"type": "UnicodeScripts"},
        *({"type": "Split", "pattern": {"Regex": "\\p{L}+|[^\\s\\w]|(?i:'s)"}, "behavior": b, "invert": b == "Isolated"}
          for b in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext"))]
DECODERS = [None, {"type": "ByteLevel"}, {"type": "Metaspace", "replacement": "▁"}, {"type": "WordPiece", "prefix": "##", "cleanup": True},
            {"type": "BPEDecoder", "suffix": "</w>"}, {"type": "CTC", "pad_token": "<s>", "word_delimiter_token": "|", "cleanup": True},
            {"type": "Sequence", "decoders": [REPLACE, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 1}]}]
MODELS = [BPE, {**BPE, "continuing_subword_prefix": "##", "end_of_word_suffix": "</w>"}, {**BPE, "byte_fallback": False, "ignore_merges": True},
          {"type": "WordLevel", "unk_token": "<unk>", "vocab": VOCAB}, {"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##", "vocab": VOCAB},
          {"type": "Unigram", "unk_id": 0, "byte_fallback": True, "vocab": [["<unk>", 0], ["a", -1], ["el", -2.5], ["▁w", -3]]}]
POSTS = [None, {"type": "BertProcessing", "sep": ["</s>", 72], "cls": ["<s>", 70]},
         {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
          "special_tokens": {"<s>": {"id": "<s>", "ids": [70], "tokens": ["<s>"]}}}]

if __name__ == "__main__":
    sets = {"normalizer": NORMALIZERS, "pre_tokenizer": PRES, "decoder": DECODERS, "model": MODELS, "post_processor": POSTS}
    for key, values in sets.items():
        for i, value in enumerate(values):
            document = {"added_tokens": ADDED, **{k: v[(i * 7 + 1) % len(v)] for k, v in sets.items()}, key: value}
            with open(os.path.join(sys.argv[1], f"{key}{i}.json"), "w", encoding="utf-8") as f:
                json.dump(document, f, ensure_ascii=False)
