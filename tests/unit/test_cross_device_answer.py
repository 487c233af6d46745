"""What the plays of a suite come to: figures by their formulas, and everything that went wrong by name in each form."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.cross_device.answer import PUBLISHED, Answer, answer, document
from bench.cross_device.case import Case, Claim
from bench.cross_device.check import Finding
from bench.cross_device.figure import blows, by_category, figures, missed, rows
from bench.cross_device.page import write_suite
from bench.cross_device.play import Play
from bench.cross_device.progress import Progress
from bench.cross_device.suite import Order, Step, Suite
from bench.cross_device.table import table
from bench.cross_device.trace import Shares, Span, Trace

GOOD = (Finding("check", "state", True), Finding("subtask", "scan", True), Finding("check", "total", True))
BAD = (Finding("check", "state", True), Finding("subtask", "scan", True), Finding("check", "total", False, "7, not 8"))


def made(case: str, latency_s: float, *, width: tuple[float, int] = (2.0, 3), **fields: Any) -> Play:
    report = {
        "width": {"mean": width[0], "max": width[1]},
        "recovered": {"retries": 1, "lost": 0, "hedges": 2, "replans": 0},
    }
    spans = (
        Span("scan", "log-server", 0.0, 0.1),
        Span("count.0", "edge-cam", 0.1, latency_s, won=False, end="stopped"),
    )
    shares = Shares(work_s=latency_s * 0.9, planner_s=latency_s * 0.05, engine_s=latency_s * 0.05)
    known = {
        "category": "collection", "state": "succeeded", "findings": GOOD, "report": report,
        "trace": Trace(spans, latency_s / 2, shares, ("scan",), 100),
    }  # fmt: skip
    return Play(case=case, latency_s=latency_s, **{**known, **fields})


def suite(plays: Sequence[Play], *, problems: Sequence[str] = (), **order: Any) -> Answer:
    names = dict.fromkeys((one.case, one.category) for one in plays)
    cases = tuple(Case(name, kind, f"Title of {name}", "", {}, (), (Claim({}),)) for name, kind in names)
    return answer(Suite(Order(**order), cases, tuple(plays), tuple(problems), ("loopback",), 1.0))


def test_latency_is_compared_with_the_twin_where_something_could_run_side_by_side() -> None:
    plays = [
        made("a", 1.0), made("a", 3.0, repeat=1), made("a", 4.0, sequential=True),
        made("b", 1.0), made("b", 2.0, sequential=True),
        made("narrow", 1.0, width=(0.9, 1)), made("narrow", 1.0, sequential=True),
        made("failed", 1.0, findings=BAD), made("failed", 9.0, sequential=True),
    ]  # fmt: skip
    found = figures(plays)
    assert found.latency_reduction == pytest.approx(0.5)
    assert (found.twins, found.tasks, found.plays) == (2, 4, 5)
    assert found.latency_s == pytest.approx(2.0 + 1.0 + 1.0)
    assert found.sequential_s == pytest.approx(4.0 + 2.0 + 1.0)


def test_rates_are_of_plays_and_of_subtasks_without_the_twins() -> None:
    lame = (*GOOD, Finding("subtask", "count", False, "it is not there"))
    twin = made("c", 1.0, sequential=True, findings=BAD)
    found = figures([made("a", 1.0), made("b", 1.0, findings=BAD), made("c", 1.0, findings=lame), twin])
    assert found.task_success_rate == pytest.approx(2 / 3)
    assert found.subtask_completion_rate == pytest.approx(3 / 4)
    assert (found.wrong_successes, found.bytes_moved, found.retries, found.hedges) == (1, 300, 3, 6)


def test_shares_are_of_the_whole_latency_and_what_the_client_waited_more_is_ours() -> None:
    found = figures([made("a", 2.0, trace=Trace((Span("x", "w", 0, 1),), 1.0, Shares(work_s=1.8, engine_s=0.1)))])
    assert found.engine_overhead == pytest.approx((0.1 + 0.1) / 2.0)
    assert sum(found.shares.values()) == pytest.approx(1.0)
    assert found.critical_path_ratio == pytest.approx(0.5)
    assert missed(found).keys() == {"engine_overhead"}


def test_what_nothing_was_measured_for_is_null() -> None:
    found = figures([])
    assert (found.task_success_rate, found.latency_reduction, found.engine_overhead, found.recovery_s) == (None,) * 4
    abstained = figures(
        [Play(case="a", category="content", state="abstained", findings=(Finding("check", "state", False, "no"),))]
    )
    assert (abstained.abstained, abstained.wrong_successes, abstained.mean_width, abstained.task_success_rate) == (
        1,
        0,
        None,
        0.0,
    )


def test_a_fault_stands_beside_the_same_cases_without_it() -> None:
    gone = {"state": "failed", "partial": "shoot: edge-cam is gone", "findings": BAD, "struck": "killed edge-cam"}
    plays = [
        made("a", 1.0), made("b", 2.0), made("c", 5.0),
        made("a", 3.0, fault="machine-lost", recovery_s=(0.4, 0.8), bound_s=0.5, struck="killed edge-cam"),
        made("b", 2.0, fault="machine-lost", lost="edge-cam", **gone),
        made("c", 2.0, fault="machine-lost", lost="edge-cam", **gone),
        made("a", 1.0, fault="partition", findings=BAD),
    ]  # fmt: skip
    lost, partition = blows(plays, {"b": ("edge-cam",)})
    assert (lost.fault, lost.struck, lost.partial, lost.late) == ("machine-lost", 3, ("b",), {"a": 0.8})
    assert lost.failed == {"c": "check total: 7, not 8"}  # it could have been done without the camera
    assert lost.reached == pytest.approx(1 / 2)
    assert lost.beside_s == pytest.approx(1.0)
    assert lost.slower == pytest.approx(3.0)
    assert lost.figures.recovery_s == pytest.approx(0.6)
    assert (partition.struck, partition.reached, partition.failed) == (0, 0.0, {"a": "check total: 7, not 8"})


def test_categories_come_in_the_order_of_the_suite_and_rows_in_that_of_the_plays() -> None:
    plays = [
        made("x", 1.0, category="recovery"),
        made("y", 1.0),
        made("x", 2.0, category="recovery", repeat=1, findings=BAD),
    ]
    assert [*by_category(plays)] == ["collection", "recovery"]
    first, second = rows(plays)
    assert (first.case, first.succeeded, first.plays, first.why) == ("x", 1, 2, ("check total: 7, not 8",))
    assert second.why == ()


PROBLEMS = (
    "collection/torn.toml: is no case: title is missing",
    "edge-cam could not be started: no such device",
    "collection/blind: check total would not notice another outcome",
)


def broken() -> Answer:
    away = Play(case="c", category="backup", problem="a machine that it needs is not there: edge-cam: no such device")
    raised = (Finding("check", "state", True), Finding("check", "total", False, "the checker raised ZeroDivisionError"))
    plays = [
        made("a", 1.0), made("b", 1.0, findings=raised), away, made("a", 2.0, sequential=True),
        made("a", 1.5, fault="partition", recovery_s=(0.4,)), made("b", 1.5, fault="partition", findings=BAD),
    ]  # fmt: skip
    return suite(plays, problems=PROBLEMS)


def test_everything_that_went_wrong_is_named_in_document_table_and_page(tmp_path: Path) -> None:
    found = broken()
    body = msgspec.json.decode(msgspec.json.encode(document(found)))
    write_suite(found, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    for text in (json.dumps(body), table(found), html):
        for said in (*PROBLEMS, "edge-cam: no such device", "the checker raised ZeroDivisionError", "7, not 8"):
            assert said in text
    assert body["whole"] is False
    assert body["wrong"] == ["b", "b (partition)"]


def test_the_document_holds_what_is_promised_and_what_others_published() -> None:
    body = document(broken())
    promised = {"mode", "tasks", "task_success_rate", "subtask_completion_rate", "mean_width", "latency_reduction"}
    assert promised <= body.keys()
    assert body["categories"].keys() == {"collection", "backup"}
    assert body["faults"]["partition"]["figures"]["task_success_rate"] == 0.5
    assert PUBLISHED.items() <= body["published"].items()
    assert {"cores", "python", "system", "site"} <= body["machine"].keys()
    bad = [made("a", 1.0, findings=BAD)]
    assert document(suite(bad))["missed"] == {"task_success_rate": 0.0, "engine_overhead": pytest.approx(0.05)}
    assert document(suite(bad, mode="catalog"))["missed"] == {}


def test_the_page_shows_both_courses_of_each_case_and_needs_nothing_else(tmp_path: Path) -> None:
    write_suite(broken(), tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert "Title of a" in html
    assert "edge-cam" in html
    assert "count.0 (stopped)" in html
    assert html.count("seconds, one task after the other") == 1
    assert "://" not in html.replace("http://www.w3.org/2000/svg", "")


def test_progress_says_each_case_once_with_its_twin_and_why_it_failed() -> None:
    said = io.StringIO()
    plays = [
        made("a", 1.0),
        made("a", 2.0, sequential=True),
        made("b", 1.0, findings=BAD),
        made("a", 3.0, fault="partition"),
    ]
    with Progress(said, live=False) as watch:
        for number, play in enumerate(plays, 1):
            (case,) = suite([play]).suite.cases
            step = Step(case, play.sequential, play.fault, 0, number=number, of=len(plays))
            watch(step, None)
            watch(step, play)
    lines = said.getvalue().splitlines()
    assert len(lines) == 4
    assert "a  " in lines[0]
    assert "1.00 s" in lines[0]
    assert "2.00 s one after the other" in lines[0]
    assert "FAILED" in lines[1]
    assert "7, not 8" in lines[2]
    assert "partition" in lines[3]


def test_on_a_terminal_the_last_line_says_what_is_played_and_is_gone_in_the_end() -> None:
    said = io.StringIO()
    with Progress(said, live=True) as watch:
        (case,) = suite([made("a", 1.0)]).suite.cases
        watch(Step(case, True, "", 0, number=3, of=9), None)
    assert "3 of 9" in said.getvalue()
    assert "collection/a one task after the other" in said.getvalue()
    assert said.getvalue().endswith("\r\x1b[2K")


def test_a_planner_that_abstains_is_told_as_that_and_as_nothing_else() -> None:
    no = {"error": {"code": "PlannerAbstained", "message": "no skill serves this"}}
    play = made(
        "a", 0.1, state="failed", findings=BAD, report=no, partial="no skill serves this", trace=Trace(), mode="catalog"
    )
    found = suite([play], mode="catalog")
    assert (found.figures.abstained, found.figures.wrong_successes) == (1, 0)
    assert "the planner abstained: no skill serves this" in table(found)
    assert "7, not 8" not in table(found)
