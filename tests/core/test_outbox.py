from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.hops import hop
from proxy.core.model import Call, Head, Kind
from proxy.core.outbox import (
    MAX_NAME,
    OVERHEAD,
    Entry,
    Letter,
    call_of,
    entry_of,
    letter_of,
    name_of,
    pack_entry,
    pack_letter,
    unpack_entry,
    unpack_letter,
)

WALL = 1_767_225_600_000
BODY = '{"event":"call_ended","call":{"call_id":"call_7","transcript":"Grüß Gott"}}'.encode()


def ended(call_id: str | None = "call_7", body: bytes = BODY) -> Call:
    named = {b"x-retell-signature": b"v=1,d=2", b"content-type": b"application/json"}
    head = Head(
        "POST", "/retell", "a=1", named,
        [(b"X-Retell-Signature", b"v=1,d=2"), (b"Content-Type", b"application/json")],
        b"retell.example", "192.0.2.1", True, "/retell?a=1",
    )  # fmt: skip
    return Call(
        Kind.EVENT, head, body, call_id, start_ms=WALL - 60_000, event="call_ended", signed=True
    )


def test_a_call_comes_out_as_it_went_in() -> None:
    """The very bytes, and all that its headers for an arm are made of."""
    call = ended()
    entry, letter = entry_of(call, "webhook", WALL), letter_of(call)

    back = call_of(unpack_entry(pack_entry(entry)), unpack_letter(*pack_letter(letter)))

    assert back.body == BODY
    assert back.head.end_to_end == call.head.end_to_end
    assert back == msgspec.structs.replace(call, head=back.head)
    assert back.head == call.head


def test_a_circle_is_counted_through_the_outbox_too() -> None:
    """Or a backend's url that leads back here would make of one event a life's work."""
    call = ended()
    call.head.named[b"x-callsplit-hops"] = b"3"

    back = call_of(entry_of(call, "webhook", WALL), letter_of(call))

    assert hop(back.head) == (b"x-callsplit-hops", b"4")
    assert hop(call_of(entry_of(ended(), "webhook", WALL), letter_of(ended())).head)[1] == b"1"


def test_an_entry_holds_nothing_of_the_letter() -> None:
    entry = entry_of(ended(), "webhook", WALL)

    assert b"Gott" not in pack_entry(entry)
    assert b"v=1,d=2" not in pack_entry(entry)
    assert entry.size == len(BODY) + len("x-retell-signature" "v=1,d=2") + len(
        "content-type" "application/json"
    ) + OVERHEAD  # fmt: skip


def test_an_entry_is_due_from_its_arrival() -> None:
    entry = entry_of(ended(), "webhook", WALL)

    assert (entry.received_ms, entry.since_ms, entry.next_ms, entry.tries) == (WALL, WALL, WALL, 0)


def test_what_is_of_no_call_is_a_line_of_its_own() -> None:
    one, two = (msgspec.structs.replace(entry_of(ended(None), "webhook", WALL), id=n)
                for n in (1, 2))  # fmt: skip

    assert one.line != two.line
    assert entry_of(ended(), "webhook", WALL).line == "call_7"


def test_a_long_call_id_is_known_by_its_digest_but_told_in_full() -> None:
    """Ids are the callers' to choose: 50,000 entries must not hold 50,000 times what they like."""
    long = "x" * 100_000
    call = ended(long)
    entry, letter = entry_of(call, "webhook", WALL), letter_of(call)

    assert entry.call_id is not None
    assert len(entry.call_id) <= MAX_NAME
    assert entry.call_id != name_of("y" * 100_000)
    assert call_of(entry, letter).id == long


def test_an_alert_has_no_call_and_may_have_no_name() -> None:
    call = Call(Kind.ALERT, Head("POST", "/retell", "", {}, [], b"", ""), b"{}")
    entry = entry_of(call, "webhook", WALL)

    assert (entry.call_id, entry.event) == (None, "")
    assert call_of(entry, letter_of(call)).kind is Kind.ALERT


@given(st.binary(max_size=64))
def test_what_is_no_letter_and_no_entry_is_refused(noise: bytes) -> None:
    """ValueError is what msgspec's own errors are; no other exception leaves the decoders."""
    for unpack in (unpack_entry, lambda packed: unpack_letter(packed, b"")):
        try:
            found = unpack(noise)
        except ValueError:
            continue
        assert isinstance(found, Entry | Letter)


def test_a_torn_entry_is_refused() -> None:
    packed = pack_entry(entry_of(ended(), "webhook", WALL))

    with pytest.raises(ValueError):
        unpack_entry(packed[:-1])
