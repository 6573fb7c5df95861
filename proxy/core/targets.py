"""Where on its server does a backend want a call?"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from proxy.core.model import Call, Kind


def target(
    call: Call,
    *,
    path: str,
    query: str,
    paths: Mapping[Kind, str],
    kind: Kind | None = None,
    tool: str | None = None,
) -> str:
    """The request target for `call`, in origin form.

    `path` and `query` are the backend's own, `paths` its paths per kind, in which `{tool}` is
    filled.  Without a path the caller's stays, byte for byte; his query always goes on.
    `kind` and `tool` are those spoken upstream, if they differ from the call's.
    """
    head = call.head
    chosen = paths.get(kind or call.kind, path) if paths else path
    if not chosen and not query:
        return head.target or _with_query(head.path, head.query)
    chosen, _, own = chosen.partition("#")[0].partition("?")
    if "{tool}" in chosen:
        chosen = chosen.replace("{tool}", quote(tool or call.tool or "", safe="", errors="replace"))
    queries = [part for part in (own, query, head.query) if part]
    return _with_query(chosen or head.path, "&".join(queries))


def _with_query(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path
