"""Which prompts and resources does the everything-server offer?  The suite's, word for word."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TypeAlias

import mcp_types as types
from mcp.shared.exceptions import MCPError

from tests.mcp.everything_rounds import CONTEXT, again, filled, question
from tests.mcp.everything_tools import PNG, embedded

Asked: TypeAlias = types.GetPromptRequestParams
Spoken: TypeAlias = types.GetPromptResult | types.InputRequiredResult
Contents: TypeAlias = types.TextResourceContents | types.BlobResourceContents

TEMPLATE = re.compile(r"test://template/([^/]+)/data")


def spoken(*blocks: types.ContentBlock) -> types.GetPromptResult:
    """A prompt of these blocks, each a message of the user's."""
    return types.GetPromptResult(
        messages=[types.PromptMessage(role="user", content=block) for block in blocks]
    )


def text(words: str) -> types.TextContent:
    """A block of text."""
    return types.TextContent(text=words)


def simple(_: Asked) -> Spoken:
    return spoken(text("This is a simple prompt for testing."))


def with_arguments(asked: Asked) -> Spoken:
    given = asked.arguments or {}
    one, two = given.get("arg1"), given.get("arg2")
    return spoken(text(f"Prompt with arguments: arg1='{one}', arg2='{two}'"))


def with_resource(asked: Asked) -> Spoken:
    uri = (asked.arguments or {}).get("resourceUri", "test://example-resource")
    inside = embedded(uri, "text/plain", "Embedded resource content for testing.")
    return spoken(inside, text("Please process the embedded resource above."))


def with_image(_: Asked) -> Spoken:
    image = types.ImageContent(data=PNG, mime_type="image/png")
    return spoken(image, text("Please analyze the image above."))


def with_input(asked: Asked) -> Spoken:
    reply = filled(asked, "user_context")
    if reply is None:
        return again({"user_context": question("What context should the prompt use?", CONTEXT)})
    return spoken(text(f"The context: {reply.get('context')}"))


def came_later(_: Asked) -> Spoken:
    return spoken(text("I was added."))


def listed(name: str, about: str, **arguments: str) -> types.Prompt:
    """A prompt as it is listed; every argument is required."""
    takes = [
        types.PromptArgument(name=each, description=what, required=True)
        for each, what in arguments.items()
    ]
    return types.Prompt(name=name, description=about, arguments=takes or None)


PROMPTS: dict[str, tuple[types.Prompt, Callable[[Asked], Spoken]]] = {
    prompt.name: (prompt, speak)
    for prompt, speak in (
        (listed("test_simple_prompt", "One text."), simple),
        (
            listed(
                "test_prompt_with_arguments", "A text with two arguments in it.",
                arg1="First test argument", arg2="Second test argument",
            ),
            with_arguments,
        ),
        (
            listed(
                "test_prompt_with_embedded_resource", "A resource and a text.",
                resourceUri="URI of the resource to embed",
            ),
            with_resource,
        ),
        (listed("test_prompt_with_image", "An image and a text."), with_image),
        (listed("test_input_required_result_prompt", "Asks back first."), with_input),
    )
}  # fmt: skip
LATER = listed("test_came_later", "Was added by test_trigger_prompt_change."), came_later

RESOURCES = [
    types.Resource(
        uri="test://static-text", name="static-text", description="A text.", mime_type="text/plain"
    ),
    types.Resource(
        uri="test://static-binary", name="static-binary", description="An image.",
        mime_type="image/png",
    ),
    types.Resource(
        uri="test://watched-resource", name="watched-resource", description="To subscribe to.",
        mime_type="text/plain",
    ),
]  # fmt: skip
TEMPLATES = [
    types.ResourceTemplate(
        uri_template="test://template/{id}/data", name="template", description="Data by ID.",
        mime_type="application/json",
    )
]  # fmt: skip


def contents(uri: str) -> Contents:
    """What is behind a URI.  Raises `MCPError` if that is nothing."""
    match = TEMPLATE.fullmatch(uri)
    if match:
        own = match[1]
        data = {"id": own, "templateTest": True, "data": f"Data for ID: {own}"}
        return words(uri, json.dumps(data), "application/json")
    if uri == "test://static-text":
        return words(uri, "This is the content of the static text resource.")
    if uri == "test://watched-resource":
        return words(uri, "This resource can be watched.")
    if uri == "test://static-binary":
        return types.BlobResourceContents(uri=uri, mime_type="image/png", blob=PNG)
    raise MCPError(types.INVALID_PARAMS, "Resource not found", {"uri": uri})


def words(uri: str, inside: str, mime_type: str = "text/plain") -> Contents:
    """A resource of text."""
    return types.TextResourceContents(uri=uri, mime_type=mime_type, text=inside)
