"""A backend as a user would write it, having read only `backends/base.py` and the model."""

from __future__ import annotations

from backends.base import BackendConfig, Send
from proxy.core.model import Call, Kind, Outbound, Reply


class Plugin:
    """Asks its upstream about functions by GET, and passes its answer on."""

    kinds = frozenset({Kind.FUNCTION})

    def __init__(self, config: BackendConfig) -> None:
        self._bearer = config.bearer

    async def handle(self, call: Call, send: Send) -> Reply:
        headers = [(b"authorization", b"Bearer " + self._bearer)] if self._bearer else []
        return await send(Outbound("GET", f"/{call.tool}", headers))


class Nested:
    Inner = Plugin


def broken(config: BackendConfig) -> Plugin:
    raise OSError("no such disk")


def kindless(config: BackendConfig) -> object:
    return object()


class Handless:
    kinds = frozenset({Kind.FUNCTION})

    def __init__(self, config: BackendConfig) -> None: ...


NUMBER = 7
