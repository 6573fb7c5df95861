"""How are pages served?  As aiohttp does, but to so many only, and no error echoes input.

Left alone it answers what is malformed with the offending bytes and its version, and logs them
too: a token that came with a control byte would stand there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestHandler

from proxy.admin.guard import problem

IDLE_SECONDS = 75.0
"""For which a connection may stand idle, or a request's head may take."""

MOST = 40
"""Connections of one listener; beyond it those go that have been idle for longest.

Nobody is refused, or whoever fills it up would keep out the kubelet that asks whether we live.
Both listeners' fit into what `proxy.fixed` sets aside.
"""

Crashed = Callable[[BaseException | None], None]
_CODES = {408: "too_slow", 413: "body_too_large", 417: "expectation_failed", 500: "internal_error"}


class PagesRunner(web.AppRunner):
    """Serves one application; `crashed` hears of every bug in a page."""

    __slots__ = ("_crashed",)

    def __init__(self, pages: web.Application, *, crashed: Crashed) -> None:
        super().__init__(
            pages,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=IDLE_SECONDS,
            shutdown_timeout=1.0,
        )
        self._crashed = crashed

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Pages(made, self._crashed, **self._kwargs)


class _Pages(web.Server):
    def __init__(self, made: web.Server, crashed: Crashed, **options: Any) -> None:
        self._answer = made.request_handler
        self._crashed = crashed
        self._here: dict[_Connection, None] = {}
        self._idle: dict[_Connection, None] = {}  # for longest: first
        super().__init__(self._expected, request_factory=made.request_factory, **options)

    def __call__(self) -> RequestHandler:
        return _Connection(self, self._crashed, loop=self._loop, **self._kwargs)

    async def _expected(self, request: Any) -> web.StreamResponse:
        """aiohttp's own answer to an unknown expectation echoes it."""
        connection = cast("_Connection", request.protocol)
        self._idle.pop(connection, None)
        try:
            return await self._answered(request)
        finally:
            if connection in self._here:
                self._idle[connection] = None

    async def _answered(self, request: Any) -> web.StreamResponse:
        if request.headers.get(hdrs.EXPECT, "100-continue").lower() != "100-continue":
            return _refusal(417)
        answer: web.StreamResponse = await self._answer(request)
        return answer

    def come(self, connection: _Connection) -> None:
        """Let the one go that has been idle for longest, if there are too many.

        That may be the newcomer; it also may be one who does not read what we have answered.
        """
        self._here[connection] = self._idle[connection] = None
        if len(self._here) > MOST:
            longest = next(iter(self._idle))
            self.gone(longest)
            longest.cut()

    def gone(self, connection: _Connection) -> None:
        """One more may come."""
        self._here.pop(connection, None)
        self._idle.pop(connection, None)


class _Connection(RequestHandler):
    __slots__ = ("_crashed", "_pages")

    def __init__(self, pages: _Pages, crashed: Crashed, **options: Any) -> None:
        super().__init__(pages, **options)
        self._crashed = crashed
        self._pages = pages

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Counted before it is served."""
        super().connection_made(transport)
        self._pages.come(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Its place is free."""
        self._pages.gone(self)
        super().connection_lost(exc)

    def cut(self) -> None:
        """End it now, whatever it has yet to read."""
        transport = self.transport
        self.force_close()
        if transport is not None:
            transport.abort()

    def handle_error(
        self,
        request: Any,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """A short JSON error, and the connection is closed.

        Whoever hangs up while a page still reads or writes makes it fail, which is no bug of it.
        """
        gone = self.transport is None or self.transport.is_closing()
        if status >= 500 and not (gone and isinstance(exc, ConnectionError)):
            self._crashed(exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        return _refusal(status)

    def log_exception(self, *_: Any, exc_info: Any = None, **__: Any) -> None:
        """Where else aiohttp would log."""
        self._crashed(exc_info if isinstance(exc_info, BaseException) else None)


def _refusal(status: int) -> web.Response:
    code = _CODES.get(status, "bad_request")
    answer = problem(status, code, "This request cannot be answered.", Server="callsplit")
    answer.force_close()
    return answer
