# SPDX-License-Identifier: Apache-2.0
"""Results and gradients against the formula in f64: an error of at most twice that of PyTorch's own operators in the same type, plus a
little for rounding."""
import math

import torch

EPSILON = {torch.float32: 2.0 ** -24, torch.bfloat16: 2.0 ** -8, torch.float16: 2.0 ** -11}


class Wrong(Exception):
    pass


def difference(a, b):
    wrong = (a.detach().double() - b.detach()).abs()
    if wrong.numel() == 0:
        return 0.0
    if torch.isnan(wrong).any():
        raise Wrong("NaN")
    return float(wrong.max())


def close(what, got, eager, exact, dtype, terms=0.0):
    """terms: the size of what a result is a sum of, if that is larger than the result."""
    size = max(terms, float(exact.detach().abs().max()) if exact.numel() else 0.0)
    allowed = 2 * difference(eager, exact) + (16 * EPSILON[torch.float32] + 2 * EPSILON[dtype]) * size
    if not math.isfinite(allowed):
        raise Wrong(f"{what}: PyTorch's own result is not finite, so that there is nothing to compare with")
    error = difference(got, exact)
    if not error <= allowed:
        raise Wrong(f"{what}: error {error:.3g}, allowed {allowed:.3g}")


def compare(ours, formula, inputs, dtype, device):
    """The three computations on the same numbers, outputs and gradients of a random weighted sum."""
    leaves = [[x.to(dtype).to(to).detach().requires_grad_() for x in inputs] for to in (dtype, dtype, torch.float64)]
    results = [ours(*leaves[0]), formula(*leaves[1]), formula(*leaves[2])]
    close("result", *results, dtype)
    upstream = torch.randn(results[2].shape, dtype=torch.float64, device=device).to(results[0].dtype)
    gradients = []
    for result, own in zip(results, leaves):
        gradients.append(torch.autograd.grad(result, own, upstream.to(result.dtype), allow_unused=True))
    largest = max((float(g.abs().max()) for g in gradients[2] if g is not None and g.numel()), default=0.0)
    for n, (got, eager, exact) in enumerate(zip(*gradients)):
        if exact is not None:
            close(f"gradient {n}", got, eager, exact, dtype, largest)


def strided(x):
    """The same numbers in memory with gaps."""
    wide = x.new_full((*x.shape[:-1], x.shape[-1] + 3), float("nan"))
    wide[..., : x.shape[-1]] = x
    return wide[..., : x.shape[-1]]
