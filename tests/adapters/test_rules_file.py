from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters.rules_file import (
    MAX_FAULTS,
    LoadedRules,
    digest_of,
    load_rules,
    parse_rules,
    read_rules,
)
from proxy.core.rules.admission import start_faults
from proxy.core.rules.fault_text import fault_text
from proxy.core.rules.names import GUIDE_NAMES
from proxy.errors import Fault, RulesError
from proxy.settings import read_env_file

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "rules" / "rules.yaml"
EXAMPLE = ROOT / "rules" / "rules.example.yaml"
FINE = """\
backends:
  mcp: {handler: mcp, url: "http://127.0.0.1:8000/mcp"}
  webhook: {handler: webhook, url: "http://127.0.0.1:8000/hook", sign: "env:KEY?"}
"""


def parse(text: str, environment: dict[str, str] | None = None) -> LoadedRules:
    return parse_rules(text.encode(), environment or {}, path=Path("rules.yaml"))


def faults(text: str | bytes, environment: dict[str, str] | None = None) -> list[Fault]:
    content = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(RulesError) as caught:
        parse_rules(content, environment or {}, path=Path("rules.yaml"))
    return caught.value.faults


def test_rules_come_with_what_identifies_them() -> None:
    loaded = parse(FINE)

    assert loaded.rules.split.percent == 0
    assert loaded.path == Path("rules.yaml")
    assert loaded.text == FINE
    assert len(loaded.digest) == 16


def test_the_digest_is_of_what_rules_say_not_how() -> None:
    same = "# a comment\n" + FINE + "split: {percent: 0}\n"

    assert parse(same).digest == parse(FINE).digest
    assert parse(FINE + "split: {percent: 1}\n").digest != parse(FINE).digest
    assert digest_of(parse(FINE).rules) == parse(FINE).digest


def test_every_fault_is_told_at_once_in_the_order_of_the_file() -> None:
    text = FINE + "split:\n  to: mpc\n  percent: ${SHARE}\nrolout: {}\nauth:\n  tokens: [hunter2]\n"
    shown = "\n".join(map(fault_text, faults(text)))

    assert shown.splitlines() == [
        "rules.yaml:5:7: split.to: no backend is named 'mpc'",
        "      to: mpc",
        "          ^",
        "    did you mean 'mcp'?",
        "rules.yaml:6:12: split.percent: the environment variable SHARE is not set",
        "      percent: ${SHARE}",
        "               ^",
        "    set it, or give a default: ${SHARE:-...}",
        "rules.yaml:7:1: rolout: unknown key 'rolout'",
        "    rolout: {}",
        "    ^",
        "    did you mean 'rollout'?",
        "rules.yaml:9:12: auth.tokens.0: expected a reference to a secret, never the secret itself",
        "      tokens: [****]",
        "               ^",
        "    env:NAME or file:/path, with ? at its end if it may be absent",
    ]


@pytest.mark.parametrize(
    ("share", "percent"), [("10", 10.0), ("12.5", 12.5), ("", 0.0), ("50%", 50.0)]
)
def test_a_share_from_the_environment_becomes_a_number(share: str, percent: float) -> None:
    text = FINE + "split:\n  percent: ${SHARE:-0}\n"

    assert parse(text, {"SHARE": share}).rules.split.percent == percent


@pytest.mark.parametrize("share", ["no", "1:30", "0x", "101", "nan", "[10]", "10, cap: 0", "true"])
def test_a_share_that_is_none_is_refused_with_its_origin(share: str) -> None:
    (fault,) = faults(FINE + "split:\n  percent: ${SHARE:-0}\n", {"SHARE": share})

    assert fault.path == "split.percent"
    assert fault.hint == "the value comes from SHARE"


@pytest.mark.parametrize("word", ["no", "off", "yes", "1:30"])
def test_a_word_that_old_yaml_would_guess_at_is_a_type_fault(word: str) -> None:
    (fault,) = faults(FINE + f"split: {{percent: {word}}}\n")

    assert fault.message == f"expected a number from 0 to 100, got the text '{word}'"


def test_warnings_do_not_stop_rules() -> None:
    text = FINE + "tools: {book: {stale_if_error: 1m}}\n"
    loaded = parse(text, {"MCP_ROLOUT_PERCENTAGE": "5", "MCP_SERVICE_HOST": "10.0.0.1"})

    assert [warning.line for warning in loaded.warnings] == [4, 0]
    assert "MCP_ROLLOUT_PERCENTAGE" in loaded.warnings[1].message


def test_a_name_that_the_rules_refer_to_is_no_stray() -> None:
    text = FINE + "split:\n  percent: ${MCP_SHARE:-0}\nauth: {tokens: [env:MCP_TOKEN?]}\n"

    assert parse(text, {"MCP_SHARE": "5", "MCP_TOKEN": "x"}).warnings == ()


def test_past_a_readable_number_faults_are_counted() -> None:
    many = (
        FINE
        + "tools:\n"
        + "".join(f"  t{number}: {{say: '${{A}}', names: {{x: y}}}}\n" for number in range(90))
    )
    found = faults(many)

    assert len(found) == MAX_FAULTS + 1
    assert found[-1].message == "and 80 more faults"


