"""Golden files of Qwen2.5-VL: tests/parity/golden/qwen2_5_vl in the layout of make_model_golden.py for text alone, and vision.safetensors
beside it for two pictures among text, generation.json for answers to conversations, the numbers of test_qwen2_5_vl.c.

A tiny random model with its vision tower, whose file carries the published names ("visual.…", "model.layers.…"), and an adapter on
the linear modules of the language model. usage: make_vl_golden.py (pillow < 13)
Made with the versions it prints: torch 2.15, transformers 5.24, peft 0.21 (CPU).
"""
import copy, json, os, sys

import tokenizers, torch, transformers, peft
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from make_picture_golden import HERE as PICTURES, opened
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from make_model_golden import HERE, SMALL, VOCAB, clean, loss_sum, records

LANGUAGE = r".*\.language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
TEXT = dict(SMALL, hidden_size=48, num_attention_heads=3, num_key_value_heads=1, rms_norm_eps=1e-5)
VISION = dict(depth=3, hidden_size=32, intermediate_size=44, num_heads=2, out_hidden_size=48, patch_size=4, window_size=32,
              fullatt_block_indexes=[1], initializer_range=0.15)
TOKENS = dict(image_token_id=VOCAB - 1, video_token_id=VOCAB - 2, vision_start_token_id=VOCAB - 3, vision_end_token_id=VOCAB - 4)
CASES = {  # text, flat (the published spelling of config.json)
    "qwen2_5_vl": (dict(rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}), False),
    "qwen2_5_vl_tied": (dict(rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}), True),
}


def build(name):
    keys, tied = CASES[name]
    torch.manual_seed(sum(map(ord, name)))
    config = transformers.Qwen2_5_VLConfig(text_config={**TEXT, **keys}, vision_config=dict(VISION), tie_word_embeddings=tied, **TOKENS)
    model = transformers.Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        for key, p in model.named_parameters():
            if key.endswith("bias"): p.normal_(0, 0.1)
            if "norm" in key or "ln_q" in key: p.add_(0.2 * torch.randn_like(p))
            p.copy_(p.bfloat16().float())
    return config, model


