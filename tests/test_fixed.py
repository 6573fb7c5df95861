from __future__ import annotations

from pathlib import Path

import pytest

from proxy.adapters.rules_file import load_rules
from proxy.errors import SettingsError
from proxy.fixed import (
    affordable,
    descriptor_warnings,
    fixed_at_start,
    listener_options,
    where_it_listens,
    with_flags,
)
from proxy.settings import load_settings
from tests.rules_kit import rules

RULES = """
version: 1
listen: {address: "127.0.0.1:8080"}
backends:
  mcp: {handler: demo}
  webhook: {handler: demo}
"""


def test_what_a_running_process_cannot_change_is_listed() -> None:
    fixed = fixed_at_start(rules())

    assert fixed["metrics.namespace"] == "callsplit"
    assert {"listen.address", "state_dir", "outbox.store"} <= fixed.keys()


def test_the_listener_keeps_what_the_rules_say() -> None:
    limited = rules(
        listen={
            "header_timeout": "1s", "idle_timeout": "2s", "write_timeout": "3s",
            "connections": 400, "connections_per_address": 5, "trusted_proxies": ["10.0.0.0/8"],
        },
        limits={"bodies": "6MB"},
    )  # fmt: skip
    options = listener_options(limited, 100_000)

    assert (options.head_timeout, options.idle_timeout, options.write_timeout) == (1.0, 2.0, 3.0)
    assert (options.connections, options.per_address, options.arriving) == (400, 5, 6 * 2**20)
    assert "10.1.2.3" in options.trusted
    assert descriptor_warnings(limited, 100_000) == []


@pytest.mark.parametrize("descriptors", [1024, 100])
def test_callers_never_take_the_descriptors_that_the_arms_need(descriptors: int) -> None:
    greedy = rules(listen={"connections": 5000})
    arms = sum(backend.connections for backend in greedy.backends.values())

    left = affordable(greedy, descriptors)

    assert left == max(1, descriptors - arms - 128)
    assert listener_options(greedy, descriptors).connections == left
    (warning,) = descriptor_warnings(greedy, descriptors)
    assert f"listen.connections: 5000, but this process may open {descriptors} files" in warning
    assert "LimitNOFILE" in warning


def test_the_addresses_in_use_stand_whatever_the_file_says() -> None:
    before = fixed_at_start(rules(listen={"address": "127.0.0.1:1"}))

    after = where_it_listens(rules(listen={"address": "0.0.0.0:2"}), before)

    assert str(after.listen.address) == "127.0.0.1:1"


def test_no_flag_leaves_the_rules_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    loaded = load_rules(path, {})

    assert with_flags(loaded, load_settings()).rules == loaded.rules


def test_flags_outrank_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    settings = load_settings(listen="127.0.0.1:1", admin_listen="127.0.0.1:2")

    changed = with_flags(load_rules(path, {}), settings).rules

    assert (str(changed.listen.address), str(changed.admin.address)) == (
        "127.0.0.1:1", "127.0.0.1:2",
    )  # fmt: skip


def test_a_flag_that_is_no_address_says_which(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)

    with pytest.raises(SettingsError, match="--listen"):
        with_flags(load_rules(path, {}), load_settings(listen="nonsense"))
