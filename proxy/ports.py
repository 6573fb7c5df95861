"""What the path of a request needs from the world; each line says what an outage reads as."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from backends.base import Backend
from proxy.core.arm_breaker import ArmBreaker
from proxy.core.body_verdicts import BodyVerdicts
from proxy.core.breaker import Transition
from proxy.core.exchange import Attempt, Exchange
from proxy.core.hedge import Pace
from proxy.core.model import Call, Headers, Kind, Outbound, Reply, Verdict
from proxy.core.outbox import Entry, Letter
from proxy.core.retry_budget import RetryBudget


class Clock(Protocol):
    """Cannot fail."""

    def now(self) -> float:
        """Seconds on a clock that never goes back; the loop's own."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970, UTC."""


class Incoming(Protocol):
    """A request as the listener hands it over; `Refused` reads "the caller's fault"."""

    method: str
    target: str  # as on the wire (non-ASCII bytes as surrogate escapes)
    version: tuple[int, int]
    headers: tuple[tuple[bytes, bytes], ...]
    peer: str  # address of the socket's other end; "" for a unix socket
    secure: bool
    perishable: bool  # set it: who answers this is cancelled once the caller is gone

    def declared_length(self) -> int | None:
        """Content-Length; None for a chunked or absent body."""

    async def read(self, limit: int, deadline: float) -> bytes:
        """The whole body, as sent.

        Raises `Refused` 413 past `limit` bytes, 408 past `deadline` (clock seconds), 400 for
        broken framing, `ClientGone` if the caller hung up.
        """

    def answer(self, reply: Reply) -> bool:
        """Answer now, while the handler goes on; what it returns later is dropped.

        False if it cannot be: the request has been answered, its body is still coming, `reply`
        streams, or the caller is gone.
        """

    @property
    def gone(self) -> bool:
        """The caller has hung up; tells nothing more after `answer`."""


class Upstream(Protocol):
    """One backend's endpoint; every outage reads as `UpstreamFailed` with `sent` exact."""

    async def send(
        self,
        outbound: Outbound,
        extra: Headers,
        *,
        deadline: float,
        linger: float = 0.0,
        buffer: int | None = None,
        late: Callable[[], bool] | None = None,
    ) -> Reply:
        """One exchange; `extra` headers follow the outbound's own.

        Answers up to `buffer` bytes (256 kB by default) come whole; 0 streams at once.

        `deadline` (clock seconds) bounds connect, request and the answer up to its whole
        buffered body or, for a streamed one, its head.  With `linger`, a request that times
        out after it was sent keeps its connection for that many more seconds, so
        that the upstream can finish what it began.  Then `late` is called, once and at the
        `deadline`, if no whole answer (or head of a streamed one) is here: True, and this call
        waits on, for the answer or the end of those seconds.  It must not raise.
        """

    async def connect(self, *, deadline: float) -> None:
        """Open (or reuse) one connection, send nothing; the weakest probe."""

    async def aclose(self, grace: float) -> None:
        """Close idle connections now, busy ones when done or after `grace` seconds."""


@dataclass(slots=True)
class Arm:
    """One side of the split, wired: who speaks, over what, with whose leave."""

    name: str
    backend: Backend
    upstream: Upstream
    breaker: ArmBreaker  # asked by `admit(now, tool, ...)`, told by `settle(permit, verdict, ...)`
    timeout: float  # seconds for an attempt that no budget bounds more tightly
    not_executed: frozenset[int] = frozenset()  # statuses that promise the tool did not run
    by_rule: BodyVerdicts | None = None  # what the rules read in its bodies, for `judge_reply`
    spare: Callable[[], bool] = lambda: True  # has it connections for what is not urgent?
    speaks_mcp: bool = False  # its upstream is an MCP server: every MCP message is its to answer
    listeners: int = 128  # streams that last, at most: each holds a connection
    in_process: bool = False  # runs here: its waits are not bounded by the upstream's deadline
    sign: bytes | None = field(default=None, repr=False)  # Retell key for what we send ourselves
    retries: RetryBudget = field(default_factory=RetryBudget)  # hears of every first attempt
    retry_ratio: float = 0.2  # the part of those that may be asked again
    pace: Pace = field(default_factory=Pace)  # hears how long tools take, for hedges
    made_of: object = field(default=None, repr=False)  # its backend; equal after a reload: it stays


