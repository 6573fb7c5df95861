"""Who may ask, and how much?  What is turned away here never reaches an arm.

Along a request's path: `screen` the head, read the `body`, `authorise` the call, `meter` it.
What they raise, `refuse` shapes.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import TypeAlias

import orjson
from msgspec import Struct

from proxy.core.addresses import NOWHERE, Networks
from proxy.core.auth import AuthPolicy, Failure, Presented
from proxy.core.force import Force
from proxy.core.guard import check_json, check_length, check_request
from proxy.core.head import drop, read_head
from proxy.core.hops import check_hops
from proxy.core.limits import Gcra, Limit, neighbourhood
from proxy.core.mcp.refusal import is_rpc, refusal_body, to_rpc
from proxy.core.model import Call, Form, Head, Headers, Kind, Reply
from proxy.core.origins import LOOPBACK_PAGES, Origins
from proxy.core.routes import Route, RouteId, check_method, is_ours_in_disguise, match
from proxy.core.seen_signatures import SeenSignatures
from proxy.core.shedding import RETRY_AFTER, TOO_MUCH, Shedder
from proxy.errors import Refused
from proxy.ports import Incoming, Watch

_NO_KINDS: frozenset[Kind] = frozenset()

# Bound once: reading a member of an enumeration is slow in Python 3.11.
_MCP, _MCP_PATH, _REQUEST = Kind.MCP, RouteId.MCP, Form.REQUEST
_READ = frozenset({RouteId.MCP, RouteId.TOOLS})  # paths on which no body goes on unread

Load: TypeAlias = Callable[[], tuple[int, float]]
"""How many exchanges are in flight, and by how many seconds the event loop lags."""


@dataclass(frozen=True, slots=True)
class EdgeRules:
    """What the rules say of callers, compiled.  A limit that is None does not bind."""

    auth: AuthPolicy
    allow: Networks = NOWHERE  # nowhere: any address may ask
    trusted: Networks = NOWHERE  # proxies whose X-Forwarded-* is believed
    body_limit: int = 10 * 2**20
    body_timeout: float = 30.0
    tool_limit: Limit | None = None  # per credential and tool
    address_limit: Limit | None = None  # per address, without a valid credential
    in_flight: int | None = None  # exchanges at a time
    max_lag: float | None = None  # seconds
    hops: int = 3  # sidecars that a request may have passed
    force: Force | None = None
    once_only: bool = False  # a signature that has been here before is refused
    origins: Origins = LOOPBACK_PAGES  # of web pages whose MCP is answered
    passthrough: bool = False  # paths that are not ours are somebody's
    backend_paths: Collection[str] = ()  # where backends are called: never reached directly


class Visit(Struct, gc=False):
    """What the edge knows of one request.

    `route` None: a path that is not ours, to be passed through.  `credential` names what the
    request proved itself by, "" if by nothing (yet).
    """

    head: Head
    presented: Presented
    arrived: float
    route: Route | None = None
    kinds: frozenset[Kind] = _NO_KINDS  # what its path takes; none: nothing to authorise
    forced: str | None = None  # the arm that a holder of the force token named
    credential: str = ""
    counted: bool = False  # against its address
    new: bool = False  # its signature, which holds, had not been here before


class Edge:
    """One rule set's edge; `previous` hands on what its limits remember, where they stay.

    `own` is the word by which this process knows its own requests (`core.hops`).
    """

    def __init__(
        self,
        rules: EdgeRules,
        watch: Watch,
        previous: Edge | None = None,
        *,
        load: Load = lambda: (0, 0.0),
        own: bytes = b"",
    ) -> None:
        self._rules = rules
        self._watch = watch
        self._allow = rules.allow or None
        tool_before = previous._by_tool if previous is not None else None
        address_before = previous._by_address if previous is not None else None
        self._by_tool: Gcra | None = _limiter(rules.tool_limit, tool_before)
        self._by_address: Gcra | None = _limiter(rules.address_limit, address_before)
        self._seen: SeenSignatures = previous._seen if previous is not None else SeenSignatures()
        self._shedder = Shedder(in_flight=rules.in_flight, max_lag=rules.max_lag)
        self._load = load
        self._own = own

    def screen(self, incoming: Incoming, now: float) -> Visit:
        """Judge what is known before the body; raises `Refused`."""
        rules, visit = self._rules, None
        try:
            head = read_head(
                incoming.method,
                incoming.target,
                incoming.headers,
                peer=incoming.peer,
                secure=incoming.secure,
                trusted=rules.trusted,
            )
            if self._allow is not None and head.peer not in self._allow:
                raise Refused(403, "address_not_allowed", "This address may not ask.", close=True)
            visit = Visit(head, rules.auth.present(head), now)
            if not visit.presented.possible:
                self._count_address(visit)
            check_request(head, incoming.version)
            check_hops(head, rules.hops, self._own)
            route = visit.route = self._route(head)
            if route is not None:
                visit.kinds = route.kinds
                if route.id is _MCP_PATH:
                    self._check_origin(head)
            check_length(incoming.declared_length() or 0, rules.body_limit)
            self._check_reach(visit)
            if route is not None and route.id in _READ and head.method == "POST":
                check_json(head)
            if rules.force is not None:
                self._read_force(visit, rules.force)
        except Refused as refused:
            if visit is not None:
                refused = self._turned_away(visit, refused)
            if _is_mcps(incoming.target):
                to_rpc(refused)
            raise refused
        return visit

    def body(self, incoming: Incoming, now: float) -> Awaitable[bytes]:
        """The whole body, as sent; raises `Refused` 413, 408 or 400, or `ClientGone`."""
        rules = self._rules
        reading = incoming.read(rules.body_limit, now + rules.body_timeout)
        return _for_mcp(reading) if incoming.target.startswith("/mcp") else reading

    def authorise(self, call: Call, visit: Visit, wall_ms: int) -> None:
        """Judge a recognised call and set `call.signed`; raises `Refused` 401, or 403 (MCP)."""
        try:
            if call.kind is _MCP:
                self._check_origin(call.head)
            result = self._rules.auth.check(
                call.kind, visit.kinds, visit.presented, call.body, wall_ms
            )
            for kind in call.may_be:
                if result.failure is None:
                    result = self._rules.auth.check(
                        kind, visit.kinds, visit.presented, call.body, wall_ms
                    )
            visit.credential, call.signed = result.credential, result.signed
            if result.failure is not None:
                raise self._unauthorised(visit, result.failure)
            if result.signed:
                self._look_back(call, visit, wall_ms)
            self._count_address(visit)
        except Refused as refused:
            _tell_to(call, refused)
            raise

    def greet(self, visit: Visit, body: bytes, wall_ms: int) -> None:
        """Let pass who need not prove anything; raises `Refused` 429.

        A signature counts here too: Retell may speak to a path that is not ours.
        """
        if visit.presented.stamp is not None:
            kind, auth = Kind.PASSTHROUGH, self._rules.auth
            visit.credential = auth.check(
                kind, _NO_KINDS, visit.presented, body, wall_ms
            ).credential
        self._count_address(visit)

    def shed(self, kind: Kind) -> None:
        """Turn away what is too much for this process; raises `Refused` 503."""
        inflight, lag = self._load()
        reason = self._shedder.check(kind, inflight, lag)
        if reason is not None:
            self._watch.shed(reason, kind)
            raise Refused(503, "overloaded", TOO_MUCH, retry_after=RETRY_AFTER)

    def meter(self, call: Call, visit: Visit, now: float) -> None:
        """Shed, then count a tool's call against who makes it; raises `Refused` 503 or 429."""
        try:
            self.shed(call.kind)
            if self._by_tool is None or call.tool is None:
                return
            who = visit.credential or neighbourhood(visit.head.peer)
            wait = self._by_tool.hit((who, call.tool), now)
            if wait:
                raise self._limited("tool", wait)
        except Refused as refused:
            if visit.new:  # It has run nowhere, and is asked to come again as it is.
                self._seen.forget(*_mark(call, visit))
            _tell_to(call, refused)
            raise

    def refuse(self, refused: Refused, request_id: str) -> Reply:
        """The answer to a request that is turned away; echoes nothing of it but a JSON-RPC ID."""
        headers: Headers = []
        if refused.retry_after is not None:
            headers.append((b"retry-after", b"%d" % refused.retry_after))
        if refused.allow:
            headers.append((b"allow", refused.allow.encode()))
        if refused.challenge:
            headers.append((b"www-authenticate", refused.challenge.encode()))
        if refused.status == 204:
            return Reply(204, headers, close=refused.close)
        headers.append((b"content-type", b"application/json"))
        if is_rpc(refused):
            body = refusal_body(refused, request_id)
        else:
            error = {"code": refused.code, "message": refused.message, "request_id": request_id}
            body = orjson.dumps({"error": error})
        return Reply(refused.status, headers, body, close=refused.close)

    def _route(self, head: Head) -> Route | None:
        route = match(head.path)
        if route is not None:
            check_method(route, head.method)
            return route
        rules = self._rules
        if not rules.passthrough or is_ours_in_disguise(head.path, rules.backend_paths):
            raise Refused(404, "not_found", "There is nothing here.")
        return None

    def _check_origin(self, head: Head) -> None:
        """Refuse what a web page asks for that may not; callers that are no browsers say nothing.

        Source: MCP, Streamable HTTP, security warning (against DNS rebinding).
        """
        value = head.named.get(b"origin")
        if value is None:
            return
        if b"origin" in head.repeated or not self._rules.origins.allow(value):
            raise Refused(403, "origin_not_allowed", "This origin may not ask.")

    def _check_reach(self, visit: Visit) -> None:
        auth, presented, kinds = self._rules.auth, visit.presented, visit.kinds
        if kinds and not auth.could_satisfy(kinds, presented):
            raise self._unauthorised(visit, auth.shortfall(kinds, presented))
        if not kinds and visit.route is not None:  # Ours, and nobody verifies a signature there.
            self._count_address(visit)

    def _look_back(self, call: Call, visit: Visit, wall_ms: int) -> None:
        """Tell of a signature that has been here before; refuse it where the rules say so."""
        digest, target = _mark(call, visit)
        tolerance_ms = self._rules.auth.tolerance_ms
        if not self._seen.again(digest, wall_ms, target, tolerance_ms=tolerance_ms):
            visit.new = True
            return
        self._watch.signature_repeated(call.kind)
        if self._rules.once_only:
            visit.credential = ""  # It proves nothing any more, so it counts against its address.
            raise self._unauthorised(visit, Failure.REPLAYED)

    def _unauthorised(self, visit: Visit, failure: Failure) -> Refused:
        self._watch.auth_failed(failure)
        self._count_address(visit)  # Guessing has its price: 429 comes before 401.
        challenge = "Bearer" if self._rules.auth.wants_token(visit.kinds) else ""
        return Refused(
            401, "unauthorised", "The credentials are missing or wrong.", challenge=challenge
        )

    def _turned_away(self, visit: Visit, refused: Refused) -> Refused:
        """Count who is refused before his signature could be judged: it may be none."""
        try:
            self._count_address(visit)
        except Refused as limited:
            return limited
        return refused

    def _count_address(self, visit: Visit) -> None:
        """Count a request without a valid credential, once; raises `Refused` 429."""
        proven = visit.credential or visit.presented.token >= 0
        if self._by_address is None or proven or visit.counted or not visit.head.peer:
            return
        visit.counted = True
        wait = self._by_address.hit(neighbourhood(visit.head.peer), visit.arrived)
        if wait:
            raise self._limited("ip", wait)

    def _limited(self, scope: str, wait: float) -> Refused:
        self._watch.rate_limited(scope)
        return Refused(
            429, f"{scope}_limit", "Too many requests; later, please.", retry_after=math.ceil(wait)
        )

    def _read_force(self, visit: Visit, force: Force) -> None:
        if force.header in visit.head.named:
            visit.forced = force.arm(visit.head)
            if visit.forced is None:
                self._watch.auth_failed(Failure.WRONG)
        drop(visit.head, force.header)  # It carries a token: no arm may see it.


def _is_mcps(target: str) -> bool:
    """Whether a target, which nobody has judged yet, looks like one of MCP's own paths."""
    path = target.partition("?")[0]
    return path == "/mcp" or path.startswith("/mcp/")


async def _for_mcp(reading: Awaitable[bytes]) -> bytes:
    try:
        return await reading
    except Refused as refused:
        to_rpc(refused)
        raise


def _tell_to(call: Call, refused: Refused) -> None:
    """Shape a refusal for who asked: by JSON-RPC, with the request's own ID."""
    if call.kind is _MCP:
        to_rpc(refused, call.rpc_id if call.form is _REQUEST else None)


def _mark(call: Call, visit: Visit) -> tuple[bytes, str]:
    """What a signature is remembered by: without a body it covers the time alone."""
    stamp, head = visit.presented.stamp, visit.head
    assert stamp is not None
    return stamp[1], "" if call.body else f"{head.method} {head.target}"


def _limiter(limit: Limit | None, before: Gcra | None) -> Gcra | None:
    if limit is None:
        return None
    return before if before is not None and before.limit == limit else Gcra(limit)
