#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the page of the benchmarks, tables and charts, of page.md and what was measured. What was not measured is not in it.

    page.py RESULTS.json PAGE.md IMAGES        IMAGES: folder of the charts
    page.py --join BEFORE.json AFTER.json RESULTS.json    puts the ceilings of two probes into the results
"""
import json
import os
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import charts
import comparison
import results

OPERATORS = ("attention", "graph_attention", "vae_loss", "linear_vae_loss", "latent_concat", "reparameterize", "encoder_epilogue")
TEMPLATE = pathlib.Path(__file__).resolve().parent / "page.md"


def time_text(micros):
    if micros is None:
        return ""
    for unit, factor in (("s", 1e6), ("ms", 1e3)):
        if micros >= factor:
            return f"{micros / factor:.3g} {unit}" if micros < 1000 * factor else f"{micros / factor:.0f} {unit}"
    return f"{micros:.3g} us" if micros >= 1 else f"{micros * 1000:.0f} ns"


def number(value, form="{:.2f}"):
    return "" if value is None else form.format(value)


def heap_text(count):
    if count is None:
        return ""
    return f"{count:.0f} B" if count < 1000 else f"{count / 1000:.1f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"


def table(head, rows):
    if not rows:
        return ""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    # Columns in which nothing was measured.
    filled = [any(row[n].strip() for row in rows) for n in range(len(head))]
    if not all(filled):
        keep = [n for n, some in enumerate(filled) if some]
        return table([head[n] for n in keep], [[row[n] for n in keep] for row in rows])
    return "\n".join(lines) + "\n"


def operator_table(benchmarks):
    head = ["size", "dtype", "pass", "molfuse", "best peer", "ratio", "other peer", "floor", "of copy", "of multiply-add", "heap", "memory", "peer's memory"]
    rows = []
    for benchmark in benchmarks:
        ours, best = benchmark.ours, benchmark.best_peer
        others = [f"{peer.name} {time_text(peer.median)}" for peer in benchmark.peers if peer is not best]
        others += [f"{name}: {why}" for name, why in benchmark.absent.items()]
        rows.append([
            benchmark.name, benchmark.parameters["dtype"], benchmark.parameters["pass"], time_text(ours.median),
            f"{best.name} {time_text(best.median)}" if best else "", number(benchmark.ratio), ", ".join(others), time_text(benchmark.floor_us()),
            number(benchmark.share_of_copy(ours)), number(benchmark.share_of_multiply(ours)), heap_text(ours.heap_bytes),
            number(ours.extra_mib, "{:.1f} MiB"), number(best.extra_mib, "{:.1f} MiB") if best else ""])
    return table(head, rows)


def way_table(benchmarks):
    """One row for each way; ratios are of the fastest peer's time, shares as in the operators' tables."""
    head = ["what", "way", "time", "ratio", "of copy", "of multiply-add", "heap", "memory"]
    rows = []
    for benchmark in benchmarks:
        for way in benchmark.ways:
            faster = results.ratio(benchmark.best_peer, way) if way.ours and benchmark.peers else None
            heap = None if way.heap_bytes is None else way.heap_bytes / way.units
            rows.append([
                benchmark.name if way is benchmark.ways[0] else "", way.name, time_text(way.median), number(faster), number(benchmark.share_of_copy(way)),
                number(benchmark.share_of_multiply(way)), heap_text(heap), number(way.extra_mib, "{:.0f} MiB")])
    return table(head, rows)


def speedups(benchmark):
    """By way without its number of threads: the time with one thread over that with all."""
    found = {}
    for way in benchmark.ways:
        name, _, threads = way.name.rpartition(", ")
        if threads == "1 thread":
            found.setdefault(name, [None, None])[0] = way
        else:
            found.setdefault(name, [None, None])[1] = way
    return {name: results.ratio(one, many) for name, (one, many) in found.items() if one and many}


def threads_table(benchmarks):
    rows = []
    for benchmark in benchmarks:
        found = speedups(benchmark)
        rows.append([benchmark.name, number(found.get("molfuse")), ", ".join(f"{name} {value:.2f}" for name, value in found.items() if name != "molfuse")])
    return table(["operator", "molfuse", "peers"], rows)


def batch_table(benchmarks):
    sizes = sorted({int(way.units) for benchmark in benchmarks for way in benchmark.ways})
    rows = []
    for benchmark in benchmarks:
        times = {int(way.units): way.median for way in benchmark.ways}
        rows.append([benchmark.name, *(time_text(times.get(size)) for size in sizes)])
    return table(["operator", *(f"batch {size}" for size in sizes)], rows)


def counter_table(benchmarks):
    names = sorted({name for benchmark in benchmarks for way in benchmark.ways for name in way.counters})
    rows = []
    for benchmark in benchmarks:
        # The rest is in the results: a table of all would be longer than the page.
        if benchmark.suite in OPERATORS and (benchmark.parameters["pass"], benchmark.parameters["dtype"]) != ("forward+backward", "f32"):
            continue
        if benchmark.suite in ("threads", "batch"):
            continue
        for way in benchmark.ways:
            if way.counters:
                rows.append([benchmark.label, way.name, *(number(way.counters.get(name), "{:.3g}") for name in names)])
    return table(["benchmark", "way", *names], rows)


def chart_label(benchmark):
    return benchmark.name if benchmark.suite == "attention" else f"{benchmark.suite} {benchmark.name}"


def by_dtype(benchmarks, value):
    """Rows of a chart: a benchmark's label, and the value for each element type."""
    rows = {}
    for benchmark in benchmarks:
        if benchmark.parameters.get("pass") == "forward+backward":
            found = value(benchmark)
            if found is not None:
                rows.setdefault(chart_label(benchmark), {})[benchmark.parameters["dtype"]] = found
    return [(label, [values.get("f32"), values.get("bf16")]) for label, values in rows.items()]


