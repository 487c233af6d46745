"""The catalog planner: what it understands becomes the right graph, and what it doesn't is left alone."""

from __future__ import annotations

from typing import Any

import pytest

from planner.catalog_planner import CatalogPlanner, Decided
from planner.view import PlanView, WorkerView
from protocol.builtin import BUILTINS
from protocol.digest import Digest
from protocol.plan import patch_document
from protocol.skill import SkillSpec

PLANNER = CatalogPlanner()
FILE = {"ref": "find/files[]/file"}


def decide(request: str, *extra: SkillSpec) -> Decided:
    return PLANNER.decide(PlanView(request, skills=(*BUILTINS, *extra), fleet=(WorkerView("pi-1"),)))


def graph(request: str, *extra: SkillSpec) -> list[tuple[str, dict[str, Any]]]:
    decided = decide(request, *extra)
    assert decided.outcome.kind == "complete", (request, decided.outcome)
    (patch,) = decided.patches
    return [(task["skill"], task["args"]) for task in patch_document(patch)["tasks"]]


SERVED: list[tuple[str, list[tuple[str, dict[str, Any]]]]] = [
    ("find *.log in logs", [("fs.find", {"path": "logs", "glob": "*.log"})]),
    ("List the files in /var/log.", [("fs.find", {"path": "/var/log"})]),
    ("count the lines in notes.txt", [("text.count", {"file": "notes.txt"})]),
    (
        'How often does "out of memory" occur in logs/a.log?',
        [("text.count", {"file": "logs/a.log", "pattern": "out of memory"})],
    ),
    (
        "count ERROR in logs/*.log",
        [("fs.find", {"path": "logs", "glob": "*.log"}), ("text.count", {"file": FILE, "pattern": "ERROR"})],
    ),
    (
        "find *.log in logs and count ERROR in each",
        [("fs.find", {"path": "logs", "glob": "*.log"}), ("text.count", {"file": FILE, "pattern": "ERROR"})],
    ),
    (
        "for each *.txt in docs, count the words",
        [("fs.find", {"path": "docs", "glob": "*.txt"}), ("text.count", {"file": FILE})],
    ),
    (
        "for each file in logs/, hash it",
        [("fs.find", {"path": "logs", "glob": "*"}), ("file.hash", {"file": FILE})],
    ),
    (
        "find *.log in logs, then count ERROR in each and hash each, then write a report called Errors",
        [
            ("fs.find", {"path": "logs", "glob": "*.log"}),
            ("text.count", {"file": FILE, "pattern": "ERROR"}),
            ("file.hash", {"file": FILE}),
            (
                "report.markdown",
                {
                    "title": "Errors",
                    "parts": [{"name": "count", "rows": {"ref": "count"}}, {"name": "hash", "rows": {"ref": "hash"}}],
                },
            ),
        ],
    ),
    (
        "find *.log in logs then pack them into logs.zip",
        [
            ("fs.find", {"path": "logs", "glob": "*.log", "parts": 1}),
            ("file.pack", {"files": {"ref": "find/parts/0/files"}, "name": "logs.zip"}),
        ],
    ),
    (
        "pack a.txt, b.txt and c.txt into out.tar.gz",
        [("file.pack", {"files": ["a.txt", "b.txt", "c.txt"], "name": "out.tar.gz"})],
    ),
    (
        "fetch https://example.com and save it as page.html",
        [
            ("http.get", {"url": "https://example.com"}),
            ("fs.write", {"path": "page.html", "data": {"ref": "get/file"}}),
        ],
    ),
    (
        'read data.csv as csv then query it with "select count(*) as n from read"',
        [
            ("fs.read", {"file": "data.csv", "as": "csv"}),
            (
                "data.sql",
                {"tables": [{"name": "read", "rows": {"ref": "read/rows"}}], "sql": "select count(*) as n from read"},
            ),
        ],
    ),
    ("please unzip archive.zip", [("file.unpack", {"file": "archive.zip"})]),
    (
        "extract the archive a.tar.gz, then hash each file",
        [("file.unpack", {"file": "a.tar.gz"}), ("file.hash", {"file": {"ref": "unpack/files[]"}})],
    ),
    ('compute the sha256 of "my file.bin"', [("file.hash", {"file": "my file.bin"})]),
    ("compute checksums of a.bin", [("file.hash", {"file": "a.bin"})]),
    ("count occurrences of ERROR in a.log", [("text.count", {"file": "a.log", "pattern": "ERROR"})]),
    ('search server.log for "timeout"', [("text.match", {"file": "server.log", "pattern": "timeout"})]),
    ('ask me "Deploy now?"', [("human.ask", {"question": "Deploy now?"})]),
    (
        'post {"a": 1} to https://example.com/hook',
        [("http.send", {"method": "POST", "url": "https://example.com/hook", "json": {"a": 1}})],
    ),
    ('run the command "ls -la /tmp"', [("process.run", {"argv": ["ls", "-la", "/tmp"]})]),
    ("wait 5 seconds", [("flow.sleep", {"seconds": 5})]),
    ("check that 3 < 5", [("flow.check", {"left": 3, "op": "<", "right": 5})]),
    ('write "hello" to hello.txt', [("fs.write", {"path": "hello.txt", "data": "hello"})]),
    ("show the system information", [("sys.info", {})]),
    (
        "hash a.txt and count the lines in b.txt in parallel",
        [("file.hash", {"file": "a.txt"}), ("text.count", {"file": "b.txt"})],
    ),
    (
        "find(logs) -> hash each",
        [("fs.find", {"path": "logs"}), ("file.hash", {"file": FILE})],
    ),
]


