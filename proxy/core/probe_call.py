"""What call does a probe make that runs a tool?  One that nobody waits for, and that reads only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from proxy.core.dialects import function, tools
from proxy.core.model import Call, Head, Headers, Kind

USER_AGENT: Final = b"callsplit-probe"
"""By which an arm can tell probes from callers."""

_HEADERS: Final[Headers] = [
    (b"content-type", b"application/json"),
    (b"accept", b"application/json"),
    (b"user-agent", USER_AGENT),
]


def probe_call(tool: str, arguments: Mapping[str, Any] | None, kinds: frozenset[Kind]) -> Call:
    """A call of no caller's, in a form that a backend of these kinds puts into its own."""
    head = Head("POST", "/", "", dict(_HEADERS), list(_HEADERS), b"callsplit", "", target="/")
    raw = orjson.dumps(arguments or {})
    if Kind.TOOLS in kinds:
        body = tools.compose(tool, raw, None)
        return Call(Kind.TOOLS, head, body, tool=tool, arguments=raw)
    body = function.compose(tool, raw, function.bare_call(None))
    return Call(Kind.FUNCTION, head, body, tool=tool, arguments=raw)
