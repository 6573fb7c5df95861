"""From files to TLS: a context that is ready for connections, or which file is at fault, and why.

Python can take keys from files only, so each is read once more afterwards: what was taken and what
stands there must be the same.
"""

from __future__ import annotations

import errno
import hashlib
import os
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Never

from proxy.core.certificate import Certificate, certificates
from proxy.core.rules.tls_ends import TlsEnd
from proxy.errors import Fault, RulesError

MAX_BYTES: Final = 2**20
"""Of one file: the CAs of a whole system take a quarter of it."""

_TRIES: Final = 5
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2, for callers: forward secrecy and authenticated encryption, nothing else."""

Content = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Material:
    """What the files of one end come to."""

    context: ssl.SSLContext
    chain: tuple[Certificate, ...]  # what we show, our own first; () for nothing
    digest: bytes  # of all files


class _Encrypted(Exception):
    """A key wants a passphrase."""


def load(end: TlsEnd) -> Material:
    """Build what `end` describes; raises RulesError, each fault with its file and the way out."""
    for _ in range(_TRIES):
        content = _read(end)
        context = _server(end, content) if end.server else _client(end, content)
        if _read(end) == content:
            return Material(context, _chain(end, content), _digest(content))
    raise _fault(end.place, f"{end.files[0]} changes all the time", "write files whole, at once")


def signs(end: TlsEnd) -> tuple[object, ...]:
    """What changes when a file does; cheap to ask for."""
    return tuple(_sign(file) for file in end.files)


def _sign(file: str) -> tuple[int, ...]:
    try:
        found = os.stat(file)
    except OSError as error:
        return (error.errno or 0,)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


# -- Contexts.


def _server(end: TlsEnd, content: Content) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION  # which costs us much, and a caller little
    _show(context, end, content)
    if end.ca_file is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        _trust(context, end, content)
    return _settled(context, end)


def _client(end: TlsEnd, content: Content) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Of what Python 3.13 sets by default, the one for all: a CA in between may be trusted, too.
    # VERIFY_X509_STRICT refuses private CAs that are otherwise sound (no key identifier, no key
    # usage), and it must not depend on the Python which backends can be reached.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if end.ca_file is None:
        context.load_default_certs()
    else:
        _trust(context, end, content)
    if end.cert_file is not None:
        _show(context, end, content)
    return _settled(context, end)


def _settled(context: ssl.SSLContext, end: TlsEnd) -> ssl.SSLContext:
    context.minimum_version = _VERSIONS[end.min_version]
    context.set_alpn_protocols(["http/1.1"])
    return context


def _trust(context: ssl.SSLContext, end: TlsEnd, content: Content) -> None:
    file = end.ca_file or ""
    _want_certificate(end.ca_key, file, content)
    try:
        context.load_verify_locations(cafile=file)
    except OSError as error:
        raise _unusable(end.ca_key, file, error) from None


def _show(context: ssl.SSLContext, end: TlsEnd, content: Content) -> None:
    """Have our own certificate ready."""
    file, key = end.cert_file or "", end.key_file or end.cert_file or ""
    at, at_key = f"{end.place}.cert_file", f"{end.place}.key_file"
    _want_certificate(at, file, content)
    if b"PRIVATE KEY-----" not in content[key]:
        alone = "name it: key_file is not set" if end.key_file is None else "is it another file?"
        raise _fault(at_key, f"{key} holds no private key", alone)
    try:
        context.load_cert_chain(file, key, password=_no_passphrase)
    except _Encrypted:
        way_out = "nobody can type it here: openssl pkey -in OLD -out NEW, and chmod 600 NEW"
        raise _fault(at_key, f"{key} is protected by a passphrase", way_out) from None
    except OSError as error:
        if getattr(error, "reason", None) in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            way_out = "cert_file begins with our own certificate, then come those of its issuers"
            raise _fault(at_key, f"{key} is not the key of {file}", way_out) from None
        if _reads(file):
            at, file = at_key, key
        raise _unusable(at, file, error) from None


def _reads(file: str) -> bool:
    """Whether the certificates in it can be read: then it is the key that cannot."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
    except OSError:
        return False
    return True


def _no_passphrase() -> Never:
    """Without this, OpenSSL would ask whoever sits at the terminal, and wait."""
    raise _Encrypted


# -- Files.


def _read(end: TlsEnd) -> Content:
    keys = {
        end.cert_file: f"{end.place}.cert_file",
        end.key_file: f"{end.place}.key_file",
        end.ca_file: end.ca_key,
    }
    content, faults = {}, []
    for file in end.files:
        try:
            content[file] = _bytes(file)
        except OSError as error:
            faults.append(_unreadable(keys[file], file, error))
    if faults:
        raise RulesError(faults)
    return content


def _bytes(file: str) -> bytes:
    with open(file, "rb", opener=_opened) as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise OSError(errno.EINVAL, "It is no regular file")
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(errno.EFBIG, "It is larger than 1 MB")
    return content


def _opened(name: str, flags: int) -> int:
    """Without O_NONBLOCK, opening a pipe would wait for somebody to write."""
    return os.open(name, flags | os.O_NONBLOCK)


def _digest(content: Content) -> bytes:
    parts = (hashlib.sha256(each).digest() for each in content.values())
    return hashlib.sha256(b"".join(parts)).digest()


def _chain(end: TlsEnd, content: Content) -> tuple[Certificate, ...]:
    if end.cert_file is None:
        return ()
    try:
        return certificates(content[end.cert_file])
    except ValueError:  # OpenSSL read the first one; the rest is not for us to judge.
        return ()


# -- Faults.


def _want_certificate(path: str, file: str, content: Content) -> None:
    if b"CERTIFICATE-----" not in content[file]:
        way_out = "PEM begins with -----BEGIN CERTIFICATE-----: openssl x509 -inform der -in ..."
        raise _fault(path, f"{file} holds no certificate in PEM", way_out)


def _unreadable(path: str, file: str, error: OSError) -> Fault:
    way_out = ""
    if error.errno == errno.EACCES:
        way_out = "let the user that callsplit runs as read it"
    elif not os.path.isabs(file):
        way_out = f"it was looked for in {Path.cwd()}"
    reason = (error.strerror or type(error).__name__).lower()
    return Fault(f"{file} cannot be read: {reason}", path=path, hint=way_out)


def _unusable(path: str, file: str, error: OSError) -> RulesError:
    reason = getattr(error, "reason", None) or error.strerror or "no usable certificate in it"
    return _fault(path, f"{file} cannot be used: {reason.lower().replace('_', ' ')}", "")


def _fault(path: str, message: str, hint: str) -> RulesError:
    return RulesError([Fault(message, path=path, hint=hint)])
