"""From what a client handed in to a run: the plan parsed in a thread, its inputs bound, its settings merged.

A plan of up to WHOLE_TASKS tasks goes to the core in one piece: refused, no run is made. A larger one goes in slices,
so the loop turns in between; then a refusal settles the run as failed. Both are idempotent by the submission's key.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import msgspec

from planner.planner import collect
from planner.view import PlanView
from protocol.artifact import FileUri, parse_file
from protocol.document import FILE_LIMITS, Limits, Problems, canonical, nearest
from protocol.errors import PlanRefused, PlanTooLarge, UsageError, WireError
from protocol.forecast_row import ForecastRow
from protocol.ids import run_name
from protocol.json_bytes import read_json
from protocol.patch import Patch
from protocol.plan import plan_document, read_patch, read_plan
from protocol.plan_form import PlanReader
from protocol.security import Principal
from protocol.task import Plan, RunSettings, TaskSpec

from ..computation import computed
from ..core.stimulus import PatchProposed, PlanFinished, PlanJudged, Submitted
from ..engine.engine import Engine
from ..engine.forecast_desk import document, hastened, refuse_late
from ..engine.planner_desk import PlannerDesk, fleet_view
from ..engine.skill_view import known_skills
from .attachment import Attachments
from .lookup import find_run

WHOLE_TASKS: Final = 20_000
SLICE_TASKS: Final = 2_000
PLAN_BYTES: Final = 64 * 1024 * 1024


class Header(msgspec.Struct, forbid_unknown_fields=True):
    """The first part of a submission. `inputs` are JSON values, `settings` what flags and defaults say of the run."""

    request: str = ""
    key: str = ""
    settings: dict[str, Any] = {}
    inputs: dict[str, Any] = {}
    home: str = ""
    planner: str = ""
    labels: dict[str, str] = {}
    plan: bool = False
    detach: bool = False
    dry: bool = False
    """Only say what is wrong with the plan."""


class Submissions:
    """Everything that proposes a graph: submit, patch, and `plan` without a run."""

    def __init__(
        self, engine: Engine, planners: PlannerDesk, attachments: Attachments, limits: Limits = FILE_LIMITS
    ) -> None:
        self._engine = engine
        self._forecasts = engine.forecasts
        self._planners = planners
        self._attachments = attachments
        self._limits = limits

    async def submit(self, who: Principal, header: bytes, chunks: AsyncIterator[bytes]) -> dict[str, Any]:
        """`{"run": 7}` once it is on disk. Raises: PlanRefused with every problem, DeadlineTooShort,
        UsageError, WireError."""
        given = _decode(header, Header)
        text = await _read(chunks)
        plan: Plan | None = None
        read: _Read | None = None
        planner = ""
        if text:
            read = await computed(_parse, text, given, self._limits)
            plan, settings, inputs = read.plan, read.settings, read.inputs
            await self._refuse(given, read)
        elif given.plan:
            if not given.request.strip():
                raise UsageError("there is neither a request nor a plan", hint='asterism run "REQUEST"')
            inputs = {name: canonical(value) for name, value in given.inputs.items()}
            chosen = self._planners.ask(given.planner)
            planner = chosen.name
            settings = _settings({"on_failure": "replan"} if chosen.replans else {}, given)
        else:
            raise PlanRefused("the plan is empty", hint="write at least one task")
        seen: ForecastRow | None = None
        if plan is not None and given.key not in self._engine.machine.state.keys:
            if given.dry or (settings.deadline_s and not settings.best_effort):
                seen = await self._forecasts.of(plan.tasks, settings, inputs, given.home)
            if not given.dry:
                refuse_late(seen, settings)
                settings = hastened(seen, settings)
        if given.dry:
            return {"run": 0, "forecast": None if seen is None else document(seen)}
        settings = msgspec.structs.replace(settings, attached=not given.detach)
        patches = None if plan is None else _patches(f"person:{who.name}", plan)
        text, read, plan = b"", None, None  # a part of a large plan is let go once it is proposed
        found = await self._propose(who, given, settings, inputs, patches, planner)
        if not given.detach:
            self._attachments.attach(found)
        return {"run": found}

    async def _refuse(self, given: Header, read: _Read) -> None:
        """Raises: PlanRefused with everything wrong with the plan, if anything is known to be or must be asked for.

        A plan in one piece that reads well is the core's to judge when it is submitted. Otherwise it is judged here,
        as far as it could be read: a large one before a run is made of its first slice.
        """
        if given.key in self._engine.machine.state.keys and not given.dry:
            return
        problems, tasks = read.problems, read.plan.tasks
        known = {one.name for one in self._engine.machine.state.workers.values() if not one.gone}
        for machine, where in read.machines:
            if machine not in known:
                fix = nearest(machine, known) or "see asterism workers"
                problems.add("UnknownPlace", where, f"no worker is called {machine}", fix)
        if not (problems.found or given.dry or len(tasks) > WHOLE_TASKS):
            return
        limit = self._engine.machine.most_tasks(read.settings)
        if len(tasks) > limit:  # the core would find out with the slice that is one too many
            problems.add("PlanTooLarge", "tasks", f"{len(tasks)} tasks, the limit is {limit}")
        await self._judge(tasks, read.places, problems, read.settings, read.inputs, given.home)
        problems.raise_any("the plan")

    async def _judge(
        self,
        tasks: tuple[TaskSpec, ...],
        places: tuple[int, ...],
        problems: Problems,
        settings: RunSettings,
        inputs: dict[str, bytes],
        home: str,
    ) -> None:
        """Add what the core has against each task by itself, by its place in the document."""
        for start in range(0, len(tasks), SLICE_TASKS):
            part = tasks[start : start + SLICE_TASKS]
            found = await self._engine.ask(lambda reply, part=part: PlanJudged(reply, part, settings, inputs, home))  # type: ignore[misc]
            for one in found:
                problems.add(one.code, _moved(one.where, places[start:]), one.message, one.fix)

    async def _propose(
        self,
        who: Principal,
        given: Header,
        settings: RunSettings,
        inputs: dict[str, bytes],
        patches: deque[Patch] | None,
        planner: str,
    ) -> int:
        """`patches`: the plan in one piece or in slices, None where `planner` makes it."""
        patch = patches[0] if patches is not None and len(patches) == 1 else None
        answer = await self._engine.ask(
            lambda reply: Submitted(
                reply=reply,
                request=given.request,
                key=given.key,
                author=who.name,
                settings=settings,
                inputs=inputs,
                home=given.home or settings.home,
                plan=patches is None,
                planner=planner,
                labels={**settings.labels, **given.labels},
                patch=patch,
            )
        )
        number = int(answer["run"])
        run = self._engine.machine.state.runs[number]
        if patches is not None and patch is None and not run.planned:
            await self._slices(number, patches, len(run.tasks))
        return number

    async def _slices(self, run: int, patches: deque[Patch], done: int) -> None:
        """References point backwards, so any prefix of the tasks is a graph. `done`: accepted before a crash."""
        while patches:
            patch = patches.popleft()
            rest = patch.tasks[done:]
            done -= len(patch.tasks) - len(rest)
            if rest:
                patch = msgspec.structs.replace(patch, tasks=rest)
                await self._engine.ask(lambda reply, patch=patch: PatchProposed(reply, run, patch, whole=True))  # type: ignore[misc]
        self._engine.post(PlanFinished(run))

    async def patch(self, run: int, document: Any, author: str) -> dict[str, Any]:
        """`{"version": 3}`. Raises: PlanRefused, Conflict, NotFound."""
        edited = find_run(self._engine.machine.state, run)
        read = await computed(lambda: read_patch(document, author=author, limits=self._limits))
        if read.problems.found:
            tasks, places = read.patch.tasks, read.places
            await self._judge(tasks, places, read.problems, edited.settings, edited.inputs, edited.home)
            read.problems.raise_any("the patch")
        found: dict[str, Any] = await self._engine.ask(lambda reply: PatchProposed(reply, edited.ix, read.patch))
        return found

    async def plan(self, request: str, inputs: Mapping[str, Any], planner: str, home: str) -> dict[str, Any]:
        """Compile only: the plan document. Raises: PlannerAbstained, PlanRefused."""
        machine = self._engine.machine
        view = PlanView(
            request=request,
            skills=known_skills(machine.state),
            fleet=fleet_view(machine.state, machine.fleet, home),
            inputs={name: canonical(value) for name, value in inputs.items()},
        )
        chosen = self._planners.ask(planner)
        view = await self._planners.taught(chosen, view, machine.state)
        plan, outcome = await collect(chosen, view)
        shown = [{"run": run_name(one.run), "request": one.request} for one in view.examples]
        seen = await self._forecasts.of(plan.tasks, plan.settings, view.inputs, home)
        return {
            **plan_document(plan),
            "forecast": None if seen is None else document(seen),
            "planner": {
                "kind": outcome.planner,
                "message": outcome.message,
                "remarks": [str(one) for one in outcome.problems],
                "examples": shown,
            },
        }


def _patches(author: str, plan: Plan) -> deque[Patch]:
    """The plan as patches: one, or for a large one a slice of its tasks each; the last one has the outputs."""
    size = SLICE_TASKS if len(plan.tasks) > WHOLE_TASKS else max(1, len(plan.tasks))
    found = deque(Patch(author, plan.tasks[at : at + size]) for at in range(0, max(1, len(plan.tasks)), size))
    found.append(msgspec.structs.replace(found.pop(), outputs=plan.outputs or None))
    return found


async def _read(chunks: AsyncIterator[bytes]) -> bytes:
    found = bytearray()
    async for chunk in chunks:
        found += chunk
        if len(found) > PLAN_BYTES:
            raise PlanTooLarge(f"the plan is over {PLAN_BYTES:,} bytes", hint="split it, or spawn tasks while it runs")
    return bytes(found)


def _decode(header: bytes, kind: type[Header]) -> Header:
    try:
        found: Header = read_json(header, kind)
        return found
    except WireError as error:
        raise UsageError(f"the submission's header is malformed: {error}") from None


class _Read(msgspec.Struct):
    """A plan as it came, its inputs bound, the submitter's settings over its own, and what is wrong so far.

    `machines`: whose files are given as inputs, each with its place.
    """

    plan: Plan
    settings: RunSettings
    inputs: dict[str, bytes]
    machines: list[tuple[str, str]]
    problems: Problems
    places: tuple[int, ...]


def _parse(text: bytes, given: Header, limits: Limits) -> _Read:
    """Raises: PlanRefused for what is no document at all, PlanTooLarge."""
    found = read_plan(text, limits=limits, inputs=tuple(given.inputs))
    plan, problems = found.plan, found.problems
    settings = plan.settings
    if given.settings:
        document = plan_document(msgspec.structs.replace(plan, tasks=(), inputs=(), outputs=()))
        try:
            settings = _settings(document.get("run", {}), given)
        except PlanRefused as error:
            for one in error.problems:
                problems.add(one.code, one.where, one.message, one.fix)
    inputs = _bound(plan, given, problems)
    machines = [
        (uri.worker, f"inputs/{declared.name}")
        for declared in plan.inputs
        if declared.type == "file" and (uri := _file_in(inputs.get(declared.name))) and uri.worker != "here"
    ]
    return _Read(plan, settings, inputs, machines, problems, found.places)


def _file_in(value: bytes | None) -> FileUri | None:
    text = msgspec.json.decode(value) if value else None
    return parse_file(text) if isinstance(text, str) else None


def _moved(where: str, places: tuple[int, ...]) -> str:
    """A place among the tasks that were read, as a place in the document."""
    kind, _, rest = where.partition("/")
    number, slash, below = rest.partition("/")
    return f"tasks/{places[int(number)]}{slash}{below}" if kind == "tasks" and number.isdecimal() else where


def _settings(own: Mapping[str, Any], given: Header) -> RunSettings:
    """Flags win over the plan's `run`, cap by cap. Raises: PlanRefused."""
    merged = {**own, **given.settings}
    for key in ("budget", "replan"):
        if key in own and key in given.settings:
            merged[key] = {**own[key], **given.settings[key]}
    reader = PlanReader(FILE_LIMITS, {"run": merged})
    settings = reader.settings()
    reader.problems.raise_any("the run's settings")
    return settings


def _bound(plan: Plan, given: Header, problems: Problems) -> dict[str, bytes]:
    """Inputs by name: what was given, else the default; those that are missing are problems."""
    inputs = {name: canonical(value) for name, value in given.inputs.items()}
    for declared in plan.inputs:
        if declared.name in inputs:
            continue
        if declared.default is None:
            fix = f"--input {declared.name}=..."
            problems.add("MissingInput", f"inputs/{declared.name}", f"the input {declared.name} is not given", fix)
        else:
            inputs[declared.name] = declared.default
    return inputs
