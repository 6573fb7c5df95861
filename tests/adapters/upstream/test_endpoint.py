"""Reading an upstream's URL, and the TLS context made of it."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from proxy.adapters.upstream import Endpoint
from proxy.errors import RulesError


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


def test_only_https_has_a_context_and_that_verifies() -> None:
    assert Endpoint.from_url("http://app").tls_context() is None
    context = Endpoint.from_url("https://app").tls_context()
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_an_unusable_ca_file_is_a_fault_in_the_rules(tmp_path: Path) -> None:
    empty = tmp_path / "ca.pem"
    empty.write_text("nothing")
    for path in (empty, tmp_path / "absent.pem"):
        with pytest.raises(RulesError) as caught:
            Endpoint.from_url("https://app", ca_file=str(path)).tls_context()
        assert caught.value.faults[0].path == "ca_file"
