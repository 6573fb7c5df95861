"""Which paths are ours, and which paths only look as if they were not?

A path is ours as it stands, byte for byte: no trailing slash, no encoded spelling, never a
redirect.  Whatever a server behind us could take for one of ours is no path at all.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import unquote

from proxy.core.model import Kind
from proxy.core.readings import behind_scripts, plain_path, readings
from proxy.errors import Refused

_MAX_TOOL = 128


class RouteId(StrEnum):
    """One of our paths."""

    RETELL = "retell"  # whatever Retell sends, by its shape
    MCP = "mcp"
    FUNCTION = "function"  # one tool per path
    TOOLS = "tools"  # the guide's wire, and MCP for agents that were set up by the guide
    HEALTH = "health"  # answered here
    LLM = "llm"


class Route(NamedTuple):
    """One of our paths as it was asked for.

    `methods` empty: any.  `call_id` is the path's last segment, decoded once; not yet judged.
    """

    id: RouteId
    kinds: frozenset[Kind]
    methods: tuple[str, ...] = ()
    call_id: str | None = None
    tool: str | None = None


_RETELL = Route(
    RouteId.RETELL,
    frozenset({Kind.EVENT, Kind.INBOUND, Kind.FUNCTION, Kind.TOOLS, Kind.MCP, Kind.ALERT}),
)
_MCP = Route(RouteId.MCP, frozenset({Kind.MCP}), ("POST", "GET", "DELETE"))
_FUNCTION = Route(RouteId.FUNCTION, frozenset({Kind.FUNCTION, Kind.ARGS}))
_LLM = Route(RouteId.LLM, frozenset({Kind.LLM}))

_EXACT = {
    "/retell": _RETELL,
    "/api/retell/webhook-simple": _RETELL,
    "/mcp": _MCP,
    "/api/mcp/retell/tools": Route(RouteId.TOOLS, frozenset({Kind.TOOLS, Kind.MCP}), ("POST",)),
    "/api/mcp/retell/health": Route(RouteId.HEALTH, frozenset(), ("GET", "HEAD")),
}
_FOLDERS = {"/mcp": _MCP, "/retell/fn": _FUNCTION, "/llm": _LLM}  # with one segment below


def match(path: str) -> Route | None:
    """The route of a path as it stood on the wire; None: it is not ours."""
    route = _EXACT.get(path)
    if route is not None:
        return route
    folder, _, segment = path.rpartition("/")
    route = _FOLDERS.get(folder)
    return None if route is None else _with_segment(route, segment)


def check_method(route: Route, method: str) -> None:
    """Refuse a method that this path has no use for."""
    if route.methods and method not in route.methods:
        allow = ", ".join(route.methods)
        raise Refused(405, "method_not_allowed", f"Only {allow} here.", allow=allow)


def is_ours_in_disguise(path: str, backend_paths: Collection[str]) -> bool:
    """True if a server could read `path` as one of ours, or as one of `backend_paths`.

    Those are the paths that backends are called at, `{tool}` standing for any segment: they
    must not be reached around authentication, split and guard.
    """
    found = readings(path)
    if not found:
        return True
    if any(each in _PLAIN or each.startswith(_PLAIN_PREFIXES) for each in found):
        return True
    return any(_fits(plain, each) for each in backend_paths for plain in found)


def is_tool_segment(text: str) -> bool:
    """True if `text` names a tool as it may stand in a path."""
    if not 0 < len(text) <= _MAX_TOOL or text in (".", ".."):
        return False
    letters = text.replace("_", "").replace("-", "").replace(".", "")
    return text.isascii() and (letters.isalnum() or not letters)


def _with_segment(route: Route, segment: str) -> Route | None:
    if route is _FUNCTION:
        if not is_tool_segment(segment):
            return None
        return Route(route.id, route.kinds, route.methods, None, segment)
    text = unquote(segment, errors="surrogateescape") if "%" in segment else segment
    # An arm that keeps the caller's path must not be led out of it.
    if text in ("", ".", "..") or "/" in text or "\\" in text:
        return None
    return Route(route.id, route.kinds, route.methods, text)


def _fits(plain: str, backend_path: str) -> bool:
    shape = plain_path(backend_path) if backend_path else None
    if shape is None:
        return False
    return _is(plain, shape) or any(_is(plain, each) for each in behind_scripts(shape) if each[1:])


def _is(plain: str, shape: str) -> bool:
    if "{tool}" not in shape:
        return plain == shape
    wanted, found = shape.split("/"), plain.split("/")
    return len(wanted) == len(found) and all(map(_segment_fits, found, wanted))


def _segment_fits(found: str, wanted: str) -> bool:
    before, tool, after = wanted.partition("{tool}")
    if not tool:
        return found == wanted
    return found.startswith(before) and found.endswith(after)


_PLAIN = frozenset(_EXACT)
_PLAIN_PREFIXES = tuple(f"{folder}/" for folder in _FOLDERS)
