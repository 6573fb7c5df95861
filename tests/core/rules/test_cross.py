from __future__ import annotations

from typing import Any

import pytest

from proxy.core.rules.cross import contradictions
from proxy.core.rules.finding import Finding
from tests.rules_kit import document, rules


def found(**sections: Any) -> list[Finding]:
    return contradictions(rules(**sections))


def told(**sections: Any) -> list[tuple[str, str]]:
    return [(finding.dotted, finding.message) for finding in found(**sections)]


def backends(**changes: dict[str, Any]) -> dict[str, Any]:
    entries: dict[str, Any] = document()["backends"]
    return entries | changes


def test_the_smallest_rules_contradict_nothing() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("sections", "path"),
    [
        ({"split": {"to": "mpc"}}, "split.to"),
        ({"split": {"otherwise": "mpc"}}, "split.otherwise"),
        ({"passthrough": "mpc"}, "passthrough"),
        ({"split": {"overrides": [{"when": {"agent_id": "a"}, "to": "mpc"}]}},
         "split.overrides.0.to"),
    ],
)  # fmt: skip
def test_an_unknown_backend_is_refused_with_a_hint(sections: dict[str, Any], path: str) -> None:
    (finding,) = found(**sections)

    assert finding.dotted == path
    assert finding.message == "no backend is named 'mpc'"
    assert finding.hint == "did you mean 'mcp'?"


def test_without_a_likeness_the_backends_are_listed() -> None:
    (finding,) = found(passthrough="zzz")
    assert finding.hint == "backends here: mcp, webhook"


def test_both_arms_cannot_be_the_same() -> None:
    assert ("split.otherwise", "both arms are 'mcp'") in told(split={"otherwise": "mcp"})


def test_an_override_has_one_of_to_and_percent() -> None:
    one = {"when": {"agent_id": "a"}}
    for override in (one, one | {"to": "mcp", "percent": 5}):
        assert told(split={"overrides": [override]}) == [
            ("split.overrides.0", "an override has either `to` or `percent`")
        ]


def test_an_override_chooses_between_the_two_arms() -> None:
    third = {"handler": "webhook", "url": "http://a/"}
    override = {"when": {"agent_id": "a"}, "to": "third"}
    (finding,) = found(backends=backends(third=third), split={"overrides": [override]})

    assert finding.message == "'third' is no arm of this split"
    assert finding.hint == "an override chooses mcp or webhook"


@pytest.mark.parametrize("when", [{"tool": "book"}, {"any": [{"header.x-a": "1"}]}])
def test_what_differs_within_a_call_cannot_bring_it_to_the_new_arm(when: dict[str, Any]) -> None:
    for target in ({"to": "mcp"}, {"percent": 5}):
        (finding,) = found(split={"overrides": [{"when": when, **target}]})
        assert finding.dotted == "split.overrides.0.when"
    assert found(split={"overrides": [{"when": when, "to": "webhook"}]}) == []


@pytest.mark.parametrize(
    ("when", "path", "message", "at_key"),
    [
        ({}, "when", "`when` names no field, so it would match every call", False),
        ({"agnt_id": "a"}, "when.agnt_id", "'agnt_id' is no field", True),
        ({"agent_id": {"inn": ["a"]}}, "when.agent_id.inn", "'inn' is no test", True),
        ({"agent_id": {"in": [None]}}, "when.agent_id.in.0",
         "item 1: nothing equals null", False),
    ],
)  # fmt: skip
def test_a_faulty_when_is_told_by_its_place(
    when: dict[str, Any], path: str, message: str, at_key: bool
) -> None:
    (finding,) = found(split={"overrides": [{"when": when, "to": "webhook"}]})

    assert finding.dotted == f"split.overrides.0.{path}"
    assert finding.message == message
    assert finding.at_key is at_key


@pytest.mark.parametrize("name", ["none", "other"])
def test_a_backend_cannot_be_named_like_no_arm(name: str) -> None:
    entry = {"handler": "demo"}
    assert [path for path, _ in told(backends=backends(**{name: entry}))] == [f"backends.{name}"]


@pytest.mark.parametrize("handler", ["webhook", "mcp", "tools"])
def test_a_handler_that_sends_needs_a_url(handler: str) -> None:
    message = f"a backend with handler {handler} needs a url"
    assert ("backends.extra", message) in told(backends=backends(extra={"handler": handler}))


def test_nothing_can_be_passed_through_to_nowhere() -> None:
    entries = backends(extra={"handler": "demo"})
    assert told(backends=entries, passthrough="extra") == [
        ("passthrough", "'extra' has no url to pass requests to")
    ]


def test_a_webhook_without_a_key_to_sign_with_is_a_warning() -> None:
    entries = backends(webhook={"handler": "webhook", "url": "http://a/"})
    (finding,) = found(backends=entries)

    assert finding.warning
    assert finding.dotted == "backends.webhook"
    assert found(backends=entries | {"mcp": {"handler": "webhook", "url": "http://b/"}}) == []


def test_what_is_said_of_kept_answers_is_looked_at_too() -> None:
    tools = {"get_slots": {"effect": "read"}, "book": {"invalidates": ["get_slots", "get_slot"]}}

    assert [path for path, _ in told(tools=tools)] == ["tools.book.invalidates.1"]


def test_a_tools_name_is_for_an_arm_that_exists() -> None:
    (finding,) = found(tools={"book": {"names": {"mpc": "x", "webhook": "y"}}})

    assert (finding.dotted, finding.at_key) == ("tools.book.names.mpc", True)


def test_two_listeners_cannot_share_an_address() -> None:
    listen = {"address": "127.0.0.1:9901", "observe": "127.0.0.1:9901"}
    assert told(listen=listen) == [
        ("listen.observe", "127.0.0.1:9901 is taken by listen.address already"),
        ("admin.address", "127.0.0.1:9901 is taken by listen.address already"),
    ]


def test_any_free_port_is_never_taken() -> None:
    assert told(listen={"address": "127.0.0.1:0"}, admin={"address": "127.0.0.1:0"}) == []


def test_only_a_tool_that_reads_can_be_asked_of_both_arms() -> None:
    tools = {"slots": {"effect": "read", "hedge": True}, "book": {"hedge": True}}
    assert told(tools=tools) == [
        ("tools.book.hedge", "both arms would run 'book', whose effect is write")
    ]
    reading = {"default": {"effect": "read", "hedge": True}, "slots": {"hedge": True}}
    assert told(tools=reading) == []


def test_a_default_hedges_those_tools_that_read() -> None:
    assert told(tools={"default": {"hedge": True}, "slots": {"effect": "read"}}) == []
