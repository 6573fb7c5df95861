"""What callers send: the real connection, edge, recognition and handler, between told arms.

For any bytes whatever, in pieces of any size: nothing crashes, every answer is HTTP and none of it
is an echo, no fault is called ours, and what reaches an arm is, byte for byte, what the strict
reading finds in the stream, once, and can be read in no other way.
"""

from __future__ import annotations

import asyncio
import json
from ipaddress import ip_address
from typing import Any, Final

from backends.base import Send
from proxy.adapters.listener.acceptor import Acceptor, Options
from proxy.adapters.upstream.wire import fixed_lines, request_head
from proxy.core.addresses import Networks
from proxy.core.auth import AuthPolicy, Credentials
from proxy.core.dialects.jsonrpc import UNSUPPORTED_VERSION
from proxy.core.force import Force
from proxy.core.limits import Limit
from proxy.core.mcp.mirrored import MAX_REQUESTED
from proxy.core.model import Call, Headers, Kind, Outbound, Reply
from proxy.core.requirement import Requirement
from proxy.errors import Refused
from proxy.ports import Incoming
from tests.desync.strict import Message
from tests.fuzz import reading
from tests.fuzz.literals import LITERALS
from tests.fuzz.wires import Loop, Wire, pieces, settle
from tests.path_kit import Forwarding, Network, World

ANSWER: Final = b'{"ok":true}'
BODY_LIMIT: Final = 3000
CUTS: Final = (0, 1, 13)
"""Sizes of the pieces that a stream arrives in; 0: whole."""

FINE: Final = frozenset(
    {200, 202, 204, 400, 403, 404, 405, 406, 408, 413, 414, 415, 417, 421, 431, 501, 505}
)
"""What a caller may be told while both arms are well: never that something failed here."""

LOCKED: Final = AuthPolicy(
    {kind: Requirement.any_of(["token"]) for kind in Kind}, Credentials((b"a token",), (b"a key",))
)
"""Nobody here has that token."""

_FIXED = fixed_lines("arm.test")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class AsItIs(Forwarding):
    """A backend that sends on what it is handed."""

    async def handle(self, call: Call, send: Send) -> Reply:
        head = call.head
        return await send(Outbound(head.method, head.target, head.end_to_end, call.body))


class Arm(Network):
    """An upstream that reads what would go on the wire."""

    def __init__(self, arrived: list[Message]) -> None:
        super().__init__()
        self._arrived = arrived

    async def send(self, outbound: Outbound, extra: Headers, **options: Any) -> Reply:
        raw = request_head(outbound, extra, _FIXED) + outbound.body
        found, whole = reading.requests(raw)
        assert (len(found), whole) == (1, True), "what goes upstream is not one request"
        assert found[0].body == outbound.body
        self._arrived.append(found[0])
        return Reply(200, [(b"content-type", b"application/json")], ANSWER)


class Case:
    """One connection, from its first byte to its end."""

    def __init__(self, **edge: Any) -> None:
        self.arrived: list[Message] = []
        self.methods: list[bytes] = []  # of what was answered, in order
        arm = Arm(self.arrived)
        edge = {"body_limit": BODY_LIMIT, "passthrough": True, **edge}
        self.world = World(mcp=arm, webhook=arm, percent=50, backend=AsItIs, **edge)
        self.world.arms["webhook"].backend = AsItIs(frozenset(Kind) - {Kind.LLM})
        self.acceptor = Acceptor(self._handle, self._bad_request, Options())
        self.wire: Wire

    async def play(self, data: bytes, cut: int) -> bytes:
        """Send `data`, hang up; all that was written."""
        loop = asyncio.get_running_loop()
        reports: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: reports.append(context))
        connection = self.acceptor()
        wire = self.wire = Wire(connection, loop)
        connection.connection_made(wire)
        for piece in pieces(data, cut):
            while wire.paused and not wire.is_closing():
                await asyncio.sleep(0)
            if wire.is_closing():
                break
            connection.data_received(piece)
            await asyncio.sleep(0)
        await settle()
        written = bytes(wire.written)
        wire.lose()
        while self.acceptor.everybody() or self.acceptor.late:
            await asyncio.sleep(0)
        await asyncio.gather(*self.world.tasks)
        assert not reports, reports
        return written

    async def _handle(self, incoming: Incoming) -> Reply:
        self.methods.append(incoming.method.encode("utf-8", "surrogateescape"))
        return await self.world.handler.handle(incoming)

    def _bad_request(self, status: int) -> Reply:
        self.methods.append(b"")
        return self.world.line.edge.refuse(Refused(status, "bad_request", "no", close=True), "-")


