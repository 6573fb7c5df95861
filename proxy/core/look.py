"""What was decided for one request, and what led to it?"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.core.entry import Entry, Override, Ruling
from proxy.core.frozen import NO_FIELDS
from proxy.core.matchers import Fields
from proxy.core.model import Call, Decision, Reason, Session
from proxy.core.records import Record

_FORCED = Reason.FORCED  # Bound once: reading a member of an enumeration is slow in Python 3.11.


@dataclass(frozen=True, slots=True)
class Look:
    """A decision and what led to it."""

    decision: Decision
    entry: Entry
    fields: Fields = NO_FIELDS
    ruling: Ruling | None = None  # for the call or session as a whole; None: by its session's token
    record: Record | None = None
    overruling: Override | None = None  # an override that spoke of this request only
    session: Session | None = None  # the MCP session that decided


def split_key(call: Call) -> str | None:
    """What a request is split by: its call's ID, else its MCP session's; None: by nothing."""
    if call.id is not None or call.session is None:
        return call.id
    return call.session.id


def overruling(entry: Entry, ruling: Ruling | None, fields: Fields) -> Override | None:
    """The override by tool or header that takes one request away from its call's arm.

    Of a `ruling` that is None nothing is known but its arm.
    """
    test = False
    if ruling is not None:
        if ruling.decision.reason is _FORCED:
            return None
        test = ruling.override is not None and ruling.override.test
    for holds, override in entry.by_request:
        if (override.test or not test) and holds(fields):
            return override
    return None


def heir(decision: Decision, entry: Entry, latest: Entry) -> Decision:
    """A decision by `entry` whose arm has left the rules, for the arm that took its place."""
    arm = latest.to if decision.arm == entry.to else latest.otherwise
    return Decision(arm, decision.reason)
