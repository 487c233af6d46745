"""Workflows that others recorded, as plans of simulated loads: WfCommons' WfFormat 1.5, and the neutral form taskdag/1.

Each task becomes a `bench.load` that takes the recorded seconds and writes the files that others read, at their sizes.
Files that nobody made are taken to be everywhere, files that nobody reads are not written. Invariant: no step waits
for itself, and every edge names steps. It must not know skills but that one's name, nor how loads run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from math import inf, isfinite
from typing import Any, Final, TypeVar

import msgspec

from .errors import PlanRefused

T = TypeVar("T")
SKILL: Final = "bench.load"
MODULE: Final = "bench.kernels"
"""Where workers find it: `--skills bench.kernels`."""
VERSIONS: Final = ("1.5",)
NEUTRAL: Final = "taskdag/1"
INPUTS: Final = (
    {"name": "scale", "type": "number", "default": 1.0, "doc": "seconds of a load, for one that was recorded"},
    {"name": "shrink", "type": "number", "default": 1.0, "doc": "bytes of a file, for one that was recorded"},
    {"name": "spin", "type": "boolean", "default": False, "doc": "keep cores busy instead of sleeping"},
)
_LEGAL: Final = re.compile(r"[^a-z0-9_-]+")


class Step(msgspec.Struct, frozen=True):
    """One task as recorded: `work_s` on a site of speed 1, `memory` in bytes (0: not recorded), files by name, and of
    which `kind` it is ("": not recorded)."""

    id: str
    work_s: float
    memory: float = 0.0
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    kind: str = ""


class Workload(msgspec.Struct, frozen=True):
    """Steps in the file's order; `edges` between them by index with the bytes that travel; sizes of `files`.
    `synthetic`: it was generated, nobody ran it."""

    name: str
    steps: tuple[Step, ...]
    edges: tuple[tuple[int, int, float], ...]
    files: dict[str, float]
    synthetic: bool = False


def is_workload(text: bytes) -> bool:
    """Whether a JSON document is a recorded workflow, and no plan."""
    try:
        head = msgspec.json.decode(text, type=_Head)
    except msgspec.MsgspecError:
        return False
    return head.schema == NEUTRAL or bool(head.schemaVersion)


def read_workload(text: bytes) -> Workload:
    """Raises: PlanRefused, naming what is wrong."""
    head = _decoded(text, _Head)
    if head.schema == NEUTRAL:
        neutral = _decoded(text, _Neutral)
        sizes = {file.name: file.bytes for task in neutral.tasks for file in (*task.inputs, *task.outputs)}
        steps = [
            Step(
                task.id, task.work_s, task.mem_bytes or 0.0,
                tuple(file.name for file in task.inputs), tuple(file.name for file in task.outputs),
                task.kind,
            )
            for task in neutral.tasks
        ]  # fmt: skip
        found = _checked(neutral.name, steps, {(one[0], one[1]): one[2] for one in neutral.edges}, sizes)
        return msgspec.structs.replace(found, synthetic=neutral.synthetic)
    if head.schemaVersion not in VERSIONS:
        raise _refused(f"WfFormat {head.schemaVersion or '?'} is not read", f"convert it to {' or '.join(VERSIONS)}")
    return _of_wf_format(_decoded(text, _WfFormat))


def plan_of(workload: Workload, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The plan document of its loads; `scale`, `shrink` and `spin` as INPUTS says them. Raises: PlanRefused."""
    scale, shrink = (_factor(inputs, name) for name in ("scale", "shrink"))
    names = _names(workload.steps)
    makers: list[dict[str, int]] = [{} for _ in workload.steps]  # of the files that a step reads
    parents: list[list[int]] = [[] for _ in workload.steps]
    written: list[dict[str, int]] = [{} for _ in workload.steps]  # that somebody reads, with their number
    passed = _passed(workload.steps)
    for source, target, _ in workload.edges:
        parents[target].append(source)
        for name in passed(source, target):
            makers[target][name] = source
            written[source].setdefault(name, len(written[source]))
    tasks = []
    for at in _order(workload):
        step = workload.steps[at]
        args: dict[str, Any] = {"seconds": round(step.work_s * scale, 6), "seed": at}
        if inputs.get("spin"):
            args["spin"] = True
        if written[at]:
            args["sizes"] = [int(workload.files[name] * shrink) for name in written[at]]
        if makers[at]:
            args["inputs"] = [
                {"ref": f"{names[source]}/files/{written[source][name]}"} for name, source in sorted(makers[at].items())
            ]
        task: dict[str, Any] = {"id": names[at], "skill": SKILL, "args": args}
        behind = frozenset(makers[at].values())
        after = [names[parent] for parent in parents[at] if parent not in behind]
        tasks.append({**task, "after": after} if after else task)
    return {"schema": "asterism/plan/v1", "inputs": list(INPUTS), "tasks": tasks}


class _Head(msgspec.Struct):
    schema: str = ""
    schemaVersion: str = ""


class _File(msgspec.Struct):
    name: str
    bytes: float


class _Task(msgspec.Struct):
    id: str
    work_s: float
    kind: str = ""
    mem_bytes: float | None = None
    inputs: tuple[_File, ...] = ()
    outputs: tuple[_File, ...] = ()


class _Neutral(msgspec.Struct):
    name: str
    tasks: list[_Task]
    edges: list[tuple[str, str, float]]
    synthetic: bool = False


class _WfTask(msgspec.Struct):
    id: str
    name: str = ""
    parents: list[str] = []
    children: list[str] = []
    inputFiles: list[str] = []
    outputFiles: list[str] = []


