"""What does a page look like, and who has asked for it?"""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from proxy.admin.guard import bearer


def page(value: Any, status: int = 200) -> web.Response:
    """A value as JSON that people can read."""
    text = orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return web.Response(body=text, status=status, content_type="application/json")


def asked_by(request: web.Request) -> dict[str, str]:
    """Who asked and why, for the audit."""
    who = "token" if bearer(request) else "local"
    return {"who": who, "why": request.query.get("reason", "")}
