"""`mcp` 2.x as a client, in any of its modes: auto, legacy, or pinned to a revision."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

from tests.mcp.client_loop import Progress, main, result

# By name, because these need not be the modules that our own interpreter has.
mcp: Any = import_module("mcp")
http: Any = import_module("mcp.client.streamable_http")
httpx2: Any = import_module("httpx2")


class Mcp2:
    def __init__(self, client: Any) -> None:
        self._client = client

    def about(self) -> dict[str, Any]:
        server = self._client.server_info
        return {
            "version": self._client.protocol_version,
            "server": server.name if server is not None else None,
            "instructions": self._client.instructions,
        }

    async def tools(self) -> list[dict[str, Any]]:
        listed = await self._client.list_tools()
        return [
            tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in listed.tools
        ]

    async def call(
        self, tool: str, arguments: dict[str, Any], progress: Progress | None
    ) -> dict[str, Any]:
        said = await self._client.call_tool(tool, arguments, progress_callback=progress)
        return result(said.is_error, said.content, said.structured_content)


@asynccontextmanager
async def open_session(url: str, mode: str, headers: dict[str, str]) -> AsyncIterator[Mcp2]:
    async with httpx2.AsyncClient(headers=headers, timeout=60) as own:
        transport = http.streamable_http_client(url, http_client=own)
        async with mcp.Client(transport, mode=mode) as client:
            yield Mcp2(client)


if __name__ == "__main__":
    main(open_session)
