#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every CUDA operator and gradient against the formula in f64 on random problems, and the peers that are called through code of this
repository on a few."""
import argparse
import json
import random
import sys
import time

import torch

import common
import robust
from exact import Wrong, compare

TYPES = (torch.float32, torch.bfloat16, torch.float16)


def check_family(name, module, seed, count, device, report):
    for dtype in TYPES:
        started = time.monotonic()
        for n in range(count):
            pick = random.Random(f"{seed} {name} {dtype} {n}")
            torch.manual_seed(pick.getrandbits(32))
            generator = torch.Generator().manual_seed(pick.getrandbits(32))
            describe, run = module.check(pick, generator, dtype, device)
            try:
                run()
            except (Wrong, RuntimeError, ValueError) as wrong:
                report["failures"].append(f"{name} {dtype} case {n}, {describe}: {str(wrong).splitlines()[0]}")
        report["cases"][f"{name} {dtype}"] = count
        print(f"{name} {str(dtype).removeprefix('torch.')}: {count} cases in {time.monotonic() - started:.1f} s", flush=True)


def check_peers(name, module, seed, device, report):
    """A peer that gives wrong results would not be worth its time."""
    started, count = time.monotonic(), 0
    generator = torch.Generator().manual_seed(seed)
    for describe, peers, formula, inputs in module.check_peers(generator, device, few=device.type == "cpu"):
        for peer in peers:
            if peer.call is None:
                report["peers_absent"][peer.name] = peer.absent
                continue
            for dtype in peer_types(peer, device):
                try:
                    compare(peer.call, formula, inputs, dtype, device)
                except Exception as wrong:  # whatever others' code may raise
                    report["failures"].append(f"{name} peer {peer.name} {dtype}, {describe}: {(str(wrong) or repr(wrong)).splitlines()[0]}")
                count += 1
    report["cases"][f"{name} peers"] = count
    print(f"{name} peers: {count} cases in {time.monotonic() - started:.1f} s", flush=True)


def peer_types(peer, device):
    # Where sums are kept in 16 bits, an atomic addition's order decides how well they do.
    if not peer.name.startswith("Triton"):
        return TYPES[:1]
    return TYPES[:2] if device.type == "cpu" else TYPES


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    common.add_options(parser)
    parser.add_argument("--few", action="store_true", help="a handful of cases, for the sanitizers")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    common.load(options)
    device = torch.device("cpu" if options.dry_run else "cuda")
    if not options.dry_run:
        # The references shall be what they say.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    count = 4 if options.few or (options.dry_run and options.quick) else 20 if options.dry_run else 60 if options.quick else 400
    report = {"seed": seed, "device": str(device), "cases": {}, "peers_absent": {}, "failures": []}
    if not options.few:
        report["failures"] += robust.check([name for name, _ in common.families(options)], device)
    print(f"seed {seed}, {count} cases a family and type")
    for name, module in common.families(options):
        # The sanitizers are for our kernels.
        module.WITH_CUDNN = not options.few
        check_family(name, module, seed, count, device, report)
        if not options.few and hasattr(module, "check_peers"):
            check_peers(name, module, seed, device, report)
    report["cudnn"] = {name: module.CUDNN for name, module in common.families(options) if hasattr(module, "CUDNN")}
    if not options.few:
        (options.output / "check.json").write_text(json.dumps(report, indent=2) + "\n")
    for failure in report["failures"][:40]:
        print(failure)
    for name, module in common.families(options):
        for outcome, count in sorted(getattr(module, "CUDNN", {}).items()):
            print(f"{name} by cuDNN: {outcome}: {count}")
    for name, why in report["peers_absent"].items():
        print(f"peer {name} is absent: {why}")
    print(f"{len(report['failures'])} failures, {sum(report['cases'].values())} cases")
    return bool(report["failures"])


if __name__ == "__main__":
    sys.exit(main())
