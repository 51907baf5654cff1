#!/usr/bin/env python3
"""Writes golden/optim_8bit.safetensors: steps of bitsandbytes' AdamW with block-wise 8-bit states, by its own PyTorch implementation
(backends/triton/kernels_optim.py, optimizer_update_8bit_blockwise_pytorch), which rounds to the nearest code. The CPU backend of 0.50 does the same arithmetic
but looks codes up in a coarse table: of a block that is not zero it rounds 0 to 1e-5 of the largest, so it is no oracle for the codes; how far its parameters
are from these is printed.

  start F32 [n], grads F32 [steps, n]
  CASE.keys F64 [5]                     learning_rate, beta1, beta2, epsilon, weight_decay
  CASE.p F32 [steps, n], CASE.m, CASE.v U8 [steps, n], CASE.m_absmax, CASE.v_absmax F32 [steps, blocks]     behind every step
  map.signed, map.unsigned F32 [256]

usage: make_optim_8bit_golden.py OUT.safetensors      (torch 2.15, bitsandbytes 0.50.2)
"""
import os, sys

os.environ["TORCHDYNAMO_DISABLE"] = "1"
import bitsandbytes as bnb, torch
from bitsandbytes.backends.triton.kernels_optim import optimizer_update_8bit_blockwise_pytorch as update
from safetensors.torch import save_file

COUNT, STEPS = 1101, 8
CASES = {"adamw": (3e-3, 0.9, 0.999, 1e-8, 0.0), "decay": (1e-2, 0.8, 0.95, 1e-6, 0.1)}


def run(step, start, grads, keys, maps):
    rate, beta1, beta2, epsilon, decay = keys
    blocks = -(-COUNT // 256)
    p, m, v = start.clone(), torch.zeros(COUNT, dtype=torch.uint8), torch.zeros(COUNT, dtype=torch.uint8)
    a, b, out = torch.zeros(blocks), torch.zeros(blocks), []
    for s in range(STEPS):
        step(p, grads[s], m, v, beta1, beta2, epsilon, s + 1, rate, a, b, decay)
        out.append([x.clone() for x in (p, m, v, a, b)])
    return [torch.stack(x) for x in zip(*out)]


def main():
    torch.manual_seed(11)
    maps = [bnb.functional.create_dynamic_map(signed=s) for s in (True, False)]
    start = torch.randn(COUNT)
    # None so small that its square would be rounded to 0 beside a mean that is not: there bitsandbytes divides by epsilon alone, and we do not.
    grads = torch.randn(STEPS, COUNT)
    grads = grads.sign() * grads.abs().clamp(0.02) * 10.0 ** (-0.5 * torch.rand(COUNT))
    grads[:, 256:512] *= (torch.rand(STEPS, 256) < 0.1)  # rows of an embedding that are seldom met
    grads[2:5, 512:768] = 0
    grads[:2, 768:1024] = 0  # a block that is zero at first
    exact = lambda p, g, m, v, b1, b2, e, s, r, a, b, d: update(p, g, m, v, b1, b2, 0.0, 0.0, e, s, r, *maps, a, b, d, 1.0, False, optimizer_name="adam")
    coarse = lambda p, g, m, v, b1, b2, e, s, r, a, b, d: torch.ops.bitsandbytes.optimizer_update_8bit_blockwise("adam", g, p, m, v, b1, b2, 0.0, 0.0, e, s, r, *maps, a, b, d, 1.0, False)
    out = {"start": start, "grads": grads, "map.signed": maps[0], "map.unsigned": maps[1]}
    for name, keys in CASES.items():
        values = run(exact, start, grads, keys, maps)
        out[name + ".keys"] = torch.tensor(keys, dtype=torch.float64)
        for suffix, x in zip(("p", "m", "v", "m_absmax", "v_absmax"), values): out[f"{name}.{suffix}"] = x
        print(name, "largest difference of the CPU backend's parameters", (run(coarse, start, grads, keys, maps)[0] - values[0]).abs().max().item(), "in steps of", keys[0])
    save_file(out, sys.argv[1], {"made by": f"torch {torch.__version__}, bitsandbytes {bnb.__version__}"})


main()
