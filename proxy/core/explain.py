"""Why does this call get this arm, and what would change that?

Looks only: nothing is recorded.  No value of the call's own fields is told, because they may be
phone numbers; the rules' side of a comparison is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from proxy.core.entry import Entry
from proxy.core.history import History, usable_start
from proxy.core.look import Look, split_key
from proxy.core.matchers import Fields
from proxy.core.model import Call, Reason
from proxy.core.override_trace import OverrideTrace, deciding, trace_overrides
from proxy.core.split import RANGE, call_hash, threshold
from proxy.core.splitter import Splitter

STEPS = (10.0, 25.0, 50.0, 75.0, 100.0)
"""Shares for which the call's arm is told."""


@dataclass(frozen=True, slots=True)
class RecordTrace:
    """What is remembered of the call; times are ms since 1970."""

    arm: str
    reason: str
    start_ms: int | None
    seen_ms: int
    ended: bool


@dataclass(frozen=True, slots=True)
class EntryTrace:
    """The entry of the history by which the call is judged."""

    epoch: int
    at_ms: int
    scope: str
    who: str
    why: str
    to: str
    otherwise: str
    percent: float
    cap: float
    kill: bool


@dataclass(frozen=True, slots=True)
class Step:
    """The arm of a new call with this ID and these fields, were the share `percent`."""

    percent: float
    arm: str
    changes: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that led to a decision.

    `hashed` below `threshold` (both of 2**32) puts the call inside `percent`, the percentage
    that applies to it, cap included.  `joins_at` is the smallest share, in steps of 0.01 %, that
    contains the call.  All are None without a call ID (or an MCP session, which then takes its
    place).  `judged_ms` is None for a call on record and a session that keeps its arm.
    """

    call_id: str | None
    kind: str
    arm: str
    reason: str
    because: str
    hashed: int | None
    fraction: float | None
    percent: float | None
    threshold: int | None
    joins_at: float | None
    judged_by: str
    judged_ms: int | None
    entry: EntryTrace
    record: RecordTrace | None
    overrides: tuple[OverrideTrace, ...]
    steps: tuple[Step, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON or YAML."""
        plain = asdict(self)
        plain["overrides"] = list(plain["overrides"])
        plain["steps"] = list(plain["steps"])
        return plain


def explain(
    splitter: Splitter, call: Call, wall_ms: int, *, forced: str | None = None
) -> Explanation:
    """Explain the decision that `splitter` would make for `call` now."""
    look = splitter.look(call, wall_ms=wall_ms, forced=forced)
    entry = look.entry
    key = split_key(call)
    hashed = None if key is None else call_hash(key, entry.salt)
    percent = None if hashed is None else entry.effective(look.fields)
    judged_by, judged_ms = _moment(splitter.history, call, look, wall_ms)
    return Explanation(
        call_id=call.id,
        kind=call.kind.value,
        arm=look.decision.arm,
        reason=look.decision.reason.value,
        because=_because(look, hashed),
        hashed=hashed,
        fraction=None if hashed is None else hashed / RANGE,
        percent=percent,
        threshold=None if percent is None else threshold(percent),
        joins_at=None if hashed is None else _joins_at(hashed),
        judged_by=judged_by,
        judged_ms=judged_ms,
        entry=_trace_entry(entry),
        record=_trace_record(look),
        overrides=trace_overrides(look),
        steps=tuple(_steps(splitter.history.latest, key, look.fields)),
    )


def _because(look: Look, hashed: int | None) -> str:
    reason = look.decision.reason
    if reason is Reason.RECORDED and look.session is not None:
        return "the token of its MCP session names this arm"
    if reason is Reason.RECORDED and look.record is not None:
        return f"decided before, by {look.record.ruling.decision.reason.value}, and on record"
    if hashed is None or reason not in (Reason.SHARE, Reason.CAP, Reason.OVERRIDE):
        return _PLAIN.get(reason, reason.value)
    override = deciding(look)
    if look.overruling is not None and override is not None:
        return f"override {_number(look.entry, override)} speaks of this request"
    cut = look.entry.cut_for(look.fields)
    whose = "the share" if override is None else f"override {_number(look.entry, override)}"
    place = f"its hash lies at {100 * hashed / RANGE:.4f} %"
    if reason is Reason.CAP:
        return f"{place}, within {whose} ({cut.percent:g} %) but beyond the cap of {cut.cap:g} %"
    within = "within" if hashed < threshold(cut.effective) else "beyond"
    return f"{place}, {within} the {cut.effective:g} % of {whose}"


_PLAIN = {
    Reason.KILL_SWITCH: "the kill switch is on, or was when this call was decided",
    Reason.FORCED: "a holder of the force token named this arm",
    Reason.NO_CALL_ID: "the request carries no usable call ID (a placeholder is none)",
}


def _number(entry: Entry, override: object) -> int:
    return next(n for n, each in enumerate(entry.overrides, 1) if each is override)


def _moment(history: History, call: Call, look: Look, wall_ms: int) -> tuple[str, int | None]:
    """By what, and for which moment, the entry was chosen."""
    session = look.session
    if session is not None and look.ruling is None:
        return "the token of its MCP session", None
    if split_key(call) is None or (session is not None and not session.arm):
        return "now", wall_ms
    start_ms = usable_start(call.start_ms if session is None else session.issued_ms, wall_ms)
    if session is not None:
        start_ms = start_ms or 0
    elif look.record is not None:
        if look.record.ruling.entry is look.entry:
            return "the call's record", None
        start_ms = look.record.start_ms or 0
    judged_ms = history.judged_ms(start_ms, wall_ms)
    if judged_ms not in (start_ms, wall_ms):
        return "the last change for all calls", judged_ms
    return "now" if start_ms is None else "the call's own start", judged_ms


def _steps(latest: Entry, call_id: str | None, fields: Fields) -> Iterator[Step]:
    """Of a new call: one that lives keeps its arm whatever the share becomes."""
    if call_id is None:
        return
    now = latest.rule(call_id, fields).decision.arm
    for percent in STEPS:
        arm = replace(latest, percent=percent).rule(call_id, fields).decision.arm
        yield Step(percent, arm, changes=arm != now)


def _joins_at(hashed: int) -> float:
    steps = hashed * 10_000 // RANGE
    while threshold(steps / 100) <= hashed:
        steps += 1
    return steps / 100


def _trace_entry(entry: Entry) -> EntryTrace:
    return EntryTrace(
        epoch=entry.epoch,
        at_ms=entry.at_ms,
        scope=entry.scope.value,
        who=entry.who,
        why=entry.why,
        to=entry.to,
        otherwise=entry.otherwise,
        percent=entry.percent,
        cap=entry.cap,
        kill=entry.kill,
    )


def _trace_record(look: Look) -> RecordTrace | None:
    record = look.record
    if record is None:
        return None
    decision = record.ruling.decision
    return RecordTrace(
        arm=decision.arm,
        reason=decision.reason.value,
        start_ms=record.start_ms,
        seen_ms=record.seen_ms,
        ended=record.ended,
    )
