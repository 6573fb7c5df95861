from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.limits import Gcra, Limit, neighbourhood


class Exact:
    """The same algorithm in rational numbers, with a memory that never loses a key."""

    def __init__(self, limit: Limit) -> None:
        self.step = Fraction(60) / Fraction(limit.per_minute)
        self.slack = self.step * (limit.depth - 1)
        self.full_at: dict[str, Fraction] = {}

    def wait(self, key: str, now: float) -> Fraction:
        full_at = max(self.full_at.get(key, Fraction(now)), Fraction(now))
        wait = full_at - Fraction(now) - self.slack
        if wait <= 0:
            self.full_at[key] = full_at + self.step
        return max(wait, Fraction(0))


def admitted(gcra: Gcra, times: list[float], key: str = "k") -> int:
    return sum(gcra.hit(key, now) == 0.0 for now in times)


def test_a_hundred_a_minute_admits_a_hundred_at_once_then_one_per_600_ms() -> None:
    gcra = Gcra(Limit(100, burst=1))

    assert admitted(gcra, [1000.0] * 250) == 100
    assert gcra.hit("k", 1000.0) == pytest.approx(0.6, abs=1e-5)
    for n in range(1, 200):
        at = 1000.0 + n * 0.6
        assert gcra.hit("k", at) == 0.0
        assert gcra.hit("k", at) > 0.5


@pytest.mark.row("L11")
def test_no_edge_lets_twice_the_limit_through() -> None:
    """A fixed window would admit 100 before its edge and 100 after it."""
    gcra = Gcra(Limit(100, burst=1))
    before, after = [59.9] * 100, [60.1] * 100

    assert admitted(gcra, before) == 100
    assert admitted(gcra, after) == 0


def test_burst_is_in_minutes_of_the_rate() -> None:
    gcra = Gcra(Limit(100, burst=3))

    assert admitted(gcra, [5.0] * 1000) == 300


@pytest.mark.parametrize(
    ("limit", "depth"), [(Limit(2, 0.1), 1), (Limit(100, 0.5), 50), (Limit(200, 3), 600)]
)
def test_a_bucket_holds_at_least_one(limit: Limit, depth: int) -> None:
    assert limit.depth == depth
    assert admitted(Gcra(limit), [7.0] * (depth + 5)) == depth


def test_a_full_minute_of_silence_fills_a_minutes_worth() -> None:
    gcra = Gcra(Limit(60, burst=1))
    admitted(gcra, [0.0] * 60)

    assert admitted(gcra, [60.0] * 100) == 60


def test_being_refused_does_not_push_the_next_admission_away() -> None:
    gcra = Gcra(Limit(60, burst=1))
    admitted(gcra, [0.0] * 60)

    assert admitted(gcra, [n / 100 for n in range(1, 100)]) == 0
    assert gcra.hit("k", 1.0) == 0.0


def test_one_key_does_not_pay_for_another() -> None:
    gcra = Gcra(Limit(1, burst=1))

    assert gcra.hit("a", 0.0) == 0.0
    assert gcra.hit("b", 0.0) == 0.0
    assert gcra.hit("a", 0.0) > 0


# Rates and times on which the ticks are exact, so that every single answer must be equal.
RATES = st.sampled_from([60.0, 120.0, 240.0, 30.0, 15.0])
STEPS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 200_000).map(lambda n: n / 1024)), max_size=300
)


@given(RATES, st.sampled_from([0.01, 0.05, 0.5, 1.0, 3.0]), STEPS)
def test_every_answer_equals_the_exact_ones(
    rate: float, burst: float, steps: list[tuple[str, float]]
) -> None:
    """Also over long silences, in which keys are forgotten."""
    limit = Limit(rate, burst)
    gcra, exact, now = Gcra(limit), Exact(limit), 1000.0
    for key, pause in steps:
        now += pause
        wait = exact.wait(key, now)

        assert gcra.hit(key, now) == pytest.approx(float(wait), abs=2 / 2**20 * float(exact.step))
        assert (gcra.hit(key, now) == 0.0) is (exact.wait(key, now) == 0)


@pytest.mark.row("L11")
@given(
    st.floats(0.5, 10_000),
    st.floats(0.01, 5),
    st.lists(st.floats(0, 30), min_size=1, max_size=200),
)
def test_never_more_than_the_bucket_and_what_flows_in(
    rate: float, burst: float, pauses: list[float]
) -> None:
    limit = Limit(rate, burst)
    gcra, now, count = Gcra(limit), 1e6, 0
    for pause in pauses:
        now += pause
        count += gcra.hit("k", now) == 0.0

        assert count <= limit.depth + (now - 1e6) * rate / 60 + 1e-3


@given(st.floats(0.5, 10_000), st.floats(0, 1e7))
def test_who_waits_as_long_as_told_is_admitted(rate: float, now: float) -> None:
    gcra = Gcra(Limit(rate, burst=1 / rate))
    gcra.hit("k", now)

    wait = gcra.hit("k", now)

    assert wait > 0
    assert gcra.hit("k", now + wait) == 0.0


def test_a_million_admissions_do_not_drift() -> None:
    gcra = Gcra(Limit(100, burst=1))
    admitted(gcra, [0.0] * 100)

    assert admitted(gcra, [n * 0.3 for n in range(200_001)]) == 100_000


@pytest.mark.row("L12")
def test_idle_keys_are_forgotten() -> None:
    gcra = Gcra(Limit(60, burst=1))
    for n in range(1000):
        gcra.hit(n, 0.0)
    gcra.hit("now", 61.0)
    gcra.hit("now", 122.0)

    assert len(gcra) <= 2


def test_after_a_long_silence_everything_is_forgotten_at_once() -> None:
    gcra = Gcra(Limit(60, burst=1))
    for n in range(1000):
        gcra.hit(n, 0.0)
    gcra.hit("now", 1e6)

    assert len(gcra) == 1


@pytest.mark.row("L12")
def test_a_flood_of_keys_stays_within_its_bound() -> None:
    """100,000 spoofed addresses must not cost 100,000 entries."""
    gcra = Gcra(Limit(1, burst=1), max_keys=1000)
    sizes = []
    for n in range(100_000):
        gcra.hit(n, 1.0)
        sizes.append(len(gcra))

    assert max(sizes) <= 1000


def test_in_a_flood_of_keys_those_in_use_are_kept() -> None:
    gcra = Gcra(Limit(60, burst=1), max_keys=100)
    for n in range(30):
        assert gcra.hit("busy", 1.0) == 0.0
        for other in range(40):
            gcra.hit((n, other), 1.0)

    assert admitted(gcra, [1.0] * 60, "busy") == 30


def test_a_new_key_is_admitted_even_if_the_map_is_full_of_live_ones() -> None:
    gcra = Gcra(Limit(1, burst=1), max_keys=2)

    assert [gcra.hit(n, 0.0) for n in range(10)] == [0.0] * 10


@pytest.mark.parametrize(
    ("rate", "burst"), [(0, 1), (-1, 1), (1, 0), (1, -2), (float("nan"), 1), (1, float("nan"))]
)
def test_a_limit_that_admits_nobody_is_a_mistake(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        Limit(rate, burst)


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("", "192.0.2.1", False),
        ("no address", "no address", True),
    ],
)
def test_addresses_of_one_subscriber_share_a_bucket(one: str, other: str, shared: bool) -> None:
    """Whoever holds a /64 could come from a new address each time."""
    assert (neighbourhood(one) == neighbourhood(other)) is shared
