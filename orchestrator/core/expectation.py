"""What an attempt is expected to take: the task and the device in the predictor's terms.

One place says how a task, a session and a device become its keys, so that what is noted is what is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from protocol.outcome import Usage
from protocol.skill import LONGEST_S, SkillSpec

from ..placement.predictor import DEFAULT_S, Prediction
from . import command as c
from .fleet import Load, Session
from .graph import Attempt, Run, Task
from .turn import Turn

_SHORT_S: Final = 0.01
"""Nobody is told how long a task of so little time will take; its skill's run time is learned all the same."""

_MOVED_HEARD: Final = 128


def learn(turn: Turn) -> None:
    """Take in what was measured, and hand out what came true of predictions."""
    turn.predictor.refit(turn.now)
    if found := turn.predictor.outcomes():
        turn.command(c.Keep(found))


def declared(turn: Turn, skills: Iterable[SkillSpec]) -> None:
    """What the authors of these skills reckon a run of them takes, by the contracts that runs use."""
    for one in skills:
        spec = turn.state.skill(one.name)
        turn.predictor.declare(one.name, spec.run_s if spec is not None else 0.0)


def expected(
    turn: Turn, session: Session, skill: str, device: str, input_bytes: int = 0, units: int = 1, beside: int = -1
) -> Prediction:
    """What one attempt of the skill is expected to take there, with so many elements of a map in it, and so many others
    beside it (-1: as usual)."""
    alike = session.device_class.get(device, device)
    found = turn.predictor.predict(skill, alike, session.worker, session.speed.get(device, 1.0), input_bytes, beside)
    return found if units == 1 else found.times(units)


def promise(turn: Turn, session: Session, run: Run, task: Task, load: Load) -> None:
    """Say what an attempt that leaves now will take, to be held against what it takes, where that is worth it."""
    typical = turn.predictor.measured(task.skill)
    elements = units(run, task) if task.parent >= 0 else 1
    if typical is not None and typical * elements < _SHORT_S:
        return
    size, load.beside = size_of(turn, run, task), session.beside(load.needs)
    load.predicted = expected(turn, session, task.skill, load.device, size, elements, load.beside)


def typical_s(turn: Turn, load: Load) -> float:
    """About how many seconds an attempt on a session's books takes in all."""
    if load.predicted is not None:
        return load.predicted.run_s
    found = turn.predictor.measured(load.skill)
    return DEFAULT_S if found is None else found


def noted(
    turn: Turn, session: Session, run: Run, task: Task, attempt: Attempt, load: Load | None, usage: Usage
) -> None:
    """The attempt has succeeded there."""
    run_s, skill = usage.run_s, attempt.skill or task.skill
    tokens_in, tokens_out = usage.tokens_in, usage.tokens_out
    device, elements = attempt.device, units(run, task) if task.parent >= 0 else 1
    predicted = load.predicted if load is not None else None
    if elements > 1:
        tokens_in, tokens_out = round(tokens_in / elements), round(tokens_out / elements)
        run_s, predicted = run_s / elements, predicted.times(1.0 / elements) if predicted is not None else None
    size = size_of(turn, run, task) if run_s >= _SHORT_S else input_bytes(run, task) if task.wiring.needs else 0
    turn.predictor.note(
        skill, session.device_class.get(device, device), session.worker,
        session.speed.get(device, 1.0), size, run_s, predicted, (run.ix, task.ix, attempt.number),
        tokens_in, tokens_out, load.beside if load is not None else -1,
    )  # fmt: skip


def moved(turn: Turn, session: Session, told: Sequence[float]) -> None:
    """What a heartbeat tells of transfers: bytes, seconds, in turns. What can't be is left out."""
    link = session.profile.link
    for size, seconds in zip(told[:_MOVED_HEARD:2], told[1:_MOVED_HEARD:2], strict=False):
        if 0 < size < 2**53 and 0 < seconds < LONGEST_S:
            turn.predictor.note_transfer(session.worker, link, int(size), seconds)


def size_of(turn: Turn, run: Run, task: Task) -> int:
    """What its run time goes by: the seconds that its own argument states (in microseconds), else its inputs' bytes."""
    stated = stated_s(task, turn.contract(task))
    return input_bytes(run, task) if stated is None else int(stated * 1e6)


def stated_s(task: Task, spec: SkillSpec | None) -> float | None:
    """What the task's own argument says it takes on a reference core, if the skill has such a one; never below nothing
    nor beyond what is counted with: a number in JSON may be larger than any float."""
    if spec is None or not spec.takes or task.alt:
        return None
    args = msgspec.json.decode(task.spec.args)
    stated = args.get(spec.takes) if isinstance(args, dict) else None
    if not isinstance(stated, int | float) or isinstance(stated, bool):
        return None
    return float(min(max(stated, 0), LONGEST_S))


def input_bytes(run: Run, task: Task) -> int:
    """How large the values are that the task is given by other tasks."""
    found = 0
    for ix in task.wiring.needs:
        value = run.tasks[ix].value
        if value is not None:
            found += len(value) if type(value) is bytes else value.size  # type: ignore[union-attr]
    return found


def units(run: Run, task: Task) -> int:
    """How often its skill is called: once, or for each element of its chunk of a map. Run times are learned of one."""
    spread = run.tasks[task.parent].spread if task.parent >= 0 else None
    if spread is None or spread.chunk <= 1:
        return 1
    return max(1, min(spread.chunk, spread.items - task.k * spread.chunk))
