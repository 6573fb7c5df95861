"""Was it our certificate that an upstream did not like?  Then it has read nothing of ours.

Its TLS says so in an alert (RFC 8446, section 6.2), before it hands on a byte that came after the
handshake.
"""

from __future__ import annotations

import ssl
from typing import Final

_ALERTS: Final = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "TLSV1_ALERT_ACCESS_DENIED",
        "TLSV1_ALERT_UNKNOWN_CA",
    }
)


def refuses_us(error: Exception | None) -> bool:
    """Whether a connection ended so."""
    return isinstance(error, ssl.SSLError) and getattr(error, "reason", None) in _ALERTS
