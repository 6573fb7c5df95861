from __future__ import annotations

from proxy.core.rules.in_force import NOT_YET, is_not_yet, not_in_force
from proxy.core.rules.shape import keys
from tests.rules_kit import document, rules


def test_what_nobody_wrote_is_not_listed() -> None:
    assert not_in_force(rules()) == []


def test_what_is_written_and_does_nothing_yet_is_listed_once() -> None:
    written = document(
        rollout={"steps": [10, 50]},
        tools={"get.slots": {"effect": "read", "description": "Slots."}},
        metrics={"enabled": False},
    )
    written["backends"]["mcp"]["breaker"] = {"failures": 3, "slow": "1s"}  # in force

    assert not_in_force(rules(**written)) == ["metrics.enabled", "rollout"]


def test_a_value_that_already_means_what_it_says_is_not_listed() -> None:
    assert not_in_force(rules(state="memory")) == []
    assert not_in_force(rules(state="redis://cache:6379/0")) == ["state"]


def test_what_stands_in_such_a_section_is_not_in_force_either() -> None:
    assert is_not_yet("rollout.signals.p95")
    assert not is_not_yet("split.percent")
    assert not is_not_yet("backends.*.breaker.failures")


def test_every_line_of_the_list_names_a_key() -> None:
    """A key that is renamed must not keep its old line."""
    assert {key.path for key in keys()} >= NOT_YET
