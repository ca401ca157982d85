# SPDX-License-Identifier: Apache-2.0
import torch

from cases import TYPES, Case, eager_and_compiled, input_sets, leaf, size_of
from exact import Wrong, compare, difference


def check(pick, generator, dtype, device):
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


def cases(device, small, quick):
    for name, dtype in TYPES.items():
        for b in (8,) if small else (4096, 65536, 1 << 20):
            yield case(name, dtype, b, device)


def case(name, dtype, b, device):
    size = b * 128 * size_of(dtype)

    def make():
        return [leaf(b, 128, dtype=dtype, device=device) for _ in range(2)], torch.randn(b, 128, device=device).to(dtype)

    def eager(mean, log_var):
        return mean + (0.5 * log_var.clamp(-20, 10)).exp() * torch.randn_like(mean)
    # mean, log_var, z; the upstream gradient and log_var again, two gradients.
    return Case(name=f"[{b},128] {name}", dtype=name, small=b <= 4096, bytes=7 * size, sets=input_sets(make, 3 * size, device),
                ours=lambda m, v: torch.ops.molfuse.reparameterize(m, v, 7), peers=eager_and_compiled("eager", eager), same_result=False)
