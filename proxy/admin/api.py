"""The pages of the admin listener, and of the read-only one for kubelets and Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from proxy.admin.guard import BODY_LIMIT, GUESS_SECONDS, Refused, guard, problem
from proxy.admin.outbox import OutboxPages
from proxy.admin.page import asked_by, body_of, page
from proxy.admin.ports import Operations

Audit = Callable[[dict[str, Any]], None]


class Pages:
    """One method a page."""

    def __init__(self, operations: Operations, audit: Audit) -> None:
        self._operations = operations
        self._audit = audit

    async def live(self, _: web.Request) -> web.Response:
        return page({"live": True})

    async def ready(self, _: web.Request) -> web.Response:
        reasons = self._operations.unready()
        return page({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    async def metrics(self, request: web.Request) -> web.Response:
        """Rendered in a thread: it takes milliseconds that belong to the calls."""
        accept = request.headers.get(hdrs.ACCEPT, "")
        body, content_type = await asyncio.to_thread(self._operations.metrics, accept)
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})

    async def status(self, _: web.Request) -> web.Response:
        return page(self._operations.status())

    async def config(self, _: web.Request) -> web.Response:
        return page(self._operations.config())

    async def explain(self, request: web.Request) -> web.Response:
        call_id = request.query.get("call_id")
        body = await body_of(request) if request.method == "POST" else None
        if call_id is None and not body:
            return problem(400, "call_id_missing", "Give ?call_id=..., or POST a request's body.")
        try:
            return page(self._operations.explain(call_id, body or None))
        except ValueError as fault:
            return problem(400, "bad_body", str(fault))

    async def breakers(self, _: web.Request) -> web.Response:
        return page(self._operations.breakers())

    async def change_breaker(self, request: web.Request) -> web.Response:
        arm, action = request.match_info["arm"], request.match_info["action"]
        tool = request.query.get("tool", "")
        try:
            change = self._operations.change_breaker(arm, action, tool)
        except KeyError:
            return problem(404, "unknown_arm", "No such breaker; GET /breakers lists them.")
        except ValueError as fault:
            return problem(400, "unknown_action", str(fault))
        what = f"breaker {action} {arm} {tool}".rstrip()
        self._audit({**asked_by(request), "what": what, **change})
        return page(change)

    async def replays(self, request: web.Request) -> web.Response:
        state = request.query.get("state", "held")
        try:
            return page(self._operations.replays(state, request.query.get("call_id")))
        except ValueError as fault:
            return problem(400, "unknown_state", str(fault))

    async def release_replay(self, request: web.Request) -> web.Response:
        record = request.match_info["record"]
        try:
            change = self._operations.release_replay(record)
        except KeyError:
            return problem(404, "unknown_record", "No such record; GET /replays lists them.")
        except ValueError as fault:
            return problem(409, "still_running", str(fault))
        self._audit({**asked_by(request), "what": f"replay release {record}", **change})
        return page(change)


async def _say_nothing_of_us(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.popall(hdrs.SERVER, None)
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")


def _application(guarded: Middleware, routes: list[web.RouteDef]) -> web.Application:
    app = web.Application(middlewares=[guarded], client_max_size=BODY_LIMIT)
    app.on_response_prepare.append(_say_nothing_of_us)
    app.add_routes(routes)
    return app


def _observed(pages: Pages) -> list[web.RouteDef]:
    return [
        web.get("/live", pages.live),
        web.get("/ready", pages.ready),
        web.get("/metrics", pages.metrics),
    ]


def observe_application(operations: Operations) -> web.Application:
    """Read-only: /live, /ready, /metrics; nothing there needs a token."""
    return _application(guard(lambda: None), _observed(Pages(operations, lambda _: None)))


def admin_application(
    operations: Operations,
    *,
    token: Callable[[], bytes | None],
    audit: Audit,
    refused: Refused = lambda *_: None,
    guess_seconds: float = GUESS_SECONDS,
) -> web.Application:
    """Everything.  `audit` gets who, what, why, before and after of each change."""
    pages = Pages(operations, audit)
    return _application(
        guard(token, refused, guess_seconds=guess_seconds),
        [
            *_observed(pages),
            web.get("/status", pages.status),
            web.get("/config", pages.config),
            web.get("/explain", pages.explain),
            web.post("/explain", pages.explain),
            web.get("/breakers", pages.breakers),
            web.post("/breakers/{arm}/{action}", pages.change_breaker),
            web.get("/replays", pages.replays),
            web.post("/replays/{record}/release", pages.release_replay),
            *OutboxPages(operations.outbox, audit).routes(),
        ],
    )
