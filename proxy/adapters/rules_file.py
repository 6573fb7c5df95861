"""From a file to rules: every fault at once, or the rules with what to look at.

The order is: text, strict YAML, `${NAME:-default}` in its scalars, types, model, contradictions.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from proxy.adapters.rules_document import RulesDocument
from proxy.adapters.rules_yaml import MAX_BYTES, Node, YamlError, read_yaml
from proxy.core.rules.check import check
from proxy.core.rules.model import Rules
from proxy.core.rules.names import stray_names
from proxy.core.rules.walk import secrets
from proxy.errors import Fault, RulesError

MAX_FAULTS = 100


@dataclass(frozen=True, slots=True)
class LoadedRules:
    """Rules that may go into force.

    `digest` stands for what they say, not how: comments and order do not change it.
    """

    rules: Rules
    warnings: tuple[Fault, ...]
    digest: str
    path: Path
    text: str
    content_hash: str  # SHA-256 of the file's bytes


def load_rules(path: Path, environment: Mapping[str, str]) -> LoadedRules:
    """Read and check a rules file; raises RulesError with every fault."""
    return parse_rules(read_rules(path), environment, path=path)


def read_rules(path: Path) -> bytes:
    """The file's bytes, never more than a rules file may have; raises RulesError."""
    try:
        with open(path, "rb", opener=_opened) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _unusable(path, "is no regular file")
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise _unusable(path, f"cannot be read: {reason}") from None
    if len(content) > MAX_BYTES:
        raise _unusable(path, f"is larger than {MAX_BYTES // 2**20} MB")
    return content


def _opened(name: str, flags: int) -> int:
    """Without O_NONBLOCK, opening a pipe would wait for somebody to write."""
    return os.open(name, flags | os.O_NONBLOCK)


def parse_rules(content: bytes, environment: Mapping[str, str], *, path: Path) -> LoadedRules:
    """Check the content of a rules file; raises RulesError with every fault."""
    text = _decode(content, path)
    document = RulesDocument(_root(text, path), environment, file=str(path), text=text)
    rules, findings = check(document.data)
    placed = [(finding, document.fault(finding)) for finding in findings]
    faults = [fault for finding, fault in placed if fault and not finding.warning]
    warnings = [fault for finding, fault in placed if fault and finding.warning]
    faults += document.faults
    if rules is None or faults:
        raise RulesError(_in_order(faults))
    used = document.names | {ref.ref.removeprefix("env:") for _, ref in secrets(rules)}
    strays = [Fault(warning) for warning in stray_names(environment, used)]
    return LoadedRules(
        rules,
        (*warnings, *strays),
        digest_of(rules),
        path,
        text,
        hashlib.sha256(content).hexdigest(),
    )


def digest_of(rules: Rules) -> str:
    """16 hex digits that change exactly when the rules do."""
    values = orjson.dumps(rules.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(values).hexdigest()[:16]


def _decode(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        message = "not UTF-8 from here on: is this a rules file?"
        raise RulesError([Fault(message, file=str(path), line=line, column=column)]) from None


def _root(text: str, path: Path) -> Node:
    try:
        root = read_yaml(text)
    except YamlError as error:
        lines = text.splitlines()
        raise RulesError(
            [
                Fault(
                    flaw.message,
                    file=str(path),
                    line=flaw.place.line,
                    column=flaw.place.column,
                    source=lines[flaw.place.line - 1] if flaw.place.line <= len(lines) else "",
                    hint=flaw.hint,
                )
                for flaw in error.flaws
            ]
        ) from None
    if root is None:
        raise _unusable(path, "is empty: at least `backends` is needed")
    return root


def _in_order(faults: list[Fault]) -> list[Fault]:
    """By place; past a readable number only their count."""
    ordered = sorted(faults, key=lambda fault: (fault.line, fault.column))
    if len(ordered) <= MAX_FAULTS:
        return ordered
    more = Fault(f"and {len(ordered) - MAX_FAULTS} more faults", file=ordered[0].file)
    return [*ordered[:MAX_FAULTS], more]


def _unusable(path: Path, reason: str) -> RulesError:
    return RulesError([Fault(reason, file=str(path))])