def share(benchmark):
    shares = [benchmark.share_of_copy(benchmark.ours), benchmark.share_of_multiply(benchmark.ours)]
    return max((value for value in shares if value is not None), default=None)


def draw(found):
    """Charts by file name."""
    attention = found.suite("attention")
    others = [benchmark for suite in OPERATORS[1:] for benchmark in found.suite(suite)]
    made = {}
    for name, title, benchmarks in (
            ("attention-ratio", "attention, forward and backward: time of the fastest peer over molfuse's", attention),
            ("operators-ratio", "other operators, forward and backward: time of the fastest peer over molfuse's", others)):
        groups = by_dtype(benchmarks, lambda benchmark: benchmark.ratio)
        if groups:
            made[name] = charts.bars(title, groups, ["f32", "bf16"], mark=1)
    groups = by_dtype(attention + others, share)
    if groups:
        made["ceilings"] = charts.bars("forward and backward: share of the ceiling that is nearer", groups, ["f32", "bf16"], mark=1)
    groups = []
    for benchmark in found.suite("threads"):
        speedup = speedups(benchmark)
        peers = [value for name, value in speedup.items() if name != "molfuse"]
        groups.append((benchmark.name, [speedup.get("molfuse"), max(peers, default=None)]))
    if groups:
        made["threads"] = charts.bars(f"time with 1 thread over time with {found.data['threads']}", groups, ["molfuse", "best of the peers"],
                                      mark=found.data["threads"])
    series = []
    for benchmark in found.suite("batch"):
        first = benchmark.ways[0].median
        series.append((benchmark.name, [(way.units, way.median / first) for way in benchmark.ways]))
    if series:
        made["batch"] = charts.lines("time for each of the batch, over that in the smallest batch", series, "batch")
    return made


