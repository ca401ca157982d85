#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times the CUDA operators, forward and backward together, and what others do on the same inputs in the same run.

Each case has its floor: the fewest bytes that must be moved, over the copy bandwidth measured in this run, or its operations over the rate
of a large matrix product if they are of that kind and take longer. Times are medians of device events; the inputs of successive runs are
different tensors, so that no run finds its inputs in the second-level cache."""
import argparse
import json
import sys
import time

import torch

import common
from cases import reason
from clock import Clock

# Seconds for compiling peers, all families together. Those with the most cases get the most.
COMPILE_SECONDS = 160
SHARES = {"graph_attention": 5, "vae_loss": 3, "linear_vae_loss": 2, "attention": 5}
# After so many no more cases are begun, unless one family was asked for: the last family's last cases are left out.
SECONDS = 540
# Of a peer's largest number, that two correct results in the type may differ by.
TOLERANCE = {"f32": 1e-3, "bf16": 5e-2}


def ceilings(clock, device, small):
    elements = (1 << 22) if small else (1 << 29)
    source, target = torch.randn(elements // 4, device=device), torch.empty(elements // 4, device=device)
    copy = 2 * source.numel() * 4 / (clock.median([lambda: target.copy_(source)]) * 1e-3)
    n = 256 if small else 8192
    a, b = (torch.randn(n, n, device=device).to(torch.bfloat16) for _ in range(2))
    multiply = 2 * n ** 3 / (clock.median([lambda: a @ b]) * 1e-3)
    return {"copy_bytes_per_second": copy, "bf16_matmul_operations_per_second": multiply}


def results(function, inputs, upstream):
    out = function(*inputs)
    return [out.detach(), *torch.autograd.grad(out, inputs, upstream)]


def runs_of(function, case):
    return [lambda one=one: results(function, *one) for one in case.sets]


def times(function, case, clock):
    found = {"ms": clock.median(runs_of(function, case))}
    if case.forward:
        # As in training: what backward needs is kept.
        found["forward_ms"] = clock.median([lambda one=one: function(*one[0]) for one in case.sets])
    if clock.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        made = results(function, *case.sets[0])
        # Beside what is given and what is returned.
        size = sum(x.numel() * x.element_size() for x in made)
        found["extra_bytes"] = max(0, torch.cuda.max_memory_allocated() - before - size)
    return found


class Budget:
    """Seconds for compiling one family's peers."""

    def __init__(self, seconds):
        self.seconds, self.spent = seconds, 0.0

    def left(self):
        return self.spent < self.seconds


def difference(peer, ours):
    """The largest over results and gradients, relative to the largest number of each; infinite where one is not a number."""
    worst = 0.0
    for a, b in zip(peer, ours):
        # In the type itself: f64 copies of the largest cases would not fit, and rounding is far below the tolerance.
        off = float((a - b).abs().max()) / max(float(b.abs().max()), 1e-30)
        worst = max(worst, off if off == off else float("inf"))
    return worst


def measure_peer(peer, case, ours, clock, budget, graph):
    """(key, value) pairs for the row. A peer that cannot do it is a result, too."""
    if peer.call is None:
        return {"absent": peer.absent}
    call = peer.call
    try:
        if peer.compiled:
            if not budget.left():
                return {"absent": f"not compiled: {budget.seconds:.0f} s for compiling this family's peers are spent"}
            # Each shape its own code, and none beyond the limit of recompilations.
            torch._dynamo.reset()
            # On the CPU the tracing alone is tried: its own compiler takes long there.
            call = torch.compile(call, dynamic=False, backend="aot_eager" if clock.device.type == "cpu" else "inductor")
        started = time.monotonic()
        first = results(call, *case.sets[0])
        if peer.compiled:
            budget.spent += time.monotonic() - started
        found = {}
        if case.same_result:
            off = difference(first, ours)
            if not off <= TOLERANCE[case.dtype]:
                return {"absent": f"not timed: differs by {off:.3g} of the largest number from the operator"}
            found["difference"] = off
        del first
        found.update(times(call, case, clock))
    except Exception as failure:
        if peer.compiled:
            budget.spent += time.monotonic() - started
        return {"absent": reason(failure)}
    if graph:
        try:
            found["graph_ms"] = clock.graph_median(runs_of(call, case))
        except Exception as failure:
            found["graph_absent"] = reason(failure)
    return found