@pytest.mark.parametrize(("request_text", "expected"), SERVED)
def test_what_is_understood_becomes_the_right_graph(
    request_text: str, expected: list[tuple[str, dict[str, Any]]]
) -> None:
    assert graph(request_text) == expected


def test_abstaining_names_the_nearest_skills_and_how_to_set_a_model() -> None:
    outcome = decide("compress video.mp4 to 720p").outcome
    assert not decide("compress video.mp4 to 720p").patches
    assert "file.pack" in outcome.nearest
    assert len(outcome.nearest) == 3
    assert "ASTERISM_MODEL" in outcome.hint
    assert "->" in outcome.hint


def test_places_are_understood() -> None:
    def on(request: str) -> list[list[str]]:
        (patch,) = decide(request).patches
        return [task.get("on", []) for task in patch_document(patch)["tasks"]]

    assert on("show the system information on all machines") == [["all"]]
    assert on("system info on the gpu") == [["gpu"]]
    assert on("hash a.txt on pi-1") == [["pi-1"]]
    assert on("hash a.txt locally") == [["here"]]
    assert decide("hash a.txt on pi-2").outcome.kind == "abstained"


def test_a_complete_clause_after_then_waits_for_what_came_before() -> None:
    (patch,) = decide("sleep 2 then echo done").patches
    assert patch.tasks[1].after == ("sleep",)


def test_a_call_of_a_known_skill_written_wrongly_is_refused_not_guessed() -> None:
    outcome = decide("find(logs) -> count(level=ERROR)").outcome
    assert outcome.kind == "refused"
    assert [problem.code for problem in outcome.problems] == ["UnknownArgument"]
    assert decide("check(1, =>, 1)").outcome.problems[0].code == "SchemaEnum"


def test_a_step_that_is_no_skill_is_said_with_the_nearest_names() -> None:
    outcome = decide("find(logs) -> cuont(ERROR) each").outcome
    assert outcome.kind == "abstained"
    assert "cuont" in outcome.message
    assert "text.count" in outcome.hint


def test_a_persons_own_skill_is_found_by_its_sentence() -> None:
    params = {
        "type": "object",
        "properties": {"image": {"type": "file"}, "width": {"type": "integer"}},
        "required": ["image", "width"],
        "additionalProperties": False,
    }
    result = {"type": "object", "properties": {"image": {"type": "file"}}, "required": ["image"]}
    skill = SkillSpec("photo.resize", "Resizes.", params, result, examples=("resize {image} to {width}",))
    assert graph("resize a.png to 300", skill) == [("photo.resize", {"image": "a.png", "width": 300})]
    assert graph("resize photos/*.png to 300 then hash each", skill)[2] == (
        "file.hash",
        {"file": {"ref": "resize[]/image"}},
    )
    assert decide("resize a.png to 300 pixels", skill).outcome.kind == "abstained"


