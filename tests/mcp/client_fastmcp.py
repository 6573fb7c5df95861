"""`fastmcp` as a client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

from tests.mcp.client_loop import Progress, main, result

# By name, because our own interpreter does not have it.
fastmcp: Any = import_module("fastmcp")
transports: Any = import_module("fastmcp.client.transports")


class FastMcp:
    def __init__(self, client: Any) -> None:
        self._client = client

    def about(self) -> dict[str, Any]:
        session = self._client.session
        server = session.server_info
        return {
            "version": session.protocol_version,
            "server": server.name if server is not None else None,
            "instructions": session.instructions,
        }

    async def tools(self) -> list[dict[str, Any]]:
        listed = await self._client.list_tools()
        return [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in listed]

    async def call(
        self, tool: str, arguments: dict[str, Any], progress: Progress | None
    ) -> dict[str, Any]:
        said = await self._client.call_tool_mcp(tool, arguments, progress_handler=progress)
        return result(said.is_error, said.content, said.structured_content)


@asynccontextmanager
async def open_session(url: str, mode: str, headers: dict[str, str]) -> AsyncIterator[FastMcp]:
    transport = transports.StreamableHttpTransport(url, headers=headers)
    async with fastmcp.Client(transport, mode=mode) as client:
        yield FastMcp(client)


if __name__ == "__main__":
    main(open_session)
