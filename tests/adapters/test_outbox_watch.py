from __future__ import annotations

import io
import json
from typing import Any

import pytest
from msgspec.structs import replace

from proxy.adapters.logs import configure
from proxy.adapters.metrics import Metrics
from proxy.adapters.outbox_watch import REMIND_SECONDS, OutboxWatch
from proxy.core.outbox import State
from proxy.core.outbox_lines import Lines
from tests.adapters.outbox_kit import WALL, event
from tests.fakes import FakeClock


class Watched:
    def __init__(self) -> None:
        self.clock, self.stream, self.metrics = FakeClock(), io.StringIO(), Metrics("t")
        log = configure(self.clock.wall_ms, stream=self.stream)
        self.watch = OutboxWatch(self.metrics.outbox, log, self.clock)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self.lines]

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"t_outbox_{name}", labels)


@pytest.fixture
def seen() -> Watched:
    return Watched()


def test_what_alerts_ask_for_is_there_before_anything_happened(seen: Watched) -> None:
    assert seen.value("taken_total") == 0
    assert seen.value("entries", state="dead") == 0
    assert seen.value("refused_total", reason="full") == 0
    assert seen.value("deliveries_total", outcome="dead") == 0


def test_an_outage_is_told_when_it_begins_and_when_its_last_event_is_out(seen: Watched) -> None:
    entry, _ = event()
    for queued in (1, 2):
        seen.watch.taken(queued)
    for queued in (1, 0):
        seen.watch.delivered(entry, "webhook", queued)

    assert seen.events == [
        "outbox_filled",
        "outbox_delivered",
        "outbox_delivered",
        "outbox_emptied",
    ]
    assert seen.value("taken_total") == 2
    assert seen.value("deliveries_total", outcome="delivered") == 2
    assert seen.lines[1]["call_id"] == "call_7"
    assert seen.lines[1]["late_ms"] == seen.clock.wall_ms() - entry.received_ms


def test_a_dead_event_is_told_with_its_reason(seen: Watched) -> None:
    entry = replace(event()[0], state=State.DEAD, reason="webhook answered 422", tries=3, id=7)
    seen.watch.failed()
    seen.watch.died(entry)

    (line,) = seen.lines
    assert (line["event"], line["level"]) == ("outbox_gave_up", "error")
    assert (line["id"], line["tries"], line["reason"]) == (7, 3, "webhook answered 422")
    assert seen.value("deliveries_total", outcome="failed") == 1
    assert seen.value("deliveries_total", outcome="dead") == 1


def test_each_refusal_is_counted_and_one_a_minute_is_told(seen: Watched) -> None:
    for _ in range(3):
        seen.watch.refused("full", "much")
    seen.watch.refused("store", "the disk")
    seen.clock.advance(REMIND_SECONDS)
    seen.watch.refused("full", "much")

    assert [line["reason"] for line in seen.lines] == ["full", "store", "full"]
    assert seen.value("refused_total", reason="full") == 4


def test_a_store_that_is_away_is_told_once_and_so_is_its_return(seen: Watched) -> None:
    seen.watch.store_back(0, 0)
    for _ in range(3):
        seen.watch.store_failed("no space")
    seen.watch.store_back(0, 0)
    seen.watch.store_back(2, 1)

    assert seen.events == ["outbox_store_failed", "outbox_opened", "outbox_opened"]
    assert (seen.lines[2]["queued"], seen.lines[2]["dead"]) == (2, 1)


def test_figures_follow_the_lines(seen: Watched) -> None:
    lines = Lines()
    seen.metrics.outbox.show(lines, lambda: WALL + 61_001)
    assert seen.value("oldest_seconds") == 0

    lines.put(replace(event(1)[0], id=1), 0.0)
    lines.put(replace(event(2)[0], id=2, state=State.DEAD), 0.0)

    assert seen.value("entries", state="queued") == 1
    assert seen.value("entries", state="dead") == 1
    assert seen.value("oldest_seconds") == 61


def test_a_clock_that_went_back_makes_nothing_younger_than_now(seen: Watched) -> None:
    lines = Lines()
    seen.metrics.outbox.show(lines, lambda: WALL - 5000)
    lines.put(replace(event(1)[0], id=1), 0.0)

    assert seen.value("oldest_seconds") == 0
