"""Does a secret stand in the rules as it is, where no key of ours says that it is one?

Keys of ours take references and nothing else.  Options of others' handlers, conditions and URLs
take any text: there, names and well-known forms tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from proxy.core.rules.finding import Finding, Path
from proxy.core.rules.model import Rules
from proxy.core.rules.telling import is_telling, looks_secret
from proxy.core.when import GROUPS

_MESSAGE = "a secret never stands in the rules"
_IN_OPTIONS = "write env:NAME or file:/path: the handler is handed the secret itself"
_IN_WHEN = "whoever holds a token may choose an arm by split.force"
_IN_URL = "better give it as bearer: env:NAME; if it must be here, fill it in: ${NAME}"


def of_literals(rules: Rules) -> Iterator[Finding]:
    """Every secret that stands in the text; with a URL it is only a warning."""
    for name, backend in rules.backends.items():
        yield from _of_options(("backends", name, "options"), backend.options)
        yield from _of_url(("backends", name, "url"), backend.url or "")
    for index, override in enumerate(rules.split.overrides):
        yield from _of_when(("split", "overrides", index, "when"), override.when)


def _of_options(path: Path, value: Any, *, telling: bool = False) -> Iterator[Finding]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _of_options((*path, name), inner, telling=is_telling(str(name)))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _of_options((*path, index), inner, telling=telling)
    elif isinstance(value, str) and value and (telling or looks_secret(value)):
        hint = _IN_OPTIONS if telling else f"{_IN_OPTIONS}; its key must say so: token, api_key"
        yield Finding(path, _MESSAGE, hint, secret=True)


def _of_url(path: Path, url: str) -> Iterator[Finding]:
    names = [name for name, value in parse_qsl(urlsplit(url).query) if value and is_telling(name)]
    if names:
        message = f"'{names[0]}' in its query looks like a secret; servers log what they are asked"
        yield Finding(path, message, _IN_URL, secret=True, warning=True)


def _of_when(path: Path, when: Mapping[str, Any]) -> Iterator[Finding]:
    for name, value in when.items():
        if name == "not" and isinstance(value, Mapping):
            yield from _of_when((*path, name), value)
        elif name in GROUPS and isinstance(value, list):
            for index, each in enumerate(value):
                if isinstance(each, Mapping):
                    yield from _of_when((*path, name, index), each)
        elif any(text and (is_telling(name) or looks_secret(text)) for text in _whole(value)):
            yield Finding((*path, name), _MESSAGE, _IN_WHEN, secret=True)


def _whole(value: Any) -> Iterator[str]:
    """The texts that a field is compared with as a whole."""
    if isinstance(value, Mapping):
        yield from _whole(value.get("exact"))
        yield from _whole(value.get("in"))
        if isinstance(value.get("not"), Mapping):
            yield from _whole(value["not"])
    elif isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _whole(each)