def test_a_number_may_be_what_came_before_and_rows_of_each_are_one_table_or_many() -> None:
    params = {
        "type": "object",
        "properties": {"value": {"type": "integer"}, "by": {"type": "integer"}},
        "required": ["value", "by"],
    }
    result = {"type": "object", "properties": {"value": {"type": "integer"}}, "required": ["value"]}
    skill = SkillSpec("sum.add", params=params, result=result, examples=("raise {value} by {by}",))
    assert graph("raise 3 by 4, then raise it by 5", skill)[1] == ("sum.add", {"value": {"ref": "add/value"}, "by": 5})
    assert decide("raise 3 by 4, then wait for it", skill).outcome.kind == "abstained"
    read = 'find *.csv in d, then read each as csv, then query {} with "select 1"'
    one = [{"name": "read", "rows": {"ref": "read"}, "field": "rows"}]
    assert graph(read.format("them"))[2][1]["tables"] == one
    many = [{"name": "read", "rows": {"ref": "read[]/rows"}}]
    assert graph(read.format("each"))[2][1]["tables"] == many


def test_a_list_of_who_knows_what_is_not_mapped_unless_it_is_said() -> None:
    numbers = {"type": "array", "items": {"type": "integer"}}
    params = {"type": "object", "properties": {"numbers": numbers}, "required": ["numbers"]}
    skill = SkillSpec("sum.of", params=params, examples=("add up {numbers}",))
    assert decide("read a.json as json, then add up them", skill).outcome.kind == "abstained"
    assert graph("read a.json as json, then add up each", skill)[1] == ("sum.of", {"numbers": {"ref": "read/rows[]"}})


def test_a_second_way_is_a_skill_that_takes_and_gives_the_same() -> None:
    params = {"type": "object", "properties": {"file": {"type": "file"}}, "required": ["file"]}
    result = {"type": "object", "properties": {"pages": {"type": "integer"}}, "required": ["pages"]}
    fast = SkillSpec("book.skim", params=params, result=result, examples=("skim {file}",))
    slow = SkillSpec("book.study", params=params, result=result, examples=("study {file}",))
    other = SkillSpec("book.burn", params=params, examples=("burn {file}",))
    said = "find *.txt in docs on pi-1, then skim each or, if that fails, {} each"
    (patch,) = decide(said.format("study"), fast, slow).patches
    assert [(task.skill, task.alt) for task in patch.tasks] == [("fs.find", ()), ("book.skim", ("book.study",))]
    assert decide(said.format("burn"), fast, slow, other).outcome.kind == "abstained"
    assert decide("skim a.txt or, if that fails, study b.txt", fast, slow).outcome.kind == "abstained"


def test_two_skills_with_the_same_sentence_are_a_tie() -> None:
    params = {"type": "object", "properties": {"file": {"type": "file"}}, "required": ["file"]}
    twin = SkillSpec("other.hash", params=params, examples=("hash {file}",))
    assert graph("hash a.txt") == [("file.hash", {"file": "a.txt"})]
    assert decide("hash a.txt", twin).outcome.kind == "abstained"


def test_it_does_not_replan_and_takes_no_empty_request() -> None:
    view = PlanView("hash a.txt", skills=BUILTINS, digest=Digest("replan", 1))
    assert PLANNER.decide(view).outcome.kind == "abstained"
    assert decide("  ").outcome.kind == "refused"


def test_a_list_is_taken_whole_or_not_at_all() -> None:
    names = [f"f{i}.txt" for i in range(20)]
    ((_, args),) = graph(f"pack {', '.join(names)} into out.zip")
    assert args["files"] == names
    assert decide(f"pack {', '.join(f'f{i}.txt' for i in range(60))} into out.zip").outcome.kind == "abstained"


def test_what_is_no_text_or_no_reference_is_refused() -> None:
    assert decide("hash \ud800.txt").outcome.problems[0].code == "LoneSurrogate"
    assert decide('echo({"ref": "a[]/b[]"})').outcome.problems[0].code == "BadReference"
    assert decide('post {"ref": "a[]/b[]"} to https://example.com').outcome.kind == "abstained"


def test_long_and_odd_texts_end_quickly() -> None:
    for text in ("hash " + "a " * 40_000, "(" * 5_000, "\ue0000\ue001 hash \ue0001\ue001", "then " * 300, '"' * 999):
        assert decide(text).outcome.kind == "abstained"
