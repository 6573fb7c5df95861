"""TLS made of files: each fault names its file and the way out."""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.adapters import tls_files
from proxy.adapters.tls_files import MAX_BYTES, load, signs
from proxy.core.rules.tls_ends import LISTENER, TlsEnd, place_of
from proxy.errors import Fault, RulesError
from tests.authority import Authority, Pair

UPSTREAM = place_of("mcp")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def listener(pair: Pair, **more: Any) -> TlsEnd:
    return TlsEnd(LISTENER, str(pair.cert), str(pair.key), server=True, **more)


def fault(end: TlsEnd) -> Fault:
    with pytest.raises(RulesError) as caught:
        load(end)
    (only,) = caught.value.faults
    return only


# -- What comes of good files.


def test_a_listener_speaks_nothing_old_and_lets_nobody_renegotiate(authority: Authority) -> None:
    context = load(listener(authority.issue())).context

    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_NONE
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION
    old = [each["name"] for each in context.get_ciphers() if each["protocol"] != "TLSv1.3"]
    assert old
    assert all(name.startswith("ECDHE-") for name in old)
    assert all("GCM" in name or "CHACHA20" in name for name in old)


def test_a_listener_may_ask_for_more(authority: Authority) -> None:
    end = listener(authority.issue(), ca_file=str(authority.ca), min_version="1.3")
    context = load(end).context

    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_the_chain_that_is_shown_is_known(authority: Authority) -> None:
    pair = authority.issue(chain=authority.pem)
    material = load(listener(pair))

    assert [each.ends for each in material.chain] == [
        pair.ends,
        authority.certificate.not_valid_after_utc.timestamp(),
    ]


def test_the_key_may_stand_beside_the_certificate(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue()
    both = tmp_path / "both.pem"
    both.write_bytes(pair.key.read_bytes() + pair.cert.read_bytes())

    assert load(TlsEnd(LISTENER, str(both), server=True)).chain[0].fingerprint == pair.fingerprint


def test_an_upstream_must_prove_who_it_is(authority: Authority) -> None:
    for ca_file in (None, str(authority.ca)):
        context = load(TlsEnd(UPSTREAM, ca_file=ca_file)).context

        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.get_ca_certs()
        flags = context.verify_flags
        assert flags & ssl.VERIFY_X509_PARTIAL_CHAIN
        assert not flags & ssl.VERIFY_X509_STRICT  # with every Python


def test_equal_files_come_to_equal_digests(authority: Authority) -> None:
    pair, other = authority.issue(), authority.issue()
    first, again = load(listener(pair)), load(listener(pair))
    other.over(pair)

    assert first.digest == again.digest != load(listener(pair)).digest


# -- What is wrong with others.


def der(pair: Pair) -> None:
    pair.cert.write_bytes(ssl.PEM_cert_to_DER_cert(pair.cert.read_text()))


def swapped(pair: Pair) -> None:
    cert, key = pair.cert.read_bytes(), pair.key.read_bytes()
    pair.cert.write_bytes(key)
    pair.key.write_bytes(cert)


def folder(pair: Pair) -> None:
    pair.key.unlink()
    pair.key.mkdir()


def pipe(pair: Pair) -> None:
    pair.key.unlink()
    os.mkfifo(pair.key)


def huge(pair: Pair) -> None:
    pair.cert.write_bytes(b" " * (MAX_BYTES + 1))


def cut(pair: Pair) -> None:
    pair.cert.write_bytes(pair.cert.read_bytes()[:200])


def bent_key(pair: Pair) -> None:
    pair.key.write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")


SPOILT: list[tuple[Callable[[Pair], object], str, str, str]] = [
    (lambda pair: pair.cert.unlink(), "cert_file", "no such file", ""),
    (lambda pair: pair.key.unlink(), "key_file", "no such file", ""),
    (folder, "key_file", "is a directory", ""),
    (pipe, "key_file", "regular file", ""),
    (huge, "cert_file", "larger than 1 mb", ""),
    (lambda pair: pair.cert.write_bytes(b""), "cert_file", "no certificate in PEM", "openssl x509"),
    (lambda pair: pair.key.write_bytes(b""), "key_file", "no private key", "another file"),
    (der, "cert_file", "no certificate in PEM", "openssl x509 -inform der"),
    (swapped, "cert_file", "no certificate in PEM", "BEGIN CERTIFICATE"),
    (cut, "cert_file", "cannot be used", ""),
    (bent_key, "key_file", "cannot be used", ""),
]


@pytest.mark.parametrize(("spoil", "key", "what", "way_out"), SPOILT)
def test_a_fault_names_the_file_and_the_way_out(
    authority: Authority, spoil: Callable[[Pair], object], key: str, what: str, way_out: str
) -> None:
    pair = authority.issue()
    spoil(pair)
    found = fault(listener(pair))

    assert found.path == f"{LISTENER}.{key}"
    assert str(pair.cert if key == "cert_file" else pair.key) in found.message
    assert what in found.message
    assert way_out in found.hint


def test_a_pair_that_is_none_is_told_as_such(authority: Authority) -> None:
    one, other = authority.issue(key=1), authority.issue(key=2)
    found = fault(TlsEnd(LISTENER, str(one.cert), str(other.key), server=True))

    assert found.message == f"{other.key} is not the key of {one.cert}"
    assert "begins with our own" in found.hint


def test_nobody_is_asked_for_a_passphrase(authority: Authority) -> None:
    """OpenSSL would ask at the terminal, and wait."""
    found = fault(listener(authority.issue(passphrase=b"secret")))

    assert "passphrase" in found.message
    assert "openssl pkey" in found.hint


def test_a_key_that_is_nowhere_is_asked_for(authority: Authority) -> None:
    found = fault(TlsEnd(LISTENER, str(authority.issue().cert), server=True))

    assert (found.path, found.hint) == (
        f"{LISTENER}.key_file",
        "name it: key_file is not set",
    )


def test_cas_are_looked_at_too(authority: Authority, tmp_path: Path) -> None:
    nothing, bent = tmp_path / "nothing.pem", tmp_path / "bent.pem"
    nothing.write_bytes(b"nothing")
    bent.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")

    for file in (nothing, bent):
        assert fault(TlsEnd(UPSTREAM, ca_file=str(file))).path == f"{UPSTREAM}.ca_file"
        asked = listener(authority.issue(), ca_file=str(file))
        assert fault(asked).path == f"{LISTENER}.client_ca_file"


def test_all_files_that_are_missing_are_told_at_once(tmp_path: Path) -> None:
    end = TlsEnd(LISTENER, str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "c"), True)
    with pytest.raises(RulesError) as caught:
        load(end)

    assert [one.path.rpartition(".")[2] for one in caught.value.faults] == [
        "cert_file",
        "key_file",
        "client_ca_file",
    ]


