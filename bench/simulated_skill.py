"""Simulated skills: contracts that workers announce, and programs that stand for the code behind them.

A program is a generator: it yields seconds to sleep, or `(call, body)` to ask the orchestrator, and returns a value or
an Outcome. What a program is given is resolved from its Assign alone, as a real worker does.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, Final

import msgspec

from protocol.artifact import ArtifactRef, Value
from protocol.builtin import BUILTINS
from protocol.errors import Unavailable
from protocol.frame import Assign, Input, WorkSpec
from protocol.outcome import Failure, FailureClass, Outcome, Stopped, Success
from protocol.pointer import descend
from protocol.profile import DeviceProfile, WorkerProfile
from protocol.resource import NOTHING, Resources
from protocol.skill import SkillSpec, Variant
from protocol.task import substitute

_OPEN = {"type": "object", "properties": {"value": {}, "run_s": {"type": "number"}}, "additionalProperties": False}
SIMULATED_SKILLS: Final = (
    SkillSpec(name="sim.work", doc="Simulated work on one core.", params=_OPEN, effect="pure"),
    SkillSpec(name="sim.other", doc="Simulated work by another skill.", params=_OPEN, effect="pure"),
    SkillSpec(name="sim.light", doc="Waits, without a core.", params=_OPEN, effect="pure",
              variants=(Variant("cpu", NOTHING),)),
    SkillSpec(name="sim.idem", doc="Simulated idempotent work.", params=_OPEN, effect="idempotent", warm_s=60.0),
    SkillSpec(name="sim.once", doc="A simulated effect.", params=_OPEN, effect="once", retry_max=0),
    SkillSpec(name="sim.own", doc="A simulated effect that says itself when it begins.", params=_OPEN, effect="once",
              retry_max=0, begin_effect="own"),
    SkillSpec(name="sim.asks", doc="Asks before it runs.", params=_OPEN, effect="pure", asks=True),
    SkillSpec(name="sim.gpu", doc="Simulated work on a card.", params=_OPEN, effect="pure",
              variants=(Variant("gpu", Resources(cpu=1.0, gpu=1.0)),)),
    SkillSpec(name="sim.parent", doc="Spawns and joins.", params=_OPEN, effect="pure",
              spawns=("sim.work", "sim.parent", "sim.once")),
    SkillSpec(name="sim.keeps", doc="Keeps how far it came, and goes on from there.", params=_OPEN, effect="pure",
              checkpoints=True),
)  # fmt: skip


def profile_of(
    slots: int = 2, *, gpu: int = 0, speed: float = 1.0, skills: tuple[SkillSpec, ...] = (),
    builtins: tuple[SkillSpec, ...] = BUILTINS, **more: Any,
) -> WorkerProfile:  # fmt: skip
    """A profile with the built-in and the simulated skills."""
    devices = (DeviceProfile("cpu", speed=speed), *((DeviceProfile("gpu", speed=4.0),) if gpu else ()))
    capacity = Resources(cpu=float(slots), gpu=float(gpu))
    known = (*builtins, *SIMULATED_SKILLS, *skills)
    return WorkerProfile(slots=slots, capacity=capacity, devices=devices, skills=known, **more)


class SimulatedJob(msgspec.Struct):
    """What a program knows: its task's name, attempt number, arguments (a list of them for a chunk) and worker.

    `element`: it is a child of a map, whose program it shares.
    """

    name: str
    number: int
    skill: str
    args: Any
    worker: str
    assign: Assign
    element: bool = False


Program = Callable[[SimulatedJob], Generator[Any, Any, Any]]


class SimulatedCallRefused(Exception):
    """The orchestrator, or the worker for it, answered a call with an error."""

    klass: FailureClass = "permanent"

    @classmethod
    def of(cls, wire: Mapping[str, Any]) -> SimulatedCallRefused:
        """From a wire error. What is unavailable here may be had elsewhere, as `workers.runner.failure` has it."""
        found = cls(wire["message"])
        if wire["code"] == Unavailable.code:
            found.klass = "infra"
        return found


def job_of(assign: Assign, work: WorkSpec, worker: str, element: bool, artifacts: Mapping[str, Any]) -> SimulatedJob:
    """The attempt as its program sees it. `artifacts`: values by digest."""
    args = msgspec.json.decode(work.args)
    values = {entry.key: _value(entry, artifacts) for entry in assign.inputs}
    if assign.items:
        rows = [values | {entry.key: _value(entry, artifacts) for entry in row} for row in assign.items]
        found: Any = [substitute(args, row) for row in rows]
    else:
        found = substitute(args, values)
    name = assign.name.partition("/")[2].partition("#")[0]
    return SimulatedJob(name, assign.attempt.number, work.skill, found, worker, assign, element)


def _value(entry: Input, artifacts: Mapping[str, Any]) -> Any:
    if entry.parts is not None:
        parts = [_read(part, artifacts) for part in entry.parts]
        found = [one for part in parts for one in part] if entry.flat else parts
    else:
        found = _read(entry.value, artifacts)
    return descend(found, entry.pointer)


def _read(value: Value, artifacts: Mapping[str, Any]) -> Any:
    return artifacts[value.digest] if isinstance(value, ArtifactRef) else msgspec.json.decode(value)


def program_for(job: SimulatedJob, programs: Mapping[str, Program]) -> Program:
    """By the task's name, its skill, its map's name, or `*`; else what the skill of that name would do."""
    names = (job.name, job.skill, job.name.partition(".")[0] if job.element else job.name, "*")
    return next((programs[one] for one in names if one in programs), default_program)


def outcome_of(value: Any) -> Outcome:
    return value if isinstance(value, Success | Failure | Stopped) else Success(msgspec.json.encode(value))


def default_program(job: SimulatedJob) -> Generator[Any, Any, Any]:
    """Sleeps `run_s` (default 10 ms), then gives back what the skill of that name would."""
    rows = job.args if isinstance(job.args, list) else [job.args]
    found = []
    for args in rows:
        yield float(args.get("run_s", args.get("seconds", 0.01)))
        found.append({"items": args["items"]} if job.skill == "flow.list" else {"value": args.get("value")})
    return found if isinstance(job.args, list) else found[0]
