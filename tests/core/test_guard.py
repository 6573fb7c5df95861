from __future__ import annotations

from typing import Any

import pytest

from proxy.core.addresses import NOWHERE
from proxy.core.guard import (
    MAX_FIELD_BYTES,
    MAX_TARGET,
    METHODS,
    check_json,
    check_length,
    check_name,
    check_request,
    check_values,
    good_host,
)
from proxy.core.head import read_head
from proxy.core.model import Head
from proxy.errors import Refused

HTTP11 = (1, 1)
HOST = (b"Host", b"split.example")


def head_of(method: str = "POST", target: str = "/retell", *fields: tuple[bytes, bytes]) -> Head:
    return read_head(
        method, target, fields or (HOST,), peer="192.0.2.1", secure=False, trusted=NOWHERE
    )


def refusal(head: Head, version: tuple[int, int] = HTTP11) -> Refused:
    with pytest.raises(Refused) as caught:
        check_request(head, version)
    return caught.value


def test_an_honest_request_passes() -> None:
    for method in METHODS:
        check_request(head_of(method), HTTP11)
        check_request(head_of(method), (1, 0))


@pytest.mark.row("F13")
@pytest.mark.parametrize("version", [(0, 9), (1, 2), (2, 0), (3, 0)])
def test_f13_other_versions_are_not_spoken(version: tuple[int, int]) -> None:
    fault = refusal(head_of(), version)

    assert (fault.status, fault.close) == (505, True)


@pytest.mark.row("F15")
@pytest.mark.parametrize(
    ("method", "status", "code"),
    [
        ("CONNECT", 405, "method_not_allowed"),
        ("TRACE", 405, "method_not_allowed"),
        ("post", 400, "bad_method"),
        ("Get", 400, "bad_method"),
        ("FOO", 501, "unknown_method"),
        ("PRI", 501, "unknown_method"),
        ("", 501, "unknown_method"),
    ],
)
def test_f15_other_methods_are_answered_here(method: str, status: int, code: str) -> None:
    fault = refusal(head_of(method, "/x"))

    assert (fault.status, fault.code, fault.close) == (status, code, True)
    assert ("POST" in fault.allow) is (status == 405)


@pytest.mark.row("F15")
def test_f15_connect_is_refused_whatever_its_target() -> None:
    assert refusal(head_of("CONNECT", "evil.test:443")).status == 405


@pytest.mark.row("F15")
def test_f15_options_for_the_server_itself_is_answered_with_204() -> None:
    fault = refusal(head_of("OPTIONS", "*"))

    assert (fault.status, fault.code, fault.close) == (204, "options", False)


@pytest.mark.row("F14")
@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("*", 400),
        ("", 400),
        ("retell", 400),
        ("?x", 400),
        ("ftp://split.example/x", 400),
        ("evil.test:443", 400),
        ("http://evil.test/x", 421),
        ("https://evil.test/x", 421),
        ("http://split.example:81/x", 421),
        ("http://split.example@evil.test/x", 421),
        ("http://user@split.example/x", 421),
        ("http:///x", 421),
        ("http://split.example.evil.test/", 421),
    ],
)
def test_f14_we_are_nobodys_way_to_elsewhere(target: str, status: int) -> None:
    assert refusal(head_of("GET", target)).status == status


@pytest.mark.row("F14")
@pytest.mark.parametrize(
    ("target", "host", "origin"),
    [
        ("http://split.example/retell", b"split.example", "/retell"),
        ("http://SPLIT.example/retell?a=1", b"split.EXAMPLE", "/retell?a=1"),
        ("HTTP://split.example:80/x", b"split.example", "/x"),
        ("https://split.example/x", b"split.example:443", "/x"),
        ("http://split.example:8080/x", b"split.example:8080", "/x"),
        ("http://split.example:/x", b"split.example", "/x"),
        ("http://split.example", b"split.example", "/"),
        ("http://split.example?a=1", b"split.example", "/?a=1"),
        ("http://[::1]:8080/%2e%2e/x", b"[::1]:8080", "/%2e%2e/x"),
        ("http://split.example//evil.test/x", b"split.example", "//evil.test/x"),
    ],
)
def test_f14_our_own_authority_is_routed_with_the_same_path(
    target: str, host: bytes, origin: str
) -> None:
    head = head_of("GET", target, (b"Host", host))

    check_request(head, HTTP11)

    assert head.target == origin
    assert (head.path, head.query) == (origin.partition("?")[0], origin.partition("?")[2])


