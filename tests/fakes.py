"""Small real classes that stand in for the world in tests."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from proxy.core.breaker import Transition
from proxy.core.exchange import Attempt, Exchange
from proxy.core.model import Headers, Kind, Outbound, Reply, Verdict
from proxy.errors import ClientGone, Refused, StoreFailed


class FakeClock:
    """A clock that moves only when told to."""

    def __init__(self, now: float = 1000.0, wall_ms: int = 1_767_225_600_000) -> None:
        self._now = now
        self._wall_ms = wall_ms

    def now(self) -> float:
        return self._now

    def wall_ms(self) -> int:
        return self._wall_ms

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._wall_ms += round(seconds * 1000)


class Sent(NamedTuple):
    """What an upstream was asked, and on which terms."""

    outbound: Outbound
    extra: Headers
    deadline: float
    linger: float
    late: Callable[[], bool] | None


class FakeUpstream:
    """An upstream that answers `reply` or raises `fails`, and notes what it is asked."""

    def __init__(self, reply: Reply | None = None, fails: Exception | None = None) -> None:
        self.reply = reply or Reply(200)
        self.fails = fails
        self.sent: list[Sent] = []
        self.connects: list[float] = []  # the deadline of each

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
        sent = Sent(outbound, extra, deadline, linger, late)
        self.sent.append(sent)
        return await self.answer(sent)

    async def answer(self, sent: Sent) -> Reply:
        if self.fails is not None:
            raise self.fails
        return self.reply

    async def connect(self, *, deadline: float) -> None:
        self.connects.append(deadline)
        if self.fails is not None:
            raise self.fails

    async def aclose(self, grace: float) -> None: ...


class FakeOutboxOperations:
    """Knows one dead event, number 7; 8 is being delivered, and 9 is on a disk that fails."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    def summary(self) -> dict[str, Any]:
        return {"store": "sqlite", "queued": 0, "dead": 1}

    def overview(self, state: str, call_id: str | None) -> dict[str, Any]:
        if state not in ("all", "queued", "dead"):
            raise ValueError("Expected all, queued, dead.")
        self.asked.append(("overview", state, call_id))
        return {"store": "sqlite", "entries": []}

    async def show(self, entry: str, *, body: bool) -> dict[str, Any]:
        self._find(entry)
        return {"id": 7, "request": {"body": "{}"} if body else {}}

    async def retry(self, entry: str) -> dict[str, Any]:
        self._find(entry)
        if entry == "8":
            raise ValueError("It is being delivered at the moment.")
        return {"retried": 1}

    async def drop(self, entry: str) -> dict[str, Any]:
        self._find(entry)
        return {"dropped": 1}

    def _find(self, entry: str) -> None:
        if entry == "9":
            raise StoreFailed("disk I/O error")
        if entry not in ("7", "8", "dead"):
            raise KeyError(entry)


class FakeOperations:
    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.state = "open"
        self.outbox = FakeOutboxOperations()

    def unready(self) -> list[str]:
        return self.reasons

    def status(self) -> dict[str, Any]:
        return {"split": {"percent": 25.0}}

    def config(self) -> dict[str, Any]:
        return {"admin": {"token": "env:ADMIN?"}}

    def explain(self, call_id: str | None, body: bytes | None) -> dict[str, Any]:
        if body == b"{":
            raise ValueError("the body is not JSON")
        return {"call_id": call_id, "body": len(body or b"")}

    def breakers(self) -> dict[str, Any]:
        return {"mcp": {"state": self.state}}

    def change_breaker(self, arm: str, action: str, tool: str = "") -> dict[str, Any]:
        if arm != "mcp" or tool not in ("", "slots"):
            raise KeyError(arm)
        if action != "reset":
            raise ValueError("expected reset, open, close or metrics-only")
        before, self.state = self.state, "closed"
        return {"before": before, "after": self.state}

    def replays(self, state: str, call_id: str | None) -> dict[str, Any]:
        if state not in ("held", "all"):
            raise ValueError("Expected held or all.")
        return {"records": [], "asked": [state, call_id]}

    def release_replay(self, record: str) -> dict[str, Any]:
        if record == "aa":
            raise ValueError("It is running.")
        if record != "bb":
            raise KeyError(record)
        return {"before": "unknown", "after": "released"}

    def metrics(self, accept: str) -> tuple[bytes, str]:
        return b"# EOF\n" if "openmetrics" in accept else b"up 1\n", "text/plain; version=0.0.4"


