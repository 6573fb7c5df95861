"""`make fuzz`: every target under atheris for a while, within bounds; what it finds is named.

    FUZZ_SECONDS=60           in all, shared equally
    FUZZ_TARGETS="rules ..."  these alone
    --replay FILE ...         run inputs again, as often as it takes to mend what they show

What is found lies in results/fuzz/TARGET-crash-*, and what was learned in .cache/fuzz/corpus, from
where the next run goes on.  An input that broke a promise belongs into tests/fuzz/corpus/TARGET:
`make test` replays all of those, without atheris.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.place import reported
from tests.fuzz.environment import CACHE, ROOT, provide
from tests.fuzz.targets import CORPUS, TARGETS
from tests.mcp.environments import Unavailable

CHILD: Final = Path(__file__).with_name("child.py")
FOUND: Final = ROOT / "results" / "fuzz"
MEGABYTES: Final = 1024
"""More than this is a finding: inputs are of a few kB."""
SLOWEST: Final = 10
"""Seconds that one input may take."""
LONGEST: Final = 4096
"""Bytes of an input."""
GRACE: Final = 60.0
"""Seconds that a target may take to begin and to end."""

WORDS: Final = Path(__file__).parent / "words"
"""What no fuzzer guesses, in libFuzzer's spelling: a file for each target."""


def main() -> int:
    args = _arguments()
    if args.replay:
        return replay(args.replay)
    try:
        variables = provide()
    except Unavailable as reason:
        print(f"{reason}\nWithout it nothing is fuzzed; the corpora are replayed by `make test`.",
              file=sys.stderr)  # fmt: skip
        return 2
    FOUND.mkdir(parents=True, exist_ok=True)
    each = max(1, round(args.seconds / len(args.targets)))
    told = {target: fuzz(target, each, variables) for target in args.targets}
    path = ROOT / "results" / "fuzz.json"
    earlier = reported(path, before=len(told) < len(TARGETS)).get("targets", {})
    path.write_text(json.dumps({"targets": earlier | told}, indent=1) + "\n")
    crashes = [path for each_told in told.values() for path in each_told["crashes"]]
    for path in crashes:
        print(f"  {path}\n    .venv/bin/python tests/fuzz/run_fuzz.py --replay {path}")
    print(f"{len(crashes)} finding(s); results/fuzz.json has the figures")
    return 1 if crashes else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run_fuzz")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--replay", nargs="+", type=Path)
    parser.add_argument("targets", nargs="*", default=[])
    args = parser.parse_args()
    unknown = set(args.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no target: {', '.join(sorted(unknown))} (one of {', '.join(TARGETS)})")
    args.targets = args.targets or list(TARGETS)
    return args


def fuzz(target: str, seconds: int, variables: dict[str, str]) -> dict[str, Any]:
    """One target for some seconds, in a process of its own; its figures and its crash files."""
    learned = CACHE / "corpus" / target
    learned.mkdir(parents=True, exist_ok=True)
    log = CACHE / f"{target}.log"
    before = set(_findings(target))
    command = [
        sys.executable, str(CHILD), target, f"-max_total_time={seconds}", f"-timeout={SLOWEST}",
        f"-rss_limit_mb={MEGABYTES}", f"-max_len={LONGEST}", f"-dict={WORDS / target}.dict",
        f"-artifact_prefix={FOUND}/{target}-", "-print_final_stats=1", str(learned),
        str(CORPUS / target),
    ]  # fmt: skip
    began = time.monotonic()
    with log.open("wb") as out:
        try:
            code = subprocess.run(command, stdout=out, stderr=out, env=variables, cwd=ROOT,
                                  timeout=seconds + GRACE).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            code = -1
    figures = _figures(log.read_text(errors="replace"))
    crashes = [str(path.relative_to(ROOT)) for path in _findings(target) if path not in before]
    if code != 0 and not crashes:
        crashes.append(str(log.relative_to(ROOT)))  # It did not even begin, or would not end.
    taken = time.monotonic() - began
    told = f"{figures.get('executions', 0)} inputs in {taken:.0f} s, {len(crashes)} finding(s)"
    print(f"{target:9} {told}", flush=True)
    return {**figures, "seconds": seconds, "exit": code, "crashes": crashes}


def _findings(target: str) -> Iterator[Path]:
    yield from sorted(FOUND.glob(f"{target}-*"))


def _figures(said: str) -> dict[str, int]:
    """What libFuzzer says of itself, at last."""
    wanted = {
        "executions": r"stat::number_of_executed_units: *(\d+)",
        "coverage": r" cov: (\d+)",
        "rss_mb": r"stat::peak_rss_mb: *(\d+)",
        "slowest_s": r"stat::slowest_unit_time_sec: *(\d+)",
    }
    found = {name: re.findall(pattern, said) for name, pattern in wanted.items()}
    return {name: int(each[-1]) for name, each in found.items() if each}


def replay(paths: list[Path]) -> int:
    """Run inputs again, each through the target that its name or its folder tells."""
    for path in paths:
        names = (path.name.partition("-")[0], path.resolve().parent.name)
        name = next((each for each in names if each in TARGETS), None)
        if name is None:
            print(f"{path}: which target?  Call it TARGET-..., one of {', '.join(TARGETS)}",
                  file=sys.stderr)  # fmt: skip
            return 2
        target = TARGETS[name]()
        try:
            target(path.read_bytes())
        finally:
            target.close()
        print(f"{path}: {name} keeps its promises")
    return 0


if __name__ == "__main__":
    sys.exit(main())
