from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest

from backends import registry
from backends.base import BackendConfig
from backends.demo import DemoBackend
from backends.mcp import McpBackend
from backends.tools import ToolsBackend
from backends.webhook import WebhookBackend
from proxy.errors import Fault, RulesError

SAMPLE = "tests.backends.sample_plugin"
CONFIG = BackendConfig("arm")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a user had installed packages with these entry points."""

    def entry_points(**wanted: Any) -> EntryPoints:
        assert wanted == {"group": "callsplit.backends"}
        values = {
            "crm": f"{SAMPLE}:Plugin",
            "gone": f"{SAMPLE}:Nowhere",
            "webhook": f"{SAMPLE}:Plugin",
        }
        return EntryPoints(
            EntryPoint(name, value, "callsplit.backends") for name, value in values.items()
        )

    monkeypatch.setattr(registry, "entry_points", entry_points)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("demo", DemoBackend),
        ("mcp", McpBackend),
        ("tools", ToolsBackend),
        ("webhook", WebhookBackend),
    ],
)
def test_our_own_are_known_by_name(name: str, made: type) -> None:
    assert isinstance(registry.create(name, CONFIG), made)


@pytest.mark.usefixtures("installed")
def test_an_installed_package_brings_its_own() -> None:
    assert type(registry.create("crm", CONFIG)).__name__ == "Plugin"
    assert {"crm", "mcp"} < set(registry.names())


@pytest.mark.usefixtures("installed")
def test_no_package_takes_the_place_of_our_own() -> None:
    assert isinstance(registry.create("webhook", CONFIG), WebhookBackend)


@pytest.mark.parametrize("path", [f"{SAMPLE}:Plugin", f"{SAMPLE}:Nested.Inner"])
def test_a_module_path_names_anything(path: str) -> None:
    assert type(registry.create(path, CONFIG)).__name__ == "Plugin"


def fault(handler: str) -> Fault:
    with pytest.raises(RulesError) as caught:
        registry.create(handler, CONFIG)
    (one,) = caught.value.faults
    assert one.path == "backends.arm.handler"
    return one


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("handler", "message", "hint"),
    [
        ("webhok", "there is no backend 'webhok'", "webhook"),
        ("CRM", "there is no backend 'CRM'", "crm"),
        ("???", "there is no backend", "module:attribute"),
        ("gone", "cannot be loaded", ""),
        ("tests.backends.nowhere:Plugin", "cannot be imported", ""),
        (":Plugin", "cannot be imported", ""),
        (f"{SAMPLE}:Plugn", "has no 'Plugn'", "Plugin"),
        (f"{SAMPLE}:Nested.Outer", "has no 'Nested.Outer'", ""),
        (f"{SAMPLE}:NUMBER", "no class or function", ""),
        (f"{SAMPLE}:broken", "OSError: no such disk", ""),
        (f"{SAMPLE}:kindless", "no `kinds`", ""),
        (f"{SAMPLE}:Handless", "no `handle`", ""),
    ],
)
def test_what_cannot_be_used_is_told_with_a_way_out(handler: str, message: str, hint: str) -> None:
    found = fault(handler)

    assert message in found.message
    assert hint in found.hint


def test_the_entry_points_of_the_package_itself_are_the_built_in_ones() -> None:
    """Plug-in authors read setup.cfg as the example; it must not drift from the table."""
    assert {"demo", "mcp", "tools", "webhook"} == set(registry.BUILT_IN)
    for name, factory in registry.BUILT_IN.items():
        entry = registry._installed().get(name)
        assert entry is None or entry.load() is factory
