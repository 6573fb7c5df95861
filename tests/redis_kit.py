"""A real Redis for tests, on a unix socket of its own."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

NONE = "redis-server is not installed, so nothing is known of Redis: apt-get install redis-server"


class RedisServer:
    """One that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *arguments: str) -> None:
        found = shutil.which("redis-server")
        if found is None:
            pytest.skip(NONE)
        self._process = await asyncio.create_subprocess_exec(
            found, "--port", "0", "--unixsocket", str(self.socket), "--save", "",
            "--appendonly", "yes", "--appendfsync", "always", "--dir", str(self._folder),
            *arguments, stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        async with asyncio.timeout(20):
            while not await self._answers():
                await asyncio.sleep(0.01)

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def ask(self, *words: str) -> bytes:
        """One inline command, and the first bytes of its answer."""
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        try:
            writer.write(" ".join(words).encode() + b"\r\n")
            return await reader.read(65_536)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, "redis-server ended"
        try:
            return (await self.ask("PING")).startswith(b"+PONG")
        except OSError:
            return False


@contextlib.asynccontextmanager
async def redis_server(*arguments: str) -> AsyncIterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="redis") as folder:  # A socket's path must be short.
        server = RedisServer(Path(folder))
        try:
            await server.start(*arguments)
            yield server
        finally:
            await server.kill()
