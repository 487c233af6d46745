"""Plan documents: what is read, what is refused, and that every problem is named at once."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from protocol.document import Limits
from protocol.errors import PlanRefused, PlanTooLarge
from protocol.plan import parse_patch, parse_plan, parse_task, patch_document, plan_document
from protocol.resource import Resources
from protocol.task import Condition, FirstOf, MapSpec, Plan, Ref, Retry

GRAPH_MD: dict[str, Any] = {
    "schema": "asterism/plan/v1",
    "inputs": [{"name": "dir", "type": "string", "default": "logs"}],
    "run": {"on_failure": "continue", "deadline": "10m", "budget": {"tokens": 20000, "tasks": 500}},
    "tasks": [
        {
            "id": "scan",
            "on": ["here"],
            "skill": "fs.find",
            "args": {"path": {"ref": "input/dir"}, "glob": "*.log"},
        },
        {"id": "count", "skill": "text.count", "args": {"file": {"ref": "scan/files[]/file"}, "pattern": "ERROR"}},
        {
            "id": "table",
            "skill": "data.sql",
            "args": {"tables": [{"name": "c", "rows": {"ref": "count"}}], "sql": "select * from c"},
        },
        {
            "id": "alarm",
            "when": [{"ref": "table/rows/0/matches", "op": ">", "value": 100}],
            "skill": "report.markdown",
            "args": {"title": "Alarm", "parts": [{"name": "top", "rows": {"ref": "table/rows"}}]},
        },
    ],
    "outputs": [{"name": "table", "ref": "table/rows"}],
}


def task(id: str = "a", **fields: Any) -> dict[str, Any]:
    return {"id": id, "skill": "flow.echo", "args": {"value": 1}, **fields}


def codes(document: object, **options: Any) -> list[tuple[str, str]]:
    with pytest.raises(PlanRefused) as caught:
        parse_plan(document if isinstance(document, bytes) else json.dumps(document), **options)
    assert caught.value.problems
    return [(problem.code, problem.where) for problem in caught.value.problems]


def only(fields: dict[str, Any]) -> tuple[str, str]:
    found = [one for one in codes({"tasks": [task(**fields)]}) if one != ("UnknownInput", "tasks/0/when/0/ref")]
    assert len(found) == 1, found
    return found[0]


def test_the_plan_of_the_design_page_is_read_and_written_back() -> None:
    plan = parse_plan(json.dumps(GRAPH_MD))
    scan, count, table, alarm = plan.tasks
    assert scan.on == ("here",)
    assert scan.args == b'{"glob":"*.log","path":{"ref":"input/dir"}}'
    assert count.skill == "text.count"
    assert alarm.when == (Condition(Ref("table", ("rows", "0", "matches")), ">", b"100"),)
    assert table.retry is None
    assert table.effect is None
    assert plan.settings.deadline_s == 600
    assert plan.settings.budget.tokens == 20000
    assert plan.inputs[0].default == b'"logs"'
    assert plan.outputs[0].ref == Ref("table", ("rows",))
    assert parse_plan(plan_document(plan)) == plan


def test_toml_has_the_same_keys() -> None:
    text = """
    [run]
    deadline = "1h30m"
    [[tasks]]
    id = "scan"
    skill = "fs.find"
    args = {path = "logs"}
    [[tasks]]
    id = "count"
    skill = "text.count"
    [tasks.args]
    file = {ref = "scan/files[]/file"}
    """
    plan = parse_plan(text, "toml")
    assert [one.id for one in plan.tasks] == ["scan", "count"]
    assert plan.settings.deadline_s == 5400


def test_every_key_of_a_task_is_read() -> None:
    raw = task(
        on=["gpu", "zone=a", {"ref": "b"}],
        when=[{"ref": "b", "is": "failed"}, {"ref": "b/x", "op": "exists"}, {"ref": "b/y", "op": "in", "value": [1]}],
        after=["b"],
        map={"limit": 4, "chunk": "auto", "on_error": "collect", "max": 5},
        alt=["flow.list"],
        needs={"cpu": 2, "gpu": 0.5, "vram": "16GiB", "memory": 1024, "counters": {"licence": 1}, "labels": {"a": "b"}},
        retry={"max": 3, "backoff": "250ms"},
        timeout="1m",
        deadline=90,
        priority=-2,
        effect="once",
        cache=False,
        approve=True,
        label="Old name",
    )
    plan = parse_plan({"tasks": [task("b"), raw]})
    spec = plan.tasks[1]
    assert spec.on == ("gpu", "zone=a", Ref("b"))
    assert spec.when[0] == Condition(Ref("b"), "is", b'"failed"')
    assert spec.map == MapSpec(limit=4, chunk=0, on_error="collect", max=5)
    assert spec.needs == Resources(
        cpu=2.0, gpu=0.5, vram=16 * 2**30, memory=1024, counters={"licence": 1.0}, labels={"a": "b"}
    )
    assert spec.retry == Retry(3, 0.25)
    assert (spec.timeout_s, spec.deadline_s, spec.priority, spec.effect) == (60.0, 90.0, -2, "once")
    assert (spec.cache, spec.approve, spec.label, spec.alt) == (False, True, "Old name", ("flow.list",))
    assert parse_plan(plan_document(plan)) == plan


def test_null_means_left_out() -> None:
    raw = {"id": "a", "on": None, "when": None, "skill": "flow.echo", "args": {}, "approve": None}
    assert parse_plan({"tasks": [raw]}) == parse_plan({"tasks": [{"id": "a", "skill": "flow.echo"}]})


def test_equal_arguments_have_equal_bytes() -> None:
    one = parse_plan(b'{"tasks":[{"id":"a","skill":"x","args":{"b":1,"a":[1.0,"\\u00e9"]}}]}')
    two = parse_plan('{"tasks":[{"args":{"a":[1.0,"é"],"b":1},"skill":"x","id":"a"}]}')
    assert one == two


def test_a_literal_is_never_read_as_a_reference() -> None:
    plan = parse_plan({"tasks": [task(args={"value": {"literal": {"ref": "nobody/x"}}})]})
    assert json.loads(plan.tasks[0].args) == {"value": {"literal": {"ref": "nobody/x"}}}


def test_the_first_that_succeeded_names_all_of_them() -> None:
    document = {"tasks": [task("a"), task("b"), task("c", args={"v": {"ref": ["a/x", "b/x"]}})]}
    document["outputs"] = [{"name": "o", "ref": ["a", "c"]}]  # type: ignore[list-item]
    assert parse_plan(document).outputs[0].ref == FirstOf((Ref("a"), Ref("c")))
    assert codes({"tasks": [task("a"), task("c", args={"v": {"ref": ["a/x", "z/x"]}})]}) == [
        ("UnknownReference", "tasks/1/args/v")
    ]


def test_every_problem_is_named_at_once_with_its_place() -> None:
    document = {
        "tasks": [
            {"id": "A", "skill": "x", "args": []},
            {"id": "input", "skill": ""},
            task("b", args={"v": [{"w": {"ref": "c"}}]}, colour=1),
            task("c", args={"v": {"ref": "c/x"}}),
            task("c", on="gpu", when=[{"ref": "nobody"}]),
        ],
        "outputs": [{"name": "o", "ref": "nowhere"}],
        "output": [],
    }
    assert set(codes(document)) == {
        ("UnknownKey", "output"),
        ("BadId", "tasks/0/id"),
        ("WrongType", "tasks/0/args"),
        ("ReservedId", "tasks/1/id"),
        ("BadSkill", "tasks/1/skill"),
        ("UnknownKey", "tasks/2/colour"),
        ("ForwardReference", "tasks/2/args/v/0/w"),
        ("SelfReference", "tasks/3/args/v"),
        ("DuplicateId", "tasks/4/id"),
        ("WrongType", "tasks/4/on"),
        ("BadWhen", "tasks/4/when/0"),
        ("UnknownReference", "outputs/0/ref"),
    }


def test_problems_carry_a_fix_with_the_nearest_name() -> None:
    with pytest.raises(PlanRefused) as caught:
        parse_plan({"tasks": [task("scan"), task("b", args={"v": {"ref": "scam/x"}}, retires={})]})
    fixes = {problem.code: problem.fix for problem in caught.value.problems}
    assert "scan" in fixes["UnknownReference"]
    assert "retry" in fixes["UnknownKey"]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"id": "a" * 65}, ("BadId", "tasks/0/id")),
        ({"id": "a.b"}, ("BadId", "tasks/0/id")),
        ({"id": "a\n"}, ("BadId", "tasks/0/id")),
        ({"id": 7}, ("WrongType", "tasks/0/id")),
        ({"id": None}, ("MissingKey", "tasks/0/id")),
        ({"skill": None}, ("MissingKey", "tasks/0/skill")),
        ({"skill": "a b"}, ("BadSkill", "tasks/0/skill")),
        ({"args": {"v": {"ref": 5}}}, ("BadReference", "tasks/0/args/v")),
        ({"args": {"v": {"ref": []}}}, ("BadReference", "tasks/0/args/v")),
        ({"args": {"v": {"ref": "b[]x"}}}, ("BadReference", "tasks/0/args/v")),
        ({"args": {"v": {"ref": "b[]/c[]"}}}, ("BadReference", "tasks/0/args/v")),
        ({"args": {"v": {"ref": "input"}}}, ("BadReference", "tasks/0/args/v")),
        ({"args": {"v": {"ref": "B/x"}}}, ("BadReference", "tasks/0/args/v")),
        ({"args": {"v": {"ref": "input/x"}}}, ("UnknownInput", "tasks/0/args/v")),
        ({"on": ["all", "gpu"]}, ("BadOn", "tasks/0/on")),
        ({"on": [""]}, ("BadOn", "tasks/0/on/0")),
        ({"on": [{"ref": "b/x"}]}, ("BadOn", "tasks/0/on/0")),
        ({"when": {}}, ("WrongType", "tasks/0/when")),
        ({"when": [{"ref": "input/d", "op": "=~", "value": 1}]}, ("BadWhen", "tasks/0/when/0/op")),
        ({"when": [{"ref": "b/x[]", "op": "==", "value": 1}]}, ("BadWhen", "tasks/0/when/0/ref")),
        ({"after": ["A"]}, ("BadReference", "tasks/0/after/0")),
        ({"after": ["a"]}, ("SelfReference", "tasks/0/after/0")),
        ({"map": {"chunk": 0}}, ("BadValue", "tasks/0/map/chunk")),
        ({"map": {"on_error": "skip"}}, ("BadValue", "tasks/0/map/on_error")),
        ({"map": {"size": 1}}, ("UnknownKey", "tasks/0/map/size")),
        ({"retry": {"max": -1}}, ("BadValue", "tasks/0/retry/max")),
        ({"retry": {"max": True}}, ("BadValue", "tasks/0/retry/max")),
        ({"retry": 3}, ("WrongType", "tasks/0/retry")),
        ({"timeout": "soon"}, ("BadDuration", "tasks/0/timeout")),
        ({"timeout": "1..2s"}, ("BadDuration", "tasks/0/timeout")),
        ({"timeout": "inf"}, ("BadDuration", "tasks/0/timeout")),
        ({"timeout": 0}, ("BadDuration", "tasks/0/timeout")),
        ({"deadline": -1}, ("BadDuration", "tasks/0/deadline")),
        ({"deadline": 10**400}, ("BadDuration", "tasks/0/deadline")),
        ({"needs": {"memory": "lots"}}, ("BadSize", "tasks/0/needs/memory")),
        ({"needs": {"gpu": -1}}, ("BadValue", "tasks/0/needs/gpu")),
        ({"needs": {"tpu": 1}}, ("UnknownKey", "tasks/0/needs/tpu")),
        ({"priority": 1.5}, ("BadValue", "tasks/0/priority")),
        ({"effect": "none"}, ("BadValue", "tasks/0/effect")),
        ({"cache": "no"}, ("WrongType", "tasks/0/cache")),
        ({"approve": 1}, ("WrongType", "tasks/0/approve")),
        ({"label": []}, ("WrongType", "tasks/0/label")),
        ({"alt": "x"}, ("WrongType", "tasks/0/alt")),
        ({"alt": ["a b"]}, ("BadSkill", "tasks/0/alt/0")),
    ],
)
def test_each_wrong_field_is_one_problem(fields: dict[str, Any], problem: tuple[str, str]) -> None:
    assert only(fields) == problem


@pytest.mark.parametrize(
    "line",
    [
        {"ref": "a/x", "op": "=="},
        {"ref": "a/x", "op": "in", "value": 3},
        {"ref": "a/x", "op": "<", "value": True},
        {"ref": "a/x", "op": "<", "value": None},
        {"ref": "a/x", "op": "exists", "value": False},
        {"ref": "a/x", "is": "failed"},
        {"ref": "a", "is": "done"},
        {"ref": "a", "is": "failed", "op": "=="},
        {"ref": "a", "is": "failed", "value": 1},
        {"ref": "input/x", "is": "failed"},
        {"ref": ["a", "a"], "is": "failed"},
        {"op": "exists"},
        "a",
    ],
)
def test_a_condition_is_one_of_two_forms(line: object) -> None:
    found = codes({"tasks": [task("a"), task("b", when=[line])]}, inputs=["x"])
    assert [code for code, _ in found] == ["BadWhen"]


def test_comparing_with_null_is_a_comparison() -> None:
    plan = parse_plan({"tasks": [task("a"), task("b", when=[{"ref": "a/x", "op": "==", "value": None}])]})
    assert plan.tasks[1].when[0].value == b"null"


def test_after_may_point_forwards_but_not_in_a_circle() -> None:
    assert parse_plan({"tasks": [task("a", after=["b"]), task("b")]}).tasks[0].after == ("b",)
    assert codes({"tasks": [task("a", after=["c"]), task("b", after=["a"]), task("c", args={"v": {"ref": "b"}})]}) == [
        ("Cycle", "tasks/0")
    ]


def test_a_long_chain_needs_no_recursion() -> None:
    tasks = [task("t0")] + [task(f"t{i}", after=[f"t{i - 1}"]) for i in range(1, 10_000)]
    assert len(parse_plan({"tasks": tasks[::-1]}).tasks) == 10_000


def test_inputs_that_the_caller_brings_may_be_referenced() -> None:
    document = {"tasks": [task(args={"v": {"ref": "input/dir/0"}})]}
    assert parse_plan(document, inputs=["dir"])
    assert codes(document) == [("UnknownInput", "tasks/0/args/v")]


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ({"name": "0"}, "BadInput"),
        ({"name": "x", "type": "text"}, "BadInput"),
        ({"name": "x", "type": "integer", "default": "1"}, "BadInput"),
        ({"name": "x", "type": "number", "default": True}, "BadInput"),
        ({"name": "dir"}, "DuplicateInput"),
        ({"name": "x", "kind": "string"}, "UnknownKey"),
    ],
)
def test_wrong_inputs_are_refused(entry: dict[str, Any], code: str) -> None:
    assert codes({"inputs": [{"name": "dir"}, entry], "tasks": [task()]})[0][0] == code


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ({"name": "x"}, "BadReference"),
        ({"ref": "a"}, "BadOutput"),
        ({"name": "x", "ref": "a[]/y"}, "BadOutput"),
        ({"name": "dup", "ref": "a"}, "DuplicateOutput"),
        ({"name": "x", "ref": "gone/y"}, "UnknownReference"),
        ({"name": "x", "ref": "input/y"}, "UnknownInput"),
    ],
)
def test_outputs_of_nothing_are_refused(entry: dict[str, Any], code: str) -> None:
    assert codes({"tasks": [task()], "outputs": [{"name": "dup", "ref": "a"}, entry]})[0][0] == code


@pytest.mark.parametrize(
    "run",
    [
        {"on_failure": "explode"},
        {"deadline": "x"},
        {"budget": {"tokens": -1}},
        {"budget": {"coins": 1}},
        {"review": "often"},
        {"labels": {"a": 1}},
        [],
        {"retries": 2},
    ],
)
def test_wrong_settings_are_refused(run: object) -> None:
    assert codes({"run": run, "tasks": [task()]})


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", "NotJson"),
        (b"  \n", "NotJson"),
        (b"{", "NotJson"),
        (b'{"tasks": [}', "NotJson"),
        (b'{"tasks": NaN}', "NotJson"),
        (b'{"tasks": 1e999}', "NotJson"),
        (b'\xff\xfe{"tasks": []}', "NotJson"),
        (b'{"tasks": "\xff"}', "NotJson"),
        (b'{"tasks": "\\ud800"}', "LoneSurrogate"),
        (b'{"tasks": "\\ud800 and on"}', "LoneSurrogate"),
        (b"[]", "NotAPlan"),
        (b"null", "NotAPlan"),
        (b'"tasks"', "NotAPlan"),
        (b"{}", "NotAPlan"),
        (b'{"tasks": {}}', "WrongType"),
        (b'{"tasks": []}', "EmptyPlan"),
        (b'{"schema": "asterism/plan/v2", "tasks": []}', "SchemaVersion"),
    ],
)
def test_what_is_no_plan_says_so(text: bytes, code: str) -> None:
    assert codes(text)[0][0] == code


def test_broken_json_is_shown_with_line_and_column() -> None:
    with pytest.raises(PlanRefused, match="line 3 column 2"):
        parse_plan(b'{"tasks": [\n],\n }}')


def test_broken_toml_is_shown_with_line_and_column() -> None:
    with pytest.raises(PlanRefused, match="line 2, column 5"):
        parse_plan(b"[run]\nx = \n", "toml")


def test_toml_values_that_json_has_not_are_refused() -> None:
    for value in ("2024-01-01", "nan", "inf"):
        with pytest.raises(PlanRefused):
            parse_plan(f'[[tasks]]\nid = "a"\nskill = "x"\nargs = {{v = {value}}}', "toml")


def test_objects_are_checked_like_text() -> None:
    deep: dict[str, Any] = {}
    for _ in range(50_000):
        deep = {"v": deep}
    with pytest.raises(PlanTooLarge, match="max_depth"):
        parse_plan({"tasks": [task(args=deep)]})
    while deep:  # taken apart by hand: freeing it in one go would recurse
        deep = deep["v"]
    for odd in ({1, 2}, float("nan"), b"x", "\ud800"):
        with pytest.raises(PlanRefused):
            parse_plan({"tasks": [task(args={"v": odd})]})


@pytest.mark.parametrize("levels", [65, 3_000, 200_000])
def test_nesting_is_measured_before_anything_recurses(levels: int) -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        deep = opening * levels + b"1" + closing * levels
        with pytest.raises(PlanTooLarge, match="max_depth"):
            parse_plan(b'{"tasks":[{"id":"a","skill":"x","args":{"v":' + deep + b"}}]}")
        with pytest.raises(PlanRefused):
            parse_plan(opening * levels)


def test_sixty_four_levels_are_allowed_and_brackets_in_text_are_no_levels() -> None:
    levels = 64 - 4
    deep = b"[" * levels + b"]" * levels
    text = b'"' + b'[{\\"\\\\' * 500 + b'"'
    document = b'{"tasks":[{"id":"a","skill":"x","args":{"w":' + text + b',"v":' + deep + b"}}]}"
    assert parse_plan(document)
    with pytest.raises(PlanTooLarge):
        parse_plan(document.replace(deep, b"[" + deep + b"]"))


def test_limits_are_named() -> None:
    with pytest.raises(PlanTooLarge, match="max_bytes=10"):
        parse_plan({"tasks": [task()]}, limits=Limits(max_bytes=10))
    with pytest.raises(PlanTooLarge, match="max_tasks=1"):
        parse_plan({"tasks": [task("a"), task("b")]}, limits=Limits(max_tasks=1))
    long = "x" * (1024 * 1024 + 1)
    for raw in (task(args={"v": long}), task(args={"literal": [long]}), task(args={long: 1}), task(label=long)):
        with pytest.raises(PlanTooLarge, match="max_string"):
            parse_plan({"tasks": [raw]})
    assert parse_plan({"tasks": [task(args={"v": long[1:]})]})


def test_a_flood_of_problems_is_counted_not_kept() -> None:
    with pytest.raises(PlanRefused, match="1999 problems") as caught:
        parse_plan({"tasks": [task("A", skill="", colour=1)] * 500})
    assert len(caught.value.problems) == 200


def test_imported_ids_are_made_legal_and_kept_as_labels() -> None:
    document = {
        "tasks": [
            task("Load Data!"),
            task("load-data"),
            task("7/Split", args={"v": {"ref": "Load Data!/rows[]/x"}, "w": {"literal": {"ref": "Load Data!"}}}),
            task(
                "last", after=["7/Split"], when=[{"ref": "7/Split/ok", "op": "==", "value": 1}], on=[{"ref": "7/Split"}]
            ),
        ],
        "outputs": [{"name": "o", "ref": ["7/Split/a", "last"]}],
    }
    assert codes(document)
    plan = parse_plan(document, lenient_ids=True)
    assert [(one.id, one.label) for one in plan.tasks] == [
        ("load-data-2", "Load Data!"),
        ("load-data", ""),
        ("t-7-split", "7/Split"),
        ("last", ""),
    ]
    assert json.loads(plan.tasks[2].args) == {
        "v": {"ref": "load-data-2/rows[]/x"},
        "w": {"literal": {"ref": "Load Data!"}},
    }
    assert plan.tasks[3].after == ("t-7-split",)
    assert plan.outputs[0].ref == FirstOf((Ref("t-7-split", ("a",)), Ref("last")))


def test_a_patch_is_the_same_document_and_more() -> None:
    document = {
        "base": 3,
        "why": "the first way failed",
        "relies": ["scan"],
        "edits": [{"op": "retry", "id": "count", "alt": "text.match"}, {"op": "finish"}, {"op": "cancel", "id": "m.3"}],
        "links": [["a", "b"]],
        "unlinks": [["b", "c"]],
        "tasks": [task("extra", args={"v": {"ref": "scan/files"}, "w": {"ref": "input/dir"}})],
        "outputs": [],
    }
    patch = parse_patch(json.dumps(document), author="person:ada")
    assert (patch.base, patch.relies, patch.links, patch.outputs) == (3, ("scan",), (("a", "b"),), ())
    assert patch.edits[0].alt == "text.match"
    assert parse_patch(patch_document(patch), author="person:ada") == patch


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({}, "EmptyPatch"),
        ({"tasks": []}, "EmptyPatch"),
        ({"edits": [{"op": "explode", "id": "a"}]}, "BadEdit"),
        ({"edits": [{"op": "cancel", "id": "a", "alt": "x"}]}, "BadEdit"),
        ({"edits": [{"op": "cancel"}]}, "BadReference"),
        ({"edits": [{"op": "finish", "id": "a"}]}, "BadEdit"),
        ({"links": [["a"]]}, "BadLink"),
        ({"links": [["a", "a"]]}, "SelfReference"),
        ({"relies": ["A"], "edits": [{"op": "finish"}]}, "BadReference"),
        ({"base": -2, "edits": [{"op": "finish"}]}, "BadValue"),
        ({"run": {}, "edits": [{"op": "finish"}]}, "UnknownKey"),
        ({"tasks": [task("a", args={"v": {"ref": "b"}}), task("b", args={"v": {"ref": "a"}})]}, "Cycle"),
    ],
)
def test_wrong_patches_are_refused(document: dict[str, Any], code: str) -> None:
    with pytest.raises(PlanRefused) as caught:
        parse_patch(document, author="planner")
    assert [problem.code for problem in caught.value.problems] == [code]


def test_one_task_is_read_alone() -> None:
    assert parse_task(task("a", args={"v": {"ref": "later/x"}})).id == "a"
    with pytest.raises(PlanRefused) as caught:
        parse_task({"id": "a", "colour": 1}, "tasks/7")
    assert [problem.where for problem in caught.value.problems] == ["tasks/7/colour", "tasks/7/skill"]


def test_plans_of_defaults_are_short() -> None:
    plan = Plan(tasks=(parse_task({"id": "a", "skill": "x"}),))
    assert plan_document(plan) == {"schema": "asterism/plan/v1", "tasks": [{"id": "a", "skill": "x", "args": {}}]}
    assert msgspec.json.encode(plan_document(plan))
