"""From a plain document to rules, or to everything that is wrong with it."""

from __future__ import annotations

import copy
from typing import Any

from pydantic import ValidationError

from proxy.core.rules.cross import contradictions
from proxy.core.rules.finding import Finding, Path
from proxy.core.rules.model import Rules
from proxy.core.rules.wording import finding_of

MAX_FAULTS = 100
"""Nobody reads more at a time, and a hint takes a while to find."""

_STAND_INS: dict[str, Any] = {
    "handler": "stand-in",
    "when": {"agent_id": "stand-in"},
    "header": "x-stand-in",
    "token": "env:STAND_IN",
    "verdict": "failed",
}
"""For required keys that are missing or faulty, so that the rest can still be judged."""

_ITEM_STAND_INS: dict[str, Any] = {
    "overrides": {"when": {"agent_id": "stand-in"}, "percent": 0},
    "invalidates": "stand-in",
    "body_verdicts": {"when": {"stand-in": 0}, "verdict": "failed"},
    "backends": {"handler": "stand-in"},
}
"""For whole entries, so that those after them keep their place and their name is known."""


def check(document: object) -> tuple[Rules | None, list[Finding]]:
    """The rules, with warnings; or None and every fault at once."""
    try:
        rules = Rules.model_validate(document)
    except ValidationError as error:
        details = error.errors(include_url=False)[:MAX_FAULTS]
        faults = [finding_of(detail) for detail in details]
        return None, [*faults, *_faults_behind(document, faults)]
    findings = contradictions(rules)
    broken = any(not finding.warning for finding in findings)
    return (None if broken else rules), findings


def _faults_behind(document: object, faults: list[Finding]) -> list[Finding]:
    """What is wrong besides: contradictions in the document without its faulty values."""
    known = [fault.path for fault in faults]
    if () in known or ("backends",) in known:
        return []  # every contradiction would be a shadow of that
    rest = copy.deepcopy(document)
    try:
        for fault in reversed(faults):  # a list's items from behind: each keeps its index
            _mend(rest, fault)
        rules = Rules.model_validate(rest)
    except (ValidationError, LookupError, TypeError):
        return []  # past mending: what is told already has to do
    return [found for found in contradictions(rules) if not _touches(found.path, known)]


def _mend(document: Any, fault: Finding) -> None:
    """Take a faulty value away, or put one in its place that throws no shadow."""
    holder = document
    for part in fault.path[:-1]:
        holder = holder[part]
    last: Any = fault.path[-1]
    around = fault.path[-2] if len(fault.path) > 1 else None
    if fault.at_key:
        holder.pop(last, None)
    elif around in _ITEM_STAND_INS:
        holder[last] = copy.deepcopy(_ITEM_STAND_INS[around])
    elif last in _STAND_INS:
        holder[last] = copy.deepcopy(_STAND_INS[last])
    else:
        del holder[last]


def _touches(path: Path, faulty: list[Path]) -> bool:
    """Whether a contradiction may only be the shadow of a fault that is already told."""
    return any(path[: len(other)] == other or other[: len(path)] == path for other in faulty)
