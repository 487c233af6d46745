"""What a run's time went by: hand-made events, so that every part is known beforehand."""

from __future__ import annotations

from typing import Any

import pytest

from bench.cross_device.trace import Shares, Trace, trace


class Told:
    """Events of one run, at seconds since 100."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.limits: dict[str, int] = {}
        self.say(0.0, "run_submitted")

    def say(self, at: float, kind: str, **fields: Any) -> None:
        self.rows.append({"at": 100 + at, "kind": kind, **fields})

    def ran(
        self, task: str, worker: str, at: float, until: float, run_s: float, *, number: int = 1,
        outcome: str = "succeeded", **usage: float,
    ) -> None:  # fmt: skip
        self.say(at, "attempt_dispatched", task=task, attempt=number, worker=worker, skill=f"x.{task.split('.')[0]}")
        used = {"run_s": run_s, **usage}
        self.say(until, "attempt_ended", task=task, attempt=number, usage=used, lost=False, outcome=outcome)
        if outcome == "succeeded":
            self.say(until, "task_settled", task=task, state=outcome, winner=number)

    def of(self, end: float, *edges: tuple[str, str], slots: int = 8, after: str = "", **args: dict[str, Any]) -> Trace:
        self.rows.sort(key=lambda row: row["at"])
        self.say(end, "run_settled", state="succeeded")
        tasks: list[dict[str, Any]] = [{"id": name, "args": said, "after": [after]} for name, said in args.items()]
        tasks += [{"id": name, "map": {"limit": limit}} for name, limit in self.limits.items()]
        graph = {"edges": [[*edge, "data"] for edge in edges], "tasks": tasks}
        found = trace(self.rows, graph, {"far": 0.02}, {"near": slots, "far": slots})
        assert found.shares.total_s == pytest.approx(end)
        return found


def shares(**parts: float) -> Any:
    return pytest.approx({name: parts.get(name, 0.0) for name in Shares.__struct_fields__})


def parts(found: Trace) -> dict[str, float]:
    return {name: getattr(found.shares, name) for name in Shares.__struct_fields__}


def test_a_chain_is_its_work_its_links_what_was_fetched_and_the_rest_ours() -> None:
    told = Told()
    told.ran("a", "near", 0.001, 0.103, 0.1)
    told.ran("b", "far", 0.104, 0.4, 0.2, bring_s=0.05, bytes_in=900)
    found = told.of(0.401, ("a", "b"))
    assert parts(found) == shares(work_s=0.3, bring_s=0.05, link_s=0.04, engine_s=0.011)
    assert found.way == ("a", "b")
    assert found.bytes_moved == 900
    assert found.critical_path_s == pytest.approx(0.1 + 0.2 + 0.05 + 0.04)


def test_only_the_branch_that_ended_last_counts() -> None:
    told = Told()
    told.ran("a", "near", 0.0, 0.1, 0.1)
    told.ran("quick", "near", 0.1, 0.2, 0.1)
    told.ran("slow", "near", 0.1, 0.6, 0.5)
    told.ran("last", "near", 0.6, 0.7, 0.1)
    found = told.of(0.7, ("a", "quick"), ("a", "slow"), ("quick", "last"), ("slow", "last"))
    assert found.way == ("a", "slow", "last")
    assert parts(found) == shares(work_s=0.7)


def test_waiting_for_a_place_is_the_work_of_who_had_it() -> None:
    told = Told()
    told.ran("a", "near", 0.0, 0.3, 0.3)
    told.ran("b", "near", 0.3, 0.5, 0.2)
    found = told.of(0.5, slots=1)
    assert found.way == ("a", "b")
    assert parts(found) == shares(work_s=0.5)
    assert found.critical_path_s == pytest.approx(0.3)


def test_waiting_for_the_child_before_it_is_the_work_of_that_child() -> None:
    told = Told()
    told.say(0.0, "map_expanded", task="one", items=3, chunk=1)
    told.ran("one.0", "near", 0.0, 0.1, 0.1)
    told.ran("one.1", "far", 0.11, 0.25, 0.1)
    told.ran("one.2", "near", 0.25, 0.35, 0.1)
    told.limits["one"] = 1
    found = told.of(0.35)
    assert found.way == ("one.0", "one.1", "one.2")
    assert parts(found) == shares(work_s=0.3, link_s=0.04, engine_s=0.01)


def test_dawdling_beside_room_is_ours() -> None:
    told = Told()
    told.ran("a", "near", 0.0, 0.3, 0.3)
    told.ran("b", "near", 0.3, 0.5, 0.2)
    assert parts(told.of(0.5, slots=2)) == shares(work_s=0.2, engine_s=0.3)


@pytest.mark.parametrize(
    ("after", "way", "work_s", "engine_s", "longest_s"),
    [("", ("one.0", "two.0"), 0.58, 0.22, 0.58), ("one", ("one.1", "two.0"), 0.78, 0.02, 0.78)],
)
def test_an_element_waits_for_its_own_element_only_unless_all_of_it_is_waited_for(
    after: str, way: tuple[str, ...], work_s: float, engine_s: float, longest_s: float
) -> None:
    told = Told()
    told.say(0.0, "map_expanded", task="one", items=2, chunk=1)
    told.say(0.0, "map_expanded", task="two", items=2, chunk=1)
    told.ran("one.0", "near", 0.0, 0.1, 0.1)
    told.ran("one.1", "near", 0.0, 0.3, 0.3)
    told.ran("two.0", "near", 0.32, 0.8, 0.48)
    told.ran("two.1", "near", 0.3, 0.4, 0.1)
    found = told.of(0.8, ("one", "two"), after=after, two={"value": {"ref": "one[]/x"}})
    assert found.way == way
    assert parts(found) == shares(work_s=work_s, engine_s=engine_s)
    assert found.critical_path_s == pytest.approx(longest_s)


def test_a_planner_is_charged_until_it_had_written_the_task() -> None:
    told = Told()
    told.say(0.01, "planner_call_opened", call=1, purpose="plan")
    told.say(0.2, "patch_accepted", call=1, ids=["a"])
    told.say(0.3, "planner_call_closed", call=1)
    told.ran("a", "near", 0.21, 0.4, 0.19)
    told.say(0.5, "planner_call_opened", call=2, purpose="replan")
    told.say(0.7, "patch_accepted", call=2, ids=["b"])
    told.say(0.7, "planner_call_closed", call=2)
    told.ran("b", "near", 0.7, 1.0, 0.3)
    found = told.of(1.0)
    assert parts(found) == shares(work_s=0.49, planner_s=0.19 + 0.2, engine_s=0.01 + 0.01 + 0.1)
    assert found.way == ("a", "b")


def test_a_second_attempt_is_charged_with_the_first() -> None:
    told = Told()
    told.ran("a", "near", 0.0, 0.1, 0.1, outcome="failed")
    told.ran("a", "near", 0.4, 0.5, 0.1, number=2)
    assert parts(told.of(0.5)) == shares(work_s=0.2, again_s=0.3)


def test_a_person_is_charged_from_the_question_to_the_answer() -> None:
    told = Told()
    told.ran("a", "near", 0.0, 0.1, 0.1)
    told.say(0.1, "approval_asked", task="b")
    told.say(0.35, "approval_given", task="b")
    told.ran("b", "near", 0.36, 0.46, 0.1)
    assert parts(told.of(0.46, ("a", "b"))) == shares(work_s=0.2, person_s=0.25, engine_s=0.01)


def test_a_refusal_that_is_planned_around_is_charged_to_the_person() -> None:
    told = Told()
    told.ran("a", "near", 0.0, 0.1, 0.1)
    told.say(0.1, "approval_asked", task="b")
    told.say(0.3, "approval_refused", task="b")
    told.say(0.3, "planner_call_opened", call=2, purpose="replan")
    told.say(0.35, "patch_accepted", call=2, author="planner", ids=["c"])
    told.say(0.35, "planner_call_closed", call=2)
    told.ran("c", "near", 0.36, 0.46, 0.1)
    found = told.of(0.46, ("a", "b"))
    assert parts(found) == shares(work_s=0.2, person_s=0.2, planner_s=0.05, engine_s=0.01)


def test_what_a_running_task_proposed_waited_for_it() -> None:
    told = Told()
    told.say(0.2, "patch_accepted", call=0, author="task:audit", ids=["mend"])
    told.ran("audit", "near", 0.0, 0.25, 0.25)
    told.ran("mend", "near", 0.21, 0.4, 0.19)
    found = told.of(0.4)
    assert found.way == ("audit", "mend")
    assert parts(found) == shares(work_s=0.39, engine_s=0.01)


def test_what_a_task_spawned_and_waited_for_is_on_its_way() -> None:
    told = Told()
    told.say(0.1, "patch_accepted", key="k", author="task:tree", ids=["tree"])
    told.say(0.15, "task_waited", task="tree", attempt=1, what="join")
    told.ran("tree.k", "near", 0.12, 0.42, 0.3)
    told.say(0.43, "task_resumed", task="tree", attempt=1)
    told.ran("tree", "near", 0.0, 0.5, 0.5)
    found = told.of(0.5)
    assert found.way == ("tree", "tree.k")
    assert parts(found) == shares(work_s=0.07 + 0.3 + 0.1, engine_s=0.03)


def test_what_comes_after_the_end_is_no_part_of_it() -> None:
    told = Told()
    told.ran("a", "near", 0.0, 0.1, 0.1)
    told.say(0.2, "run_settled")
    told.say(0.9, "file_pinned")
    assert trace(told.rows, {}, {}).shares.total_s == pytest.approx(0.2)


def test_what_a_task_had_planned_waits_for_what_was_planned_beside_it() -> None:
    told = Told()
    told.ran("a", "near", 0.0, 0.1, 0.1)
    told.say(0.1, "planner_call_opened", call=2, purpose="next", task="more")
    told.say(0.3, "patch_accepted", call=2, ids=["more.x", "more.y"])
    told.say(0.3, "planner_call_closed", call=2)
    told.ran("more.x", "near", 0.3, 0.5, 0.2)
    told.ran("more.y", "near", 0.52, 0.62, 0.1)
    found = told.of(0.62, ("a", "more"))
    assert found.way == ("a", "more.x", "more.y")
    assert parts(found) == shares(work_s=0.4, planner_s=0.2, engine_s=0.02)


def test_waiting_for_a_machine_that_is_away_until_a_deadline_is_no_work_of_the_engine() -> None:
    told = Told()
    told.say(0.0, "planner_call_opened", call=1, purpose="plan")
    told.say(0.1, "planner_call_closed", call=1)
    told.say(0.5, "task_settled", task="gone", state="failed", winner=0, code="TimedOut")
    told.say(0.5, "planner_call_opened", call=2, purpose="replan")
    told.say(0.55, "patch_accepted", call=2, ids=["copy"])
    told.say(0.55, "planner_call_closed", call=2)
    told.ran("copy", "near", 0.56, 0.66, 0.1)
    assert parts(told.of(0.66)) == shares(work_s=0.1, planner_s=0.15, again_s=0.4, engine_s=0.01)


def test_a_run_without_an_attempt_is_all_ours() -> None:
    found = Told().of(0.25)
    assert parts(found) == shares(engine_s=0.25)
    assert (found.spans, found.way, found.critical_path_s) == ((), (), 0.0)
