"""Which ends of TLS there are, by what the rules say."""

from __future__ import annotations

from typing import Any

from proxy.core.rules.tls_ends import TlsEnd, place_of, tls_ends
from tests.rules_kit import document, rules


def ends(listen: Any = None, **tls: Any) -> dict[str, TlsEnd]:
    backends = document()["backends"]
    backends["mcp"] = {**backends["mcp"], "url": "https://mcp.internal/mcp", "tls": tls}
    found = tls_ends(rules(backends=backends, **({"listen": {"tls": listen}} if listen else {})))
    return {end.place: end for end in found}


def test_rules_without_tls_have_no_end() -> None:
    assert list(tls_ends(rules())) == []


def test_each_https_backend_is_an_end_even_without_files() -> None:
    assert ends() == {"backends.mcp.tls": TlsEnd(place_of("mcp"))}


def test_the_listener_is_one_too() -> None:
    said = {"cert_file": "/c", "key_file": "/k", "client_ca_file": "/a", "min_version": 1.3}
    found = ends(said, cert_file="/own", ca_file="/cas")

    listener, upstream = found["listen.tls"], found["backends.mcp.tls"]
    assert listener == TlsEnd("listen.tls", "/c", "/k", "/a", server=True, min_version="1.3")
    assert (listener.files, listener.ca_key) == (("/c", "/k", "/a"), "listen.tls.client_ca_file")
    assert (upstream.files, upstream.ca_key) == (("/own", "/cas"), "backends.mcp.tls.ca_file")


def test_a_file_that_serves_twice_is_one_file() -> None:
    assert TlsEnd("x", "/both", "/both", "/both").files == ("/both",)
