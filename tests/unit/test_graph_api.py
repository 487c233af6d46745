"""The Python Graph: what is written is a plan document that the one compiler reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.errors import NotFound, UsageError
from protocol.graph import Graph
from protocol.plan import parse_patch, parse_plan


def test_the_example_of_the_contract_is_the_plan_of_the_contract() -> None:
    graph = Graph(inputs={"dir": "logs"})
    scan = graph.add("fs.find", path=graph.input("dir"), glob="*.log", on="here")
    count = graph.add("text.count", file=scan["files"].each()["file"])
    graph.output("count", count)
    document = graph.document()
    assert document["tasks"] == [
        {"id": "find", "skill": "fs.find", "args": {"path": {"ref": "input/dir"}, "glob": "*.log"}, "on": ["here"]},
        {"id": "count", "skill": "text.count", "args": {"file": {"ref": "find/files[]/file"}}},
    ]
    assert document["outputs"] == [{"name": "count", "ref": "count"}]
    assert len(parse_plan(document).tasks) == 2


def test_ids_come_from_the_skill_and_are_never_used_twice() -> None:
    graph = Graph()
    names = [graph.add("flow.echo", value=n).id for n in range(3)] + [graph.add("X.7-Zip", value=1).id]
    assert names == ["echo", "echo-2", "echo-3", "t7-zip"]
    with pytest.raises(UsageError):
        graph.add("flow.echo", id="echo", value=1)


def test_conditions_are_written_not_judged() -> None:
    graph = Graph()
    table = graph.add("data.sql", tables=[], sql="select 1")
    graph.add(
        "flow.echo",
        value=1,
        when=[table["rows"][0]["n"] > 100, table.finished, table["x"].exists(), table["k"].among(["a"])],
        after=table,
    )
    row = graph.document()["tasks"][1]
    assert row["when"] == [
        {"ref": "data/rows/0/n", "op": ">", "value": 100} | {"ref": "sql/rows/0/n"},
        {"ref": "sql", "is": "finished"},
        {"ref": "sql/x", "op": "exists"},
        {"ref": "sql/k", "op": "in", "value": ["a"]},
    ]
    assert row["after"] == ["sql"]
    parse_plan(graph.document())
    with pytest.raises(TypeError):
        bool(table["n"] == 3)


def test_an_object_that_looks_like_a_reference_is_protected() -> None:
    graph = Graph()
    graph.add("flow.echo", value={"ref": "not a reference"})
    graph.add("flow.echo", value={"literal": 1})
    first, second = graph.document()["tasks"]
    assert first["args"]["value"] == {"literal": {"ref": "not a reference"}}
    assert second["args"]["value"] == {"literal": {"literal": 1}}


def test_arguments_may_have_the_names_of_options() -> None:
    graph = Graph()
    graph.add("x.y", args={"timeout": "soft", "on": 3}, timeout="5s")
    row = graph.document()["tasks"][0]
    assert row["args"] == {"timeout": "soft", "on": 3}
    assert row["timeout"] == "5s"


def test_paths_and_first_of_are_arguments_too() -> None:
    graph = Graph()
    one, two = graph.add("flow.echo", value=1), graph.add("flow.echo", value=Path("a/b"))
    graph.add("flow.echo", value=graph.first(one["x"], two), on=[one, "any"])
    rows = graph.document()["tasks"]
    assert rows[1]["args"]["value"] == "a/b"
    assert rows[2]["args"]["value"] == {"ref": ["echo/x", "echo-2"]}
    assert rows[2]["on"] == [{"ref": "echo"}, "any"]


def test_a_handle_is_no_list_and_spreads_once() -> None:
    handle = Graph().add("fs.find", path=".")["files"]
    with pytest.raises(TypeError, match="each"):
        list(handle)
    with pytest.raises(UsageError):
        handle.each()["parts"].each()


def test_a_plain_function_is_refused_with_the_fix() -> None:
    def plain() -> None: ...

    with pytest.raises(UsageError) as caught:
        Graph().add(plain)
    assert "@skill" in caught.value.hint


def test_what_is_no_json_is_refused_by_its_type() -> None:
    with pytest.raises(UsageError, match="object"):
        Graph().add("flow.echo", value=object())


def test_a_patch_holds_edits_links_and_merged_updates() -> None:
    graph = Graph()
    graph.retry("count", alt="text.match", note="try this")
    graph.link("a", "b")
    graph.update("late", timeout="5s", args={"n": 2})
    now = {"late": {"id": "late", "skill": "flow.echo", "args": {"n": 1, "m": 1}}}
    document = graph.patch(base=3, why="because", known=now)
    assert document["base"] == 3
    assert document["edits"] == [{"op": "retry", "id": "count", "note": "try this", "alt": "text.match"}]
    assert document["tasks"] == [{"id": "late", "skill": "flow.echo", "args": {"n": 2, "m": 1}, "timeout": "5s"}]
    parse_patch(document, author="person:ada")
    with pytest.raises(NotFound):
        graph.patch()
    with pytest.raises(UsageError):
        graph.document()
