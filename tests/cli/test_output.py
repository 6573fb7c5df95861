from __future__ import annotations

import json

import pytest
import typer
import yaml

from proxy.cli.output import Format, emit, fail, print_table, say

VALUE = {"arm": "mcp", "percent": 25.0, "note": "ü"}


def test_data_goes_to_stdout_in_the_form_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    emit(VALUE, Format.JSON, lambda: None)
    assert json.loads(capsys.readouterr().out) == VALUE

    emit(VALUE, Format.YAML, lambda: None)
    assert yaml.safe_load(capsys.readouterr().out) == VALUE


def test_a_table_is_printed_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    emit(VALUE, Format.TABLE, lambda: print_table("arms", ("arm", "n"), [["mcp", 1], ["x", None]]))

    out = capsys.readouterr().out
    assert "arms" in out
    assert "mcp" in out
    assert "None" not in out


def test_columns_without_names_have_no_header(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("", ("", ""), [("share", "25 %")])

    assert capsys.readouterr().out.split() == ["share", "25", "%"]


def test_a_pipe_gets_whole_rows(capsys: pytest.CaptureFixture[str]) -> None:
    """So that `callsplit status | grep` finds what it looks for."""
    print_table("", ("arm", "where"), [("mcp", "http://mcp.test/" + 300 * "x")])

    assert "http://mcp.test/" + 300 * "x" in capsys.readouterr().out


def test_a_narrow_terminal_folds_cells_and_cuts_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    print_table("", ("arm", "where"), [("mcp", 30 * "abcd")])
    out = capsys.readouterr().out

    assert "…" not in out
    assert out.count("abcd") + out.count("abc ") > 20


def test_square_brackets_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("", ("where",), [("http://[::1]:80 [mcp]",)])

    assert "http://[::1]:80 [mcp]" in capsys.readouterr().out


def test_talk_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    say("working ...")

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "working ...\n"


def test_a_failure_names_the_program_and_ends_with_its_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(typer.Exit) as end:
        fail("no such arm", 2)

    assert end.value.exit_code == 2
    assert capsys.readouterr().err == "callsplit: no such arm\n"
