"""The account of one exchange: filled along the path, settled in one place at its end."""

from __future__ import annotations

from msgspec import Struct, field

from proxy.core.model import Kind, Reason, Verdict


class Attempt(Struct, frozen=True, gc=False):
    """One try at one arm, as it ended."""

    arm: str
    verdict: Verdict
    seconds: float
    status: int = 0  # the arm's own status; 0 if it gave none


class Exchange(Struct, gc=False):
    """What is told of one request in metrics and in its access line.

    Times are clock seconds.  `arm` is who answered, `none` if nobody did.  `outcome`, a closed set:
    ok, business_no, rescued, last_answer, refused, failed, gone.
    """

    request_id: str
    started: float
    method: str = ""
    path: str = ""
    peer: str = ""
    kind: Kind = Kind.OTHER
    call_id: str | None = None
    session: str | None = None  # the ID of a legacy MCP session, never its token
    tool: str | None = None
    event: str | None = None
    decided: str = "none"  # the arm of the decision
    decided_by: Reason | None = None
    arm: str = "none"
    reason: Reason | None = None
    outcome: str = "failed"
    status: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)  # short words: say_pending, streamed, ...
    code: str = ""  # the refusal's stable code
    bytes_in: int = 0
    bytes_out: int = 0
    ended: float = 0.0
