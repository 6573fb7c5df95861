"""What does each tool of the everything-server do?  Names and texts are the conformance suite's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata

Context: TypeAlias = ServerRequestContext[Any]
Params: TypeAlias = types.CallToolRequestParams
Outcome: TypeAlias = types.CallToolResult | types.InputRequiredResult
Run: TypeAlias = Callable[[Context, Params], Awaitable[Outcome]]

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAA"
    "DUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
"""One red pixel."""

WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
"""One silent sample."""

SIMPLE_TEXT = "This is a simple text response for testing."
ERROR_TEXT = "This tool intentionally returns an error for testing"
PAUSE = 0.05
"""Seconds between the steps of a tool that reports them."""

NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}
PERSON = {
    "username": {"type": "string", "description": "User's response"},
    "email": {"type": "string", "description": "User's email address"},
}
DEFAULTS: dict[str, Any] = {
    "name": {"type": "string", "default": "John Doe"},
    "age": {"type": "integer", "default": 30},
    "score": {"type": "number", "default": 95.5},
    "status": {
        "type": "string", "enum": ["active", "inactive", "pending"], "default": "active",
    },
    "verified": {"type": "boolean", "default": True},
}  # fmt: skip
TITLED = [
    {"const": "value1", "title": "First"},
    {"const": "value2", "title": "Second"},
    {"const": "value3", "title": "Third"},
]
OPTIONS = ["option1", "option2", "option3"]
ENUMS: dict[str, Any] = {
    "untitledSingle": {"type": "string", "enum": OPTIONS},
    "titledSingle": {"type": "string", "oneOf": TITLED},
    "legacyEnum": {
        "type": "string", "enum": ["opt1", "opt2", "opt3"],
        "enumNames": ["Option One", "Option Two", "Option Three"],
    },
    "untitledMulti": {"type": "array", "items": {"type": "string", "enum": OPTIONS}},
    "titledMulti": {"type": "array", "items": {"anyOf": TITLED}},
}  # fmt: skip
CONTACT: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
REGION: dict[str, Any] = {
    "type": "object",
    "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
    "required": ["region"],
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A tool as it is listed, and what runs when it is called."""

    listed: types.Tool
    run: Run


TOOLS: dict[str, Entry] = {}
"""In the order in which they are listed."""


def entry(
    name: str, about: str, run: Run, *, schema: dict[str, Any] = NO_ARGUMENTS, reads: bool = False
) -> Entry:
    """A tool; `reads` hints that it changes nothing."""
    hints = types.ToolAnnotations(read_only_hint=True) if reads else None
    listed = types.Tool(name=name, description=about, input_schema=schema, annotations=hints)
    return Entry(listed, run)


def tool(
    name: str, about: str, schema: dict[str, Any] = NO_ARGUMENTS, *, reads: bool = False
) -> Callable[[Run], Run]:
    """Enter the function below as a tool."""

    def enter(run: Run) -> Run:
        TOOLS[name] = entry(name, about, run, schema=schema, reads=reads)
        return run

    return enter


def told(text: str, *, is_error: bool = False) -> types.CallToolResult:
    """A result of one text."""
    return types.CallToolResult(content=[types.TextContent(text=text)], is_error=is_error)


def shown(*content: types.ContentBlock) -> types.CallToolResult:
    """A result of these blocks."""
    return types.CallToolResult(content=list(content))


# -- Content of every type.


@tool("test_simple_text", "Returns a text.", reads=True)
async def simple_text(_: Context, __: Params) -> Outcome:
    return told(SIMPLE_TEXT)


@tool("test_image_content", "Returns an image.", reads=True)
async def image_content(_: Context, __: Params) -> Outcome:
    return shown(types.ImageContent(data=PNG, mime_type="image/png"))


@tool("test_audio_content", "Returns a sound.", reads=True)
async def audio_content(_: Context, __: Params) -> Outcome:
    return shown(types.AudioContent(data=WAV, mime_type="audio/wav"))


@tool("test_embedded_resource", "Returns a resource inside the result.", reads=True)
async def embedded_resource(_: Context, __: Params) -> Outcome:
    return shown(
        embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")
    )


@tool("test_multiple_content_types", "Returns a text, an image and a resource.", reads=True)
async def multiple_content_types(_: Context, __: Params) -> Outcome:
    return shown(
        types.TextContent(text="Multiple content types test:"),
        types.ImageContent(data=PNG, mime_type="image/png"),
        embedded(
            "test://mixed-content-resource", "application/json", '{"test":"data","value":123}'
        ),
    )


def embedded(uri: str, mime_type: str, text: str) -> types.EmbeddedResource:
    """A resource of text as a block of content."""
    inside = types.TextResourceContents(uri=uri, mime_type=mime_type, text=text)
    return types.EmbeddedResource(resource=inside)


@tool("test_error_handling", "Always fails.")
async def error_handling(_: Context, __: Params) -> Outcome:
    return told(ERROR_TEXT, is_error=True)


