"""What a run of the oracle found, in a table and a list."""

from __future__ import annotations

from tests.desync.oracle import Finding, Sort
from tests.desync.runs import Result, is_bad

COLUMNS = [sort.value for sort in Sort]


def print_report(result: Result, *, everything: bool = False) -> bool:
    """Print it; whether nothing was found that must not be."""
    width = max(len(name) for name in (*result.counts, "file"))
    print("  ".join(["file".ljust(width), *(one.rjust(11) for one in COLUMNS)]))
    for name, counts in result.counts.items():
        print("  ".join([name.ljust(width), *(f"{counts[one]:>11}" for one in COLUMNS)]))
    verdicts = result.verdicts
    if any(verdicts.values()):
        said = ", ".join(f"{len(ids)} {name}" for name, ids in verdicts.items())
        print(f"\nHttp11Probe's own scored verdicts: {said}")
        if verdicts["fail"]:
            print(f"  failed: {', '.join(verdicts['fail'])}")
    refused = [one for one in result.findings if one.sort is Sort.REFUSED]
    if refused:
        print("\nValid by the letter, refused by a row:")
        _list(refused)
    lenient = [one for one in result.findings if one.sort is Sort.LENIENT and not is_bad(one)]
    if lenient:
        print("\nPassed over, as RFC 9112 asks:")
        _list(lenient)
    if everything:
        print("\nEverything:")
        for one in result.findings:
            print(f"  {_name(one)}: {one.sort.value} {one.why}")
    bad = result.bad
    print(f"\n{len(bad)} findings" if bad else "\nNo violation, no unexplained refusal.")
    for one in bad:
        print(f"  {_name(one)}: {one.sort.value.upper()} {one.why} [{one.status}/{one.state}]")
    return not bad


def _list(findings: list[Finding]) -> None:
    by: dict[str, list[str]] = {}
    for one in findings:
        by.setdefault(one.why, []).append(_name(one))
    for why, names in sorted(by.items()):
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        print(f"  {why}: {', '.join(names[:3])}{more}")


def _name(one: Finding) -> str:
    return f"{one.vector.file} {one.vector.id} ({one.vector.way})"