def summary(found):
    data, ceilings = found.data, found.ceilings
    copy, f32, bf16 = (ceilings[name] for name in ("copy", "f32", "bf16"))
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    notes = []
    if data["quick"]:
        notes.append("**This page is of a quick run**: few and short rounds and a part of the sizes. Its figures show that everything runs; they are no "
                     "measure of speed.\n")
    if data.get("only"):
        notes.append(f"**This page is of a part of the benchmarks**, those named like `{data['only']}`.\n")
    return "\n".join(notes) + ("\n" if notes else "") + (
        f"`{data['command']}` at {data['commit']} on {data['device']}"
        + (f" ({data['cpu']}, {data['backend']})" if data["device"] == "cpu" else f" ({data['backend']}; host {data['cpu']})")
        + f", {data['threads']} threads; {versions}.\n\n"
        + table(["ceiling of the same run", "measured", "by"], [
            ["copy, read plus written", f"{copy['best'] / 1e9:.1f} GB/s", copy["by"]],
            ["f32 multiply-add", f"{f32['best'] / 1e9:.0f} GFLOP/s", f32["by"]],
            ["bf16 multiply-add", f"{bf16['best'] / 1e9:.0f} GFLOP/s", bf16["by"]]]))


def fill(found, images, raw):
    """images and raw: paths from the page to the charts and to the results."""
    made = draw(found) if found else {}
    parts = {"summary": summary(found) + f"\nRaw samples: [{pathlib.Path(raw).name}]({raw}).\n" if found else "No run has been committed yet: there are no figures.\n",
             "rule": comparison.__doc__.split("The rule: ", 1)[1].strip()}
    for suite in (*OPERATORS, "step", "call", "tokeniser", "loader", "memory", "threads", "batch"):
        kind = {"threads": threads_table, "batch": batch_table}.get(suite, operator_table if suite in OPERATORS else way_table)
        parts["table " + suite] = kind(found.suite(suite)) if found else ""
    parts["table counters"] = counter_table(found.benchmarks) if found else ""

    def section(match):
        names = re.findall(r"\{\{(.+?)\}\}", match.group(2))
        return match.group(2) if any(parts.get(name) or name.startswith("chart ") and name[6:] in made for name in names) else ""

    def insert(match):
        name = match.group(1)
        if name.startswith("chart "):
            chart = name[6:]
            return f"![{re.search('<title>(.*?)</title>', made[chart]).group(1)}]({images}/{chart}.svg)\n" if chart in made else ""
        return parts[name]

    text = TEMPLATE.read_text(encoding="utf-8")
    # A section of which nothing was measured is left out.
    text = re.sub(r"(<!-- if measured -->\n)(.*?)<!-- end -->\n", section, text, flags=re.S)
    text = re.sub(r"\{\{(.+?)\}\}", insert, text)
    return re.sub(r"\n{3,}", "\n\n", text), made


def main(arguments):
    try:
        if len(arguments) == 4 and arguments[0] == "--join":
            before, after, data = (json.loads(pathlib.Path(path).read_text()) for path in arguments[1:])
            data["ceilings"] = results.join_ceilings(before, after)
            results.Results(data)
            rows = data.pop("benchmarks")
            data["benchmarks"] = rows  # last, since they are long
            pathlib.Path(arguments[3]).write_text(json.dumps(data, indent=1) + "\n")
            return 0
        if len(arguments) != 3:
            print(__doc__.strip(), file=sys.stderr)
            return 2
        # No results: the page without figures.
        found = results.read(arguments[0]) if arguments[0] != "none" else None
    except results.BadResults as error:
        print(f"page: {error}", file=sys.stderr)
        return 2
    page, images = pathlib.Path(arguments[1]), pathlib.Path(arguments[2])
    text, made = fill(found, *(pathlib.Path(os.path.relpath(path, page.parent)).as_posix() for path in (images, arguments[0])))
    images.mkdir(parents=True, exist_ok=True)
    for stale in set(images.glob("*.svg")) - {images / f"{name}.svg" for name in made}:
        stale.unlink()
    for name, drawing in made.items():
        (images / f"{name}.svg").write_text(drawing, encoding="utf-8")
    page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
