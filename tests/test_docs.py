"""Everything the docs show is tried: links, commands, rules, JSON for Retell, queries, examples."""

from __future__ import annotations

import doctest
import importlib
import inspect
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import promql_parser
import pytest
from pydantic import TypeAdapter

from backends import registry
from backends.base import BackendConfig
from proxy.adapters.access import Line
from proxy.adapters.metrics import STATES, Metrics
from proxy.adapters.rules_document import RulesDocument
from proxy.adapters.rules_file import parse_rules
from proxy.adapters.rules_yaml import read_yaml
from proxy.core.breaker_values import Why
from proxy.core.model import Kind, Reason
from proxy.core.rules.admission import start_faults
from proxy.core.rules.in_force import is_not_yet
from proxy.core.rules.shape import keys
from proxy.errors import RulesError
from tests.backends import test_contract as contract
from tests.docs_kit import (
    DOCS,
    ROOT,
    SHELL,
    Block,
    all_blocks,
    anchors,
    blocks,
    commands,
    fault_of,
    links,
    read,
    serving,
    spans,
)

GUIDES = ROOT / "deploy" / "docs"
SHIPPED = "askproai_mcp"
SECRETS = {"RETELL_API_KEY": "key_docs_0001", "MCP_RETELL_AGENT_TOKEN": "token-of-the-docs"}
NO_SETTING = {"CALLSPLIT_URL", "RETELL_ADMIN_KEY", "CALLSPLIT_FORCE_TOKEN"}
"""Variables that the docs themselves need, or that an example's rules refer to."""


def name(doc: object) -> str:
    return doc.relative_to(ROOT).as_posix() if isinstance(doc, Path) else str(doc)


each_doc = pytest.mark.parametrize("doc", DOCS, ids=name)