class Watch(Protocol):
    """Metrics and log; never raises, never blocks, an outage loses figures only."""

    def exchange_ended(self, exchange: Exchange) -> None:
        """The one accounting step of every exchange: counters and the access line."""

    def attempt_ended(self, attempt: Attempt) -> None:
        """One try at one arm."""

    def rescued(self, from_arm: str, why: str) -> None:
        """The other arm answered instead of `from_arm`."""

    def last_answered(self, kind: Kind) -> None:
        """No arm could answer; the caller heard the last answer."""

    def replayed(self, kind: str) -> None:
        """An answer was given again: `write`, `twin` (of what was still running) or `event`."""

    def answered_late(self, arm: str, verdict: Verdict) -> None:
        """What became of a write whose caller could wait no longer."""

    def breaker_changed(self, arm: str, transition: Transition) -> None:
        """A breaker changed its state."""

    def config_fault(self, arm: str, detail: str) -> None:
        """An arm refuses in a way that only an operator can mend."""

    def auth_failed(self, reason: str) -> None:
        """A credential was missing or wrong."""

    def signature_repeated(self, kind: Kind) -> None:
        """Retell's signature holds, and has been here before."""

    def rate_limited(self, scope: str) -> None:
        """A limit turned a request away; `scope` is `tool` or `ip`."""

    def cache_looked(self, tool: str, result: str) -> None:
        """A tool's kept answers were asked: `hit`, `joined`, `miss`, `stale` or `skipped`."""

    def shed(self, reason: str, kind: Kind) -> None:
        """Too much was under way; `reason` is one of `proxy.core.shedding`."""

    def repeated(self, arm: str, outcome: str) -> None:
        """A request was to be sent to the same arm once more: `given`, or `refused` (no budget)."""

    def hedged(self, arm: str, outcome: str) -> None:
        """A second attempt beside a slow one at `arm`: `won`, `lost`, or `refused` (no budget)."""

    def mcp_session(self, event: str) -> None:
        """A legacy MCP session was `opened` or `ended`, or a request `refused` for want of one."""

    def crashed(self, where: str, error: BaseException) -> None:
        """A bug of ours or of a user's backend; the caller heard the last answer."""


class Outbox(Protocol):
    """Where events wait that no arm takes; an outage reads as "not kept"."""

    def has_queue(self, call_id: str | None) -> bool:
        """Events of this call wait here: a later one joins them, and no arm is asked before."""

    async def take(self, call: Call, arm: str, *, until: float) -> Reply | None:
        """Keep an event or alert meant for `arm`; its answer, once it is safe.

        None if it could not be kept, or not by `until` (clock seconds; it has a moment in any
        case).  It may then be delivered all the same.
        """


class OutboxEar(Protocol):
    """Who hears what a store tells of its own accord."""

    def replaced(self, entries: Sequence[Entry]) -> None:
        """These are all there are, in their order: at start, and after a fault."""

    def changed(self, id: int, entry: Entry | None) -> None:
        """Somebody else added or changed an entry; None: it is gone."""

    def failed(self, why: str) -> None:
        """The store cannot be used; it goes on trying."""


class OutboxStore(Protocol):
    """Where an outbox is kept; every outage reads as `StoreFailed`, and nothing was done."""

    name: str

    @property
    def leading(self) -> bool:
        """This process is the one that delivers."""

    async def run(self, ear: OutboxEar) -> None:
        """Open it, keep it open, tell `ear` what changes; until cancelled."""

    async def put(self, entry: Entry, letter: Letter) -> Entry:
        """Keep both; the entry with its number, once they are as safe as they ever are."""

    async def letter(self, id: int) -> Letter | None:
        """The letter of that entry; None if it is gone or damaged."""

    async def update(self, entry: Entry) -> None:
        """Keep what an entry has become."""

    async def remove(self, id: int) -> None:
        """Forget an entry and its letter."""

    async def aclose(self) -> None:
        """Finish what was begun and let go; `run` is over."""
