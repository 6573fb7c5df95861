from __future__ import annotations

import pytest
from pydantic import ValidationError

from proxy.core.rules.outbox import Outbox, parse_store
from proxy.core.rules.parse import SecretError
from proxy.core.rules.secret import SecretRef


@pytest.mark.parametrize(
    "store",
    ["sqlite", "redis://127.0.0.1:6379/0", "rediss://redis.internal", "unix:///run/redis.sock"],
)
def test_a_store_is_a_file_or_a_url(store: str) -> None:
    assert Outbox.model_validate({"store": store}).store == store


def test_a_whole_url_may_be_a_secret_and_shows_as_its_reference() -> None:
    outbox = Outbox.model_validate({"store": "env:OUTBOX_REDIS?"})

    assert outbox.store == SecretRef("env:OUTBOX_REDIS", optional=True)
    assert outbox.model_dump(mode="json")["store"] == "env:OUTBOX_REDIS?"
    assert Outbox().model_dump(mode="json")["store"] == "sqlite"
    assert Outbox.model_validate({"store": {"ref": "file:/run/url"}}).store == SecretRef(
        "file:/run/url"
    )


@pytest.mark.parametrize("store", ["memory", "postgres://x", "redis://", 7, None, True, "unix://x"])
def test_nothing_else_is_a_store(store: object) -> None:
    with pytest.raises(ValidationError, match="expected sqlite"):
        Outbox.model_validate({"store": store})


@pytest.mark.parametrize(
    "url", ["redis://:hunter2@redis:6379", "unix:///run/redis.sock?password=hunter2"]
)
def test_a_password_in_the_rules_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(SecretError) as caught:
        parse_store(url)

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [{"give_up": "0s"}, {"parallel": 0}, {"limit": {"entries": 0}}, {"limit": 7}, {"retry": "2s"}],
)
def test_what_could_never_work_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Outbox.model_validate(wrong)
