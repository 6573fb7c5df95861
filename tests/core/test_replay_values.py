from __future__ import annotations

from proxy.core.replay_values import Run


def run(key: bytes = b"k" * 16, number: int = 1) -> Run:
    return Run(key, number, "call_1a", "book", 900.0, since=100.0, stay=50.0)


def test_all_tries_of_a_run_have_one_idempotency_key() -> None:
    assert run().idempotency == run().idempotency
    assert run(number=2).idempotency == run(number=2).idempotency


def test_it_is_the_same_in_all_versions() -> None:
    """Of the first run it is the guard's key, as operators see it too."""
    assert run().idempotency == (b"k" * 16).hex().encode()
    assert run(number=2).idempotency == b"8777c5eb7a45b1fe4fad1e0bb5f074ec"


def test_another_run_or_another_write_has_another_one() -> None:
    keys = {
        run().idempotency,
        run(number=2).idempotency,
        run(number=12).idempotency,
        run(b"K" * 16).idempotency,
    }
    assert len(keys) == 4


def test_what_is_known_holds_for_its_stay() -> None:
    assert run().holds(149.9)
    assert not run().holds(150.0)


def test_two_runs_are_never_the_same_thing() -> None:
    """Even of one key and number: only the one that is known can be settled."""
    assert run() != run()
    assert len({run(), run()}) == 2
