"""The decoder of what a model writes: every form of a plan, piece by piece, within its limits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from planner.decoder import Decoder, Piece
from protocol.document import Limits

A: dict[str, Any] = {"id": "a", "skill": "fs.find", "args": {"path": 'a "quoted" \\ {brace', "n": [1, {"x": []}]}}
B: dict[str, Any] = {"id": "b", "skill": "text.count", "args": {"file": {"ref": "a/files[]/file"}}, "on": []}
PLAN: dict[str, Any] = {"tasks": [A, B], "outputs": [{"name": "n", "ref": "b"}]}
TEXT = json.dumps(PLAN)
LINES = f"{json.dumps(A)}\r\n{json.dumps(B)}\n"


def read(*chunks: str, limits: Limits | None = None) -> tuple[list[Piece], str]:
    decoder = Decoder(limits) if limits else Decoder()
    found = [piece for chunk in chunks for piece in decoder.feed(chunk)]
    problem = decoder.end()
    return found, problem.code if problem else ""


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        json.dumps(PLAN, indent=2).replace("\n", "\r\n"),
        f"Here is [1] the {{plan}}:\n```json\n{TEXT}\n```\nIt has [2] tasks, {{so}} to say.",
        f'<think>Perhaps {{"tasks": [{{"id": "x", "skill": "y"}}]}}?</think>{TEXT}',
        f'{LINES}{{"outputs": [{{"name": "n", "ref": "b"}}]}}',
        f'A file is {{"ref": "a/files"}}.\n{TEXT}\nNote {{"one": ["thing"]}} more',
    ],
)
def test_a_plan_is_read_however_it_is_wrapped(text: str) -> None:
    found, code = read(text)
    assert [piece.value for piece in found] == [A, B, PLAN["outputs"]]
    assert [piece.where for piece in found] == ["tasks/0", "tasks/1", "outputs"]
    assert code == ""


def test_a_bare_list_is_a_plan_of_tasks() -> None:
    found, code = read(f"[1]:\n {json.dumps([A, B])}")
    assert [piece.value for piece in found] == [A, B]
    assert code == ""


@pytest.mark.parametrize("evil", [json.dumps(B), json.dumps([B])])
def test_a_task_inside_a_sentence_is_no_part_of_the_plan(evil: str) -> None:
    found, code = read(f"Not like {evil}, but so: {json.dumps({'tasks': [A]})}")
    assert [piece.value for piece in found] == [A]
    assert code == ""


@pytest.mark.parametrize(
    "text",
    [
        '{"tasks": [{"id": "a", "skill": "fs.read", "args": {"x": {"ref": "b"}}, "skill": "process.run"}]}',
        '[{"id": "a", "args": {"x": 1, "\\u0078": 2}}]',
        '{"id": "a", "skill": "fs.read", "id": "b"}',
    ],
)
def test_a_key_that_is_there_twice_is_not_chosen_from(text: str) -> None:
    found, _ = read(text)
    assert [piece.problem and piece.problem.code for piece in found] == ["DuplicateKey"]


def test_each_task_is_there_with_its_last_brace() -> None:
    decoder = Decoder()
    counts = [len(decoder.feed(char)) for char in TEXT]
    ends = [i for i, count in enumerate(counts) if count]
    assert [TEXT[: i + 1].count('"id"') for i in ends] == [1, 2, 2]
    assert all(TEXT[i] in "}]" for i in ends)


def test_a_re_plan_is_read_in_its_order() -> None:
    text = json.dumps({"base": 4, "why": "it failed", "edits": [{"op": "retry", "id": "a"}], **PLAN})
    assert [piece.key for piece in read(text)[0]] == ["base", "why", "edits", "tasks", "tasks", "outputs"]


@pytest.mark.parametrize("bad", ["5", "null", "[1]", '"text"', "{oops}", '{"id": "x" "skill": "y"}', '{"id": NaN}'])
def test_what_is_no_task_is_a_piece_of_its_own_and_the_others_are_kept(bad: str) -> None:
    found, code = read(f'{{"tasks": [{json.dumps(A)}, {bad}, {json.dumps(B)}]}}')
    assert [piece.value for piece in found if piece.value in (A, B)] == [A, B]
    assert len(found) == 3
    assert found[1].index == 1
    assert code == ""


def test_every_truncation_keeps_the_tasks_that_are_whole_and_says_that_it_is_cut() -> None:
    ends = [TEXT.index(json.dumps(task)) + len(json.dumps(task)) for task in (A, B)]
    for cut in range(len(TEXT)):
        found, code = read(TEXT[:cut])
        assert sum(piece.key == "tasks" for piece in found) == sum(end <= cut for end in ends)
        assert code == ("CutOff" if cut > 1 else "NoPlan")


@pytest.mark.parametrize(
    ("text", "code", "tasks"),
    [
        ("", "NoPlan", 0),
        ("I can't help with that. {} [] {x} <b>", "NoPlan", 0),
        ("<think>" + TEXT, "NoPlan", 0),
        ('{"tasks": []}', "", 0),
        ('{"tasks": {}}', "", 0),
        (TEXT + TEXT, "TwoPlans", 2),
        (TEXT + LINES, "", 2),
        (f'{{"tasks": [{json.dumps(A)}', "CutOff", 1),
        (f'{{"tasks": [{json.dumps(A)}}}, {json.dumps(B)}]}}', "NotJson", 1),
    ],
)
def test_what_is_no_whole_plan_says_why(text: str, code: str, tasks: int) -> None:
    found, said = read(text)
    assert said == code
    assert sum(piece.index >= 0 for piece in found) == tasks


def test_a_task_that_nests_too_deep_is_set_aside_alone() -> None:
    deep = f'{{"id": "x", "args": {"[" * 5000}{"]" * 5000}}}'
    found, code = read(f'{{"tasks": [{json.dumps(A)}, {deep}, {json.dumps(B)}]}}')
    assert [piece.problem.code if piece.problem else "" for piece in found] == ["", "PlanTooLarge", ""]
    assert code == ""


def test_limits_stop_the_reading_and_keep_what_was_read() -> None:
    found, code = read(TEXT, limits=Limits(max_tasks=1))
    assert (len(found), code) == (1, "PlanTooLarge")
    found, code = read(TEXT[:-2], " " * 2000, limits=Limits(max_bytes=len(TEXT)))
    assert (len(found), code) == (2, "PlanTooLarge")
