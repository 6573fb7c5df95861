"""The values that travel along a request's path.

Those made anew for every request are structs, whose making is C's work.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from msgspec import Raw, Struct, field

Headers: TypeAlias = list[tuple[bytes, bytes]]
"""Header fields in wire order, names and values as they stood on the wire."""


class Kind(StrEnum):
    """What a request is (design: kinds of request)."""

    EVENT = "event"
    INBOUND = "inbound"
    FUNCTION = "function"
    ARGS = "args"
    TOOLS = "tools"
    MCP = "mcp"
    LLM = "llm"
    ALERT = "alert"
    OTHER = "other"  # an unknown shape on one of our paths
    PASSTHROUGH = "passthrough"  # a path that is not ours


TOOL_KINDS = frozenset({Kind.FUNCTION, Kind.ARGS, Kind.TOOLS, Kind.MCP})
"""Kinds whose caller hears silence: the split, the judge and the last answer care for these."""


class Era(StrEnum):
    """Which of MCP's two incompatible families of revisions a peer speaks."""

    MODERN = "modern"  # 2026-07-28
    LEGACY = "legacy"  # up to 2025-11-25

    @property
    def other(self) -> Era:
        """The one that this is not."""
        return Era.LEGACY if self is Era.MODERN else Era.MODERN


class Form(StrEnum):
    """What an MCP caller's HTTP request carries."""

    REQUEST = "request"  # somebody waits for its answer
    NOTIFICATION = "notification"
    ANSWER = "answer"  # to a request of the server's (legacy)
    STREAM = "stream"  # GET: for what the server says of its own accord (legacy)
    END = "end"  # DELETE: of a session (legacy)
    BATCH = "batch"  # several messages in one body (2025-03-26), to be taken apart


class Effect(StrEnum):
    """What running a tool twice does."""

    READ = "read"
    IDEMPOTENT = "idempotent"  # holds across both arms
    WRITE = "write"


class Reason(StrEnum):
    """Why the answer came from where it came: log field, response header, metric label."""

    SHARE = "share"
    OVERRIDE = "override"
    FORCED = "forced"
    RECORDED = "recorded"
    NO_CALL_ID = "no_call_id"
    KIND = "kind"
    CAP = "cap"
    KILL_SWITCH = "kill_switch"
    PASSTHROUGH = "passthrough"
    RESCUE_OPEN = "rescue_open"
    RESCUE_FULL = "rescue_full"
    RESCUE_CONNECT = "rescue_connect"
    RESCUE_TIMEOUT = "rescue_timeout"
    RESCUE_RESET = "rescue_reset"
    RESCUE_STATUS = "rescue_status"
    RESCUE_BODY = "rescue_body"
    RESCUE_CONFIG = "rescue_config"
    HEDGED = "hedged"
    REPLAYED = "replayed"
    CACHED = "cached"
    LAST_ANSWER = "last_answer"


class Ran(StrEnum):
    """Whether the tool ran, as far as anybody can know."""

    NO = "no"
    UNKNOWN = "unknown"
    YES = "yes"


class Counts(StrEnum):
    """What the arm's breaker hears of an attempt."""

    SUCCESS = "success"
    FAILURE = "failure"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one attempt is judged.

    `label` is the metric label, a closed set: success, business_no, not_sent, refused,
    busy, failed, redirect, cut.  `why` is the suffix of a rescue reason; None on an answer
    that goes to the caller as it is.
    """

    label: str
    ran: Ran
    counts: Counts
    why: str | None = None
    config_fault: bool = False  # an operator must act: counted and alerted, no breaker failure
    retry_after: float | None = None  # seconds the arm asked for
    rescuable: bool = True  # False: the other arm is not asked, even though nothing ran

    @property
    def delivers(self) -> bool:
        """The answer is the caller's; neither rescue nor last answer."""
        return self.why is None


class Decision(Struct, frozen=True, gc=False):
    """The arm for one request and why."""

    arm: str
    reason: Reason


