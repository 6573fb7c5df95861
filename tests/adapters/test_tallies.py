from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from proxy.adapters.tallies import Counters, Part, Read, Tallies, Timings

BOUNDS = (0.1, 0.5, 1.0)


def registry(*families: Counters | Part | Read) -> CollectorRegistry:
    found = CollectorRegistry()
    found.register(Tallies(families))
    return found


def test_a_counter_counts_per_label_values() -> None:
    family = Counters("n_calls", "Calls.", ("arm", "verdict"))
    family["mcp", "success"] += 1
    family["mcp", "success"] += 1
    family["webhook", "success"] += 0
    seen = registry(family)

    assert seen.get_sample_value("n_calls_total", {"arm": "mcp", "verdict": "success"}) == 2
    assert seen.get_sample_value("n_calls_total", {"arm": "webhook", "verdict": "success"}) == 0


def test_what_is_kept_elsewhere_is_read_when_somebody_asks() -> None:
    kept: dict[tuple[str, ...], float] = {("mcp",): 1.0}
    seen = registry(
        Read("n_waiting", "Waiting.", ("arm",), lambda: kept, gauge=True),
        Read("n_full", "Full.", ("arm",), lambda: kept),
    )
    kept["mcp",] = 7.0

    assert seen.get_sample_value("n_waiting", {"arm": "mcp"}) == 7
    assert seen.get_sample_value("n_full_total", {"arm": "mcp"}) == 7


def test_asking_for_a_counter_does_not_make_one() -> None:
    family = Counters("n_calls", "Calls.", ("arm",))

    assert family["mcp",] == 0
    assert not family


@given(st.lists(st.floats(0, 2) | st.sampled_from(BOUNDS), max_size=50))
def test_a_histogram_agrees_with_the_client_librarys_own(durations: list[float]) -> None:
    ours = Timings(("arm", "verdict"), BOUNDS)
    theirs_registry = CollectorRegistry()
    theirs = Histogram("n_seconds", "Seconds.", ("arm",), buckets=BOUNDS, registry=theirs_registry)
    child = theirs.labels("mcp")
    child.observe(0.3)
    ours.observe(("mcp", "success"), 0.3)
    for place, seconds in enumerate(durations):
        ours.observe(("mcp", str(place % 3)), seconds)
        child.observe(seconds)
    seen = registry(Part(ours, "n_seconds", "Seconds.", ("arm",), timed=True))

    for le in ("0.1", "0.5", "1.0", "+Inf"):
        labels = {"arm": "mcp", "le": le}
        expected = theirs_registry.get_sample_value("n_seconds_bucket", labels)
        assert seen.get_sample_value("n_seconds_bucket", labels) == expected
    assert seen.get_sample_value("n_seconds_count", {"arm": "mcp"}) == len(durations) + 1
    total = seen.get_sample_value("n_seconds_sum", {"arm": "mcp"})
    assert total == pytest.approx(sum(durations) + 0.3)


def test_families_tell_their_part_of_what_was_written_once() -> None:
    whole = Timings(("kind", "arm", "tool"), BOUNDS)
    whole.observe(("function", "mcp", "book"), 0.2)
    whole.observe(("function", "mcp", "cancel"), 0.4)
    whole.observe(("event", "mcp", ""), 0.01)
    whole.foresee("inbound", "mcp", "")
    whole.foresee("event", "mcp", "")
    seen = registry(
        Part(whole, "n_calls", "Calls.", ("kind", "arm")),
        Part(whole, "n_tools", "Tools.", ("tool",)),
        Part(whole, "n_seconds", "Seconds.", ("kind",), timed=True),
    )

    assert [
        seen.get_sample_value("n_calls_total", {"kind": kind, "arm": "mcp"})
        for kind in ("function", "event", "inbound", "alert")
    ] == [2, 1, 0, None]
    assert seen.get_sample_value("n_tools_total", {"tool": "cancel"}) == 1
    assert seen.get_sample_value("n_tools_total", {"tool": ""}) is None
    assert seen.get_sample_value("n_seconds_count", {"kind": "function"}) == 2
    assert seen.get_sample_value("n_seconds_count", {"kind": "inbound"}) is None


def test_the_exposition_is_the_one_of_the_client_library() -> None:
    family = Counters("n_calls", "Calls.", ("arm",))
    family["mcp",] += 1

    assert generate_latest(registry(family)).decode() == (
        '# HELP n_calls_total Calls.\n# TYPE n_calls_total counter\nn_calls_total{arm="mcp"} 1.0\n'
    )


def test_a_scrape_in_another_thread_never_trips_over_new_children() -> None:
    """The admin renders in a thread while the loop counts."""
    family = Counters("n_calls", "Calls.", ("arm",))
    timings = Timings(("arm", "verdict"), BOUNDS)
    seen = registry(
        family,
        Part(timings, "n_tries", "Tries.", ("arm",)),
        Part(timings, "n_seconds", "Seconds.", ("arm",), timed=True),
    )
    failures: list[BaseException] = []
    done = threading.Event()

    def scrape() -> None:
        try:
            while not done.is_set():
                generate_latest(seen)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=scrape)
    thread.start()
    for n in range(2_000):
        family[str(n),] += 1
        timings.observe((str(n), "success"), 0.2)
    done.set()
    thread.join()

    assert not failures
