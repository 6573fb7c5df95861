from __future__ import annotations

import pytest

from proxy.core.model import Call, Head, Kind
from proxy.core.replay_events import KEEP, LEASE, EventGuard, EventStep, event_key

HEAD = Head("POST", "/retell", "", {}, [], b"h", "192.0.2.1")
DELIVER, WAIT, DELIVERED = EventStep.DELIVER, EventStep.WAIT, EventStep.DELIVERED


def event(name: str | None, call_id: str | None = "call_1a", body: bytes = b"{}") -> Call:
    return Call(Kind.EVENT, HEAD, body, id=call_id, event=name)


@pytest.mark.parametrize("name", ["call_started", "call_ended", "call_analyzed", "chat_ended"])
def test_what_a_call_has_once_is_one_event_whatever_it_says(name: str) -> None:
    """Its retries may carry another time of sending."""
    key = event_key(event(name, body=b"1"))

    assert key is not None
    assert 0 < key < 2**64
    assert key == event_key(event(name, body=b"2"))
    assert key != event_key(event(name, "call_2b", b"1"))
    assert key != event_key(event("call_other", body=b"1"))


@pytest.mark.parametrize("name", ["transfer_started", "transfer_ended", "something_new"])
def test_what_may_come_again_is_told_apart_by_its_body(name: str) -> None:
    """A call may be transferred twice, and of a new event nobody knows how often it comes."""
    key = event_key(event(name, body=b'{"transfer_destination":"+14155550111"}'))

    assert key is not None
    assert key == event_key(event(name, body=b'{"transfer_destination":"+14155550111"}'))
    assert key != event_key(event(name, body=b'{"transfer_destination":"+14155550112"}'))


def test_what_cannot_be_told_apart_is_delivered_every_time() -> None:
    assert event_key(event("transcript_updated")) is None
    assert event_key(event("call_ended", None)) is None
    assert event_key(event(None)) is None
    assert event_key(Call(Kind.INBOUND, HEAD, id="call_1a", event="call_inbound")) is None
    assert event_key(Call(Kind.ALERT, HEAD, id="call_1a", event="alert_triggered")) is None


def test_name_and_id_cannot_run_into_each_other() -> None:
    assert event_key(event("ab", "c")) != event_key(event("a", "bc"))


def test_the_key_outlives_processes_and_versions() -> None:
    assert event_key(event("call_ended")) == 11065806724896789733


def test_an_event_that_was_taken_is_not_delivered_again_for_a_day() -> None:
    guard = EventGuard()
    assert guard.begin(7, 100.0) is DELIVER
    guard.ended(7, 101.0, delivered=True)

    assert guard.begin(7, 102.0) is DELIVERED
    assert guard.begin(7, 100.0 + KEEP) is DELIVERED
    assert guard.begin(7, 102.0 + KEEP) is DELIVER
    assert guard.begin(8, 102.0) is DELIVER


def test_a_twin_waits_and_delivers_itself_if_the_first_could_not() -> None:
    guard = EventGuard()
    assert guard.begin(7, 100.0) is DELIVER
    assert guard.begin(7, 101.0) is WAIT
    assert guard.under_way == 1
    guard.ended(7, 102.0, delivered=False)

    assert guard.under_way == 0
    assert guard.begin(7, 102.0) is DELIVER


def test_a_delivery_that_got_lost_keeps_nobody_waiting_for_ever() -> None:
    guard = EventGuard()
    guard.begin(7, 100.0)

    assert guard.begin(7, 99.9 + LEASE) is WAIT
    assert guard.begin(7, 100.0 + LEASE) is DELIVER
    assert guard.begin(7, 101.0 + LEASE) is WAIT


def test_an_end_without_a_beginning_counts_too() -> None:
    """As one does that comes from the outbox."""
    guard = EventGuard()
    guard.ended(7, 100.0, delivered=True)

    assert guard.begin(7, 101.0) is DELIVERED


def test_what_is_under_way_can_be_told() -> None:
    guard = EventGuard()
    for key in (1, 2, 3):
        guard.begin(key, 0.0)
    guard.ended(2, 0.0, delivered=True)

    assert guard.keys_under_way() == [1, 3]
