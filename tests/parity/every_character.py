#!/usr/bin/env python3
"""Takes every character of Unicode through whatever tells characters apart, in tenon and in Hugging Face's `tokenizers`.

    every_character.py LINES [--only NAME]

LINES is the program made of tokenizer_lines.c. Classes in expressions, normalizers, pre-tokenizers and the word
boundaries of added tokens are each tried on all characters that Python's Unicode version knows (of the large uniform
blocks a part). Prints where the two differ; exit status 1 where they do.
"""
import argparse, os, sys, tempfile, unicodedata

import fuzz_tokenizers as fuzz
from tokenizers import AddedToken, Regex, Tokenizer, normalizers as N, pre_tokenizers as P

CLASSES = [r"\s", r"\S", r"\w", r"\W", r"[\w]", r"[^\w]", r"\d", r"\D", r"\h", r"\H", r"[\s]", r"[\S]", r"[\W]", r"[\D]", r"[\H]", r"\R", r"\X", r"\O", r"\N", "."]
CLASSES += [f"[[:{c}:]]" for c in "alnum alpha ascii blank cntrl digit graph lower print punct space upper word xdigit".split()]
CLASSES += [f"[[:^{c}:]]" for c in "alnum alpha ascii blank cntrl digit graph lower print punct space upper word xdigit".split()]
CLASSES += [rf"\p{{{c}}}" for c in "Alnum Alpha Blank Cntrl Digit Graph Lower Print Punct Space Upper Word XDigit ASCII Any Assigned".split()]
CLASSES += [rf"\p{{{c}}}" for c in "L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp C Cc Cf Cn Co LC".split()]
CLASSES += [rf"\p{{{c}}}" for c in "Han Hiragana Katakana Hangul Latin Greek Cyrillic Arabic Hebrew Thai Devanagari Common Inherited Emoji White_Space Alphabetic Uppercase Lowercase "
            "Ideographic Math Extended_Pictographic ID_Start ID_Continue XID_Start XID_Continue Dash Hex_Digit Diacritic Case_Ignorable Cased Default_Ignorable_Code_Point".split()]
CLASSES += [r"(?i:[a-z])", r"(?i:[à-ÿ])", r"(?i:k)", r"(?i:ſ)", r"(?i:σ)", r"(?i:ß)", r"(?i:[^k])", r"(?i:ǆ)", r"(?i:\p{Lu})", r"\b.", r".\b"]


# Characters whose properties changed between the Unicode version of PCRE2 (14 on Debian 12) and that of Oniguruma (16).
KNOWN = {r"class \p{Mn}", r"class \p{Mc}", r"class \p{ID_Continue}", r"class \p{XID_Continue}", r"class \p{Diacritic}", r"class \p{Case_Ignorable}", r"class \p{Cased}"}


def characters():
    sparse = [(0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xF8FF), (0x17000, 0x187F7), (0x20000, 0x323AF), (0xF0000, 0x10FFFF)]
    for c in range(0x110000):
        if 0xD800 <= c < 0xE000 or unicodedata.category(chr(c)) == "Cn" or c % 61 and any(a + 3 < c < b - 3 for a, b in sparse):
            continue
        yield chr(c)


def units():
    level = P.ByteLevel(add_prefix_space=False, use_regex=False)
    base = fuzz.bpe(P.ByteLevel(add_prefix_space=False), alphabet=fuzz.BYTES)
    base.decoder = fuzz.decoders.ByteLevel()
    plain = base.to_str()
    def with_parts(normalizer=None, pre=None):
        t = Tokenizer.from_str(plain)
        t.pre_tokenizer = P.Sequence([pre, level]) if pre else level
        if normalizer is not None:
            t.normalizer = normalizer
        return t
    for c in CLASSES:
        try:
            yield "class " + c, with_parts(pre=P.Split(Regex(c), "removed")), lambda c: c + "\n"
        except Exception:
            continue
    cuts = {"whitespace": P.Whitespace(), "whitespace split": P.WhitespaceSplit(), "punctuation": P.Punctuation("removed"), "bert": P.BertPreTokenizer(),
            "digits": P.Sequence([P.Digits(True), P.Split(Regex("."), "removed")]), "scripts": P.UnicodeScripts(), "bytelevel": P.ByteLevel(add_prefix_space=False)}
    yield "cut scripts alone", with_parts(pre=cuts.pop("scripts")), lambda c: c + "\n"
    for name, pre in cuts.items():  # where a piece ends shows in the ids of "th", which merge inside one only
        yield "cut " + name, with_parts(pre=pre), lambda c: f"t{c}h the{c}the \n"
    unigram = fuzz.trained(fuzz.models.Unigram(), fuzz.trainers.UnigramTrainer(vocab_size=150, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False), P.Metaspace())
    unigram.pre_tokenizer = P.UnicodeScripts()  # every piece of unknown characters is one token
    yield "cut scripts", unigram, lambda c: f"Җ{c}Җ {c}か{c}が{c}!{c}"
    forms = {"nfc": N.NFC(), "nfd": N.NFD(), "nfkc": N.NFKC(), "nfkd": N.NFKD(), "lowercase": N.Lowercase(), "accents": N.StripAccents(), "nmt": N.Nmt(), "bert": N.BertNormalizer(),
             "bert accents": N.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False), "bert clean": N.BertNormalizer(True, False, False, False),
             "bert chinese": N.BertNormalizer(False, True, False, False)}
    for name, normalizer in forms.items():
        yield "normalizer " + name, with_parts(normalizer), lambda c: f"e{c}\u0301\n\uac00{c}\n\u0320{c}\u0300 "
    for flags in ({"single_word": True}, {"lstrip": True, "rstrip": True}):
        t = with_parts()
        t.add_tokens([AddedToken("<t>", normalized=False, **flags)])
        yield f"added {flags}", t, lambda c: f"{c}<t>\n<t>{c}-"


def differing(program, hf, path, texts):
    ours, reason = fuzz.answers(program, path, texts)
    if ours is None:
        return None, reason
    return [t for t, got in zip(texts, ours) if got.get("ids") != hf.encode(t, add_special_tokens=False).ids], ""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("lines"), parser.add_argument("--only", default="")
    a = parser.parse_args()
    every, bad = list(characters()), 0
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "tokenizer.json")
        for name, t, around in units():
            if a.only not in name:
                continue
            t.save(path)
            chunks = ["".join(around(c) for c in every[i:i + 128]) for i in range(0, len(every), 128)]
            wrong, reason = differing(a.lines, t, path, chunks)
            if wrong is None:
                print(f"{name}: we refuse it: {reason.strip()}")
                bad += 1
            elif wrong:
                singles = [around(c) for i, chunk in enumerate(chunks) if chunk in wrong for c in every[128 * i:128 * i + 128]]
                odd, _ = differing(a.lines, t, path, singles)
                points = [c for i, chunk in enumerate(chunks) if chunk in wrong for c in every[128 * i:128 * i + 128] if around(c) in odd]
                print(f"{name}: {len(points)} characters differ: {' '.join('%04X' % ord(c) for c in points[:60])}", flush=True)
                bad += max(1, len(points)) * (name not in KNOWN or len(points) > 15)
    print(f"{len(every)} characters, " + ("all equal" if bad == 0 else f"{bad} differences"))
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
