from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.addresses import NOWHERE, Networks
from proxy.core.head import drop, forwarded_headers, read_head
from proxy.core.model import Head, Headers
from proxy.errors import Refused

HOST = (b"Host", b"split.example:8080")
TRUSTED = Networks.of(["10.0.0.0/8"])


def head_of(
    *fields: tuple[bytes, bytes],
    target: str = "/retell",
    peer: str = "192.0.2.1",
    secure: bool = False,
    trusted: Networks = NOWHERE,
) -> Head:
    return read_head("POST", target, (HOST, *fields), peer=peer, secure=secure, trusted=trusted)


def forwarded(*fields: tuple[bytes, bytes]) -> Headers:
    return head_of(*fields).end_to_end


def test_a_head_keeps_method_target_and_host() -> None:
    head = head_of(target="/mcp/x?call_id=a&b=%20")

    assert (head.method, head.path, head.query) == ("POST", "/mcp/x", "call_id=a&b=%20")
    assert (head.target, head.host) == ("/mcp/x?call_id=a&b=%20", b"split.example:8080")


def test_what_goes_on_keeps_its_order_and_its_bytes() -> None:
    fields: Headers = [
        (b"X-Odd", b"caf\xe9 \t \xff"),
        (b"x-retell-SIGNATURE", b"v=1,d=a"),
        (b"Content-Type", b"application/json"),
        (b"Mcp-Param-company_id", b"42"),
        (b"Cookie", b"a=1"),
        (b"Cookie", b"b=2"),
        (b"Authorization", b"Bearer x"),
        (b"x", b""),
    ]

    assert forwarded(*fields) == fields


def test_lookups_are_by_lower_case_name_and_hold_every_field() -> None:
    head = head_of((b"X-Retell-Signature", b"s"), (b"CONNECTION", b"close"))

    assert head.named == {
        b"host": b"split.example:8080",
        b"x-retell-signature": b"s",
        b"connection": b"close",
    }


@pytest.mark.row("H3", "H6", "H7")
@pytest.mark.parametrize(
    "name",
    [
        # H3: between two neighbours only.
        b"Connection", b"Keep-Alive", b"Proxy-Connection", b"Proxy-Authorization",
        b"Proxy-Authenticate", b"TE", b"Trailer", b"Transfer-Encoding", b"Upgrade",
        b"HTTP2-Settings",
        # Framing and Host are made anew.
        b"Content-Length", b"Host", b"Expect",
        # H6: what a client says of itself.
        b"Forwarded", b"X-Forwarded-For", b"X-Forwarded-Host", b"X-Forwarded-Proto",
        b"X-Forwarded-Port", b"X-Forwarded-Anything", b"X-Real-IP", b"X-Original-URL",
        b"X-Rewrite-URL", b"X_Forwarded_For", b"X-Forwarded_For", b"x_real_ip", b"X_Original_Url",
        b"Content_Length", b"Transfer_Encoding",
        # H7: ours to say.
        b"X-Request-ID", b"X-Callsplit-Arm", b"X-Callsplit-Call-Id", b"x_callsplit_arm",
        b"Idempotency-Key",
        # To PHP and WSGI these are the true ones.
        b"X_Retell_Signature", b"X_Call_ID", b"x-retell_call-id",
        b"Mcp_Method", b"Mcp_Name", b"MCP_Protocol-Version",
    ],
)  # fmt: skip
@pytest.mark.parametrize("spelling", [bytes, bytes.lower, bytes.upper, bytes.title])
def test_h3_h6_h7_what_is_not_the_clients_to_say_stays_here(
    name: bytes, spelling: type[bytes]
) -> None:
    assert forwarded((spelling(name), b"1"), (b"Accept", b"*/*")) == [(b"Accept", b"*/*")]


@pytest.mark.parametrize(
    "name", [b"X-Forwarded", b"X-Call-ID", b"X-Retell-Signature", b"X_Y", b"X-Callsplit"]
)
def test_names_that_only_resemble_those_go_on(name: bytes) -> None:
    assert forwarded((name, b"1")) == [(name, b"1")]


@pytest.mark.row("H1")
def test_h1_what_connection_names_is_stripped() -> None:
    connection = (b"Connection", b"close, X-S , x-t,,")

    assert forwarded(connection, (b"X-S", b"1"), (b"X-T", b"2"), (b"X-U", b"3")) == [(b"X-U", b"3")]


@pytest.mark.row("H1")
def test_h1_every_connection_field_counts() -> None:
    first, second = (b"Connection", b"x-s"), (b"connection", b"close")

    assert forwarded(first, second, (b"X-S", b"1")) == []


@pytest.mark.row("H2")
def test_h2_nomination_switches_off_no_authentication_and_none_of_our_own_fields() -> None:
    """The fields are not forwarded, as RFC 9110 wants, but they are still read."""
    names = b"X-Forwarded-For, Authorization, X-Retell-Signature, Content-Length, Host"
    head = head_of(
        (b"Connection", names),
        (b"Authorization", b"Bearer t"),
        (b"X-Retell-Signature", b"v=1,d=a"),
        (b"X-Forwarded-For", b"203.0.113.9"),
        (b"Content-Length", b"5"),
        peer="10.0.0.1",
        trusted=TRUSTED,
    )

    assert head.end_to_end == []
    assert head.named[b"authorization"] == b"Bearer t"
    assert head.named[b"x-retell-signature"] == b"v=1,d=a"
    assert head.named[b"content-length"] == b"5"
    assert list(forwarded_headers(head)) == [
        (b"x-forwarded-for", b"203.0.113.9"),
        (b"x-forwarded-proto", b"http"),
        (b"x-forwarded-host", b"split.example:8080"),
    ]


