"""Real MCP clients and servers as children, and the sidecar between them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.functional.kit import ROOT
from tests.functional.wire import DEADLINE, JSON, Peer, Seen, response, until
from tests.mcp.environments import Unavailable, environment, interpreter

SCRIPTS = {"mcp1": "client_mcp1", "mcp2": "client_mcp2", "fastmcp": "client_fastmcp"}
"""The client of each environment."""


class Child:
    """A process that takes commands and tells what happens, one JSON object per line."""

    def __init__(self, name: str, module: str, folder: Path) -> None:
        self._name, self._module = name, module
        self._log = folder / f"{name}-{module}.log"
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self, *arguments: str) -> None:
        """Run it; skips the test if its environment cannot be had."""
        try:
            python = await asyncio.to_thread(interpreter, self._name)
        except Unavailable as reason:
            pytest.skip(str(reason))
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(python), "-m", f"tests.mcp.{self._module}", *arguments,
                cwd=ROOT, env=environment(), limit=2**22,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        self._reading = asyncio.create_task(self._read(self._process))

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def tell(self, **what: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what).encode() + b"\n")

    def hear(self, line: dict[str, Any]) -> None:
        """What it told."""
        raise NotImplementedError

    def gone(self) -> None:
        """It has hung up, and tells nothing more."""

    async def kill(self) -> None:
        """End it as the kernel does."""
        if self.runs:
            self.process.kill()
        await self.ended()

    async def stop(self) -> None:
        """Hang up; that is how it is told to end."""
        if self.runs:
            assert self.process.stdin is not None
            self.process.stdin.close()
            try:
                await self.ended()
            except TimeoutError:
                await self.kill()

    async def ended(self) -> None:
        if self._process is not None and self._reading is not None:
            async with asyncio.timeout(DEADLINE):
                await self._process.wait()
                await self._reading

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            self.hear(json.loads(line))
        self.gone()


class Asked:
    """A command under way at a client."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.progress: list[list[float]] = []
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def fail(self, why: str) -> None:
        self.answer.set_exception(RuntimeError(why))
        self.answer.exception()  # Looked at, should nobody wait for it.

    async def heard(self, steps: int) -> None:
        """Return when so much progress has come."""
        await until(lambda: len(self.progress) >= steps, f"{steps} steps")

    async def result(self) -> Any:
        """Raises `RuntimeError` with what the client's library said of a failure."""
        async with asyncio.timeout(DEADLINE):
            return await self.answer


class Client(Child):
    """One of other people's clients, with as many sessions as are wanted."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name, SCRIPTS[name], folder)
        self._asked: dict[int, Asked] = {}
        self._count = 0

    def ask(self, do: str, **what: Any) -> Asked:
        self._count += 1
        asked = self._asked[self._count] = Asked(self._count)
        self.tell(n=self._count, do=do, **what)
        return asked

    def hear(self, line: dict[str, Any]) -> None:
        asked = self._asked[line["n"]]
        if "progress" in line:
            asked.progress.append(line["progress"])
        elif "error" in line:
            asked.fail(line["error"])
        else:
            asked.answer.set_result(line["ok"])

    def gone(self) -> None:
        for asked in self._asked.values():
            if not asked.answer.done():
                asked.fail(f"the client ended: {self._tail()}")

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-8:])


class Session:
    """One session of a client at one URL."""

    def __init__(self, client: Client, name: str, about: dict[str, Any]) -> None:
        self._client, self._name, self.about = client, name, about

    async def tools(self) -> dict[str, dict[str, Any]]:
        listed = await self._client.ask("list", session=self._name).result()
        return {tool["name"]: tool for tool in listed["tools"]}

    def begin(self, tool: str, *, progress: bool = True, **arguments: Any) -> Asked:
        """Call a tool; the answer is fetched later."""
        return self._client.ask(
            "call", session=self._name, tool=tool, arguments=arguments, progress=progress
        )

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await self.begin(tool, progress=False, **arguments).result()
        return answer

    async def cancel(self, asked: Asked) -> None:
        await self._client.ask("cancel", of=asked.number).result()

    async def close(self) -> None:
        await self._client.ask("close", session=self._name).result()


class Server(Child):
    """A real MCP server that can be killed, and started again at the same place."""

    def __init__(self, name: str, folder: Path, *options: str) -> None:
        super().__init__(name, "told_server", folder)
        self._options = options
        self.events: list[tuple[str, str, str]] = []  # what, tool, marker
        self._listens = asyncio.Event()
        # Bound but not listening: the port stays ours while nobody serves, and refuses.
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._place.getsockname()[1]}/mcp"

    async def up(self) -> None:
        """Listening, started anew if need be."""
        if not self.runs:
            self._listens.clear()
            await self.start(str(self._place.getsockname()[1]), *self._options)
            async with asyncio.timeout(DEADLINE):
                await self._listens.wait()

    def hear(self, line: dict[str, Any]) -> None:
        if "listens" in line:
            self._listens.set()
        else:
            self.events.append((line["event"], line["tool"], line["marker"]))

    async def saw(self, what: str, *markers: str) -> None:
        """Return when all of these have happened to a tool."""
        wanted = set(markers)
        await until(
            lambda: wanted <= {marker for event, _, marker in self.events if event == what},
            f"{what} {markers}",
        )

    def release(self, marker: str) -> None:
        """Let a held tool end."""
        self.tell(release=marker)

    async def stop(self) -> None:
        await super().stop()
        self._place.close()


class Stage:
    """Everything that has been started, to be ended."""

    def __init__(self, folder: Path, stack: contextlib.AsyncExitStack) -> None:
        self.folder, self._stack = folder, stack
        self._clients: dict[str, Client] = {}
        self._count = 0

    def server(self, name: str, *options: str) -> Server:
        """One that is not up yet."""
        server = Server(name, self.folder, *options)
        self._stack.push_async_callback(server.stop)
        return server

    async def session(
        self, flavour: tuple[str, str], url: str, headers: dict[str, str] | None = None
    ) -> Session:
        """A session of a client (name, mode) that stays as long as the client."""
        name, mode = flavour
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = Client(name, self.folder)
            self._stack.push_async_callback(client.stop)
            await client.start()
        self._count += 1
        own = f"session {self._count}"
        asked = client.ask("open", session=own, url=url, mode=mode, headers=headers or {})
        return Session(client, own, await asked.result())


def told_webhook(told: Callable[[dict[str, Any]], object]) -> Any:
    """A play of an origin's: functions are answered with what `told` makes of them."""

    async def play(peer: Peer, seen: Seen) -> bool:
        await peer.send(response(json.dumps(told(seen.json)).encode(), JSON))
        return True

    return play
