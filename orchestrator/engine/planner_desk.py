"""Runs planner calls for the core: builds the view, hands each patch in as it is written, reports how it ended.

The stream between planner and engine is bounded, so a planner that writes faster than the loop turns is held back.
Whatever a planner does (raise, overrun, be stopped), the core gets exactly one PlanFinished for each call it opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import anyio
import anyio.lowlevel
from anyio.abc import ObjectReceiveStream, ObjectSendStream

from planner.planner import Planner, PlanOutcome
from planner.view import PlanView, WorkerView
from protocol.errors import AsterismError
from protocol.patch import Patch

from ..core.command import StartPlanner
from ..core.fleet import Fleet
from ..core.graph import Run
from ..core.state import State
from ..core.stimulus import PatchProposed, PlanFinished, Stimulus
from .example_desk import ExampleDesk
from .skill_view import offered, plain_labels

STREAM_PATCHES: Final = 16
_TURNS: Final = 3
"""Of the loop, until the tasks of a patch are on their way: it is handed in, decided on, and a frame is written."""
GRACE_S: Final = 5.0
"""How much later than its own deadline a planner may return before it is stopped."""
_SPARE_S: Final = 1.0
"""At most so much of a call's time is kept back, so that its planner can still say how it ended."""

Choose = Callable[[str], Planner]
"""The planner of a name; "" is the server's default. Raises: UsageError, ConfigInvalid."""


def fleet_view(state: State, fleet: Fleet, home: str) -> tuple[WorkerView, ...]:
    """The workers that may serve a run of this home, connected or away."""
    rows: list[WorkerView] = []
    for record in state.workers.values():
        if record.gone or (record.serves and record.serves != home):
            continue
        session = fleet.sessions.get(record.ix)
        here = bool(home) and record.name == home
        labels = plain_labels(record.labels if session is None else session.profile.labels)
        if session is None:
            rows.append(WorkerView(record.name, record.devices, labels, slots=0, free=0, here=here, connected=False))
        else:
            kinds = tuple(dict.fromkeys(device.kind for device in session.profile.devices))
            rows.append(WorkerView(record.name, kinds, labels, session.profile.slots, session.slots_free, here=here))
    return tuple(rows)


class PlannerDesk:
    """One per engine. `choose` finds the planner a run asked for."""

    def __init__(
        self, choose: Choose, fleet: Fleet, clock: Callable[[], float], examples: ExampleDesk | None = None
    ) -> None:
        self._choose = choose
        self._examples = examples or ExampleDesk(0)
        self._fleet = fleet
        self._clock = clock
        self._running: dict[tuple[int, int], anyio.CancelScope] = {}

    async def plan(self, command: StartPlanner, state: State, post: Callable[[Stimulus], None]) -> None:
        """Serve one call to its end."""
        run = state.runs.get(command.run)
        if run is None or command.call not in run.calls:
            return  # it was over before it was on disk
        key = (command.run, command.call)
        outcome = PlanOutcome("failed", "the planner was stopped")
        with anyio.CancelScope() as scope:
            self._running[key] = scope
            try:
                planner = self._choose(run.planner)
                view = await self.taught(planner, self._view(command, run, state), state)
            except Exception as error:  # noqa: BLE001 what can't be asked fails its call, never the orchestrator
                outcome = _broken(error)
            else:
                with anyio.move_on_after(view.deadline_s + GRACE_S) as limit:
                    outcome = await self._call(planner, view, command, post)
                if limit.cancelled_caught:
                    outcome = PlanOutcome("failed", f"the planner gave no end within {view.deadline_s:.0f} s")
            finally:
                del self._running[key]
        post(
            PlanFinished(
                run=command.run,
                call=command.call,
                outcome=outcome.kind,
                message=_words(outcome),
                tokens_in=outcome.tokens_in,
                tokens_out=outcome.tokens_out,
                price=outcome.price,
                planner=outcome.planner,
                calls=max(1, outcome.calls),
            )
        )

    def stop(self, run: int, call: int) -> None:
        """Cancel the call; its socket closes with it."""
        scope = self._running.get((run, call))
        if scope is not None:
            scope.cancel()

    def ask(self, name: str) -> Planner:
        """The planner of that name, to compile a plan without a run. Raises: UsageError, ConfigInvalid."""
        return self._choose(name)

    async def taught(self, planner: Planner, view: PlanView, state: State) -> PlanView:
        """The view with examples for this planner, if it reads any."""
        return await self._examples.offer(view, state) if getattr(planner, "learns", True) else view

    async def _call(
        self, planner: Planner, view: PlanView, command: StartPlanner, post: Callable[[Stimulus], None]
    ) -> PlanOutcome:
        send, receive = anyio.create_memory_object_stream[Patch](STREAM_PATCHES)
        async with anyio.create_task_group() as group, send:
            group.start_soon(_relay, receive, command, post)
            try:
                outcome = await planner.plan(view, _Ahead(send))
            except Exception as error:  # noqa: BLE001 a planner's defect fails its call, never the orchestrator
                outcome = _broken(error)
        return outcome

    def _view(self, command: StartPlanner, run: Run, state: State) -> PlanView:
        time_s = command.deadline - self._clock()
        budget, spend = run.settings.budget, run.spend
        calls_left = spend.calls_left(budget)
        return PlanView(
            request=command.request,
            skills=offered(state, run),
            fleet=fleet_view(state, self._fleet, run.home),
            inputs=run.inputs | {fact.name: fact.value or b"null" for fact in command.facts},
            budget=budget,
            tokens_left=spend.reserved.get(command.call, 0) if budget.tokens else None,
            price_left=spend.priced.get(command.call, 0.0) if budget.price else None,
            calls_left=None if calls_left is None else calls_left + 1,  # this one counts since it was opened
            envelope=tuple(run.envelope) if run.planned else (),
            base=command.digest.base if command.digest is not None else -1,
            digest=command.digest,
            goal=command.goal,
            trusted=command.trusted,
            facts=command.facts,
            deadline_s=max(0.1, time_s - min(_SPARE_S, time_s / 20)),
        )


class _Ahead(ObjectSendStream[Patch]):
    """What is written goes first: a planner reads on once the tasks of its patch have left, and not meanwhile."""

    def __init__(self, send: ObjectSendStream[Patch]) -> None:
        self._send = send

    async def send(self, item: Patch) -> None:
        await self._send.send(item)
        for _ in range(_TURNS):
            await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await self._send.aclose()


async def _relay(receive: ObjectReceiveStream[Patch], command: StartPlanner, post: Callable[[Stimulus], None]) -> None:
    """Every patch goes in before the PlanFinished that follows."""
    async with receive:
        async for patch in receive:
            post(PatchProposed(0, command.run, patch, call=command.call))


def _broken(error: Exception) -> PlanOutcome:
    if isinstance(error, AsterismError):
        return PlanOutcome("failed", error.message, hint=error.hint)
    return PlanOutcome("failed", f"the planner broke: {type(error).__name__}: {error}")


def _words(outcome: PlanOutcome) -> str:
    """Everything a person needs of how it ended, in one text."""
    who = f"{outcome.planner}: " if outcome.kind == "complete" and outcome.planner else ""
    lines = [who + outcome.message] if outcome.message else []
    lines += _indented(str(problem) for problem in outcome.problems)
    if outcome.hint:
        lines.append(f"fix: {outcome.hint}")
    elif outcome.nearest:
        lines.append(f"nearest skills: {', '.join(outcome.nearest)}")
    return "\n".join(lines)


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  - {line}" for line in lines]
