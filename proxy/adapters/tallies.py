"""What is counted on the path of a call?  Plain numbers, shown to Prometheus when it asks.

The client library's own counters take a lock and half a microsecond each, its histograms two and
a half; five of them per call would be a quarter of what a call may cost.  These are a
dictionary's cost, and what several families tell of one exchange is written once.  They are
written on the event loop alone, and read by one copy in C.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from operator import add
from typing import TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Labels: TypeAlias = tuple[str, ...]
Row: TypeAlias = list[float]
"""How many took so long, by bucket; then the sum of all durations."""


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
        return counters(self.name, self.help_text, self.labels, self.copy())


class Timings(dict[Labels, Row]):
    """How often and how long, by label values; every family that tells of it is a `Part`."""

    def __init__(self, labels: Sequence[str], bounds: Sequence[float]) -> None:
        super().__init__()
        self.labels = labels
        self.bounds = tuple(bounds)

    def __missing__(self, labels: Labels) -> Row:
        row = self[labels] = [0.0] * (len(self.bounds) + 2)
        return row

    def observe(self, labels: Labels, seconds: float) -> None:
        """Count one duration."""
        row = self[labels]
        row[bisect_left(self.bounds, seconds)] += 1
        row[-1] += seconds

    def foresee(self, *labels: str) -> None:
        """Show these label values before their first event, or alerts see no data."""
        self.setdefault(labels, [0.0] * (len(self.bounds) + 2))


class Part:
    """A family told by some labels of `whole`, of which an exchange then writes one row only.

    Counters, or with `timed` histograms.  Rows in which one of its labels is empty are no part.
    """

    def __init__(
        self,
        whole: Timings,
        name: str,
        help_text: str,
        labels: Sequence[str],
        *,
        timed: bool = False,
    ) -> None:
        self._whole = whole
        self.name = name
        self.help_text = help_text
        self.labels = labels
        self._places = [whole.labels.index(label) for label in labels]
        self._timed = timed

    def metric(self) -> Metric:
        """As it stands now."""
        rows: dict[Labels, Row] = {}
        for labels, row in self._whole.copy().items():
            mine = tuple(labels[place] for place in self._places)
            if "" not in mine:
                rows[mine] = [*map(add, rows[mine], row)] if mine in rows else row.copy()
        if not self._timed:
            counts = {labels: sum(row[:-1]) for labels, row in rows.items()}
            return counters(self.name, self.help_text, self.labels, counts)
        seen = {labels: row for labels, row in rows.items() if any(row)}
        return histograms(self.name, self.help_text, self.labels, seen, self._whole.bounds)


class Read:
    """A family that is kept elsewhere: `values` tells it when somebody asks."""

    def __init__(
        self,
        name: str,
        help_text: str,
        labels: Sequence[str],
        values: Callable[[], Mapping[Labels, float]],
        *,
        gauge: bool = False,
    ) -> None:
        self.name = name
        self.help_text = help_text
        self.labels = labels
        self._values = values
        self._gauge = gauge

    def metric(self) -> Metric:
        """As it stands now."""
        if not self._gauge:
            return counters(self.name, self.help_text, self.labels, self._values())
        family = GaugeMetricFamily(self.name, self.help_text, labels=self.labels)
        for each, value in self._values().items():
            family.add_metric(each, value)
        return family


class Tallies(Collector):
    """Shows families to a registry."""

    def __init__(self, families: Iterable[Counters | Part | Read]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterator[Metric]:
        """Every family as it stands now."""
        return (family.metric() for family in self._families)


def counters(
    name: str, help_text: str, labels: Sequence[str], values: Mapping[Labels, float]
) -> Metric:
    """A family of counters as the client library knows it."""
    family = CounterMetricFamily(name, help_text, labels=labels)
    for each, value in values.items():
        family.add_metric(each, value)
    return family


def histograms(
    name: str,
    help_text: str,
    labels: Sequence[str],
    rows: Mapping[Labels, Row],
    bounds: Sequence[float],
) -> Metric:
    """A family of histograms as the client library knows it."""
    family = HistogramMetricFamily(name, help_text, labels=labels)
    names = [*map(floatToGoString, bounds), "+Inf"]
    for each, row in rows.items():
        *counts, total = row.copy()
        buckets = list(zip(names, accumulate(counts), strict=True))
        family.add_metric(each, buckets, sum_value=total)
    return family
