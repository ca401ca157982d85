#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every CUDA operator and gradient against the formula in f64, on random problems: an error of at most twice that of PyTorch's own operators
in the same type, plus a little for rounding."""
import argparse
import json
import random
import sys
import time

import torch

import common
import robust

TYPES = (torch.float32, torch.bfloat16, torch.float16)
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


def check_graph_attention(pick, generator, dtype, device):
    nodes, heads = pick.choice((1, 2, 24, 25, 60, 200)), pick.choice((1, 2, 3, 8))
    channels = pick.choice((1, 4, 7, 8, 16, 24, 32, 33, 64, 100, 128, 256, 512))
    graph = (common.skewed(nodes, pick.choice((10, 3000)), generator, device) if nodes > 1 and pick.random() < 0.3
             else common.molecules(nodes, generator, device))
    inputs = [torch.randn(nodes, heads, channels, device=device) for _ in range(3)]
    gaps = pick.random() < 0.3 and channels <= 250
    describe = f"V {nodes} H {heads} C {channels} E {len(graph.source)}{' strided' if gaps else ''}"

    def ours(query, key, value):
        if gaps:
            query, key = strided(query), strided(key)
        return torch.ops.molfuse.graph_attention(query, key, value, *graph.arguments())

    def formula(query, key, value):
        return common.graph_attention(query, key, value, graph.source, graph.target, nodes)
    return describe, lambda: compare(ours, formula, inputs, dtype, device)


def check_vae_loss(pick, generator, dtype, device):
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
    return describe, lambda: compare(ours, lambda x, m, v: common.vae_loss(x, targets, m, v, 0.3, pad), inputs, dtype, device)


def check_latent_concat(pick, generator, dtype, device):
    counts = [pick.choice((0, 1, 2, 25, 60, 900)) for _ in range(pick.choice((1, 2, 5, 40)))]
    widths = [pick.choice((1, 7, 8, 32, 100, 256, 2048)) for _ in range(pick.choice((1, 2, 8)))]
    describe = f"graphs {counts[:6]} widths {widths}"
    nodes = sum(counts)
    graph_ptr = torch.tensor([0, *torch.tensor(counts).cumsum(0).tolist()], device=device, dtype=pick.choice((torch.int32, torch.int64)))
    batch = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(device)
    column = torch.tensor(counts, device=device).clamp(min=1)[:, None]
    inputs = [torch.randn(nodes, width, device=device) for width in widths]
    return describe, lambda: compare(lambda *layers: torch.ops.molfuse.latent_concat(list(layers), graph_ptr),
                                     lambda *layers: common.latent_concat(layers, batch, len(counts), column), inputs, dtype, device)


def check_reparameterize(pick, generator, dtype, device):
    b, length = pick.choice((1, 3, 64, 500)), pick.choice((1, 5, 8, 128, 130, 256))
    describe = f"B {b} L {length}"
    seed = pick.getrandbits(40)
    inputs = [torch.randn(b, length, device=device), torch.randn(b, length, device=device)]
    # The noise is the operator's own; that of f64 on the CPU is its contract, and f32 has it to 24 bits.
    zero = torch.zeros(b, length, device=device)
    reference = torch.ops.molfuse.reparameterize(zero.cpu().double(), zero.cpu().double(), seed).to(device)

    def formula(mean, log_var):
        return mean + (0.5 * log_var.clamp(-20, 10)).exp() * reference.to(mean.dtype)

    def run():
        off = difference(torch.ops.molfuse.reparameterize(zero, zero, seed), reference)
        if off > 2e-6:
            raise Wrong(f"noise differs from the CPU's by {off:.3g}")
        compare(lambda m, v: torch.ops.molfuse.reparameterize(m, v, seed), formula, inputs, dtype, device)
    return describe, run


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    common.add_options(parser)
    parser.add_argument("--few", action="store_true", help="a handful of cases, for the sanitizers")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    common.load()
    device = torch.device("cpu" if options.dry_run else "cuda")
    if not options.dry_run:
        # The references shall be what they say.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    count = 4 if options.few else 20 if options.dry_run else 60 if options.quick else 400
    report = {"seed": seed, "device": str(device), "cases": {}, "failures": []}
    if not options.few:
        report["failures"] += robust.check(common.families(options), device)
    print(f"seed {seed}, {count} cases a family and type")
    for family in common.families(options):
        for dtype in TYPES:
            started = time.monotonic()
            for n in range(count):
                pick = random.Random(f"{seed} {family} {dtype} {n}")
                torch.manual_seed(pick.getrandbits(32))
                generator = torch.Generator().manual_seed(pick.getrandbits(32))
                describe, run = globals()[f"check_{family}"](pick, generator, dtype, device)
                try:
                    run()
                except (Wrong, RuntimeError, ValueError) as wrong:
                    report["failures"].append(f"{family} {dtype} case {n}, {describe}: {str(wrong).splitlines()[0]}")
            report["cases"][f"{family} {dtype}"] = count
            print(f"{family} {str(dtype).removeprefix('torch.')}: {count} cases in {time.monotonic() - started:.1f} s", flush=True)
    if not options.few:
        (options.output / "check.json").write_text(json.dumps(report, indent=2) + "\n")
    for failure in report["failures"][:40]:
        print(failure)
    print(f"{len(report['failures'])} failures, {sum(report['cases'].values())} cases")
    return bool(report["failures"])


if __name__ == "__main__":
    sys.exit(main())
