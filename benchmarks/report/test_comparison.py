# SPDX-License-Identifier: Apache-2.0
import contextlib
import io
import json
import pathlib
import random
import runpy
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import comparison
import results

PEERS = 40
ALONE = 10
RATES = {"copy": {"by": "x", "best": 2e10}, "f32": {"by": "x", "best": 1e11}, "bf16": {"by": "x", "best": 1e11}}


def run(seed, rounds=9, noise=0.03, speed=1.0, slowed=None, factor=1.0):
    """A run of a machine whose speed differs from round to round, and now and then by much in a single sample."""
    rng = random.Random(seed)

    def samples(base, spells):
        return [base * speed * spell * rng.lognormvariate(0, noise) * (1.5 if rng.random() < 0.03 else 1) for spell in spells]

    rows = []
    for n in range(PEERS + ALONE):
        name = f"case {n}"
        spells = [rng.lognormvariate(0, 0.1 if n < PEERS else 0.02) for _ in range(rounds)]
        ours = samples(10.0 + n, spells)
        if name == slowed:
            ours = [sample * factor for sample in ours]
        ways = [{"name": "molfuse", "role": "ours", "units": 1, "samples_us": ours}]
        if n < PEERS:
            ways.append({"name": "eager", "role": "peer", "units": 1, "samples_us": samples(30.0 + n, spells)})
        rows.append({"suite": "s", "name": name, "parameters": {"dtype": "f32"}, "cost": {"bytes": 0, "operations": 0}, "ways": ways})
    return {"format": 1, "quick": False, "ceilings": RATES, "benchmarks": rows}


def moved(first, second):
    found, _, _ = comparison.changes(results.Results(first), results.Results(second))
    return [change for change in found if change.worse or change.better]


class Comparison(unittest.TestCase):
    def test_noise_is_not_found(self):
        for seed in range(20):
            with self.subTest(seed=seed):
                self.assertEqual([change.label for change in moved(run(seed), run(seed + 1000))], [])

    def test_a_slower_machine_is_not_found(self):
        for seed in range(20):
            with self.subTest(seed=seed):
                self.assertEqual([change.label for change in moved(run(seed), run(seed + 1000, speed=1.7))], [])

    def test_a_slowed_sample_is_found_and_nothing_else(self):
        for name in ("case 3", f"case {PEERS + 2}"):  # with a peer and without
            for seed in range(20):
                with self.subTest(name=name, seed=seed):
                    found = moved(run(seed), run(seed + 1000, speed=0.6, slowed=name, factor=1.25))
                    self.assertEqual([(change.label, change.worse) for change in found], [(f"s {name} f32", True)])
                    self.assertAlmostEqual(found[0].factor, 1.25, delta=0.1)

    def test_what_got_faster_is_better_and_not_worse(self):
        found = moved(run(1), run(2, slowed="case 3", factor=0.7))
        self.assertEqual([(change.worse, change.better) for change in found], [(False, True)])

    def test_large_noise_hides_a_small_change(self):
        self.assertEqual(moved(run(1, noise=0.3), run(2, noise=0.3, slowed="case 3", factor=1.1)), [])

    def test_one_outlier_changes_nothing(self):
        slow = run(1)
        slow["benchmarks"][3]["ways"][0]["samples_us"][4] *= 50
        self.assertEqual(moved(run(1), slow), [])


class Command(unittest.TestCase):
    def call(self, *runs):
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for n, data in enumerate(runs):
                files.append(pathlib.Path(folder) / f"{n}.json")
                files[-1].write_text(data if isinstance(data, str) else json.dumps(data))
            script = runpy.run_path(str(pathlib.Path(__file__).resolve().parents[1] / "compare"))
            out = io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                status = script["main"]([str(file) for file in files])
            return status, out.getvalue()

    def test_status_and_text(self):
        status, text = self.call(run(1), run(2))
        self.assertEqual(status, 0, text)
        status, text = self.call(run(1), run(2, slowed="case 3", factor=1.5))
        self.assertEqual(status, 1, text)
        self.assertIn("WORSE  s case 3 f32: time over eager's", text)
        status, text = self.call(run(1, slowed="case 3", factor=1.5), run(2))
        self.assertEqual(status, 0, text)
        self.assertIn("better s case 3 f32", text)

    def test_what_cannot_be_compared(self):
        empty = run(1)
        empty["benchmarks"] = []
        for runs in ((run(1),), (run(1), "{"), (run(1), {"format": 9}), (run(1), {"format": 1}), (run(1), empty)):
            status, text = self.call(*runs)
            self.assertEqual(status, 2, text)

    def test_benchmarks_of_one_run_only_are_named(self):
        less = run(2)
        del less["benchmarks"][0]
        status, text = self.call(run(1), less)
        self.assertEqual(status, 0, text)
        self.assertIn("only in A: s case 0 f32", text)


if __name__ == "__main__":
    unittest.main()
