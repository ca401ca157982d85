# SPDX-License-Identifier: Apache-2.0
"""What moved between two runs.

Of a way with a peer, the figure is the time over the peer's in the same round, one number for each round, whatever the machines' speeds.
Of a way without one, it is the time in the run's own measure: over the median, of all ways that both runs have, of the factor by which
each became slower.

The rule: a figure moved if the medians of its logarithm differ by more than 5 % and by more than 4 standard errors,
1.2533 sigma sqrt(1 / n_A + 1 / n_B). sigma is that of the figure's rounds in both runs, each about its median, by the quartiles (their
distance over 1.349), so that single outliers do not count; and no less than the median sigma of all figures, since of few rounds some
agree by chance.
"""
import math
import statistics

LEAST_CHANGE = math.log(1.05)
STANDARD_ERRORS = 4.0


def sigma(first, second):
    residuals = [value - statistics.median(values) for values in (first, second) for value in values]
    lower, _, upper = statistics.quantiles(residuals, n=4, method="inclusive")
    return (upper - lower) / 1.349


def logarithms(way, peer):
    if peer is None:
        return [math.log(sample) for sample in way.samples]
    return [math.log(a / b) for a, b in zip(way.samples, peer.samples)]


class Change:
    """before and after: medians of the figure; factor: above 1 is worse; noise: the factor that would not count."""

    def __init__(self, label, against, first, second, drift=0.0):
        self.label, self.against = label, against
        a, b = statistics.median(first), statistics.median(second) - drift
        self.before, self.after = math.exp(a), math.exp(b)
        self.difference = b - a
        self.sigma = sigma(first, second)
        self.median_error = 1.2533 * math.sqrt(1 / len(first) + 1 / len(second))
        self.least_sigma = 0.0

    @property
    def bound(self):
        return max(LEAST_CHANGE, STANDARD_ERRORS * max(self.sigma, self.least_sigma) * self.median_error)

    @property
    def factor(self):
        return math.exp(self.difference)

    @property
    def noise(self):
        return math.exp(min(self.bound, 700))

    @property
    def worse(self):
        return self.difference > self.bound

    @property
    def better(self):
        return self.difference < -self.bound


def changes(first, second):
    """All figures of ours that both results have, and the labels that only one has."""
    a = {benchmark.label: benchmark for benchmark in first.benchmarks}
    b = {benchmark.label: benchmark for benchmark in second.benchmarks}
    common = [label for label in a if label in b]
    pairs = []
    drifts = []
    for label in common:
        for way in a[label].ways:
            other = b[label].way(way.name)
            if other is None:
                continue
            drifts.append(math.log(other.median / way.median))
            if way.ours:
                peers = [peer for peer in a[label].peers if b[label].way(peer.name)]
                pairs.append((label, way, other, peers))
    drift = statistics.median(drifts) if drifts else 0.0
    found = []
    for label, way, other, peers in pairs:
        name = label if way.name == "molfuse" else f"{label}: {way.name}"
        for peer in peers:
            found.append(Change(name, peer.name, logarithms(way, peer), logarithms(other, b[label].way(peer.name))))
        if not peers:
            found.append(Change(name, None, logarithms(way, None), logarithms(other, None), drift))
    least = statistics.median(change.sigma for change in found) if found else 0.0
    for change in found:
        change.least_sigma = least
    return found, [label for label in a if label not in b], [label for label in b if label not in a]


def report(first, second, say):
    """Prints what moved; whether something got worse. None where nothing can be compared."""
    found, gone, new = changes(first, second)
    if not found:
        return None
    for name in ("cpu", "device", "threads", "backend"):
        if first.data.get(name) != second.data.get(name):
            say(f"note: {name} was {first.data.get(name)}, now {second.data.get(name)}")
    if first.data.get("quick") or second.data.get("quick"):
        say("note: a quick run is compared, whose noise is large")
    moved = [change for change in found if change.worse or change.better]
    for change in sorted(moved, key=lambda change: -change.difference):
        against = f"time over {change.against}'s" if change.against else "time, in us of A's machine"
        say(f"{'WORSE ' if change.worse else 'better'} {change.label}: {against} {change.before:.4g} -> {change.after:.4g}, "
            f"x{change.factor:.3f} (noise x{change.noise:.3f})")
    for label in gone:
        say(f"only in A: {label}")
    for label in new:
        say(f"only in B: {label}")
    worse = sum(change.worse for change in moved)
    say(f"{len(found)} figures: {worse} worse, {len(moved) - worse} better, {len(found) - len(moved)} within noise")
    return worse > 0
