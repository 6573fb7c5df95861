import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.requirement import OPEN, SIGNATURE, TOKEN, Requirement

any_of, all_of = Requirement.any_of, Requirement.all_of
BOTH = TOKEN | SIGNATURE
NEEDS = st.sampled_from(
    [
        OPEN,
        any_of(["token"]),
        any_of(["signature"]),
        any_of(["token", "signature"]),
        all_of(["token", "signature"]),
    ]
)


@pytest.mark.parametrize(
    ("need", "nothing", "token", "signature", "both"),
    [
        (any_of(["none"]), True, True, True, True),
        (any_of(["token"]), False, True, False, True),
        (any_of(["signature"]), False, False, True, True),
        (any_of(["token", "signature"]), False, True, True, True),
        (any_of(["signature", "token"]), False, True, True, True),
        (any_of(["token", "none"]), True, True, True, True),
        (all_of(["token"]), False, True, False, True),
        (all_of(["token", "signature"]), False, False, False, True),
        (any_of([]), False, False, False, False),
    ],
)
def test_what_is_enough(
    need: Requirement, nothing: bool, token: bool, signature: bool, both: bool
) -> None:
    assert need.enough == (nothing, token, signature, both)


@given(NEEDS, NEEDS)
def test_two_requirements_together_need_both(one: Requirement, other: Requirement) -> None:
    together = one & other

    for held in range(4):
        assert together.enough[held] is (one.enough[held] and other.enough[held])


@given(NEEDS, NEEDS)
def test_more_proofs_never_do_less(one: Requirement, other: Requirement) -> None:
    enough = (one & other).enough

    assert enough[0] <= min(enough[TOKEN], enough[SIGNATURE])
    assert max(enough[TOKEN], enough[SIGNATURE]) <= enough[BOTH]


@given(NEEDS, NEEDS)
def test_the_same_need_is_the_same_value(one: Requirement, other: Requirement) -> None:
    assert one & other == other & one
    assert one & one == one
    assert one & OPEN == one


@pytest.mark.parametrize(
    ("need", "useful"),
    [
        (OPEN, 0),
        (any_of(["token", "none"]), 0),
        (any_of(["token"]), TOKEN),
        (any_of(["signature"]), SIGNATURE),
        (any_of(["token", "signature"]), BOTH),
        (all_of(["token", "signature"]), BOTH),
        (any_of(["token", "signature"]) & any_of(["token"]), TOKEN),
    ],
)
def test_only_what_makes_a_difference_is_useful(need: Requirement, useful: int) -> None:
    assert need.useful == useful


def test_an_unknown_word_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        any_of(["password"])
