from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.model import TOOL_KINDS, Kind
from proxy.core.shedding import PATIENT, Shedder

HEARD = [kind for kind in Kind if kind not in PATIENT]


@pytest.mark.parametrize("kind", Kind)
def test_without_bounds_nobody_is_turned_away(kind: Kind) -> None:
    assert Shedder().check(kind, 10**9, 1e9) is None


def test_nobody_whose_caller_hears_silence_is_patient() -> None:
    assert not PATIENT & (TOOL_KINDS | {Kind.INBOUND, Kind.LLM})


@pytest.mark.parametrize("kind", HEARD)
def test_the_last_one_that_fits_is_admitted(kind: Kind) -> None:
    shedder = Shedder(in_flight=100)

    assert shedder.check(kind, 100, 0.0) is None
    assert shedder.check(kind, 101, 0.0) == "in_flight"
    assert shedder.check(kind, 100, 0.0) is None


@pytest.mark.parametrize("kind", sorted(PATIENT))
def test_who_can_come_again_leaves_a_fifth_of_the_room_to_the_others(kind: Kind) -> None:
    shedder = Shedder(in_flight=100)

    assert shedder.check(kind, 80, 0.0) is None
    assert shedder.check(kind, 81, 0.0) == "in_flight"
    assert shedder.check(Kind.FUNCTION, 81, 0.0) is None


@pytest.mark.parametrize("kind", Kind)
def test_room_for_one_admits_one_of_any_kind(kind: Kind) -> None:
    assert Shedder(in_flight=1).check(kind, 1, 0.0) is None


def test_events_give_way_first_then_the_rest_and_each_comes_back_late() -> None:
    """Each row: the lag, and who is admitted at it.  Half of what began a stage ends it."""
    shedder = Shedder(max_lag=0.2)
    rows = [
        (0.20, True, True),
        (0.21, False, True),
        (0.40, False, True),
        (0.41, False, False),
        (0.21, False, False),  # admitted on the way up, not on the way down
        (0.20, False, True),
        (0.11, False, True),
        (0.10, True, True),
        (0.20, True, True),
        (0.50, False, False),
        (0.00, True, True),
    ]
    for lag, event, function in rows:
        told = [shedder.check(kind, 1, lag) for kind in (Kind.EVENT, Kind.FUNCTION)]
        assert told == [None if admitted else "lag" for admitted in (event, function)], lag


@given(
    st.lists(st.tuples(st.integers(0, 300), st.floats(0, 1), st.sampled_from(Kind)), max_size=40)
)
def test_an_event_is_never_admitted_where_a_function_is_not(
    rows: list[tuple[int, float, Kind]],
) -> None:
    """And below both bounds of calm everybody is."""
    shedder = Shedder(in_flight=200, max_lag=0.3)
    for inflight, lag, kind in rows:
        shedder.check(kind, inflight, lag)
        event = shedder.check(Kind.EVENT, inflight, lag)
        function = shedder.check(Kind.FUNCTION, inflight, lag)
        assert function is None or event is not None
        if inflight <= 160 and lag <= 0.15:
            assert event is None
