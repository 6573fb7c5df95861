import contextlib
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.addresses import NOWHERE, Networks
from proxy.core.auth import AuthPolicy, Credentials, credential_name
from proxy.core.call_id import CallIds
from proxy.core.force import Force
from proxy.core.limits import Limit
from proxy.core.model import Call, Kind
from proxy.core.origins import Origins
from proxy.core.recognise import recognise
from proxy.core.requirement import Requirement
from proxy.core.signature import sign
from proxy.edge import Edge, EdgeRules, Visit
from proxy.errors import ClientGone, Refused
from proxy.ports import Incoming, Watch
from tests.fakes import FakeClock, FakeIncoming, FakeWatch

TOKEN, BACKUP, KEY = b"primary-token-of-the-agent", b"backup-token", b"key_0123456789"
WALL = FakeClock().wall_ms()
EVENT = b'{"event":"call_started","call":{"call_id":"call_0001"}}'
FUNCTION = b'{"name":"book_appointment","call":{"call_id":"call_0001"},"args":{}}'
RPC = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"book_appointment"}}'
LISTING = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
UNKNOWN = b'{"hello":"world"}'

signature, token = Requirement.any_of(["signature"]), Requirement.any_of(["token"])
SHIPPED = {
    Kind.FUNCTION: signature,
    Kind.EVENT: signature,
    Kind.INBOUND: signature,
    Kind.ALERT: signature,
    Kind.ARGS: Requirement.any_of(["signature", "token"]),
    Kind.MCP: token,
    Kind.TOOLS: token,
}


def policy(require: Mapping[Kind, Requirement] = SHIPPED) -> AuthPolicy:
    return AuthPolicy(require, Credentials((TOKEN, BACKUP), (KEY,)))


def bearer(value: bytes = TOKEN) -> tuple[bytes, bytes]:
    return b"Authorization", b"Bearer " + value


def signed(body: bytes, *, key: bytes = KEY, ms: int = WALL) -> tuple[bytes, bytes]:
    return b"X-Retell-Signature", sign(key, body, ms)


class Gate:
    """An edge, and how a request fares at it."""

    def __init__(self, rules: EdgeRules | None = None, *, before: Edge | None = None) -> None:
        self.watch = FakeWatch()
        self.inflight, self.lag = 1, 0.0
        self.edge = Edge(rules or EdgeRules(policy()), self.watch, before, load=self._load)

    def _load(self) -> tuple[int, float]:
        return self.inflight, self.lag

    async def pass_through(self, asked: FakeIncoming, now: float = 1000.0) -> Visit:
        """All that the edge does on a request's path."""
        visit = self.edge.screen(asked, now)
        body = await self.edge.body(asked, now)
        if visit.route is not None and visit.kinds:
            call = recognise(visit.route, visit.head, body, CallIds())
            self.edge.authorise(call, visit, WALL)
            self.edge.meter(call, visit, now)
        elif visit.route is None:
            self.edge.greet(visit, body, WALL)
        return visit

    async def refusal(self, asked: FakeIncoming, now: float = 1000.0) -> Refused:
        with pytest.raises(Refused) as refused:
            await self.pass_through(asked, now)
        return refused.value

    async def admitted(self, asked: FakeIncoming, times: int, now: float = 1000.0) -> int:
        count = 0
        for _ in range(times):
            try:
                await self.pass_through(asked, now)
                count += 1
            except Refused as refused:
                if refused.status != 429:
                    raise
        return count


def test_the_fakes_fit_their_ports() -> None:
    incoming: Incoming = FakeIncoming()
    watch: Watch = FakeWatch()

    assert (incoming.peer, watch) == ("192.0.2.1", watch)


# --- who may ask -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "body", "proof", "credential"),
    [
        ("/retell", EVENT, signed(EVENT), credential_name("signature", KEY)),
        ("/retell", FUNCTION, signed(FUNCTION), credential_name("signature", KEY)),
        (
            "/retell/fn/book_appointment",
            b'{"date":"2026-01-02"}',
            bearer(),
            credential_name("token", TOKEN),
        ),
        ("/mcp", RPC, bearer(), credential_name("token", TOKEN)),
        ("/mcp/call_0001", RPC, bearer(BACKUP), credential_name("token", BACKUP)),
        (
            "/api/mcp/retell/tools",
            b'{"tool":"t","arguments":{}}',
            bearer(),
            credential_name("token", TOKEN),
        ),
        ("/api/retell/webhook-simple", EVENT, signed(EVENT), credential_name("signature", KEY)),
    ],
)
async def test_who_shows_what_the_kind_requires_may_pass(
    target: str, body: bytes, proof: tuple[bytes, bytes], credential: str
) -> None:
    gate = Gate()

    visit = await gate.pass_through(FakeIncoming("POST", target, [proof], body))

    assert visit.credential == credential
    assert gate.watch.told == []


