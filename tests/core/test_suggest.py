from __future__ import annotations

import pytest

from proxy.core.suggest import did_you_mean, nearest

KNOWN = ("timeout", "connect_timeout", "breaker", "URL")


@pytest.mark.parametrize(
    ("written", "meant"),
    [("timeuot", "timeout"), ("breker", "breaker"), ("TIMEOUT", "timeout"), ("url", "URL")],
)
def test_a_slip_leads_to_the_name_that_was_meant(written: str, meant: str) -> None:
    assert nearest(written, KNOWN) == meant
    assert did_you_mean(written, KNOWN) == f"did you mean '{meant}'?"


@pytest.mark.parametrize("written", ["", "xyz", "☎", "q" * 100_000])
def test_nothing_is_suggested_for_what_is_like_nothing(written: str) -> None:
    assert nearest(written, KNOWN) is None
    assert did_you_mean(written, KNOWN) == ""
