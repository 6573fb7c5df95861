from __future__ import annotations

import pytest

from proxy.core.rules.circles import circles
from tests.rules_kit import rules


def found(url: str, listening: str, **sections: object) -> list[str]:
    backends = {
        "mcp": {"handler": "demo"},
        "webhook": {"handler": "webhook", "url": url, "sign": "env:KEY?"},
    }
    return list(circles(rules(backends=backends, listen={"address": listening}, **sections)))


@pytest.mark.parametrize(
    ("url", "listening"),
    [
        ("http://127.0.0.1:8080/hook", "127.0.0.1:8080"),
        ("http://localhost:8080", "127.0.0.1:8080"),
        ("http://LOCALHOST.:8080/", "127.0.0.1:8080"),
        ("http://127.0.0.1:8080", "0.0.0.0:8080"),
        ("http://localhost:8080", "0.0.0.0:8080"),
        ("http://127.0.0.2:8080", "[::]:8080"),
        ("http://[::1]:8080", "[::]:8080"),
        ("http://[::1]:8080", "[::1]:8080"),
        ("http://127.0.0.1:8080", "localhost:8080"),
        ("http://[::1]:8080", "localhost:8080"),
        ("http://0.0.0.0:8080", "0.0.0.0:8080"),
        ("http://10.1.2.3/", "10.1.2.3:80"),
        ("https://10.1.2.3/", "10.1.2.3:443"),
    ],
)
def test_an_url_that_leads_back_here_is_told(url: str, listening: str) -> None:
    assert found(url, listening) == [
        f"backends.webhook.url: {url} is this sidecar's own listen.address"
    ]


@pytest.mark.parametrize(
    ("url", "listening"),
    [
        ("http://127.0.0.1:8081/hook", "127.0.0.1:8080"),
        ("http://127.0.0.2:8080/hook", "127.0.0.1:8080"),
        ("http://10.1.2.3:8080", "127.0.0.1:8080"),
        ("http://10.1.2.3:8080", "0.0.0.0:8080"),  # any other machine's, for all we know
        ("http://app.internal:8080", "0.0.0.0:8080"),
        ("https://127.0.0.1/", "127.0.0.1:80"),
    ],
)
def test_an_url_that_leads_elsewhere_is_not(url: str, listening: str) -> None:
    assert found(url, listening) == []


def test_the_pages_of_operators_are_no_backend_either() -> None:
    assert found("http://127.0.0.1:9901", "0.0.0.0:8080") == [
        "backends.webhook.url: http://127.0.0.1:9901 is this sidecar's own admin.address"
    ]
    backends = {"mcp": {"handler": "demo"}, "webhook": {"handler": "webhook", "url": "http://a"}}
    listen = {"address": "0.0.0.0:8080", "observe": "0.0.0.0:9902"}
    assert list(circles(rules(backends=backends, listen=listen))) == []
    backends["webhook"]["url"] = "http://localhost:9902/"
    assert list(circles(rules(backends=backends, listen=listen))) == [
        "backends.webhook.url: http://localhost:9902/ is this sidecar's own listen.observe"
    ]