def test_a_relative_path_is_told_with_where_it_was_looked_for() -> None:
    assert str(Path.cwd()) in fault(TlsEnd(UPSTREAM, ca_file="no/such/ca.pem")).hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_key_that_may_not_be_read_is_told_as_such(authority: Authority) -> None:
    pair = authority.issue()
    pair.key.chmod(0)

    assert "let the user" in fault(listener(pair)).hint


def test_the_way_out_of_missing_rights_is_to_give_them() -> None:
    """Also where the tests run as root."""
    refused = PermissionError(13, "Permission denied")

    assert "let the user" in tls_files._unreadable("a", "/a", refused).hint


# -- Files that change.


def test_files_that_change_while_they_are_read_are_read_again(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, newer = authority.issue(key=1), authority.issue(key=2)
    real, turns = tls_files._server, iter([newer.over])

    def change(end: TlsEnd, content: tls_files.Content) -> ssl.SSLContext:
        context = real(end, content)
        for over in turns:
            over(pair)
        return context

    monkeypatch.setattr(tls_files, "_server", change)

    assert load(listener(pair)).chain[0].fingerprint == newer.fingerprint


def test_files_that_never_stand_still_are_not_taken(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = authority.issue()
    real = tls_files._server

    def change(end: TlsEnd, content: tls_files.Content) -> ssl.SSLContext:
        context = real(end, content)
        pair.cert.write_bytes(pair.cert.read_bytes() + b"\n")
        return context

    monkeypatch.setattr(tls_files, "_server", change)

    assert "changes all the time" in fault(listener(pair)).message


def test_signs_change_with_a_file_and_with_its_absence(authority: Authority) -> None:
    pair, other = authority.issue(), authority.issue()
    end = listener(pair)
    seen = [signs(end), signs(end)]
    other.over(pair)
    seen.append(signs(end))
    pair.key.chmod(stat.S_IRUSR)
    seen.append(signs(end))
    pair.key.unlink()
    seen.append(signs(end))

    assert seen[0] == seen[1]
    assert len(set(seen)) == 4


def test_a_swapped_link_is_seen(authority: Authority, tmp_path: Path) -> None:
    """As a mounted Secret is renewed."""
    pair, other = authority.issue(), authority.issue()
    link = tmp_path / "tls.crt"
    link.symlink_to(pair.cert)
    end = TlsEnd(LISTENER, str(link), str(pair.key), server=True)
    before = signs(end)
    fresh = tmp_path / "fresh"
    fresh.symlink_to(other.cert)
    fresh.replace(link)

    assert signs(end) != before


def test_a_chain_that_only_openssl_can_read_is_not_shown(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(_: bytes) -> None:
        raise ValueError

    monkeypatch.setattr(tls_files, "certificates", unreadable)

    assert load(listener(authority.issue())).chain == ()
