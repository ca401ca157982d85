#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times the CUDA operators, forward and backward together, and what others do on the same inputs in the same run.

Each case has its floor: the fewest bytes that must be moved, over the copy bandwidth measured in this run. Times are medians of device
events; the inputs of successive runs are different tensors, so that no run finds its inputs in the second-level cache."""
import argparse
import json
import statistics
import time

import torch

import common

TYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


class Clock:
    def __init__(self, device, quick):
        self.device = device
        self.seconds = 0.05 if quick else 0.3

    def median(self, runs):
        """Median milliseconds of calling runs[0], runs[1], ... in turn."""
        for run in runs[:3] * 2:
            run()
        times, spent, n = [], 0.0, 0
        while spent < self.seconds or n < 10:
            run = runs[n % len(runs)]
            if self.device.type == "cuda":
                begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                begin.record()
                run()
                end.record()
                end.synchronize()
                milliseconds = begin.elapsed_time(end)
            else:
                started = time.perf_counter()
                run()
                milliseconds = 1e3 * (time.perf_counter() - started)
            times.append(milliseconds)
            spent += milliseconds / 1e3
            n += 1
        return statistics.median(times)


def ceilings(clock, device, small):
    elements = (1 << 22) if small else (1 << 29)
    source, target = torch.randn(elements // 4, device=device), torch.empty(elements // 4, device=device)
    copy = 2 * source.numel() * 4 / (clock.median([lambda: target.copy_(source)]) * 1e-3)
    n = 256 if small else 8192
    a, b = (torch.randn(n, n, device=device).to(torch.bfloat16) for _ in range(2))
    multiply = 2 * n ** 3 / (clock.median([lambda: a @ b]) * 1e-3)
    return {"copy_bytes_per_second": copy, "bf16_matmul_operations_per_second": multiply}


def forward_backward(function, inputs, upstream):
    return lambda: torch.autograd.grad(function(*inputs), inputs, upstream)


class Case:
    def __init__(self, name, family, dtype, bytes_moved, sets, ours, peers):
        self.name, self.family, self.dtype, self.bytes = name, family, dtype, bytes_moved
        self.sets, self.ours, self.peers = sets, ours, peers


def leaf(*shape, dtype, device):
    return torch.randn(*shape, device=device).to(dtype).requires_grad_()


def copies_for(bytes_of_one, device):
    """Input sets that together are larger than the second-level cache."""
    cache = torch.cuda.get_device_properties(device).L2_cache_size if device.type == "cuda" else 1 << 20
    return max(2, min(8, 1 + 2 * cache // max(1, bytes_of_one)))


def compiled(function):
    return torch.compile(function, dynamic=False)


def graph_attention_cases(device, small):
    generator = torch.Generator().manual_seed(1)
    grid = [(50, 8, 32, "molecules")] if small else [(v, 8, c, "molecules") for v in (1600, 16000, 100000) for c in (32, 256)]
    if not small:
        grid.append((16000, 8, 32, "one hub of 10000"))
    for nodes, heads, channels, kind in grid:
        graph = (common.molecules(nodes, generator, device) if kind == "molecules" else common.skewed(nodes, 10000, generator, device))
        for name, dtype in TYPES.items():
            size = nodes * heads * channels * torch.finfo(dtype).bits // 8
            if size > 2 << 30:
                continue
            sets = []
            for _ in range(copies_for(4 * size, device)):
                inputs = [leaf(nodes, heads, channels, dtype=dtype, device=device) for _ in range(3)]
                sets.append((inputs, torch.randn(nodes, heads, channels, device=device).to(dtype)))
            peers = {"eager": lambda q, k, v, g=graph, n=nodes: common.graph_attention(q, k, v, g.source, g.target, n)}
            if not small:
                peers["torch.compile"] = compiled(peers["eager"])
            # q, k, v and out; backward these without out, the upstream gradient, and three gradients.
            yield Case(f"V{nodes} E{len(graph.source)} H{heads} C{channels} {kind} {name}", "graph_attention", name, 11 * size, sets,
                       lambda q, k, v, g=graph: torch.ops.molfuse.graph_attention(q, k, v, *g.arguments()), peers)


def vae_loss_cases(device, small):
    grid = [(4, 127, 40)] if small else [(b, 127, k) for b in (256, 1024, 4096) for k in (40, 300, 2000)] + [(64, 127, 32000)]
    for b, t, k in grid:
        for second in (False, True):
            for name, dtype in TYPES.items():
                size = b * t * k * torch.finfo(dtype).bits // 8
                if size > 6 << 30:
                    continue
                targets = torch.randint(1, k, (b, t), device=device)
                sets = []
                for _ in range(copies_for(2 * size, device)):
                    shape = (b, k, t) if second else (b, t, k)
                    inputs = [leaf(*shape, dtype=dtype, device=device), leaf(b, 128, dtype=torch.float32, device=device),
                              leaf(b, 128, dtype=torch.float32, device=device)]
                    sets.append((inputs, torch.ones((), device=device)))

                def ours(x, m, v, targets=targets, second=second):
                    return torch.ops.molfuse.vae_loss(x, targets, m, v, 1e-4, 0, "mean", second)[0]

                def eager(x, m, v, targets=targets, second=second):
                    return common.vae_loss(x.transpose(1, 2) if second else x, targets, m, v, 1e-4, 0).float()
                peers = {"eager": eager}
                if not small:
                    peers["torch.compile"] = compiled(eager)
                # The logits read once and their gradient written once.
                yield Case(f"[{b},{t},{k}]{' class second' if second else ''} {name}", "vae_loss", name, 2 * size, sets, ours, peers)


def latent_concat_cases(device, small):
    for graphs in (2,) if small else (64, 640, 4000):
        nodes, width, count = graphs * 25, 32 if small else 2048, 8
        graph_ptr = torch.arange(0, nodes + 1, 25, device=device, dtype=torch.int32)
        batch = torch.arange(graphs, device=device).repeat_interleave(25)
        counts = torch.full((graphs, 1), 25, device=device)
        for name, dtype in TYPES.items():
            size = count * nodes * width * torch.finfo(dtype).bits // 8
            if size > 8 << 30:
                continue
            sets = []
            for _ in range(copies_for(2 * size, device)):
                layers = [leaf(nodes, width, dtype=dtype, device=device) for _ in range(count)]
                sets.append((layers, torch.randn(graphs, count * width, device=device).to(dtype)))

            def eager(*layers, batch=batch, graphs=graphs, counts=counts):
                return common.latent_concat(layers, batch, graphs, counts).to(layers[0].dtype)

            def stacked(*layers, graphs=graphs):
                # All graphs of one size: what a view and a mean can do, which is no general pooling.
                return torch.stack([layer.view(graphs, 25, -1).mean(1) for layer in layers], 1).flatten(1)
            peers = {"eager": eager, "stack and view": stacked}
            if not small:
                peers["torch.compile"] = compiled(eager)
            yield Case(f"8 x [{nodes},{width}] {name}", "latent_concat", name, 2 * size, sets,
                       lambda *layers, graph_ptr=graph_ptr: torch.ops.molfuse.latent_concat(list(layers), graph_ptr), peers)


def reparameterize_cases(device, small):
    for b in (8,) if small else (4096, 65536, 1 << 20):
        for name, dtype in TYPES.items():
            size = b * 128 * torch.finfo(dtype).bits // 8
            sets = []
            for _ in range(copies_for(3 * size, device)):
                inputs = [leaf(b, 128, dtype=dtype, device=device), leaf(b, 128, dtype=dtype, device=device)]
                sets.append((inputs, torch.randn(b, 128, device=device).to(dtype)))

            def eager(mean, log_var):
                return mean + (0.5 * log_var.clamp(-20, 10)).exp() * torch.randn_like(mean)
            peers = {"eager": eager}
            if not small:
                peers["torch.compile"] = compiled(eager)
            # mean, log_var, z; the upstream gradient and log_var again, two gradients.
            yield Case(f"[{b},128] {name}", "reparameterize", name, 7 * size, sets,
                       lambda m, v: torch.ops.molfuse.reparameterize(m, v, 7), peers)


def measure(case, clock, copy):
    row = {"case": case.name, "family": case.family, "dtype": case.dtype, "bytes": case.bytes}
    row["molfuse_ms"] = clock.median([forward_backward(case.ours, *one) for one in case.sets])
    row["floor_ms"] = 1e3 * case.bytes / copy
    row["fraction_of_copy_bandwidth"] = row["floor_ms"] / row["molfuse_ms"]
    row["peers_ms"] = {}
    for name, peer in case.peers.items():
        try:
            row["peers_ms"][name] = clock.median([forward_backward(peer, *one) for one in case.sets])
        except Exception as failure:  # a peer that cannot do it is a result, too
            row["peers_ms"][name] = None
            row.setdefault("peer_failures", {})[name] = str(failure).splitlines()[0][:200]
    times = {name: value for name, value in row["peers_ms"].items() if value is not None}
    if times:
        row["best_peer"] = min(times, key=times.get)
        row["best_peer_over_molfuse"] = times[row["best_peer"]] / row["molfuse_ms"]
    return row


def table(report):
    device = report["device"]
    lines = [f"{device}, PyTorch {report['torch']}, CUDA {report['cuda']}, molfuse at {report['commit']}: `{report['command']}`.",
             f"Copy {report['ceilings']['copy_bytes_per_second'] / 1e9:.0f} GB/s (read and written), bf16 matrix product "
             f"{report['ceilings']['bf16_matmul_operations_per_second'] / 1e12:.1f} TFLOP/s, measured in the same run.",
             "Forward and backward, median ms. Floor: fewest bytes over copy bandwidth.", "",
             "| family | case | molfuse | floor | floor / molfuse | best peer | its time | ratio |", "|---|---|---|---|---|---|---|---|"]
    for row in report["rows"]:
        best = row.get("best_peer")
        lines.append(f"| {row['family']} | {row['case']} | {row['molfuse_ms']:.4f} | {row['floor_ms']:.4f} | "
                     f"{row['fraction_of_copy_bandwidth']:.2f} | "
                     + (f"{best} | {row['peers_ms'][best]:.4f} | {row['best_peer_over_molfuse']:.2f} |" if best else "none | | |"))
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    common.add_options(parser)
    parser.add_argument("--commit", default="unknown")
    options = parser.parse_args()
    common.load()
    device = torch.device("cpu" if options.dry_run else "cuda")
    clock = Clock(device, options.quick or options.dry_run)
    report = {
        "device": "CPU (dry run)" if options.dry_run else torch.cuda.get_device_name(),
        "torch": torch.__version__, "cuda": torch.version.cuda, "commit": options.commit,
        "command": "benchmarks/gpu/run" + "".join(f" {flag}" for flag, on in
                                                   ((f"--only {options.only}", options.only), ("--quick", options.quick),
                                                    ("--dry-run", options.dry_run)) if on),
        "ceilings": ceilings(clock, device, options.dry_run), "rows": []}
    for family in common.families(options):
        for case in globals()[f"{family}_cases"](device, options.dry_run):
            row = measure(case, clock, report["ceilings"]["copy_bytes_per_second"])
            report["rows"].append(row)
            print(f"{family} {case.name}: {row['molfuse_ms']:.4f} ms, {row['fraction_of_copy_bandwidth']:.2f} of copy bandwidth, "
                  f"{row.get('best_peer_over_molfuse', float('nan')):.2f} x {row.get('best_peer')}", flush=True)
            # Written as it goes: a run that is cut short leaves what it has.
            (options.output / "results.json").write_text(json.dumps(report, indent=2) + "\n")
            (options.output / "results.md").write_text(table(report))
            del case
            if device.type == "cuda":
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
