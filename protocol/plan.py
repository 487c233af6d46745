"""Plan and patch documents, read without trust and written back: `parse_plan(plan_document(plan)) == plan`.

Invariant: total and complete. Whatever comes in, the answer is a whole `Plan` (or `Patch`), or one error that names
every problem at once by code, place and fix; nothing is ever guessed or dropped. It must not know skills: whether one
exists and what arguments it takes is checked where the catalog is.

Codes: NotJson NotToml LoneSurrogate NotAPlan SchemaVersion UnknownKey MissingKey WrongType BadValue BadDuration BadSize
BadId ReservedId DuplicateId BadSkill BadReference SelfReference ForwardReference UnknownReference UnknownInput Cycle
BadOn BadWhen BadInput DuplicateInput BadOutput DuplicateOutput BadEdit BadLink EmptyPlan EmptyPatch PlanTooLarge.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from .document import FILE_LIMITS, Form, Limits, Problems, Source, read_document
from .legal_id import legalise
from .patch import Patch
from .plan_form import PATCH_KEYS, PLAN_KEYS, SCHEMA, PlanReader
from .task import FirstOf, InputSpec, Output, Plan, RunSettings, TaskSpec
from .task_form import TaskReader, changed, task_document


class PatchReading(msgspec.Struct, frozen=True):
    """As Reading, of a patch."""

    patch: Patch
    problems: Problems
    places: tuple[int, ...]


class Reading(msgspec.Struct, frozen=True):
    """What could be read of a plan, and what is wrong with the rest. `places[i]`: task i's number in the document."""

    plan: Plan
    problems: Problems
    places: tuple[int, ...]


def parse_plan(
    source: Source,
    form: Form = "json",
    *,
    limits: Limits = FILE_LIMITS,
    inputs: Collection[str] = (),
    lenient_ids: bool = False,
) -> Plan:
    """Read a plan document: JSON or TOML text, or an object already decoded. No outputs: `Plan.outputs` is empty.

    The arguments are those of `read_plan`. 100,000 tasks take about a second: call it off the loop.

    Raises: PlanRefused with every problem, PlanTooLarge naming the limit.
    """
    found = read_plan(source, form, limits=limits, inputs=inputs, lenient_ids=lenient_ids)
    found.problems.raise_any("the plan")
    return found.plan


def read_plan(
    source: Source,
    form: Form = "json",
    *,
    limits: Limits = FILE_LIMITS,
    inputs: Collection[str] = (),
    lenient_ids: bool = False,
) -> Reading:
    """As `parse_plan`, but what was read well is given beside the problems, so that it can be judged too.

    `inputs`: names that may be referenced although the document doesn't declare them. `lenient_ids` renames ids that
    aren't legal and keeps them as labels.

    Raises: PlanRefused for what is no document at all, PlanTooLarge naming the limit.
    """
    document = read_document(source, form, limits)
    reader = PlanReader(limits, legalise(document) if lenient_ids else document)
    reader.keys(PLAN_KEYS, "a plan")
    declared = reader.inputs()
    settings = reader.settings()
    tasks = reader.tasks(known=None, inputs={*inputs, *(one.name for one in declared)})
    outputs = reader.outputs()
    if not reader.raw_tasks and not reader.problems.found:
        reader.problems.add("EmptyPlan", "tasks", "the plan has no task", "write at least one task")
    plan = Plan(tasks=tasks, inputs=declared, settings=settings, outputs=outputs)
    return Reading(plan, reader.problems, tuple(reader.places))


def parse_patch(
    source: Source, form: Form = "json", *, author: str, limits: Limits = FILE_LIMITS, lenient_ids: bool = False
) -> Patch:
    """Read a patch document. Tasks of the graph it edits may be named, so unknown ids are the core's to refuse.

    Raises: PlanRefused with every problem, PlanTooLarge naming the limit.
    """
    found = read_patch(source, form, author=author, limits=limits, lenient_ids=lenient_ids)
    found.problems.raise_any("the patch")
    return found.patch


