"""A path that is not ours: forwarded as it is, every status relayed, never split."""

from __future__ import annotations

from proxy.core.exchange import Exchange
from proxy.core.exchange_headers import headers_for_arms
from proxy.core.model import Call, Kind, Outbound, Reason, Reply
from proxy.core.shedding import RETRY_AFTER, TOO_MUCH
from proxy.edge import Visit
from proxy.errors import Refused, UpstreamFailed
from proxy.line import Line
from proxy.ports import Clock


async def pass_through(line: Line, visit: Visit, body: bytes, x: Exchange, clock: Clock) -> Reply:
    """Ask the backend that the rules name for it.

    Raises `Refused` 429, 502 or 504, and 503 if this process or the arm has more to do than that:
    whoever takes an answer slowly, and need not prove anything, holds a connection to the arm.
    """
    assert line.passthrough is not None
    arm, head = line.arms[line.passthrough], visit.head
    x.kind, x.reason = Kind.PASSTHROUGH, Reason.PASSTHROUGH
    line.edge.greet(visit, body, clock.wall_ms())
    line.edge.shed(Kind.PASSTHROUGH)
    if not arm.spare():
        raise Refused(503, "overloaded", TOO_MUCH, retry_after=RETRY_AFTER)
    headers = headers_for_arms(Call(x.kind, head), x)
    outbound = Outbound(head.method, head.target, head.end_to_end, body)
    until = clock.now() + arm.timeout
    try:
        reply = await arm.upstream.send(outbound, headers, deadline=until, buffer=0)
    except UpstreamFailed as failure:
        late = failure.why == "timeout"
        raise Refused(
            504 if late else 502, "upstream_failed", "The application gave no answer."
        ) from failure
    x.arm, x.outcome = arm.name, "ok"
    return reply
