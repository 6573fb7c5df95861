"""Which arm serves a request of a legacy MCP session?

The one that its token names: there is its state, whatever call ID, hash or force header say.  Only
a change for all calls that is newer takes the session over; it is then judged like a call that
began when it did.  A session that has no arm yet is split by its own ID, and that is not recorded:
its token will tell.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from proxy.core.entry import Override
from proxy.core.frozen import NO_FIELDS
from proxy.core.history import History, usable_start
from proxy.core.look import Look, heir, overruling, split_key
from proxy.core.matchers import Fields
from proxy.core.model import Call, Decision, Reason, Session

_RECORDED = Reason.RECORDED  # Bound once: reading a member is slow in Python 3.11.


def look_by_session(
    call: Call,
    session: Session,
    *,
    history: History,
    arms: Collection[str],
    fields_of: Callable[[Call], Fields],
    wall_ms: int,
    forced: str | None,
) -> Look:
    """The decision for a request of `session`; `forced` is one of `arms`, if it is any."""
    issued_ms = session.issued_ms
    stands = session.arm != "" and history.still_stands(issued_ms, wall_ms)
    start_ms = issued_ms if stands else _start(session, wall_ms)
    entry = history.in_force(start_ms, wall_ms)
    fields = fields_of(call) if entry.overrides else NO_FIELDS
    if stands:
        ruling, decision = None, Decision(session.arm, _RECORDED)
        # What is no tool call speaks of the session's state: it has no business elsewhere.
        free = call.tool is not None and forced != session.arm
    else:
        key = split_key(call) or session.id
        ruling = entry.rule(key, fields) if forced is None else entry.force(forced)
        decision, free = ruling.decision, True
    away: Override | None = None
    if free and entry.by_request and decision.arm != entry.otherwise:
        away = overruling(entry, ruling, fields)
        decision = entry.overruled if away is not None else decision
    if decision.arm not in arms:
        decision = heir(decision, entry, history.latest)
    return Look(decision, entry, fields, ruling, None, away, session)


def _start(session: Session, wall_ms: int) -> int | None:
    """By its start, not by now: a session that the kill switch found must stay away."""
    return (usable_start(session.issued_ms, wall_ms) or 0) if session.arm else None
