"""How many sidecars has a request passed?  Each counts itself, so that no circle is endless.

A backend's url that leads back here would have every request ask itself, and each copy ask again.
The count travels in a field of our own (Via, RFC 9110 7.6.3, is often rewritten on the way), and
beside it a word that only this process says: what comes back with it has certainly come back.  A
caller who sends either can only shorten the way of his own request.
"""

from __future__ import annotations

from proxy.core.model import Head
from proxy.errors import Refused

HEADER = b"x-callsplit-hops"
INSTANCE = b"x-callsplit-instance"

_DIGITS = 2
_FIRST = (HEADER, b"1")


def check_hops(head: Head, most: int, own: bytes = b"") -> None:
    """Refuse what has passed this sidecar or `most` of them, 508 (RFC 5842, 7.2), or counts oddly.

    `own` is our word; b"" if we have none.
    """
    if own and head.named.get(INSTANCE) == own:
        raise _loop()
    value = head.named.get(HEADER)
    if value is None:
        return
    if not _is_count(value) or HEADER in head.repeated:
        raise Refused(400, "bad_header", "A header that only callsplit sends is malformed.")
    if int(value) >= most:
        raise _loop()


def hop(head: Head) -> tuple[bytes, bytes]:
    """The field that tells the next one of us."""
    value = head.named.get(HEADER)
    if value is None or not _is_count(value):
        return _FIRST
    return HEADER, b"%d" % (int(value) + 1)


def _is_count(value: bytes) -> bool:
    return value.isdigit() and len(value) <= _DIGITS


def _loop() -> Refused:
    message = "This request has come here before: a backend's url leads back."
    return Refused(508, "loop_detected", message)
