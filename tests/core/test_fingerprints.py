from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.fingerprints import Fingerprints

KEYS = st.integers(1, 2**64 - 1) | st.integers(1, 40).map(lambda n: n << 32)
"""The second kind all want the same place."""


@given(st.lists(st.tuples(KEYS, st.floats(0, 3)), max_size=60))
def test_what_was_added_in_time_is_seen_and_nothing_else(steps: list[tuple[int, float]]) -> None:
    prints, now, told = Fingerprints(keep=30.0, most=1000), 100.0, dict[int, float]()
    for key, pause in steps:
        now += pause
        prints.add(key, now)
        told[key] = now
        for each, at in told.items():
            if now - at < 30.0:
                assert prints.seen(each, now)
            elif now - at > 40.0:
                assert not prints.seen(each, now)
        assert not prints.seen(12345, now)


@given(st.lists(KEYS, max_size=60), st.integers(4, 24))
def test_of_too_many_the_oldest_go(keys: list[int], most: int) -> None:
    prints = Fingerprints(keep=1000.0, most=most)
    for now, key in enumerate(keys, 100):
        prints.add(key, float(now))

    newest = list(dict.fromkeys(reversed(keys)))[: most // 4]
    assert len(prints) <= most
    assert all(prints.seen(key, 200.0) for key in newest)


@given(st.lists(st.tuples(KEYS, st.floats(0, 3)), max_size=60))
def test_a_dump_knows_what_the_original_knew(steps: list[tuple[int, float]]) -> None:
    prints, copy, now = Fingerprints(keep=30.0, most=1000), Fingerprints(keep=30.0, most=1000), 1.0
    for key, pause in steps:
        now += pause
        prints.add(key, now)
    for first, last, keys in prints.dump():
        copy.load(first, last, keys)

    assert len(copy) == len(prints)
    assert copy.dump() == prints.dump()
    for key, _ in steps:
        assert copy.seen(key, now) is prints.seen(key, now)


def test_a_restart_does_not_cut_short_what_is_remembered() -> None:
    """Four restarts in a row must not push four generations out."""
    prints = Fingerprints(keep=30.0, most=1000)
    prints.add(7, 100.0)
    for n in range(10):
        copy = Fingerprints(keep=30.0, most=1000)
        for first, last, keys in prints.dump():
            copy.load(first, last, keys)
        prints = copy
        prints.add(100 + n, 101.0 + n)

    assert prints.seen(7, 112.0)


def test_a_dump_of_more_than_fits_now_is_still_taken() -> None:
    many, few = Fingerprints(keep=30.0, most=4000), Fingerprints(keep=30.0, most=4)
    for key in range(1, 900):
        many.add(key, 1.0)
    for first, last, keys in many.dump():
        few.load(first, last, keys)

    assert all(few.seen(key, 2.0) for key in range(1, 900))


def test_what_is_too_old_takes_no_room() -> None:
    prints = Fingerprints(keep=30.0, most=100)
    prints.add(7, 100.0)
    prints.add(8, 131.0)

    assert len(prints) == 1
    assert not prints.seen(7, 131.0)


def test_half_a_key_is_no_generation() -> None:
    with pytest.raises(ValueError, match="no such generation"):
        Fingerprints(keep=30.0, most=100).load(0.0, 1.0, b"1234567")


def test_no_key_is_added_for_a_gap_in_a_dump() -> None:
    prints = Fingerprints(keep=30.0, most=100)
    prints.load(0.0, 1.0, bytes(8) + (5).to_bytes(8, "little"))

    assert len(prints) == 1
