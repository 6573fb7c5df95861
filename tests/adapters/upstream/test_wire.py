"""The bytes of a request, and the bytes that never become one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters.upstream.wire import fixed_lines, request_head
from proxy.core.model import Headers, Outbound
from proxy.errors import UpstreamFailed

HOST = fixed_lines("origin:8000")


def head(
    method: str = "POST",
    target: str = "/",
    headers: Headers | None = None,
    body: bytes = b"",
    extra: Headers | None = None,
) -> bytes:
    return request_head(Outbound(method, target, headers or [], body), extra or [], HOST)


def refused(**parts: object) -> bool:
    with pytest.raises(UpstreamFailed) as caught:
        head(**parts)  # type: ignore[arg-type]
    return (caught.value.why, caught.value.sent) == ("config", False)


def test_fields_keep_their_order_case_and_bytes() -> None:
    assert head(
        headers=[(b"X-B", b"1"), (b"x-a", b"caf\xe9\t2"), (b"X-b", b"")],
        extra=[(b"x-request-id", b"r")],
        body=b"{}",
    ) == (
        b"POST / HTTP/1.1\r\nHost: origin:8000\r\nX-B: 1\r\nx-a: caf\xe9\t2\r\nX-b: \r\n"
        b"x-request-id: r\r\nContent-Length: 2\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("method", "body", "framed"),
    [
        ("POST", b"", b"Content-Length: 0\r\n"),
        ("PUT", b"", b"Content-Length: 0\r\n"),
        ("PATCH", b"", b"Content-Length: 0\r\n"),
        ("GET", b"", b""),
        ("HEAD", b"", b""),
        ("DELETE", b"", b""),
        ("DELETE", b"abc", b"Content-Length: 3\r\n"),
        ("post", b"a", b"Content-Length: 1\r\n"),
    ],
)
def test_a_length_is_declared_where_a_body_is_expected(
    method: str, body: bytes, framed: bytes
) -> None:
    expected = method.encode() + b" / HTTP/1.1\r\nHost: origin:8000\r\n" + framed + b"\r\n"
    assert head(method, body=body) == expected


@pytest.mark.parametrize(
    "name",
    [
        b"Host",
        b"HOST",
        b"content-length",
        b"Transfer-Encoding",
        b"Connection",
        b"Keep-Alive",
        b"Proxy-Connection",
        b"TE",
        b"Trailer",
        b"Upgrade",
        b"Expect",
    ],
)
def test_framing_and_connection_fields_are_the_transports_own(name: bytes) -> None:
    """Whatever a backend passes on: one Host, one framing, never an Expect."""
    field = (name, b"anything")
    assert head(headers=[field], extra=[field]) == head()


@pytest.mark.parametrize("target", ["", "x", "*", "http://a/", "/a b", "/ HTTP/1.1\r\nX:", "/\x7f"])
def test_a_target_that_is_not_in_origin_form_is_refused(target: str) -> None:
    assert refused(target=target)


@pytest.mark.parametrize("method", ["", "GET /", "G\tT", "GE(T", "CONNECT", "GÉT", "GET\r\n"])
def test_a_method_that_is_no_token_or_opens_a_tunnel_is_refused(method: str) -> None:
    assert refused(method=method)


def test_raw_bytes_of_a_target_stay_as_they_are() -> None:
    raw = b"/caf\xe9/\xc3\xa9"
    target = raw.decode("utf-8", "surrogateescape")
    assert head(target=target).startswith(b"POST " + raw + b" HTTP/1.1\r\n")


def test_a_target_that_is_no_text_is_refused() -> None:
    assert refused(target="/\ud800")


@pytest.mark.parametrize("byte", [*range(9), *range(10, 32), 127])
def test_a_control_byte_in_a_value_is_refused(byte: int) -> None:
    assert refused(headers=[(b"x-a", b"b" + bytes([byte]) + b"c")])
    assert refused(extra=[(b"x-a", bytes([byte]))])


@pytest.mark.parametrize(
    "name", [b"", b"a b", b"a:", b"[a]", b"caf\xe9", b"a\r\nb", b" a", b"a\x00"]
)
def test_a_name_that_is_no_token_is_refused(name: bytes) -> None:
    assert refused(headers=[(name, b"x")])


def test_many_names_are_not_remembered_without_end() -> None:
    for number in range(3000):
        name = b"x-%d" % number
        assert b"\r\n" + name + b": 1\r\n" in head(headers=[(name, b"1")])
    assert refused(headers=[(b"still bad", b"1")])
    assert head(headers=[(b"EXPECT", b"100-continue")]) == head()


@given(
    st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=4),
    st.text(max_size=8),
    st.sampled_from(["GET", "POST"]),
)
def test_whatever_goes_out_is_one_request(fields: Headers, target: str, method: str) -> None:
    try:
        wire = head(method, "/" + target, fields)
    except UpstreamFailed:
        return
    first, *lines = wire.split(b"\r\n")
    assert lines[-2:] == [b"", b""]
    assert b"" not in lines[:-2]
    assert wire.count(b"\n") == wire.count(b"\r") == len(lines)
    assert len(first.split(b" ")) == 3
    assert [line for line in lines if line.lower().startswith(b"host:")] == [*HOST]


def test_fields_that_stay_behind_do_so_however_often_they_come() -> None:
    """Names that go out are remembered; one that does not is looked at each time."""
    for _ in range(3):
        sent = head(headers=[(b"X-Seen", b"1"), (b"Connection", b"close"), (b"X-Late", b"2")])
        assert sent.count(b"\r\n") == 6
        assert b"close" not in sent
