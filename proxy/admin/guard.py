"""Who may use the admin listener?  Checked before any of its pages.

A browser on the operator's machine is the attacker here: DNS rebinding brings a foreign name in
Host, cross-site requests bring a foreign Origin.  So Host must be `localhost` or a literal
address, changes go by POST from the same origin only, and the token is compared as bytes.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

OPEN_PATHS = frozenset({"/live", "/ready"})
"""Asked by kubelets and load balancers, which hold no token; they tell nothing else."""

Page = Callable[[web.Request], Awaitable[web.StreamResponse]]


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
    origin = request.headers.get(hdrs.ORIGIN)
    return origin is not None and urlsplit(origin).netloc != request.host


def bearer(request: web.Request) -> bytes:
    """The presented token as bytes; empty if there is none."""
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return token.strip().encode(errors="surrogateescape") if scheme.lower() == "bearer" else b""


def _holds(request: web.Request, expected: bytes | None) -> bool:
    return expected is None or hmac.compare_digest(bearer(request), expected)


def guard(token: Callable[[], bytes | None]) -> Middleware:
    """The middleware; `token` is asked each time, so that a rotation needs no restart."""

    @web.middleware
    async def check(request: web.Request, handler: Page) -> web.StreamResponse:
        if not host_is_local(request.headers.get(hdrs.HOST, "")):
            return problem(403, "host_refused", "Use localhost or a literal address as Host.")
        if request.method not in ("GET", "HEAD") and from_elsewhere(request):
            return problem(403, "cross_site", "Changes are taken from the same origin only.")
        if request.path not in OPEN_PATHS and not _holds(request, token()):
            return problem(
                401, "unauthorised", "The admin token is missing or wrong.",
                WWW_Authenticate="Bearer",
            )  # fmt: skip
        try:
            return await handler(request)
        except web.HTTPException as refused:
            return _plain(refused)

    return check


def _plain(refused: web.HTTPException) -> web.Response:
    codes = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
    answer = problem(refused.status, codes.get(refused.status, "bad_request"), refused.reason)
    if hdrs.ALLOW in refused.headers:
        answer.headers[hdrs.ALLOW] = refused.headers[hdrs.ALLOW]
    return answer
