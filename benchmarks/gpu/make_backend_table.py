#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes src/main/cpp/attention/attention_backends.inc of measurements.

    make_backend_table.py [--check] RESULTS.json...

RESULTS.json are those of benchmarks/gpu/run on a GPU with cuDNN, where attention's rows have a time for each backend of molfuse ("backends").
A measured point becomes a row for its architecture, type, head size, direction and kind if cuDNN took at most MARGIN of the time of the own
kernels in every file that has the point. The row holds for numbers of queries and keys from the point's own up to, not including, the next
longer one that was measured in its group, and from half to twice its heads times batch; nothing is said beyond what was measured by more
than that. What is not in the table is for the own kernels: without measurements the table is empty. Padded and packed problems and those
with relative_bias never go to cuDNN unless it is forced, so they are left out.
--check fails, and writes nothing, if the committed table is not what RESULTS.json make.
"""
import argparse
import json
import pathlib
import re
import sys

TABLE = pathlib.Path(__file__).resolve().parents[2] / "src/main/cpp/attention/attention_backends.inc"
# Below it a difference is not worth another library's kernels.
MARGIN = 0.95
KINDS = {"plain": "plain", "causal": "causal", "bias": "bias", "causal bias": "causal_bias"}
TYPES = {"bf16": "MOLFUSE_BF16", "f16": "MOLFUSE_F16"}
CASE = re.compile(r"B(\d+) H(\d+) N(\d+) D(\d+) (.*) (\S+)")


def points(report):
    """(group, length, heads), own and cuDNN's milliseconds of every measured point and direction."""
    for row in report["rows"]:
        match = CASE.fullmatch(row["case"]) if row["family"] == "attention" else None
        times = row.get("backends", {})
        if not match or match[5] not in KINDS or match[6] not in TYPES:
            continue
        b, h, n, d = map(int, match.groups()[:4])
        for backward, key in ((False, "forward_ms"), (True, "backward_ms")):
            if all(key in times.get(name, {}) for name in ("own", "cudnn")):
                group = (report["capability"], TYPES[match[6]], d, backward, KINDS[match[5]])
                yield (group, n, b * h), times["own"][key], times["cudnn"][key]


def rows(reports):
    found = {}
    for report in reports:
        for point, own, cudnn in points(report):
            found.setdefault(point, []).append(cudnn <= MARGIN * own)
    for (group, n, heads), wins in sorted(found.items()):
        if not all(wins):
            continue
        longer = [other for g, other, _ in found if g == group and other > n]
        last = min(longer) - 1 if longer else n
        capability, dtype, d, backward, kind = group
        yield (f"{{{capability}, {dtype}, {d}, {'true' if backward else 'false'}, AttentionKind::{kind}, {n}, {last}, {n}, {last}, "
               f"{max(1, heads // 2)}, {2 * heads}, AttentionBackend::cudnn}},")


def table(reports):
    lines = ["// SPDX-License-Identifier: Apache-2.0", "// Written by benchmarks/gpu/make_backend_table.py; not edited by hand."]
    made = list(rows(reports))
    if not any(True for report in reports for _ in points(report)):
        return lines + ["// No measurement of both backends exists yet: there is no row, and every problem goes to the library's own kernels."]
    lines += [f"// {report['device']}, cuDNN {report['cudnn']}, molfuse at {report['commit']}." for report in reports]
    return lines + (made or ["// cuDNN was nowhere faster."])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("results", nargs="*", type=pathlib.Path)
    options = parser.parse_args()
    text = "\n".join(table([json.loads(path.read_text()) for path in options.results])) + "\n"
    if not options.check:
        TABLE.write_text(text)
        return 0
    if TABLE.read_text() != text:
        print(f"{TABLE.name} is not what the measurements make; run {pathlib.Path(__file__).name} without --check")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