def best(row, key, ours, prefix):
    peers = {name: found[key] for name, found in row["peers"].items() if key in found}
    if peers and ours:
        row[f"{prefix}best_peer"] = min(peers, key=peers.get)
        row[f"{prefix}best_peer_over_molfuse"] = peers[row[f"{prefix}best_peer"]] / ours


def measure_backends(case, ours, clock):
    """Times with each backend of attention forced. make_backend_table.py reads them."""
    found = {}
    for name in case.backends:
        common.set_attention_backend(name)
        try:
            one = {}
            # Apart from each other: cuDNN may do one direction and not the other.
            with torch.no_grad():
                first = case.ours(*case.sets[0][0])
            off = difference([first], ours[:1])
            if not off <= TOLERANCE[case.dtype]:
                raise RuntimeError(f"differs by {off:.3g} of the largest number")
            one["forward_ms"] = clock.median([lambda one=one: case.ours(*one[0]) for one in case.sets])
            one["ms"] = clock.median(runs_of(case.ours, case))
            one["backward_ms"] = one["ms"] - one["forward_ms"]
        except RuntimeError as failure:
            one["absent"] = reason(failure)
        finally:
            common.set_attention_backend("auto")
        found[name] = one
    return found


def measure(family, case, clock, ceiling, budget, graphs):
    row = {"case": case.name, "family": family, "dtype": case.dtype, "bytes": case.bytes}
    runs = runs_of(case.ours, case)
    row.update({f"molfuse_{key}": value for key, value in times(case.ours, case, clock).items()})
    floors = [1e3 * case.bytes / ceiling["copy_bytes_per_second"]]
    row["fraction_of_copy_bandwidth"] = floors[0] / row["molfuse_ms"]
    if case.flops is not None:
        row["flops"] = case.flops
        if case.matrix:
            floors.append(1e3 * case.flops / ceiling["bf16_matmul_operations_per_second"])
            row["fraction_of_matmul"] = floors[1] / row["molfuse_ms"]
    row["floor_ms"] = max(floors)
    graph = clock.device.type == "cuda" and (graphs == "all" or (graphs == "smallest" and case.small))
    if clock.device.type == "cuda":
        try:
            row["kernel_ms"], row["kernels"] = clock.kernels(runs)
        except Exception as failure:
            row["kernel_absent"] = reason(failure)
    if graph:
        try:
            row["molfuse_graph_ms"] = clock.graph_median(runs)
        except Exception as failure:
            row["molfuse_graph_absent"] = reason(failure)
    ours = runs[0]()
    if case.backends:
        row["backends"] = measure_backends(case, ours, clock)
    row["peers"] = {peer.name: measure_peer(peer, case, ours, clock, budget, graph) for peer in case.peers}
    best(row, "ms", row["molfuse_ms"], "")
    best(row, "graph_ms", row.get("molfuse_graph_ms"), "graph_")
    best(row, "forward_ms", row.get("molfuse_forward_ms"), "forward_")
    return row


