"""What does a certificate say of itself?  Read off its PEM as far as operators are shown it."""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)

# DER's tags (X.690, section 8.1.2): what stands here is one of these.
_SEQUENCE, _VERSION, _UTC_TIME, _TIME = 0x30, 0xA0, 0x17, 0x18
_TURN = 50  # years from here on are of the last century (RFC 5280, section 4.1.2.5.1)


@dataclass(frozen=True, slots=True)
class Certificate:
    """From when until when it holds (seconds since 1970), and what tells it from all others."""

    begins: int
    ends: int
    fingerprint: str  # SHA-256 of its DER, in hex


def certificates(pem: bytes) -> tuple[Certificate, ...]:
    """Each certificate in a file, in order; raises ValueError for what cannot be read."""
    ders = (binascii.a2b_base64(block[1]) for block in _BLOCK.finditer(pem))
    return tuple(Certificate(*validity(der), hashlib.sha256(der).hexdigest()) for der in ders)


def validity(der: bytes) -> tuple[int, int]:
    """`notBefore` and `notAfter` as seconds since 1970 (RFC 5280, section 4.1); or ValueError."""
    tag, whole = _first(der)
    _, told = _first(whole)
    fields = list(_each(told))
    if tag != _SEQUENCE or not fields:
        raise ValueError("no certificate")
    begin = 4 if fields[0][0] == _VERSION else 3  # serial number, algorithm, issuer
    times = [_seconds(*each) for each in _each(fields[begin][1])] if len(fields) > begin else []
    if len(times) != 2:
        raise ValueError("no certificate")
    return times[0], times[1]


def _first(data: bytes) -> tuple[int, bytes]:
    """The first value in DER: its tag and content."""
    for each in _each(data):
        return each
    raise ValueError("nothing there")


def _each(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The values that follow one another; raises ValueError where one is cut."""
    at = 0
    while at < len(data):
        if len(data) < at + 2:
            raise ValueError("cut short")
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(data[at : at + size]), at + size
        if at + length > len(data):
            raise ValueError("cut short")
        yield tag, data[at : at + length]
        at += length


def _seconds(tag: int, content: bytes) -> int:
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if int(text[:2]) >= _TURN else "20") + text
    elif tag != _TIME:
        raise ValueError("no time")
    return int(datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp())
