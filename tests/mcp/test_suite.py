"""Two runs of the conformance suite, held against each other."""

from __future__ import annotations

from tests.mcp.suite import FAILED, PASSED, Said, lost


def said(*found: tuple[str, str], because: str = "") -> Said:
    """A run of one scenario: check and status, in order."""
    result = Said(0)
    result.add(
        "ping",
        [
            {"id": check, "name": check.title(), "status": status, "errorMessage": because}
            for check, status in found
        ],
    )
    return result


def test_the_same_passes_lose_nothing() -> None:
    run = [("pong", PASSED), ("late", "WARNING"), ("absent", "SKIPPED")]

    assert lost(said(*run), said(*run)) == []


def test_a_check_that_fails_is_lost_with_its_reason() -> None:
    found = lost(said(("pong", PASSED)), said(("pong", FAILED), because="no answer"))

    assert found == ["ping: pong (Pong): no answer"]


def test_a_pass_that_became_a_warning_is_lost() -> None:
    assert lost(said(("pong", PASSED)), said(("pong", "WARNING"), because="late")) == [
        "ping: pong (Pong): late"
    ]


def test_a_check_that_did_not_run_is_lost() -> None:
    assert lost(said(("pong", PASSED)), said()) == ["ping: pong (Pong): it did not run"]


def test_a_check_that_passes_fewer_times_is_lost() -> None:
    direct = said(("pong", PASSED), ("pong", PASSED))
    through = said(("pong", PASSED), ("pong", "SKIPPED"), because="not now")

    assert lost(direct, through) == ["ping: pong (Pong): not now"]


def test_a_failure_that_only_a_proxy_has_is_lost_though_nothing_passed_before() -> None:
    direct = said(("pong", "INFO"))

    assert lost(direct, said(("pong", FAILED), because="broken")) == ["ping: pong (Pong): broken"]


def test_what_fails_direct_may_fail_through_a_proxy() -> None:
    assert lost(said(("pong", FAILED)), said(("pong", FAILED))) == []


def test_what_passes_only_through_a_proxy_is_no_loss() -> None:
    assert lost(said(("pong", FAILED)), said(("pong", PASSED))) == []


def test_runs_add_up() -> None:
    whole = said(("pong", PASSED))
    whole.take(said(("pong", PASSED), ("late", FAILED), because="late"))

    assert (whole.passed, whole.failed) == (2, 1)
    assert list(whole.reasons.values()) == ["late"]
