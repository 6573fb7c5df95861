"""Does what the rules say of kept answers hold together?"""

from __future__ import annotations

from collections.abc import Iterator

from proxy.core.model import Effect
from proxy.core.rules.finding import Finding, Path
from proxy.core.rules.model import Rules
from proxy.core.rules.tools import DEFAULT, Tool, ToolEntry, resolve
from proxy.core.suggest import did_you_mean
from proxy.core.when import FAMILIES, FIELDS

WHOLE = ("args", "call_id", "metadata", "dynamic_variables", *FIELDS)
"""What a `cache_key` may name as it stands; below some of them also a part."""

_PARTS = ("args.", *FAMILIES)


def of_caching(rules: Rules) -> Iterator[Finding]:
    """Every finding about `cache` and what belongs to it."""
    named = rules.tools.keys() - {DEFAULT}
    for name, entry in rules.tools.items():
        path: Path = ("tools", name)
        for index, other in enumerate(entry.invalidates):
            if other not in named:
                message = f"no tool is named '{other}' here: it has nothing to drop"
                hint = did_you_mean(other, named)
                yield Finding((*path, "invalidates", index), message, hint)
        yield from _of_key(path, entry)
        if name != DEFAULT:
            yield from _of_use(path, entry, resolve(rules.tools, name))


def _of_key(path: Path, entry: ToolEntry) -> Iterator[Finding]:
    if entry.cache_key is None:
        return
    at = (*path, "cache_key")
    for index, field in enumerate(entry.cache_key):
        if not _is_known(field):
            hint = did_you_mean(field, (*WHOLE, *_PARTS))
            known = f"known are {', '.join(WHOLE)}, and {'<key>, '.join(_PARTS)}<key>"
            yield Finding((*at, index), f"'{field}' is no field of a request", hint or known)
    if not entry.cache_key:
        hint = "write [args] for one answer to the same arguments"
        yield Finding(at, "names nothing: all callers would hear one answer", hint)
    elif not any(field.partition(".")[0] == "args" for field in entry.cache_key):
        message = "leaves the arguments out: whatever is asked, the answer is the same"
        yield Finding(at, message, "add args, unless the tool takes none", warning=True)


def _is_known(field: str) -> bool:
    if field in WHOLE:
        return True
    plain = field.lower() if field.lower().startswith("header.") else field
    return plain.startswith(_PARTS) and all(field.split("."))


def _of_use(path: Path, entry: ToolEntry, tool: Tool) -> Iterator[Finding]:
    reads = tool.effect is Effect.READ
    if entry.cache is not None and not reads:
        message = f"'{tool.name}' would not run again, and its effect is {tool.effect}"
        yield Finding((*path, "cache"), message, "only a tool with effect: read can be cached")
    for key in ("cache_key", "stale_if_error"):
        if getattr(entry, key) is not None and tool.cache is None:
            message = f"no answer of '{tool.name}' is kept"
            yield Finding((*path, key), message, "it needs `cache` beside it", warning=True)
    if entry.invalidates and reads:
        message = f"'{tool.name}' only reads: it drops nothing"
        hint = "write it where the tool that changes something is"
        yield Finding((*path, "invalidates"), message, hint, warning=True)
