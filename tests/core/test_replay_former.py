from __future__ import annotations

from proxy.core.replay_former import FormerRuns
from proxy.core.replay_values import Done, Run, RunState


def run(number: int, *ids: str) -> Run:
    done = Done(None, success=number % 2 == 0)
    return Run(b"k", number, "call_1a", "book", 9.0, 0.0, 9.0, ids, RunState.DONE, done)


def test_a_tool_call_is_answered_by_the_run_that_it_heard_until_that_is_over() -> None:
    runs, first = FormerRuns(), run(1, "a", "b")
    runs.add(first)

    assert runs.done(b"k", "a", 8.9) is first.done
    assert runs.done(b"k", "b", 8.9) is first.done
    assert runs.done(b"k", "a", 9.0) is None
    assert runs.done(b"k", "c", 0.0) is None
    assert runs.done(b"K", "a", 0.0) is None


def test_who_heard_two_runs_is_answered_by_the_later_one_even_when_the_first_is_forgotten() -> None:
    runs, first, second = FormerRuns(), run(1, "a", "b"), run(2, "a")
    runs.add(first)
    runs.add(second)
    runs.forget(first)

    assert runs.done(b"k", "a", 0.0) is second.done
    assert runs.done(b"k", "b", 0.0) is None
    runs.forget(run(3, "a"))  # It was never added.
    assert runs.done(b"k", "a", 0.0) is second.done
