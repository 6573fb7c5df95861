from __future__ import annotations

import io
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import orjson
import pytest
from prometheus_client import generate_latest

from proxy.adapters.logs import configure
from proxy.adapters.metrics import Metrics
from proxy.adapters.watch import SplitRatio, Watcher
from proxy.core.arm_breaker import ArmBreaker
from proxy.core.breaker import BreakerConfig, State, Transition
from proxy.core.exchange import Attempt, Exchange
from proxy.core.model import Counts, Kind, Ran, Reason, Verdict
from tests.fakes import FakeClock

GOOD = Verdict("success", Ran.YES, Counts.SUCCESS)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def watcher(clock: FakeClock, stream: io.StringIO) -> Watcher:
    return Watcher(
        Metrics("n"), configure(clock.wall_ms, stream=stream), now=clock.now, access=None,
        to="mcp", tools=frozenset({"book"}),
    )  # fmt: skip


def sample(watcher: Watcher, name: str, **labels: str) -> float:
    return watcher.metrics.registry.get_sample_value(name, labels) or 0.0


def ended(tool: str, decided: str = "mcp", status: int = 200) -> Exchange:
    return Exchange(
        "r", 1.0, kind=Kind.FUNCTION, tool=tool, arm=decided, decided=decided,
        decided_by=Reason.SHARE, outcome="ok", status=status, ended=1.2,
    )  # fmt: skip


def test_one_exchange_counts_exactly_once(watcher: Watcher) -> None:
    watcher.exchange_ended(ended("book"))

    labels = {"kind": "function", "arm": "mcp", "outcome": "ok", "code_class": "2xx"}
    assert sample(watcher, "n_requests_total", **labels) == 1
    assert sample(watcher, "n_request_duration_seconds_count", kind="function", arm="mcp") == 1
    assert sample(watcher, "n_tool_executions_total", tool="book", arm="mcp", outcome="ok") == 1


def test_invented_tools_share_one_label(watcher: Watcher) -> None:
    for n in range(1000):
        watcher.exchange_ended(ended(f"invented_{n}"))

    assert len(watcher.metrics.exchanges) == 1
    assert sample(watcher, "n_tool_executions_total", tool="other", arm="mcp", outcome="ok") == 1000


def test_an_odd_status_has_a_code_class_of_its_own(watcher: Watcher) -> None:
    watcher.exchange_ended(ended("book", status=0))

    labels = {"kind": "function", "arm": "mcp", "outcome": "ok", "code_class": "none"}
    assert sample(watcher, "n_requests_total", **labels) == 1


def test_a_refusal_before_the_decision_is_no_split(watcher: Watcher) -> None:
    refused = Exchange("r", 1.0, kind=Kind.FUNCTION, outcome="refused", status=401, ended=1.0)
    watcher.exchange_ended(refused)

    assert watcher.ratio.value() == 0.0
    assert "n_tool_executions_total{" not in generate_latest(watcher.metrics.registry).decode()


def test_attempts_rescues_and_the_rest_are_counted(watcher: Watcher) -> None:
    watcher.attempt_ended(Attempt("mcp", GOOD, 0.1, 200))
    watcher.rescued("mcp", "connect")
    watcher.last_answered(Kind.FUNCTION)
    watcher.auth_failed("missing")
    watcher.rate_limited("tool")
    watcher.cache_looked("slots", "hit")
    watcher.replayed("twin")
    watcher.answered_late("mcp", GOOD)

    assert sample(watcher, "n_attempts_total", arm="mcp", verdict="success") == 1
    assert sample(watcher, "n_rescues_total", **{"from": "mcp", "reason": "connect"}) == 1
    assert sample(watcher, "n_last_answers_total", kind="function") == 1
    assert sample(watcher, "n_auth_failures_total", reason="missing") == 1
    assert sample(watcher, "n_rate_limited_total", scope="tool") == 1
    assert sample(watcher, "n_cache_total", tool="slots", result="hit") == 1
    assert sample(watcher, "n_replays_total", kind="twin") == 1
    assert sample(watcher, "n_late_answers_total", arm="mcp", verdict="success") == 1


def test_a_tools_breaker_has_figures_of_its_own(watcher: Watcher, stream: io.StringIO) -> None:
    breaker = ArmBreaker(BreakerConfig(failures=1), tools=["slots"])
    watcher.metrics.breakers = {"mcp": breaker}
    change = breaker.tools["slots"].trip(5.0)
    assert change
    watcher.breaker_changed("mcp", change)

    slots = {"arm": "mcp", "tool": "slots"}
    labels = {**slots, "from": "closed", "to": "open"}
    assert sample(watcher, "n_tool_breaker_transitions_total", **labels) == 1
    assert sample(watcher, "n_tool_breaker_state", **slots, state="open") == 1
    assert sample(watcher, "n_tool_breaker_state", **slots, state="closed") == 0
    assert sample(watcher, "n_breaker_state", arm="mcp", state="open") == 0
    assert orjson.loads(stream.getvalue())["tool"] == "slots"


