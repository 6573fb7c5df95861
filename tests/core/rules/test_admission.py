from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from proxy.core.model import Kind
from proxy.core.requirement import Requirement as Need
from proxy.core.rules import SecretRef
from proxy.core.rules.admission import requirements, start_faults, start_warnings
from tests.rules_kit import rules

AUTH: dict[str, Any] = {
    "tokens": ["env:TOKEN?"],
    "retell_keys": ["env:KEY?"],
    "require": {
        "event": ["signature"],
        "inbound": ["signature"],
        "function": ["signature"],
        "alert": ["signature"],
        "args": ["signature", "token"],
        "tools": ["token"],
        "mcp": {"all": ["token"]},
    },
}
OPEN = dict.fromkeys(AUTH["require"], "none")


def has(*names: str) -> Callable[[SecretRef], bool]:
    return lambda ref: ref.ref.removeprefix("env:") in names


def test_on_this_machine_rules_start_without_a_word_about_who_may_ask() -> None:
    assert start_faults(rules(), has()) == []


@pytest.mark.parametrize("address", ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:80"])
def test_an_open_kind_on_a_public_listener_needs_none_written_out(address: str) -> None:
    listen = {"address": address}
    (fault,) = start_faults(rules(listen=listen), has())

    assert fault.startswith("listen.address")
    assert all(kind in fault for kind in AUTH["require"])
    assert start_faults(rules(listen=listen, auth={"require": OPEN}), has()) == []


def test_a_kind_that_its_paths_other_rules_cover_is_not_open() -> None:
    """Events share their path with functions: what is not listed needs all the others' rules."""
    auth = AUTH | {"require": {"function": ["signature"]}}
    listen = {"address": "0.0.0.0:8080"}
    (fault,) = start_faults(rules(listen=listen, auth=auth), has("KEY"))

    assert "ask for mcp, tools:" in fault


def test_a_credential_that_nobody_can_present_stops_the_start() -> None:
    assert start_faults(rules(auth=AUTH), has("TOKEN", "KEY")) == []
    without_key = start_faults(rules(auth=AUTH), has("TOKEN"))

    assert [fault.split(":")[0] for fault in without_key] == [
        f"auth.require.{kind}" for kind in ("alert", "event", "function", "inbound")
    ]


def test_one_of_two_credentials_is_enough_where_either_will_do() -> None:
    auth = AUTH | {"require": {"args": ["signature", "token"]}}
    for usable in ("TOKEN", "KEY"):
        assert start_faults(rules(auth=auth), has(usable)) == []
    (fault,) = start_faults(rules(auth=auth), has())
    assert "needs signature or token" in fault


def test_both_credentials_are_needed_where_both_are_asked_for() -> None:
    auth = AUTH | {"require": {"args": {"all": ["signature", "token"]}}}
    (fault,) = start_faults(rules(auth=auth), has("TOKEN"))

    assert "needs signature and token" in fault
    assert "auth.retell_keys or auth.tokens" in fault


def test_a_missing_key_is_named_by_its_own_list() -> None:
    auth = AUTH | {"require": {"event": ["signature"]}}
    (fault,) = start_faults(rules(auth=auth), has("TOKEN"))

    assert fault.endswith("a secret that auth.retell_keys refers to")


def test_a_secret_that_must_be_there_and_is_not_stops_the_start() -> None:
    backend = {"handler": "mcp", "url": "http://a/", "bearer": "env:UPSTREAM"}
    written = rules(backends=rules().model_dump(mode="json")["backends"] | {"mcp": backend})

    assert start_faults(written, has()) == [
        "backends.mcp.bearer: env:UPSTREAM is not set or empty (with ? at its end it may be absent)"
    ]
    assert start_faults(written, has("UPSTREAM")) == []


@pytest.mark.row("A9")
def test_a_public_admin_is_warned_of_for_its_token_can_be_read() -> None:
    def about(address: str) -> list[str]:
        told = start_warnings(rules(admin={"address": address, "token": "env:A"}), has("A"))
        return [one for one in told if one.startswith("admin.address")]

    assert about("127.0.0.1:9901") == about("[::1]:9901") == []
    assert "ssh -L" in about("10.0.0.5:9901")[0]


def test_a_public_admin_needs_a_token_that_is_there() -> None:
    admin = {"address": "0.0.0.0:9901", "token": "env:ADMIN?"}

    assert start_faults(rules(admin=admin), has("ADMIN")) == []
    for faulty in (rules(admin=admin), rules(admin={"address": "0.0.0.0:9901"})):
        (fault,) = start_faults(faulty, has())
        assert fault.startswith("admin.address")


def test_credentials_that_nobody_asks_for_are_pointed_out() -> None:
    idle = rules(auth={"tokens": ["env:TOKEN?"], "retell_keys": ["env:KEY?"]})

    told = start_warnings(idle, has("TOKEN", "KEY"))
    assert len([text for text in told if text.startswith("auth.require")]) == 2
    assert start_warnings(idle, has()) == []
    assert start_warnings(rules(auth=AUTH), has("TOKEN", "KEY", "RETELL_API_KEY")) == []


def test_a_split_without_a_secret_salt_is_pointed_out() -> None:
    for salt in ("", "pepper", "env:SALT?"):
        (warning,) = start_warnings(rules(split={"percent": 10, "salt": salt}), has())
        assert warning.startswith("split.salt")
    assert start_warnings(rules(split={"percent": 10, "salt": "env:SALT?"}), has("SALT")) == []
    assert start_warnings(rules(split={"percent": 100}), has()) == []


def test_requirements_reach_the_edge_unchanged() -> None:
    found = requirements(rules(auth=AUTH))

    assert found[Kind.ARGS] == Need.any_of(["token", "signature"])
    assert found[Kind.MCP] == Need.all_of(["token"])
    assert Kind.LLM not in found


SIGNED = {"retell_keys": ["env:KEY?"], "require": {"event": ["signature"]}}
SIGNING = {"handler": "webhook", "url": "http://127.0.0.1:8000/hook", "sign": "env:KEY?"}


def stale(**sections: Any) -> list[str]:
    given = rules(**{"auth": SIGNED, **sections})
    return [text for text in start_warnings(given, has("KEY")) if "outbox" in text]


def test_events_that_wait_behind_a_webhook_without_a_key_to_sign_are_warned_about() -> None:
    """Retell's own signature is stale after 5 minutes; nothing could make another."""
    (warning,) = stale()
    assert warning.startswith("backends.webhook.sign: not set")

    unset = SIGNING | {"sign": "env:ANOTHER?"}
    assert stale(backends={"mcp": SIGNING, "webhook": unset})


def test_nobody_is_warned_whose_events_are_not_signed_signed_anew_or_not_kept() -> None:
    assert not stale(auth={})
    assert not stale(backends={"mcp": SIGNING, "webhook": SIGNING})
    assert not stale(backends={"mcp": SIGNING, "webhook": {"handler": "demo"}})
    assert not stale(outbox={"enabled": False})


def test_a_backend_that_leads_back_here_is_warned_about() -> None:
    listen = {"address": "127.0.0.1:8000"}
    warnings = start_warnings(rules(listen=listen, split={"percent": 0}), has())

    assert [text for text in warnings if "own listen.address" in text] == [
        "backends.mcp.url: http://127.0.0.1:8000/mcp is this sidecar's own listen.address",
        "backends.webhook.url: http://127.0.0.1:8000/hook is this sidecar's own listen.address",
    ]


@pytest.mark.parametrize(
    "listen", [{"address": "0.0.0.0:8080"}, {"trusted_proxies": ["127.0.0.1/32"]}]
)
def test_what_is_open_to_others_is_pointed_out(listen: dict[str, Any]) -> None:
    """A proxy on this machine lets in what comes from anywhere."""

    def told(**require: Any) -> list[str]:
        auth = AUTH | {"require": AUTH["require"] | require}
        return start_warnings(
            rules(listen=listen, auth=auth), has("TOKEN", "KEY", "RETELL_API_KEY")
        )

    assert told() == []
    (some,) = told(alert="none", event=["none"])
    assert some.startswith("auth.require: whoever reaches")
    assert some.endswith("may ask for alert, event, unproved")
    (every,) = start_warnings(rules(listen=listen, auth={"require": OPEN}), has())
    assert every.endswith("may ask for anything, unproved")


def test_what_is_open_to_this_machine_alone_is_not() -> None:
    assert start_warnings(rules(), has()) == []
