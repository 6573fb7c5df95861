from __future__ import annotations

from pathlib import Path

import pytest

from proxy.adapters.rules_file import load_rules
from proxy.errors import SettingsError
from proxy.fixed import fixed_at_start, where_it_listens, with_flags
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
