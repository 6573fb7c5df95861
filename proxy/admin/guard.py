"""Who may use the admin listener?  Checked before any of its pages.

A browser on the operator's machine is the attacker here: DNS rebinding brings a foreign name in
Host, cross-site requests bring a foreign Origin.  So Host must be `localhost` or a literal
address, changes go by POST from the same origin only, and the token is compared as bytes.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from proxy.core.tokens import TokenSet
from proxy.core.tokens import bearer as token_in

OPEN_PATHS = frozenset({"/live", "/ready"})
"""Asked by kubelets and load balancers, which hold no token; they tell nothing else."""

BODY_LIMIT = 256 * 1024
"""Bytes.  Enough for a recorded call in `/explain`; changes need a few hundred."""

GUESS_SECONDS = 0.5
"""For which the answer to a wrong token is held back: so many guesses a connection."""

REASONS = ("host", "cross_site", "missing", "wrong", "body")
"""Why a request to the admin listener is turned away: a metric label, a closed set."""

_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    408: "body_timeout",
    413: "body_too_large",
}

Page = Callable[[web.Request], Awaitable[web.StreamResponse]]
Refused = Callable[[str, str], None]
"""Hears the reason and the address of each that was turned away."""


def problem(status: int, code: str, message: str, **headers: str) -> web.Response:
    """A short JSON error; never an echo of input."""
    return web.json_response(
        {"error": {"code": code, "message": message}},
        status=status,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


def host_is_local(host: str) -> bool:
    """`localhost` or a literal IP address, with or without a port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def from_elsewhere(request: web.Request) -> bool:
    """A browser says that another site sent this request."""
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return True
    origins = request.headers.getall(hdrs.ORIGIN, ())
    try:
        return any(urlsplit(origin).netloc != request.host for origin in origins)
    except ValueError:
        return True


def bearer(request: web.Request) -> bytes:
    """The presented token as bytes; empty if there is none, or more than one."""
    values = request.headers.getall(hdrs.AUTHORIZATION, ())
    if len(values) != 1:
        return b""
    return token_in(values[0].encode("utf-8", "surrogateescape")) or b""


def guard(
    token: Callable[[], bytes | None],
    refused: Refused = lambda *_: None,
    *,
    guess_seconds: float = GUESS_SECONDS,
) -> Middleware:
    """The middleware; `token` is asked each time, so that a rotation needs no restart."""

    def turned_away(request: web.Request, reason: str, answer: web.Response) -> web.Response:
        refused(reason, request.remote or "")
        return answer

    @web.middleware
    async def check(request: web.Request, handler: Page) -> web.StreamResponse:
        hosts = request.headers.getall(hdrs.HOST, ())
        if len(hosts) != 1 or not host_is_local(hosts[0]):
            answer = problem(403, "host_refused", "Use localhost or a literal address as Host.")
            return turned_away(request, "host", answer)
        if request.method not in ("GET", "HEAD") and from_elsewhere(request):
            answer = problem(403, "cross_site", "Changes are taken from the same origin only.")
            return turned_away(request, "cross_site", answer)
        expected = token() if request.path not in OPEN_PATHS else None
        if expected is not None and (reason := _unproven(request, expected)):
            if reason == "wrong":
                await asyncio.sleep(guess_seconds)
            answer = problem(
                401, "unauthorised", "The admin token is missing or wrong.",
                WWW_Authenticate="Bearer",
            )  # fmt: skip
            return turned_away(request, reason, answer)
        if (request.content_length or 0) > BODY_LIMIT:
            answer = problem(413, "body_too_large", "The request body is too large.")
            answer.force_close()
            return turned_away(request, "body", answer)
        try:
            return await handler(request)
        except web.HTTPException as refusal:
            return _plain(refusal)

    return check


def _unproven(request: web.Request, expected: bytes) -> str:
    """Why the token does not hold; "": it does."""
    presented = bearer(request)
    if TokenSet([expected]).find(presented) >= 0:
        return ""
    return "wrong" if presented else "missing"


def _plain(refused: web.HTTPException) -> web.Response:
    answer = problem(refused.status, _CODES.get(refused.status, "bad_request"), refused.reason)
    if refused.status == 408:
        answer.force_close()
    if hdrs.ALLOW in refused.headers:
        answer.headers[hdrs.ALLOW] = refused.headers[hdrs.ALLOW]
    return answer