def flatten(path):
    """config.json as published: the language keys beside the others, rope in the older spelling."""
    doc = json.load(open(path))
    text = doc.pop("text_config")
    rope = text.pop("rope_parameters")
    doc = {**text, **doc, "model_type": "qwen2_5_vl", "rope_theta": rope["rope_theta"],
           "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]}}
    json.dump(doc, open(path, "w"), indent=2, sort_keys=True)


def vision(name, folder, config, wrapped):
    """Two pictures of odd sizes in one sample: rows and columns of merged patches beyond one window, and less than one."""
    sizes = [(5, 9), (3, 2)]
    g = torch.Generator().manual_seed(5)
    grid = torch.tensor([[1, 2 * h, 2 * w] for h, w in sizes])
    pixels = torch.randn(int(grid.prod(-1).sum()), 3 * 2 * 4 * 4, generator=g)
    text = torch.randint(3, VOCAB - 4, (14,), generator=g).tolist()
    ids = text[:4] + [TOKENS["image_token_id"]] * 45 + text[4:7] + [TOKENS["image_token_id"]] * 6 + text[7:]
    labels = [-100] * (len(ids) - 7) + ids[-7:]
    keys = dict(input_ids=torch.tensor([ids]), pixel_values=pixels, image_grid_thw=grid, use_cache=False,
                mm_token_type_ids=torch.tensor([[int(i == TOKENS["image_token_id"]) for i in ids]]))
    golden = {"input_ids": torch.tensor(ids, dtype=torch.int32), "labels": torch.tensor(labels, dtype=torch.int32), "pixels": pixels,
              "pictures": torch.tensor([[4, *sizes[0]], [52, *sizes[1]]], dtype=torch.int32)}
    for p in wrapped.parameters(): p.grad = None
    with torch.no_grad():
        golden["features"] = torch.cat(wrapped.base_model.model.model.get_image_features(pixels, grid).pooler_output)
        golden["logits_adapter"] = wrapped(**keys).logits[0].float()
        with wrapped.disable_adapter(): golden["logits_base"] = wrapped(**keys).logits[0].float()
    loss = torch.nn.functional.cross_entropy(wrapped(**keys).logits[0, :-1].float(), torch.tensor(labels[1:]), ignore_index=-100)
    loss.backward()
    for k, v in clean(wrapped, [(k, p.grad) for k, p in wrapped.named_parameters() if p.requires_grad]).items(): golden["grad." + k] = v
    write_files(folder)
    with torch.no_grad(): loss, count = evaluate(folder, wrapped)
    print(name, "with pictures: loss", loss, "over", count)
    golden["eval_loss"], golden["eval_tokens"] = torch.tensor([loss], dtype=torch.float64), torch.tensor([count], dtype=torch.int64)
    save_file({k: v.contiguous() for k, v in golden.items()}, folder + "/vision.safetensors")


CHARACTERS = "\n " + "".join(chr(c) for c in range(97, 123)) + "".join(chr(c) for c in range(65, 91)) + "0123456789.,?!'<>|_:;-()"
SPECIAL = {"<|im_start|>": 90, "<|im_end|>": 91, "<|vision_end|>": 92, "<|vision_start|>": 93, "<|video_pad|>": 94, "<|image_pad|>": 95}
PROCESSOR = {"patch_size": 4, "temporal_patch_size": 2, "merge_size": 2, "min_pixels": 256, "max_pixels": 2048}
TEMPLATE = """{% for m in messages %}<|im_start|>{{ m['role'] }}
{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
QUESTIONS = [("What is it?", "A drawing.", ["rgb.png"]), ("And these?", "Two of them.", ["exif5.png", "rgb.png"]), ("No picture here.", "None.", []),
             ("Who?", "Nobody at all.", ["exif8.png"]), ("Grey?", "It is grey.", ["grey1.png"])]


def write_files(folder):
    """A tokenizer of single characters, and what belongs to pictures."""
    added = [{"id": i, "content": t, "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False} for t, i in SPECIAL.items()]
    entries = ["\x01", "\x02", "\x03", *CHARACTERS]
    entries += [chr(0x100 + i) for i in range(90 - len(entries))]  # added tokens follow the vocabulary
    vocab = {c: i for i, c in enumerate(entries)}
    json.dump({"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None, "pre_tokenizer": None, "post_processor": None,
               "decoder": {"type": "Fuse"}, "model": {"type": "BPE", "vocab": vocab, "merges": [], "unk_token": None, "fuse_unk": False, "byte_fallback": False}},
              open(folder + "/model/tokenizer.json", "w"))
    json.dump({"eos_token": "<|im_end|>", "chat_template": TEMPLATE}, open(folder + "/model/tokenizer_config.json", "w"), indent=1)
    json.dump(PROCESSOR, open(folder + "/model/preprocessor_config.json", "w"), indent=1)
    with open(folder + "/pictures.jsonl", "w") as f:
        for question, answer, paths in QUESTIONS:
            record = {"messages": [{"role": "user", "content": "<image>" * len(paths) + question}, {"role": "assistant", "content": answer}]}
            if paths: record["images"] = ["../pictures/" + p for p in paths]
            f.write(json.dumps(record) + "\n")


def evaluate(folder, model):
    """Mean loss over the assistant's answers of pictures.jsonl, by Transformers' own processor."""
    tokenizer = tokenizers.Tokenizer.from_file(folder + "/model/tokenizer.json")
    images = Qwen2VLImageProcessorPil(**PROCESSOR)
    total = count = 0
    for question, answer, paths in QUESTIONS:
        seen = [images(opened(PICTURES / p), return_tensors="pt") for p in paths]
        grids = [s["image_grid_thw"] for s in seen]
        places = "".join("<|vision_start|>" + "<|image_pad|>" * int(g.prod() // 4) + "<|vision_end|>" for g in grids)
        prompt = f"<|im_start|>user\n{places}{question}<|im_end|>\n<|im_start|>assistant\n"
        asked, ids = (tokenizer.encode(t, add_special_tokens=False).ids for t in (prompt, prompt + answer + "<|im_end|>\n"))
        keys = dict(pixel_values=torch.cat([s["pixel_values"] for s in seen]), image_grid_thw=torch.cat(grids)) if paths else {}
        kinds = torch.tensor([[int(i == SPECIAL["<|image_pad|>"]) for i in ids]])
        logits = model(input_ids=torch.tensor([ids]), mm_token_type_ids=kinds, use_cache=False, **keys).logits[0].float()
        target = torch.tensor(ids[1:]); target[: len(asked) - 1] = -100
        total += torch.nn.functional.cross_entropy(logits[:-1], target, ignore_index=-100, reduction="sum").item()
        count += int((target >= 0).sum())
    return total / count, count


def generate(folder, wrapped):
    """generation.json: what greedy decoding answers to conversations with pictures, with and without the adapter. The second is a turn further than the first."""
    tokenizer = tokenizers.Tokenizer.from_file(folder + "/model/tokenizer.json")
    images = Qwen2VLImageProcessorPil(**PROCESSOR)
    turn = lambda paths, text: {"role": "user", "content": [{"type": "image", "image": "../pictures/" + p} for p in paths] + [{"type": "text", "text": text}]}
    first = turn(["exif5.png"], "Who?")
    talks = [[first], [first, {"role": "assistant", "content": "It."}, turn(["grey1.png"], "a")], [turn(["rgb.png"], "x")],
             [turn(["exif8.png", "rgb.png"], "These?")], [{"role": "user", "content": "No picture here."}]]
    golden, closest = [], 1e9
    for talk in talks:
        rendered, seen = "", []
        for m in talk:
            parts = m["content"] if isinstance(m["content"], list) else [{"type": "text", "text": m["content"]}]
            rendered += f"<|im_start|>{m['role']}\n"
            for part in parts:
                if part["type"] == "text": rendered += part["text"]; continue
                seen.append(images(opened(PICTURES / part["image"].split("/")[-1]), return_tensors="pt"))
                rendered += "<|vision_start|>" + "<|image_pad|>" * int(seen[-1]["image_grid_thw"].prod() // 4) + "<|vision_end|>"
            rendered += "<|im_end|>\n"
        ids = tokenizer.encode(rendered + "<|im_start|>assistant\n", add_special_tokens=False).ids
        keys = dict(pixel_values=torch.cat([s["pixel_values"] for s in seen]), image_grid_thw=torch.cat([s["image_grid_thw"] for s in seen])) if seen else {}
        record = {"messages": talk, "prompt_ids": ids}
        for which in ("base", "adapter"):
            def run():
                kinds = torch.tensor([[int(i == SPECIAL["<|image_pad|>"]) for i in ids]])
                out = wrapped.generate(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), mm_token_type_ids=kinds,
                                       do_sample=False, max_new_tokens=20, eos_token_id=SPECIAL["<|im_end|>"], pad_token_id=SPECIAL["<|im_end|>"],
                                       output_logits=True, return_dict_in_generate=True, **keys)
                top = torch.stack(out.logits).float().topk(2).values
                return out.sequences[0, len(ids):].tolist(), (top[..., 0] - top[..., 1]).min().item()
            with torch.no_grad():
                if which == "adapter": record[which], gap = run()
                else:
                    with wrapped.disable_adapter(): record[which], gap = run()
            closest = min(closest, gap)
        golden.append(record)
    assert closest > 1e-4, closest  # else a rounding may choose another token
    print("generation:", [(len(g["base"]), len(g["adapter"])) for g in golden], "closest second", closest)
    with open(folder + "/generation.json", "w") as f: json.dump(golden, f)


def make(name):
    folder = f"{HERE}/golden/{name}"
    config, model = build(name)
    os.makedirs(folder, exist_ok=True)
    copy.deepcopy(model).bfloat16().save_pretrained(folder + "/model")  # a copy: rope's frequencies would stay rounded
    names = load_file(folder + "/model/model.safetensors").keys()
    assert any(n.startswith("visual.") for n in names) and any(n.startswith("model.layers.") for n in names), sorted(names)[:5]
    for extra in ("generation_config.json",):
        if os.path.exists(f"{folder}/model/{extra}"): os.remove(f"{folder}/model/{extra}")
    if CASES[name][1]: flatten(folder + "/model/config.json")
    wrapped = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", target_modules=LANGUAGE))
    with torch.no_grad():
        for key, p in wrapped.named_parameters():
            if "lora_" in key: p.normal_(0, 0.15)
    wrapped.save_pretrained(folder + "/adapter")
    if os.path.exists(folder + "/adapter/README.md"): os.remove(folder + "/adapter/README.md")
    path = folder + "/adapter/adapter_config.json"
    adapter = json.load(open(path)); adapter["base_model_name_or_path"] = None
    json.dump(adapter, open(path, "w"), indent=1, sort_keys=True)
    data = [(ids, labels) for ids, labels in records(name) if max(ids) < VOCAB - 4]
    with open(folder + "/train.jsonl", "w") as f:
        for ids, labels in data: f.write(json.dumps({"input_ids": ids, "labels": labels}) + "\n")
    longest = max(data, key=lambda r: len(r[0]))
    golden = {"input_ids": torch.tensor(longest[0], dtype=torch.int32), "labels": torch.tensor(longest[1], dtype=torch.int32)}
    wrapped.eval()
    with torch.no_grad():
        golden["logits_adapter"] = wrapped(input_ids=torch.tensor([longest[0]]), use_cache=False).logits[0].float()
        with wrapped.disable_adapter():
            golden["logits_base"] = wrapped(input_ids=torch.tensor([longest[0]]), use_cache=False).logits[0].float()
    loss, count = loss_sum(wrapped, *longest)
    (loss / count).backward()
    for k, v in clean(wrapped, [(k, p.grad) for k, p in wrapped.named_parameters() if p.requires_grad]).items(): golden["grad." + k] = v
    golden["trainable"] = torch.tensor([sum(p.numel() for p in wrapped.parameters() if p.requires_grad)], dtype=torch.int64)
    save_file(golden, folder + "/golden.safetensors", {"versions": f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}"})
    if not CASES[name][1]:
        vision(name, folder, config, wrapped)
        generate(folder, wrapped)
    print(name, "trainable", int(golden["trainable"]), "loss", float(loss / count))


if __name__ == "__main__":
    print("torch", torch.__version__, "transformers", transformers.__version__, "peft", peft.__version__)
    for case in sys.argv[1:] or CASES: make(case)