def test_a_breakers_change_is_counted_shown_and_told(watcher: Watcher, stream: io.StringIO) -> None:
    watcher.breaker_changed("mcp", Transition(State.CLOSED, State.OPEN, "failures", 5.0))

    assert sample(watcher, "n_breaker_state", arm="mcp", state="open") == 1
    assert sample(watcher, "n_breaker_state", arm="mcp", state="closed") == 0
    told = orjson.loads(stream.getvalue())
    assert (told["event"], told["before"], told["after"]) == ("breaker_changed", "closed", "open")
    labels = {"arm": "mcp", "from": "closed", "to": "open"}
    assert sample(watcher, "n_breaker_transitions_total", **labels) == 1


def test_faults_and_crashes_are_told(watcher: Watcher, stream: io.StringIO) -> None:
    watcher.config_fault("mcp", "401")
    watcher.crashed("mcp", RuntimeError("odd"))

    events = [orjson.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert events == ["config_fault_seen", "exchange_crashed"]
    assert sample(watcher, "n_config_faults_total", arm="mcp") == 1


def test_what_was_shed_is_counted_each_time_and_told_once_a_minute(
    watcher: Watcher, stream: io.StringIO, clock: FakeClock
) -> None:
    for _ in range(3):
        watcher.shed("lag", Kind.EVENT)
    watcher.shed("in_flight", Kind.FUNCTION)
    clock.advance(60)
    watcher.shed("lag", Kind.FUNCTION)

    told = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    assert [(each["event"], each["reason"], each["kind"]) for each in told] == [
        ("load_shed", "lag", "event"),
        ("load_shed", "in_flight", "function"),
        ("load_shed", "lag", "function"),
    ]
    assert sample(watcher, "n_shed_total", reason="lag", kind="event") == 3


def test_what_is_asked_twice_is_counted(watcher: Watcher) -> None:
    watcher.repeated("mcp", "refused")
    watcher.hedged("mcp", "won")

    assert sample(watcher, "n_repeats_total", arm="mcp", outcome="refused") == 1
    assert sample(watcher, "n_hedges_total", **{"from": "mcp", "outcome": "won"}) == 1


def test_the_ratio_looks_at_five_minutes(clock: FakeClock) -> None:
    ratio = SplitRatio(clock.now)
    assert ratio.value() == 0.0
    for decided_for_to in (True, False, False, False):
        ratio.count(decided_for_to, clock.now())
    assert ratio.value() == 0.25

    clock.advance(200)
    ratio.count(True, clock.now())
    assert ratio.value() == 0.4

    clock.advance(150)
    assert ratio.value() == 1.0

    clock.advance(600)
    assert ratio.value() == 0.0


def test_the_ratio_is_read_by_another_thread_while_calls_come(
    clock: FakeClock, request: pytest.FixtureRequest
) -> None:
    """As a scrape does."""
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-6)
    ratio = SplitRatio(clock.now)
    stop: list[bool] = []

    def scrape() -> set[float]:
        seen = {0.0}
        while not stop:
            seen.add(ratio.value())
        return seen

    with ThreadPoolExecutor() as pool:
        scraped = pool.submit(scrape)
        for _ in range(5000):
            clock.advance(10)
            ratio.count(True, clock.now())
        stop.append(True)
        assert scraped.result() <= {0.0, 1.0}


def test_an_access_line_follows_where_one_is_wanted(clock: FakeClock, stream: io.StringIO) -> None:
    class Lines:
        def __init__(self) -> None:
            self.seen: list[Exchange] = []

        def write(self, x: Exchange) -> None:
            self.seen.append(x)

    lines = Lines()
    watcher = Watcher(
        Metrics("n"), configure(clock.wall_ms, stream=stream), now=clock.now, access=lines, to="mcp"
    )
    watcher.exchange_ended(ended("book"))

    assert len(lines.seen) == 1


def test_who_is_turned_away_from_the_pages_is_counted_and_now_and_then_told(
    watcher: Watcher, clock: FakeClock, stream: io.StringIO
) -> None:
    """A million guesses are a million in the figure, and a line a minute."""
    for _ in range(1000):
        watcher.admin_refused("wrong", "192.0.2.7")
    watcher.admin_refused("host", "192.0.2.7")
    clock.advance(61)
    watcher.admin_refused("wrong", "192.0.2.7")

    assert sample(watcher, "n_admin_refusals_total", reason="wrong") == 1001
    lines = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line["reason"]) for line in lines] == [
        ("admin_refused", "wrong"),
        ("admin_refused", "host"),
        ("admin_refused", "wrong"),
    ]


def test_repeated_signatures_are_counted_by_kind(watcher: Watcher) -> None:
    watcher.signature_repeated(Kind.EVENT)

    assert sample(watcher, "n_signature_repeats_total", kind="event") == 1
