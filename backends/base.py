"""What a backend is.  This file and `proxy/core/model.py` are all you need to write one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from proxy.core.body_verdicts import BodyVerdicts
from proxy.core.model import Call, Effect, Kind, Outbound, Reply
from proxy.errors import UpstreamFailed

ANSWER_LIMIT = 4 * 2**20
"""The most bytes of an answer that is read whole in order to be translated."""


class Send(Protocol):
    """A backend's only way out: one HTTP exchange with its arm's upstream.

    Raises `proxy.errors.UpstreamFailed`.  The reply's body is whole up to 256 kB, a
    stream beyond that or if it is `text/event-stream`.  A backend that reads a stream itself
    sets `Outbound.whole`, so that the attempt's deadline holds there too.
    """

    async def __call__(self, outbound: Outbound, *, dispatches: bool = True) -> Reply:
        """`dispatches` marks the one leg that can run the tool.

        If a leg before it (handshake, listing) fails, the tool is known not to have run.
        """


class Backend(Protocol):
    """Answers calls in one arm's language.

    `handle` raises only what `send` raises.  It sets `Reply.verdict` where status and body
    alone would misjudge the answer, and leaves it None otherwise.
    A backend may also have `async def probe(self, send: Send) -> None`, a harmless request that
    raises `proxy.errors.ProbeFailed` if the arm is not well; it is asked unless the rules name
    `health.path` or a tool, and without it callsplit only connects.  And it may have
    `def is_read_only(self, tool: str) -> bool`, if its server says of itself which tools change
    nothing.

    One whose upstream is an MCP server sets `speaks_mcp = True`: it is handed every MCP message.
    Others are handed `tools/call` alone, the rest is answered for them.  Such a backend may also
    have `async def refresh(self, send: Send) -> None`, asked from time to time to renew
    `catalogue: Catalogue | None` (`proxy.core.dialects.catalogue`); it raises `ProbeFailed` or
    `UpstreamFailed`, and the old catalogue stays.
    """

    kinds: frozenset[Kind]

    async def handle(self, call: Call, send: Send) -> Reply:
        """Answer `call` in the language of its caller."""


@dataclass(frozen=True, slots=True)
class ToolConfig:
    """What a backend may know of a tool; absent tools get the defaults."""

    effect: Effect = Effect.WRITE
    name: str = ""  # the tool's name on this arm, if it differs
    output_schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """A backend's entry in the rules, secrets resolved.

    `path` and `query` come from the entry's `url`; an empty `path` keeps the caller's.
    `paths` maps a kind to its own path, `{tool}` in it is filled.
    """

    name: str
    path: str = ""
    query: str = ""
    paths: Mapping[Kind, str] = field(default_factory=dict)
    bearer: bytes | None = None  # token for the upstream, without "Bearer "
    sign: bytes | None = None  # key that signs what this backend composes
    health_path: str = ""
    probe: str = ""  # rules: health.probe
    tools: Mapping[str, ToolConfig] = field(default_factory=dict)
    by_rule: BodyVerdicts | None = None  # for who judges an answer before it is translated
    options: Mapping[str, Any] = field(default_factory=dict)  # keys of a user's own backend
    wall_ms: Callable[[], int] = lambda: 0  # wall clock, ms since 1970 (for signatures)
    may_repeat: Callable[[], bool] = lambda: True  # ask before sending once more what was refused
    aside: Callable[[Errand], None] = lambda _: None  # do this beside the path, soon


Errand: TypeAlias = Callable[[Send], Awaitable[None]]
"""Something harmless that nobody waits for, with a `send` of its own that has 2 s in all: to take
a question back, to end a session.  What it raises is logged."""


Factory: TypeAlias = Callable[[BackendConfig], Backend]
"""What an entry point of group `callsplit.backends`, or a `module:name` in the rules, must be."""


async def read_whole(reply: Reply, limit: int = ANSWER_LIMIT) -> bytes:
    """The whole body of an answer that must be translated.

    Raises `UpstreamFailed` if it is larger than `limit` bytes, compressed, or breaks half way.
    """
    body = reply.body if isinstance(reply.body, bytes) else await _drain(reply.body, limit)
    for name, value in reply.headers:
        if name.lower() == b"content-encoding" and value.strip().lower() != b"identity":
            raise UpstreamFailed("body", "the answer is compressed, unasked", sent=True)
    return body


async def _drain(stream: AsyncIterator[bytes], limit: int) -> bytes:
    chunks, size = [], 0
    try:
        async for chunk in stream:
            chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                raise UpstreamFailed("body", "the answer is too large", sent=True)
    finally:
        await close(stream)
    return b"".join(chunks)


async def close(stream: AsyncIterator[bytes]) -> None:
    """Give a streamed body back before its end; its connection is dropped."""
    aclose = getattr(stream, "aclose", None)
    if aclose is not None:
        await aclose()
