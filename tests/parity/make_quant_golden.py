#!/usr/bin/env python3
"""Writes golden/quant.safetensors: blocks of every GGUF type with the values the `gguf` package decodes them to, and
for the types it can encode, values with the bytes it encodes them to. test_quant compares bit for bit.

  TYPE.blocks U8 [n, bytes]      random bytes, their fp16 scales made finite (zero, subnormal and negative ones among them)
  TYPE.values F32 [n, elements]  what gguf decodes them to
  TYPE.input  F32 [n, elements], TYPE.bytes U8 [n, bytes]   encoding, where the package has it

usage: make_quant_golden.py OUT.safetensors
"""
import sys
from importlib.metadata import version

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T, quants
from safetensors.numpy import save_file

# offsets of the fp16 fields of a block
SCALES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.IQ4_NL: [0], T.IQ4_XS: [0],
          T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}
ENCODED = [T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0]


def random_blocks(rng, kind, count):
    blocks = rng.integers(0, 256, (count, gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    for at in SCALES[kind]:
        scale = (rng.standard_normal(count) * 0.05).astype(np.float16)
        scale[:3] = [0.0, 3e-7, 1234.0]
        blocks[:, at:at + 2] = scale.view(np.uint8).reshape(count, 2)
    return blocks


def inputs(rng, elements):
    x = rng.standard_normal((9, elements)).astype(np.float32)
    x[1] = np.abs(x[1])      # only positive
    x[2] = -np.abs(x[2])     # only negative
    x[3] = 0.5               # all equal
    x[4] *= 1e-6             # scales that are subnormal in fp16
    x[5] *= 1e4
    x[6, ::3] = 0.0
    x[7] = np.round(x[7] * 4) / 4  # ties
    x[8, 5] = 40.0           # an outlier
    return x


def main():
    rng, out = np.random.default_rng(20), {}
    for kind in SCALES:
        elements = gguf.GGML_QUANT_SIZES[kind][0]
        blocks = random_blocks(rng, kind, 12 if elements == 32 else 5)
        out[f"{kind.name.lower()}.blocks"] = blocks
        out[f"{kind.name.lower()}.values"] = quants.dequantize(blocks, kind).astype(np.float32)
    for kind in ENCODED:
        x = inputs(rng, 32)
        out[f"{kind.name.lower()}.input"] = x
        out[f"{kind.name.lower()}.bytes"] = quants.quantize(x, kind)
    save_file(out, sys.argv[1], {"made by": f"gguf {__import__('importlib.metadata').metadata.version('gguf')}, numpy {np.__version__}"})
    print("gguf", version("gguf"), "numpy", np.__version__)


main()
