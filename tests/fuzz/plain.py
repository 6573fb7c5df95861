"""What is a body, read plainly by the standard library?  None where it leaves room for doubt.

Shares no code with the product.  It knows fewer bodies, and it knows them whole.
"""

from __future__ import annotations

import json
from typing import Any

from proxy.core.exchange import Exchange
from proxy.core.model import Kind


class Doubt(Exception):
    """Another reader could read this body in another way."""


def document(body: bytes) -> dict[str, Any] | None:
    """The object that a body is; None if there is any doubt about it."""
    try:
        text = body.decode()
        if text.startswith("\ufeff") or "\\ud" in text.lower():
            return None
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_never)
    except (ValueError, RecursionError, Doubt):
        return None
    return found if isinstance(found, dict) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Doubt
    return found


def _never(text: str) -> Any:
    raise Doubt


def check_kind(method: str, target: str, body: bytes, exchange: Exchange) -> None:
    """On `/retell`, where any kind may come, kind, tool and call are those read here."""
    found = document(body)
    if found is None or target != "/retell" or method != "POST" or "jsonrpc" in found:
        return
    about = found.get("call", found.get("chat"))
    if ("call" in found and "chat" in found) or not isinstance(about, dict | None):
        return
    if about is not None and not _texts(about, "call_id", "chat_id"):
        return
    if not _texts(found, "event", "name", "tool", "call_id"):
        return
    kind = _kind(found, about)
    assert exchange.kind is kind, f"{kind} was taken for {exchange.kind}"
    if kind in (Kind.FUNCTION, Kind.TOOLS):
        assert exchange.tool == found["name" if kind is Kind.FUNCTION else "tool"]
    if kind in (Kind.FUNCTION, Kind.EVENT) and about is not None:
        said = about.get("call_id") or about.get("chat_id")
        assert exchange.call_id in (said, None), "a call ID that nobody said"
        if isinstance(said, str) and said.startswith("call_0") and said.isalnum():
            assert exchange.call_id == said, "a call ID went unseen"


def _kind(found: dict[str, Any], about: object) -> Kind:
    event = found.get("event")
    if event in ("call_inbound", "chat_inbound"):
        return Kind.INBOUND
    if event is not None and event.startswith("alert_"):
        return Kind.ALERT
    if event is not None and about is not None:
        return Kind.EVENT
    if found.get("name") and "args" in found:
        return Kind.FUNCTION
    if found.get("tool") and "arguments" in found:
        return Kind.TOOLS
    return Kind.OTHER


def _texts(found: dict[str, Any], *names: str) -> bool:
    """Whether each of these, where it stands, is a text."""
    return all(isinstance(found.get(name, ""), str) for name in names)


def check_arguments(body: bytes, called: dict[str, Any], kind: Kind) -> None:
    """The tool was called with the arguments that the body has."""
    found = document(body)
    if found is None:
        return
    said: Any
    if kind is Kind.FUNCTION:
        said = found.get("args")
    elif kind is Kind.TOOLS:
        said = found.get("arguments", {})
    elif kind is Kind.MCP and isinstance(found.get("params"), dict):
        said = found["params"].get("arguments", {})
    else:
        return
    assert called["params"].get("arguments", {}) == ({} if said is None else said)