@pytest.mark.row("F14")
def test_f14_two_slashes_are_a_path() -> None:
    head = head_of("GET", "//evil.test/x")

    check_request(head, HTTP11)

    assert head.path == "//evil.test/x"


@pytest.mark.row("F16")
@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"a,b",
        b"a, b",
        b"u@a",
        b"a/p",
        b"a:99999",
        b"a:65536",
        b"a:123456",
        b"a:b",
        b"a:80:80",
        b"[::1",
        b"::1",
        b"[::1]x",
        b"[:::1]",
        b"[1.2.3.4]",
        b"a b",
        b"a\tb",
        b"a?b",
        b"a#b",
        b"a\\b",
        b"caf\xc3\xa9",
        b"a" * 256,
        b"http://a",
        b"%61",
    ],
)
def test_f16_a_bad_host_is_refused(host: bytes) -> None:
    fault = refusal(head_of("POST", "/retell", (b"Host", host)))

    assert (fault.status, fault.code, fault.close) == (400, "bad_host", True)


@pytest.mark.row("F16")
@pytest.mark.parametrize("version", [(1, 0), (1, 1)])
def test_f16_host_must_be_there(version: tuple[int, int]) -> None:
    assert refusal(head_of("GET", "/", (b"Accept", b"*/*")), version).code == "bad_host"


@pytest.mark.row("F2", "F5", "F16")
@pytest.mark.parametrize("name", [b"Host", b"Content-Length", b"Transfer-Encoding"])
def test_f2_f5_f16_what_must_stand_once_may_not_stand_twice(name: bytes) -> None:
    value = {b"Host": b"split.example", b"Content-Length": b"5"}.get(name, b"chunked")

    fault = refusal(head_of("POST", "/retell", HOST, (name, value), (name.lower(), value)))

    assert (fault.status, fault.code, fault.close) == (400, "repeated_header", True)


@pytest.mark.parametrize(
    "host",
    [
        b"a",
        b"a:1",
        b"a:65535",
        b"a:",
        b"my_app.internal-1",
        b"127.0.0.1:8080",
        b"[::1]:80",
        b"[::]",
    ],
)
def test_a_good_host_passes(host: bytes) -> None:
    assert good_host(host)


@pytest.mark.row("F17")
@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/a b", 400),
        ("/a\\b", 400),
        ("/a#f", 400),
        ("/a?b#f", 400),
        ("/a\x00", 400),
        ("/a\r\nX: y", 400),
        ("/a\tb", 400),
        ("/a\x7f", 400),
        ("/caf\udcc3\udca9", 400),
        ("/café", 400),
        ("/?q=\u2028", 400),
        ("/" + "a" * MAX_TARGET, 414),
    ],
)
def test_f17_an_unclean_target_is_refused(target: str, status: int) -> None:
    fault = refusal(head_of("GET", target))

    assert (fault.status, fault.close) == (status, True)


@pytest.mark.row("F17", "F18")
@pytest.mark.parametrize(
    "target",
    [
        "/%00",
        "/%0d%0a",
        "/a%2fb",
        "/x/../admin",
        "/%2e%2e/admin",
        "//admin",
        "/admin;a",
        "/ADMIN",
        "/a%zz",
        "/mcp?call_id={{call_id}}",
        '/"<>^`{|}',
        "/x?",
        "/" + "a" * (MAX_TARGET - 1),
    ],
)
def test_f17_f18_a_target_that_passes_is_not_touched(target: str) -> None:
    head = head_of("GET", target)

    check_request(head, HTTP11)

    assert head.target == target
    assert head.path == target.partition("?")[0]


