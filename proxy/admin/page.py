"""What does a page look like, and who has asked for it?"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from aiohttp import web

from proxy.admin.guard import bearer


def page(value: Any, status: int = 200) -> web.Response:
    """A value as JSON that people can read."""
    text = orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return web.Response(body=text, status=status, content_type="application/json")


BODY_SECONDS = 10.0
"""That a body may take: it is 256 kB at the most."""


async def body_of(request: web.Request, seconds: float = BODY_SECONDS) -> bytes:
    """The whole of it; raises `HTTPRequestTimeout`."""
    try:
        async with asyncio.timeout(seconds):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None


MOST_REASON = 200
"""Characters of an operator's reason that are kept."""


def asked_by(request: web.Request) -> dict[str, str]:
    """Who asked, from where and why, for the audit."""
    who = "token" if bearer(request) else "local"
    why = request.query.get("reason", "")[:MOST_REASON]
    return {"who": who, "from": request.remote or "", "why": why}