@pytest.mark.parametrize(
    ("target", "body", "headers", "label"),
    [
        ("/mcp", RPC, [], "missing"),
        ("/mcp", RPC, [bearer(b"wrong")], "wrong"),
        ("/mcp", RPC, [bearer(TOKEN[:-1])], "wrong"),
        ("/mcp", RPC, [bearer(TOKEN + b"x")], "wrong"),
        ("/mcp", RPC, [bearer(b"")], "malformed"),
        ("/mcp", RPC, [bearer(), bearer()], "malformed"),
        ("/mcp", RPC, [(b"Authorization", b"Basic eDp5")], "malformed"),
        ("/mcp", RPC, [bearer("tökén".encode())], "wrong"),
        ("/mcp", RPC, [signed(RPC)], "missing"),
        ("/retell", EVENT, [signed(EVENT), signed(EVENT)], "malformed"),
        ("/retell", EVENT, [(b"X-Retell-Signature", b"\xff" * 9000)], "malformed"),
        ("/retell/fn/t", b"{}", [], "missing"),
    ],
)
async def test_who_shows_nothing_that_could_do_has_no_body_read(
    target: str, body: bytes, headers: list[tuple[bytes, bytes]], label: str
) -> None:
    gate, asked = Gate(), FakeIncoming("POST", target, headers, body)

    refused = await gate.refusal(asked)

    assert (refused.status, refused.code) == (401, "unauthorised")
    assert asked.asked is None
    assert gate.watch.told == [("auth_failed", label)]


@pytest.mark.parametrize(
    ("body", "headers", "label"),
    [
        (EVENT, [signed(EVENT, key=b"forged")], "wrong"),
        (EVENT, [signed(EVENT + b" ")], "wrong"),
        (EVENT, [signed(EVENT, ms=WALL - 300_001)], "stale"),
        (EVENT, [signed(EVENT, ms=WALL + 300_001)], "stale"),
        (EVENT, [bearer()], "missing"),
        (UNKNOWN, [bearer()], "missing"),
        (UNKNOWN, [signed(UNKNOWN)], "missing"),
        (RPC, [signed(RPC)], "missing"),
    ],
)
async def test_what_the_kind_requires_is_known_only_after_the_body(
    body: bytes, headers: list[tuple[bytes, bytes]], label: str
) -> None:
    gate, asked = Gate(), FakeIncoming("POST", "/retell", headers, body)

    refused = await gate.refusal(asked)

    assert refused.status == 401
    assert asked.asked is not None
    assert gate.watch.told == [("auth_failed", label)]


@pytest.mark.parametrize(
    ("body", "ways"),
    [
        (b'{"date":"2026-01-02"}', "token or signature"),
        (b'{"name":"book","args":{},"call":null}', "signature"),
        (b'{"name":"Ana","args":"none"}', "signature"),
        (b'{"event":"wedding","call":{"call_id":"a"}}', "signature"),
        (b'{"event":"call_inbound"}', "signature"),
        (b'{"tool":"book","arguments":{}}', "token"),
        (b'{"tool":"book","arguments":{},"event":"alert_me"}', "both"),
        (b"\x1f\x8b a body that a webhook may unpack", "both"),
        (b"[1]", "both"),
    ],
)
async def test_bare_arguments_that_may_be_another_kind_prove_what_it_must(
    body: bytes, ways: str
) -> None:
    """A webhook has one URL for all kinds, so none may slip in by a tool's own path."""
    passed = []
    for way, proofs in [
        ("token", [bearer()]), ("signature", [signed(body)]), ("both", [bearer(), signed(body)]),
    ]:  # fmt: skip
        with contextlib.suppress(Refused):
            await Gate().pass_through(FakeIncoming("POST", "/retell/fn/book", proofs, body))
            passed.append(way)

    assert passed == [way for way in ("token", "signature") if way in ways] + ["both"]


@pytest.mark.row("A1")
async def test_every_401_reads_the_same() -> None:
    """What was wrong is for the operator's metrics, not for the guesser."""
    gate = Gate()
    wrongs = [[], [bearer(b"wrong")], [bearer(TOKEN[:-1])], [bearer(), bearer()], [bearer(b"")]]

    replies = [
        gate.edge.refuse(await gate.refusal(FakeIncoming("POST", "/mcp", wrong, RPC)), "id")
        for wrong in wrongs
    ]

    assert all(reply == replies[0] for reply in replies)


@pytest.mark.parametrize(
    ("require", "challenge"),
    [(SHIPPED, "Bearer"), ({Kind.EVENT: signature}, "")],
    ids=["a token would do", "only a signature would do"],
)
async def test_a_401_names_the_scheme_that_would_do(
    require: Mapping[Kind, Requirement], challenge: str
) -> None:
    gate = Gate(EdgeRules(policy(require)))

    refused = await gate.refusal(FakeIncoming("POST", "/retell", [], EVENT))

    assert refused.challenge == challenge


async def test_a_call_learns_whether_retell_signed_it() -> None:
    gate = Gate(EdgeRules(policy({})))
    for proof, expected in [(signed(EVENT), True), (signed(EVENT, key=b"x"), False)]:
        asked = FakeIncoming("POST", "/retell", [proof], EVENT)
        visit = gate.edge.screen(asked, 0.0)
        call = Call(Kind.EVENT, visit.head, EVENT)
        gate.edge.authorise(call, visit, WALL)

        assert call.signed is expected


async def test_without_rules_nobody_is_asked_for_anything() -> None:
    gate = Gate(EdgeRules(policy({})))

    for target, body in [("/retell", EVENT), ("/mcp", RPC), ("/retell", UNKNOWN)]:
        visit = await gate.pass_through(FakeIncoming("POST", target, [], body))

        assert visit.credential == ""


@pytest.mark.row("A5")
async def test_a_signature_that_was_here_before_is_counted() -> None:
    """It may be Retell's own retry, so it may pass: a write does not run again for it."""
    gate, asked = Gate(), FakeIncoming("POST", "/retell", [signed(EVENT)], EVENT)

    for _ in range(3):
        await gate.pass_through(asked)

    assert gate.watch.told == [("signature_repeated", "event")] * 2


