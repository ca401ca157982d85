# SPDX-License-Identifier: Apache-2.0
import torch

from cases import TYPES, Case, eager_and_compiled, input_sets, leaf, size_of
from exact import compare


def chain(logits, targets, mean, log_var, beta, pad):
    """The formula; logits [B,T,K]"""
    nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=pad, reduction="sum")
    recon = nll / ((targets != pad).sum() + 1e-8)
    lv = log_var.clamp(-20, 10)
    kl = -0.5 * (1 + lv - mean.square() - lv.exp()).mean()
    return recon + beta * kl


def check(pick, generator, dtype, device):
    b, t = pick.choice((1, 3, 16)), pick.choice((1, 2, 7, 64, 127))
    k = pick.choice((1, 2, 5, 8, 39, 40, 41, 64, 96, 127, 128, 300, 513, 1024, 1025, 2000, 8192))
    second, pad = pick.random() < 0.5, pick.choice((0, -100))
    describe = f"B {b} T {t} K {k}{' class second' if second else ''} pad {pad}"
    targets = torch.randint(0, k, (b, t), generator=generator).to(device)
    targets[torch.rand(b, t, generator=generator).to(device) < 0.2] = pad
    inputs = [2 * torch.randn(b, t, k, device=device), torch.randn(b, 17, device=device), 2 * torch.randn(b, 17, device=device)]

    def ours(logits, mean, log_var):
        if second:
            logits = logits.transpose(1, 2).contiguous()
        return torch.ops.molfuse.vae_loss(logits, targets, mean, log_var, 0.3, pad, "mean", second)[0]
    return describe, lambda: compare(ours, lambda x, m, v: chain(x, targets, m, v, 0.3, pad), inputs, dtype, device)


def cases(device, small, quick):
    grid = [(4, 127, 40)] if small else [(b, 127, k) for b in (256, 1024, 4096) for k in (40, 300, 2000)] + [(64, 127, 32000)]
    for second in (False, True):
        for name, dtype in TYPES.items():
            for b, t, k in grid:
                yield case(name, dtype, b, t, k, second, device)


def case(name, dtype, b, t, k, second, device):
    size = b * t * k * size_of(dtype)
    targets = torch.randint(1, k, (b, t), device=device)

    def make():
        logits = leaf(*((b, k, t) if second else (b, t, k)), dtype=dtype, device=device)
        return [logits, *(leaf(b, 128, dtype=torch.float32, device=device) for _ in range(2))], torch.ones((), device=device)

    def ours(x, m, v):
        return torch.ops.molfuse.vae_loss(x, targets, m, v, 1e-4, 0, "mean", second)[0]

    def eager(x, m, v):
        return chain(x.transpose(1, 2) if second else x, targets, m, v, 1e-4, 0).float()
    return Case(name=f"[{b},{t},{k}]{' class second' if second else ''} {name}", dtype=name, small=b <= 256 and k <= 40,
                # The logits read once and their gradient written once.
                bytes=2 * size, sets=input_sets(make, 2 * size, device), ours=ours, peers=eager_and_compiled("eager", eager))
