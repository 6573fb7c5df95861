"""Which files does TLS need, on the listener and towards a backend?"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from proxy.core.rules.base import Section
from proxy.core.rules.parse import HintedError, SecretError, describe
from proxy.core.rules.values import Word

_VERSIONS = {"1.2": "1.2", "1.3": "1.3", 1.2: "1.2", 1.3: "1.3"}


def parse_file(value: Any) -> str:
    """A path; raises ValueError, and SecretError for what may be a key itself."""
    if isinstance(value, str) and "-----BEGIN" in value:
        raise SecretError("expected the path of a file, never what stands in it")
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"expected a path such as /etc/callsplit/tls.crt, got {describe(value)}")
    if value.startswith(("file:", "env:")):
        raise HintedError("expected the path of a file, alone", "write it without file: or env:")
    return value


def parse_version(value: Any) -> str:
    """1.2 or 1.3, with or without quotes; raises ValueError."""
    known = isinstance(value, str | float) and _VERSIONS.get(value)
    if not known:
        raise ValueError(f"expected 1.2 or 1.3, got {describe(value)}")
    return known


FilePath = Annotated[
    str, Word("file"), PlainValidator(parse_file), WithJsonSchema({"type": "string"})
]
Version = Annotated[
    Literal["1.2", "1.3"],
    Word("1.2 or 1.3"),
    PlainValidator(parse_version),
    WithJsonSchema({"enum": ["1.2", "1.3", 1.2, 1.3]}),
]


class ListenTls(Section):
    """What callers are shown, and what they must show."""

    cert_file: FilePath = Field(
        description="PEM file: the certificate, then those of its issuers up to the root."
    )
    key_file: FilePath | None = Field(
        None, description="PEM file of its key, without a passphrase; null: it is in cert_file."
    )
    client_ca_file: FilePath | None = Field(
        None,
        description="PEM file of CAs: only callers with a certificate of theirs may connect; "
        "null: none is asked for.",
    )
    min_version: Version = Field("1.2", description="The oldest TLS that is spoken.")


class Tls(Section):
    """How an https upstream proves who it is, and what it is shown."""

    ca_file: FilePath | None = Field(
        None, description="PEM file of the CAs to trust; null: system's."
    )
    server_name: str | None = Field(None, description="Expected name, if not the URL's host.")
    cert_file: FilePath | None = Field(
        None, description="PEM file of our certificate, if it asks for one; null: none."
    )
    key_file: FilePath | None = Field(
        None, description="PEM file of its key, without a passphrase; null: it is in cert_file."
    )
