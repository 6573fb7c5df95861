from __future__ import annotations

import pytest

from proxy.core.hedge import LEAST, SAMPLES, Pace, hedge_after
from proxy.core.model import Effect
from proxy.core.tool_table import Terms

READ = Terms(Effect.READ, True, 5.0, 0.0, hedge=True)


def pace(*seconds: float) -> Pace:
    known = Pace()
    for each in seconds:
        known.heard(each)
    return known


USUAL = [*[0.1] * 190, *[0.4] * 10]


def after(
    known: Pace,
    terms: Terms = READ,
    *,
    other_passes: bool = True,
    left: float = 5.0,
    min_attempt: float = 0.3,
) -> float | None:
    return hedge_after(known, terms, other_passes=other_passes, left=left, min_attempt=min_attempt)


def test_late_is_what_nineteen_of_twenty_are_not() -> None:
    assert after(pace(*[0.1] * 94, *[0.4] * 6)) == pytest.approx(0.4, rel=0.05)
    assert after(pace(*[0.1] * 96, *[0.4] * 4)) == pytest.approx(0.1, rel=0.05)


def test_before_fifty_answers_nobody_knows_what_is_late() -> None:
    assert after(pace(*[0.1] * (SAMPLES - 1))) is None
    assert after(pace(*[0.1] * SAMPLES)) == pytest.approx(0.1, rel=0.05)


def test_a_fast_arm_is_given_its_time_all_the_same() -> None:
    assert after(pace(*[0.002] * 100)) == LEAST


@pytest.mark.parametrize("effect", [Effect.WRITE, Effect.IDEMPOTENT, Effect.READ])
def test_what_is_not_to_be_hedged_is_not(effect: Effect) -> None:
    assert after(pace(*USUAL), Terms(effect, True, 5.0, 0.0)) is None


def test_an_arm_that_is_being_tried_gets_nothing_optional() -> None:
    assert after(pace(*USUAL), other_passes=False) is None


def test_a_second_attempt_that_could_not_end_in_time_does_not_begin() -> None:
    known = pace(*[0.2] * 100)
    late = known.late_after()

    assert late is not None
    assert after(known, left=late + 0.3) == late
    assert after(known, left=late + 0.29) is None
