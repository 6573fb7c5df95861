"""`mcp` 1.x as a client: a handshake, a session, and a notification to take a request back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

from tests.mcp.client_loop import Progress, main, result

# By name, because these are not the modules that our own interpreter has.
mcp: Any = import_module("mcp")
http: Any = import_module("mcp.client.streamable_http")
httpx: Any = import_module("httpx")


class Mcp1:
    def __init__(self, session: Any, initialized: Any) -> None:
        self._session, self._initialized = session, initialized

    def about(self) -> dict[str, Any]:
        return {
            "version": self._initialized.protocolVersion,
            "server": self._initialized.serverInfo.name,
            "instructions": self._initialized.instructions,
        }

    async def tools(self) -> list[dict[str, Any]]:
        listed = await self._session.list_tools()
        return [tool.model_dump(mode="json", exclude_none=True) for tool in listed.tools]

    async def call(
        self, tool: str, arguments: dict[str, Any], progress: Progress | None
    ) -> dict[str, Any]:
        number = self._session._request_id  # That of the next request: this one.
        try:
            said = await self._session.call_tool(tool, arguments, progress_callback=progress)
        except asyncio.CancelledError:
            await self._take_back(number)
            raise
        return result(said.isError, said.content, said.structuredContent)

    async def _take_back(self, number: int) -> None:
        """Its library leaves that to its user."""
        about = mcp.types.CancelledNotificationParams(requestId=number, reason="changed my mind")
        notification = mcp.types.CancelledNotification(params=about)
        await self._session.send_notification(mcp.types.ClientNotification(notification))


@asynccontextmanager
async def open_session(url: str, mode: str, headers: dict[str, str]) -> AsyncIterator[Mcp1]:
    assert mode == "legacy", "it speaks nothing else"
    async with (
        httpx.AsyncClient(headers=headers, timeout=60) as client,
        http.streamable_http_client(url, http_client=client) as (read, write, _),
        mcp.ClientSession(read, write) as session,
    ):
        yield Mcp1(session, await session.initialize())


if __name__ == "__main__":
    main(open_session)
