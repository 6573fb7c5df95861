"""What operators may write, as hypothesis has it: rules that are nearly right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from proxy.adapters.rules_document import RulesDocument
from proxy.adapters.rules_yaml import Entries, read_yaml
from proxy.cli.main import app
from tests.fuzz import rules
from tests.fuzz.operating import rules_documents, slips

ROOT = Path(__file__).parents[2]
SHIPPED = [(ROOT / "rules" / name).read_bytes() for name in ("rules.yaml", "rules.example.yaml")]
EXAMPLE = SHIPPED[1].decode()
HONEST = RulesDocument(cast(Entries, read_yaml(EXAMPLE)), {}, file="", text=EXAMPLE).data
DOCUMENTS = rules_documents(HONEST).map(
    lambda document: yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode()
)


@settings(max_examples=60)
@given(DOCUMENTS)
def test_nearly_right_rules_are_taken_or_every_fault_is_told_with_its_place(text: bytes) -> None:
    rules.Rules()(text)


@settings(max_examples=60)
@given(slips(st.sampled_from(SHIPPED)))
def test_a_slip_of_the_hand_is_no_crash(text: bytes) -> None:
    rules.Rules()(text)


def test_the_command_names_file_line_and_column_of_every_fault(tmp_path: Path) -> None:
    path, runner = tmp_path / "rules.yaml", CliRunner()

    @settings(max_examples=25)
    @given(DOCUMENTS | slips(st.sampled_from(SHIPPED)))
    def holds(text: bytes) -> None:
        path.write_bytes(text)
        done = runner.invoke(app, ["rules", "check", "--file-only", str(path)])

        assert done.exit_code in (0, 1), done.output
        assert not isinstance(done.exception, Exception), done.exception
        told = done.output + done.stderr
        assert "Traceback" not in told
        if done.exit_code == 1:
            flat = re.sub(r"\s+", "", told)
            assert re.search(re.escape(str(path)) + r":(\d+:\d+:)?", flat), told

    holds()
