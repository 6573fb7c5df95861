"""What is counted on the path of a call?  Plain numbers, shown to Prometheus when it asks.

The client library's own counters take a lock and half a microsecond each, its histograms two and
a half; five of them per call would be a quarter of what a call may cost.  These are a
dictionary's cost.  They are written on the event loop alone, and read by one copy in C.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TypeAlias

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Labels: TypeAlias = tuple[str, ...]


class Counters(dict[Labels, float]):
    """A family of counters by label values: `family["a", "b"] += 1`."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str]) -> None:
        super().__init__()
        self.name = name
        self.help_text = help_text
        self.labels = labels

    def __missing__(self, labels: Labels) -> float:
        return 0

    def metric(self) -> Metric:
        """As it stands now."""
        family = CounterMetricFamily(self.name, self.help_text, labels=self.labels)
        for labels, value in self.copy().items():
            family.add_metric(labels, value)
        return family


class Timings(dict[Labels, list[float]]):
    """A family of histograms by label values.  A row holds a count per bucket, then the sum."""

    def __init__(
        self, name: str, help_text: str, labels: Sequence[str], bounds: Sequence[float]
    ) -> None:
        super().__init__()
        self.name = name
        self.help_text = help_text
        self.labels = labels
        self.bounds = tuple(bounds)

    def __missing__(self, labels: Labels) -> list[float]:
        row = self[labels] = [0.0] * (len(self.bounds) + 2)
        return row

    def observe(self, labels: Labels, seconds: float) -> None:
        """Count one duration."""
        row = self[labels]
        row[bisect_left(self.bounds, seconds)] += 1
        row[-1] += seconds

    def metric(self) -> Metric:
        """As it stands now."""
        family = HistogramMetricFamily(self.name, self.help_text, labels=self.labels)
        names = [*map(floatToGoString, self.bounds), "+Inf"]
        for labels, row in self.copy().items():
            *counts, total = row.copy()
            buckets = list(zip(names, accumulate(counts), strict=True))
            family.add_metric(labels, buckets, sum_value=total)
        return family


class Tallies(Collector):
    """Shows families to a registry."""

    def __init__(self, families: Iterable[Counters | Timings]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterator[Metric]:
        """Every family as it stands now."""
        return (family.metric() for family in self._families)