@pytest.mark.row("F4")
@pytest.mark.parametrize(
    ("coding", "status"),
    [
        (b"", 400),
        (b", chunked", 400),
        (b"chunked,", 400),
        (b"chunked;q=1", 400),
        (b"\x0bchunked", 400),
        (b"chunked\x0c", 400),
        (b"xchunked", 501),
        (b"identity", 501),
        (b"chunked, identity", 501),
        (b"gzip, chunked", 501),
        (b"chunked, chunked", 501),
    ],
)
def test_f4_only_the_chunked_coding_is_known(coding: bytes, status: int) -> None:
    head = head_of("POST", "/retell")
    head.named[b"transfer-encoding"] = coding  # read_head would refuse the control bytes

    fault = refusal(head)

    assert (fault.status, fault.close) == (status, True)


@pytest.mark.row("F4")
@pytest.mark.parametrize("coding", [b"chunked", b"Chunked", b"CHUNKED"])
def test_f4_chunked_is_known_in_any_case(coding: bytes) -> None:
    check_request(head_of("POST", "/retell", HOST, (b"Transfer-Encoding", coding)), HTTP11)


@pytest.mark.row("F1")
@pytest.mark.parametrize("coding", [b"chunked", b"", b", chunked"])
def test_f1_one_framing_only(coding: bytes) -> None:
    """The parser in front takes an empty Transfer-Encoding beside a Content-Length."""
    fields = [(b"Transfer-Encoding", coding), (b"Content-Length", b"3")]

    for pair in (fields, fields[::-1]):
        fault = refusal(head_of("POST", "/retell", HOST, *pair))
        assert (fault.status, fault.code, fault.close) == (400, "bad_framing", True)


@pytest.mark.row("F6")
def test_f6_http_1_0_knows_no_chunks() -> None:
    head = head_of("POST", "/retell", HOST, (b"Transfer-Encoding", b"chunked"))

    assert refusal(head, (1, 0)).code == "bad_framing"


@pytest.mark.row("F3")
@pytest.mark.parametrize(
    "length", [b"+5", b"-1", b"0x5", b"5_0", "٥".encode(), b"", b"5, 5", b"5 5"]
)
def test_f3_a_length_is_digits(length: bytes) -> None:
    fault = refusal(head_of("POST", "/retell", HOST, (b"Content-Length", length)))

    assert (fault.status, fault.code, fault.close) == (400, "bad_framing", True)


@pytest.mark.row("E2")
@pytest.mark.parametrize("expectation", [b"200-ok", b"", b"100-continue, x"])
def test_e2_only_100_continue_can_be_expected(expectation: bytes) -> None:
    assert refusal(head_of("POST", "/retell", HOST, (b"Expect", expectation))).status == 417


@pytest.mark.row("E2")
@pytest.mark.parametrize("other", [b"100-continue", b"200-ok"])
def test_e2_one_thing_only_can_be_expected(other: bytes) -> None:
    """Of two fields one reader takes the first, another the last."""
    fields = ((b"Expect", b"100-continue"), (b"Expect", other))
    for pair in (fields, fields[::-1]):
        assert refusal(head_of("POST", "/retell", HOST, *pair)).status == 417


@pytest.mark.row("E1")
def test_e1_100_continue_can_be_expected() -> None:
    check_request(head_of("POST", "/retell", HOST, (b"Expect", b"100-Continue")), HTTP11)


@pytest.mark.row("H4")
@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket"])
def test_h4_a_wish_to_upgrade_is_not_heard(upgrade: bytes) -> None:
    head = head_of("GET", "/retell", HOST, (b"Connection", b"Upgrade"), (b"Upgrade", upgrade))

    check_request(head, HTTP11)

    assert head.end_to_end == []


@pytest.mark.row("F9")
@pytest.mark.parametrize("byte", [*range(0x09), *range(0x0A, 0x20), 0x7F])
def test_f9_a_control_byte_in_a_value_is_refused(byte: int) -> None:
    with pytest.raises(Refused) as caught:
        check_values(b"a" + bytes([byte]) + b"b")

    assert (caught.value.status, caught.value.close) == (400, True)