HOSTILE = {
    "empty": b"",
    "only a comment": b"# later\n",
    "null": b"null\n",
    "a scalar": b"hello\n",
    "a list": b"- a\n",
    "half written": FINE.encode()[:60],
    "binary": bytes(range(256)) * 100,
    "utf-16": FINE.encode("utf-16"),
    "latin-1": b"a: caf\xe9\n",
    "nul": b"a: \x00\n",
    "brackets": b"[" * 200_000,
    "tag": b"a: !!python/object/apply:os.system [id]\n",
    "twice": FINE.encode() + FINE.encode(),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_content_is_a_fault(content: bytes) -> None:
    found = faults(content)

    assert found
    assert all(fault.file == "rules.yaml" and fault.message for fault in found)


def test_a_byte_order_mark_is_no_fault() -> None:
    assert parse("\ufeff" + FINE).digest == parse(FINE).digest


def test_the_byte_that_is_not_utf_8_is_pointed_at() -> None:
    (fault,) = faults(b"a: 1\nb: caf\xe9\n")

    assert (fault.line, fault.column) == (2, 7)


@given(st.integers(0, len(FINE)), st.integers(0, len(FINE)))
def test_a_torn_file_is_rules_or_a_fault(start: int, end: int) -> None:
    try:
        outcome: object = parse(FINE[start:end]).rules
    except RulesError as error:
        outcome = error.faults
    assert outcome


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(FINE)

    assert load_rules(path, {}).digest == parse(FINE).digest


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(RulesError) as caught:
        load_rules(tmp_path / "rules.yaml", {})
    (fault,) = caught.value.faults
    assert fault.message == "cannot be read: no such file or directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(FINE)
    path.chmod(0)
    with pytest.raises(RulesError, match="fault"):
        read_rules(path)


@pytest.mark.parametrize("sort", ["folder", "pipe", "loop"])
def test_what_is_no_regular_file_is_a_fault_and_never_waited_for(tmp_path: Path, sort: str) -> None:
    path = tmp_path / "rules.yaml"
    if sort == "folder":
        path.mkdir()
    elif sort == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path)
    with pytest.raises(RulesError):
        read_rules(path)


def test_a_huge_file_is_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    with path.open("wb") as file:
        file.truncate(100 * 2**20)
    with pytest.raises(RulesError) as caught:
        read_rules(path)
    assert caught.value.faults[0].message == "is larger than 1 MB"


def test_hostile_files_do_not_end_the_process(tmp_path: Path) -> None:
    """Seen from outside: an exit code, no signal (security row C1)."""
    for name, content in HOSTILE.items():
        (tmp_path / f"{name}.yaml").write_bytes(content)
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(100 * 2**20)
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from proxy.adapters.rules_file import load_rules\n"
        "from proxy.errors import RulesError\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try:\n"
        "        load_rules(path, {})\n"
        "        sys.exit(f'{path} was taken')\n"
        "    except RulesError as error:\n"
        "        assert error.faults\n"
        "print('alive')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert (ended.returncode, ended.stdout) == (0, "alive\n"), ended.stderr


def test_the_shipped_rules_start_on_a_fresh_machine() -> None:
    loaded = load_rules(SHIPPED, {})

    assert loaded.warnings == ()
    assert start_faults(loaded.rules, lambda _: False) == []
    assert loaded.rules.listen.address.loopback
    assert loaded.rules.split.percent == 0


def test_the_shipped_rules_read_every_variable_of_the_guide() -> None:
    environment = dict.fromkeys(GUIDE_NAMES, "") | {"MCP_UPSTREAM_TOKEN": ""}

    assert load_rules(SHIPPED, environment).warnings == ()


def test_the_variables_of_the_guide_have_their_effect() -> None:
    rules = load_rules(
        SHIPPED,
        {
            "MCP_ROLLOUT_PERCENTAGE": "25",
            "MCP_MIGRATION_MODE": "false",
            "MCP_FALLBACK_TO_WEBHOOK": "false",
            "MCP_CIRCUIT_BREAKER_ENABLED": "false",
            "MCP_CIRCUIT_BREAKER_THRESHOLD": "7",
            "MCP_CIRCUIT_BREAKER_TIMEOUT": "90",
            "MCP_RESPONSE_TIME_LIMIT_MS": "400",
            "MCP_ALERT_RESPONSE_TIME_THRESHOLD_MS": "900",
            "MCP_PERFORMANCE_MONITORING_ENABLED": "false",
            "MCP_RATE_LIMIT_TOOLS": "150",
            "MCP_RATE_LIMIT_BURST_MULTIPLIER": "2",
            "MCP_IP_RATE_LIMIT_MAX": "300",
            "MCP_REQUEST_SIZE_LIMIT_MB": "5",
            "MCP_CACHE_TOOL_GET_AVAILABLE_SLOTS": "60",
        },
    ).rules
    breaker = rules.backends["mcp"].breaker

    assert (rules.split.percent, rules.split.enabled) == (25.0, False)
    assert not rules.fallback.enabled
    assert not breaker.enabled
    assert (breaker.failures, breaker.open_for, breaker.slow) == (7, 90.0, 0.4)
    assert rules.rollout.signals.p95 == 0.4
    assert rules.rollout.guardrails.p95 == 0.9
    assert not rules.metrics.enabled
    assert (rules.limits.tools_per_minute, rules.limits.ip_per_minute) == (150, 300)
    assert rules.limits.burst == 2.0
    assert rules.listen.body_limit == 5 * 2**20
    assert rules.tools["get_available_slots"].cache == 60.0


def test_the_env_example_of_the_guide_holds_its_names_and_defaults() -> None:
    """Loaded as it stands it changes nothing: it shows what holds without it."""
    variables = read_env_file(ROOT / "deploy" / "env.mcp.example")

    assert variables.keys() >= GUIDE_NAMES
    assert load_rules(SHIPPED, variables).digest == load_rules(SHIPPED, {}).digest


def test_the_example_may_go_into_force() -> None:
    loaded = load_rules(EXAMPLE, {})

    assert loaded.warnings == ()
    assert start_faults(loaded.rules, lambda _: True) == []
