"""How is one value in a JSON document replaced, while every other keeps its bytes?"""

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
    members = members_of(document)
    name, *rest = path
    if rest:
        if name not in members:
            raise ValueError("no such member")
        members[name] = Raw(with_text(bytes(members[name]), tuple(rest), text))
    else:
        members[name] = Raw(orjson.dumps(text))
    return document_of(members)


def members_of(document: bytes) -> dict[str, Raw]:
    """The members of an object, each as it stands; raises ValueError if it is none."""
    try:
        try:
            return _members.decode(document)
        except msgspec.DecodeError:
            return _members.decode(mended(document))  # It may hold half an emoji.
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError("no JSON object") from error


def document_of(members: dict[str, Raw]) -> bytes:
    """The object that holds these members."""
    return _encode(members)