@pytest.mark.row("A5")
async def test_a_signature_that_was_here_before_is_refused_where_the_rules_say_so() -> None:
    gate = Gate(EdgeRules(policy(), once_only=True, address_limit=Limit(1)))
    asked = FakeIncoming("POST", "/retell", [signed(EVENT)], EVENT)
    await gate.pass_through(asked)

    refused = [await gate.refusal(asked) for _ in range(2)]
    await gate.pass_through(FakeIncoming("POST", "/retell", [signed(EVENT, ms=WALL + 1)], EVENT))

    assert [one.status for one in refused] == [401, 429]  # It proves nothing any more.
    assert gate.watch.told.count(("auth_failed", "replayed")) == 2


async def test_what_shares_a_moment_but_no_target_is_no_repeat() -> None:
    """Without a body a signature covers the time alone."""
    gate = Gate(EdgeRules(policy(), once_only=True))
    for target in ("/retell/fn/t?call_id=a", "/retell/fn/t?call_id=b", "/retell/fn/u?call_id=a"):
        await gate.pass_through(FakeIncoming("GET", target, [signed(b"")]))
    again = FakeIncoming("GET", "/retell/fn/t?call_id=a", [signed(b"")])

    assert (await gate.refusal(again)).status == 401


@pytest.mark.row("A5")
@pytest.mark.parametrize("why", ["the tool's limit", "shedding"])
async def test_who_is_told_to_come_again_may_come_as_he_is(why: str) -> None:
    """It ran nowhere, and Retell may sign its retry alike."""
    rules = EdgeRules(policy(), once_only=True, tool_limit=Limit(1, burst=1.0), in_flight=5)
    gate, again = Gate(rules), FakeIncoming("POST", "/retell", [signed(FUNCTION)], FUNCTION)
    other = FakeIncoming("POST", "/retell", [signed(FUNCTION + b" ")], FUNCTION + b" ")
    now = 1000.0
    if why == "shedding":
        gate.inflight = 50
    else:
        await gate.pass_through(other)

    refused = [(await gate.refusal(again, now)).status for _ in range(3)]
    gate.inflight = 1
    await gate.pass_through(again, now + 61)

    assert refused == [503 if why == "shedding" else 429] * 3
    assert (await gate.refusal(again, now + 200)).status == 401


async def test_a_repeat_that_is_told_to_come_again_is_a_repeat_still() -> None:
    """Its first has been let through: that is not forgotten."""
    gate, asked = Gate(limited(tools=Limit(1))), FakeIncoming(
        "POST", "/retell", [signed(FUNCTION)], FUNCTION
    )  # fmt: skip
    await gate.pass_through(asked)
    for _ in range(2):
        await gate.refusal(asked)

    assert gate.watch.told.count(("signature_repeated", "function")) == 2


async def test_only_a_request_that_passes_is_remembered() -> None:
    """Or whoever saw a signature could make Retell's own request the repeat."""
    both = Requirement.all_of(["token", "signature"])
    gate = Gate(EdgeRules(policy({Kind.EVENT: both}), once_only=True))
    await gate.refusal(FakeIncoming("POST", "/retell", [signed(EVENT)], EVENT))

    await gate.pass_through(FakeIncoming("POST", "/retell", [signed(EVENT), bearer()], EVENT))


@pytest.mark.row("A5")
@pytest.mark.parametrize("tolerance", [300_000, 600_000, 100_000])
async def test_a_reload_remembers_what_was_here_whatever_the_tolerance(tolerance: int) -> None:
    before, asked = Gate(), FakeIncoming("POST", "/retell", [signed(EVENT)], EVENT)
    await before.pass_through(asked)
    credentials = Credentials((TOKEN,), (KEY,))
    rules = EdgeRules(AuthPolicy(SHIPPED, credentials, tolerance_ms=tolerance))
    after = Gate(rules, before=before.edge)

    await after.pass_through(asked)

    assert after.watch.told


# --- from where --------------------------------------------------------------------------------

OFFICE = Networks.of(["198.51.100.0/24", "2001:db8::/32"])


@pytest.mark.parametrize(
    ("peer", "status"),
    [
        ("198.51.100.7", None),
        ("::ffff:198.51.100.7", None),
        ("2001:db8::1", None),
        ("2001:db8::1%eth0", None),
        ("192.0.2.1", 403),
        ("::ffff:192.0.2.1", 403),
        ("198.51.101.1", 403),
        ("", 403),
        ("unknown", 403),
    ],
)
@pytest.mark.row("A7")
async def test_an_address_outside_the_list_is_refused_before_anything_is_read(
    peer: str, status: int | None
) -> None:
    gate = Gate(EdgeRules(policy(), allow=OFFICE))
    asked = FakeIncoming("POST", "/mcp", [bearer()], RPC, peer=peer)

    if status is None:
        assert (await gate.pass_through(asked)).credential
    else:
        refused = await gate.refusal(asked)
        assert (refused.status, refused.code, refused.close) == (403, "address_not_allowed", True)
        assert asked.asked is None


