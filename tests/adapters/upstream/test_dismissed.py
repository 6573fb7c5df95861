from __future__ import annotations

import ssl

import pytest

from proxy.adapters.upstream.dismissed import refuses_us


def alert(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] ...")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    "reason",
    [
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "TLSV1_ALERT_UNKNOWN_CA",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    ],
)
def test_alerts_about_a_certificate_are_about_ours(reason: str) -> None:
    assert refuses_us(alert(reason))


@pytest.mark.parametrize(
    "error",
    [
        None,
        ConnectionResetError(),
        alert(""),
        alert("TLSV1_ALERT_INTERNAL_ERROR"),
        alert("SSLV3_ALERT_BAD_RECORD_MAC"),
        alert("UNEXPECTED_EOF_WHILE_READING"),
    ],
    ids=repr,
)
def test_nothing_else_proves_that_a_request_was_not_read(error: Exception | None) -> None:
    """It may come at any time, after a tool has run as well."""
    assert not refuses_us(error)
