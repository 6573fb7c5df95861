from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.seen_signatures import MOST, SeenSignatures
from proxy.core.signature import TOLERANCE_MS

NOW = 1_767_225_600_000


def digest(number: int) -> bytes:
    return number.to_bytes(4) * 8


@given(st.sets(st.binary(min_size=32, max_size=32), max_size=40), st.integers(1, 50))
def test_digests_that_fall_into_one_place_are_told_apart(many: set[bytes], most: int) -> None:
    """All of them begin alike; a digest of zeros is one as well."""
    seen = SeenSignatures(most=2 * len(many) + most)
    alike = {b"\0\0" + each[2:8] + bytes(24) for each in many}

    assert [seen.again(each, NOW, tolerance_ms=TOLERANCE_MS) for each in alike] == [False] * len(
        alike
    )
    assert all(seen.again(each, NOW, tolerance_ms=TOLERANCE_MS) for each in alike)


def test_a_signature_is_known_from_its_second_time_on() -> None:
    seen = SeenSignatures()

    assert [seen.again(digest(1), NOW + ms, tolerance_ms=TOLERANCE_MS) for ms in (0, 1, 1000)] == [
        False,
        True,
        True,
    ]
    assert not seen.again(digest(2), NOW, tolerance_ms=TOLERANCE_MS)


@pytest.mark.row("A5")
def test_a_signature_is_remembered_for_as_long_as_it_could_hold() -> None:
    """One that is signed by a clock ahead of ours holds for twice the tolerance."""
    seen = SeenSignatures()
    seen.again(digest(1), NOW, tolerance_ms=TOLERANCE_MS)
    for step in range(1, 10):
        seen.again(digest(100 + step), NOW + step * TOLERANCE_MS // 5, tolerance_ms=TOLERANCE_MS)

    assert seen.again(digest(1), NOW + 2 * TOLERANCE_MS, tolerance_ms=TOLERANCE_MS)


def test_what_cannot_hold_any_more_is_forgotten() -> None:
    seen = SeenSignatures()
    seen.again(digest(1), NOW, tolerance_ms=TOLERANCE_MS)

    assert not seen.again(digest(2), NOW + 4 * TOLERANCE_MS, tolerance_ms=TOLERANCE_MS)
    assert len(seen) == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 10), st.integers(0, 60), st.sampled_from([5, 10, 30])),
        max_size=200,
    )
)
def test_another_tolerance_forgets_nothing_that_still_holds(
    steps: list[tuple[int, int, int]],
) -> None:
    """A captured request must not hold once more because the rules were changed."""
    seen, now = SeenSignatures(), NOW
    known: dict[int, tuple[int, int]] = {}  # when it came last, and the least tolerance since
    for number, ms, tolerance in steps:
        now += ms
        known = {each: (came, min(least, tolerance)) for each, (came, least) in known.items()}
        again = seen.again(digest(number), now, tolerance_ms=tolerance)
        if number in known:
            came, least = known[number]
            assert again or now - came >= 2 * least
        known[number] = (now, tolerance)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 40)), max_size=200))
def test_whatever_holds_was_seen_or_not_exactly_as_it_was(steps: list[tuple[int, int]]) -> None:
    """The model: every signature with the last time it came, `tolerance_ms` being 10."""
    seen, now = SeenSignatures(), NOW
    known: dict[int, int] = {}
    for number, ms in steps:
        now += ms
        again = seen.again(digest(number), now, tolerance_ms=10)
        if number in known and now - known[number] < 20:
            assert again
        assert again <= (number in known)
        known[number] = now


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=200))
def test_what_is_taken_back_was_never_here(steps: list[tuple[bool, int]]) -> None:
    """And all others stay, wherever they were placed: many of these want the same place."""
    seen, known = SeenSignatures(most=64), set[int]()
    for forget, number in steps:
        each = (number % 3).to_bytes(4, "little") + number.to_bytes(4, "little") + bytes(24)
        if forget:
            seen.forget(each)
            known.discard(number)
        else:
            assert seen.again(each, NOW, tolerance_ms=TOLERANCE_MS) == (number in known)
            known.add(number)
        assert len(seen) == len(known)


def test_it_can_be_taken_back_after_a_rotation_and_by_its_target() -> None:
    seen = SeenSignatures(most=2)
    assert not seen.again(digest(1), NOW, "GET /a", tolerance_ms=TOLERANCE_MS)
    seen.again(digest(2), NOW, tolerance_ms=TOLERANCE_MS)
    seen.forget(digest(1), "GET /b")
    assert len(seen) == 2
    seen.forget(digest(1), "GET /a")

    assert not seen.again(digest(1), NOW, "GET /a", tolerance_ms=TOLERANCE_MS)


def test_without_a_body_the_target_tells_signatures_of_one_moment_apart() -> None:
    seen = SeenSignatures()

    assert not seen.again(digest(1), NOW, "GET /retell/fn/t?call_id=a", tolerance_ms=TOLERANCE_MS)
    assert not seen.again(digest(1), NOW, "GET /retell/fn/t?call_id=b", tolerance_ms=TOLERANCE_MS)
    assert not seen.again(digest(1), NOW, "GET /retell/fn/t?\udcff", tolerance_ms=TOLERANCE_MS)
    assert seen.again(digest(1), NOW, "GET /retell/fn/t?call_id=a", tolerance_ms=TOLERANCE_MS)


@pytest.mark.row("L12")
@pytest.mark.parametrize("most", [1, 2, 100])
def test_memory_has_a_bound(most: int) -> None:
    """L12."""
    seen = SeenSignatures(most=most)
    for number in range(1000):
        seen.again(digest(number), NOW, tolerance_ms=TOLERANCE_MS)

    assert len(seen) <= max(2, most)
    assert seen.again(digest(999), NOW, tolerance_ms=TOLERANCE_MS)
    assert MOST < 2**18


def test_a_clock_that_jumps_back_forgets_nothing() -> None:
    seen = SeenSignatures()
    seen.again(digest(1), NOW, tolerance_ms=TOLERANCE_MS)

    assert seen.again(digest(1), NOW - 3_600_000, tolerance_ms=TOLERANCE_MS)