@pytest.mark.parametrize(
    ("trusted", "forwarded", "status"),
    [
        (NOWHERE, b"198.51.100.7", 403),
        (Networks.of(["192.0.2.1"]), b"198.51.100.7", None),
        (Networks.of(["192.0.2.1"]), b"198.51.100.7, 203.0.113.9", 403),
        (Networks.of(["192.0.2.1"]), b"203.0.113.9, 198.51.100.7", None),
    ],
)
async def test_the_list_is_asked_for_the_client_not_for_who_says_so(
    trusted: Networks, forwarded: bytes, status: int | None
) -> None:
    gate = Gate(EdgeRules(policy(), allow=OFFICE, trusted=trusted))
    asked = FakeIncoming("POST", "/mcp", [bearer(), (b"X-Forwarded-For", forwarded)], RPC)

    if status is None:
        assert (await gate.pass_through(asked)).head.peer == "198.51.100.7"
    else:
        assert (await gate.refusal(asked)).status == status


# --- from which page ---------------------------------------------------------------------------

EVIL = (b"Origin", b"https://evil.example")


@pytest.mark.parametrize(
    ("method", "target", "body", "read"),
    [
        ("POST", "/mcp", RPC, False),
        ("POST", "/mcp/call_0001", RPC, False),
        ("GET", "/mcp", b"", False),
        ("DELETE", "/mcp/call_0001", b"", False),
        ("POST", "/retell", RPC, True),
        ("POST", "/api/mcp/retell/tools", RPC, True),
    ],
)
@pytest.mark.parametrize(
    "origin", [[EVIL], [(b"Origin", b"null")], [(b"Origin", b"http://localhost")] * 2]
)
async def test_mcp_is_not_spoken_to_any_web_page(
    method: str, target: str, body: bytes, read: bool, origin: list[tuple[bytes, bytes]]
) -> None:
    gate, asked = Gate(), FakeIncoming(method, target, [bearer(), *origin], body)

    refused = await gate.refusal(asked)

    assert (refused.status, refused.code, refused.rpc_code) == (403, "origin_not_allowed", -32600)
    assert refused.rpc_id == (b"1" if read else b"")
    assert (asked.asked is not None) is read


@pytest.mark.parametrize(
    ("origins", "origin", "passes"),
    [
        (["loopback"], b"http://localhost:3000", True),
        (["https://console.example"], b"https://console.example", True),
        (["https://console.example"], b"http://localhost:3000", False),
        (["*"], b"https://evil.example", True),
        ([], b"http://localhost", False),
    ],
)
async def test_the_rules_say_whose_pages_may_ask(
    origins: list[str], origin: bytes, passes: bool
) -> None:
    gate = Gate(EdgeRules(policy(), origins=Origins(origins)))
    asked = FakeIncoming("POST", "/mcp", [bearer(), (b"Origin", origin)], RPC)

    assert (await gate.admitted(asked, 1) if passes else (await gate.refusal(asked)).status) == (
        1 if passes else 403
    )


@pytest.mark.parametrize(
    ("target", "body", "proof"),
    [
        ("/retell", EVENT, signed(EVENT)),
        ("/retell", FUNCTION, signed(FUNCTION)),
        ("/api/mcp/retell/tools", b'{"tool":"t"}', bearer()),
    ],
)
async def test_only_mcp_asks_for_an_origin(
    target: str, body: bytes, proof: tuple[bytes, bytes]
) -> None:
    await Gate().pass_through(FakeIncoming("POST", target, [proof, EVIL], body))


# --- which requests ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target", "status", "allow"),
    [
        ("GET", "/", 404, ""),
        ("POST", "/retell/", 404, ""),
        ("POST", "/RETELL", 404, ""),
        ("POST", "/metrics", 404, ""),
        ("GET", "/api/mcp/retell/tools", 405, "POST"),
        ("PUT", "/mcp", 405, "POST, GET, DELETE"),
        ("POST", "/api/mcp/retell/health", 405, "GET, HEAD"),
        ("TRACE", "/retell", 405, "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
        ("BREW", "/retell", 501, ""),
        ("POST", "http://evil.example/retell", 421, ""),
        ("POST", "/retell#x", 400, ""),
        ("OPTIONS", "*", 204, ""),
    ],
)
async def test_what_is_no_request_for_us_is_answered_here(
    method: str, target: str, status: int, allow: str
) -> None:
    asked = FakeIncoming(method, target, [bearer()], b"")

    refused = await Gate().refusal(asked)

    assert (refused.status, refused.allow) == (status, allow)
    assert asked.asked is None


async def test_our_own_authority_in_absolute_form_is_routed_by_its_path() -> None:
    asked = FakeIncoming("POST", "http://retell.example/mcp/call_7?x=1", [bearer()], RPC)

    visit = await Gate().pass_through(asked)

    assert visit.route is not None
    assert (visit.route.call_id, visit.head.target) == ("call_7", "/mcp/call_7?x=1")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_health_is_public(method: str) -> None:
    visit = await Gate().pass_through(FakeIncoming(method, "/api/mcp/retell/health"))

    assert visit.route is not None


# --- how large ---------------------------------------------------------------------------------


async def test_a_declared_size_over_the_limit_is_refused_from_the_head() -> None:
    gate, asked = Gate(), FakeIncoming("POST", "/mcp", [bearer()], b"x" * (10 * 2**20 + 1))

    refused = await gate.refusal(asked)

    assert (refused.status, refused.code, refused.close) == (413, "body_too_large", True)
    assert asked.asked is None


async def test_exactly_the_limit_is_read_whole() -> None:
    asked = FakeIncoming("POST", "/retell", [signed(EVENT)], EVENT)
    gate = Gate(EdgeRules(policy(), body_limit=len(EVENT)))

    await gate.pass_through(asked)

    assert asked.asked is not None


