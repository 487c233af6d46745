"""A plan, or a task of one, against the skills there are: everything wrong with it at once, then patches.

Checked: the skill exists (and each `alt`), its arguments fit its schema as far as they are written down, a reference
points to an earlier task and into what that task's skill gives. Invariant: pure; values of a run never get here. It
must not know how a plan was written: a model, a person and a template are judged alike.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec

from protocol.document import nearest
from protocol.errors import PlanRefused, Problem
from protocol.patch import Patch
from protocol.pointer import EACH
from protocol.schema import check
from protocol.task import EFFECT_ORDER, INPUT, FirstOf, Plan, Ref, TaskSpec, references

from .catalog import Catalog

Known = Mapping[str, TaskSpec]


def compile_plan(
    plan: Plan, catalog: Catalog, *, author: str = "planner", inputs: Collection[str] = (), size: int = 0
) -> tuple[Patch, ...]:
    """The patches of a whole plan, `size` tasks each (0: one patch). The last one carries the outputs.

    Raises: PlanRefused with every problem of every task.
    """
    names = {*inputs, *(one.name for one in plan.inputs)}
    known: dict[str, TaskSpec] = {}
    problems: list[Problem] = []
    for i, spec in enumerate(plan.tasks):
        problems.extend(check_task(spec, catalog, known, names, f"tasks/{i}"))
        known[spec.id] = spec
    if problems:
        raise PlanRefused(f"the plan has {len(problems)} problem{'s' * (len(problems) > 1)}", problems=problems)
    step = size or max(1, len(plan.tasks))
    parts = [plan.tasks[k : k + step] for k in range(0, len(plan.tasks), step)] or [()]
    last = len(parts) - 1
    return tuple(
        Patch(author=author, tasks=part, outputs=plan.outputs if k == last and plan.outputs else None)
        for k, part in enumerate(parts)
    )


def check_task(
    spec: TaskSpec, catalog: Catalog, known: Known, inputs: Collection[str], where: str, *, graph: Collection[str] = ()
) -> list[Problem]:
    """Everything wrong with one task. `known`: the tasks written before it; `graph`: ids of a run being re-planned."""
    problems: list[Problem] = []
    args = msgspec.json.decode(spec.args)
    for i, name in enumerate((spec.skill, *spec.alt)):
        at = f"{where}/skill" if i == 0 else f"{where}/alt/{i - 1}"
        skill = catalog.by_name.get(name)
        if skill is None:
            problems.append(Problem("UnknownSkill", at, f"there is no skill {name}", catalog.nearest(name)))
            continue
        problems.extend(_arguments(args, skill.params, f"{where}/args"))
        if spec.effect is not None and EFFECT_ORDER[spec.effect] < EFFECT_ORDER[skill.effect]:
            message = f"{name} is {skill.effect}; a plan may tighten that, not loosen it to {spec.effect}"
            problems.append(Problem("Loosens", f"{where}/effect", message, "leave effect out"))
    for ref, at in _named(spec, args, where):
        problems.extend(_reference(ref, at, spec, catalog, known, inputs, graph))
    return problems


def result_at(schema: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any] | None:
    """The schema of what a pointer names in a result; {} when that can't be told, None when nothing can be there."""
    for at, part in enumerate(path):
        if not schema or "anyOf" in schema:
            return {}
        kind = schema.get("type")
        if kind == "object":
            properties = schema.get("properties", {})
            extra = schema.get("additionalProperties", True)
            if part in properties:
                schema = properties[part]
            elif extra is False:
                return None
            else:
                schema = extra if isinstance(extra, Mapping) else {}
        elif kind == "array":
            if part == EACH:
                inner = result_at(schema.get("items", {}), path[at + 1 :])
                return None if inner is None else {"type": "array", "items": inner}
            if not part.isdecimal():
                return None
            schema = schema.get("items", {})
        elif kind is not None:
            return None
        else:
            return {}
    return schema


def is_map(spec: TaskSpec) -> bool:
    """Whether the task's value is the list of its children's results."""
    return "all" in spec.on or any(
        isinstance(ref, Ref) and ref.each for ref in references(msgspec.json.decode(spec.args))
    )


def result_of(spec: TaskSpec, catalog: Catalog) -> Mapping[str, Any]:
    """The schema of a task's value: its skill's result, or the list of those; {} when that can't be told."""
    skill = catalog.by_name.get(spec.skill)
    if skill is None or spec.alt:
        return {}
    return {"type": "array", "items": skill.result} if is_map(spec) else skill.result


def _arguments(args: Any, params: Mapping[str, Any], where: str) -> Iterator[Problem]:
    known = params.get("properties", {})
    for problem in check(params, args, where, refs=True):
        name = problem.where[len(where) + 1 :]
        if problem.code == "SchemaUnknown" and "/" not in name:
            fix = nearest(name, known) or problem.message
            yield msgspec.structs.replace(problem, message=f"there is no argument {name}; {problem.fix}", fix=fix)
        else:
            yield problem


def _named(spec: TaskSpec, args: Any, where: str) -> Iterator[tuple[Ref, str]]:
    for found in references(args):
        for ref in found.refs if isinstance(found, FirstOf) else (found,):
            yield ref, f"{where}/args"
    for i, line in enumerate(spec.when):
        yield line.ref, f"{where}/when/{i}/ref"
    for i, name in enumerate(spec.after):
        yield Ref(name), f"{where}/after/{i}"
    for i, word in enumerate(spec.on):
        if isinstance(word, Ref):
            yield word, f"{where}/on/{i}"


def _reference(
    ref: Ref,
    at: str,
    spec: TaskSpec,
    catalog: Catalog,
    known: Known,
    inputs: Collection[str],
    graph: Collection[str],
) -> Iterator[Problem]:
    if ref.source == INPUT:
        if ref.path[0] not in inputs:
            yield Problem("UnknownInput", at, f"there is no input {ref.path[0]}", nearest(ref.path[0], inputs))
        return
    source = known.get(ref.source)
    if ref.source == spec.id:
        yield Problem("SelfReference", at, f"{spec.id} names itself", "name an earlier task")
    elif source is None and ref.source not in graph:
        fix = nearest(ref.source, known) or "name a task written before this one"
        yield Problem("UnknownReference", at, f"there is no earlier task {ref.source}", fix)
    elif source is not None and (ref.path or ref.each):
        schema = result_at(result_of(source, catalog), ref.path)
        if schema is not None and ref.each:
            kind = schema.get("type", "array") if schema else "array"
            if kind != "array":
                fix = f'write {{"ref": "{str(ref).partition("[]")[0]}"}}'
                yield Problem("MapType", at, f"{ref}: [] needs a list, this is {kind}", fix)
                return
            schema = result_at(schema.get("items", {}), ref.rest)
        if schema is None:
            yield Problem("UnknownField", at, f"{source.skill} gives nothing at {ref}", _fields(source, catalog))


def _fields(source: TaskSpec, catalog: Catalog) -> str:
    result = result_of(source, catalog)
    if result.get("type") == "array":
        name = source.id
        said = f"write {name}[]/FIELD for each, {name}/*/FIELD for the list of those, or {name} for all"
        return f"{name} is a map, its value a list: {said}"
    names = ", ".join(
        field + ("[]" if schema.get("type") == "array" else "")
        for field, schema in result.get("properties", {}).items()
    )
    return f"it gives {names}" if names else f"name {source.id} alone"
