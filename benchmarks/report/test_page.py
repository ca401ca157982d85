# SPDX-License-Identifier: Apache-2.0
import json
import pathlib
import re
import sys
import tempfile
import unittest
import xml.etree.ElementTree

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import page
import results

PROBE = {"threads": 2, "buffer_bytes": 1, "copies": {"memcpy": [1e10]}, "copy": {"by": "memcpy", "best": 1e10},
         "f32": {"by": "FMA", "best": 1e11, "samples": [1e11]}, "bf16": {"by": "widened, FMA", "best": 5e10, "samples": [5e10]}}


def way(name, role, micros, **more):
    return {"name": name, "role": role, "units": 1, "samples_us": [micros] * 3, **more}


def row(suite, name, ways, cost=(0, 0), **parameters):
    return {"suite": suite, "name": name, "parameters": parameters, "cost": {"bytes": cost[0], "operations": cost[1]}, "ways": ways}


def data(*rows, quick=False):
    return {"format": 1, "command": "benchmarks/run", "commit": "abc", "quick": quick, "only": "", "device": "cpu", "backend": "avx2", "cpu": "A & B",
            "threads": 2, "versions": {"java": "17"}, "benchmarks": list(rows)}


def operator(dtype="f32", which="forward+backward"):
    # 1 ms for 5 MB and 40 MFLOP: half of the copy bandwidth; of the rate 0.4 in f32 and 0.8 in bf16.
    return row("attention", "plain B1", [way("molfuse", "ours", 1000, heap_bytes_per_call=1234, extra_mib=1.5), way("sdpa", "peer", 3000),
                                         way("eager", "peer", 2500, extra_mib=8)], (5e6, 4e7), form="plain", shape="B1", dtype=dtype, **{"pass": which})


class Page(unittest.TestCase):
    def make(self, measured):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            for part, content in (("before", PROBE), ("after", {**PROBE, "copy": {"by": "other", "best": 9e9}}), ("results", measured)):
                (folder / f"{part}.json").write_text(json.dumps(content))
            files = [str(folder / f"{part}.json") for part in ("before", "after", "results")]
            self.assertEqual(page.main(["--join", *files]), 0)
            (folder / "images").mkdir()
            (folder / "images" / "stale.svg").write_text("")
            self.assertEqual(page.main([files[2], str(folder / "page.md"), str(folder / "images")]), 0)
            drawings = {path.stem: path.read_text() for path in (folder / "images").glob("*.svg")}
            return (folder / "page.md").read_text(), drawings

    def test_an_operator(self):
        text, drawings = self.make(data(operator(), operator("bf16"), operator(which="forward")))
        self.assertIn("| plain B1 | f32 | forward+backward | 1 ms | eager 2.5 ms | 2.50 | sdpa 3 ms | 500 us | 0.50 | 0.40 | 1.2 kB | 1.5 MiB | 8.0 MiB |", text)
        self.assertIn("| plain B1 | bf16 | forward+backward | 1 ms | eager 2.5 ms | 2.50 | sdpa 3 ms | 800 us | 0.50 | 0.80 |", text)
        self.assertIn("`benchmarks/run` at abc on cpu (A & B, avx2), 2 threads; java 17.", text)
        self.assertIn("10.0 GB/s | memcpy", text)
        self.assertEqual(set(drawings), {"attention-ratio", "ceilings"})
        for drawing in drawings.values():
            xml.etree.ElementTree.fromstring(drawing)
            self.assertIn("prefers-color-scheme: dark", drawing)
        self.assertEqual(set(re.findall(r"images/(.*?)\.svg", text)), set(drawings))

    def test_only_what_was_measured_is_there(self):
        text, _ = self.make(data(operator()))
        for heading in ("### Threads", "### Batch", "### Counters", "### vae_loss", "### Training"):
            self.assertNotIn(heading, text)
        self.assertIn("### attention", text)
        self.assertNotIn("{{", text)
        self.assertNotIn("<!--", text)
        self.assertIn("## GPU", text)
        self.assertNotIn("quick run**", text)

    def test_a_quick_run_says_so(self):
        text, _ = self.make(data(operator(), quick=True))
        self.assertIn("**This page is of a quick run**", text)
        text, _ = self.make({**data(operator()), "only": "attention"})
        self.assertIn("**This page is of a part of the benchmarks**", text)

    def test_every_other_suite(self):
        threads = [way(f"{name}, {count}", role, micros) for name, role, micros in (("molfuse", "ours", 10), ("eager", "peer", 50))
                   for count in ("1 thread", "2 threads")]
        threads[1]["samples_us"] = [5.0] * 3
        batch = [{**way(f"batch {n}", "ours", 7.0), "units": n} for n in (8, 16)]
        counted = [way("molfuse", "ours", 5, counters_per_call={"page-faults": 12.0})]
        text, drawings = self.make(data(
            row("threads", "vae_loss", threads), row("batch", "vae_loss", batch), row("tokeniser", "SMILES to graph", counted),
            row("step", "training step", [way("molfuse", "ours", 2e6), way("eager", "peer", 3e6)], (1e9, 1e11), dtype="f32")))
        self.assertIn("| vae_loss | 2.00 | eager 1.00 |", text)
        self.assertIn("| vae_loss | 7 us | 7 us |", text)
        self.assertIn("| training step | molfuse | 2 s | 1.50 | 0.05 | 0.50 |", text)
        self.assertIn("| tokeniser SMILES to graph | molfuse | 12 |", text)
        self.assertEqual(set(drawings), {"threads", "batch"})
        for drawing in drawings.values():
            xml.etree.ElementTree.fromstring(drawing)

    def test_the_better_probe_counts(self):
        joined = results.join_ceilings(PROBE, {**PROBE, "f32": {"by": "FMA", "best": 2e11, "samples": [2e11]}})
        self.assertEqual((joined["copy"]["best"], joined["f32"]["best"]), (1e10, 2e11))


class Committed(unittest.TestCase):
    def test_the_page_in_the_tree_is_what_the_committed_results_make(self):
        root = pathlib.Path(__file__).resolve().parents[2]
        measured = root / "benchmarks/results/cpu/results.json"
        found = results.read(measured) if measured.is_file() else None
        text, drawings = page.fill(found, "images/benchmarks", "../benchmarks/results/cpu/results.json")
        self.assertEqual((root / "docs/benchmarks.md").read_text(encoding="utf-8"), text)
        images = root / "docs/images/benchmarks"
        self.assertEqual({path.stem: path.read_text(encoding="utf-8") for path in images.glob("*.svg")}, drawings)


if __name__ == "__main__":
    unittest.main()