class Ingress:
    """The target."""

    def __init__(self) -> None:
        self._loop = Loop()

    def __call__(self, data: bytes) -> None:
        for cut in CUTS:
            self._loop.run(check(data, cut))
        self._loop.run(check_locked(data))

    def close(self) -> None:
        self._loop.close()


async def check(data: bytes, cut: int) -> None:
    """Hold one stream against everything that is promised."""
    case = Case()
    written = await case.play(data, cut)
    wanted, whole = reading.requests(data)
    told = case.world.watch.told
    exchanges = [value for what, value in told if what == "exchange"]

    assert not [value for what, value in told if what == "crashed"]
    assert case.world.handler.inflight == case.acceptor.inflight == 0
    assert len(case.arrived) <= len(exchanges), "more was asked than was to be answered"
    assert all(len(each.attempts) <= 1 for each in exchanges)
    if not any("batch" in each.flags for each in exchanges):
        check_arrived(case.arrived, wanted)
    answers, surplus = reading.responses(written, case.methods, ended=False)
    assert surplus in (b"", _CONTINUE), "what was written is no HTTP"
    check_answers(answers)
    if wanted and whole:
        closed = case.wire.is_closing() or says_close(answers)
        assert len(answers) == len(wanted) or closed, "a request was left without an answer"
        assert answers, "a request was left without an answer"


async def check_locked(data: bytes) -> None:
    """Without a credential no byte reaches an arm, whatever it says of itself or of its address."""
    trusted = Networks.of(["127.0.0.0/8"])
    limit = Limit(per_minute=60, burst=1.0)
    case = Case(
        auth=LOCKED, passthrough=False, trusted=trusted, address_limit=limit, tool_limit=limit,
        force=Force(b"x-force", b"another token"), hops=1,
    )  # fmt: skip
    written = await case.play(data, 0)
    told = case.world.watch.told
    answers, surplus = reading.responses(written, case.methods, ended=False)

    assert case.arrived == []
    assert not [value for what, value in told if what == "crashed"]
    assert surplus in (b"", _CONTINUE), "what was written is no HTTP"
    check_answers(answers, FINE | {401, 429, 508})
    for exchange in (value for what, value in told if what == "exchange"):
        assert exchange.peer == "" or ip_address(exchange.peer)


def check_arrived(arrived: list[Message], wanted: list[Message]) -> None:
    """Each request that arrived is one of the stream's, in their order, with its bytes."""
    left = iter(wanted)
    for found in arrived:
        for each in left:
            target = reading.origin_form(each.target)
            if (each.method, target, each.body) == (found.method, found.target, found.body):
                break
        else:
            raise AssertionError(f"the stream holds no such request: {found}")
        own = [field for field in found.fields if field in each.fields]
        invented = {name.lower() for name, _ in found.fields if (name, _) not in own}
        assert invented <= OURS, f"a header that nobody sent: {invented - OURS}"
        assert not {name.lower() for name, _ in own} & NEVER


OURS: Final = frozenset(
    {
        b"host", b"content-length", b"traceparent", b"x-callsplit-attempt", b"x-callsplit-call-id",
        b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-request-id", b"via",
        b"idempotency-key", b"x-callsplit-hops",
    }
)  # fmt: skip
"""Headers that arms hear from us."""

NEVER: Final = frozenset(
    {
        b"connection", b"expect", b"keep-alive", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade", b"x-original-url", b"x-rewrite-url",
    }
)  # fmt: skip
"""Headers of the caller's that no arm ever sees."""


def says_close(answers: list[Message]) -> bool:
    return bool(answers) and answers[-1].values(b"connection") == [b"close"]


def check_answers(answers: list[Message], fine: frozenset[int] = FINE) -> None:
    for number, answer in enumerate(answers, 1):
        assert answer.status in fine, answer
        assert number == len(answers) or answer.values(b"connection") != [b"close"]
        assert not answer.values(b"server")
        if answer.status >= 400 and answer.body not in (b"", ANSWER):
            check_refusal(answer.body)


def check_refusal(body: bytes) -> None:
    """A refusal is made of our own words, all of which stand in the source."""
    refusal = json.loads(body)
    assert set(refusal) <= {"error", "jsonrpc", "id"}
    error = refusal["error"]
    about = error["data"] if "jsonrpc" in refusal else error
    if error["code"] == UNSUPPORTED_VERSION:  # It has to name the version that was asked for.
        assert set(about) == {"supported", "requested"}
        assert len(about["requested"]) <= MAX_REQUESTED
    else:
        assert about["code"] in LITERALS, about
    assert error["message"] in LITERALS or error["message"].startswith("Only "), error
