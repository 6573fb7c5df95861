from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from proxy.core.model import Kind
from proxy.core.rules import Backend


@pytest.mark.parametrize(
    "handler", ["webhook", "my-handler", "package.module:Backend", "a.b.c:make_it"]
)
def test_a_handler_is_a_name_or_a_place_in_a_module(handler: str) -> None:
    assert Backend(handler=handler).handler == handler


@pytest.mark.parametrize(
    "handler", ["", ":", "a:", ":b", "a:b:c", "a b", "a..b:c", "../a", "a:b.c"]
)
def test_what_no_import_could_find_is_no_handler(handler: str) -> None:
    with pytest.raises(ValidationError):
        Backend(handler=handler)


def test_paths_are_by_kind() -> None:
    backend = Backend.model_validate({"handler": "webhook", "paths": {"event": "/e"}})

    assert backend.paths == {Kind.EVENT: "/e"}
    assert backend.model_dump(mode="json")["paths"] == {"event": "/e"}


def test_statuses_are_errors_only() -> None:
    backend = Backend.model_validate({"handler": "webhook", "not_executed": [503, 429]})

    assert backend.not_executed == {429, 503}
    assert backend.model_dump(mode="json")["not_executed"] == [429, 503]


@pytest.mark.parametrize("statuses", [[200], [600], [True], ["503"], 503, None, {"503": 1}])
def test_other_statuses_promise_nothing(statuses: Any) -> None:
    with pytest.raises(ValidationError):
        Backend.model_validate({"handler": "webhook", "not_executed": statuses})


def test_the_defaults_are_those_of_the_documents() -> None:
    backend = Backend(handler="webhook")
    breaker = backend.breaker

    assert (backend.timeout, backend.connect_timeout, backend.connections) == (30.0, 0.25, 256)
    assert (breaker.failures, breaker.open_for, breaker.half_open) == (5, 60.0, 3)
    assert backend.health is None


@pytest.mark.parametrize("rate", ["failure_rate", "slow_rate"])
def test_a_rate_that_any_attempt_would_reach_is_none(rate: str) -> None:
    for fine in (1, "12.5%", 100):
        Backend.model_validate({"handler": "webhook", "breaker": {rate: fine}})
    for wrong in (0, "0%", 101, "half"):
        with pytest.raises(ValidationError):
            Backend.model_validate({"handler": "webhook", "breaker": {rate: wrong}})


@pytest.mark.parametrize("verdict", ["success", "failure", "", None, 5])
def test_a_body_can_only_say_that_it_failed_or_declined(verdict: Any) -> None:
    said = [{"when": {"a": 1}, "verdict": verdict}]

    with pytest.raises(ValidationError):
        Backend.model_validate({"handler": "webhook", "body_verdicts": said})


def test_what_a_body_says_is_shown_as_it_was_written() -> None:
    said = [{"when": {"error.code": {"in": [1, 2]}}, "verdict": "business_no"}]
    backend = Backend.model_validate({"handler": "webhook", "body_verdicts": said})

    assert backend.model_dump(mode="json")["body_verdicts"] == said
