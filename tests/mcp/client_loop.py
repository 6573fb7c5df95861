"""What every client script does: hold sessions, call tools, as a test commands it line by line.

    open    session, url, mode, headers         version, server, instructions
    list    session                             tools
    call    session, tool, arguments, progress  isError, text, structured
    cancel  of: a call's number                 nothing, and that call ends with an error
    close   session                             nothing

Each command has a number `n` of its own, which its answer bears: `{"n": 1, "ok": {...}}` or
`{"n": 1, "error": "..."}`; a call's progress comes before as `{"n": 3, "progress": [1.0, 3.0]}`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Protocol

from tests.mcp.lines import commands, tell

Progress = Callable[[float, float | None, str | None], Awaitable[None]]


class Session(Protocol):
    """One session of a client, in whichever words its library has."""

    def about(self) -> dict[str, Any]: ...

    async def tools(self) -> list[dict[str, Any]]: ...

    async def call(
        self, tool: str, arguments: dict[str, Any], progress: Progress | None
    ) -> dict[str, Any]: ...


Open = Callable[[str, str, dict[str, str]], AbstractAsyncContextManager[Session]]
"""Opens a session at an URL, in a mode, with headers of the test's own."""


class Held:
    """A session in the task that opened it: the libraries insist that it is the one to close it."""

    def __init__(self, opening: AbstractAsyncContextManager[Session]) -> None:
        self._opening = opening
        self._ready: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
        self._enough = asyncio.Event()
        self._task = asyncio.create_task(self._hold())
        self.session: Session
        self.calls: set[asyncio.Task[Any]] = set()

    async def opened(self) -> Session:
        self.session = await self._ready
        return self.session

    async def close(self) -> None:
        self._enough.set()
        await self._task

    async def _hold(self) -> None:
        try:
            async with self._opening as session:
                self._ready.set_result(session)
                await self._enough.wait()
        except BaseException as error:
            if self._ready.done():
                for call in self.calls:  # They would wait for ever.
                    call.cancel(f"the session died: {told(error)}")
                raise
            self._ready.set_exception(RuntimeError(told(error)))


def told(error: BaseException) -> str:
    """An error in a line; of a group, those within."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(told(each) for each in error.exceptions)
    return f"{type(error).__name__}: {error}"


class Client:
    """Carries out commands, as many at a time as there are."""

    def __init__(self, open_session: Open) -> None:
        self._open_session = open_session
        self._held: dict[str, Held] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until the test hangs up."""
        async for command in commands():
            number = command["n"]
            self._tasks[number] = asyncio.create_task(self._carry_out(number, command))
            self._tasks[number].add_done_callback(partial(self._forget, number))
        for task in tuple(self._tasks.values()):
            task.cancel()
        for held in self._held.values():
            with contextlib.suppress(Exception):
                await held.close()

    async def _carry_out(self, number: int, command: dict[str, Any]) -> None:
        try:
            answer = await getattr(self, f"_{command['do']}")(number, command)
        except BaseException as error:
            tell(n=number, error=told(error))
            if not isinstance(error, Exception | asyncio.CancelledError):
                raise
        else:
            tell(n=number, ok=answer)

    def _forget(self, number: int, _: object) -> None:
        del self._tasks[number]

    async def _open(self, _: int, command: dict[str, Any]) -> dict[str, Any]:
        opening = self._open_session(command["url"], command["mode"], command["headers"])
        held = Held(opening)
        session = await held.opened()
        self._held[command["session"]] = held
        return session.about()

    async def _list(self, _: int, command: dict[str, Any]) -> dict[str, Any]:
        return {"tools": await self._held[command["session"]].session.tools()}

    async def _call(self, number: int, command: dict[str, Any]) -> dict[str, Any]:
        async def progress(done: float, total: float | None, _: str | None) -> None:
            tell(n=number, progress=[done, total])

        held, task = self._held[command["session"]], asyncio.current_task()
        assert task is not None
        held.calls.add(task)
        try:
            heard = progress if command["progress"] else None
            return await held.session.call(command["tool"], command["arguments"], heard)
        finally:
            held.calls.discard(task)

    async def _cancel(self, _: int, command: dict[str, Any]) -> dict[str, Any]:
        self._tasks[command["of"]].cancel()
        return {}

    async def _close(self, _: int, command: dict[str, Any]) -> dict[str, Any]:
        await self._held.pop(command["session"]).close()
        return {}


def result(is_error: bool | None, content: list[Any], structured: Any) -> dict[str, Any]:
    """A tool's result, as a test hears it."""
    text = "".join(block.text for block in content if block.type == "text")
    return {"isError": bool(is_error), "text": text, "structured": structured}


def main(open_session: Open) -> None:
    """A client script is this with its own way to open a session."""
    asyncio.run(Client(open_session).run())
