"""How is one text in a JSON document replaced, while every other value keeps its bytes?"""

from __future__ import annotations

import msgspec
import orjson
from msgspec import Raw

from proxy.core.partial import mended

_members = msgspec.json.Decoder(dict[str, Raw])
_encode = msgspec.json.Encoder().encode


def with_text(document: bytes, path: tuple[str, ...], text: str) -> bytes:
    """The same document with `text` at `path`; raises ValueError if there is no such place.

    Numbers, escapes and the order of members stay; white space between members goes, and halves
    of surrogate pairs become U+FFFD.
    """
    members = _read(document)
    name, *rest = path
    if rest:
        if name not in members:
            raise ValueError("no such member")
        members[name] = Raw(with_text(bytes(members[name]), tuple(rest), text))
    else:
        members[name] = Raw(orjson.dumps(text))
    return _encode(members)


def _read(document: bytes) -> dict[str, Raw]:
    try:
        try:
            return _members.decode(document)
        except msgspec.DecodeError:
            return _members.decode(mended(document))  # It may hold half an emoji.
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError("no JSON object") from error