def table(report):
    ceiling = report["ceilings"]
    lines = [f"{report['device']}, PyTorch {report['torch']}, CUDA {report['cuda']}, molfuse at {report['commit']}: "
             f"`{report['command']}`.",
             f"Copy {ceiling['copy_bytes_per_second'] / 1e9:.0f} GB/s (read and written), bf16 matrix product "
             f"{ceiling['bf16_matmul_operations_per_second'] / 1e12:.1f} TFLOP/s, measured in the same run.",
             "Forward and backward, median ms. Floor: fewest bytes over copy bandwidth. Kernels: time in them alone. "
             "Graph: replayed as a CUDA graph.", "",
             "| family | case | molfuse | floor | floor / molfuse | kernels | best peer | its time | ratio "
             "| graph | best peer as graph | ratio |",
             "|---|---|---|---|---|---|---|---|---|---|---|---|"]

    def number(value, digits=4):
        return "" if value is None else f"{value:.{digits}f}"
    for row in report["rows"]:
        peers, name, as_graph = row["peers"], row.get("best_peer"), row.get("graph_best_peer")
        cells = [row["family"], row["case"], number(row["molfuse_ms"]), number(row["floor_ms"]),
                 number(row["floor_ms"] / row["molfuse_ms"], 2), number(row.get("kernel_ms")),
                 name or "none", number(peers[name]["ms"]) if name else "", number(row.get("best_peer_over_molfuse"), 2),
                 number(row.get("molfuse_graph_ms")), f"{as_graph} {number(peers[as_graph]['graph_ms'])}" if as_graph else "",
                 number(row.get("graph_best_peer_over_molfuse"), 2)]
        lines.append("| " + " | ".join(cells) + " |")
    apart = [row for row in report["rows"] if "molfuse_forward_ms" in row]
    if apart:
        lines += ["", "Forward alone, in training, and memory that forward and backward take beside inputs, result and gradients (MiB):", "",
                  "| family | case | forward | best peer | its time | ratio | memory | the best peer's |", "|---|---|---|---|---|---|---|---|"]
    for row in apart:
        name = row.get("forward_best_peer")
        found = row["peers"].get(name, {})
        memory = [number(None if x is None else x / 2 ** 20, 1) for x in (row.get("molfuse_extra_bytes"), found.get("extra_bytes"))]
        lines.append("| " + " | ".join([row["family"], row["case"], number(row["molfuse_forward_ms"]), name or "none", number(found.get("forward_ms")),
                                        number(row.get("forward_best_peer_over_molfuse"), 2), *memory]) + " |")
    if report["failures"]:
        lines += ["", "Failed:", "", *(f"- {failure}" for failure in report["failures"])]
    if report["cut_short"]:
        lines += ["", f"Out of time: the last cases of {', '.join(report['cut_short'])} were not run. `--only` gives a family all it needs."]
    missing = {}
    for row in report["rows"]:
        for name, found in row["peers"].items():
            for key in ("absent", "graph_absent"):
                if key in found:
                    missing.setdefault(f"- {row['family']}, {name}{' as a graph' if key != 'absent' else ''}: {found[key]}", []).append(row)
    if missing:
        lines += ["", "Peers without a time, and in how many cases:", "", *(f"{line} ({len(rows)})" for line, rows in missing.items())]
    return "\n".join(lines) + "\n"


def command(options):
    flags = ((f"--only {options.only}", options.only), ("--quick", options.quick), ("--dry-run", options.dry_run),
             (f"--graphs {options.graphs}", options.graphs != "smallest"))
    return "benchmarks/gpu/run" + "".join(f" {flag}" for flag, on in flags if on)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    common.add_options(parser)
    parser.add_argument("--commit", default="unknown")
    parser.add_argument("--graphs", choices=("smallest", "all", "none"), default="smallest",
                        help="which cases are also timed as CUDA graphs (default: the smallest of each family)")
    options = parser.parse_args()
    common.load(options)
    started = time.monotonic()
    device = torch.device("cpu" if options.dry_run else "cuda")
    clock = Clock(device, options.quick or options.dry_run)
    families = common.families(options)
    share = {name: SHARES.get(name, 1) for name, _ in families}
    report = {
        "device": "CPU (dry run)" if options.dry_run else torch.cuda.get_device_name(),
        "capability": None if options.dry_run else 10 * torch.cuda.get_device_capability()[0] + torch.cuda.get_device_capability()[1],
        "cudnn": torch.backends.cudnn.version(), "torch": torch.__version__, "cuda": torch.version.cuda, "commit": options.commit, "command": command(options),
        "ceilings": ceilings(clock, device, options.dry_run), "failures": [], "cut_short": [], "rows": []}
    for name, module in families:
        budget = Budget(COMPILE_SECONDS / (4 if options.quick else 1) * share[name] / sum(share.values()))
        for case in module.cases(device, options.dry_run, options.quick):
            if time.monotonic() - started > SECONDS and not options.only:
                report["cut_short"].append(name)
                break
            try:
                row = measure(name, case, clock, report["ceilings"], budget, options.graphs)
            except RuntimeError as failure:
                # No reason to lose the other results.
                report["failures"].append(f"{name} {case.name}: {reason(failure)}")
            else:
                report["rows"].append(row)
                print(f"{name} {case.name}: {row['molfuse_ms']:.4f} ms, {row['fraction_of_copy_bandwidth']:.2f} of copy bandwidth, "
                      f"{row.get('best_peer_over_molfuse', float('nan')):.2f} x {row.get('best_peer')}", flush=True)
            # Written as it goes: a run that is cut short leaves what it has.
            report["seconds"] = time.monotonic() - started
            (options.output / "results.json").write_text(json.dumps(report, indent=2) + "\n")
            (options.output / "results.md").write_text(table(report))
            del case
            if device.type == "cuda":
                torch.cuda.empty_cache()
    # The operators can be captured: one that was not is a failure, too.
    failures = report["failures"] + [f"{row['case']}: {row['molfuse_graph_absent']}" for row in report["rows"] if "molfuse_graph_absent" in row]
    print("\n".join(failures), end="\n" if failures else "")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
