from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest

from proxy.core.model import Kind
from proxy.core.rules.parse import (
    Address,
    HintedError,
    SecretError,
    describe,
    parse_address,
    parse_header,
    parse_kind,
    parse_name,
    parse_network,
    parse_path,
    parse_url,
    parse_word,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("0.0.0.0:0", Address("0.0.0.0", 0)),
        ("localhost:65535", Address("localhost", 65535)),
        ("[::1]:80", Address("::1", 80)),
    ],
)
def test_an_address_reads_and_says_the_same(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text
    assert parse_address(address) is address


@pytest.mark.parametrize(
    "text",
    ["", "8080", ":8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "::1:80",
     "[127.0.0.1]:80", "example.com:80", "*:80", "127.0.0.1:٣", "[fe80::1%eth0]:80", "1.2.3:4",
     "127.0.0.1:+1", "[::1:80", 8080, None, ["127.0.0.1:1"]],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: Any) -> None:
    with pytest.raises(ValueError):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "loopback"),
    [("127.0.0.9:1", True), ("[::1]:1", True), ("localhost:1", True), ("0.0.0.0:1", False),
     ("[::]:1", False), ("10.0.0.1:1", False)],
)  # fmt: skip
def test_an_address_knows_whether_others_can_reach_it(text: str, loopback: bool) -> None:
    assert parse_address(text).loopback is loopback


@pytest.mark.parametrize("text", ["10.0.0.0/8", "1.2.3.4", "2001:db8::/32", "::1"])
def test_a_network_is_a_cidr_or_one_address(text: str) -> None:
    assert parse_network(text) == ip_network(text)
    assert parse_network(ip_network(text)) == ip_network(text)


@pytest.mark.parametrize("text", ["", "10.0.0/8", "10.0.0.0/33", "example.com", 10, None])
def test_what_is_no_network_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="CIDR"):
        parse_network(text)


def test_a_network_with_host_bits_is_told_both_ways_out() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/8, or 10\.0\.0\.1"):
        parse_network("10.0.0.1/8")


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8000/mcp",
        "https://[::1]/x?y=1",
        "http://app",
        "HTTP://app/",
        "http://a:1",
        "http://my_app-1.svc.local./",
    ],
)
def test_a_url_stays_as_it_is_written(text: str) -> None:
    assert parse_url(text) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/mcp", "absolute URL"),
        ("ftp://a/", "absolute URL"),
        ("http:///x", "absolute URL"),
        ("http://a:0/", "absolute URL"),
        ("http://a:99999/", "cannot be read"),
        ("http://[::1/", "cannot be read"),
        ("http://a..b/", "no name and no address"),
        ("http://.a/", "no name and no address"),
        ("http://a!b/", "no name and no address"),
        ("http://%61/", "no name and no address"),
        (f"http://{64 * 'a'}/", "no name and no address"),
        ("http://[fe80::1%25eth0]/", "no name and no address"),
        ("http://[v1.a:b]/", "no name and no address"),
        ("http://a/ b", "percent-encode"),
        ("http://a/\r\nx: y", "percent-encode"),
        ("http://a/ü", "percent-encode"),
        ("http://a\\b/", "percent-encode"),
        ("http://a/#x", "fragment"),
        (5, "expected a URL"),
    ],
)
def test_a_faulty_url_is_refused(text: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_url(text)


def test_a_password_in_a_url_is_a_secret_in_the_wrong_place() -> None:
    with pytest.raises(SecretError) as caught:
        parse_url("http://user:hunter2@a/")
    assert "hunter2" not in str(caught.value)
    assert caught.value.hint == "use bearer: env:NAME"


def test_a_path_begins_with_one_slash() -> None:
    assert parse_path("/a/{tool}?x=1") == "/a/{tool}?x=1"
    for text in ("", "a", "//a", "/a b", "/a#b", "/a\n", "/ü", None):
        with pytest.raises(ValueError, match="a path such as"):
            parse_path(text)


def test_a_header_is_lower_case() -> None:
    assert parse_header("X-Call-ID") == "x-call-id"
    for text in ("", "a b", "a:", "ü", "x" * 65, 1):
        with pytest.raises(ValueError, match="a header name"):
            parse_header(text)


def test_a_name_is_short_and_plain() -> None:
    assert parse_name("get_slots.v2-b") == "get_slots.v2-b"
    for text in ("", "-a", ".a", "a b", "ü", "x" * 65, 1):
        with pytest.raises(ValueError, match="name"):
            parse_name(text)


@pytest.mark.parametrize("kind", ["event", "function", "mcp", "llm", "alert"])
def test_a_kind_is_read(kind: str) -> None:
    assert parse_kind(kind) is Kind(kind)


@pytest.mark.parametrize(
    ("kind", "hint"),
    [("functoin", "did you mean 'function'?"), ("other", "one of event"), (1, "one of event")],
)
def test_an_unknown_kind_is_refused_with_a_hint(kind: Any, hint: str) -> None:
    with pytest.raises(HintedError) as caught:
        parse_kind(kind)
    assert caught.value.hint.startswith(hint)


def test_a_word_of_a_closed_set_is_not_guessed() -> None:
    assert parse_word("read", ("read", "write"), "effect") == "read"
    with pytest.raises(HintedError, match="the text 'raed' is no effect"):
        parse_word("raed", ("read", "write"), "effect")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "nothing (null)"),
        (True, "true"),
        (False, "false"),
        ({}, "a mapping"),
        ([], "a list"),
        ((), "a list"),
        ("x" * 50, f"the text '{'x' * 40}'"),
        (5, "the number 5"),
    ],
)
def test_a_value_is_described_in_words(value: object, words: str) -> None:
    assert describe(value) == words


@pytest.mark.parametrize(
    "parse", [parse_address, parse_network, parse_url, parse_path, parse_header, parse_name]
)
def test_no_parser_takes_a_truth_value(parse: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match="got true"):
        parse(True)