@pytest.mark.row("F9")
def test_f9_tabs_and_bytes_beyond_ascii_may_stand_in_a_value() -> None:
    check_values(b"a\tb caf\xe9 " + bytes(range(0x80, 0x100)))


@pytest.mark.row("L5")
def test_l5_too_many_header_bytes_are_refused() -> None:
    check_values(b"a" * MAX_FIELD_BYTES)
    with pytest.raises(Refused) as caught:
        check_values(b"a" * (MAX_FIELD_BYTES + 1))

    assert caught.value.status == 431


@pytest.mark.row("F7")
@pytest.mark.parametrize(
    "name", [b"", b"Na me", b" Name", b"Name ", b"[x]", b"N\xc3\xa9", b"a:b", b"a\0"]
)
def test_f7_a_name_is_a_token(name: bytes) -> None:
    with pytest.raises(Refused) as caught:
        check_name(name)

    assert (caught.value.status, caught.value.code) == (400, "bad_header")


def test_no_refusal_echoes_the_request() -> None:
    marker = "Zebra"
    cases: list[tuple[Head, Any]] = [
        (head_of(marker.lower()), HTTP11),
        (head_of(marker), HTTP11),
        (head_of("GET", f"http://{marker}/"), HTTP11),
        (head_of("GET", f"/{marker} "), HTTP11),
        (head_of("GET", "/", (b"Host", marker.encode() + b"@a")), HTTP11),
        (head_of("GET", "/", HOST, (b"Expect", marker.encode())), HTTP11),
    ]
    for head, version in cases:
        assert marker.lower() not in refusal(head, version).message.lower()


@pytest.mark.row("F3", "L1")
@pytest.mark.parametrize(
    ("length", "status"),
    [(0, 0), (1000, 0), (1001, 413), (64_000, 413), (64_001, 400), (999_999_999, 400)],
)
def test_a_declared_length_over_the_limit_is_too_large_or_absurd(length: int, status: int) -> None:
    """So many times over the limit it says nothing of a body: nobody meant it."""
    refused = None
    try:
        check_length(length, 1000)
    except Refused as error:
        refused = error

    assert (refused.status if refused else 0) == status
    assert refused is None or refused.close


TYPED = b"Content-Type"
READABLE = {
    "nothing is said": (),
    "json": ((TYPED, b"application/json"),),
    "in capitals": ((TYPED, b"Application/JSON"),),
    "parameters": ((TYPED, b"application/json ; charset=utf-8; x"),),
    "a suffix": ((TYPED, b"application/vnd.a-b.c+json;v=1"),),
    "not coded": ((TYPED, b"application/json"), (b"Content-Encoding", b"Identity")),
}
UNREADABLE = {
    "text": ((TYPED, b"text/plain"),),
    "a form": ((TYPED, b"application/x-www-form-urlencoded"),),
    "json in a parameter": ((TYPED, b"text/plain; a=application/json"),),
    "a list": ((TYPED, b"application/json, text/plain"),),
    "lines of json": ((TYPED, b"application/jsonl"),),
    "a suffix alone": ((TYPED, b"+json"),),
    "no type before it": ((TYPED, b"/a+json"),),
    "nothing before the suffix": ((TYPED, b"application/+json"),),
    "empty": ((TYPED, b""),),
    "gzip": ((b"Content-Encoding", b"gzip"),),
    "gzip, undone": ((b"Content-Encoding", b"gzip, identity"),),
}


@pytest.mark.parametrize("fields", READABLE.values(), ids=READABLE)
def test_a_body_that_may_be_json_is_read(fields: tuple[tuple[bytes, bytes], ...]) -> None:
    check_json(head_of("POST", "/mcp", HOST, *fields))


@pytest.mark.parametrize("fields", UNREADABLE.values(), ids=UNREADABLE)
def test_a_body_that_says_it_is_no_json_is_refused(
    fields: tuple[tuple[bytes, bytes], ...],
) -> None:
    with pytest.raises(Refused) as caught:
        check_json(head_of("POST", "/mcp", HOST, *fields))

    assert (caught.value.status, caught.value.code) == (415, "unsupported_media_type")
