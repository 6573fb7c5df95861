"""Reading an upstream's URL."""

from __future__ import annotations

import pytest

from proxy.adapters.upstream import Endpoint


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "authority"),
    [
        ("http://127.0.0.1:8000/mcp", "http", "127.0.0.1", 8000, "127.0.0.1:8000"),
        ("http://App.Example", "http", "app.example", 80, "app.example"),
        ("http://app:80/x?y=z", "http", "app", 80, "app"),
        ("https://app", "https", "app", 443, "app"),
        ("https://app:80", "https", "app", 80, "app:80"),
        ("http://[::1]:8000", "http", "::1", 8000, "[::1]:8000"),
        ("http://my_service:8000", "http", "my_service", 8000, "my_service:8000"),
        ("http://bücher.example", "http", "xn--bcher-kva.example", 80, "xn--bcher-kva.example"),
        ("unix:/run/app.sock", "unix", "localhost", 0, "localhost"),
    ],
)
def test_urls(url: str, scheme: str, host: str, port: int, authority: str) -> None:
    endpoint = Endpoint.from_url(url)
    assert (endpoint.scheme, endpoint.host, endpoint.port) == (scheme, host, port)
    assert endpoint.authority == authority


def test_options_are_taken_over() -> None:
    endpoint = Endpoint.from_url("unix:/a", connections=3, keepalive=1.5)
    assert (endpoint.path, endpoint.connections, endpoint.keepalive) == ("/a", 3, 1.5)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "app:8000",
        "ftp://app",
        "http://",
        "http://:80",
        "http://u:p@app",
        "http://app:0",
        "http://app:99999",
        "http://app:x",
        "http://a b",
        "http://a\\b",
        "http://[::1",
        "http://[fe80::1%eth0]",
        "http://" + "a" * 70,
        "unix:relative",
        "unix:/a\0b",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ValueError):
        Endpoint.from_url(url)
