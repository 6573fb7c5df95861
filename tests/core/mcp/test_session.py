from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from proxy.core.mcp import session as tokens
from proxy.core.mcp.session import (
    MAX_AGE_MS,
    MAX_UPSTREAM,
    VERSIONS,
    fit,
    mint,
    read,
    version_asked,
)
from proxy.core.model import Session

NOW = 1_767_225_600_000
KEY, OTHER = b"k" * 32, b"o" * 32
WHO = "token_8d1c62a6b0a4e3f1"
MINE = Session("0123456789abcdef" * 2, "mcp", "2025-06-18", NOW, "3f2c9e1d" * 4)

VISIBLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=200)
SESSIONS = st.builds(
    Session,
    st.binary(min_size=16, max_size=16).map(bytes.hex),
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", fullmatch=True),
    st.sampled_from(VERSIONS),
    st.integers(0, 2**48 - 1),
    st.none() | VISIBLE,
)
CREDENTIALS = st.sampled_from(["", WHO, "signature_8d1c62a6b0a4e3f1"]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=40
)


@given(SESSIONS, CREDENTIALS, st.binary(min_size=16, max_size=64))
def test_a_session_comes_back_as_it_went(session: Session, credential: str, key: bytes) -> None:
    token = mint(session, credential, [key])

    assert read(token, credential, [key], session.issued_ms) == session
    assert all(0x21 <= byte <= 0x7E for byte in token)


def test_a_usual_token_has_a_hundred_characters() -> None:
    assert len(mint(MINE, WHO, [KEY])) == 102
    assert len(mint(replace(MINE, upstream=None), WHO, [KEY])) < 64


@given(SESSIONS, st.data())
def test_whatever_bit_is_flipped_it_is_refused(session: Session, data: st.DataObject) -> None:
    """Also those that base64 has to spare at its end, and those that change only its case."""
    token = bytearray(mint(session, WHO, [KEY]))
    place = data.draw(st.integers(0, len(token) - 1))
    token[place] ^= 1 << data.draw(st.integers(0, 7))

    assert read(bytes(token), WHO, [KEY], session.issued_ms) is None


def test_every_single_bit_of_one_counts() -> None:
    for upstream in (None, "a", "ab", "abc"):
        token = mint(replace(MINE, upstream=upstream), WHO, [KEY])
        for place in range(len(token)):
            for bit in range(8):
                wrong = bytearray(token)
                wrong[place] ^= 1 << bit
                assert read(bytes(wrong), WHO, [KEY], NOW) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda token: b"",
        lambda token: b"null",
        lambda token: token[:-1],
        lambda token: token[1:],
        lambda token: token + b"A",
        lambda token: token + b"=",
        lambda token: token + b"==",
        lambda token: b" " + token,
        lambda token: token + b"\n",
        lambda token: token[:50] + b"." + token[50:],
        lambda token: token.replace(b"-", b"+").replace(b"_", b"/"),
        lambda token: token + token,
        lambda token: b"A" * 5000,
        lambda token: b"\xff" * len(token),
        lambda token: b"3f2c9e1d" * 4,
    ],
)
def test_what_only_looks_like_one_is_none(change: Any) -> None:
    url_safe = replace(MINE, upstream="~~~???>>>")  # its bytes need the letters that differ
    token = mint(url_safe, WHO, [KEY])
    assert b"-" in token or b"_" in token

    assert read(change(token), WHO, [KEY], NOW) is None


@given(st.binary(max_size=200))
def test_no_bytes_whatever_are_taken_or_raise(raw: bytes) -> None:
    assert read(raw, WHO, [KEY], NOW) is None
    assert read(urlsafe_b64encode(raw).rstrip(b"="), WHO, [KEY], NOW) is None


@given(SESSIONS, CREDENTIALS, CREDENTIALS)
def test_it_is_for_the_credential_that_made_it(session: Session, one: str, other: str) -> None:
    """A session is no proof of who asks: a stolen token is worth nothing without the credential."""
    found = read(mint(session, one, [KEY]), other, [KEY], session.issued_ms)

    assert (found is not None) is (one == other)


