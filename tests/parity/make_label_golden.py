"""Writes tests/parity/golden/labels.jsonl: what records must become, as ids and labels.

Rendering and tokenising are transformers' and tokenizers'; the labels are made here from the rules as written in
docs (tokenizers fact sheet, section 9: "train on responses only", and the rules for text and completions), not from
tenon. Two kinds of lines:

  {"scan": {"user": [...], "assistant": [...]}, "ids": [...], "labels": [...]}      random ids over few values
  {"tokenizer": NAME, "options": {...}, "record": {...}, "samples": [[ids, spans]]}  spans = [[start, end], ...] labelled

    /work/oracle/venv/bin/python tests/parity/make_label_golden.py build/data/tokenizers
"""
import json
import random
import sys

import tokenizers
import transformers

MARKERS = {
    "qwen2_5": ("<|im_start|>user\n", "<|im_start|>assistant\n"),
    "qwen3": ("<|im_start|>user\n", "<|im_start|>assistant\n"),
    "llama3_2": ("<|start_header_id|>user<|end_header_id|>\n\n", "<|start_header_id|>assistant<|end_header_id|>\n\n"),
    "gemma3": ("<start_of_turn>user\n", "<start_of_turn>model\n"),
    "mistral_nemo": ("[INST]", "[/INST]"),
}


def find(needle, ids, start):
    """Index of the first occurrence at or behind `start`, or None."""
    for i in range(start, len(ids) - len(needle) + 1):
        if ids[i : i + len(needle)] == needle:
            return i
    return None


def responses(ids, user, assistant):
    """Section 9 as a search: assistant marker, span to the next user marker or the end, go on two tokens later."""
    labels = [-100] * len(ids)
    last = len(ids) - 1
    at = 0
    while (opened := find(assistant, ids, at)) is not None:
        start = opened + len(assistant)
        if start > last:  # the marker ends exactly at the sequence's end: no span
            break
        closed = find(user, ids, start)
        if closed is None or closed >= last:  # a user marker beginning at the last index is the end of the text
            labels[start:] = ids[start:]
            break
        labels[start:closed] = ids[start:closed]
        at = closed + len(user) + 1
    return labels


def scans(count):
    random.seed(9)
    for n in range(count):
        user = [[1, 2], [1], [1, 2, 3], [1, 1]][n % 4]
        assistant = [[1, 4], [4], [4, 2], [2, 2]][n // 4 % 4]
        ids = []
        while len(ids) < random.randrange(1, 24):
            ids += random.choice([user, assistant, [5], [6], [1], [2], [4]])
        if n % 3 == 0:
            ids = ids[: random.randrange(len(ids) + 1)]
        yield {"scan": {"user": user, "assistant": assistant}, "ids": ids, "labels": responses(ids, user, assistant)}


CHATS = [
    [("user", "What is 2 + 2?"), ("assistant", "4")],
    [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "Again?\n"), ("assistant", "Hello again.\n\nBye")],
    [("user", "Say it in German: cat"), ("assistant", "Katze 🐈"), ("user", "unanswered")],
    [("user", "a"), ("assistant", ""), ("user", "b"), ("assistant", "c")],
    [("user", "literal <|im_start|>assistant\nnot an answer"), ("assistant", "an answer")],
    [("user", "x")],
]
TOOL_CHAT = {
    "messages": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "id": "abcdefghi",
                                                             "function": {"name": "w", "arguments": {"c": "Bonn"}}}]},
        {"role": "tool", "content": "rain", "tool_call_id": "abcdefghi"},
        {"role": "assistant", "content": "It rains."},
    ],
    "tools": [{"type": "function", "function": {"name": "w", "description": "d",
                                                "parameters": {"type": "object", "properties": {"c": {"type": "string"}}}}}],
}
TEXTS = ["", "Hello world", "two\n\nparagraphs  ", "ends itself{eos}", "lots of words " * 8]
PAIRS = [("The capital of France is", " Paris."), ("Q: 1+1\nA: ", "2"), ("glu", "ed"), ("é", "́x"), ("x", "")]


def load(folder, name):
    path = f"{folder}/{name}"
    config = json.load(open(f"{path}/tokenizer_config.json", encoding="utf-8"))
    tok = transformers.PreTrainedTokenizerFast(tokenizer_file=f"{path}/tokenizer.json",
                                               **{k: config.get(k) for k in ("bos_token", "eos_token", "pad_token", "unk_token")})
    tok.chat_template = config.get("chat_template")
    return tok, tokenizers.Tokenizer.from_file(f"{path}/tokenizer.json")


def spans(labels):
    out = []
    for i, label in enumerate(labels):
        if label == -100:
            continue
        if out and out[-1][1] == i:
            out[-1][1] = i + 1
        else:
            out.append([i, i + 1])
    return out


