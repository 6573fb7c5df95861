from __future__ import annotations

import pytest
from pydantic import ValidationError

from proxy.core.rules import Metrics


@pytest.mark.parametrize("namespace", ["callsplit", "askproai_mcp", "_x"])
def test_a_namespace_fits_prometheus(namespace: str) -> None:
    assert Metrics(namespace=namespace).namespace == namespace


@pytest.mark.parametrize("namespace", ["", "a-b", "1a", "a\n", "ä", "a:b", "x" * 65])
def test_another_namespace_is_refused(namespace: str) -> None:
    with pytest.raises(ValidationError):
        Metrics(namespace=namespace)
