#!/usr/bin/env python3
"""Writes golden/scaled.safetensors: what bitsandbytes' CUDA library (0.50.2, H200) answered, cut down to what test_scaled
needs, from the project's shared reference/bnb_cuda.safetensors. Its CPU library gives other bytes in corners, so it is
no source for these.

  TAG.x                                values: odd and short sizes, all-zero blocks, 16-bit inputs
  TAG.nf4.codes, .absmax, .decoded     4-bit codes with plain scales (fp4 the same)
  TAG.nf4.nested.absmax_codes, .absmax2, .offset, .decoded    the same codes, scales quantised once more
  int8.w, int8.CB, int8.SCB            an LLM.int8 weight
  map.signed                           the map of 8-bit scales

usage: make_scaled_golden.py REFERENCE OUT.safetensors
"""
import sys

from safetensors import safe_open
from safetensors.torch import save_file

TAGS = ["fp32_short", "fp32_odd", "fp16", "bf16_zero_blocks"]


def main():
    out = {}
    with safe_open(sys.argv[1], "pt") as f:
        made_with = f.metadata()["made_with"]
        for name in f.keys():
            if name.startswith("fp16.") and name.endswith("decoded"):
                continue  # large, and decoding does not ask where values came from
            if name.split(".")[0] in TAGS or name in ("int8.w", "int8.CB", "int8.SCB", "map.signed"):
                out[name] = f.get_tensor(name)
    save_file(out, sys.argv[2], {"made_with": made_with})


main()
