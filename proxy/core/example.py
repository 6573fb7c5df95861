"""What request does somebody mean who asks about a call ID, a body, or both?"""

from __future__ import annotations

from proxy.core.call_id import CallIds, usable
from proxy.core.model import Call, Head, Kind
from proxy.core.recognise import recognise
from proxy.core.routes import Route, RouteId
from proxy.errors import Refused

_HEAD = Head("POST", "/retell", "", {}, [], b"localhost", "", target="/retell")
_ANY = Route(RouteId.RETELL, frozenset(Kind))


def example_call(call_id: str | None, body: bytes | None, ids: CallIds) -> Call:
    """The call behind a body as Retell would send it; a call ID given beside it wins.

    Raises ValueError, without an echo, for a body that is no request.
    """
    if body is None:
        return Call(Kind.FUNCTION, _HEAD, id=usable(call_id))
    try:
        call = recognise(_ANY, _HEAD, body, ids)
    except Refused as refused:
        raise ValueError(refused.message) from refused
    if call.kind is Kind.OTHER:
        raise ValueError("This body is no request that Retell sends.")
    call.id = call.id if call_id is None else usable(call_id)
    return call