async def test_a_chunked_body_is_bounded_while_it_is_read() -> None:
    asked = FakeIncoming("POST", "/mcp", [bearer()], b"x" * 101, chunked=True)
    gate = Gate(EdgeRules(policy(), body_limit=100, body_timeout=7.0))

    refused = await gate.refusal(asked, now=50.0)

    assert refused.status == 413
    assert asked.asked == (100, 57.0)


async def test_a_caller_who_hangs_up_is_no_refusal() -> None:
    asked = FakeIncoming("POST", "/mcp", [bearer()], RPC)
    asked.gone = True

    with pytest.raises(ClientGone):
        await Gate().pass_through(asked)


# --- how many ----------------------------------------------------------------------------------


def limited(
    *,
    tools: Limit | None = None,
    addresses: Limit | None = None,
    require: Mapping[Kind, Requirement] = SHIPPED,
    **more: Any,
) -> EdgeRules:
    return EdgeRules(policy(require), tool_limit=tools, address_limit=addresses, **more)


async def test_exactly_the_limit_of_a_tool_is_admitted() -> None:
    gate = Gate(limited(tools=Limit(100, burst=1)))
    asked = FakeIncoming("POST", "/mcp", [bearer()], RPC)

    assert await gate.admitted(asked, 250) == 100
    assert await gate.admitted(asked, 250, now=1000.6) == 1
    assert gate.watch.told == [("rate_limited", "tool")] * 399


async def test_a_limited_caller_is_told_when_to_come_back() -> None:
    gate = Gate(limited(tools=Limit(1, burst=2)))
    asked = FakeIncoming("POST", "/mcp", [bearer()], RPC)
    await gate.admitted(asked, 2)

    refused = await gate.refusal(asked, now=1000.5)

    assert (refused.status, refused.code, refused.retry_after) == (429, "tool_limit", 60)


async def test_every_credential_and_every_tool_has_its_own_limit() -> None:
    gate = Gate(limited(tools=Limit(1)))
    other = RPC.replace(b"book_appointment", b"get_slots")

    for proof, body in [(bearer(), RPC), (bearer(BACKUP), RPC), (bearer(), other)]:
        assert await gate.admitted(FakeIncoming("POST", "/mcp", [proof], body), 3) == 1


async def test_one_tool_has_one_limit_over_all_its_languages() -> None:
    gate = Gate(limited(tools=Limit(1)))
    guide = b'{"tool":"book_appointment","arguments":{}}'

    assert await gate.admitted(FakeIncoming("POST", "/mcp", [bearer()], RPC), 1) == 1
    asked = FakeIncoming("POST", "/api/mcp/retell/tools", [bearer()], guide)
    assert await gate.admitted(asked, 5) == 0


async def test_without_a_credential_each_address_has_its_own_limit_per_tool() -> None:
    gate = Gate(limited(tools=Limit(1), require={}))

    for peer in ("192.0.2.1", "192.0.2.2"):
        assert await gate.admitted(FakeIncoming("POST", "/mcp", [], RPC, peer=peer), 5) == 1


@pytest.mark.parametrize(
    ("target", "body", "proof"),
    [("/retell", EVENT, signed(EVENT)), ("/mcp", LISTING, bearer())],
)
async def test_what_calls_no_tool_has_no_tool_limit(
    target: str, body: bytes, proof: tuple[bytes, bytes]
) -> None:
    gate = Gate(limited(tools=Limit(1)))

    assert await gate.admitted(FakeIncoming("POST", target, [proof], body), 20) == 20


async def test_a_valid_credential_is_never_refused_for_its_address() -> None:
    """All of Retell calls from one address, which may be shared with an attacker."""
    gate = Gate(limited(addresses=Limit(5)))
    stranger = FakeIncoming("POST", "/mcp", [bearer(b"wrong")], RPC)
    for _ in range(50):
        await gate.refusal(stranger)
    assert (await gate.refusal(stranger)).status == 429

    assert await gate.admitted(FakeIncoming("POST", "/mcp", [bearer()], RPC), 100) == 100
    event = FakeIncoming("POST", "/retell", [signed(EVENT)], EVENT)
    assert await gate.admitted(event, 100) == 100


