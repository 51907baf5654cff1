"""Writes tests/parity/golden/pictures/records_SHAPE.jsonl, conversations with pictures in every accepted spelling, and tokens.jsonl, what
they must become, in the order of SHAPES: ids, labelled spans, the place and merged size of each picture, and rope positions, by Transformers' Qwen2.5-VL
processor, chat template and get_rope_index; labels by the rules of make_label_golden.py.

    PYTHONPATH=… python tests/parity/make_vl_token_golden.py build/data     (torch, transformers, pillow < 13)
"""
import json
import pathlib
import sys

import torch
import transformers
from make_label_golden import MARKERS, responses
from make_picture_golden import HERE, PUBLISHED, opened
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

IMAGE, SILENT = 151655, {151652, 151653, 151654, 151655, 151656}
SHAPES = {"messages": "messages", "alpaca": "instruction", "pair": "prompt"}  # and the key that tells each
LONG = "tell me of it. " * 12


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


# What is in the record, and the same conversation with parts, as the template takes it, with its pictures in order.
IMG = {"type": "image"}
TEXT = lambda text: {"type": "text", "text": text}
CASES = [
    # LLaMA-Factory: <image> in the text
    ({"messages": [user("<image>Who is it?"), assistant("Tux."), user("And here?<image>"), assistant("Also.")], "images": ["rgb.png", "exif6.png"]},
     [user([IMG, TEXT("Who is it?")]), assistant("Tux."), user([TEXT("And here?"), IMG]), assistant("Also.")], ["rgb.png", "exif6.png"]),
    ({"messages": [{"from": "human", "value": "a <image> b <image><image> c"}, {"from": "gpt", "value": "Three."}],
      "images": ["rgb.png", "baseline.jpg", "grey1.png"]},
     [user([TEXT("a "), IMG, TEXT(" b "), IMG, IMG, TEXT(" c")]), assistant("Three.")], ["rgb.png", "baseline.jpg", "grey1.png"]),
    ({"instruction": "<image>Describe.", "input": "", "output": "A drawing.", "images": ["rgba.png"]},
     [user([IMG, TEXT("Describe.")]), assistant("A drawing.")], ["rgba.png"]),
    # TRL: parts beside "images", or no place at all
    ({"messages": [user([TEXT("What? "), IMG]), assistant([TEXT("This.")])], "images": ["exif5.png"]},
     [user([TEXT("What? "), IMG]), assistant([TEXT("This.")])], ["exif5.png"]),
    ({"messages": [{"role": "system", "content": "Be short."}, user("Two?"), assistant("Yes.")], "images": ["rgb.png", "rgb.png"]},
     [{"role": "system", "content": "Be short."}, user([IMG, IMG, TEXT("Two?")]), assistant("Yes.")], ["rgb.png", "rgb.png"]),
    ({"prompt": "What is it?", "completion": "A test.", "image": "rgb.png"},
     [user([IMG, TEXT("What is it?")]), assistant("A test.")], ["rgb.png"]),
    # OpenAI: parts with their own paths
    ({"messages": [user([{"type": "image_url", "image_url": {"url": "rgb.png"}}, TEXT(LONG), {"type": "image", "image": "exif8.png"}]), assistant("So.")]},
     [user([IMG, TEXT(LONG), IMG]), assistant("So.")], ["rgb.png", "exif8.png"]),
    # none
    ({"messages": [user("No picture, <image> is a word here."), assistant("Right.")]},
     [user("No picture, <image> is a word here."), assistant("Right.")], []),
]


def main(data):
    folder = data / "tokenizers/qwen2_5_vl"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    template = json.load(open(folder / "chat_template.json"))["chat_template"]
    images = Qwen2VLImageProcessorPil(**PUBLISHED)
    config = transformers.Qwen2_5_VLConfig(vision_config=dict(depth=1, hidden_size=32, num_heads=2, intermediate_size=8),
                                           text_config=dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, intermediate_size=8, vocab_size=16))
    with torch.device("meta"):
        model = transformers.models.qwen2_5_vl.modeling_qwen2_5_vl.Qwen2_5_VLModel(config)
    user_ids, assistant_ids = (tokenizer.encode(m, add_special_tokens=False) for m in MARKERS["qwen2_5"])
    cases = [case for key in SHAPES.values() for case in CASES if key in case[0]]
    for shape, key in SHAPES.items():
        (HERE / f"records_{shape}.jsonl").write_text("".join(json.dumps(c[0]) + "\n" for c in cases if key in c[0]))
    with open(HERE / "tokens.jsonl", "w") as tokens:
        for record, messages, paths in cases:
            grids = [images(opened(HERE / p), return_tensors="np")["image_grid_thw"][0].tolist() for p in paths]
            text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
            parts = text.split("<|image_pad|>")
            assert len(parts) == len(paths) + 1
            whole = parts[0] + "".join("<|image_pad|>" * (g[1] * g[2] // 4) + part for g, part in zip(grids, parts[1:]))
            ids = tokenizer.encode(whole, add_special_tokens=False)
            kinds = torch.tensor([[int(i == IMAGE) for i in ids]])
            grid = torch.tensor(grids) if grids else None
            positions, _ = model.get_rope_index(torch.tensor([ids]), kinds, grid)
            labels = [-100 if i in SILENT else l for i, l in zip(ids, responses(ids, user_ids, assistant_ids))]
            spans, places, at = [], [], 0
            for i, label in enumerate(labels):
                if label != -100:
                    if not spans or spans[-1][1] != i: spans.append([i, i])
                    spans[-1][1] = i + 1
            for g in grids:
                at = ids.index(IMAGE, at)
                places.append([at, g[1] // 2, g[2] // 2])
                at += g[1] * g[2] // 4
            tokens.write(json.dumps({"ids": ids, "spans": spans, "pictures": places, "paths": paths, "positions": positions[:, 0].tolist()}) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
