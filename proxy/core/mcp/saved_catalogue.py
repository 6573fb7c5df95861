"""How does an arm's catalogue outlive a process?  One JSON document, and what it must be to count.

It is read after a crash too, and it decides which tools may run twice: so it carries a digest.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

import orjson

from proxy.core.dialects.catalogue import Catalogue, parse_page
from proxy.core.dialects.members import members_of

_FORMAT: Final = b"1"
_DIGEST: Final = 16  # bytes


def place_of(url: str) -> str:
    """By which an endpoint is known again; a URL may hold a secret, and this does not."""
    return _digest(url.encode("utf-8", "surrogateescape"))


def dump(catalogue: Catalogue, place: str) -> bytes:
    """The document; `place` tells where the catalogue was heard."""
    said = b'{"place":%b,"whole":%b,"instructions":%b,"tools":[%b]}' % (
        orjson.dumps(place),
        b"true" if catalogue.whole else b"false",
        orjson.dumps(catalogue.instructions),
        b",".join(tool.raw for tool in catalogue.tools.values()),
    )
    return b'{"format":%b,"digest":"%b","said":%b}' % (_FORMAT, _digest(said).encode(), said)


def load(document: bytes, place: str) -> Catalogue | None:
    """The catalogue; None if it is another place's.

    Raises ValueError if this is not what was once written.
    """
    members = members_of(document)
    if bytes(members.get("format", b"")) != _FORMAT:
        raise ValueError("it is of another format")
    said = bytes(members.get("said", b""))
    if bytes(members.get("digest", b"")) != b'"%b"' % _digest(said).encode():
        raise ValueError("it is cut or altered: the digest does not fit")
    found: dict[str, Any] = orjson.loads(said)
    if found["place"] != place:
        return None
    tools = parse_page(said).tools
    return Catalogue({tool.name: tool for tool in tools}, found["whole"], found["instructions"])


def _digest(text: bytes) -> str:
    return blake2b(text, digest_size=_DIGEST).hexdigest()
