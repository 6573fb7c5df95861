"""What is known of a write, and what becomes of a request for one?"""

from __future__ import annotations

from binascii import hexlify
from enum import StrEnum
from hashlib import blake2b

from msgspec import Struct

from proxy.core.dialects.kept import Kept

MOST_IDS = 16
"""Tool calls that one answer remembers to have served; the ID of any further one is unknown."""


class RunState(StrEnum):
    """What is known of one run."""

    IN_FLIGHT = "in_flight"
    UNKNOWN = "unknown"  # it may have run; nobody can say
    DONE = "done"
    LOST = "lost"  # its outcome was never known, and is waited for no longer
    OVER = "over"  # nothing can be said of it any more


class Done(Struct, frozen=True, gc=False):
    """How a run ended.  Without `kept` its answer could not be kept, only the fact."""

    kept: Kept | None
    success: bool  # False: the business said no
    proved: bool = False  # who was told so had a credential that held


class Run(Struct, eq=False, gc=False):
    """One execution of a write, and what is known of it.  Only the guard changes it.

    `ids` are the tool calls that it answers.  What is known of it holds for `stay` seconds from
    `since` on.
    """

    key: bytes
    number: int  # counts the executions of its key, from 1
    scope: str  # the call ID, or a name for the MCP session
    tool: str
    replay_for: float  # seconds that its answer serves repeats
    since: float = 0.0
    stay: float = 0.0
    ids: tuple[str, ...] = ()
    state: RunState = RunState.IN_FLIGHT
    done: Done | None = None
    size: int = 0  # bytes of the answer, roughly; 0 if there is none
    began: int = 0  # its place among all beginnings and ends that the guard has seen
    ended: int = 0  # likewise

    @property
    def idempotency(self) -> bytes:
        """For the header `Idempotency-Key`: 32 hex digits, the same for all tries of this run."""
        if self.number == 1:
            return hexlify(self.key)
        text = b"%b%d" % (self.key, self.number)
        return blake2b(text, digest_size=16).hexdigest().encode()

    def holds(self, now: float) -> bool:
        """Whether what is known of it still counts."""
        return now < self.since + self.stay


class Replay(Struct, frozen=True, gc=False):
    """It has run: give its answer again."""

    done: Done


class Wait(Struct, frozen=True, gc=False):
    """It is running, or may have run (`unknown`): do not run it."""

    key: bytes
    unknown: bool


class Full(Struct, frozen=True, gc=False):
    """No room to remember one more: do not run it."""


class ReplayRecord(Struct, frozen=True, gc=False):
    """What operators see of a run: nothing of the call but its ID."""

    id: str  # the key in hex
    call_id: str
    tool: str
    state: RunState
    age: float  # seconds in this state
    run: int