class _WfFile(msgspec.Struct):
    id: str
    sizeInBytes: float


class _WfSpecification(msgspec.Struct):
    tasks: list[_WfTask]
    files: list[_WfFile] = []


class _WfRecord(msgspec.Struct):
    id: str
    runtimeInSeconds: float
    memoryInBytes: float = 0.0


class _WfExecution(msgspec.Struct):
    tasks: list[_WfRecord]


class _Workflow(msgspec.Struct):
    specification: _WfSpecification
    execution: _WfExecution | None = None


class _WfFormat(msgspec.Struct):
    name: str
    workflow: _Workflow


def _of_wf_format(form: _WfFormat) -> Workload:
    tasks, execution = form.workflow.specification.tasks, form.workflow.execution
    if execution is None:
        raise _refused("it has no execution: how long its tasks take is not known", "take a recorded instance")
    ran = {record.id: record for record in execution.tasks}
    missing = [task.id for task in tasks if task.id not in ran]
    if missing:
        raise _refused(f"how long {missing[0]!r:.80} takes is not recorded", "each task needs its runtimeInSeconds")
    sizes = {file.id: file.sizeInBytes for file in form.workflow.specification.files}
    steps = [
        Step(
            task.id, ran[task.id].runtimeInSeconds, ran[task.id].memoryInBytes,
            tuple(dict.fromkeys(task.inputFiles)), tuple(dict.fromkeys(task.outputFiles)),
            task.name,
        )
        for task in tasks
    ]  # fmt: skip
    pairs = [(parent, task.id) for task in tasks for parent in task.parents]
    pairs += [(task.id, child) for task in tasks for child in task.children]
    index, passed = {step.id: at for at, step in enumerate(steps)}, _passed(steps)
    edges = {
        (source, target): sum(sizes.get(name, 0.0) for name in passed(index[source], index[target]))
        if source in index and target in index else 0.0
        for source, target in pairs
    }  # fmt: skip
    return _checked(form.name, steps, edges, sizes)


def _checked(name: str, steps: list[Step], edges: Mapping[tuple[str, str], float], sizes: dict[str, float]) -> Workload:
    """Every amount a number, no circle. Raises: PlanRefused."""
    index = {step.id: at for at, step in enumerate(steps)}
    if len(index) < len(steps):
        raise _refused("two of its tasks have the same id", "ids are unique")
    for step in steps:
        if not (0 <= step.work_s < inf and 0 <= step.memory < inf):
            raise _refused(f"{step.id!r:.80} takes {step.work_s:g} s and {step.memory:g} bytes", "both are at least 0")
    sizes = {one: sizes.get(one, 0.0) for step in steps for one in (*step.reads, *step.writes)}
    for one, size in sizes.items():
        if not 0 <= size < inf:
            raise _refused(f"the file {one!r:.80} has {size:g} bytes", "sizes are at least 0")
    by_index = []
    for (source, target), size in edges.items():
        if source not in index or target not in index or not 0 <= size < inf:
            raise _refused(f"the edge {source!r:.80} -> {target!r:.80} names a task that isn't there, or no size", "")
        by_index.append((index[source], index[target], size))
    found = Workload(name, tuple(steps), tuple(by_index), sizes)
    ordered = set(_order(found))
    if len(ordered) < len(steps):
        stuck = next(step.id for at, step in enumerate(steps) if at not in ordered)
        raise _refused(f"its tasks wait for each other in a circle, {stuck!r:.80} among them or behind it", "")
    return found


def _passed(steps: Sequence[Step]) -> Callable[[int, int], list[str]]:
    """The files that go from one step to another, in the order in which the one with fewer of them has them."""
    reads, writes = [frozenset(step.reads) for step in steps], [frozenset(step.writes) for step in steps]

    def passed(source: int, target: int) -> list[str]:
        made, wanted = steps[source].writes, steps[target].reads
        if len(made) <= len(wanted):
            return [name for name in made if name in reads[target]]
        return [name for name in wanted if name in writes[source]]

    return passed


def _order(workload: Workload) -> list[int]:
    """The steps behind their parents; those of a circle are left out."""
    children: list[list[int]] = [[] for _ in workload.steps]
    waits = [0] * len(workload.steps)
    for source, target, _ in workload.edges:
        children[source].append(target)
        waits[target] += 1
    order = [at for at, count in enumerate(waits) if not count]
    for at in order:
        for child in children[at]:
            waits[child] -= 1
            if not waits[child]:
                order.append(child)
    return order


def _names(steps: tuple[Step, ...]) -> list[str]:
    """Ids that plans allow, each once."""
    taken: set[str] = set()
    found = []
    for at, step in enumerate(steps):
        name = _LEGAL.sub("-", step.id.lower()).strip("-_")[:50]
        name = name if name[:1].isalpha() else f"t-{name}".rstrip("-")
        name = name if name not in taken else f"{name}-{at}"
        while name in taken:
            name += "x"
        taken.add(name)
        found.append(name)
    return found


def _factor(inputs: Mapping[str, Any], name: str) -> float:
    value = inputs.get(name, 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not (isfinite(value) and value >= 0):
        raise _refused(f"the input {name} is no number from 0 on", f"--input {name}=0.01")
    return float(value)


def _decoded(text: bytes, form: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=form)
    except msgspec.MsgspecError as error:
        raise _refused(str(error), "see the schema of WfCommons' WfFormat 1.5") from None


def _refused(why: str, hint: str) -> PlanRefused:
    return PlanRefused(f"not a workflow that can be read: {why}", hint=hint)