def read_patch(
    source: Source, form: Form = "json", *, author: str, limits: Limits = FILE_LIMITS, lenient_ids: bool = False
) -> PatchReading:
    """As `parse_patch`, but what was read well is given beside the problems, so that it can be judged too.

    Raises: PlanRefused for what is no document at all, PlanTooLarge naming the limit.
    """
    document = read_document(source, form, limits)
    reader = PlanReader(limits, legalise(document) if lenient_ids else document)
    reader.keys(PATCH_KEYS, "a patch")
    raw = reader.raw
    patch = Patch(
        author=author,
        tasks=reader.tasks(known=(), inputs=None),
        why=reader.text(raw["why"], "why") if raw.get("why") is not None else "",
        base=reader.integer(raw["base"], "base", -1, -1) if raw.get("base") is not None else -1,
        relies=reader.ids("relies"),
        edits=reader.edits(),
        links=reader.links("links"),
        unlinks=reader.links("unlinks"),
        outputs=reader.outputs() if raw.get("outputs") is not None else None,
    )
    empty = not (patch.tasks or patch.edits or patch.links or patch.unlinks or patch.outputs is not None)
    if empty and not reader.problems.found:
        reader.problems.add("EmptyPatch", "document", "the patch changes nothing", "write tasks, edits or links")
    return PatchReading(patch, reader.problems, tuple(reader.places))


def parse_task(raw: object, where: str = "task", limits: Limits = FILE_LIMITS) -> TaskSpec:
    """One task object, already decoded. Who it names is not judged. Raises: PlanRefused with every problem."""
    problems = Problems()
    found = TaskReader(problems, limits.max_string).read(raw, where)
    problems.raise_any("the task")
    assert found is not None
    return found


def plan_document(plan: Plan) -> dict[str, Any]:
    """The document of a plan; `parse_plan` reads it back as the same plan."""
    found: dict[str, Any] = {"schema": SCHEMA}
    if plan.inputs:
        found["inputs"] = [_input_document(one) for one in plan.inputs]
    settings = _settings_document(plan.settings)
    if settings:
        found["run"] = settings
    found["tasks"] = [task_document(task) for task in plan.tasks]
    if plan.outputs:
        found["outputs"] = [_output_document(output) for output in plan.outputs]
    return found


def patch_document(patch: Patch) -> dict[str, Any]:
    """The document of a patch; its author and parent are not part of it."""
    found: dict[str, Any] = {"schema": SCHEMA}
    if patch.base >= 0:
        found["base"] = patch.base
    if patch.why:
        found["why"] = patch.why
    if patch.relies:
        found["relies"] = list(patch.relies)
    if patch.edits:
        found["edits"] = [msgspec.to_builtins(edit) for edit in patch.edits]
    for key, pairs in (("links", patch.links), ("unlinks", patch.unlinks)):
        if pairs:
            found[key] = [list(pair) for pair in pairs]
    found["tasks"] = [task_document(task) for task in patch.tasks]
    if patch.outputs is not None:
        found["outputs"] = [_output_document(output) for output in patch.outputs]
    return found


def _input_document(one: InputSpec) -> dict[str, Any]:
    found: dict[str, Any] = {"name": one.name, "type": one.type}
    if one.default is not None:
        found["default"] = msgspec.json.decode(one.default)
    if one.doc:
        found["doc"] = one.doc
    return found


def _output_document(output: Output) -> dict[str, Any]:
    if isinstance(output.ref, FirstOf):
        return {"name": output.name, "ref": [str(ref) for ref in output.ref.refs]}
    return {"name": output.name, "ref": str(output.ref)}


def _settings_document(settings: RunSettings) -> dict[str, Any]:
    found = changed(settings)
    if "budget" in found:
        found["budget"] = _spans(changed(settings.budget))
    if "replan" in found:
        found["replan"] = changed(settings.replan)
    return _spans(found)


def _spans(found: dict[str, Any]) -> dict[str, Any]:
    """Durations lose the unit in their name: in a document they are spans."""
    return {key.removesuffix("_s"): value for key, value in found.items()}
