"""A model's answer becoming patches: what is right goes on at once, what is wrong is set aside and can be mended."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from bench.planner.damage import KINDS, damaged, truncations
from bench.planner.truth import Truth, judge
from planner.catalog import Catalog
from planner.reply import Reply
from planner.view import PlanView
from protocol.builtin import BUILTINS
from protocol.digest import Digest, TaskDigest
from protocol.patch import Edit, Patch
from protocol.task import Output, TaskSpec

CATALOG = Catalog(BUILTINS)
VIEW = PlanView("count", skills=BUILTINS, inputs={"dir": b'"logs"'})
AGAIN = PlanView(
    "count",
    skills=BUILTINS,
    inputs=VIEW.inputs,
    base=4,
    digest=Digest("replan", 4, tasks=(TaskDigest("old", "fs.find", "failed"),)),
)
SCAN: dict[str, Any] = {"id": "scan", "skill": "fs.find", "args": {"path": {"ref": "input/dir"}, "glob": None}}
COUNT: dict[str, Any] = {"id": "count", "skill": "text.count", "args": {"file": {"ref": "scan/files[]/file"}}}
SQL: dict[str, Any] = {
    "id": "table",
    "skill": "data.sql",
    "args": {"tables": [{"name": "c", "rows": {"ref": "count"}, "field": None}], "sql": "select 1"},
}
OUTPUTS = [{"name": "t", "ref": "table/rows"}]


def document(*tasks: Any, outputs: Any = OUTPUTS, **more: Any) -> str:
    return json.dumps({**more, "tasks": tasks, "outputs": outputs})


def ids(patch: Patch | None) -> list[str]:
    return [task.id for task in patch.tasks] if patch is not None else []


def play(text: str, luck: Random) -> tuple[list[TaskSpec], tuple[Output, ...]]:
    reply, accepted, at = Reply(VIEW, CATALOG), list[TaskSpec](), 0
    while at < len(text) and not reply.stopped:
        size = luck.randrange(1, 60)
        patch = reply.feed(text[at : at + size])
        accepted += patch.tasks if patch is not None else ()
        at += size
    last, _ = reply.close()
    return accepted, (last.outputs or ()) if last is not None else ()


def right(text: str, truth: Truth, luck: Random) -> None:
    verdict = judge(truth, *play(text, luck))
    assert not verdict.false_accepts, text[:2000]
    assert not verdict.lost, text[:2000]


@pytest.mark.parametrize("kind", KINDS)
def test_no_harmed_task_is_accepted_and_every_other_one_is(kind: str) -> None:
    for seed in range(3):
        right(*damaged(kind, seed), Random(seed))


def test_a_plan_cut_anywhere_keeps_what_is_whole() -> None:
    for text, truth in truncations(1, 3):
        right(text, truth, Random(len(text)))


def test_a_task_goes_on_with_its_last_brace_and_outputs_with_the_end() -> None:
    reply, text = Reply(VIEW, CATALOG), document(SCAN, COUNT, SQL)
    sent = [(at, name) for at, char in enumerate(text) for name in ids(reply.feed(char))]
    assert [name for _, name in sent] == ["scan", "count", "table"]
    assert all(text[at] == "}" for at, _ in sent)
    last, problems = reply.close()
    assert problems == ()
    assert last is not None
    assert [one.name for one in last.outputs or ()] == ["t"]
    assert reply.accepted["scan"].args == b'{"path":{"ref":"input/dir"}}'


def test_what_needs_a_wrong_task_waits_for_its_mending() -> None:
    reply = Reply(VIEW, CATALOG)
    assert ids(reply.feed(document(SCAN, {**COUNT, "skill": "text.cuont"}, SQL))) == ["scan"]
    assert [(one.code, one.where) for one in reply.end()] == [("UnknownSkill", "tasks/1/skill")]
    assert reply.waiting == ("table",)
    reply.mend()
    assert ids(reply.feed(document(SCAN, COUNT))) == ["count", "table"]
    last, problems = reply.close()
    assert problems == ()
    assert last is not None


def test_what_is_not_mended_is_refused_with_all_that_needs_it() -> None:
    reply = Reply(VIEW, CATALOG)
    reply.feed(document(SCAN, {**COUNT, "args": {}}, SQL))
    reply.end()
    reply.mend()
    reply.feed('{"tasks": []}')
    last, problems = reply.close()
    assert last is None
    assert [(one.code, one.where) for one in problems] == [
        ("SchemaRequired", "tasks/1/args/file"),
        ("UnknownReference", "tasks/2"),
        ("UnknownReference", "outputs/0/ref"),
    ]
    assert "count, which was refused" in problems[1].message


def test_an_answer_that_changes_a_task_already_sent_is_refused() -> None:
    reply = Reply(VIEW, CATALOG)
    reply.feed(document(SCAN, outputs=[]))
    reply.mend()
    assert reply.feed(document({**SCAN, "args": {"path": "other"}}, outputs=[])) is None
    assert [one.code for one in reply.end()] == ["DuplicateId"]


def test_a_second_plan_changes_nothing() -> None:
    reply = Reply(VIEW, CATALOG)
    assert ids(reply.feed(document(SCAN, outputs=[]) + document(COUNT, outputs=[]))) == ["scan"]
    assert reply.stopped
    assert reply.end() == ()


def test_a_change_to_a_graph_is_one_patch_against_its_base() -> None:
    reply = Reply(AGAIN, CATALOG)
    other = {**COUNT, "args": {"file": {"ref": "old/files[]/file"}}}
    text = document(other, outputs=[], base=99, why="another way", edits=[{"op": "give_up", "id": "old", "alt": None}])
    assert reply.feed(text) is None
    last, problems = reply.close()
    assert problems == ()
    assert last == Patch(
        "planner", tuple(reply.accepted.values()), why="another way", base=4, edits=(Edit("give_up", "old"),)
    )


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (document(SCAN, {**COUNT, "skill": "no.such"}, outputs=[], edits=[]), "UnknownSkill"),
        (document(SCAN, outputs=[], edits=[{"op": "explode", "id": "old"}]), "BadEdit"),
        (document(SCAN, outputs=[], edits=[])[:-3], "CutOff"),
    ],
)
def test_a_change_is_never_applied_by_halves(text: str, code: str) -> None:
    reply = Reply(AGAIN, CATALOG)
    reply.feed(text)
    last, problems = reply.close()
    assert last is None
    assert [one.code for one in problems] == [code]


def test_nothing_to_change_is_an_answer() -> None:
    reply = Reply(AGAIN, CATALOG)
    reply.feed('{"base": 4, "why": "fine", "edits": [], "tasks": [], "outputs": []}')
    assert reply.close() == (None, ())
    assert reply.empty


def test_a_long_chain_that_waits_is_freed_at_once() -> None:
    chain = [{"id": "a0", "skill": "no.such", "args": {}}]
    chain += [{"id": f"a{i}", "skill": "flow.echo", "args": {"value": {"ref": f"a{i - 1}"}}} for i in range(1, 400)]
    reply = Reply(VIEW, CATALOG)
    assert reply.feed(document(*chain, outputs=[])) is None
    reply.end()
    reply.mend()
    assert len(ids(reply.feed(document({**chain[1], "id": "a0", "args": {"value": 1}}, outputs=[])))) == 400
