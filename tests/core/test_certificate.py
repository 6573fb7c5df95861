"""How long a certificate holds, read off its DER."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.certificate import certificates, validity
from tests.authority import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


def test_each_certificate_of_a_chain_is_read(authority: Authority) -> None:
    pair = authority.issue("a.test", days=3, begins=-2, chain=authority.pem)
    read = certificates(b"what people write above\n" + pair.cert.read_bytes())

    expected = (pair.certificate, authority.certificate)
    assert [one.begins for one in read] == [
        each.not_valid_before_utc.timestamp() for each in expected
    ]
    assert [one.ends for one in read] == [each.not_valid_after_utc.timestamp() for each in expected]
    assert read[0].fingerprint == pair.fingerprint


def test_a_file_without_certificates_has_none(authority: Authority) -> None:
    assert certificates(authority.issue().key.read_bytes()) == ()


def tlv(tag: int, content: bytes) -> bytes:
    """A value in DER."""
    if len(content) < 128:
        return bytes([tag, len(content)]) + content
    size = len(content).to_bytes(2)
    return bytes([tag, 0x82]) + size + content


def certificate(*times: bytes, version: bool = True) -> bytes:
    head = tlv(0xA0, tlv(2, b"\2")) if version else b""
    fields = head + tlv(2, b"\1") + tlv(0x30, b"") + tlv(0x30, b"x" * 200)
    return tlv(0x30, tlv(0x30, fields + tlv(0x30, b"".join(times))) + tlv(0x30, b""))


UTC_TIME, TIME = 0x17, 0x18


@pytest.mark.parametrize("version", [True, False])
@pytest.mark.parametrize(
    ("time", "year"),
    [
        (tlv(UTC_TIME, b"491231235959Z"), 2049),
        (tlv(UTC_TIME, b"501231235959Z"), 1950),
        (tlv(UTC_TIME, b"991231235959Z"), 1999),
        (tlv(TIME, b"20501231235959Z"), 2050),
        (tlv(TIME, b"99991231235959Z"), 9999),
    ],
)
def test_both_forms_of_time_are_read(time: bytes, year: int, version: bool) -> None:
    ends = int(datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())

    assert validity(certificate(tlv(UTC_TIME, b"700101000000Z"), time, version=version)) == (
        0,
        ends,
    )


GOOD = tlv(UTC_TIME, b"700101000000Z")


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"\x30",
        b"\x30\x05ab",
        b"\x30\x84\xff\xff\xff\xff",
        tlv(0x30, b""),
        tlv(0x30, tlv(0x30, b"")),
        tlv(0x30, tlv(0x30, tlv(2, b"\1"))),
        tlv(0x31, certificate(GOOD, GOOD)[4:]),
        certificate(),
        certificate(GOOD),
        certificate(GOOD, GOOD, GOOD),
        certificate(GOOD, tlv(4, b"700101000000Z")),
        certificate(GOOD, tlv(UTC_TIME, b"700101000000+0100")),
        certificate(GOOD, tlv(UTC_TIME, b"xx0101000000Z")),
        certificate(GOOD, tlv(TIME, "２０501231235959Z".encode())),
    ],
)
def test_what_is_no_certificate_is_refused(der: bytes) -> None:
    with pytest.raises(ValueError):
        validity(der)


def test_what_is_no_base64_is_refused() -> None:
    with pytest.raises(ValueError):
        certificates(b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n")


@given(st.data())
def test_a_certificate_that_was_cut_or_bent_never_crashes_anything(data: st.DataObject) -> None:
    whole = bytearray(certificate(GOOD, GOOD))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(cut) + b"\n-----END CERTIFICATE-----"

    try:
        certificates(pem)
    except ValueError:
        pass


def test_it_agrees_with_another_reader(authority: Authority, tmp_path: Path) -> None:
    for days in (0.5, 30, 9000, 40_000):
        pem = authority.issue(days=days).cert.read_bytes()
        (read,) = certificates(pem)
        known = x509.load_pem_x509_certificate(pem)

        assert read.ends == known.not_valid_after_utc.timestamp()
