"""The sections about TLS: paths, never keys; versions with or without quotes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from proxy.core.rules.parse import SecretError
from proxy.core.rules.tls import ListenTls, Tls, parse_file


def test_a_listener_needs_a_certificate_only() -> None:
    said = ListenTls.model_validate({"cert_file": "/tls.pem"})

    assert (said.key_file, said.client_ca_file, said.min_version) == (None, None, "1.2")
    with pytest.raises(ValidationError, match="cert_file"):
        ListenTls.model_validate({"key_file": "/tls.key"})


@pytest.mark.parametrize("written", ["1.3", 1.3])
def test_a_version_may_stand_without_quotes(written: object) -> None:
    """In YAML, 1.3 is a number."""
    said = ListenTls.model_validate({"cert_file": "/tls.pem", "min_version": written})

    assert said.min_version == "1.3"


@pytest.mark.parametrize("written", ["1.1", 1.1, 1, "TLSv1.3", None, True, [], "1.30"])
def test_no_older_version_and_no_other_spelling_is_taken(written: Any) -> None:
    with pytest.raises(ValidationError, match=r"expected 1\.2 or 1\.3"):
        ListenTls.model_validate({"cert_file": "/tls.pem", "min_version": written})


@pytest.mark.parametrize("written", ["", 5, None, "a\0b", {}])
def test_what_is_no_path_is_refused(written: Any) -> None:
    with pytest.raises(ValueError, match="expected a path"):
        parse_file(written)


@pytest.mark.parametrize("written", ["file:/run/key.pem", "env:KEY"])
def test_a_reference_is_no_path(written: str) -> None:
    with pytest.raises(ValueError, match="expected the path of a file, alone"):
        parse_file(written)


def test_a_key_that_was_pasted_is_refused_and_not_shown() -> None:
    pasted = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ\n-----END PRIVATE KEY-----\n"

    with pytest.raises(SecretError) as caught:
        parse_file(pasted)

    assert "MC4C" not in str(caught.value)


def test_an_upstream_needs_nothing() -> None:
    assert [value for _, value in Tls()] == [None] * 4