class FakeAdmin:
    """A sidecar's admin listener with canned pages, on a thread of its own."""

    def __init__(self, pages: dict[str, tuple[int, Any]]) -> None:
        self.pages = pages
        self.asked: list[tuple[str, str, str]] = []  # method, target, Authorization
        fake = self

        class Page(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                self.rfile.read(length)
                token = self.headers.get("Authorization") or ""
                fake.asked.append((self.command, self.path, token))
                status, value = fake.pages.get(self.path.partition("?")[0], (404, {}))
                body = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Page)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeAdmin:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class FakeIncoming:
    """A request as the listener would hand it over; `pieces` of its body come when read."""

    def __init__(
        self,
        method: str = "POST",
        target: str = "/retell",
        headers: Iterable[tuple[bytes, bytes]] = (),
        body: bytes = b"",
        *,
        peer: str = "192.0.2.1",
        chunked: bool = False,
        host: bytes = b"retell.example",
    ) -> None:
        framing = (b"Transfer-Encoding", b"chunked")
        if not chunked:
            framing = (b"Content-Length", b"%d" % len(body))
        self.method = method
        self.target = target
        self.version = (1, 1)
        self.headers = ((b"Host", host), *headers, framing)
        self.peer = peer
        self.secure = False
        self.gone = False
        self.perishable = False
        self.asked: tuple[int, float] | None = None  # limit and deadline of the read
        self.answered: Reply | None = None  # while its handler goes on
        self._chunked = chunked
        self._body = body

    def declared_length(self) -> int | None:
        return None if self._chunked else len(self._body)

    async def read(self, limit: int, deadline: float) -> bytes:
        self.asked = (limit, deadline)
        if self.gone:
            raise ClientGone("the caller hung up")
        if len(self._body) > limit:
            raise Refused(413, "body_too_large", "The request body is too large.", close=True)
        return self._body

    def answer(self, reply: Reply) -> bool:
        if self.gone or self.answered is not None or not isinstance(reply.body, bytes):
            return False
        self.answered = reply
        return True


class FakeWatch:
    """Remembers what it was told, each as (what, with what)."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def exchange_ended(self, exchange: Exchange) -> None:
        self.told.append(("exchange", exchange))

    def attempt_ended(self, attempt: Attempt) -> None:
        self.told.append(("attempt", attempt))

    def rescued(self, from_arm: str, why: str) -> None:
        self.told.append(("rescued", (from_arm, why)))

    def last_answered(self, kind: Kind) -> None:
        self.told.append(("last_answer", kind))

    def replayed(self, kind: str) -> None:
        self.told.append(("replayed", kind))

    def answered_late(self, arm: str, verdict: Verdict) -> None:
        self.told.append(("late", (arm, verdict)))

    def breaker_changed(self, arm: str, transition: Transition) -> None:
        self.told.append(("breaker", (arm, transition)))

    def config_fault(self, arm: str, detail: str) -> None:
        self.told.append(("config_fault", (arm, detail)))

    def auth_failed(self, reason: str) -> None:
        self.told.append(("auth_failed", reason))

    def signature_repeated(self, kind: Kind) -> None:
        self.told.append(("signature_repeated", str(kind)))

    def rate_limited(self, scope: str) -> None:
        self.told.append(("rate_limited", scope))

    def cache_looked(self, tool: str, result: str) -> None:
        self.told.append(("cache", (tool, result)))

    def shed(self, reason: str, kind: Kind) -> None:
        self.told.append(("shed", (reason, kind)))

    def repeated(self, arm: str, outcome: str) -> None:
        self.told.append(("repeated", (arm, outcome)))

    def hedged(self, arm: str, outcome: str) -> None:
        self.told.append(("hedged", (arm, outcome)))

    def mcp_session(self, event: str) -> None:
        self.told.append(("mcp_session", event))

    def crashed(self, where: str, error: BaseException) -> None:
        self.told.append(("crashed", (where, error)))
