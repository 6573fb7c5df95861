"""How long does an arm ask to be left alone?  Retry-After, RFC 9110 section 10.2.3."""

from __future__ import annotations

from datetime import datetime
from email.utils import parsedate_to_datetime

from proxy.core.model import Headers


def retry_after(headers: Headers) -> tuple[bool, float | None]:
    """Whether the answer carries the field, and its seconds; None if they cannot be told.

    A date is read against the answer's own Date, so that no clock of ours is needed.
    """
    value = date = None
    for name, content in headers:
        lowered = name.lower()
        if lowered == b"retry-after":
            value = content.strip()
        elif lowered == b"date":
            date = content
    if value is None:
        return False, None
    if value.isdigit():
        return True, float(value)
    until, sent = _moment(value), _moment(date)
    if until is None or sent is None:
        return True, None
    return True, max(0.0, (until - sent).total_seconds())


def _moment(value: bytes | None) -> datetime | None:
    if value is None:
        return None
    try:
        moment = parsedate_to_datetime(value.decode("ascii"))
    except (ValueError, TypeError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else None
