"""Which arm serves this request, and why?

In this order: kill switch, `force` and overrides marked `test`, cap, other overrides, share.
The first decision of a call stands; a call that is not on record is judged by the entry of the
history that was in force when it began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from proxy.core.entry import Entry, Override, Ruling
from proxy.core.frozen import NO_FIELDS, Thawed, freeze
from proxy.core.history import History, usable_start
from proxy.core.look import Look, heir, overruling
from proxy.core.matchers import Fields
from proxy.core.model import Call, Decision, Kind, Reason
from proxy.core.records import Record, Records
from proxy.core.session_split import look_by_session

# Bound once: reading a member of an enumeration is slow in Python 3.11.
_INBOUND, _FORCED = Kind.INBOUND, Reason.FORCED
_ENDED = frozenset({"call_ended", "chat_ended"})
_ANALYZED = frozenset({"call_analyzed", "chat_analyzed"})


class Splitter:
    """Decides for every request; holds the history of the split and the calls on record.

    `fields_of` gives a request's fields; it is called only where an override may need them.
    `arms` names all backends: a live call stays at one that left the split but not the rules.
    """

    def __init__(
        self,
        initial: Entry,
        *,
        fields_of: Callable[[Call], Fields] = lambda _: NO_FIELDS,
        arms: Iterable[str] = (),
        records: Records | None = None,
    ) -> None:
        self.history = History(initial)
        self.records = Records() if records is None else records
        self._fields_of = fields_of
        self._loaded = initial
        self._arms = frozenset({initial.to, initial.otherwise, *arms})

    def decide(self, call: Call, *, wall_ms: int, forced: str | None = None) -> Decision:
        """The arm for one request; the first decision of a call is put on record.

        `forced` is the arm that a holder of the force token named; an unknown one is ignored.
        """
        call_id = call.id
        if call.session is not None and (call.session.arm or call_id is None):
            if call_id is not None:
                self.records.find(call_id, wall_ms)  # It is seen by this, and stays live.
            return self._by_session(call, wall_ms, forced).decision
        if call_id is None:
            return self._without_id(wall_ms, forced).decision
        fields: Fields | None = None
        record = self.records.find(call_id, wall_ms)
        if record is not None and self._stands(record, forced):
            ruling = record.ruling
            decision = ruling.again
        else:
            ruling, fields = self._rule(call_id, call, record, wall_ms=wall_ms, forced=forced)
            decision = ruling.decision
            self._keep(call_id, call, record, ruling=ruling, fields=fields, wall_ms=wall_ms)
        entry = ruling.entry
        if entry.by_request and decision.arm != entry.otherwise:
            fields = self._fields(call, record) if fields is None else fields
            if overruling(entry, ruling, fields):
                decision = entry.overruled
        return decision if decision.arm in self._arms else self._heir(decision, entry)

    def look(self, call: Call, *, wall_ms: int, forced: str | None = None) -> Look:
        """What `decide` would answer, and why; nothing is touched or recorded."""
        if call.session is not None and (call.session.arm or call.id is None):
            return self._by_session(call, wall_ms, forced)
        if call.id is None:
            return self._without_id(wall_ms, forced)
        record = self.records.peek(call.id, wall_ms)
        fields = self._fields(call, record)
        if record is not None and self._stands(record, forced):
            ruling = record.ruling
            decision = ruling.again
        else:
            ruling, _ = self._rule(call.id, call, record, wall_ms=wall_ms, forced=forced)
            decision = ruling.decision
        entry, away = ruling.entry, None
        if decision.arm != entry.otherwise:
            away = overruling(entry, ruling, fields)
            decision = entry.overruled if away else decision
        if decision.arm not in self._arms:
            decision = self._heir(decision, entry)
        return Look(decision, entry, fields, ruling, record, away)

    def observe(self, call: Call) -> None:
        """Take note of what an event says about the end of its call."""
        if call.id is None:
            return
        if call.event in _ENDED:
            self.records.end(call.id)
        elif call.event in _ANALYZED:
            self.records.drop(call.id)

    def present(self, wall_ms: int) -> Entry:
        """The entry for calls that begin now."""
        return self.history.in_force(None, wall_ms)

    def live(self, arm: str, wall_ms: int) -> int:
        """Calls on an arm that were seen in the last 10 minutes and have not ended."""
        return self.records.live(arm, wall_ms)

    def change(
        self,
        *,
        wall_ms: int,
        who: str,
        why: str,
        percent: float | None = None,
        cap: float | None = None,
        kill: bool | None = None,
        salt: str | None = None,
        overrides: tuple[Override, ...] | None = None,
    ) -> Entry | None:
        """Change what is given of the split; None if it was so already.

        Turning the kill switch on reaches live calls, everything else new calls only.
        Raises ValueError for an impossible percentage or override.
        """
        latest = self.history.latest
        wished = replace(
            latest,
            percent=latest.percent if percent is None else percent,
            cap=latest.cap if cap is None else cap,
            kill=latest.kill if kill is None else kill,
            salt=latest.salt if salt is None else salt,
            overrides=latest.overrides if overrides is None else overrides,
        )
        return self.history.commit(replace(wished, at_ms=wall_ms, who=who, why=why))

    def sync(self, loaded: Entry, *, arms: Iterable[str] = ()) -> Entry | None:
        """Follow newly loaded rules; None if nothing of the split changed.

        `percent`, `cap` and the kill switch of the file count only where they differ from what
        was loaded last: what an operator set meanwhile outlives an edit elsewhere in the file.
        """
        latest, before = self.history.latest, self._loaded
        wished = replace(
            loaded,
            percent=latest.percent if loaded.percent == before.percent else loaded.percent,
            cap=latest.cap if loaded.cap == before.cap else loaded.cap,
            kill=latest.kill if loaded.kill == before.kill else loaded.kill,
        )
        self._loaded = loaded
        self._arms = frozenset({loaded.to, loaded.otherwise, *arms})
        return self.history.commit(wished)

    def _without_id(self, wall_ms: int, forced: str | None) -> Look:
        entry = self.present(wall_ms)
        decision = entry.no_call_id
        if forced is not None and forced in self._arms and not entry.kill:
            decision = Decision(forced, _FORCED)
        if decision.arm not in self._arms:
            decision = self._heir(decision, entry)
        return Look(decision, entry)

    def _by_session(self, call: Call, wall_ms: int, forced: str | None) -> Look:
        """What is decided by an MCP session: nothing of it is recorded."""
        assert call.session is not None
        record = None if call.id is None else self.records.peek(call.id, wall_ms)
        return look_by_session(
            call,
            call.session,
            history=self.history,
            arms=self._arms,
            fields_of=lambda asked: self._fields(asked, record),
            wall_ms=wall_ms,
            forced=forced if forced in self._arms else None,
        )

    def _stands(self, record: Record, forced: str | None) -> bool:
        """True if what is on record is the answer: no entry for all calls since, no force."""
        if forced is not None and forced in self._arms:
            return False
        return record.ruling.entry.epoch >= self.history.all_calls_epoch

    def _rule(
        self, call_id: str, call: Call, record: Record | None, *, wall_ms: int, forced: str | None
    ) -> tuple[Ruling, Fields]:
        """Decide for a call as a whole, and by which fields: those of its record, if it has one."""
        if record is None:
            entry = self.history.in_force(call.start_ms, wall_ms)
            fields = self._fields(call, None) if entry.overrides else NO_FIELDS
        else:
            entry = record.ruling.entry
            fields = self._fields(call, record)
            if entry.epoch < self.history.all_calls_epoch:
                # By its start, not by now: a call that the kill switch found must stay away.
                entry = self.history.in_force(record.start_ms or 0, wall_ms)
        if forced is not None and forced in self._arms:
            return entry.force(forced), fields
        return entry.rule(call_id, fields), fields

    def _fields(self, call: Call, record: Record | None) -> Fields:
        fields = self._fields_of(call)
        if record is None:
            return fields
        return Thawed(record.ruling.entry.paths, record.frozen, fields)

    def _keep(
        self,
        call_id: str,
        call: Call,
        record: Record | None,
        *,
        ruling: Ruling,
        fields: Fields,
        wall_ms: int,
    ) -> None:
        """Put a ruling on record, with the fields that could matter if it is judged again."""
        paths = ruling.entry.paths
        frozen = freeze(paths, fields) if paths else ()
        if record is not None:
            self.records.revise(record, ruling, frozen)
        elif call.kind is not _INBOUND:
            start_ms = usable_start(call.start_ms, wall_ms)
            self.records.add(call_id, ruling, start_ms=start_ms, frozen=frozen, wall_ms=wall_ms)

    def _heir(self, decision: Decision, entry: Entry) -> Decision:
        return heir(decision, entry, self.history.latest)
