"""A certificate authority of the tests' own: certificates of any age, for any name."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
DAY = datetime.timedelta(days=1)


@cache
def _key(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _pem(key: ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> bytes:
    locked = (
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@dataclass(frozen=True)
class Pair:
    """Where a certificate lies, and its key."""

    cert: Path
    key: Path
    certificate: x509.Certificate

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    @property
    def ends(self) -> int:
        return int(self.certificate.not_valid_after_utc.timestamp())

    def over(self, other: Pair) -> None:
        """Put it in the place of another, each file whole at once."""
        for new, old in ((self.cert, other.cert), (self.key, other.key)):
            fresh = old.with_suffix(".fresh")
            fresh.write_bytes(new.read_bytes())
            fresh.replace(old)


class Authority:
    """Issues certificates into `folder`; `ca` is the file by which its own are known."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder, self.name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._issued = 0
        self.certificate = self._sign(
            self._key.public_key(), name, ends=NOW + 365 * DAY, begins=NOW - DAY, authority=True
        )
        self.ca = folder / f"{name}.pem"
        self.ca.write_bytes(self.pem)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        *names: str,
        days: float = 90,
        begins: float = -1,
        key: int = 0,
        passphrase: bytes | None = None,
        chain: bytes = b"",
    ) -> Pair:
        """A certificate for these names that ends in so many days; equal `key`s are one key."""
        self._issued += 1
        names = names or ("localhost", "127.0.0.1", "sidecar.test")
        own = _key(key)
        certificate = self._sign(
            own.public_key(), names[0], *names, begins=NOW + begins * DAY, ends=NOW + days * DAY
        )
        stem = f"{self.name}-{self._issued}"
        pair = Pair(self.folder / f"{stem}.crt", self.folder / f"{stem}.key", certificate)
        pair.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + chain)
        pair.key.write_bytes(_pem(own, passphrase))
        return pair

    def caller(
        self, *, shows: Pair | None = None, most: ssl.TLSVersion | None = None
    ) -> ssl.SSLContext:
        """What a client of this authority's servers uses."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if shows is not None:
            context.load_cert_chain(shows.cert, shows.key)
        if most is not None:
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.maximum_version = most
        return context

    def server(self, pair: Pair | None = None, *, asks: Path | None = None) -> ssl.SSLContext:
        """What an origin uses; with `asks` its callers must show a certificate of those CAs."""
        pair = pair or self.issue()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.cert, pair.key)
        if asks is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cafile=str(asks))
        return context

    def _sign(
        self,
        public: ec.EllipticCurvePublicKey,
        subject: str,
        *names: str,
        begins: datetime.datetime,
        ends: datetime.datetime,
        authority: bool = False,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(self.name))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .add_extension(_usage(authority), critical=True)
        )
        if names:
            alternative = x509.SubjectAlternativeName([_alternative(name) for name in names])
            builder = builder.add_extension(alternative, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority,
        content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


class Judging:
    """A TLS server that says why it refuses a caller, as most do; those of asyncio only hang up."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.read: list[bytes] = []
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://localhost:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Judging:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                accepted, _ = self._socket.accept()
            except OSError:
                return
            with accepted:
                try:
                    with self._context.wrap_socket(accepted, server_side=True) as secure:
                        self.read.append(secure.recv(65_536))
                except OSError:
                    pass
