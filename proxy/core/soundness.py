"""Can this answer of a user's backend be written at all?  Ours are sound by construction."""

from __future__ import annotations

from collections.abc import AsyncIterator

from proxy.core.guard import check_name, check_values
from proxy.core.model import Reply
from proxy.errors import Refused


def unsound(reply: object) -> str:
    """What is wrong with an answer, in a few words; "" if nothing is."""
    if not isinstance(reply, Reply):
        return "no Reply"
    status: object = reply.status
    if type(status) is not int or not 200 <= status <= 599:
        return "no final status"
    body: object = reply.body
    if not isinstance(body, bytes | AsyncIterator):
        return "a body that is neither bytes nor an async iterator"
    ttl: object = reply.ttl
    if ttl is not None and not isinstance(ttl, int | float):
        return "a ttl that is no number"
    for field in reply.headers:
        if not _is_pair(field):
            return "a header that is no pair of bytes"
        try:
            check_name(field[0])
            check_values(field[1])
        except Refused:
            return "a header with a byte that no header may have"
    return ""


def _is_pair(field: object) -> bool:
    return (
        isinstance(field, tuple)
        and len(field) == 2
        and isinstance(field[0], bytes)
        and isinstance(field[1], bytes)
    )