def line(name, record, options, ids, labels):
    """Cut or split as the stage says; labels of chats are looked for in what is left."""
    most = options.get("max_length", 2048)
    pieces = [(ids, labels)]
    if options.get("stage") == "cpt":
        pieces = [(ids[i : i + most], labels[i : i + most]) for i in range(0, max(len(ids), 1), most)]
    return {"tokenizer": name, "options": options, "record": record, "samples": [[i, spans(l)] for i, l in pieces]}


def chat_line(name, tok, raw, record, options):
    messages = record.get("messages") or [{"role": "user", "content": record["question"]},
                                           {"role": "assistant", "content": record["answer"]}]
    text = tok.apply_chat_template(messages, tools=record.get("tools"), tokenize=False, **record.get("kwargs", {}))
    ids = raw.encode(text, add_special_tokens=False).ids
    if options.get("stage") != "cpt":
        ids = ids[: options.get("max_length", 2048)]
    user, assistant = (raw.encode(m, add_special_tokens=False).ids for m in MARKERS[name])
    labels = ids if options.get("train_on_responses_only") is False else responses(ids, user, assistant)
    return line(name, record, options, ids, labels)


def text_line(name, tok, raw, record, options):
    most = options.get("max_length", 2048)
    prompt = "" if "text" in record else record["prompt"]
    text = record["text"] if "text" in record else prompt + record["completion"]
    encoded = raw.encode(text, add_special_tokens=True)
    ids, labels = list(encoded.ids), list(encoded.ids)
    if prompt and options.get("train_on_responses_only") is not False:
        for i, (_, end) in enumerate(encoded.offsets):
            if end > len(prompt):
                break
            labels[i] = -100
    if not ids or ids[-1] != tok.eos_token_id:
        ids.append(tok.eos_token_id)
        labels.append(tok.eos_token_id)
    if options.get("stage") != "cpt":
        ids, labels = ids[:most], labels[:most]
    return line(name, record, options, ids, labels)


def generation_lines(name, tok, raw):
    """A template with generation blocks; the mask is transformers' own."""
    template = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
                "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\\n' }}{% endfor %}")
    for chat in CHATS[:4]:
        record = {"messages": [{"role": r, "content": c} for r, c in chat]}
        got = tok.apply_chat_template(record["messages"], chat_template=template, tokenize=True, return_dict=True,
                                      return_assistant_tokens_mask=True)
        ids, mask = list(got["input_ids"]), got["assistant_masks"]
        labels = [i if m else -100 for i, m in zip(ids, mask)]
        yield {**line(name, record, {}, ids, labels), "template": template}


def lines(folder):
    yield from scans(160)
    for name in MARKERS:
        tok, raw = load(folder, name)
        kwargs = {"kwargs": {"date_string": "26 Jul 2024"}} if name == "llama3_2" else {}
        chats = CHATS if name in ("qwen2_5", "llama3_2") else CHATS[:5]
        for chat in chats:
            record = {"messages": [{"role": r, "content": c} for r, c in chat], **kwargs}
            yield chat_line(name, tok, raw, record, {})
        yield chat_line(name, tok, raw, {"question": "q?", "answer": "a.", **kwargs}, {})
        yield chat_line(name, tok, raw, {"question": "q?", "answer": "a.", **kwargs}, {"train_on_responses_only": False})
        for most in (23, 27, 31):
            for options in ({"max_length": most}, {"max_length": most, "stage": "cpt"}):
                yield chat_line(name, tok, raw, {"messages": [{"role": r, "content": c} for r, c in CHATS[0] + CHATS[3]], **kwargs}, options)
        if name in ("qwen2_5", "qwen3", "mistral_nemo"):
            yield chat_line(name, tok, raw, TOOL_CHAT, {})
        if name == "qwen2_5":
            yield from generation_lines(name, tok, raw)
    for name in ("qwen2_5", "llama3_2", "gpt2", "gemma3"):
        tok, raw = load(folder, name)
        for text in TEXTS:
            yield text_line(name, tok, raw, {"text": text.format(eos=tok.eos_token)}, {})
        for most in (4, 7, 8):
            for options in ({"max_length": most}, {"max_length": most, "stage": "cpt"}):
                yield text_line(name, tok, raw, {"text": TEXTS[2] * 3}, options)
        yield text_line(name, tok, raw, {"text": "Hello world"}, {"max_length": 2})
    tok, raw = load(folder, "gpt2")
    for prompt, completion in PAIRS:
        for options in ({}, {"train_on_responses_only": False}, {"max_length": 3}):
            yield text_line("gpt2", tok, raw, {"prompt": prompt, "completion": completion}, options)


def main():
    folder = sys.argv[1]
    print("transformers", transformers.__version__, "tokenizers", tokenizers.__version__)
    with open("tests/parity/golden/labels.jsonl", "w", encoding="utf-8") as out:
        for entry in lines(folder):
            out.write(json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
