"""Which tools ask the caller back (SEP-2322), and what do they make of the replies?"""

from __future__ import annotations

from typing import Any

import mcp_types as types

from tests.mcp.everything_tools import Context, Outcome, Params, form, told, tool

NAME = {"name": {"type": "string"}}
COLOUR = {"color": {"type": "string"}}
YES = {"ok": {"type": "boolean"}}
CONTEXT = {"context": {"type": "string"}}


def again(requests: types.InputRequests, state: str | None = None) -> types.InputRequiredResult:
    """Not done yet: the caller is to come back with replies, and with `state`."""
    return types.InputRequiredResult(input_requests=requests, request_state=state)


def question(message: str, properties: dict[str, Any]) -> types.ElicitRequest:
    """For the user."""
    schema = form(properties, list(properties))
    return types.ElicitRequest(
        params=types.ElicitRequestFormParams(message=message, requested_schema=schema)
    )


def prompt(text: str, tokens: int) -> types.CreateMessageRequest:
    """For the client's model."""
    message = types.SamplingMessage(role="user", content=types.TextContent(text=text))
    return types.CreateMessageRequest(
        params=types.CreateMessageRequestParams(messages=[message], max_tokens=tokens)
    )


def filled(params: types.InputResponseRequestParams, key: str) -> dict[str, Any] | None:
    """What the user filled in under `key`; None if they did not."""
    reply = (params.input_responses or {}).get(key)
    return reply.content or {} if isinstance(reply, types.ElicitResult) else None


@tool("test_input_required_result_elicitation", "Asks for a name, then greets.")
async def asks_a_name(_: Context, params: Params) -> Outcome:
    reply = filled(params, "user_name")
    if reply is None:
        return again({"user_name": question("What is your name?", NAME)})
    return told(f"Hello, {reply.get('name')}!")


@tool(
    "test_streaming_elicitation", "Asks while it works, without a request of its own on the stream."
)
async def asks_on_the_stream(_: Context, params: Params) -> Outcome:
    if filled(params, "user_name") is None:
        return again({"user_name": question("What is your name?", NAME)})
    return told("Thank you.")


@tool("test_input_required_result_sampling", "Asks the client's model for a capital.")
async def asks_the_model(_: Context, params: Params) -> Outcome:
    reply = (params.input_responses or {}).get("capital_question")
    if not isinstance(reply, types.CreateMessageResult):
        return again({"capital_question": prompt("What is the capital of France?", 100)})
    return told(f"LLM response: {reply.content.model_dump_json(exclude_none=True)}")


@tool("test_input_required_result_list_roots", "Asks for the client's roots.")
async def asks_for_roots(_: Context, params: Params) -> Outcome:
    reply = (params.input_responses or {}).get("client_roots")
    if not isinstance(reply, types.ListRootsResult):
        return again({"client_roots": types.ListRootsRequest()})
    return told(f"Roots: {', '.join(str(root.uri) for root in reply.roots)}")


@tool("test_input_required_result_request_state", "Gives the caller a state to bring back.")
async def gives_a_state(_: Context, params: Params) -> Outcome:
    if params.request_state != "awaiting-confirm" or filled(params, "confirm") is None:
        return again({"confirm": question("Please confirm", YES)}, "awaiting-confirm")
    return told("state-ok")


@tool(
    "test_input_required_result_tampered_state",
    "Gives the caller a state that must come back as it was.",
)
async def gives_a_sealed_state(_: Context, params: Params) -> Outcome:
    """Only sealed states arrive here; a state with a broken seal was refused before."""
    if params.request_state != "sealed" or filled(params, "confirm") is None:
        return again({"confirm": question("Please confirm", YES)}, "sealed")
    return told("The seal is whole.")


@tool("test_input_required_result_multiple_inputs", "Asks for three things at once.")
async def asks_three_things(_: Context, params: Params) -> Outcome:
    wanted: types.InputRequests = {
        "user_name": question("What is your name?", NAME),
        "greeting": prompt("Generate a greeting", 50),
        "client_roots": types.ListRootsRequest(),
    }
    if wanted.keys() - (params.input_responses or {}).keys():
        return again(wanted, "three-asked")
    return told("All three replies are in.")


@tool("test_input_required_result_multi_round", "Asks twice, one thing after the other.")
async def asks_twice(_: Context, params: Params) -> Outcome:
    if params.request_state == "round-2" and filled(params, "step2") is not None:
        return told("Both rounds are done.")
    if params.request_state == "round-1" and filled(params, "step1") is not None:
        colour = question("Step 2: What is your favorite color?", COLOUR)
        return again({"step2": colour}, "round-2")
    return again({"step1": question("Step 1: What is your name?", NAME)}, "round-1")


@tool(
    "test_input_required_result_capabilities", "Asks only for what the client has said it can do."
)
async def asks_what_the_client_can(ctx: Context, params: Params) -> Outcome:
    able = ctx.session.client_capabilities or types.ClientCapabilities()
    wanted: types.InputRequests = {}
    if able.sampling is not None:
        wanted["greeting"] = prompt("Generate a greeting", 50)
    if able.elicitation is not None:
        wanted["user_name"] = question("What is your name?", NAME)
    if not wanted or not wanted.keys() - (params.input_responses or {}).keys():
        return told("There is nothing to ask for.")
    return again(wanted)