def test_the_first_key_signs_and_all_are_taken() -> None:
    old, new = mint(MINE, WHO, [KEY]), mint(MINE, WHO, [OTHER, KEY])

    assert read(old, WHO, [OTHER, KEY], NOW) == MINE
    assert read(new, WHO, [OTHER], NOW) == MINE
    assert read(new, WHO, [KEY], NOW) is None
    assert read(old, WHO, [], NOW) is None


@pytest.mark.parametrize(
    ("age_ms", "alive"),
    [(0, True), (MAX_AGE_MS, True), (MAX_AGE_MS + 1, False), (-5_000, True)],
)
def test_it_lives_for_a_day(age_ms: int, alive: bool) -> None:
    """The clocks of two replicas may differ: one may see another's token before it was made."""
    found = read(mint(MINE, WHO, [KEY]), WHO, [KEY], NOW + age_ms)

    assert (found == MINE) is alive


@pytest.mark.parametrize("place", [0, 23], ids=["format", "version"])
def test_what_a_later_release_writes_is_none_to_this_one(place: int) -> None:
    """Two releases run side by side while replicas are replaced, with the same key."""
    raw = bytearray(urlsafe_b64decode(mint(MINE, WHO, [KEY]) + b"=="))[:-16]
    raw[place] += len(VERSIONS)
    signed = bytes(raw) + tokens._mac(KEY, bytes(raw), WHO)

    assert read(urlsafe_b64encode(signed).rstrip(b"="), WHO, [KEY], NOW) is None


def test_tokens_outlive_releases() -> None:
    """This one was made by the first of them."""
    token = (
        b"AQEjRWeJq83vASNFZ4mrze8Bm3baqAACA21jcDNmMmM5ZTFkM2Y"
        b"yYzllMWQzZjJjOWUxZDNmMmM5ZTFknf-FiIOgQBlKAXJBKLWGEQ"
    )

    assert mint(MINE, WHO, [KEY]) == token
    assert read(token, WHO, [KEY], NOW) == MINE


@pytest.mark.parametrize(
    "session",
    [
        replace(MINE, id="0123"),
        replace(MINE, id="no hex digits, but as many: 32.."),
        replace(MINE, version="2026-07-28"),
        replace(MINE, arm="x" * 256),
        replace(MINE, upstream=""),
        replace(MINE, upstream="two words"),
        replace(MINE, upstream="x" * (MAX_UPSTREAM + 1)),
    ],
)
def test_what_no_token_can_hold_is_not_minted(session: Session) -> None:
    with pytest.raises(ValueError, match=r"session|hex|tuple|bytes"):
        mint(session, WHO, [KEY])


@pytest.mark.parametrize(
    ("upstream", "fits"),
    [
        ("3f2c9e1d", True),
        ("!" + "~" * (MAX_UPSTREAM - 1), True),
        ("~" * (MAX_UPSTREAM + 1), False),
        ("", False),
        ("a b", False),
        ("a\tb", False),
        ("a\x7fb", False),
        ("caf\xe9", False),
    ],
)
def test_an_arms_own_id_is_visible_ascii(upstream: str, fits: bool) -> None:
    assert fit(upstream) is fits
    if fits:
        own = replace(MINE, upstream=upstream)
        assert read(mint(own, WHO, [KEY]), WHO, [KEY], NOW) == own


@pytest.mark.parametrize(
    ("params", "version"),
    [
        *(({"protocolVersion": version}, version) for version in VERSIONS),
        ({"protocolVersion": "2026-07-28"}, "2025-11-25"),
        ({"protocolVersion": "1999-01-01"}, "2025-11-25"),
        ({"protocolVersion": 20250618}, "2025-11-25"),
        ({"protocolVersion": ["2025-06-18"]}, "2025-11-25"),
        ({}, "2025-11-25"),
        ([], "2025-11-25"),
        (None, "2025-11-25"),
        ("2025-06-18", "2025-11-25"),
    ],
)
def test_the_version_is_the_one_asked_for_if_we_know_it(params: object, version: str) -> None:
    assert version_asked(json.dumps({"method": "initialize", "params": params}).encode()) == version


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"method":"initialize"}'])
def test_a_body_that_does_not_say_gets_the_latest(body: bytes) -> None:
    assert version_asked(body) == "2025-11-25"
