"""How long a run took to get over a blow, from made-up events."""

from __future__ import annotations

from typing import Any

import pytest

from bench.cross_device.mishap import INJECTED, Mishap
from bench.cross_device.recovery import Trail


def row(at: float, kind: str, task: str = "", attempt: int = 0, **more: Any) -> dict[str, Any]:
    return {"at": at, "kind": kind, "task": task, "attempt": attempt, **more}


def given(at: float, task: str, machine: str, attempt: int = 1) -> dict[str, Any]:
    return row(at, "attempt_dispatched", task, attempt, worker=machine)


def ended(at: float, task: str, attempt: int = 1, **more: Any) -> dict[str, Any]:
    return row(at, "attempt_ended", task, attempt, **{"lost": False, **more})


def trail(*rows: dict[str, Any]) -> Trail:
    found = Trail()
    for one in rows:
        found.hear(one)
    return found


def after(found: Trail, machine: str, at: float, back_at: float) -> float:
    return found.after_hits(found.hit(machine, at), at, back_at)


def test_what_ran_elsewhere_or_had_ended_is_not_hit() -> None:
    found = trail(given(1, "a", "x"), given(1, "b", "y"), given(1, "c", "x"), ended(2, "c"))
    assert [one.task for one in found.hit("x", 3)] == ["a"]
    assert found.hit("z", 3) == []


def test_what_was_given_to_a_dead_machine_before_anybody_knew_is_hit_too() -> None:
    found = trail(given(1, "a", "x"), ended(2, "a"), given(5.1, "b", "x"), ended(5.4, "b", lost=True))
    assert [one.task for one in found.hit("x", 5)] == ["b"]


@pytest.mark.parametrize(
    ("sign", "recovery_s"),
    [
        ([ended(6, "a", lost=True), given(6.5, "a", "y", 2)], 1.5),
        ([ended(6, "a", lost=True), given(6.25, "a", "x", 2)], 0.25),  # only it could: it was back at 6
        ([ended(11, "a", lost=True), given(9, "a", "x", 2)], 1.0),  # its way was healed at 8
        ([ended(6, "a", lost=True), given(9, "a", "y", 2)], 4.0),  # another could have done it all the time
        ([given(9, "b", "y"), ended(9, "a")], 1.0),  # what another task does meanwhile says nothing
        ([ended(7, "a")], 2.0),
        ([given(6.5, "a.s1-0", "y"), given(6.25, "ab", "y"), ended(9, "a")], 1.5),  # it goes on with a task of its own
        ([row(7.5, "attempt_regained", "a", 1)], 2.5),
        ([ended(6, "a", lost=True), row(7, "task_settled", "a", state="failed")], 2.0),
    ],
)
def test_recovery_ends_with_the_first_sign_of_the_last_task(sign: list[dict[str, Any]], recovery_s: float) -> None:
    found = trail(given(1, "a", "x"), *sign, row(20, "run_settled"))
    assert after(found, "x", 5, 8) == pytest.approx(recovery_s)


def test_a_task_without_any_sign_recovers_when_the_run_ends() -> None:
    found = trail(given(1, "a", "x"), given(1, "b", "x"), given(6, "b", "y", 2), row(20, "run_settled"))
    assert after(found, "x", 5, 21) == 15


def test_injected_errors_are_told_from_others() -> None:
    failed = {"outcome": "failed", "message": INJECTED}
    found = trail(given(1, "a", "x"), ended(2, "a", **failed), given(2.25, "a", "x", 2), ended(3, "a", 2, message="x"))
    assert found.after_errors() == (0.25,)


def test_first_attempts_fail_by_seed_and_name_alone() -> None:
    some = Mishap("7", share=0.3, certain=("sure",), spared=("never",))
    names = [f"task-{n}" for n in range(1000)]
    failing = [name for name in names if some.fails(name)]
    assert failing == [name for name in names if Mishap("7", share=0.3).fails(name)]
    assert 250 < len(failing) < 350
    assert some.fails("sure")
    assert some.fails("sure.4")
    assert not any(Mishap(share=1.0, spared=("never",)).fails(name) for name in ("never", "never.3"))
    assert not any(Mishap().fails(name) for name in names)
