from __future__ import annotations

import pytest

from proxy.core.rules.names import OWN_NAMES, stray_names
from proxy.settings import ENV_FILE, PREFIX, Settings


def test_a_mistyped_name_leads_to_the_one_that_was_meant() -> None:
    (warning,) = stray_names(["MCP_ROLOUT_PERCENTAGE"], ["MCP_ROLLOUT_PERCENTAGE"])

    assert "nothing reads it" in warning
    assert "did you mean 'MCP_ROLLOUT_PERCENTAGE'?" in warning


def test_a_name_of_the_guide_that_these_rules_leave_out_is_told() -> None:
    """It would have an effect with the shipped rules, so silence would deceive."""
    (warning,) = stray_names(["MCP_ROLLOUT_PERCENTAGE"], [])

    assert "these rules do not refer to it" in warning


def test_a_name_like_nothing_is_told_without_a_guess() -> None:
    assert stray_names(["MCP_QQQQQQ"], []) == ["MCP_QQQQQQ is set, but nothing reads it"]


def test_what_is_used_or_not_ours_is_no_stray() -> None:
    present = ["PATH", "MCP_UPSTREAM_TOKEN", "RETELL_API_KEY", "CALLSPLIT_RULES"]

    assert stray_names(present, ["MCP_UPSTREAM_TOKEN"]) == []


@pytest.mark.parametrize(
    "name",
    ["MCP_SERVICE_HOST", "MCP_SERVICE_PORT", "MCP_SERVICE_PORT_HTTP", "MCP_PORT",
     "MCP_PORT_8000_TCP", "MCP_PORT_8000_TCP_ADDR", "MCP_MY_APP_SERVICE_HOST",
     "CALLSPLIT_PORT_8080_TCP_PROTO", "CALLSPLIT_SERVICE_PORT_ADMIN"],
)  # fmt: skip
def test_variables_that_kubernetes_makes_of_services_are_no_strays(name: str) -> None:
    assert stray_names([name], []) == []


def test_every_setting_is_a_known_name() -> None:
    settings = {PREFIX + field.upper() for field in Settings.model_fields} | {ENV_FILE}
    of_commands = {"CALLSPLIT_ADMIN", "CALLSPLIT_ADMIN_TOKEN"}

    assert settings | of_commands == OWN_NAMES
