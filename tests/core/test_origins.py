from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.origins import ANY, LOOPBACK, LOOPBACK_PAGES, Origins, parse_origin

PAGES = Origins(["https://console.example", "http://intranet:8080", "https://[2001:db8::1]"])


@pytest.mark.parametrize(
    "origin",
    [
        b"http://localhost",
        b"http://localhost:5173",
        b"https://localhost",
        b"HTTP://LocalHost:80",
        b"http://127.0.0.1:8080",
        b"http://[::1]",
        b"http://[0:0:0:0:0:0:0:1]:3000",
        b"app://localhost",
        b" http://localhost\t",
    ],
)
def test_pages_of_this_machine_may_ask_unless_the_rules_say_otherwise(origin: bytes) -> None:
    assert LOOPBACK_PAGES.allow(origin)
    assert Origins([LOOPBACK, "https://console.example"]).allow(origin)
    assert not PAGES.allow(origin)


@pytest.mark.parametrize(
    "origin",
    [
        b"http://evil.example",
        b"http://localhost.evil.example",
        b"http://evil-localhost",
        b"http://localhost.",
        b"http://127.0.0.2",
        b"http://127.1",
        b"http://2130706433",
        b"http://[::2]",
        b"http://[::ffff:127.0.0.1]",
        b"http://0.0.0.0",
    ],
)
def test_what_only_sounds_like_this_machine_may_not(origin: bytes) -> None:
    assert parse_origin(origin.decode()) is not None
    assert not LOOPBACK_PAGES.allow(origin)


NONE = [
    b"",
    b"null",
    b"localhost",
    b"//localhost",
    b"http:localhost",
    b"http://",
    b"http://localhost/",
    b"http://localhost/x",
    b"http://localhost?x",
    b"http://localhost#x",
    b"http://localhost:",
    b"http://localhost:65536",
    b"http://localhost:x",
    b"http://localhost:80:80",
    b"http://user@localhost",
    b"http://localhost http://localhost",
    b"http://localhost, http://localhost",
    b"http://loc\xe4lhost",
    b"http://[::1",
    b"http://[:::1]",
    b"http://::1",
    b"1http://localhost",
    b"http://localhost\x00",
    b"*",
    b"loopback",
]


@pytest.mark.parametrize("origin", NONE)
@pytest.mark.parametrize("listed", [(LOOPBACK,), (ANY,), (ANY, LOOPBACK)])
def test_what_is_no_origin_may_never_ask(origin: bytes, listed: tuple[str, ...]) -> None:
    """Also where any may: a browser says `null` of pages that it trusts least."""
    assert not Origins(listed).allow(origin)


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (b"https://console.example", True),
        (b"https://console.example:443", True),
        (b"HTTPS://CONSOLE.example", True),
        (b"http://console.example", False),
        (b"https://console.example:8443", False),
        (b"https://www.console.example", False),
        (b"http://intranet:8080", True),
        (b"http://intranet", False),
        (b"https://[2001:db8:0::1]", True),
        (b"https://[2001:db8::2]", False),
    ],
)
def test_scheme_host_and_port_are_compared(origin: bytes, allowed: bool) -> None:
    assert PAGES.allow(origin) is allowed


def test_a_star_is_for_every_origin_and_nothing_for_none() -> None:
    assert Origins([ANY]).allow(b"https://anything.example:1")
    assert not Origins([]).allow(b"http://localhost")


@pytest.mark.parametrize(
    ("text", "put"),
    [
        ("https://a.example", "https://a.example"),
        ("HTTP://A.example:80", "http://a.example"),
        ("http://a.example:443", "http://a.example:443"),
        ("app://x", "app://x"),
        ("app://x:7", "app://x:7"),
        ("http://[0::1]:8", "http://[::1]:8"),
    ],
)
def test_one_origin_has_one_spelling(text: str, put: str) -> None:
    origin = parse_origin(text)

    assert str(origin) == put
    assert parse_origin(put) == origin


@given(st.binary(max_size=40) | st.from_regex(rb"[a-z]{1,3}://[a-z0-9:.\[\]@/]{0,20}"))
def test_any_bytes_are_judged(value: bytes) -> None:
    if LOOPBACK_PAGES.allow(value):
        origin = parse_origin(value.decode("latin-1").strip(" \t"))
        assert origin is not None
        assert origin.host in ("localhost", "127.0.0.1", "[::1]")
