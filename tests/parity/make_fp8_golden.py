#!/usr/bin/env python3
"""Golden files of FP8: golden/fp8.safetensors for tests/unit/test_fp8.c, and bases in FP8 for tests/parity/test_model_golden.c.

  codes.values                 what torch.float8_e4m3fn says all 256 codes are
  x, x.codes                   values (ties, subnormals, the largest) and their codes by torch
  w, w.scales, w.codes         a matrix by rows: scale = absmax / 448, code = w / scale

The bases are laid out by hand as their writers document it (compressed-tensors' and fbgemm's libraries are not installed); what answers is the plain
model made of the decoded weights in fp32. Where Transformers can decode a layout itself (fine-grained, dequantize=True), its values are held against ours.
usage: make_fp8_golden.py     Made with: torch 2.15, transformers 5.24, peft 0.21 (CPU).
"""
import json, os, shutil, tempfile

import torch, transformers
from safetensors.torch import load_file, save_file

import make_model_golden as plain
import make_quantised_golden as quantised

FP8, SINGLE, HALF = torch.float8_e4m3fn, torch.float32, torch.bfloat16
PARTS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def spread(scale, shape, tile):
    """Scales of tiles, one for every element."""
    return scale.repeat_interleave(tile[0], 0)[: shape[0]].repeat_interleave(tile[1], 1)[:, : shape[1]]


def tile_scales(w, tile):
    rows, cols = -(-w.shape[0] // tile[0]), -(-w.shape[1] // tile[1])
    return torch.stack([torch.stack([w[i * tile[0] : (i + 1) * tile[0], j * tile[1] : (j + 1) * tile[1]].abs().max() for j in range(cols)]) for i in range(rows)]) / 448


def encode(w, full):
    return (w / full).clamp(-448, 448).to(FP8)


# name: (case of make_model_golden, its keys, quantization_config, tile of a shape, name of the scales, what the file holds of them)
TILE = [48, 40]
CASES = {
    "fp8_tiles": ("qwen3", dict(hidden_size=64, intermediate_size=104), dict(quant_method="fp8", activation_scheme="dynamic", fmt="e4m3", weight_block_size=TILE,
                  modules_to_not_convert=["lm_head"]), lambda shape: TILE, "weight_scale_inv", lambda s: s),
    "fp8_rows": ("llama_bias_tied", {}, dict(quant_method="fbgemm_fp8", activation_scale_ub=1200.0, modules_to_not_convert=["lm_head"]),
                 lambda shape: [1, shape[1]], "weight_scale", lambda s: s),
    "fp8_tensor": ("qwen2", {}, dict(quant_method="compressed-tensors", format="float-quantized", quantization_status="compressed", ignore=["lm_head"], kv_cache_scheme=None,
                   config_groups={"group_0": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True, "dynamic": False},
                                              "input_activations": {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False}}}),
                   lambda shape: list(shape), "weight_scale", lambda s: s.to(HALF).reshape(1)),
}


def quantise(name, folder):
    start, keys, quantisation, tile_of, suffix, held = CASES[name]
    case = list(plain.CASES[start])
    case[1] = {**case[1], **keys}
    plain.CASES[name] = tuple(case)
    config, model, _ = plain.build(name)
    out = {}
    for key, v in model.state_dict().items():
        key = key.replace("base_model.model.", "").replace(".base_layer", "")
        if "lora_" in key or (config.tie_word_embeddings and key == "lm_head.weight"): continue
        if not key.endswith(".weight") or key.split(".")[-2] not in PARTS:
            out[key] = v.to(HALF).contiguous().clone()
            continue
        stem, tile = key[: -len("weight")], tile_of(v.shape)
        scale = held(tile_scales(v, tile))
        out[key] = encode(v, spread(scale.float().reshape(-(-v.shape[0] // tile[0]), -1), v.shape, tile))
        out[stem + suffix] = scale.contiguous()
        if name == "fp8_tensor": out[stem + "input_scale"] = torch.tensor([0.01], dtype=HALF)
    os.makedirs(folder + "/model", exist_ok=True)
    config.dtype = "bfloat16"
    config.save_pretrained(folder + "/model")
    path = folder + "/model/config.json"
    doc = json.load(open(path)); doc["quantization_config"] = quantisation
    json.dump(doc, open(path, "w"), indent=2, sort_keys=True)
    save_file(out, folder + "/model/model.safetensors", {"format": "pt"})
    return case[2]


def values(tensors, name):
    w = tensors[name]
    if w.dtype != FP8: return w.float()
    stem = name[: -len("weight")]
    scale = tensors.get(stem + "weight_scale_inv", tensors.get(stem + "weight_scale")).float()
    tile = list(w.shape) if scale.numel() == 1 else [1, w.shape[1]] if scale.shape == (w.shape[0], 1) else TILE
    return w.float() * spread(scale.reshape(-(-w.shape[0] // tile[0]), -1), w.shape, tile)


def same_as_transformers():
    """Of a model like fp8_tiles but with whole tiles, which Transformers asks for."""
    CASES["even"] = ("qwen3", dict(hidden_size=96, intermediate_size=240), *CASES["fp8_tiles"][2:])
    CASES["even"][1].update(head_dim=48)
    global TILE
    TILE = CASES["even"][2]["weight_block_size"] = [48, 16]
    work = tempfile.mkdtemp()
    quantise("even", work)
    path, tensors = work + "/model", load_file(work + "/model/model.safetensors")
    config = transformers.FineGrainedFP8Config(weight_block_size=TILE, dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=SINGLE, device_map="cpu", quantization_config=config)
    compared = 0
    for key, v in model.state_dict().items():
        if key in tensors and tensors[key].dtype == FP8:
            assert torch.equal(v.float(), values(tensors, key).to(v.dtype).float()), (key, v.dtype)
            compared += 1
    shutil.rmtree(work)
    print(compared, "weights decoded by Transformers to the same values in", v.dtype)
    assert compared > 0


def unit_golden():
    torch.manual_seed(8)
    out = {"codes.values": torch.arange(256, dtype=torch.uint8).view(FP8).float()}
    values = out["codes.values"][torch.isfinite(out["codes.values"])].unique()
    ties = (values[1:] + values[:-1]) / 2
    x = torch.cat([values, ties, torch.nextafter(ties, torch.tensor(1e9)), torch.nextafter(ties, torch.tensor(-1e9)), torch.randn(300), torch.randn(300) * 1e-2,
                   torch.randn(200) * 100, torch.tensor([0.0, -0.0, 448.0, -448.0, 2.0**-10, 1.5 * 2.0**-10, 1e-30, -1e-30])]).clamp(-448, 448)
    out["x"], out["x.codes"] = x, x.to(FP8).view(torch.uint8)
    w = torch.randn(7, 33) * torch.logspace(-6, 4, 7)[:, None]
    w[3] = 0
    scales = w.abs().amax(1) / 448
    out["w"], out["w.scales"] = w, scales
    codes = (w / torch.where(scales > 0, scales, torch.ones(()))[:, None]).to(FP8)
    out["w.codes"] = codes.view(torch.uint8)
    save_file(out, f"{plain.HERE}/golden/fp8.safetensors", {"versions": f"torch {torch.__version__}"})


if __name__ == "__main__":
    unit_golden()
    quantised.quantise, quantised.values = quantise, values
    for case in list(CASES): quantised.make(case)
    same_as_transformers()