class Head(Struct, gc=False):
    """A request's head after the guards: every byte in it may go upstream.

    `path` and `query` are as on the wire, still percent-encoded.  `named` maps lower-case
    names to values (the last of equal names).  `end_to_end` holds what may be
    forwarded: no hop-by-hop field, nothing nominated by Connection, no framing, Host,
    Forwarded, X-Forwarded-*, and none of our own x-callsplit-* fields.  `repeated` holds the
    lower-case names that stood more than once; `target` is path and query in one, as on the wire.
    """

    method: str
    path: str
    query: str
    named: dict[bytes, bytes]
    end_to_end: Headers
    host: bytes  # that the client asked (a trusted proxy may tell)
    peer: str  # the client's address, after trusted-proxy parsing
    secure: bool = False  # the client's leg is TLS (or a trusted proxy says so)
    target: str = ""
    repeated: frozenset[bytes] = frozenset()


class Session(Struct, frozen=True, gc=False):
    """A legacy MCP session of a caller, as its token tells: `proxy.core.mcp.session`."""

    id: str  # ours; it is split by where no call ID is known
    arm: str  # whose it is; "" as long as that has not been decided (initialize)
    version: str  # of the protocol, as its caller asked for
    issued_ms: int
    upstream: str | None = None  # the arm's own session ID; None: it gave none, or was away


class Call(Struct, gc=False):
    """One request of a call, recognised.  What a backend is asked to answer.

    `id` is None if no usable call ID was found.  `start_ms` is the call's own start,
    None if missing or unusable.  `arguments` is the raw JSON of the tool's arguments, in valid
    UTF-8 (a strict decoder may still refuse 1e999 or a nesting of thousands);
    `rpc_id` the raw JSON of a JSON-RPC id (None for a notification), `rpc_method` its method.
    `form` and `era` are an MCP request's, None for all others; `promised` is the output schema of
    its tool, if its caller has heard of one from the arm that is asked first.
    """

    kind: Kind
    head: Head
    body: bytes = b""
    id: str | None = None
    tool: str | None = None
    start_ms: int | None = None
    arguments: bytes | None = None
    rpc_id: bytes | None = None
    rpc_method: str | None = None
    event: str | None = None  # the event's name (event, inbound, alert)
    signed: bool = False  # the edge verified Retell's signature over `body`
    turns: Raw | None = None  # a function's transcript so far, tool calls included: JSON, unread
    form: Form | None = None
    era: Era | None = None
    session: Session | None = None  # of a legacy MCP caller
    continues: bool = False  # it answers what a tool has asked meanwhile (MCP 2026-07-28, MRTR)
    promised: Mapping[str, Any] | None = None  # whoever answers must keep to it
    may_be: tuple[Kind, ...] = ()  # what else an arm may take it for: their rules bind too


class Outbound(Struct, gc=False):
    """A request that a backend wants sent to its upstream.

    `target` is the request target in origin form (path and query).  Framing, Host and the
    exchange's own headers (x-request-id, x-forwarded-*, ...) are added on the way.
    `whole`: the backend itself reads the answer to its end, so the attempt's deadline bounds
    a streamed one too; without it, a stream is the caller's and only its head is bounded.
    `after`: seconds to wait before it leaves, but never past the attempt's deadline.
    """

    method: str
    target: str
    headers: Headers
    body: bytes = b""
    whole: bool = False
    after: float = 0.0


class Reply(Struct):
    """An answer, from an upstream or made here.

    `headers` carry no framing and no hop-by-hop field.  `body` is whole, or an async
    iterator of chunks that must be closed (`aclose`) if it is not read to its end; it raises
    `UpstreamFailed` if the upstream breaks half way.  `length` is the declared length of a
    streamed or HEAD answer.  `verdict` None means: judge me by status and body.  `close` tells the
    listener not to reuse the caller's connection after this answer.  `ttl` is for how many seconds
    the arm lets others hear it (0: not at all, None: it does not say), `private` that it lets
    nobody outside the call.
    """

    status: int
    headers: Headers = field(default_factory=list)
    body: bytes | AsyncIterator[bytes] = b""
    length: int | None = None
    phrase: bytes = b""
    verdict: Verdict | None = None
    close: bool = False
    ttl: float | None = None
    private: bool = False
