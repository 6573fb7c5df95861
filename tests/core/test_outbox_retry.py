from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from proxy.core.model import Counts, Ran, Verdict
from proxy.core.outbox import Entry, State
from proxy.core.outbox_retry import Patience, Tried, after, again, pause, unreadable
from proxy.core.verdict import BREAKER_OPEN, judge_failure, judge_status
from proxy.errors import UpstreamFailed

WALL = 1_767_225_600_000
PATIENCE = Patience(first=2.0, most=300.0, give_up=86_400.0)
ENTRY = Entry("event", "call_7", "call_ended", "webhook", 600, WALL, WALL, WALL, id=7)


def answered(status: int, *, signed: bool = False, **headers: str) -> Tried:
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Tried("webhook", judge_status(status, fields), status, signed)


def failed(why: str, *, sent: bool) -> Tried:
    return Tried("webhook", judge_failure(UpstreamFailed(why, "", sent=sent), dispatched=True))


def next_of(tried: Tried, entry: Entry = ENTRY, later: float = 0.0) -> Entry | None:
    return after(entry, tried, wall_ms=WALL + round(later * 1000), patience=PATIENCE, jitter=1.0)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_a_2xx_is_the_end_of_it(status: int) -> None:
    assert next_of(answered(status)) is None


@pytest.mark.parametrize("status", [400, 402, 404, 408, 409, 410, 418, 422, 451])
def test_a_no_of_the_business_is_final_and_names_the_status(status: int) -> None:
    """Section 8: any other 4xx is the arm's answer.  It holds nobody up, and a person sees it."""
    dead = next_of(answered(status))

    assert dead is not None
    assert (dead.state, dead.reason, dead.tries) == (
        State.DEAD, f"webhook answered {status}", 1
    )  # fmt: skip


@pytest.mark.parametrize("status", [301, 308, 401, 403, 405, 413, 415, 421, 429, 500, 502, 503])
def test_what_may_pass_or_be_mended_is_tried_again(status: int) -> None:
    again_ = next_of(answered(status))

    assert again_ is not None
    assert (again_.state, again_.tries, again_.next_ms) == (State.QUEUED, 1, WALL + 2000)


@pytest.mark.parametrize(
    ("why", "sent", "reason"),
    [
        ("connect", False, "webhook gave no answer (connect)"),
        ("timeout", True, "webhook gave no answer (timeout); it may have arrived"),
        ("reset", True, "webhook gave no answer (reset); it may have arrived"),
    ],
)
def test_no_answer_is_tried_again_and_says_whether_it_may_have_arrived(
    why: str, sent: bool, reason: str
) -> None:
    entry = next_of(failed(why, sent=sent))

    assert entry is not None
    assert (entry.tries, entry.reason) == (1, reason)


@pytest.mark.parametrize(
    "tried",
    [Tried("webhook", BREAKER_OPEN), failed("full", sent=False)],
    ids=["open", "full"],
)
def test_an_arm_that_was_not_asked_is_no_try(tried: Tried) -> None:
    """Its pause must not grow while nobody even knocks."""
    entry = next_of(tried)

    assert entry is not None
    assert (entry.tries, entry.next_ms, entry.state) == (0, ENTRY.next_ms, State.QUEUED)
    assert entry.reason.startswith("webhook was not asked")


def test_a_stale_signature_names_its_remedy() -> None:
    unsigned, signed = next_of(answered(401)), next_of(answered(401, signed=True))

    assert unsigned is not None
    assert "set backends.webhook.sign" in unsigned.reason
    assert signed is not None
    assert "is that the key it knows?" in signed.reason


def test_pauses_double_up_to_the_longest() -> None:
    pauses = [pause(tries, PATIENCE, 1.0) for tries in range(1, 11)]

    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


@given(st.integers(1, 100_000), st.floats(0, 1))
def test_a_pause_is_never_longer_than_the_longest_nor_less_than_half(
    tries: int, jitter: float
) -> None:
    whole = pause(tries, PATIENCE, 1.0)

    assert whole / 2 <= pause(tries, PATIENCE, jitter) <= whole <= PATIENCE.most


def test_an_arm_that_asks_for_rest_gets_it_up_to_the_longest_pause() -> None:
    short, long = (next_of(answered(503, retry_after=rest)) for rest in ("60", "86400"))

    assert short is not None
    assert long is not None
    assert (short.next_ms, long.next_ms) == (WALL + 60_000, WALL + 300_000)


def test_after_give_up_an_entry_is_dead_with_its_last_reason() -> None:
    in_time = next_of(answered(500), later=86_399.0)
    late = next_of(answered(500), later=86_400.0)

    assert in_time is not None
    assert in_time.state is State.QUEUED
    assert late is not None
    assert (late.state, late.reason) == (State.DEAD, "webhook answered 500")


def test_an_entry_is_given_up_too_if_its_arm_is_never_asked() -> None:
    dead = next_of(Tried("webhook", BREAKER_OPEN), later=86_400.0)

    assert dead is not None
    assert dead.state is State.DEAD


def test_a_late_delivery_counts_all_the_same() -> None:
    assert next_of(answered(200), later=1_000_000.0) is None


def test_what_an_operator_brings_back_has_its_whole_time_again() -> None:
    dead = next_of(answered(500), later=90_000.0)
    assert dead is not None

    back = again(dead, WALL + 100_000_000)

    assert (back.state, back.received_ms) == (State.QUEUED, WALL)
    assert back.since_ms == back.next_ms == WALL + 100_000_000


def test_a_letter_that_cannot_be_read_is_dead() -> None:
    assert unreadable(ENTRY).state is State.DEAD


def test_a_verdict_that_says_nothing_of_the_arm_is_no_answer() -> None:
    """A try that was cut: by its label it neither delivered nor was refused."""
    cut = Tried("webhook", Verdict("cut", Ran.UNKNOWN, Counts.NOTHING))
    entry = next_of(cut)

    assert entry is not None
    assert (entry.state, entry.reason) == (
        State.QUEUED, "webhook gave no answer (cut); it may have arrived"
    )  # fmt: skip


def test_tries_go_on_counting() -> None:
    entry = next_of(answered(500), replace(ENTRY, tries=4))

    assert entry is not None
    assert (entry.tries, entry.next_ms) == (5, WALL + 32_000)
