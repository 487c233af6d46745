"""Accounts of what was done: a run's report and its tasks, the story of one task, how well the predictor does.

Reads state, fleet, and what the journal keeps of predictions. Long answers are built and written in a thread, which
the loop outlives. It must not know who asks, nor by which means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import anyio.lowlevel
import anyio.to_thread
import msgspec

from protocol.prediction_row import Accuracy, LinkPace, ModelPace, Predicted, SkillPace, TokenUse
from protocol.report import SCHEMA, run_report, tasks_report

from ..computation import computed
from ..core.graph import Run, Task
from ..core.state import State
from ..engine.engine import Engine
from ..placement.predictor import Outcome, Prediction
from ..placement.score import Score, Tally
from . import query
from .explaining import explanation
from .foretelling import foretold
from .lookup import run_state
from .value import Values

MOST_READ: Final = 10_000
"""Predictions of one run that are held against what came true."""
_PATIENCE_S: Final = 2.0
"""How long to wait for the disk to have the last of them."""


class Accounts:
    """One per server."""

    def __init__(self, engine: Engine, values: Values) -> None:
        self._engine = engine
        self._values = values

    async def tasks(self, run: Run, children: bool) -> bytes:
        """`tasks`."""
        rows = await self._rows(run, children)
        return await _written(lambda: tasks_report(run.ix, run_state(run), rows), len(rows))

    async def result(self, run: Run) -> bytes:
        """`result`."""
        small, large = await self._values.outputs(run)
        intervals: list[tuple[float, float]] = []
        for part in query.spans(run):
            intervals += part
            await anyio.lowlevel.checkpoint()
        rows, told = await self._rows(run, children=False), await self._told(run)
        now = self._engine.clock()

        def report() -> dict[str, Any]:
            return run_report(
                run.ix,
                run_state(run),
                outputs=small,
                tasks=rows,
                spans=intervals,
                makespan_s=query.makespan_s(run, now),
                versions=run.version,
                planner=query.planner_use(run),
                recovered=query.recovered(run),
                error=query.run_error(run),
                large=large or None,
                spend=query.spend_row(run),
                predictions=_accuracy(_tallied(told)),
                forecast=foretold(run, self._state, self._engine.machine.fleet),
            ).to_dict()

        return await _written(report, len(intervals))

    async def explain(self, run: Run, task: Task) -> dict[str, Any]:
        """`explain`."""
        told = {one.of[2]: one.predicted for one in await self._told(run, task) if one.predicted is not None}
        for attempt in task.live():
            session = self._engine.machine.fleet.sessions.get(attempt.worker)
            load = session.loads.get((run.ix, task.ix, attempt.number)) if session is not None else None
            if load is not None and load.predicted is not None:
                told[attempt.number] = load.predicted
        found = self._engine.machine.explain(run.ix, run.name_of(task))
        predicted = {number: _predicted(one) for number, one in told.items()}
        return explanation(self._state, run, task, found, predicted).to_dict()

    def predictor(self) -> dict[str, Any]:
        """`predictor stats`: every skill by class of devices, and every link that something went over."""
        predictor = self._engine.machine.predictor
        predictor.refit()
        skills = []
        for one in predictor.known():
            said = one.typical.run_s, one.typical.low_s, one.typical.p95_s
            pace = SkillPace(
                one.skill, one.device_class, one.runs, *said, one.form, one.changes, _accuracy(one.score), one.slows
            )
            skills.append(pace)
        links = [
            LinkPace(record.name, path.count, path.latency_s, 1.0 / max(path.byte_s, 1e-12), _accuracy(path.score()))
            for worker, path in predictor.passages.paths()
            if (record := self._state.workers.get(worker)) is not None
        ]
        tokens = predictor.token_pace
        uses = [TokenUse(skill, *msgspec.structs.astuple(found)) for skill, found in tokens.skills()]
        models = [
            ModelPace(
                record.name, found.runs, found.latency_s, 1.0 / found.prefill_s if found.prefill_s > 0.0 else None,
                1.0 / max(found.decode_s, 1e-12),
            )
            for worker, found in tokens.endpoints()
            if (record := self._state.workers.get(worker)) is not None
        ]  # fmt: skip
        answer = {"schema": SCHEMA, "skills": skills, "links": links, "tokens": uses, "models": models}
        return msgspec.to_builtins(answer)  # type: ignore[no-any-return]

    @property
    def _state(self) -> State:
        return self._engine.machine.state

    async def _rows(self, run: Run, children: bool) -> dict[str, Any]:
        rows: dict[str, Any] = {}
        for part in query.task_rows(self._state, run, children):
            rows |= part
            await anyio.lowlevel.checkpoint()
        return rows

    async def _told(self, run: Run, task: Task | None = None) -> list[Outcome]:
        """What came true of predictions for the run, to the last one."""
        engine = self._engine
        predictor, journal = engine.machine.predictor, engine.journal
        predictor.refit()
        commit = journal.keep(predictor.outcomes(), engine.clock(), pressing=True)
        if not engine.pressure.full:
            with anyio.move_on_after(_PATIENCE_S):
                await commit.wait()
        which = None if task is None else task.ix
        return await anyio.to_thread.run_sync(lambda: journal.read_predictions(run.ix, which, MOST_READ))


def _tallied(told: list[Outcome]) -> Score:
    tally = Tally()
    for one in told:
        if one.predicted is not None and one.predicted.n:
            tally.add(one.predicted.run_s, one.predicted.p95_s, one.run_s)
    return tally.score()


def _accuracy(score: Score) -> Accuracy:
    return Accuracy(score.n, score.error, score.error_p90, score.covered)


def _predicted(said: Prediction) -> Predicted:
    return Predicted(said.run_s, said.low_s, said.p95_s, said.n, said.by)


async def _written(build: Callable[[], Any], rows: int) -> bytes:
    """The JSON of an answer; a long one is built and written in a thread."""
    if rows <= query.SLICE_TASKS:
        return msgspec.json.encode(build())
    return await computed(lambda: msgspec.json.encode(build()))
