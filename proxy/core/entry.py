"""One entry of the split's history: what was in force, and whom it sends where."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from proxy.core.matchers import Fields, Test, compile_when
from proxy.core.model import Decision, Reason
from proxy.core.rules.split import Split
from proxy.core.split import call_hash, threshold
from proxy.core.when import field_paths, of_request, uses_request_fields


class Scope(StrEnum):
    """Whom a change of the split reaches."""

    NEW_CALLS = "new_calls"  # calls that start after it
    ALL_CALLS = "all_calls"  # live calls too, at once


@dataclass(frozen=True, slots=True)
class Override:
    """A rule that outranks the share: an arm (`to`) or a share of its own (`percent`).

    `test` lifts it above the cap.  One that looks at tool or header speaks of single requests:
    it may only send them to the otherwise arm, and comes before those that speak of calls.
    """

    when: Mapping[str, Any] = field(compare=False)  # 1 == True in Python; `_key` knows better
    to: str | None = None
    percent: float | None = None
    test: bool = False
    _key: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_key", json.dumps(self.when, sort_keys=True))


@dataclass(frozen=True, slots=True, eq=False)
class Ruling:
    """What an entry decided for a call, and by what; `again` is told to its later requests."""

    entry: Entry
    decision: Decision
    override: Override | None = None
    again: Decision = field(init=False)

    def __post_init__(self) -> None:
        reason = Reason.KILL_SWITCH if self.entry.kill else Reason.RECORDED
        object.__setattr__(self, "again", Decision(self.decision.arm, reason))


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """A share cut out of all calls by their hash, and the ruling on each side of the cut."""

    percent: float  # as wished
    cap: float
    inside: Ruling
    outside: Ruling
    capped: Ruling  # inside the share, outside the cap
    _wished: int = field(init=False)
    _below: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_wished", threshold(self.percent))
        object.__setattr__(self, "_below", threshold(self.effective))

    @property
    def effective(self) -> float:
        """The percentage in force."""
        return min(self.percent, self.cap)

    def rule(self, hashed: int) -> Ruling:
        """The ruling for a call of this hash."""
        if hashed < self._below:
            return self.inside
        return self.capped if hashed < self._wished else self.outside


@dataclass(frozen=True, slots=True)
class Entry:
    """The whole split from one change to the next.

    Raises ValueError for an override that no rules file could carry.
    """

    to: str
    otherwise: str
    percent: float = 0.0
    cap: float = 100.0
    salt: str = field(default="", repr=False)
    overrides: tuple[Override, ...] = ()
    kill: bool = False
    at_ms: int = 0  # wall clock of its commit
    scope: Scope = Scope.NEW_CALLS
    who: str = ""
    why: str = ""
    epoch: int = 0  # grows with each change
    paths: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """Fields of the call that overrides look at; its record freezes them."""
    by_request: tuple[tuple[Test, Override], ...] = field(init=False, repr=False, compare=False)
    """Overrides that speak of single requests."""
    overruled: Decision = field(init=False, repr=False, compare=False)
    """What those decide."""
    no_call_id: Decision = field(init=False, repr=False, compare=False)
    """What a request without a call ID gets."""
    _killed: Ruling = field(init=False, repr=False, compare=False)
    _share: Cut = field(init=False, repr=False, compare=False)
    _by_call: tuple[tuple[Test, Cut], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for percent in (self.percent, self.cap):
            if not 0 <= percent <= 100:
                raise ValueError(f"{percent} is no percentage")
        requests = [rule for rule in self.overrides if uses_request_fields(rule.when)]
        calls = [rule for rule in self.overrides if not uses_request_fields(rule.when)]
        calls.sort(key=lambda rule: not rule.test)  # `test` first; else as written
        if any(self.wish(rule) for rule in requests):
            raise ValueError("an override by tool or header can only lead to the otherwise arm")
        put = object.__setattr__
        used = {path for rule in self.overrides for path in field_paths(rule.when)}
        put(self, "paths", tuple(sorted(path for path in used if not of_request(path))))
        put(self, "by_request", tuple((compile_when(rule.when), rule) for rule in requests))
        put(self, "overruled", Decision(self.otherwise, Reason.OVERRIDE))
        put(self, "no_call_id", Decision(self.otherwise, Reason.NO_CALL_ID))
        put(self, "_killed", Ruling(self, Decision(self.otherwise, Reason.KILL_SWITCH)))
        put(self, "_share", self._cut(None))
        put(self, "_by_call", tuple((compile_when(r.when), self._cut(r)) for r in calls))

    @classmethod
    def from_rules(cls, split: Split, *, salt: str, at_ms: int, why: str = "") -> Entry:
        """The split as a rules file has it; `salt` with its secret reference resolved."""
        overrides = tuple(
            Override(rule.when, to=rule.to, percent=rule.percent, test=rule.test)
            for rule in split.overrides
        )
        return cls(
            to=split.to,
            otherwise=split.otherwise,
            percent=split.percent,
            cap=split.cap,
            salt=salt,
            overrides=overrides,
            kill=not split.enabled,
            at_ms=at_ms,
            who="rules",
            why=why,
        )

    @property
    def terms(self) -> tuple[object, ...]:
        """What is split how; entries that differ in nothing else are one and the same split."""
        arms = (self.to, self.otherwise)
        return (*arms, self.percent, self.cap, self.salt, self.overrides, self.kill)

    @property
    def share(self) -> float:
        """The percentage of new calls that reach `to`, overrides aside."""
        return 0.0 if self.kill else self._share.effective

    def wish(self, override: Override) -> float:
        """The percentage that an override asks for, before the cap."""
        if override.percent is not None:
            return override.percent
        if override.to not in (self.to, self.otherwise):
            raise ValueError(f"an override leads to '{override.to}', which is no arm of the split")
        return 100.0 if override.to == self.to else 0.0

    def cut_for(self, fields: Fields) -> Cut:
        """The share that a call is measured against: its first override's, or the common one."""
        for holds, cut in self._by_call:
            if holds(fields):
                return cut
        return self._share

    def effective(self, fields: Fields) -> float:
        """The percentage in force for a call with these fields."""
        return 0.0 if self.kill else self.cut_for(fields).effective

    def rule(self, call_id: str, fields: Fields) -> Ruling:
        """Decide for a call by its own fields: kill switch, overrides, share."""
        if self.kill:
            return self._killed
        cut = self.cut_for(fields) if self._by_call else self._share
        return cut.rule(call_hash(call_id, self.salt))

    def force(self, arm: str) -> Ruling:
        """The ruling for a call that a token holder sends to `arm`."""
        return self._killed if self.kill else Ruling(self, Decision(arm, Reason.FORCED))

    def _cut(self, override: Override | None) -> Cut:
        reason = Reason.SHARE if override is None else Reason.OVERRIDE
        return Cut(
            percent=self.percent if override is None else self.wish(override),
            cap=100.0 if override is not None and override.test else self.cap,
            inside=Ruling(self, Decision(self.to, reason), override),
            outside=Ruling(self, Decision(self.otherwise, reason), override),
            capped=Ruling(self, Decision(self.otherwise, Reason.CAP), override),
        )
