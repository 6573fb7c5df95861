import hmac
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from retell.lib import webhook_auth

from proxy.core.signature import Key, SignatureResult, identify, read, sign, verify

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "signature.json").read_text())
KEY = b"key_test_0123456789abcdef"
NOW = 1_767_225_600_000


def named(rows: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(row, id=row["why"]) for row in rows]


def sdk(body: str, header: str, *, key: str = KEY.decode(), now: int = NOW) -> bool:
    """What Retell's own library says."""
    return bool(webhook_auth.symmetric["verify"](body, key, header, {"timestamp": now}))


@pytest.mark.parametrize("row", named(VECTORS["digests"]))
@pytest.mark.row("A4")
def test_a_signature_equals_the_vector(row: dict[str, Any]) -> None:
    key, body, ms = row["key"].encode(), row["body"].encode(), row["ms"]
    assert len(body) == row["bytes"]

    header = sign(key, body, ms)

    assert header == f"v={ms},d={row['digest']}".encode()
    assert verify([key], body, header, ms) is SignatureResult.OK


@pytest.mark.parametrize("row", named(VECTORS["behaviour"]))
@pytest.mark.row("A4", "A5", "A6")
def test_a_header_is_judged_as_the_table_says(row: dict[str, Any]) -> None:
    keys, body, header = [row["key"].encode()], row["body"].encode(), row["header"].encode()

    assert verify(keys, body, header, row["now_ms"]) == row["result"]
    assert (read(header) is None) is (row["result"] == "malformed")


@pytest.mark.parametrize("row", named(VECTORS["behaviour"]))
@pytest.mark.row("A4")
def test_the_table_is_what_the_sdk_does(row: dict[str, Any]) -> None:
    accepted = sdk(row["body"], row["header"], key=row["key"], now=row["now_ms"])

    assert accepted is (row["result"] == "ok")


@given(st.text(), st.binary(min_size=1, max_size=80), st.integers(0, 10**15))
def test_what_we_sign_the_sdk_accepts(body: str, key: bytes, ms: int) -> None:
    text = key.hex()
    header = sign(text.encode(), body.encode(), ms).decode()

    assert sdk(body, header, key=text, now=ms)


@given(st.text(), st.integers(0, 10**15), st.integers(-300_100, 300_100))
def test_what_the_sdk_signs_we_judge_as_it_does(body: str, ms: int, off: int) -> None:
    header = webhook_auth.symmetric["sign"](body, KEY.decode(), ms)

    result = verify([KEY], body.encode(), header.encode(), ms + off)

    assert (result is SignatureResult.OK) is sdk(body, header, now=ms + off)


@given(
    st.from_regex(r"\A[vV]?=?[0-9]{0,40} ?,d=[0-9a-fA-F]{62,66}\n?\Z") | st.text(max_size=90),
)
@example("v=٣٠٠,d=" + "0" * 64)
@example("v=" + "9" * 5000 + ",d=" + "0" * 64)
def test_we_accept_nothing_that_the_sdk_refuses(header: str) -> None:
    try:
        theirs = sdk("{}", header)
    except ValueError:  # More digits than Python reads: the SDK raises, we must not.
        theirs = False

    assert verify([KEY], b"{}", header.encode("utf-8", "surrogatepass"), NOW) != "ok" or theirs


@given(st.lists(st.binary(max_size=100), max_size=3), st.binary(), st.none() | st.binary())
@pytest.mark.row("A6")
def test_no_bytes_whatever_raise(keys: list[bytes], body: bytes, header: bytes | None) -> None:
    assert verify(keys, body, header, NOW) in SignatureResult


def test_a_body_that_is_no_text_is_signed_all_the_same() -> None:
    body = b"\x1f\x8b\x08\x00\xff\xfe"

    assert verify([KEY], body, sign(KEY, body, NOW), NOW) is SignatureResult.OK


def test_no_header_is_missing_and_an_empty_one_malformed() -> None:
    assert verify([KEY], b"", None, NOW) is SignatureResult.MISSING
    assert verify([KEY], b"", b"", NOW) is SignatureResult.MALFORMED


@pytest.mark.row("A6")
def test_a_megabyte_of_header_is_malformed_at_once() -> None:
    assert verify([KEY], b"", b"v=" + b"0" * 2**20 + b",d=", NOW) is SignatureResult.MALFORMED


def test_any_of_several_keys_will_do_and_is_named_by_its_place() -> None:
    secrets = [b"one", b"two", b"three"]
    keys = [Key(secret) for secret in secrets]
    for place, secret in enumerate(secrets):
        stamp = read(sign(secret, b"{}", NOW))

        assert stamp is not None
        assert identify(keys, b"{}", stamp, NOW) == (SignatureResult.OK, place)
        assert identify([Key(b"four")], b"{}", stamp, NOW) == (SignatureResult.WRONG, -1)


@given(st.binary(max_size=200), st.binary(), st.integers(0, 10**15))
@example(b"k" * 64, b"{}", NOW)
@example(b"k" * 65, b"{}", NOW)
def test_a_key_begun_once_gives_what_the_library_gives(secret: bytes, body: bytes, ms: int) -> None:
    key, message = Key(secret), b"%b%d" % (body, ms)
    for _ in range(2):
        assert key.digest(body, b"%d" % ms) == hmac.digest(secret, message, "sha256")


def test_without_a_key_nothing_verifies() -> None:
    assert verify([], b"{}", sign(b"", b"{}", NOW), NOW) is SignatureResult.WRONG


@pytest.mark.row("A5")
def test_stale_is_told_only_of_a_signature_that_holds() -> None:
    """Else a forger's clock would be counted as Retell's late delivery."""
    old = NOW - 300_001

    assert verify([KEY], b"{}", sign(KEY, b"{}", old), NOW) is SignatureResult.STALE
    assert verify([KEY], b"{}", sign(b"forged", b"{}", old), NOW) is SignatureResult.WRONG


@pytest.mark.parametrize(
    ("tolerance", "result"), [(0, "stale"), (999, "stale"), (1000, "ok"), (10**12, "ok")]
)
def test_the_tolerance_is_the_rules(tolerance: int, result: str) -> None:
    header = sign(KEY, b"{}", NOW - 1000)

    assert verify([KEY], b"{}", header, NOW, tolerance) == result


def test_a_header_is_read_into_time_and_digest() -> None:
    assert read(b"v=0007,d=" + b"0f" * 32) == (7, b"\x0f" * 32)


@given(st.binary(max_size=120))
@example(b"v=1,d=" + b"a" * 63 + b"A")
@example(b"v=1,d=" + b"a" * 63 + b"g")
@example(b"v=1,d=" + b"a" * 64 + b"\n")
@example(b"v=1\n,d=" + b"a" * 64)
@example(b"v=,d=" + b"a" * 64)
@example(b"v=1,d=,d=" + b"a" * 61)
@example(b"v=" + b"1" * 33 + b",d=" + b"a" * 64)
@pytest.mark.row("A6")
def test_a_header_has_one_form(header: bytes) -> None:
    """That of Retell's Python SDK, with a bound on the digits."""
    form = re.fullmatch(rb"v=([0-9]{1,32}),d=([0-9a-f]{64})", header)

    assert read(header) == (form and (int(form[1]), bytes.fromhex(form[2].decode())))
