# SPDX-License-Identifier: Apache-2.0
import torch

from cases import TYPES, Case, eager_and_compiled, input_sets, leaf, optional, size_of
from cases.vae_loss import chain
from exact import compare, strided


def unfused(hidden, weight, weight_bias, targets, mean, log_var, beta, pad):
    """The formula."""
    return chain(torch.nn.functional.linear(hidden, weight, weight_bias), targets, mean, log_var, beta, pad)


def check(pick, generator, dtype, device):
    b, t = pick.choice((1, 3, 16)), pick.choice((1, 2, 7, 64, 127))
    # As many channels as the kernels take.
    c = pick.choice((1, 8, 17, 64, 100, 256, 264, 512) + ((1024,) if dtype != torch.float32 else ()))
    k = pick.choice((1, 2, 5, 8, 39, 40, 41, 64, 127, 128, 129, 300, 513, 2000))
    pad, biased, gaps = pick.choice((0, -100)), pick.random() < 0.7, pick.random() < 0.3
    reduction = pick.choice(("mean", "mean", "sum"))
    describe = f"B {b} T {t} C {c} K {k}{' bias' if biased else ''}{' strided' if gaps else ''} pad {pad} {reduction}"
    targets = torch.randint(0, k, (b, t), generator=generator).to(device)
    targets[torch.rand(b, t, generator=generator).to(device) < pick.choice((0.0, 0.2, 1.0))] = pad
    inputs = [torch.randn(b, t, c, device=device), 2 * torch.randn(k, c, device=device) / c ** 0.5, torch.randn(b, 17, device=device),
              2 * torch.randn(b, 17, device=device)]
    if biased:
        inputs.append(torch.randn(k, device=device))
    # Sums, as means with the factors that were divided by.
    count = int((targets != pad).sum()) + 1e-8

    def ours(hidden, weight, mean, log_var, weight_bias=None):
        if gaps:
            hidden, weight = strided(hidden), strided(weight)
        total, recon, kl = torch.ops.molfuse.linear_vae_loss(hidden, weight, weight_bias, targets, mean, log_var, 0.3, pad, reduction)[:3]
        return total if reduction == "mean" else recon / count + 0.3 * kl / mean.numel()

    def eager(hidden, weight, mean, log_var, weight_bias=None):
        return unfused(hidden, weight, weight_bias, targets, mean, log_var, 0.3, pad)
    return describe, lambda: compare(ours, eager, inputs, dtype, device)


def liger(targets, pad):
    def make(module):
        loss = module.LigerFusedLinearCrossEntropyLoss(ignore_index=pad, reduction="mean")
        return with_kl(lambda hidden, weight, bias: loss(weight, hidden.flatten(0, 1), targets.flatten(), bias))
    return make


def cut(targets, pad):
    def make(module):
        return with_kl(lambda hidden, weight, bias: module.linear_cross_entropy(hidden.flatten(0, 1), weight, targets.flatten(), bias=bias,
                                                                                ignore_index=pad, reduction="mean"))
    return make


def with_kl(recon):
    def call(hidden, weight, bias, mean, log_var):
        lv = log_var.clamp(-20, 10)
        return (recon(hidden, weight, bias) - 1e-4 * 0.5 * (1 + lv - mean.square() - lv.exp()).mean()).float()
    return call


def cases(device, small, quick):
    batches = (1024,) if quick else (256, 1024, 4096)
    grid = [(4, 127, 40)] if small else [(b, 127, k) for b in batches for k in (40, 300, 2000)] + [(64, 127, 32000)]
    for name, channels in (("bf16", 256), ("bf16", 1024), ("f32", 256)):
        for b, t, k in grid:
            yield case(name, TYPES[name], b, t, 16 if small else channels, k, device)


def case(name, dtype, b, t, c, k, device):
    targets = torch.randint(1, k, (b, t), device=device)

    def make():
        weights = [(torch.randn(shape, device=device) / c ** 0.5).to(dtype).requires_grad_() for shape in ((k, c), (k,))]
        latent = [leaf(b, 128, dtype=torch.float32, device=device) for _ in range(2)]
        return [leaf(b, t, c, dtype=dtype, device=device), *weights, *latent], torch.ones((), device=device)

    def ours(hidden, weight, bias, mean, log_var):
        return torch.ops.molfuse.linear_vae_loss(hidden, weight, bias, targets, mean, log_var, 1e-4, 0)[0]

    def eager(hidden, weight, bias, mean, log_var):
        return unfused(hidden, weight, bias, targets, mean, log_var, 1e-4, 0).float()
    size = size_of(dtype)
    return Case(name=f"[{b},{t},{c}] K{k} {name}", dtype=name, small=b <= 256 and k <= 40,
                # Hidden states and weights read once, their gradients written once.
                bytes=2 * (b * t * c + k * c) * size,
                # The logits, and the gradients of both of their factors.
                flops=6 * b * t * c * k, matrix=True, forward=True, sets=input_sets(make, 2 * (b * t + k) * c * size, device), ours=ours,
                peers=[*eager_and_compiled("eager", eager),
                       *optional("Liger", "liger_kernel.transformers", liger(targets, 0), compiled=False),
                       *optional("cut cross entropy", "cut_cross_entropy", cut(targets, 0), compiled=False)])