# -- Notifications on the way to a result.


@tool("test_tool_with_logging", "Logs three messages while it works.", reads=True)
async def tool_with_logging(ctx: Context, _: Params) -> Outcome:
    await log(ctx, "Tool execution started")
    await asyncio.sleep(PAUSE)
    await log(ctx, "Tool processing data")
    await asyncio.sleep(PAUSE)
    await log(ctx, "Tool execution completed")
    return told("Three messages were logged.")


@tool("test_logging_tool", "Logs one message, where the caller wants to hear it.", reads=True)
async def logging_tool(ctx: Context, _: Params) -> Outcome:
    await log(ctx, "One message")
    return told("One message was logged, if you asked for it.")


async def log(ctx: Context, text: str) -> None:
    """Tell the caller at level info; a modern caller must have asked for it."""
    await ctx.session.send_log_message("info", text, related_request_id=ctx.request_id)


@tool("test_tool_with_progress", "Reports its progress, if asked to.", reads=True)
async def tool_with_progress(ctx: Context, _: Params) -> Outcome:
    for progress in (0, 50, 100):
        await ctx.session.report_progress(progress, 100)
        await asyncio.sleep(PAUSE)
    return told("Done, in three steps.")


@tool(
    "test_reconnection",
    "Hangs up in the middle; the answer waits for the caller to come back.",
    reads=True,
)
async def reconnection(ctx: Context, _: Params) -> Outcome:
    if ctx.close_sse_stream is not None:
        await ctx.close_sse_stream()
        await asyncio.sleep(PAUSE)
    return told("You came back.")


# -- Requests of the server to a legacy client.


@tool(
    "test_sampling",
    "Asks the client's model.",
    {"type": "object", "properties": {"prompt": {"type": "string"}}, "required": ["prompt"]},
)
async def sampling(ctx: Context, params: Params) -> Outcome:
    prompt = types.TextContent(text=str((params.arguments or {}).get("prompt")))
    ask = types.CreateMessageRequest(
        params=types.CreateMessageRequestParams(
            messages=[types.SamplingMessage(role="user", content=prompt)], max_tokens=100
        )
    )
    said = await ctx.session.send_request(ask, types.CreateMessageResult, metadata=within(ctx))
    return told(f"LLM response: {said.content.model_dump_json(exclude_none=True)}")


def within(ctx: Context) -> ServerMessageMetadata:
    """That a message belongs to the request under way, and so onto its stream."""
    return ServerMessageMetadata(related_request_id=ctx.request_id)


@tool(
    "test_elicitation",
    "Asks the user who they are.",
    {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]},
)
async def elicitation(ctx: Context, params: Params) -> Outcome:
    message = str((params.arguments or {}).get("message"))
    return told(f"User response: {await asked(ctx, message, PERSON, list(PERSON))}")


@tool("test_elicitation_sep1034_defaults", "Asks the user, with a default for every type.")
async def elicitation_sep1034_defaults(ctx: Context, _: Params) -> Outcome:
    return told(f"Elicitation completed: {await asked(ctx, 'Please look this over.', DEFAULTS)}")


@tool("test_elicitation_sep1330_enums", "Asks the user to choose, in every way there is.")
async def elicitation_sep1330_enums(ctx: Context, _: Params) -> Outcome:
    return told(f"Elicitation completed: {await asked(ctx, 'Please choose.', ENUMS)}")


async def asked(
    ctx: Context, message: str, properties: dict[str, Any], required: list[str] | None = None
) -> str:
    """What the user did and said."""
    schema = form(properties, required)
    said = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_id)
    return f"action={said.action}, content={said.content}"


def form(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    """The schema of what a user is asked to fill in."""
    return {"type": "object", "properties": properties, "required": required or []}


# -- What only a modern caller meets.


@tool("test_missing_capability", "Needs a client that has a model.")
async def missing_capability(ctx: Context, _: Params) -> Outcome:
    declared = ctx.session.client_capabilities
    if declared is None or declared.sampling is None:
        needed = types.ClientCapabilities(sampling=types.SamplingCapability())
        raise MCPError(
            types.MISSING_REQUIRED_CLIENT_CAPABILITY,
            "This tool needs the sampling capability.",
            {"requiredCapabilities": needed.model_dump(by_alias=True, exclude_none=True)},
        )
    return told("You have a model.")


@tool(
    "json_schema_2020_12_tool",
    "Has a schema in the words of JSON Schema 2020-12.",
    CONTACT,
    reads=True,
)
async def json_schema_2020_12_tool(_: Context, params: Params) -> Outcome:
    return told(f"Called with {sorted(params.arguments or {})}.")


@tool("test_custom_header", "Has an argument that is repeated in a header.", REGION, reads=True)
async def custom_header(_: Context, params: Params) -> Outcome:
    return told(f"Region: {(params.arguments or {}).get('region')}")
