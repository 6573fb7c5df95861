"""What the docs show, taken apart, and a sidecar to try it on."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from proxy.cli.main import app

ROOT = Path(__file__).parent.parent
DOCS = [
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")),
    ROOT / "rules" / "README.md",
    *sorted((ROOT / "deploy" / "docs").glob("*.md")),
]
MOUNTED = "/run/secrets"
"""Where docs keep secrets in files; on trial, a folder of the trial's own."""

FILES = {"agent_token": "token-of-the-docs", "retell_key": "key_docs_0001"}
"""The files that are there at first."""

SHELL = frozenset({"sh", "bash", "console"})

_FENCE = re.compile(r"```(\w*)\s*")
_MARK = re.compile(r"<!-- (.+) -->")
_SPAN = re.compile(r"`([^`\n]+)`")
_COMMAND = re.compile(r"(?:^|(?<=[\s;&|(]))callsplit((?:[ \t]+[^\s`|&;>]+)*)")
_NOT_A_SLUG = re.compile(r"[^\w\- ]")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `mark` is the comment on the line before it."""

    doc: Path
    line: int
    language: str
    text: str
    mark: str = ""
    expected: str = ""  # the `text` block right after it

    def __str__(self) -> str:
        return f"{self.doc.relative_to(ROOT)}:{self.line}"


def read(doc: Path) -> str:
    return doc.read_text(encoding="utf-8")


def blocks(doc: Path) -> list[Block]:
    """The fenced blocks of a doc, in order."""
    found: list[Block] = []
    lines = read(doc).splitlines()
    opened: tuple[int, str] | None = None
    for number, line in enumerate(lines):
        fence = _FENCE.fullmatch(line.strip())
        if fence is None:
            continue
        if opened is None:
            opened = number, fence[1]
            continue
        start, language = opened
        opened = None
        text = "\n".join(lines[start + 1 : number]) + "\n"
        marked = _MARK.fullmatch(lines[start - 1]) if start else None
        mark = marked[1] if marked else ""
        previous = found[-1] if found else None
        if language == "text" and previous is not None and previous.mark == "runs":
            found[-1] = Block(doc, previous.line, previous.language, previous.text, "runs", text)
            continue
        found.append(Block(doc, start + 1, language, text, mark))
    assert opened is None, f"{doc}: a block is not closed"
    return found


def all_blocks(*languages: str) -> list[Block]:
    return [block for doc in DOCS for block in blocks(doc) if block.language in languages]


def prose(doc: Path) -> str:
    """A doc without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", read(doc), flags=re.MULTILINE | re.DOTALL)


def spans(doc: Path) -> list[str]:
    """Inline code; in a table a pipe is written with a backslash."""
    return [span.replace("\\|", "|") for span in _SPAN.findall(prose(doc))]


def anchors(doc: Path) -> set[str]:
    """The headings as a forge turns them into anchors."""
    found = re.findall(r"^#+ (.+)$", prose(doc), flags=re.MULTILINE)
    return {_NOT_A_SLUG.sub("", heading.lower()).replace(" ", "-") for heading in found}


def links(doc: Path) -> list[str]:
    found: list[str] = re.findall(r"\]\(([^)\s]+)\)", prose(doc))
    return [link for link in found if "://" not in link]


def commands(doc: Path) -> list[list[str]]:
    """Every use of `callsplit`, as its arguments."""
    shown = spans(doc)
    for block in blocks(doc):
        if block.language in SHELL:
            shown += [line for line in block.text.splitlines() if not line.startswith("#")]
    return [shlex.split(found) for text in shown for found in _COMMAND.findall(text)]


def fault_of(arguments: list[str]) -> str:
    """What the command line does not know of these arguments; "" if it knows all."""
    command: Any = typer.main.get_command(app)
    rest = list(arguments)
    while rest and hasattr(command, "commands"):
        if rest[0].startswith("-"):
            break
        name = rest.pop(0)
        if name not in command.commands:
            return f"there is no command {name!r}"
        command = command.commands[name]
    known = {"--help"}.union(*(param.opts + param.secondary_opts for param in command.params))
    strange = [word for word in rest if word.startswith("-") and word != "-" and word not in known]
    return f"{command.name} has no option {strange[0]!r}" if strange else ""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """One that runs, and where."""

    address: str
    admin: str
    folder: Path
    environment: Mapping[str, str]

    def run(self, block: Block) -> str:
        """Run a shell block as a reader would; its output."""
        text = block.text.replace("127.0.0.1:8080", self.address)
        text = text.replace("127.0.0.1:9901", self.admin)
        text = text.replace(MOUNTED, str(self.folder / "secrets"))
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert not done.returncode, f"{block}: exit {done.returncode}\n{done.stderr}"
        return done.stdout


@contextlib.contextmanager
def serving(folder: Path, rules: dict[str, Any], secrets: Mapping[str, str]) -> Iterator[Sidecar]:
    """Run `callsplit serve` with these rules on free ports; it must end well."""
    kept = {"state_dir": str(folder / "state"), **rules}  # Of its own: others run beside it.
    (folder / "secrets").mkdir()
    for name, content in FILES.items():
        (folder / "secrets" / name).write_text(content)
    text = json.dumps(kept).replace(MOUNTED, str(folder / "secrets"))
    (folder / "rules.yaml").write_text(text)  # JSON is YAML
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "160",
        **secrets,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy", "serve", "--rules", str(folder / "rules.yaml"),
         "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    with process:
        try:
            started = _started(process)
            environment["CALLSPLIT_URL"] = f"http://{started['address']}"
            environment["CALLSPLIT_ADMIN"] = f"http://{started['admin']}"
            yield Sidecar(started["address"], started["admin"], folder, environment)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
    assert process.returncode == 0


def _started(process: subprocess.Popen[str]) -> dict[str, str]:
    said = []
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line)
        if '"sidecar_started"' in line:
            found: dict[str, str] = json.loads(line)
            return found
    raise AssertionError("".join(said))
