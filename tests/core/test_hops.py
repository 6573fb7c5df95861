from __future__ import annotations

import pytest

from proxy.core.addresses import NOWHERE
from proxy.core.head import read_head
from proxy.core.hops import HEADER, INSTANCE, check_hops, hop
from proxy.core.model import Head
from proxy.errors import Refused


def head(*values: bytes, name: bytes = b"X-Callsplit-Hops") -> Head:
    fields = [(b"Host", b"a"), *[(name, value) for value in values]]
    return read_head("POST", "/retell", fields, peer="192.0.2.1", secure=False, trusted=NOWHERE)


def refused(given: Head, most: int = 3) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        check_hops(given, most)
    return caught.value.status, caught.value.code


def test_each_sidecar_counts_itself_until_one_has_seen_enough() -> None:
    now, passed = head(), 0
    while passed < 3:
        check_hops(now, 3)
        now, passed = head(hop(now)[1]), passed + 1

    assert refused(now) == (508, "loop_detected")


def test_what_a_caller_says_shortens_his_own_way_only() -> None:
    check_hops(head(b"0"), 1)
    assert hop(head(b"0")) == (HEADER, b"1")
    assert refused(head(b"1"), most=1) == (508, "loop_detected")
    assert refused(head(b"99"), most=9) == (508, "loop_detected")


ODD = [b"", b"-1", b"+1", b"1, 1", b"0x1", b"one", b"100", b"9" * 4000, "\u0663".encode(), b"1 "]


@pytest.mark.parametrize("value", ODD)
def test_what_is_no_small_number_is_refused(value: bytes) -> None:
    assert refused(head(value)) == (400, "bad_header")


@pytest.mark.parametrize("value", ODD)
def test_what_goes_on_is_ours_whatever_came(value: bytes) -> None:
    assert hop(head(value)) == (HEADER, b"1")


def test_what_carries_our_own_word_has_come_back_at_once() -> None:
    own = Head("POST", "/", "", {INSTANCE: b"0123abcd"}, [], b"a", "192.0.2.1")

    with pytest.raises(Refused) as caught:
        check_hops(own, 3, b"0123abcd")
    assert (caught.value.status, caught.value.code) == (508, "loop_detected")
    check_hops(own, 3, b"another")
    check_hops(own, 3)
    own.named[INSTANCE] = b""
    check_hops(own, 3, b"")


def test_two_counts_are_none() -> None:
    assert refused(head(b"0", b"0")) == (400, "bad_header")


@pytest.mark.parametrize("name", [b"x-callsplit-hops", b"X_Callsplit_Hops"])
def test_the_field_that_came_never_goes_on_itself(name: bytes) -> None:
    assert head(b"2", name=name).end_to_end == []


def test_the_refusal_echoes_nothing() -> None:
    with pytest.raises(Refused) as caught:
        check_hops(head(b"secret"), 3)
    assert "secret" not in caught.value.message
