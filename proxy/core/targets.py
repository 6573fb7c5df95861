"""Where on its server does a backend want a call?"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from proxy.core.model import Call, Kind


class Targets:
    """One backend's request targets, in origin form.

    `path` and `query` are the backend's own, `paths` its paths per kind, in which `{tool}` is
    filled.  Without a path the caller's stays, byte for byte; his query always goes on.
    """

    def __init__(self, path: str, query: str, paths: Mapping[Kind, str]) -> None:
        self._query = query
        self._chosen = {kind: paths.get(kind, path) for kind in Kind}
        self._fixed = {  # the same for every call that brings no query
            kind: _with_query(own.path, own.joined(query))
            for kind, chosen in self._chosen.items()
            if (own := _Own(chosen)).path and "{tool}" not in chosen
        }

    def of(self, call: Call, *, kind: Kind | None = None, tool: str | None = None) -> str:
        """The target for `call`; `kind` and `tool` are those spoken upstream, if they differ."""
        head = call.head
        if not head.query and (fixed := self._fixed.get(kind or call.kind)) is not None:
            return fixed
        chosen = self._chosen[kind or call.kind]
        if not chosen and not self._query:
            return head.target or _with_query(head.path, head.query)
        own = _Own(chosen)
        path = own.path
        if "{tool}" in path:
            path = path.replace("{tool}", quote(tool or call.tool or "", safe="", errors="replace"))
        return _with_query(path or head.path, own.joined(self._query, head.query))


class _Own:
    """A path of the rules, which may bring a query."""

    def __init__(self, chosen: str) -> None:
        self.path, _, self._query = chosen.partition("#")[0].partition("?")

    def joined(self, *queries: str) -> str:
        """All queries in one, its own first."""
        return "&".join(part for part in (self._query, *queries) if part)


def _with_query(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path
