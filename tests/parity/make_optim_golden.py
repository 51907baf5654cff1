#!/usr/bin/env python3
"""Writes golden/optim.safetensors: several steps of each optimizer on flat arrays of ragged sizes, with clipping, a
changing rate and, in one step, gradients of zero. AdamW and SGD are torch.optim's on float64 tensors, clipped by
torch.nn.utils.clip_grad_norm_; Lion is Algorithm 2 of "Symbolic discovery of optimization algorithms" (Chen et al.,
2023) written out in float64. Everything is stored as float32, so the difference that is left is ours.

  start F32 [n], grads F32 [steps, n]        shared by all
  rates F64 [steps], max_norm F64 [1]
  CASE.keys F64 [5]                          beta1, beta2, epsilon, weight_decay, momentum
  CASE.p F32 [steps, n]                      parameters behind every step
  CASE.m, CASE.v F32 [n]                     state behind the last, where the optimizer has it

usage: make_optim_golden.py OUT.safetensors
"""
import sys

import numpy as np
import torch
from safetensors.numpy import save_file

COUNT, STEPS, MAX_NORM = 389, 6, 1.0
RATES = [3e-3, 1e-2, 7e-3, 5e-3, 1e-3, 2e-4]
CASES = {  # kind, beta1, beta2, epsilon, weight_decay, momentum
    "adamw": ("adamw", 0.9, 0.999, 1e-8, 0.0, 0.0),
    "adamw_decay": ("adamw", 0.8, 0.95, 1e-6, 0.1, 0.0),
    "sgd": ("sgd", 0.9, 0.999, 1e-8, 0.0, 0.0),
    "sgd_momentum": ("sgd", 0.9, 0.999, 1e-8, 0.0, 0.9),
    "sgd_momentum_decay": ("sgd", 0.9, 0.999, 1e-8, 0.1, 0.75),
    "lion": ("lion", 0.9, 0.99, 1e-8, 0.0, 0.0),
    "lion_decay": ("lion", 0.95, 0.98, 1e-8, 0.3, 0.0),
}


def with_torch(kind, start, grads, beta1, beta2, epsilon, decay, momentum):
    p = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
    if kind == "adamw":
        optimizer = torch.optim.AdamW([p], lr=1.0, betas=(beta1, beta2), eps=epsilon, weight_decay=decay)
    else:
        optimizer = torch.optim.SGD([p], lr=1.0, momentum=momentum, weight_decay=decay)
    history = []
    for rate, gradient in zip(RATES, grads):
        optimizer.param_groups[0]["lr"] = rate
        p.grad = torch.tensor(gradient, dtype=torch.float64)
        torch.nn.utils.clip_grad_norm_([p], MAX_NORM)
        optimizer.step()
        history.append(p.detach().numpy().copy())
    state = optimizer.state[p]
    m = state.get("exp_avg", state.get("momentum_buffer"))
    v = state.get("exp_avg_sq")
    return history, None if m is None else m.numpy(), None if v is None else v.numpy()


def lion(start, grads, beta1, beta2, decay):
    p, m, history = start.astype(np.float64), np.zeros(COUNT), []
    for rate, gradient in zip(RATES, grads.astype(np.float64)):
        gradient = gradient * min(1.0, MAX_NORM / (np.linalg.norm(gradient) + 1e-6))
        update = np.sign(beta1 * m + (1 - beta1) * gradient)
        p = p - rate * (update + decay * p)
        m = beta2 * m + (1 - beta2) * gradient
        history.append(p.copy())
    return history, m, None


def main():
    rng = np.random.default_rng(7)
    start = rng.standard_normal(COUNT).astype(np.float32)
    grads = (rng.standard_normal((STEPS, COUNT)) * 10.0 ** rng.uniform(-4, 0, COUNT)).astype(np.float32)
    grads[1] *= 1e-3  # below max_norm: not clipped
    grads[3] = 0
    out = {"start": start, "grads": grads, "rates": np.array(RATES), "max_norm": np.array([MAX_NORM])}
    for name, (kind, *keys) in CASES.items():
        if kind == "lion":
            history, m, v = lion(start, grads, keys[0], keys[1], keys[3])
        else:
            history, m, v = with_torch(kind, start, grads, *keys)
        out[f"{name}.keys"] = np.array(keys)
        out[f"{name}.p"] = np.stack(history).astype(np.float32)
        for suffix, state in (("m", m), ("v", v)):
            if state is not None:
                out[f"{name}.{suffix}"] = state.astype(np.float32)
    save_file(out, sys.argv[1], {"made by": f"torch {torch.__version__}, numpy {np.__version__}"})


main()
