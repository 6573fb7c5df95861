from __future__ import annotations

from ipaddress import ip_network

import pytest
from pydantic import ValidationError

from proxy.core.rules import Address, Admin, Listen


def test_without_a_word_nobody_else_can_reach_us() -> None:
    assert Listen().address.loopback
    assert Admin().address.loopback
    assert Listen().observe is None
    assert Listen().trusted_proxies == ()
    assert Listen().origins == ("loopback",)


def test_what_is_written_becomes_values() -> None:
    listen = Listen.model_validate(
        {"address": "0.0.0.0:80", "trusted_proxies": ["10.0.0.0/8"], "body_limit": "1kB"}
    )

    assert listen.address == Address("0.0.0.0", 80)
    assert listen.trusted_proxies == (ip_network("10.0.0.0/8"),)
    assert listen.body_limit == 1024


def test_origins_are_put_alike_or_refused() -> None:
    written = ["HTTPS://Console.Example:443", "http://[0:0::1]:3000", "loopback", "*"]
    listen = Listen.model_validate({"origins": written})

    assert listen.origins == ("https://console.example", "http://[::1]:3000", "loopback", "*")
    for odd in ("console.example", "https://a.example/", "null", "", "*.example", 5, None):
        with pytest.raises(ValidationError, match=r"https://console\.example"):
            Listen.model_validate({"origins": [odd]})


def test_the_defaults_bound_every_phase_of_a_connection() -> None:
    listen = Listen()

    assert listen.body_limit == 10 * 2**20
    assert (listen.header_timeout, listen.body_timeout) == (10.0, 30.0)
    assert (listen.idle_timeout, listen.drain_grace) == (75.0, 30.0)
    assert (listen.write_timeout, listen.connections) == (30.0, 10_000)
    assert listen.connections_per_address is None  # Behind a balancer all come from one.
