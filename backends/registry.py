"""Which backend does a name in the rules stand for?

Ours by their names, others' by an entry point of group `callsplit.backends`, or by
`module:attribute`.  Ours cannot be shadowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from backends.base import Backend, BackendConfig, Factory
from backends.demo import DemoBackend
from backends.mcp import McpBackend
from backends.tools import ToolsBackend
from backends.webhook import WebhookBackend
from proxy.core.model import Kind
from proxy.core.suggest import did_you_mean
from proxy.errors import Fault, RulesError

GROUP = "callsplit.backends"

BUILT_IN: Mapping[str, Factory] = {
    "demo": DemoBackend,
    "mcp": McpBackend,
    "tools": ToolsBackend,
    "webhook": WebhookBackend,
}


def names() -> list[str]:
    """Every name that may stand in the rules, beside `module:attribute` paths."""
    return sorted({*BUILT_IN, *_installed()})


def create(handler: str, config: BackendConfig) -> Backend:
    """Make the backend that the rules call `handler`.

    Raises `RulesError` with a fault at `backends.<name>.handler` if there is none such, if
    it cannot be imported or made, or if it is no backend.
    """
    try:
        backend = load(handler)(config)
        _check(handler, backend)
    except _Unusable as unusable:
        raise _refusal(config.name, str(unusable), unusable.hint) from unusable
    except Exception as error:  # A user's code may raise anything: it must read as a fault.
        detail = f"backend '{handler}' cannot be made: {type(error).__name__}: {error}"
        raise _refusal(config.name, detail, "") from error
    return backend


def load(handler: str) -> Factory:
    """The factory behind a name; raises `LookupError`, with a hint where there is one."""
    if handler in BUILT_IN:
        return BUILT_IN[handler]
    if ":" in handler:
        return _imported(handler)
    entry = _installed().get(handler)
    if entry is None:
        known = names()
        hint = did_you_mean(handler, known) or f"known: {', '.join(known)}, or module:attribute"
        raise _Unusable(f"there is no backend '{handler}'", hint)
    try:
        return cast(Factory, entry.load())
    except Exception as error:
        raise _Unusable(
            f"backend '{handler}' cannot be loaded from {entry.value}: {error}"
        ) from error


class _Unusable(LookupError):
    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def _imported(path: str) -> Factory:
    module_name, _, attribute = path.partition(":")
    try:
        module = import_module(module_name)
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
        raise _Unusable(f"module '{module_name}' cannot be imported: {detail}") from error
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            hint = did_you_mean(part, [name for name in dir(found) if not name.startswith("_")])
            raise _Unusable(f"module '{module_name}' has no '{attribute}'", hint)
        found = getattr(found, part)
    if not callable(found):
        raise _Unusable(f"'{path}' is no class or function that makes a backend")
    return cast(Factory, found)


def _installed() -> Mapping[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _check(handler: str, backend: object) -> None:
    kinds = getattr(backend, "kinds", None)
    if not isinstance(kinds, frozenset) or not all(isinstance(kind, Kind) for kind in kinds):
        raise _Unusable(f"backend '{handler}' has no `kinds`, a frozenset of Kind")
    if not callable(getattr(backend, "handle", None)):
        raise _Unusable(f"backend '{handler}' has no `handle`")


def _refusal(name: str, message: str, hint: str) -> RulesError:
    return RulesError([Fault(message, path=f"backends.{name}.handler", hint=hint)])
