"""Kinds of series: the catalogue that declares them, and those that ``prometheus_client`` lacks.

Owns the registry, and under which further names a series is served. Everything that is declared
here is in ``docs/metrics.md``. Knows no metric by name.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

Labelled = Mapping[tuple[str, ...], float]
"""Values by the values of all labels."""


@dataclass(frozen=True)
class Declared:
    """One family of series, as it is served."""

    name: str
    """As in the text: counters with ``_total``, but for those of TGI."""
    kind: str
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: str = ""
    """In words."""
    alias: str = ""
    """A second name with the same values."""


class Catalogue:
    """Declares series, and registers them at the same time."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.declared: list[Declared] = []

    @property
    def bare(self) -> frozenset[str]:
        """Counters that are served without ``_total``."""
        return frozenset(
            one.name
            for one in self.declared
            if one.kind == "counter" and not one.name.endswith("_total")
        )

    @property
    def aliases(self) -> dict[str, str]:
        """Second names."""
        return {one.name: one.alias for one in self.declared if one.alias}

    def counter(self, name: str, meaning: str, *labels: str) -> Counter:
        """A counter. TGI's keep their name, and have a second one with ``_total``."""
        is_ours = not name.startswith("tgi_")
        served = f"{name}_total" if is_ours else name
        self._declare(served, "counter", meaning, labels, alias="" if is_ours else f"{name}_total")
        return Counter(name, meaning, labels, registry=self.registry)

    def histogram(
        self, name: str, meaning: str, buckets: tuple[float, ...], words: str
    ) -> "Buckets":
        """A histogram without labels. TGI's durations have a second name with ``_seconds``."""
        return self.histograms(name, meaning, buckets, words, "", ("",))[""]

    def histograms(
        self,
        name: str,
        meaning: str,
        buckets: tuple[float, ...],
        words: str,
        label: str,
        values: tuple[str, ...],
    ) -> dict[str, "Buckets"]:
        """A histogram for each value of a label."""
        self._declare(name, "histogram", meaning, (label,) if label else (), words,
                      _in_seconds(name))  # fmt: skip
        tallies = {value: Buckets(buckets) for value in values}
        self.registry.register(_Histograms(name, meaning, label, tallies))
        return tallies

    def watched(
        self, name: str, meaning: str, labels: tuple[str, ...], read: Callable[[], Labelled]
    ) -> None:
        """A gauge that is read from its owner at every scrape, maybe in another thread."""
        self._declare(name, "gauge", meaning, labels)
        self.registry.register(_Watched(GaugeMetricFamily, name, meaning, labels, read))

    def counted(
        self, name: str, meaning: str, labels: tuple[str, ...], read: Callable[[], Labelled]
    ) -> None:
        """A counter that is read from its owner at every scrape; ``name`` ends in ``_total``."""
        self._declare(name, "counter", meaning, labels)
        family = name.removesuffix("_total")
        self.registry.register(_Watched(CounterMetricFamily, family, meaning, labels, read))

    def _declare(
        self,
        name: str,
        kind: str,
        meaning: str,
        labels: tuple[str, ...] = (),
        buckets: str = "",
        alias: str = "",
    ) -> None:
        self.declared.append(Declared(name, kind, meaning, labels, buckets, alias))


def _in_seconds(name: str) -> str:
    return f"{name}_seconds" if name.startswith("tgi_") and name.endswith("_duration") else ""


class Buckets:
    """The counts of one histogram. Only one thread adds.

    PERF: ``prometheus_client`` asks bucket after bucket and takes two locks, 3 us an observation;
    there are 15 in a step in which one sequence comes and one goes.
    """

    def __init__(self, buckets: tuple[float, ...]) -> None:
        self.bounds = buckets
        self.counts = [0] * (len(buckets) + 1)
        self.sum = 0.0

    def add(self, value: float, count: int = 1) -> None:
        """``value`` was observed so many times."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.sum += value * count


class _Histograms(Collector):
    """The tallies of one family, by the value of its label."""

    def __init__(self, name: str, meaning: str, label: str, tallies: dict[str, Buckets]) -> None:
        self._name = name
        self._meaning = meaning
        self._label = label
        self._tallies = tallies

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """For the registry."""
        labels = (self._label,) if self._label else ()
        family = HistogramMetricFamily(self._name, self._meaning, labels=labels)
        for value, tally in self._tallies.items():
            bounds = [*(repr(float(bound)) for bound in tally.bounds), "+Inf"]
            below = accumulate(list(tally.counts))
            buckets = [(bound, float(count)) for bound, count in zip(bounds, below, strict=True)]
            family.add_metric((value,) if labels else (), buckets, sum_value=tally.sum)
        yield family


class _Watched(Collector):
    """Series whose values lie with their owner."""

    def __init__(
        self,
        family: type[GaugeMetricFamily] | type[CounterMetricFamily],
        name: str,
        meaning: str,
        labels: tuple[str, ...],
        read: Callable[[], Labelled],
    ) -> None:
        self._family = family
        self._name = name
        self._meaning = meaning
        self._labels = labels
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """For the registry."""
        family = self._family(self._name, self._meaning, labels=self._labels)
        for labels, value in self._read().items():
            family.add_metric(labels, value)
        yield family


class WorstOf:
    """The largest value of the last while, kept in slots of equal length."""

    SLOT_S = 5.0
    SLOTS = 12

    def __init__(self) -> None:
        self._slots: dict[int, float] = {}

    def see(self, value: float, now: float) -> None:
        """A value; O(1)."""
        slot = int(now // self.SLOT_S)
        if value > self._slots.get(slot, 0.0):
            self._slots[slot] = value
            if len(self._slots) > self.SLOTS:
                self._forget(slot)

    def worst(self, now: float) -> float:
        """The largest of the last minute; 0 if there was none."""
        oldest = int(now // self.SLOT_S) - self.SLOTS
        return max((v for slot, v in list(self._slots.items()) if slot > oldest), default=0.0)

    def _forget(self, slot: int) -> None:
        self._slots = {k: v for k, v in self._slots.items() if k > slot - self.SLOTS}
