"""Which requests may hear the same kept answer?

Those for one tool that agree in every field that its `cache_key` names (without one: in their call
and their arguments), in their query, and in what they show of who asks.  A request that lacks
a named field shares with nobody.

Why who asks is part of it: a hit never reaches the arm, and so skips the arm's own check.  Where
Retell's signature holds over the body, what the body says of its company is Retell's word; such
requests share whoever's call they are.  Without one, anybody can write any company into a body: so
such a request hears only what the arm told others that showed exactly the same credentials (token,
cookie, API key, a signature that nobody here verified), and never what a signed one was told.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from hashlib import blake2b
from typing import Any, TypeAlias

import orjson
from msgspec import Struct

from proxy.core.call_id import query_pairs
from proxy.core.fields import Fields
from proxy.core.model import Call, Effect, Kind
from proxy.core.replay_key import canonical
from proxy.core.rules.tools import Tool

OF_THE_CALL = ("call_id", "args")
"""What answers are shared by where the rules name nothing: one call's own."""

Tenant: TypeAlias = tuple[str, ...]
"""What the key's fields but the arguments say, one text each: whose answer it is."""

_SHOWN = (b"authorization", b"cookie", b"x-api-key", b"x-auth-token")
_SIGNATURE = (b"x-retell-signature",)
_OF_REQUEST = frozenset({"args", "tool", "event"})  # they say what is asked, not for whom
_MCP = Kind.MCP  # Bound once: reading a member of an enumeration is slow in Python 3.11.
_LONG = 64
_EXACT = 2.0**53


class CacheRule(Struct, frozen=True):
    """How the answers of one read tool are kept.  Durations are seconds."""

    tool: str
    ttl: float
    stale_for: float  # beyond `ttl`, for callers who would hear the last answer
    whole: bool  # all the arguments are in the key
    others: tuple[str, ...]  # the key's fields beside that
    owners: int  # how many of them, the first, tell tenants apart
    call_ids: frozenset[str]  # query parameters that only say which call it is
    names: Mapping[str, str]  # the tool's name by arm: another name is another tool
    output_schema: Mapping[str, Any] | None

    @property
    def of_one_call(self) -> bool:
        """No answer is heard in two calls."""
        return "call_id" in self.others


class Spot(Struct, frozen=True, gc=False):
    """Where an answer is kept, on whichever arm; `key` stands for all but the arm."""

    tool: str
    key: bytes
    tenant: Tenant


def cache_rule(tool: Tool, call_ids: Collection[str]) -> CacheRule | None:
    """How answers of `tool` are kept; None: not at all."""
    if tool.effect is not Effect.READ or tool.cache is None:
        return None
    paths = OF_THE_CALL if tool.cache_key is None else tool.cache_key
    owners = [path for path in paths if path.partition(".")[0] not in _OF_REQUEST]
    parts = [path for path in paths if path not in owners and path != "args"]
    return CacheRule(
        tool=tool.name,
        ttl=tool.cache,
        stale_for=tool.stale_if_error or 0.0,
        whole="args" in paths,
        others=(*owners, *parts),
        owners=len(owners),
        call_ids=frozenset(call_ids),
        names=tool.names,
        output_schema=tool.output_schema,
    )


def spot_of(rule: CacheRule, call: Call, found: Fields) -> Spot | None:
    """Where the answer to `call` would be kept; None if nowhere."""
    if call.kind is _MCP and not _is_plain(call):
        return None
    asker = _asker(call, rule.call_ids)
    arguments = canonical(call.arguments or b"{}") if rule.whole else b""
    values = [found.get(path) for path in rule.others]
    if asker is None or arguments is None or None in values:
        return None
    text = _json([rule.tool, asker, values])
    if text is None or not _is_exact(values):
        return None
    tenant = tuple(map(_text, values[: rule.owners]))
    return Spot(rule.tool, blake2b(text + arguments, digest_size=16).digest(), tenant)


def tenant_of(rule: CacheRule, found: Fields) -> Tenant | None:
    """Whose answers of the rule's tool a request is about; None if it does not say."""
    values = [found.get(path) for path in rule.others[: rule.owners]]
    return None if None in values or _json(values) is None else tuple(map(_text, values))


def _is_plain(call: Call) -> bool:
    """An MCP request that waits for an answer, and does not go on with an earlier one."""
    body = call.body
    return (
        call.rpc_id is not None
        and b'"inputResponses"' not in body
        and b'"requestState"' not in body
    )


def _asker(call: Call, call_ids: frozenset[str]) -> list[object] | None:
    """What a request shows of who asks; None if it shows something twice."""
    head = call.head
    shown: list[object] = [call.signed]
    for name in _SHOWN if call.signed else _SHOWN + _SIGNATURE:
        if name in head.repeated:
            return None
        value = head.named.get(name)
        shown.append(value.decode("latin-1") if value is not None else None)
    if head.query:
        shown += [pair for pair in query_pairs(head.query) if pair[0] not in call_ids]
    return shown


def _is_exact(value: object) -> bool:
    """No number in it may stand for several: large integers are read as floats."""
    if isinstance(value, float):
        return abs(value) < _EXACT
    if isinstance(value, dict):
        return all(map(_is_exact, value.values()))
    return not isinstance(value, list) or all(map(_is_exact, value))


def _text(value: object) -> str:
    """A value as text in which 42, 42.0 and "42" are one tenant: a write may spell it otherwise."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value if isinstance(value, str) else (_json(value) or b"").decode()
    return text if len(text) <= _LONG else blake2b(text.encode(), digest_size=16).hexdigest()


def _json(value: object) -> bytes | None:
    """Equal bytes for equal values; None if it holds half a character, or is nested too deeply."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return None