@pytest.mark.parametrize("name", [b"Authorization", b"X-Retell-Signature", b"X-Call-ID"])
def test_a_field_that_stands_twice_is_noted_whatever_its_case(name: bytes) -> None:
    head = head_of((name, b"a"), (name.upper(), b"b"), (b"Accept", b"*/*"))

    assert head.repeated == {name.lower()}
    assert head.named[name.lower()] == b"b"


def test_most_requests_repeat_nothing() -> None:
    assert head_of((b"Accept", b"*/*")).repeated == frozenset()


@pytest.mark.row("F9")
def test_f9_a_control_byte_in_any_field_is_refused_also_in_one_that_is_overridden() -> None:
    for fields in ([(b"X", b"a\x01")], [(b"X", b"a\x01"), (b"X", b"b")]):
        with pytest.raises(Refused) as caught:
            head_of(*fields)
        assert caught.value.status == 400


@pytest.mark.row("F7")
def test_f7_a_broken_name_is_refused() -> None:
    with pytest.raises(Refused):
        head_of((b"X Y", b"a"))


@pytest.mark.row("L5")
def test_l5_more_than_128_fields_are_refused() -> None:
    head_of(*[(b"x-%d" % n, b"") for n in range(127)])
    with pytest.raises(Refused) as caught:
        head_of(*[(b"x-%d" % n, b"") for n in range(128)])

    assert caught.value.status == 431


@pytest.mark.row("H5")
@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("192.0.2.1", [b"203.0.113.9"], "192.0.2.1"),  # anybody may write it
        ("10.0.0.1", [b"203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.1", [b"203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", [b"203.0.113.9", b"198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", [b"198.51.100.7", b"10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", [b"unknown"], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("", [b"203.0.113.9"], ""),
    ],
)
def test_h5_the_client_is_the_peer_unless_we_trust_the_peer(
    peer: str, forwarded_for: list[bytes], client: str
) -> None:
    fields = [(b"X-Forwarded-For", value) for value in forwarded_for]

    assert head_of(*fields, peer=peer, trusted=TRUSTED).peer == client


@pytest.mark.row("H6")
@pytest.mark.parametrize(
    ("peer", "proto", "secure", "answer"),
    [
        ("10.0.0.1", b"https", False, True),
        ("10.0.0.1", b"HTTPS", False, True),
        ("10.0.0.1", b"http", True, False),
        ("10.0.0.1", b"https, http", True, False),
        ("10.0.0.1", None, True, True),
        ("192.0.2.1", b"https", False, False),
        ("192.0.2.1", b"http", True, True),
    ],
)
def test_h6_only_a_trusted_proxy_tells_of_tls(
    peer: str, proto: bytes | None, secure: bool, answer: bool
) -> None:
    fields = [] if proto is None else [(b"X-Forwarded-Proto", proto)]

    head = head_of(*fields, peer=peer, secure=secure, trusted=TRUSTED)

    assert head.secure is answer
    assert (b"x-forwarded-proto", b"https" if answer else b"http") in forwarded_headers(head)


@pytest.mark.row("H6")
@pytest.mark.parametrize(
    ("peer", "said", "host"),
    [
        ("10.0.0.1", b"public.example", b"public.example"),
        ("10.0.0.1", b"a, b", b"split.example:8080"),
        ("10.0.0.1", b"", b"split.example:8080"),
        ("192.0.2.1", b"evil.example", b"split.example:8080"),
    ],
)
def test_h6_only_a_trusted_proxy_tells_of_the_host(peer: str, said: bytes, host: bytes) -> None:
    head = head_of((b"X-Forwarded-Host", said), peer=peer, trusted=TRUSTED)

    assert (b"x-forwarded-host", host) in forwarded_headers(head)


def test_a_unix_socket_has_no_address_to_tell() -> None:
    assert [name for name, _ in forwarded_headers(head_of(peer=""))] == [
        b"x-forwarded-proto",
        b"x-forwarded-host",
    ]


def test_one_more_name_can_be_kept_back() -> None:
    head = head_of((b"X-Force-Arm", b"mcp"), (b"X_force-arm", b"mcp"), (b"Accept", b"*/*"))

    drop(head, b"x-force-arm")

    assert head.end_to_end == [(b"Accept", b"*/*")]
    assert head.named[b"x-force-arm"] == b"mcp"


def test_a_name_that_does_not_occur_need_not_be_kept_back() -> None:
    head = head_of((b"Accept", b"*/*"))
    before = head.end_to_end

    drop(head, b"x-force-arm")

    assert head.end_to_end is before


TOKENS = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ-_", min_size=1, max_size=20).map(str.encode)
VALUES = st.binary(max_size=20).map(lambda v: bytes(b for b in v if b >= 0x20 and b != 0x7F))


@given(st.lists(st.tuples(TOKENS, VALUES), max_size=12))
def test_what_goes_on_stood_on_the_wire_in_this_order(fields: list[tuple[bytes, bytes]]) -> None:
    head = head_of(*fields)

    wire = iter([HOST, *fields])
    assert all(field in wire for field in head.end_to_end)
    assert {name.lower() for name, _ in [HOST, *fields]} == set(head.named)