@pytest.mark.parametrize(
    ("target", "headers", "body"),
    [
        ("/mcp", [], RPC),
        ("/mcp", [bearer(b"wrong")], RPC),
        ("/mcp", [signed(RPC)], RPC),
        ("/retell", [signed(EVENT, key=b"forged")], EVENT),
        ("/retell", [signed(EVENT, ms=WALL - 10**6)], EVENT),
        ("/nothing", [], b""),
        ("/retell#", [], b""),
        ("/nothing", [signed(b"", key=b"forged")], b""),
        ("/retell#", [signed(b"", key=b"forged")], b""),
    ],
)
async def test_without_a_valid_credential_an_address_has_exactly_its_limit(
    target: str, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    gate = Gate(limited(addresses=Limit(20)))
    asked = FakeIncoming("POST", target, headers, body)

    statuses = [(await gate.refusal(asked)).status for _ in range(60)]

    assert 429 not in statuses[:20]
    assert statuses[20:] == [429] * 40
    refused = await gate.refusal(asked)
    assert (refused.code, refused.retry_after) == ("ip_limit", 3)
    assert ("rate_limited", "ip") in gate.watch.told


@pytest.mark.parametrize(
    ("method", "target", "headers", "body", "require"),
    [
        ("POST", "/retell", [], EVENT, {}),
        ("POST", "/retell", [signed(EVENT, key=b"forged")], EVENT, {}),
        ("GET", "/api/mcp/retell/health", [], b"", SHIPPED),
        ("GET", "/api/mcp/retell/health", [signed(b"", key=b"forged")], b"", SHIPPED),
        ("GET", "/login", [], b"", SHIPPED),
        ("GET", "/login", [signed(b"", key=b"forged")], b"", SHIPPED),
    ],
)
async def test_where_nothing_is_required_an_address_has_its_limit_all_the_same(
    method: str,
    target: str,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    require: Mapping[Kind, Requirement],
) -> None:
    gate = Gate(limited(addresses=Limit(20), require=require, passthrough=True))

    assert await gate.admitted(FakeIncoming(method, target, headers, body), 50) == 20


async def test_a_token_lifts_the_address_limit_from_open_paths_too() -> None:
    gate = Gate(limited(addresses=Limit(5), passthrough=True))

    assert await gate.admitted(FakeIncoming("GET", "/login", [bearer()]), 50) == 50


async def test_a_signature_lifts_it_where_nobody_asks_for_one() -> None:
    """An agent may call other paths of the app: signed, all from Retell's one address."""
    gate = Gate(limited(addresses=Limit(5), passthrough=True))
    live = FakeIncoming("POST", "/app/function", [signed(FUNCTION)], FUNCTION)
    forged = FakeIncoming("POST", "/app/function", [signed(EVENT)], FUNCTION)

    assert await gate.admitted(live, 50) == 50
    assert await gate.admitted(forged, 50) == 5
    assert await gate.admitted(live, 50) == 50


@pytest.mark.row("L11")
@pytest.mark.parametrize(("edge", "step"), [(59.9, 0.2), (1.0, 58.0), (30.0, 30.0)])
async def test_exactly_a_minutes_worth_is_admitted_around_any_edge(
    edge: float, step: float
) -> None:
    """Burst 1: 100 of a tool and 200 of an address at once, then what flows in, never 2 x N."""
    tools, addresses = Limit(100, burst=1), Limit(200, burst=1)
    gate = Gate(limited(tools=tools, addresses=addresses))
    call = FakeIncoming("POST", "/mcp", [bearer()], RPC)
    stranger = FakeIncoming("POST", "/mcp", [], RPC, peer="198.51.100.7")

    async def refused_401(now: float) -> int:
        return [(await gate.refusal(stranger, now)).status for _ in range(250)].count(401)

    first = await gate.admitted(call, 150, edge), await refused_401(edge)
    more = await gate.admitted(call, 150, edge + step), await refused_401(edge + step)

    assert first == (100, 200)
    assert more == (int(step * 100 / 60), int(step * 200 / 60))


@pytest.mark.row("L12")
async def test_a_hundred_thousand_made_up_addresses_and_tools_stay_within_bounds() -> None:
    gate = Gate(limited(tools=Limit(100), addresses=Limit(200), require={}))
    for number in range(100_000):
        now = 1000.0 + number / 1e5
        peer = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        visit = gate.edge.screen(FakeIncoming("POST", "/mcp", [], b"", peer=peer), now)
        call = Call(Kind.MCP, visit.head, tool=f"made-up-{number}")
        gate.edge.authorise(call, visit, WALL)
        gate.edge.meter(call, visit, now)

    assert len(gate.edge._by_address or ()) <= 65_536
    assert len(gate.edge._by_tool or ()) <= 65_536


@pytest.mark.parametrize(
    ("target", "headers", "body"),
    [
        ("/retell", [bearer()], EVENT),
        ("/retell", [signed(RPC)], RPC),
        ("/nothing", [bearer()], b""),
    ],
)
async def test_the_wrong_one_of_our_credentials_is_refused_but_no_guess(
    target: str, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    gate = Gate(limited(addresses=Limit(5)))
    asked = FakeIncoming("POST", target, headers, body)

    assert 429 not in [(await gate.refusal(asked)).status for _ in range(20)]


async def test_addresses_do_not_pay_for_each_other() -> None:
    gate = Gate(limited(addresses=Limit(1), require={}))

    assert await gate.admitted(FakeIncoming(body=EVENT, peer="192.0.2.1"), 9) == 1
    assert await gate.admitted(FakeIncoming(body=EVENT, peer="192.0.2.2"), 9) == 1
    assert await gate.admitted(FakeIncoming(body=EVENT, peer="2001:db8::1"), 9) == 1
    assert await gate.admitted(FakeIncoming(body=EVENT, peer="2001:db8::2"), 9) == 0


async def test_callers_over_a_unix_socket_have_no_address_to_count() -> None:
    gate = Gate(limited(addresses=Limit(1), require={}))

    assert await gate.admitted(FakeIncoming(body=EVENT, peer=""), 9) == 9


async def test_a_limit_remembers_across_a_reload_that_leaves_it_alone() -> None:
    rules = limited(tools=Limit(3), addresses=Limit(3), require={})
    asked = FakeIncoming("POST", "/mcp", [], RPC)
    before = Gate(rules)
    await before.admitted(asked, 3)

    same = Gate(limited(tools=Limit(3), addresses=Limit(3), require={}), before=before.edge)
    other = Gate(limited(tools=Limit(4), addresses=Limit(4), require={}), before=before.edge)
    without = Gate(limited(require={}), before=before.edge)
    again = Gate(rules, before=without.edge)

    assert await same.admitted(asked, 9) == 0
    assert await other.admitted(asked, 9) == 4
    assert await without.admitted(asked, 9) == 9
    assert await again.admitted(asked, 9) == 3


# --- what is too much, and what goes in circles ------------------------------------------------


OPEN = AuthPolicy({}, Credentials((), ()))


@pytest.mark.parametrize(
    ("inflight", "lag", "event", "function"),
    [
        (8, 0.0, None, None),
        (9, 0.0, "in_flight", None),
        (11, 0.0, "in_flight", "in_flight"),
        (1, 0.3, "lag", None),
        (1, 0.5, "lag", "lag"),
    ],
)
async def test_what_is_too_much_gives_way_events_first(
    inflight: int, lag: float, event: str | None, function: str | None
) -> None:
    gate = Gate(EdgeRules(OPEN, in_flight=10, max_lag=0.2))
    gate.inflight, gate.lag = inflight, lag
    for body, why, kind in ((EVENT, event, Kind.EVENT), (FUNCTION, function, Kind.FUNCTION)):
        gate.watch.told.clear()
        asked = FakeIncoming(body=body)
        if why is None:
            await gate.pass_through(asked)
            assert gate.watch.told == []
        else:
            refused = await gate.refusal(asked)
            assert (refused.status, refused.code) == (503, "overloaded")
            assert refused.retry_after == 5
            assert not refused.close
            assert gate.watch.told == [("shed", (why, kind))]


async def test_what_is_shed_does_not_count_against_its_limit() -> None:
    gate = Gate(EdgeRules(OPEN, tool_limit=Limit(1, 1), in_flight=10))
    gate.inflight = 11
    for _ in range(5):
        assert (await gate.refusal(FakeIncoming(body=FUNCTION))).status == 503
    gate.inflight = 1

    assert await gate.admitted(FakeIncoming(body=FUNCTION), 5) == 1


def test_a_path_that_is_not_ours_gives_way_as_well() -> None:
    gate = Gate(EdgeRules(OPEN, in_flight=10))
    gate.inflight = 9
    with pytest.raises(Refused, match="Too much"):
        gate.edge.shed(Kind.PASSTHROUGH)


@pytest.mark.parametrize("target", ["/retell", "/mcp", "/api/mcp/retell/health", "/else"])
async def test_what_came_here_before_is_refused_before_its_body_is_read(target: str) -> None:
    rules = EdgeRules(OPEN, hops=2, passthrough=True)
    method = "GET" if "health" in target else "POST"

    def asked(hops: bytes) -> FakeIncoming:
        return FakeIncoming(method, target, [(b"X-Callsplit-Hops", hops)], body=FUNCTION)

    Gate(rules).edge.screen(asked(b"1"), 1000.0)
    with pytest.raises(Refused) as refused:
        Gate(rules).edge.screen(asked(b"2"), 1000.0)

    assert (refused.value.status, refused.value.code) == (508, "loop_detected")


def test_our_own_request_is_known_the_first_time_it_comes_back() -> None:
    edge = Edge(EdgeRules(OPEN), FakeWatch(), own=b"0123456789abcdef")

    edge.screen(FakeIncoming(headers=[(b"x-callsplit-instance", b"another")]), 1000.0)
    with pytest.raises(Refused) as refused:
        edge.screen(FakeIncoming(headers=[(b"x-callsplit-instance", b"0123456789abcdef")]), 1000.0)

    assert (refused.value.status, refused.value.code) == (508, "loop_detected")


# --- paths that are not ours -------------------------------------------------------------------


async def test_other_paths_pass_only_where_the_rules_say_so() -> None:
    asked = FakeIncoming("GET", "/login?next=%2F")

    assert (await Gate().refusal(asked)).status == 404
    visit = await Gate(EdgeRules(policy(), passthrough=True)).pass_through(asked)
    assert visit.route is None
    assert (visit.head.path, visit.head.query) == ("/login", "next=%2F")


@pytest.mark.parametrize(
    "target",
    [
        "/retell/",
        "/RETELL",
        "/x/../retell",
        "/%72etell",
        "//mcp",
        "/mcp/",
        "/app/hook",
        "/APP/hook",
    ],
)
async def test_a_path_that_looks_like_one_of_ours_or_an_arms_never_passes(target: str) -> None:
    rules = EdgeRules(policy(), passthrough=True, backend_paths=("/app/hook",))

    assert (await Gate(rules).refusal(FakeIncoming("POST", target))).status == 404


# --- forcing an arm ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "forced", "told"),
    [
        (b"webhook s3cret", "webhook", []),
        (b"webhook wrong", None, [("auth_failed", "wrong")]),
        (b"webhook", None, [("auth_failed", "wrong")]),
        (None, None, []),
    ],
)
async def test_a_holder_of_the_token_forces_an_arm_and_no_arm_sees_it(
    value: bytes | None, forced: str | None, told: list[tuple[str, str]]
) -> None:
    gate = Gate(EdgeRules(policy(), force=Force(b"x-force", b"s3cret")))
    extra = [] if value is None else [(b"X-Force", value)]

    visit = await gate.pass_through(FakeIncoming("POST", "/mcp", [bearer(), *extra], RPC))

    assert visit.forced == forced
    assert gate.watch.told == told
    assert not [name for name, _ in visit.head.end_to_end if name.lower() == b"x-force"]


# --- how a refusal reads -----------------------------------------------------------------------


def test_a_refusal_is_short_json_with_a_request_id() -> None:
    reply = Gate().edge.refuse(Refused(400, "bad_header", "A header is bad."), "req-7")

    assert reply.status == 400
    assert reply.headers == [(b"content-type", b"application/json")]
    assert isinstance(reply.body, bytes)
    assert json.loads(reply.body) == {
        "error": {"code": "bad_header", "message": "A header is bad.", "request_id": "req-7"}
    }
    assert not reply.close


BIG = b"x" * 101


@pytest.mark.parametrize(
    ("asked", "rules", "status", "code", "rpc_id"),
    [
        (FakeIncoming("POST", "/mcp", [], RPC), {}, 401, -32600, None),
        (FakeIncoming("POST", "/mcp/a?x=1", [], RPC), {}, 401, -32600, None),
        (FakeIncoming("POST", "/mcp/", [bearer()], RPC), {}, 404, -32600, None),
        (FakeIncoming("PUT", "/mcp", [bearer()], RPC), {}, 405, -32600, None),
        (FakeIncoming("POST", "/mcp", [bearer()], BIG), {}, 413, -32600, None),
        (FakeIncoming("POST", "/mcp", [bearer()], BIG, chunked=True), {}, 413, -32600, None),
        (FakeIncoming("POST", "/mcp", [bearer()], RPC), {"allow": OFFICE}, 403, -32600, None),
        (FakeIncoming("POST", "/mcp", [bearer()], b"{"), {}, 400, -32700, None),
        (FakeIncoming("POST", "/mcp", [bearer()], RPC), {"in_flight": 10}, 503, -32603, 1),
        (
            FakeIncoming("POST", "/mcp", [bearer()], RPC),
            {"tool_limit": Limit(1, 1)},
            429,
            -32600,
            1,
        ),
        (FakeIncoming("POST", "/mcp", [], RPC), {"address_limit": Limit(1, 1)}, 429, -32600, None),
        (FakeIncoming("POST", "/retell", [signed(RPC)], RPC), {}, 401, -32600, 1),
        (FakeIncoming("POST", "/api/mcp/retell/tools", [bearer()], b"{"), {}, 400, None, None),
        (FakeIncoming("POST", "/retell", [bearer()], EVENT), {}, 401, None, None),
        (FakeIncoming("POST", "/retell", [], RPC), {}, 401, None, None),
    ],
)
async def test_a_refusal_of_mcp_is_a_json_rpc_error_with_what_is_known_of_its_id(
    asked: FakeIncoming, rules: dict[str, Any], status: int, code: int | None, rpc_id: int | None
) -> None:
    gate = Gate(EdgeRules(policy(), **{"body_limit": 100, **rules}))
    gate.inflight = 11
    if "address_limit" in rules or "tool_limit" in rules:
        with contextlib.suppress(Refused):
            await gate.pass_through(asked)
    refused = await gate.refusal(asked)
    reply = gate.edge.refuse(refused, "req-7")

    assert reply.status == status
    assert isinstance(reply.body, bytes)
    told = json.loads(reply.body)
    if code is None:
        assert told["error"]["code"] == refused.code
        return
    assert told == {
        "jsonrpc": "2.0",
        **({} if rpc_id is None else {"id": rpc_id}),
        "error": {
            "code": code,
            "message": refused.message,
            "data": {"code": refused.code, "request_id": "req-7"},
        },
    }


@pytest.mark.parametrize(
    ("refused", "header"),
    [
        (Refused(429, "c", "m", retry_after=7), (b"retry-after", b"7")),
        (Refused(503, "c", "m", retry_after=0), (b"retry-after", b"0")),
        (Refused(405, "c", "m", allow="GET, HEAD"), (b"allow", b"GET, HEAD")),
        (Refused(401, "c", "m", challenge="Bearer"), (b"www-authenticate", b"Bearer")),
    ],
)
def test_a_refusal_carries_the_header_that_helps(
    refused: Refused, header: tuple[bytes, bytes]
) -> None:
    assert header in Gate().edge.refuse(refused, "id").headers


def test_a_doubtful_request_ends_its_connection() -> None:
    assert Gate().edge.refuse(Refused(400, "bad_framing", "m", close=True), "id").close


def test_no_content_has_no_content() -> None:
    reply = Gate().edge.refuse(Refused(204, "options", ""), "id")

    assert (reply.status, reply.headers, reply.body) == (204, [], b"")


@given(
    st.sampled_from(["POST", "GET", "BREW"]),
    st.sampled_from(["/retell", "/mcp", "/mcp/{x}", "/retell/fn/{x}", "/{x}", "{x}"]),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20),
    st.lists(st.sampled_from([b"Authorization", b"X-Retell-Signature", b"X-Call-ID", b"X-Y"])),
    st.binary(max_size=60),
)
async def test_no_request_whatever_is_echoed_or_breaks_the_edge(
    method: str, target: str, x: str, names: list[bytes], value: bytes
) -> None:
    marked = b"mArKeR" + value
    asked = FakeIncoming(
        method, target.replace("{x}", "mArKeR" + x), [(name, marked) for name in names], marked
    )
    gate = Gate(limited(tools=Limit(1), addresses=Limit(1), passthrough=True))
    try:
        await gate.pass_through(asked)
    except Refused as refused:
        reply = gate.edge.refuse(refused, "id")
        assert b"mArKeR" not in b"".join([reply.body, *(v for _, v in reply.headers)])  # type: ignore[list-item]
