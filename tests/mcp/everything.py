"""The everything-server: what the conformance suite asks of an MCP server, in both eras.

`python -m tests.mcp.everything --port 0` prints its port and serves at `/mcp`: the modern era
without a handshake, the legacy one with sessions.  Written for the suite's scenarios, as an
upstream that a proxy must not lose anything of.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import warnings
from typing import Any

import mcp_types as types
import uvicorn
from mcp.server.caching import CacheHint
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp.shared.subscriptions import PromptsListChanged, ToolsListChanged
from starlette.applications import Starlette

import tests.mcp.everything_rounds  # noqa: F401  # Enters its tools.
from tests.mcp import everything_texts as texts
from tests.mcp.everything_tools import TOOLS, Context, Entry, Outcome, Params, entry, told

NAME = "callsplit-everything"
RETRY_MS = 100
"""How soon a caller whom we hung up on may come back."""

WORDS = ("paris", "park", "party", "test", "testing")


class Everything:
    """The handlers, and what they know from one request to the next."""

    def __init__(self) -> None:
        self.bus = InMemorySubscriptionBus()
        self.watched: set[str] = set()
        self.prompts = dict(texts.PROMPTS)
        self.tools = TOOLS | {
            "test_trigger_tool_change": entry(
                "test_trigger_tool_change", "Adds a tool, or takes it away.", self.change_tools
            ),
            "test_trigger_prompt_change": entry(
                "test_trigger_prompt_change", "Adds a prompt, or takes it away.",
                self.change_prompts,
            ),
        }  # fmt: skip

    def server(self) -> Server[dict[str, Any]]:
        """An SDK server with these handlers."""
        server = Server(
            NAME,
            version="1.0.0",
            cache_hints={"tools/list": CacheHint(ttl_ms=1000, scope="public")},
            get_tool_input_schema=self.schema_of,
            on_list_tools=self.list_tools,
            on_call_tool=self.call_tool,
            on_list_prompts=self.list_prompts,
            on_get_prompt=self.get_prompt,
            on_list_resources=self.list_resources,
            on_list_resource_templates=self.list_templates,
            on_read_resource=self.read_resource,
            on_subscribe_resource=self.subscribe,
            on_unsubscribe_resource=self.unsubscribe,
            on_subscriptions_listen=ListenHandler(self.bus),
            on_completion=self.complete,
        )
        server.add_request_handler("logging/setLevel", types.SetLevelRequestParams, self.set_level)
        seal = RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=NAME)
        server.middleware.append(seal)
        return server

    # -- Tools.

    async def list_tools(self, _: Context, __: object) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[each.listed for each in self.tools.values()])

    async def call_tool(self, ctx: Context, params: Params) -> Outcome:
        found = self.tools.get(params.name)
        if found is None:
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}")
        return await found.run(ctx, params)

    def schema_of(self, name: str) -> dict[str, Any] | None:
        """What `Mcp-Param-*` headers are held against."""
        found = self.tools.get(name)
        return found.listed.input_schema if found else None

    async def change_tools(self, _: Context, __: Params) -> Outcome:
        if self.tools.pop(LATER.listed.name, None) is None:
            self.tools[LATER.listed.name] = LATER
        await self.bus.publish(ToolsListChanged())
        return told("The list of tools has changed.")

    async def change_prompts(self, _: Context, __: Params) -> Outcome:
        name = texts.LATER[0].name
        if self.prompts.pop(name, None) is None:
            self.prompts[name] = texts.LATER
        await self.bus.publish(PromptsListChanged())
        return told("The list of prompts has changed.")

    # -- Prompts.

    async def list_prompts(self, _: Context, __: object) -> types.ListPromptsResult:
        return types.ListPromptsResult(prompts=[listed for listed, _ in self.prompts.values()])

    async def get_prompt(self, _: Context, params: texts.Asked) -> texts.Spoken:
        found = self.prompts.get(params.name)
        if found is None:
            raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {params.name}")
        return found[1](params)

    # -- Resources.

    async def list_resources(self, _: Context, __: object) -> types.ListResourcesResult:
        return types.ListResourcesResult(resources=texts.RESOURCES)

    async def list_templates(self, _: Context, __: object) -> types.ListResourceTemplatesResult:
        return types.ListResourceTemplatesResult(resource_templates=texts.TEMPLATES)

    async def read_resource(
        self, _: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        return types.ReadResourceResult(contents=[texts.contents(params.uri)])

    async def subscribe(
        self, _: Context, params: types.SubscribeRequestParams
    ) -> types.EmptyResult:
        self.watched.add(params.uri)
        return types.EmptyResult()

    async def unsubscribe(
        self, _: Context, params: types.UnsubscribeRequestParams
    ) -> types.EmptyResult:
        self.watched.discard(params.uri)
        return types.EmptyResult()

    # -- The rest.

    async def complete(
        self, _: Context, params: types.CompleteRequestParams
    ) -> types.CompleteResult:
        fitting = [word for word in WORDS if word.startswith(params.argument.value)]
        return types.CompleteResult(
            completion=types.Completion(values=fitting, total=len(fitting), has_more=False)
        )

    async def set_level(self, _: Context, __: types.SetLevelRequestParams) -> types.EmptyResult:
        """Accepted; all that is ever logged here is of level info."""
        return types.EmptyResult()


async def came_later(_: Context, __: Params) -> Outcome:
    return told("I was added.")


LATER: Entry = entry("test_came_later", "Was added by test_trigger_tool_change.", came_later)


class Events(EventStore):
    """Keeps what was sent on each stream, so that a caller who comes back misses nothing."""

    def __init__(self) -> None:
        self._kept: list[tuple[str, types.JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: types.JSONRPCMessage | None) -> str:
        self._kept.append((stream_id, message))
        return str(len(self._kept))

    async def replay_events_after(
        self, last_event_id: str, send_callback: EventCallback
    ) -> str | None:
        if not last_event_id.isdecimal() or not 0 < int(last_event_id) <= len(self._kept):
            return None
        stream = self._kept[int(last_event_id) - 1][0]
        for number, (other, message) in enumerate(self._kept, start=1):
            if number > int(last_event_id) and other == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


def application() -> Starlette:
    """Both eras at `/mcp`; only loopback names pass as Host and Origin."""
    server = Everything().server()
    return server.streamable_http_app(event_store=Events(), retry_interval=RETRY_MS)


async def serve(port: int) -> None:
    """Serve until told to stop; prints the port once connections are welcome."""
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(
        application(),
        http="h11",  # httptools leaves the whitespace behind a header's value.
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
    await uvicorn.Server(config).serve(sockets=[listener])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="MCP server for the conformance suite")
    parser.add_argument("--port", type=int, default=0, help="default: any free one")
    warnings.simplefilter("ignore", MCPDeprecationWarning)  # The legacy era is the point.
    asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
