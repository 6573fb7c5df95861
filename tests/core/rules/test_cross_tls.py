"""What does not fit together about TLS."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.core.rules.cross_tls import of_tls
from tests.rules_kit import document, rules


def told(url: str | None = "https://mcp.internal/mcp", **tls: Any) -> list[str]:
    backends = document()["backends"]
    backends["mcp"] = {**backends["mcp"], "url": url, "tls": tls}
    if url is None:
        backends["mcp"]["handler"] = "demo"
    return [f"{one.dotted}: {one.message}" for one in of_tls(rules(backends=backends))]


@pytest.mark.parametrize(
    "tls",
    [{}, {"ca_file": "/ca"}, {"cert_file": "/c"}, {"cert_file": "/c", "key_file": "/k"}],
    ids=str,
)
def test_what_makes_sense_is_not_told(tls: dict[str, str]) -> None:
    assert told(**tls) == []


def test_a_key_needs_its_certificate() -> None:
    assert told(key_file="/k") == [
        "backends.mcp.tls.key_file: there is no certificate for this key"
    ]


@pytest.mark.parametrize(
    "tls", [{"ca_file": "/ca"}, {"cert_file": "/c"}, {"server_name": "mcp.internal"}], ids=str
)
@pytest.mark.parametrize(
    ("url", "why"), [("http://mcp.internal/mcp", "its url is not https"), (None, "it has no url")]
)
def test_files_for_a_leg_that_is_not_encrypted_are_no_mutual_tls(
    url: str | None, why: str, tls: dict[str, str]
) -> None:
    """Whoever wrote them believes that nobody can listen."""
    assert told(url, **tls) == [f"backends.mcp.tls: nothing is encrypted here: {why}"]
    assert told(url) == []
