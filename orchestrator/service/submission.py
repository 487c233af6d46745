"""From what a client handed in to a run: the plan parsed in a thread, its inputs bound, its settings merged.

A plan of up to WHOLE_TASKS tasks goes to the core in one piece: refused, no run is made. A larger one goes in slices,
so the loop turns in between; then a refusal settles the run as failed. Both are idempotent by the submission's key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import anyio.to_thread
import msgspec

from planner.planner import collect
from planner.view import PlanView
from protocol.document import FILE_LIMITS, Limits, Problems, canonical
from protocol.errors import PlanRefused, PlanTooLarge, UsageError
from protocol.patch import Patch
from protocol.plan import parse_patch, parse_plan, plan_document
from protocol.plan_form import PlanReader
from protocol.security import Principal
from protocol.task import Plan, RunSettings

from ..core.stimulus import PatchProposed, PlanFinished, Submitted
from ..engine.engine import Engine
from ..engine.planner_desk import PlannerDesk, fleet_view, known_skills
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


class Submissions:
    """Everything that proposes a graph: submit, patch, and `plan` without a run."""

    def __init__(
        self, engine: Engine, planners: PlannerDesk, attachments: Attachments, limits: Limits = FILE_LIMITS
    ) -> None:
        self._engine = engine
        self._planners = planners
        self._attachments = attachments
        self._limits = limits

    async def submit(self, who: Principal, header: bytes, chunks: AsyncIterator[bytes]) -> dict[str, Any]:
        """`{"run": 7}` once it is on disk. Raises: PlanRefused with every problem, UsageError, WireError."""
        given = _decode(header, Header)
        text = await _read(chunks)
        plan: Plan | None = None
        if text:
            plan = await anyio.to_thread.run_sync(_parse, text, given, self._limits)
            inputs, settings = await anyio.to_thread.run_sync(_bound, plan, given), plan.settings
        elif given.plan:
            if not given.request.strip():
                raise UsageError("there is neither a request nor a plan", hint='asterism run "REQUEST"')
            inputs = {name: canonical(value) for name, value in given.inputs.items()}
            settings = _settings({}, given)
        else:
            raise PlanRefused("the plan is empty", hint="write at least one task")
        settings = msgspec.structs.replace(settings, attached=not given.detach)
        found = await self._propose(who, given, settings, inputs, plan)
        if not given.detach:
            self._attachments.attach(found)
        return {"run": found}

    async def _propose(
        self, who: Principal, given: Header, settings: RunSettings, inputs: dict[str, bytes], plan: Plan | None
    ) -> int:
        whole = plan is not None and len(plan.tasks) <= WHOLE_TASKS
        author = f"person:{who.name}"
        patch = Patch(author, plan.tasks, outputs=plan.outputs or None) if plan is not None and whole else None
        answer = await self._engine.ask(
            lambda reply: Submitted(
                reply=reply,
                request=given.request,
                key=given.key,
                author=who.name,
                settings=settings,
                inputs=inputs,
                home=given.home or settings.home,
                plan=plan is None,
                planner=self._planners.ask(given.planner).name if plan is None else "",
                labels={**settings.labels, **given.labels},
                patch=patch,
            )
        )
        number = int(answer["run"])
        run = self._engine.machine.state.runs[number]
        if plan is not None and not whole and not run.planned:
            await self._slices(number, author, plan, len(run.tasks))
        return number

    async def _slices(self, run: int, author: str, plan: Plan, done: int) -> None:
        """References point backwards, so any prefix of the tasks is a graph. `done`: accepted before a crash."""
        for start in range(done, len(plan.tasks), SLICE_TASKS):
            end = start + SLICE_TASKS
            outputs = plan.outputs if end >= len(plan.tasks) and plan.outputs else None
            patch = Patch(author, plan.tasks[start:end], outputs=outputs)
            await self._engine.ask(lambda reply, patch=patch: PatchProposed(reply, run, patch, whole=True))  # type: ignore[misc]
        self._engine.post(PlanFinished(run))

    async def patch(self, run: int, document: Any, author: str) -> dict[str, Any]:
        """`{"version": 3}`. Raises: PlanRefused, Conflict, NotFound."""
        number = find_run(self._engine.machine.state, run).ix
        patch = await anyio.to_thread.run_sync(lambda: parse_patch(document, author=author, limits=self._limits))
        found: dict[str, Any] = await self._engine.ask(lambda reply: PatchProposed(reply, number, patch))
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
        plan, outcome = await collect(self._planners.ask(planner), view)
        return {**plan_document(plan), "planner": {"kind": outcome.planner, "message": outcome.message}}


async def _read(chunks: AsyncIterator[bytes]) -> bytes:
    found = bytearray()
    async for chunk in chunks:
        found += chunk
        if len(found) > PLAN_BYTES:
            raise PlanTooLarge(f"the plan is over {PLAN_BYTES:,} bytes", hint="split it, or spawn tasks while it runs")
    return bytes(found)


def _decode(header: bytes, kind: type[Header]) -> Header:
    try:
        return msgspec.json.decode(header, type=kind)
    except msgspec.MsgspecError as error:
        raise UsageError(f"the submission's header is malformed: {error}") from None


def _parse(text: bytes, given: Header, limits: Limits) -> Plan:
    """The plan, with the submitter's settings over its own."""
    plan = parse_plan(text, limits=limits, inputs=tuple(given.inputs))
    if not given.settings:
        return plan
    document = plan_document(msgspec.structs.replace(plan, tasks=(), inputs=(), outputs=()))
    return msgspec.structs.replace(plan, settings=_settings(document.get("run", {}), given))


def _settings(own: Mapping[str, Any], given: Header) -> RunSettings:
    """Flags win over the plan's `run`, budget by budget. Raises: PlanRefused."""
    merged = {**own, **given.settings}
    if "budget" in own and "budget" in given.settings:
        merged["budget"] = {**own["budget"], **given.settings["budget"]}
    reader = PlanReader(FILE_LIMITS, {"run": merged})
    settings = reader.settings()
    reader.problems.raise_any("the run's settings")
    return settings


def _bound(plan: Plan, given: Header) -> dict[str, bytes]:
    """Inputs by name: what was given, else the default. Raises: PlanRefused naming those that are missing."""
    inputs = {name: canonical(value) for name, value in given.inputs.items()}
    problems = Problems()
    for declared in plan.inputs:
        if declared.name in inputs:
            continue
        if declared.default is None:
            fix = f"--input {declared.name}=..."
            problems.add("MissingInput", f"inputs/{declared.name}", f"the input {declared.name} is not given", fix)
        else:
            inputs[declared.name] = declared.default
    problems.raise_any("the inputs")
    return inputs
