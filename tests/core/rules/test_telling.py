from __future__ import annotations

import pytest

from proxy.core.rules.telling import is_telling, looks_secret


@pytest.mark.parametrize(
    "name",
    [
        "token", "tokens", "api_key", "apiKey", "API-KEY", "x-api-key", "header.authorization",
        "password", "db_password", "clientSecret", "secret", "private_key", "bearer", "credentials",
        "retell_key", "signingKey", "upstream.access_token",
    ],
)  # fmt: skip
def test_what_goes_by_this_name_is_a_secret(name: str) -> None:
    assert is_telling(name)


@pytest.mark.parametrize(
    "name",
    [
        "key", "sort_key", "cache_key", "monkey", "author", "token_url", "max_tokens_per_call",
        "passthrough", "compass", "region", "like", "secretary", "",
    ],
)  # fmt: skip
def test_other_names_are_nobodys_business(name: str) -> None:
    """Somebody else's handler chose them, and a refusal stops the start."""
    assert not is_telling(name)


@pytest.mark.parametrize(
    "text",
    [
        "Bearer abcdefgh12345678",
        "Basic dXNlcjpwYXNzd29yZA==",
        "https://user:hunter2@example.com/x",
        "redis://:hunter2@cache:6379/0",
        "postgres://app:pw@db/app",
        "key_0123456789abcdef0123456789ab",
        "sk-proj-0123456789abcdefghij",
        "ghp_0123456789abcdefghij",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIB\n",
    ],
)
def test_some_forms_only_secrets_have(text: str) -> None:
    assert looks_secret(text)
    assert looks_secret(f" {text}\n")


@pytest.mark.parametrize(
    "text",
    [
        "", "eu-west-1", "env:TOKEN", "file:/run/secrets/x", "https://example.com/a@b:c", "bearer",
        "key_value", "agent_0123456789abcdef", "call_24977a803e9bd80b586fca06259",
        "Bearer of bad news", "+14155550100",
    ],
)  # fmt: skip
def test_other_texts_are_texts(text: str) -> None:
    assert not looks_secret(text)
