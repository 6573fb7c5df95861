"""Retry-After in both of its forms."""

from __future__ import annotations

import pytest

from proxy.core.retry_after import retry_after

SENT = (b"Date", b"Sun, 22 Nov 2026 10:00:00 GMT")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"120", 120.0),
        (b" 0 ", 0.0),
        (b"9" * 400, float("inf")),
        (b"Sun, 22 Nov 2026 10:01:30 GMT", 90.0),
        (b"Sunday, 22-Nov-26 10:01:30 GMT", 90.0),
        (b"Sun, 22 Nov 2026 09:00:00 GMT", 0.0),
        (b"-5", None),
        (b"1.5", None),
        (b"soon", None),
        (b"", None),
        (b"\xff", None),
        (b"Sun, 22 Nov 2026 10:01:30 -0000", None),
        (b"Sun, 99 Nov 2026 10:01:30 GMT", None),
    ],
    ids=str,
)
def test_the_seconds_of_a_retry_after(value: bytes, seconds: float | None) -> None:
    assert retry_after([SENT, (b"RETRY-AFTER", value)]) == (True, seconds)


def test_a_date_without_a_date_to_read_it_against_tells_nothing() -> None:
    assert retry_after([(b"retry-after", b"Sun, 22 Nov 2026 10:01:30 GMT")]) == (True, None)


def test_an_answer_without_the_field() -> None:
    assert retry_after([SENT, (b"x-retry-after", b"5")]) == (False, None)
