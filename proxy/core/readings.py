"""What may a lenient server make of a path?  More than one thing: each is a reading.

Each rule here is one that some server or framework has: Apache and PHP (scripts before a path),
IIS (case, blanks and dots at the end, `%u`, compatibility characters), Tomcat (path parameters).
"""

from __future__ import annotations

import re
from functools import lru_cache
from unicodedata import category, normalize
from urllib.parse import unquote

_LAYERS = 8  # of percent-encoding taken off before a path counts as hostile
_NO_STANDARD = re.compile("%[uU][0-9a-fA-F]{4}")
_MOST_SCRIPTS = 8  # in front of one path, each of which makes one reading more
_SCRIPTS = (".php", ".phtml", ".asp", ".aspx", ".cgi", ".fcgi", ".jsp")


@lru_cache(maxsize=256)
def readings(path: str) -> tuple[str, ...]:
    """All of them, in plain form; none if no honest caller writes `path`.

    A script in front of the path, or an ending of its last segment, may be there or not.
    """
    plain = plain_path(path)
    if plain is None:
        return ()
    names = plain[1:].split("/")
    kept = [name for name in names if not name.endswith(_SCRIPTS)]
    if len(names) - len(kept) > _MOST_SCRIPTS:
        return ()
    found = [plain, *behind_scripts(plain)]
    found.append("/" + "/".join(kept))
    return tuple(dict.fromkeys(each for one in found for each in (one, _without_ending(one))))


def behind_scripts(plain: str) -> list[str]:
    """What each script in a plain path is told to be asked for."""
    names = plain[1:].split("/")
    return [
        "/" + "/".join(names[place + 1 :])
        for place, name in enumerate(names)
        if name.endswith(_SCRIPTS)
    ]


def plain_path(path: str) -> str | None:
    """A path without any disguise of its characters; None for what no honest caller writes.

    Decoded until nothing is left to decode, without case, compatibility and invisible characters,
    path parameters, doubled or trailing slashes, dot segments, blanks and dots that end a segment.
    """
    text = _decoded(path)
    if text is None:
        return None
    text = text.partition("?")[0].partition("#")[0].replace("\\", "/").casefold()
    kept: list[str] = []
    for segment in text.split("/"):
        name = segment.partition(";")[0].strip()
        if name == "..":
            del kept[-1:]
        elif name := name.rstrip(". "):
            kept.append(name)
    return "/" + "/".join(kept)


def _decoded(path: str) -> str | None:
    for _ in range(_LAYERS):
        try:
            text = unquote(path, errors="strict")
        except UnicodeDecodeError:
            return None
        if not text.isascii():
            text = "".join(each for each in normalize("NFKC", text) if category(each) != "Cf")
        if _NO_STANDARD.search(text) or any(category(each) in ("Cc", "Cs") for each in text):
            return None
        if text == path:
            return text
        path = text
    return None


def _without_ending(plain: str) -> str:
    folder, _, name = plain.rpartition("/")
    return f"{folder}/{name.rpartition('.')[0] or name}"
