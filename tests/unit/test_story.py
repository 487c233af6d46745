"""The demo's story is a fold over event rows: it tells what they say and nothing else."""

from __future__ import annotations

from typing import Any

from bench.story import Killed, Story

T0 = 1000.0
REPORT: dict[str, Any] = {
    "state": "succeeded",
    "makespan_s": 5.0,
    "task_s": 8.0,
    "width": {"mean": 1.6, "max": 4},
    "recovered": {"retries": 1, "lost": 1, "hedges": 0, "replans": 0},
    "tasks": {"measure": {"state": "succeeded"}, "clean": {"state": "skipped"}},
}


def row(at: float, kind: str, task: str = "", attempt: int = 0, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"at": T0 + at, "run": "r1", "kind": kind, **more}
    return found | ({"task": task} if task else {}) | ({"attempt": attempt} if attempt else {})


def told(story: Story) -> str:
    return "\n".join(f"{at} {text}" for at, text in story.lines(REPORT))


def begun() -> Story:
    story = Story("here-abc123")
    story.feed(row(0, "run_submitted"))
    story.feed(row(0, "patch_accepted", version=1, author="planner", ids=["measure", "twins"]))
    return story


def test_the_plan_s_way_is_told_from_the_first_task_to_its_last_word() -> None:
    story = begun()
    story.feed(row(0, "planner_call_opened", call=1))
    story.feed(row(0.5, "attempt_dispatched", "measure.0", 1, worker="gpu-sim"))
    story.feed(row(1, "map_expanded", "measure", items=2))
    story.feed(row(2, "patch_accepted", version=2, author="task:closer", why="it stands out", ids=["inspect-1"]))
    story.feed(row(3, "patch_accepted", version=2, author="planner", ids=["report"]))
    story.feed(row(3, "task_settled", "measure.0", state="succeeded", winner=1))
    story.feed(row(4, "budget_spent", call=1, tokens_in=900, tokens_out=120))
    story.feed(row(4, "planner_call_closed", call=1, planner="llm:scripted", outcome="complete"))
    story.feed(row(4, "plan_closed", message="llm:scripted: 3 tasks", partial=False))
    text = told(story)
    assert "0.50 s first task: measure.0, while the plan is being written" in text
    assert "1.00 s map running: measure, 2 parts, while the plan is being written" in text
    assert "4.00 s plan complete: 3 tasks by llm:scripted, 120 tokens; 1 tasks and parts had settled by then" in text
    assert text.count("rewritten") == 1


def test_a_plan_that_ends_early_and_a_call_that_is_asked_again_are_told() -> None:
    story = begun()
    for at in (0, 2):
        story.feed(row(at, "planner_call_opened", call=1 + at))
    story.feed(row(4, "plan_closed", message="the model was not done", partial=True))
    text = told(story)
    assert "2.00 s the planner's call was lost: it is asked for what is missing" in text
    assert "the plan ended early: the model was not done" in text


def test_what_a_worker_finished_and_holds_is_known_while_it_runs() -> None:
    story = begun()
    story.feed(row(1, "attempt_dispatched", "measure.0", 1, worker="gpu-sim"))
    story.feed(row(1, "attempt_dispatched", "measure.1", 1, worker="gpu-sim"))
    story.feed(row(2, "attempt_ended", "measure.0", 1, lost=False))
    story.feed(row(2, "task_settled", "measure.0", state="succeeded", winner=1))
    assert story.finished_on("gpu-sim") == 1
    assert story.held_by("gpu-sim") == ("measure.1",)


def test_a_death_is_told_with_who_noticed_when_and_where_the_work_went() -> None:
    story = begun()
    story.feed(row(1, "attempt_dispatched", "measure.1", 1, worker="gpu-sim"))
    story.killed.append(Killed("gpu-sim", T0 + 2, 2, ("measure.1",), back_at=T0 + 2.8))
    story.feed(row(2.4, "attempt_dispatched", "measure.1", 2, worker="here-abc123", hedge=True))
    story.feed(row(3, "task_settled", "measure.1", state="succeeded", winner=2))
    text = told(story)
    assert "2.00 s gpu-sim killed (SIGKILL): 2 parts finished, holding measure.1" in text
    assert "noticed 0.40 s after the kill; given out again: measure.1 to here" in text
    assert "gpu-sim started again 0.80 s after the kill" in text


def test_a_task_that_ran_again_after_the_orchestrator_died_is_not_hidden() -> None:
    story = begun()
    story.feed(row(1, "attempt_dispatched", "measure.0", 1, worker="here-abc123"))
    story.feed(row(2, "task_settled", "measure.0", state="succeeded", winner=1))
    story.killed.append(Killed("orchestrator", T0 + 3, settled=story.settled(), back_at=T0 + 3.5))
    assert "orchestrator back after 0.50 s, from its journal; no settled task ran again" in told(story)
    story.feed(row(4, "attempt_dispatched", "measure.0", 2, worker="here-abc123"))
    assert "measure.0 ran again" in told(story)


def test_a_rewrite_is_told_with_its_author_reason_and_the_new_count() -> None:
    story = begun()
    story.feed(
        row(3, "patch_accepted", version=2, author="task:closer", why="1 function stands out", ids=["inspect-1"])
    )
    text = told(story)
    assert "version 2 by task:closer: 1 function stands out; inspect-1 added, 3 tasks" in text


def test_moved_files_are_counted_once_each() -> None:
    story = begun()
    for uri in ("file://here-abc123/a", "file://here-abc123/a", "file://here-abc123/b"):
        story.feed(row(1, "file_pinned", uri=uri, ref={"digest": "sha256:0", "media": "", "size": 1024 * 1024}))
    story.feed(row(1, "attempt_dispatched", "measure.0", 1, worker="gpu-sim"))
    story.feed(row(2, "task_settled", "measure.0", state="succeeded", winner=1))
    assert "1 parts measured: 1 on gpu-sim; 2 files, 2.0 MiB moved" in told(story)
