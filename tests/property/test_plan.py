"""Parsing is total, and a plan written is the plan read."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.document import canonical
from protocol.errors import PlanRefused
from protocol.patch import Edit, Patch
from protocol.plan import parse_patch, parse_plan, patch_document, plan_document
from protocol.resource import Resources
from protocol.task import (
    Condition,
    FirstOf,
    InputSpec,
    MapSpec,
    Output,
    Plan,
    Ref,
    Retry,
    RunBudget,
    RunSettings,
    TaskSpec,
)
from protocol.task_form import TASK_KEYS

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9)
)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner))
IDS = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True).filter(lambda name: name != "input")
SPANS = st.floats(0.001, 1e6)
KEYS = sorted(TASK_KEYS)
ANYTHING = st.fixed_dictionaries(
    {},
    optional={
        "schema": JSON,
        "inputs": JSON | st.lists(st.fixed_dictionaries({"name": JSON}, optional={"type": JSON, "default": JSON})),
        "run": JSON | st.dictionaries(st.sampled_from(["deadline", "budget", "labels", "home", "review"]), JSON),
        "tasks": JSON | st.lists(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=17), max_size=4),
        "outputs": JSON | st.lists(st.fixed_dictionaries({"name": JSON, "ref": JSON})),
        "edits": JSON | st.lists(st.fixed_dictionaries({"op": JSON, "id": JSON})),
        "links": JSON | st.lists(st.lists(JSON, max_size=2)),
        "base": JSON,
        "why": JSON,
    },
)


def total(source: Any) -> None:
    refusals: list[PlanRefused] = []
    for read in (
        lambda: parse_plan(source),
        lambda: parse_plan(source, "toml"),
        lambda: parse_patch(source, author="planner", lenient_ids=True),
    ):
        try:
            read()
        except PlanRefused as error:
            refusals.append(error)
    assert all(error.problems for error in refusals)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200))
def test_any_bytes_and_text_are_read_or_refused(source: bytes | str) -> None:
    total(source)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='{}[]",:\\ud8tasksid01 \n', max_size=300))
def test_text_like_json_is_read_or_refused(source: str) -> None:
    total(source)


@settings(max_examples=150, deadline=None)
@given(ANYTHING | JSON)
def test_any_json_is_read_or_refused(value: Any) -> None:
    total(json.dumps(value))
    if isinstance(value, dict):
        total(value)


@st.composite
def refs(draw: st.DrawFn, known: list[str], each: bool = True) -> Ref:
    path = tuple(draw(st.lists(st.text("ab/~0", min_size=1, max_size=3), max_size=2)))
    source = draw(st.sampled_from([*known, "input"]))
    if source == "input":
        path = ("dir", *path)
    mapped = each and source != "input" and draw(st.booleans())
    return Ref(source, path, mapped, tuple(draw(st.lists(st.text("ab", min_size=1), max_size=1))) if mapped else ())


@st.composite
def specs(draw: st.DrawFn, name: str, known: list[str]) -> TaskSpec:
    args: dict[str, Any] = {"plain": {"literal": draw(JSON)}, "ref": {"ref": str(draw(refs(known)))}}
    operators = [Condition(draw(refs(known, False)), "exists")]
    operators.append(Condition(draw(refs(known, False)), "==", canonical(draw(JSON))))
    if known:
        operators.append(Condition(Ref(draw(st.sampled_from(known))), "is", b'"failed"'))
    words: list[str | Ref] = ["here", "gpu", "zone=a/b"]
    return TaskSpec(
        id=name,
        skill=draw(st.sampled_from(["fs.find", "word_count", "a:b/c"])),
        args=canonical(args),
        on=tuple(draw(st.lists(st.sampled_from([*words, *map(Ref, known)]), max_size=2, unique=True))),
        when=tuple(draw(st.lists(st.sampled_from(operators), max_size=2))),
        after=tuple(draw(st.lists(st.sampled_from(known), max_size=2))) if known else (),
        map=MapSpec(limit=draw(st.integers(0, 9)), chunk=draw(st.integers(0, 9)), on_error="collect"),
        alt=tuple(draw(st.lists(st.just("flow.echo"), max_size=1))),
        needs=draw(st.none() | st.builds(Resources, cpu=st.floats(0, 9), vram=st.integers(0, 2**62))),
        retry=draw(st.none() | st.builds(Retry, st.integers(0, 9), st.floats(0, 60))),
        timeout_s=draw(st.none() | SPANS),
        deadline_s=draw(st.none() | SPANS),
        priority=draw(st.integers(-9, 9)),
        effect=draw(st.sampled_from([None, "pure", "idempotent", "once"])),
        cache=draw(st.sampled_from([None, True, False])),
        approve=draw(st.booleans()),
        label=draw(st.text(max_size=5)),
    )


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    names = draw(st.lists(IDS, min_size=1, max_size=5, unique=True))
    tasks = tuple(draw(specs(name, names[:i])) for i, name in enumerate(names))
    outputs = [Output("one", Ref(names[0], ("x",))), Output("two", FirstOf((Ref(names[0]), Ref(names[-1]))))]
    return Plan(
        tasks=tasks,
        inputs=(InputSpec("dir", "any", draw(st.none() | st.builds(canonical, JSON)), draw(st.text(max_size=4))),),
        settings=RunSettings(
            on_failure=draw(st.sampled_from(["continue", "stop", "replan"])),
            deadline_s=draw(st.floats(0, 1e6)),
            budget=RunBudget(tokens=draw(st.integers(0, 10**9)), wall_s=draw(st.floats(0, 1e6))),
            schedule_grace_s=draw(st.floats(0, 100)),
            labels=draw(st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2)),
        ),
        outputs=tuple(draw(st.lists(st.sampled_from(outputs), unique_by=lambda one: one.name))),
    )


@settings(max_examples=100, deadline=None)
@given(plans())
def test_a_plan_written_is_the_plan_read(plan: Plan) -> None:
    document = plan_document(plan)
    assert parse_plan(document) == plan
    assert parse_plan(json.dumps(document).encode()) == plan
    assert plan_document(parse_plan(document)) == document


@settings(max_examples=50, deadline=None)
@given(plans(), st.integers(-1, 99))
def test_a_patch_written_is_the_patch_read(plan: Plan, base: int) -> None:
    patch = Patch("planner", plan.tasks, "why", base, ("x",), (Edit("cancel", "x.3", "note"),), outputs=plan.outputs)
    assert parse_patch(patch_document(patch), author="planner") == patch
