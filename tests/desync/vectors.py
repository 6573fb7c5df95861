"""Other people's messages: what lies in the vector files, and how they are made to reach an arm.

Format of a file: a JSON list of objects with `id` and `b64`, the exact bytes; where one connection
carries several pieces one after another, `steps`.  `.json.gz` are the same, packed.
"""

from __future__ import annotations

import gzip
import json
import re
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.desync.strict import END, requests

HERE = Path(__file__).parent / "vectors"
TOKEN = "desync-0123456789abcdef"
"""The credential with which a vector gets past the edge."""

_AUTHORISED = b"Authorization: Bearer %b\r\n" % TOKEN.encode()
_HOST = b"Host: sidecar.test\r\n"
_HOST_LINE = re.compile(rb"^host:[^\r\n]*\r\n", re.I | re.M)
_PATH = re.compile(rb"(?<=[ \t])/[^ \t\r\n]*")


@dataclass(frozen=True)
class Vector:
    """One entry of a file, or a way to send it."""

    file: str
    id: str
    steps: tuple[bytes, ...]  # sent one after another on one connection
    note: str = ""
    response: bool = False  # an origin says it
    scored: bool = False
    passes: frozenset[str] = frozenset()  # "status/state" by Http11Probe; empty: it says nothing
    warns: frozenset[str] = frozenset()
    way: str = "as it is"

    @property
    def raw(self) -> bytes:
        return b"".join(self.steps)


def load(directory: Path = HERE) -> dict[str, list[Vector]]:
    """The vectors of each file in a directory."""
    files = sorted([*directory.glob("*.json"), *directory.glob("*.json.gz")])
    return {
        _name(path): [_vector(_name(path), entry) for entry in _entries(path)] for path in files
    }


def ways(vector: Vector) -> Iterator[Vector]:
    """How a request is sent: as it is to a path that is passed through, and made ours.

    Where nothing but a Host is missing it is sent with one too: else it says little.
    """
    yield vector
    if vector.way != "as it is":
        return
    if len(vector.steps) > 1:
        yield replace(vector, steps=tuple(map(_ours, vector.steps)), way="as ours")
        return
    hosted = _each(vector.raw, _hosted)
    if hosted != vector.raw and requests(vector.raw, host_needed=False).valid:
        yield replace(vector, steps=(hosted,), way="with a Host")
    yield replace(vector, steps=(_ours(vector.raw),), way="as ours")


def _name(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".json")


def _entries(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    entries = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    assert isinstance(entries, list), f"{path}: a list of entries"
    return entries


def _vector(file: str, entry: dict[str, Any]) -> Vector:
    steps = tuple(
        b"".join(b64decode(piece) for piece, _ in step) for step in entry.get("steps", ())
    )
    return Vector(
        file,
        str(entry["id"]),
        steps or (b64decode(entry["b64"]),),
        str(entry.get("note") or ""),
        str(entry.get("type", "")).startswith("response"),
        bool(entry.get("scored")) and "pass" in entry,
        frozenset(entry.get("pass", ())),
        frozenset(entry.get("warn", ())),
    )


def _ours(raw: bytes) -> bytes:
    return _each(raw, lambda head: _recognised(_hosted(head)))


def _each(raw: bytes, change: Any) -> bytes:
    """Change the head of each request that can be told, and of what follows the last."""
    parts: list[bytes] = []
    at = 0
    for message in requests(raw, host_needed=False).messages:
        parts.append(change(raw[at : message.end]))
        at = message.end
    if at < len(raw):
        parts.append(change(raw[at:]))
    return b"".join(parts)


def _hosted(request: bytes) -> bytes:
    """With a Host, unless it has one or something that might be one."""
    line, end, rest = request.partition(b"\r\n")
    if not end or b"host" in request.partition(END)[0].lower():
        return request
    return line + end + _HOST + rest


def _recognised(request: bytes) -> bytes:
    """To a path of ours, its own path as the query, and with a credential behind its Host."""
    line, end, rest = request.partition(b"\r\n")
    line = _PATH.sub(lambda path: b"/retell?" + path[0][1:], line, count=1)
    head, empty, body = rest.partition(END)
    head = _HOST_LINE.sub(lambda host: host[0] + _AUTHORISED, head + empty, count=1)
    return line + end + head + body
