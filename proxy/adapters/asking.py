"""How is one arm asked something beside the path, such as whether it is well?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from backends.base import Send, close, read_whole
from proxy.core.expect import LIMIT, Expected
from proxy.core.model import Call, Headers, Outbound, Reply
from proxy.core.probe_call import USER_AGENT
from proxy.core.verdict import judge_reply
from proxy.errors import ProbeFailed, UpstreamFailed
from proxy.ports import Arm

GRACE: Final = 0.25
"""Seconds after the upstream's own deadline; only a backend's own waits ever need them."""

_HEADERS: Final[Headers] = [(b"accept", b"*/*"), (b"user-agent", USER_AGENT)]
_FOR_READING: Final[Headers] = [
    (b"accept", b"application/json"),
    (b"accept-encoding", b"identity"),
    (b"user-agent", USER_AGENT),
]


@dataclass(frozen=True, slots=True)
class Asking:
    """What the rules say of it.  Where they say nothing: the backend's own probe, or a connection.

    `call` runs a tool that only reads; `path` is asked with GET.  `timeout` is seconds, None: the
    arm's own, but no longer than a probe may hold its lease.
    """

    path: str = ""
    expected: Expected | None = None  # what the answer of `path` must say
    call: Call | None = None
    timeout: float | None = None


async def ask(arm: Arm, asking: Asking, deadline: float) -> None:
    """One probe; raises `ProbeFailed` or `UpstreamFailed` if the arm is not well."""

    async def send(outbound: Outbound, *, dispatches: bool = True) -> Reply:
        return await arm.upstream.send(outbound, [], deadline=deadline)

    if asking.call is not None:
        await _call(arm, asking.call, send)
    elif asking.path:
        await _read(asking.path, asking.expected, send)
    elif (own := getattr(arm.backend, "probe", None)) is not None:
        await own(send)
    else:
        await arm.upstream.connect(deadline=deadline)


async def outcome(
    question: Awaitable[None],
    patience: asyncio.Timeout,
    *,
    crashed: Callable[[Exception], None],
    otherwise: str,
) -> str | None:
    """Why a question failed, in a few words; "" if it did not, None if it never got there.

    `crashed` hears of a bug, which a user's backend may have; `otherwise` is said of what fails
    without a word.
    """
    try:
        async with patience:
            await question
    except TimeoutError:
        return "timeout: no answer in time"
    except (ProbeFailed, UpstreamFailed) as failure:
        return None if never_got_there(failure) else str(failure) or otherwise
    except Exception as bug:
        crashed(bug)
        return f"crashed: {type(bug).__name__}"
    return ""


def never_got_there(failure: Exception) -> bool:
    """Every connection was in use: that says nothing of the arm."""
    behind = failure.__cause__ or failure.__context__  # A backend tells it as its own failure.
    cause = behind if isinstance(failure, ProbeFailed) else failure
    return isinstance(cause, UpstreamFailed) and cause.why == "full"


async def _call(arm: Arm, call: Call, send: Send) -> None:
    """A business "no" is well: the arm has done its work."""
    reply = await arm.backend.handle(call, send)
    body = reply.body if isinstance(reply.body, bytes) else None
    verdict = reply.verdict or judge_reply(
        reply.status, reply.headers, body, not_executed=arm.not_executed, by_rule=arm.by_rule
    )
    await _leave(reply)
    if not verdict.delivers:
        raise ProbeFailed(f"{call.tool}: {verdict.label}, status {reply.status}")


async def _read(path: str, expected: Expected | None, send: Send) -> None:
    reply = await send(Outbound("GET", path, list(_FOR_READING if expected else _HEADERS)))
    if not 200 <= reply.status < 300:
        await _leave(reply)
        raise ProbeFailed(f"status {reply.status}")
    if expected is None:
        await _leave(reply)
    elif misfit := expected.misfit(await read_whole(reply, LIMIT)):
        raise ProbeFailed(misfit)


async def _leave(reply: Reply) -> None:
    """Nobody reads the rest of it."""
    if not isinstance(reply.body, bytes):
        await close(reply.body)
