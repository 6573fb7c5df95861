"""How did each override fare in a decision, and if it did not decide, why not?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxy.core.entry import Override
from proxy.core.look import Look
from proxy.core.matchers import Fields, compile_when
from proxy.core.model import Reason
from proxy.core.when import GROUPS, plain_path, uses_request_fields


@dataclass(frozen=True, slots=True)
class OverrideTrace:
    """One override; `used` if it decided, else `why` says why not."""

    number: int  # as in the rules, from 1
    when: Mapping[str, Any]
    leads_to: str  # an arm or a percentage
    test: bool
    used: bool
    why: str


def trace_overrides(look: Look) -> tuple[OverrideTrace, ...]:
    """All overrides of the entry that decided, in the order of the rules."""
    used = deciding(look)
    return tuple(
        OverrideTrace(
            number=number,
            when=override.when,
            leads_to=override.to or f"{override.percent:g} %",
            test=override.test,
            used=override is used,
            why="it holds and comes first" if override is used else _why_not(look, override),
        )
        for number, override in enumerate(look.entry.overrides, 1)
    )


def deciding(look: Look) -> Override | None:
    """The override that decided, if one did."""
    if look.overruling is not None or look.ruling is None:
        return look.overruling
    return look.ruling.override


def misfit(when: Mapping[str, Any], fields: Fields) -> str:
    """The first entry of a `when` that does not hold, in words; "" if all do.

    Never tells a field's value: it may be a phone number.
    """
    for key, value in when.items():
        if compile_when({key: value})(fields):
            continue
        if key in GROUPS:
            return f"`{key}` does not hold"
        return f"{key} is {'absent' if fields.get(plain_path(key)) is None else 'another'}"
    return ""


def _why_not(look: Look, override: Override) -> str:
    if look.ruling is None:
        return "not asked: " + ("no call ID" if look.session is None else "a session keeps its arm")
    if look.entry.kill:
        return "not asked: the kill switch outranks it"
    if look.ruling.decision.reason is Reason.FORCED:
        return "not asked: the arm was forced"
    if fault := misfit(override.when, look.fields):
        return fault
    if uses_request_fields(override.when) and look.ruling.decision.arm == look.entry.otherwise:
        return "it holds, but the call goes there anyway"
    return "it holds, but another outranks it"