def table(doc: Path, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading."""
    below = read(doc).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\|(.+)\|$", below, flags=re.MULTILINE)
    assert rows, f"{name(doc)}: no table below {heading!r}"
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)] for row in rows[2:]]


def code(text: str) -> list[str]:
    return [span.replace("\\|", "|") for span in re.findall(r"`([^`]+)`", text)]


# -- Links, commands, names -----------------------------------------------------------------


@each_doc
def test_every_link_leads_somewhere(doc: Path) -> None:
    for link in links(doc):
        place, _, anchor = link.partition("#")
        target = (doc.parent / place).resolve() if place else doc

        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link


@each_doc
def test_every_command_that_is_shown_exists(doc: Path) -> None:
    for arguments in commands(doc):
        assert not fault_of(arguments), arguments


def test_a_command_that_does_not_exist_would_be_found() -> None:
    assert "no command 'rollout'" in fault_of(["rollout", "start"])
    assert "no command 'heal'" in fault_of(["breaker", "heal", "mcp"])
    assert "no option '--quick'" in fault_of(["health", "--quick"])
    assert not fault_of(["breaker", "reset", "mcp", "--reason", "why"])
    assert not fault_of([])


@each_doc
def test_every_make_target_that_is_shown_exists(doc: Path) -> None:
    shown = spans(doc) + [
        line for block in blocks(doc) if block.language in SHELL for line in block.text.splitlines()
    ]
    targets = {match[1] for text in shown if (match := re.match(r"make ([a-z]+)\b", text))}

    known = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert targets <= set(known)


@each_doc
def test_every_variable_that_is_named_is_read(doc: Path) -> None:
    examples = ((ROOT / "deploy" / f"{each}.example").read_text() for each in ("env", "env.mcp"))
    known = {found for text in examples for found in re.findall(r"^#? ?([A-Z_]+)=", text, re.M)}

    named = set(re.findall(r"\b(?:MCP|CALLSPLIT|RETELL)_[A-Z_]*[A-Z]\b", read(doc)))
    assert named <= known | NO_SETTING


@each_doc
def test_no_doc_leads_to_this_machine(doc: Path) -> None:
    assert not re.search(r"/(?:work|home|root|farm)/|file://", read(doc))


# -- Rules ----------------------------------------------------------------------------------


def rules_blocks() -> list[Block]:
    return [block for block in all_blocks("yaml") if block.mark != "not rules"]


def values(text: str) -> dict[str, Any]:
    """Plain values, as the rules' own strict reader sees them."""
    root = read_yaml(text)
    assert root is not None
    document = RulesDocument(root, {}, file="", text=text)
    assert not document.faults
    found: dict[str, Any] = document.data
    return found


def around(fragment: dict[str, Any]) -> dict[str, Any]:
    """A fragment in the middle of rules that are fine."""
    backends: dict[str, Any] = {
        "mcp": {"handler": "mcp", "url": "http://127.0.0.1:8000/mcp"},
        "webhook": {"handler": "webhook", "url": "http://127.0.0.1:8000/hook"},
    }
    return {**fragment, "version": 1, "backends": backends | fragment.get("backends", {})}


@pytest.mark.parametrize("block", rules_blocks(), ids=str)
def test_rules_that_are_shown_are_fine(block: Block) -> None:
    whole = block.text.startswith("version:")
    text = block.text if whole else json.dumps(around(values(block.text)))

    try:
        loaded = parse_rules(text.encode(), {}, path=Path("rules.yaml"))
    except RulesError as error:
        pytest.fail("; ".join(fault.message for fault in error.faults))
    if whole:
        assert not start_faults(loaded.rules, lambda _: True)


# -- JSON for Retell ------------------------------------------------------------------------


def settled(value: Any) -> Any:
    """Lists that pydantic checks only while they are read, read."""
    if isinstance(value, dict):
        return {key: settled(each) for key, each in value.items()}
    if isinstance(value, list | Iterator):
        return [settled(each) for each in value]
    return value


def as_params(params: str, text: str) -> Any:
    """What Retell's SDK makes of a block: keys that it does not know are gone."""
    module, _, kind = params.partition(".")
    types = importlib.import_module(f"retell.types.{module}")
    return settled(TypeAdapter(getattr(types, kind)).validate_python(json.loads(text)))


@pytest.mark.parametrize("block", all_blocks("json"), ids=str)
def test_json_to_paste_fits_retells_own_types(block: Block) -> None:
    what, _, params = block.mark.partition(": ")
    assert what in ("retell", "access line"), "say what this JSON is"

    if what == "retell":
        assert as_params(params, block.text) == json.loads(block.text)


def test_json_that_does_not_fit_would_be_found() -> None:
    agent = "agent_update_params.AgentUpdateParams"
    llm = "llm_update_params.LlmUpdateParams"
    misspelt = '{"general_tools": [{"type": "custom", "name": "x", "url": "u", "max_retries": 0}]}'

    assert as_params(agent, '{"webhook_uri": "x"}') == {}
    assert as_params(llm, misspelt) != json.loads(misspelt)
    with pytest.raises(ValueError, match="webhook_timeout_ms"):
        as_params(agent, '{"webhook_timeout_ms": "soon"}')


# -- Metrics, log events, closed sets -------------------------------------------------------


def families() -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """Type, help and labels of each metric, by the name that queries use, without prefix."""
    metrics = Metrics("x")
    metrics.at_start(["a"], live=lambda _: 0.0)
    metrics.show_breaker("a", "closed")
    metrics.rules_taken("0", wall_seconds=0.0)
    labels = {each.name: tuple(each.labels) for each in metrics.families}
    found = {}
    for family in metrics.registry.collect():
        own = labels.get(family.name)
        if own is None:
            own = tuple(family.samples[0].labels) if family.samples else ()
        short = family.name.removeprefix("x_")
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        found[short + suffix] = (family.type, family.documentation, own)
    return found


def metrics_table() -> str:
    rows = [
        f"| `{metric}` | {kind} | {' '.join(f'`{label}`' for label in labels)} | {text} |"
        for metric, (kind, text, labels) in families().items()
    ]
    return "\n".join(["| Metric | Type | Labels | Meaning |", "|---|---|---|---|", *rows])


def test_the_table_of_metrics_is_current() -> None:
    shown = read(GUIDES / "metrics.md").partition("<!-- metrics -->\n")[2]
    shown = shown.partition("<!-- end of metrics -->")[0].strip()

    assert shown == metrics_table(), f"paste this:\n\n{metrics_table()}\n"


def queries() -> list[Any]:
    shown = [text for block in all_blocks("promql") for text in block.text.splitlines()]
    shown += [text for doc in DOCS for text in spans(doc) if f"{SHIPPED}_" in text]
    return [text for text in shown if text and "://" not in text and "..." not in text]


def selectors(node: Any) -> Iterator[Any]:
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for inner in ("lhs", "rhs", "expr", "args", "vector_selector"):
        below = getattr(node, inner, None)
        for each in below if isinstance(below, list) else [below]:
            if each is not None:
                yield from selectors(each)


@pytest.mark.parametrize("query", queries())
def test_every_query_asks_for_metrics_that_exist(query: str) -> None:
    known, asked = families(), list(selectors(promql_parser.parse(query)))

    assert asked
    for selector in asked:
        short = selector.name.removeprefix(f"{SHIPPED}_")
        family = re.sub(r"_(bucket|sum|count)$", "", short)
        assert family in known, selector.name
        allowed = {*known[family][2], "le"}
        assert {matcher.name for matcher in selector.matchers.matchers} <= allowed


def test_every_log_event_is_listed() -> None:
    source = [path.read_text() for path in (ROOT / "proxy").rglob("*.py")]
    logged = {
        event
        for text in source
        for event in re.findall(r'log\.(?:info|warning|error)\(\s*"([a-z_]+)"', text)
    }

    listed = {event for row in table(GUIDES / "metrics.md", "Log events") for event in code(row[0])}
    assert listed == logged | {"exchange_ended"}


def test_the_access_line_that_is_shown_has_the_fields_of_a_real_one() -> None:
    (shown,) = [block for block in all_blocks("json") if block.mark == "access line"]

    assert list(json.loads(shown.text)) == list(Line.__struct_fields__)


def test_closed_sets_are_told_in_full() -> None:
    reasons = {
        word for row in table(GUIDES / "how-it-decides.md", "Reasons") for word in code(row[0])
    }
    kinds = {word for row in table(GUIDES / "how-it-decides.md", "Kinds") for word in code(row[0])}
    labels = {row[0]: set(code(row[1])) for row in table(GUIDES / "metrics.md", "Label values")}

    assert reasons == {str(reason) for reason in Reason}
    assert kinds == labels["`kind`"] == {str(kind) for kind in Kind}
    assert labels["`state`, `from` and `to` of `breaker_transitions_total`"] == set(STATES)
    assert labels["`reason` of `rescues_total`"] == {
        reason.removeprefix("rescue_") for reason in Reason if reason.startswith("rescue_")
    }


def test_every_reason_of_a_breakers_change_is_told() -> None:
    rows = table(GUIDES / "breaker.md", "Every change, and why")

    assert [code(row[0])[0] for row in rows] == list(get_args(Why))
    assert {code(cell)[0] for row in rows for cell in row[2:3] if "`" in cell} <= set(STATES)


# -- The guide ------------------------------------------------------------------------------


def test_every_variable_of_the_guide_is_told_with_its_key_and_whether_it_is_in_force() -> None:
    rows = table(GUIDES / "guide-commands.md", "Variables")
    example = (ROOT / "deploy" / "env.mcp.example").read_text().partition("Not of the guide")[0]
    known = {key.path.replace("<name>", "*") for key in keys()}

    told = {variable for row in rows for variable in code(row[0])}
    assert told == set(re.findall(r"^([A-Z_]+)=", example, flags=re.MULTILINE))
    for _, key_cell, in_force in rows:
        path = code(key_cell)[0].replace("<name>", "*")
        path = re.sub(r"^backends\.\w+\.", "backends.*.", path)
        assert path in known
        assert in_force.startswith("not yet" if is_not_yet(path) else "yes"), path


# -- Examples that run ----------------------------------------------------------------------


async def test_the_backend_that_is_shown_keeps_the_contract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = [each for each in all_blocks("python") if each.mark.startswith("example: ")]
    (tmp_path / block.mark.removeprefix("example: ")).write_text(block.text)
    monkeypatch.syspath_prepend(str(tmp_path))
    handler = "rest_backend:RestBackend"

    backend = registry.create(handler, BackendConfig("mcp", path="/tools", bearer=b"t"))

    for kind in sorted(backend.kinds):
        await contract.test_every_kind_it_declares_is_answered_in_that_kinds_language(handler, kind)
        await contract.test_a_tool_runs_once_and_only_on_a_leg_that_is_marked(handler, kind)
        await contract.test_callers_with_equal_ids_each_get_their_own_answer(handler, kind)
        await contract.test_only_an_upstreams_failure_escapes_and_mcp_callers_hear_only_mcp(
            handler, kind
        )
        for secret in ("ours", None):
            await contract.test_the_callers_credential_never_reaches_an_arm_with_its_own(
                handler, kind, secret
            )
    await contract.test_a_probe_fails_in_its_own_way_only(handler)


DEMO = {
    "mcp": {"handler": "demo", "options": {"like": "mcp"}},
    "webhook": {"handler": "demo"},
}
"""What the README offers to whoever has no app at hand."""


def rules_of(doc: Path) -> dict[str, Any]:
    """The first rules that a doc shows, on arms that answer in process."""
    shown = next(block for block in rules_blocks() if block.doc == doc)
    rules: dict[str, Any] = {**values(shown.text), "version": 1, "backends": DEMO}
    rules.get("listen", {}).pop("trusted_proxies", None)
    return rules


RUNNING = [doc for doc in DOCS if any(block.mark == "runs" for block in blocks(doc))]


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="no bash or curl")
@pytest.mark.parametrize("doc", RUNNING, ids=name)
def test_what_is_shown_to_run_runs_and_says_so(doc: Path, tmp_path: Path) -> None:
    checker, flags = doctest.OutputChecker(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

    with serving(tmp_path, rules_of(doc), SECRETS) as sidecar:
        for block in blocks(doc):
            if block.mark == "runs":
                said = sidecar.run(block)
                assert checker.check_output(block.expected, said, flags), f"{block}\n{said}"


def test_there_is_something_to_run() -> None:
    """A doc whose marks were lost would pass without a word."""
    assert {name(doc) for doc in RUNNING} >= {"README.md", "deploy/docs/point-retell-here.md"}
    assert inspect.iscoroutinefunction(
        contract.test_every_kind_it_declares_is_answered_in_that_kinds_language
    )
