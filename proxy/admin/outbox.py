"""The pages of the outbox: what waits, one event whole, and an operator's hand on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web

from proxy.admin.guard import problem
from proxy.admin.page import asked_by, page
from proxy.admin.ports import OutboxOperations
from proxy.errors import StoreFailed

Audit = Callable[[dict[str, Any]], None]


class OutboxPages:
    """One method a page."""

    def __init__(self, outbox: OutboxOperations, audit: Audit) -> None:
        self._outbox = outbox
        self._audit = audit

    def routes(self) -> list[web.RouteDef]:
        """Where they stand."""
        return [
            web.get("/outbox", self.overview),
            web.get("/outbox/{entry}", self.show),
            web.post("/outbox/{entry}/{action}", self.change),
        ]

    async def overview(self, request: web.Request) -> web.Response:
        state = request.query.get("state", "all")
        try:
            return page(self._outbox.overview(state, request.query.get("call_id")))
        except ValueError as fault:
            return problem(400, "unknown_state", str(fault))

    async def show(self, request: web.Request) -> web.Response:
        """With `?whole=true` the event's body too: whoever reads that is in the audit."""
        entry, body = request.match_info["entry"], request.query.get("whole") == "true"
        try:
            shown = await self._outbox.show(entry, body=body)
        except (KeyError, StoreFailed) as fault:
            return _missing(fault)
        if body:
            self._audit({**asked_by(request), "what": f"outbox show {entry} with its body"})
        return page(shown)

    def _figures(self) -> dict[str, Any]:
        """How many wait."""
        summary = self._outbox.summary()
        return {state: summary.get(state) for state in ("queued", "dead")}

    async def change(self, request: web.Request) -> web.Response:
        entry, action = request.match_info["entry"], request.match_info["action"]
        change = {"retry": self._outbox.retry, "drop": self._outbox.drop}.get(action)
        if change is None:
            return problem(400, "unknown_action", "Expected retry or drop.")
        before = self._figures()
        try:
            done = await change(entry)
        except (KeyError, StoreFailed) as fault:
            return _missing(fault)
        except ValueError as fault:
            return problem(409, "under_way", str(fault))
        told = {"before": before, "after": self._figures()}
        self._audit({**asked_by(request), "what": f"outbox {action} {entry}", **done, **told})
        return page(done)


def _missing(fault: Exception) -> web.Response:
    if isinstance(fault, StoreFailed):
        return problem(503, "store_failed", f"The outbox's store: {fault}.")
    return problem(404, "unknown_entry", "No such event waits; GET /outbox lists them.")
