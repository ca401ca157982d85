# SPDX-License-Identifier: Apache-2.0
"""What a results.json says: times, ratios to peers, shares of the ceilings. Everything else in this folder reads results through here."""
import json
import statistics

FORMAT = 1


class BadResults(Exception):
    pass


class Way:
    def __init__(self, row, benchmark):
        self.benchmark = benchmark
        self.name = row["name"]
        self.ours = row["role"] == "ours"
        self.samples = [float(sample) for sample in row["samples_us"]]  # of one unit of work
        self.units = row.get("units", 1)
        self.heap_bytes = row.get("heap_bytes_per_call")
        self.extra_mib = row.get("extra_mib")
        self.counters = row.get("counters_per_call") or {}

    @property
    def median(self):
        return statistics.median(self.samples)


class Benchmark:
    def __init__(self, row, ceilings):
        self.suite, self.name = row["suite"], row["name"]
        self.parameters = row["parameters"]
        self.cost = row["cost"]
        self.absent = row.get("absent", {})
        self.ceilings = ceilings
        self.ways = [Way(way, self) for way in row["ways"]]

    @property
    def label(self):
        own = [str(value) for key, value in self.parameters.items() if key not in ("form", "shape")]
        return " ".join([self.suite, self.name, *own])

    @property
    def ours(self):
        return next(way for way in self.ways if way.ours)

    @property
    def peers(self):
        return [way for way in self.ways if not way.ours]

    @property
    def best_peer(self):
        return min(self.peers, key=lambda way: way.median, default=None)

    def way(self, name):
        return next((way for way in self.ways if way.name == name), None)

    @property
    def ratio(self):
        """Time of the fastest peer over ours: above 1 is faster; None without a peer."""
        return ratio(self.best_peer, self.ours) if self.peers else None

    def share_of_copy(self, way):
        """Share of the copy bandwidth that the fewest bytes make of this time; None where no bytes must move."""
        return self.cost["bytes"] / (way.median * 1e-6) / self.ceilings["copy"]["best"] if self.cost["bytes"] else None

    def share_of_multiply(self, way):
        rate = self.ceilings["bf16" if self.parameters.get("dtype") == "bf16" else "f32"]["best"]
        return self.cost["operations"] / (way.median * 1e-6) / rate if self.cost["operations"] else None

    def floor_us(self):
        """The least time by the ceilings; None without a cost."""
        rate = self.ceilings["bf16" if self.parameters.get("dtype") == "bf16" else "f32"]["best"]
        floor = max(self.cost["bytes"] / self.ceilings["copy"]["best"], self.cost["operations"] / rate)
        return floor * 1e6 or None


def ratio(numerator, denominator):
    """The median of the ratios of each round: what slowed the machine in a round slowed both ways in it."""
    return statistics.median(a / b for a, b in zip(numerator.samples, denominator.samples))


class Results:
    def __init__(self, data):
        if data.get("format") != FORMAT:
            raise BadResults(f"expected results of format {FORMAT}, got {data.get('format')}")
        try:
            self.data = data
            self.ceilings = data["ceilings"]
            self.benchmarks = [Benchmark(row, self.ceilings) for row in data["benchmarks"]]
            if not all(way.samples for benchmark in self.benchmarks for way in benchmark.ways):
                raise BadResults("a way without samples")
        except (KeyError, TypeError, ValueError) as error:
            raise BadResults(f"incomplete results: {error!r}") from error

    def suite(self, name):
        return [benchmark for benchmark in self.benchmarks if benchmark.suite == name]


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except (OSError, ValueError) as error:
        raise BadResults(f"{path}: {error}") from error
    try:
        return Results(data)
    except BadResults as error:
        raise BadResults(f"{path}: {error}") from error


def join_ceilings(before, after):
    """One set of ceilings of the probes before and after the benchmarks: the better of both, with the samples of both."""
    joined = {"threads": before["threads"], "buffer_bytes": before["buffer_bytes"], "samples": {"before": before, "after": after}}
    for name in ("copy", "f32", "bf16"):
        better = max(before, after, key=lambda probe: probe[name]["best"])[name]
        joined[name] = {"by": better["by"], "best": better["best"]}
    return joined
