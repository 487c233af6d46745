"""The JSON that people read: the keys of cli.md, exactly, and what the numbers in it mean."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from orchestrator.core import event as e
from protocol.artifact import ArtifactRef
from protocol.errors import NoEligibleWorker, NotFound, RunFailed
from protocol.ids import Fence
from protocol.outcome import Failure, Success
from protocol.patch import Patch
from protocol.plan import parse_plan
from protocol.report import (
    TaskRow,
    error_report,
    event_kind,
    event_report,
    exit_code,
    graph_report,
    run_report,
    tasks_report,
    value_report,
)
from protocol.task import RunSettings, TaskSpec

ROW = TaskRow("succeeded", "flow.echo", "pi-1", "cpu", 1, 0.0, 0.1, 1.1)


def report(**changes: Any) -> Any:
    given: dict[str, Any] = {
        "outputs": {"x": 1},
        "tasks": {"a": ROW},
        "spans": [(0.0, 1.0), (0.5, 1.5), (1.0, 2.0)],
        "makespan_s": 2.0,
        "versions": 1,
    }
    return run_report(7, "succeeded", **(given | changes)).to_dict()


def row_of(event: msgspec.Struct) -> Any:
    return event_report(event, seq=5, at=1.5, task_of=lambda ix: f"t{ix}", worker_of=lambda ix: f"w{ix}")


def test_a_report_has_the_keys_of_the_contract_in_its_order() -> None:
    whole = "schema run state outputs tasks makespan_s task_s width versions planner recovered spend predictions"
    assert " ".join(report()) == whole
    task = "state skill worker device attempts queued_s started_s finished_s"
    assert " ".join(report()["tasks"]["a"]) == task
    assert set(report()["planner"]) == {"kind", "calls", "tokens_in", "tokens_out", "first_task_s"}
    assert set(report()["recovered"]) == {"retries", "lost", "hedges", "replans"}


def test_absent_times_are_null_and_absent_errors_are_left_out() -> None:
    shown = report(tasks={"a": TaskRow("pending", "flow.echo")})["tasks"]["a"]
    assert shown["started_s"] is None
    assert "error" not in shown
    assert "children" not in shown


def test_an_error_and_children_are_shown_where_there_are_any() -> None:
    failed = TaskRow("failed", "x.y", error={"code": "Timeout"}, children={"failed": 2})
    shown = report(tasks={"a": failed})["tasks"]["a"]
    assert shown["error"] == {"code": "Timeout"}
    assert shown["children"] == {"failed": 2}


def test_width_counts_what_ran_at_once_and_an_end_does_not_overlap_a_start() -> None:
    assert report()["task_s"] == 3.0
    assert report()["width"] == {"mean": 1.5, "max": 2}
    assert report(spans=[(0.0, 1.0), (1.0, 2.0)])["width"]["max"] == 1


def test_a_run_without_any_attempt_has_no_width() -> None:
    assert report(spans=[], makespan_s=None)["width"] == {"mean": 0.0, "max": 0}


def test_what_tasks_returned_is_not_rounded() -> None:
    assert report(outputs={"x": 0.123456789012})["outputs"] == {"x": 0.123456789012}
    assert report(makespan_s=0.123456789)["makespan_s"] == 0.123457


def test_a_report_is_json() -> None:
    assert json.loads(json.dumps(report()))["schema"] == "asterism/v1"


@pytest.mark.parametrize(
    ("state", "error", "code"),
    [
        ("succeeded", None, 0),
        ("failed", None, 1),
        ("failed", RunFailed("x").to_wire(), 1),
        ("failed", NoEligibleWorker("x").to_wire(), 6),
        ("failed", {"code": "SomethingNew", "message": "x"}, 1),
        ("cancelled", None, 1),
    ],
)
def test_the_exit_code_is_the_one_of_the_error(state: str, error: dict[str, object] | None, code: int) -> None:
    assert exit_code({"state": state, "error": error}) == code


def test_errors_carry_code_ref_message_and_hint() -> None:
    shown = error_report(NotFound("no run", hint="ps", ref="r7"))
    assert shown == {
        "schema": "asterism/v1",
        "error": {"code": "NotFound", "ref": "r7", "message": "no run", "hint": "ps"},
    }


def test_tasks_are_the_reports_own_part() -> None:
    assert tasks_report(7, "open", {"a": ROW}) == {
        "schema": "asterism/v1",
        "run": "r7",
        "state": "open",
        "tasks": report()["tasks"],
    }


def test_an_event_names_its_run_task_and_attempt() -> None:
    shown = row_of(e.AttemptDispatched(7, 2, 1, 3, Fence(4, 9), b"\x00\xff", why="least loaded", at=1.0))
    assert shown["run"] == "r7"
    assert shown["task"] == "t2"
    assert shown["attempt"] == 1
    assert shown["kind"] == "attempt_dispatched"
    assert shown["worker"] == "w3"
    assert shown["why"] == "least loaded"
    assert shown["fence"] == "4.9"
    assert "pin" not in shown


def test_an_outcome_is_told_without_its_value() -> None:
    ended = row_of(e.AttemptEnded(7, 2, 1, Success(b'{"secret": 1}')))
    assert ended["outcome"] == "succeeded"
    assert "secret" not in json.dumps(ended)
    failed = row_of(e.AttemptEnded(7, 2, 1, Failure("Timeout", "too slow", "transient")))
    assert (failed["code"], failed["message"], failed["class"]) == ("Timeout", "too slow", "transient")


def test_a_credential_never_shows() -> None:
    assert "beef" not in json.dumps(row_of(e.WorkerEnrolled(3, "pi-1", "beef")))


def test_an_event_of_the_whole_run_names_no_task() -> None:
    shown = row_of(e.CancelAsked(7, -1, "ada"))
    assert "task" not in shown
    assert shown["by"] == "ada"


def test_an_accepted_patch_is_counted_and_named_but_not_repeated() -> None:
    tasks = tuple(TaskSpec(f"t{n}", "flow.echo") for n in range(500))
    shown = row_of(e.PatchAccepted(7, 1, Patch("planner", tasks)))
    assert shown["tasks"] == 500
    assert len(shown["ids"]) == 200


def test_a_skills_own_event_goes_by_its_own_word() -> None:
    shown = row_of(e.Emitted(7, 2, 1, "found", b'{"n": 3}'))
    assert shown["kind"] == "found"
    assert shown["body"] == {"n": 3}


def test_every_event_makes_a_row_that_is_json() -> None:
    ref = ArtifactRef("sha256:" + "0" * 64, "text/plain", 3)
    events = [
        e.RunSubmitted(7, "x", "k", "ada", RunSettings(), {"dir": b'"logs"'}),
        e.FilePinned(7, "file://a/b", ref),
        e.MapExpanded(7, 1, 3, 1, (1, 2)),
        e.TaskSettled(7, 1, "succeeded", 1),
        e.ClaimTaken(7, 1, (0, 1), 9.0),
        e.PatchRefused(7, "planner", (("Cycle", "tasks", "a <-> b", ""),)),
        e.CallAnswered(7, 1, 1, 1, b"null"),
        e.RunSettled(7, "failed", "NoEligibleWorker", "x"),
    ]
    for event in events:
        row = row_of(event)
        assert json.loads(json.dumps(row))["kind"] == event_kind(event)


def test_a_value_is_inline_or_an_artifact_to_read() -> None:
    assert value_report(b"[1]") == {"value": [1]}
    ref = ArtifactRef("sha256:" + "0" * 64, "application/json", 3)
    assert value_report(ref) == {"artifact": {"digest": ref.digest, "media": ref.media, "size": 3}}


def test_a_graph_has_its_tasks_as_written_and_one_edge_a_pair() -> None:
    plan = parse_plan(
        {
            "tasks": [
                {"id": "a", "skill": "flow.echo", "args": {"value": 1}},
                {
                    "id": "b",
                    "skill": "flow.echo",
                    "args": {"value": {"ref": "a/x"}},
                    "when": [{"ref": "a/x", "op": ">", "value": 3}],
                    "after": ["a"],
                },
            ]
        }
    )
    shown = graph_report(7, 2, [(task, "pending") for task in plan.tasks])
    assert shown["edges"] == [["a", "b", "data"]]
    assert shown["version"] == 2
    assert shown["tasks"][1]["args"] == {"value": {"ref": "a/x"}}
    assert shown["tasks"][1]["state"] == "pending"


def test_digests_of_a_planner_call_stay_inside() -> None:
    opened = e.PlannerCallOpened(1, 2, "replan", failed={3: b"\xff\x00"}, graph=b"\xfe")
    assert not {"failed", "graph"} & row_of(opened).keys()
    assert "graph" not in row_of(e.PlannerCallClosed(1, 2, "complete", graph=b"\xfe"))
