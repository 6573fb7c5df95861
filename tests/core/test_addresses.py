from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.addresses import NOWHERE, Networks, client, locate, parse

LOCAL = Networks.of(["127.0.0.1/32", "10.0.0.0/8", "2001:db8::/32"])


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("::FFFF:102:304", "1.2.3.4"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("unknown", None),
        ("", None),
        ("01.2.3.4", None),
        ("1.2.3", None),
        ("1.2.3.4/8", None),
    ],
)
def test_an_address_has_one_plain_form(text: str, plain: str | None) -> None:
    address = parse(text)

    assert (address and str(address)) == plain


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("127.0.0.1", True),
        ("10.255.255.255", True),
        ("11.0.0.0", False),
        ("::ffff:10.1.2.3", True),
        ("2001:db8:ffff::1", True),
        ("2001:db9::1", False),
        ("::1", False),
        ("", False),
        ("not an address", False),
    ],
)
def test_networks_know_their_own(address: str, inside: bool) -> None:
    assert (address in LOCAL) is inside


def test_an_ipv4_network_in_ipv6_clothes_is_ipv4() -> None:
    assert "10.1.2.3" in Networks.of(["::ffff:10.0.0.0/104"])


def test_networks_are_made_of_the_rules_own_values_too() -> None:
    assert "10.1.2.3" in Networks.of([ipaddress.ip_network("10.0.0.0/8")])


def test_a_text_that_is_no_network_is_an_error() -> None:
    with pytest.raises(ValueError):
        Networks.of(["10.0.0.1/8"])


def test_an_empty_list_holds_nobody() -> None:
    assert not NOWHERE
    assert LOCAL
    assert "127.0.0.1" not in NOWHERE


def test_everybody_is_somewhere_in_the_whole_world() -> None:
    world = Networks.of(["0.0.0.0/0", "::/0"])

    assert "198.51.100.7" in world
    assert "2001:db8::7" in world


@pytest.mark.parametrize(
    ("peer", "answer"),
    [
        ("127.0.0.1", ("127.0.0.1", True)),
        ("::ffff:127.0.0.1", ("127.0.0.1", True)),
        ("192.0.2.1", ("192.0.2.1", False)),
        ("fe80::1%eth0", ("fe80::1", False)),
        ("", ("", False)),
    ],
)
def test_a_peer_is_placed(peer: str, answer: tuple[str, bool]) -> None:
    assert locate(peer, LOCAL) == answer


@pytest.mark.row("H5")
@pytest.mark.parametrize(
    ("forwarded_for", "found"),
    [
        # Nearest hop that we do not trust, from the right.
        (b"192.0.2.1", "192.0.2.1"),
        (b"203.0.113.9, 192.0.2.1", "192.0.2.1"),
        (b"192.0.2.1, 10.0.0.3", "192.0.2.1"),
        (b"203.0.113.9, 192.0.2.1, 10.0.0.3, 10.0.0.2", "192.0.2.1"),
        (b"192.0.2.1,10.0.0.3", "192.0.2.1"),
        (b" 192.0.2.1\t, 10.0.0.3 ", "192.0.2.1"),
        (b"2001:db9::1, 2001:db8::1", "2001:db9::1"),
        (b"::ffff:192.0.2.1", "192.0.2.1"),
        (b"fe80::1%eth0", "fe80::1"),
        # Only trusted hops: the call began inside.
        (b"10.0.0.4, 10.0.0.3", "10.0.0.4"),
        # Some balancers tell the port.
        (b"192.0.2.1:4711", "192.0.2.1"),
        (b"[2001:db9::1]:4711", "2001:db9::1"),
        (b"[2001:db9::1]", "2001:db9::1"),
        # What the client put left of a true hop is never read.
        (b"unknown, 192.0.2.1", "192.0.2.1"),
        # Garbage where a hop should be: nobody but the peer is sure.
        (b"unknown", "10.0.0.1"),
        (b"", "10.0.0.1"),
        (b",", "10.0.0.1"),
        (b"192.0.2.1, unknown", "10.0.0.1"),
        (b"192.0.2.1, _hidden, 10.0.0.3", "10.0.0.1"),
        (b"192.0.2.1, 10.0.0.3,", "10.0.0.1"),
        (b"\xff\xfe", "10.0.0.1"),
        (b"192.0.2.1 10.0.0.3", "10.0.0.1"),
        (b"x" * 10_000, "10.0.0.1"),
        (b"192.0.2.1, " + b"10.0.0.3, " * 40 + b"10.0.0.2", "10.0.0.1"),
    ],
)
def test_h5_the_client_is_the_last_hop_that_is_not_ours(forwarded_for: bytes, found: str) -> None:
    assert client("10.0.0.1", forwarded_for, LOCAL) == found


@pytest.mark.row("H5")
@given(st.binary(max_size=300))
def test_any_bytes_in_x_forwarded_for_give_an_address(forwarded_for: bytes) -> None:
    found = client("10.0.0.1", forwarded_for, LOCAL)

    assert str(parse(found)) == found


@pytest.mark.row("H5")
@given(st.lists(st.ip_addresses(v=4), max_size=6), st.ip_addresses(v=4))
def test_nothing_left_of_an_untrusted_hop_matters(
    forged: list[ipaddress.IPv4Address], real: ipaddress.IPv4Address
) -> None:
    if str(real) in LOCAL:
        return
    hops = ", ".join([*map(str, forged), str(real), "10.9.9.9"])

    assert client("10.0.0.1", hops.encode(), LOCAL) == str(real)
