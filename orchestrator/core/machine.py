"""The core: `handle(stimulus, now, luck) -> Decision(events, commands)`, one machine for the fleet and all runs.

Pure: time and luck come in as arguments, effects go out as commands. The same machine runs in production, in recovery,
in the simulator and in tests. It routes each stimulus to its reactor, then decides everything that became due.
"""

from __future__ import annotations

from math import inf
from typing import Any

from protocol.outcome import Failure, Usage
from protocol.share_row import ShareRow
from protocol.task import RunSettings

from ..placement.policy import Policy
from ..placement.predictor import Predictor
from ..placement.selection import policy_named
from . import command as c
from . import event as e
from . import stimulus as s
from .dispatch import flush, lull
from .displacement import overdue
from .edit import deadline_of
from .enrolment import client_enrolled, enrolled, token_asked, token_revoked
from .expansion import resolved, settle_due
from .explanation import explain
from .fleet import Fleet
from .foresight import foreseen
from .graph import Run
from .intake import enqueue
from .joining import joined
from .lifecycle import AwaitingApproval, Closed, Settled, Waiting
from .outlook import Outlook
from .planning import ask, claim_over, lost, planner_timed_out
from .quarantine import probe
from .reconcile import drain, received
from .resumption import resume, resumed, taken_back
from .setting import CoreSettings
from .settlement import cancel_task, end_attempt, fail
from .silence import broken, expired, gone, lease_s, silent
from .staging import owner_left, stage
from .standing import standing
from .state import State
from .steering import (
    answered,
    approval_decided,
    cancel_asked,
    cancel_run,
    detached,
    forked,
    guarded,
    judged,
    patched,
    paused,
    plan_finished,
    removed,
    stop_overspent,
    submitted,
    undone,
    unknown_resolved,
)
from .subplan import serve
from .survey import look_ahead
from .trust import check_trust
from .turn import Turn

_REQUESTS: dict[type, Any] = {
    s.Submitted: submitted,
    s.PlanJudged: judged,
    s.PatchProposed: patched,
    s.CancelRequested: cancel_asked,
    s.PauseRequested: paused,
    s.DetachRequested: detached,
    s.ApprovalDecided: approval_decided,
    s.AnswerGiven: answered,
    s.UnknownResolved: unknown_resolved,
    s.ForkRequested: forked,
    s.UndoRequested: undone,
    s.RemoveRequested: removed,
    s.Enrolled: enrolled,
    s.ClientEnrolled: client_enrolled,
    s.TokenAsked: token_asked,
    s.TokenRevocation: token_revoked,
}


class Machine:
    """See the module. `state` is durable and changes only by events; `fleet` is rebuilt from Hello."""

    def __init__(self, state: State, settings: CoreSettings | None = None, policy: Policy | None = None) -> None:
        settings = settings or CoreSettings()
        self._turn = Turn(state, settings, policy or policy_named(settings.placement))

    @property
    def state(self) -> State:
        return self._turn.state

    @property
    def fleet(self) -> Fleet:
        return self._turn.fleet

    @property
    def predictor(self) -> Predictor:
        return self._turn.predictor

    def handle(self, stimulus: s.Stimulus, now: float, luck: float = 0.5) -> c.Decision:
        """Decide. Events are applied already; the caller journals them and carries the commands out.

        If it raises (a defect of ours), the state may have events that nobody was told of: it must be handed a
        TakenBack before anything else.
        """
        turn = self._turn
        if type(stimulus) is s.TakenBack:
            turn = self._turn = taken_back(turn, stimulus)
        turn.now, turn.luck, turn.focus = max(turn.now, now), luck, getattr(stimulus, "run", 0)
        self._route(turn, stimulus)
        settle_due(turn)
        while turn.asking:
            ask(turn)
            settle_due(turn)
        while turn.overspent:
            over, turn.overspent = turn.overspent, {}
            for number in over:
                stop_overspent(turn, turn.state.runs[number])
            settle_due(turn)
        events, commands = tuple(turn.events), tuple(turn.commands)
        turn.events.clear()
        turn.commands.clear()
        return c.Decision(events, commands)

    @property
    def focus(self) -> int:
        """The run that was decided on last: the one to blame when `handle` has raised (0: not known)."""
        return self._turn.focus

    @property
    def owes(self) -> bool:
        """Whether a Lull is wanted."""
        return self._turn.owes_since < inf

    def next_wake(self) -> float | None:
        """Run time of the next Tick it wants; None for none."""
        return self._turn.next_wake()

    def explain(self, run: int, task: str) -> dict[str, Any]:
        """Why the task is where it is. Raises: NotFound."""
        return explain(self._turn, run, task)

    @property
    def placement(self) -> str:
        """The name of the policy (placement.selection)."""
        return self._turn.settings.placement

    def standing(self, run: Run) -> ShareRow:
        """What the run's user has of the fleet, and who goes first."""
        return standing(self._turn, run)

    def look_ahead(self, run: Run, now: float) -> Outlook:
        """What is left of a run, submitted or only sketched, as a problem of placement on the fleet as it is."""
        return look_ahead(self._turn, run, now, merged=True)

    def most_tasks(self, settings: RunSettings) -> int:
        """How many tasks a run with these settings may have."""
        most = self._turn.settings.max_tasks
        return min(settings.budget.tasks or most, most)

    def check(self) -> None:
        """G1 to G10, as far as one instant shows them. Raises: AssertionError with the story."""
        self._turn.state.check()
        self._turn.fleet.check()
        for keys in self._turn.state.live.values():
            for key in keys:
                check_trust(self._turn, *self._turn.located(key))

    def _route(self, turn: Turn, item: s.Stimulus) -> None:
        act = _REQUESTS.get(type(item))
        if act is not None:
            guarded(turn, item.reply, act, item)  # type: ignore[union-attr]
        elif isinstance(item, s.Flush):
            flush(turn, item.brief)
            if turn.serving:
                serve(turn)
        elif isinstance(item, s.Lull):
            lull(turn)
        elif isinstance(item, s.WorkerSent):
            received(turn, item.conn, item.worker, item.items, item.delivered)
        elif isinstance(item, s.WorkerJoined):
            joined(turn, item.conn, item.worker, item.hello)
        elif isinstance(item, s.WorkerGone):
            gone(turn, item.conn, item.worker, item.clean)
        elif isinstance(item, s.Tick):
            self._tick(turn)
        elif isinstance(item, s.PlanFinished):
            guarded(turn, 0, plan_finished, item)
        elif isinstance(item, s.Resolved):
            resolved(turn, item.run, item.task, item.key, item.value, item.found, item.error)
        elif isinstance(item, s.Foreseen):
            foreseen(turn, item)
        elif isinstance(item, s.StageAsked):
            stage(turn, item.reply, item.worker, item.run, item.uris)
        elif isinstance(item, s.DrainAsked):
            drain(turn, item.reply, item.worker, item.deadline_s)
        elif isinstance(item, s.WorkerDismissed):
            self._dismiss(turn, item.worker)
        elif isinstance(item, s.Refused):
            known = item.run in turn.state.runs
            run, task = (item.run, item.task) if known else (0, -1)
            turn.emit(e.PeerRefused(item.source, item.code, item.message, item.count, run, task, turn.now))
        elif isinstance(item, s.TakenBack):
            resumed(turn, item)
        elif isinstance(item, s.DiskState):
            turn.disk_full = item.full
        elif isinstance(item, s.Started):
            self._start(turn, item)
        else:
            raise TypeError(f"unknown stimulus {item!r}")

    def _start(self, turn: Turn, item: s.Started) -> None:
        """A new epoch over a replayed state: timers again, ready tasks again, lost planner calls asked again."""
        turn.emit(e.EpochStarted(max(item.epoch, turn.state.epoch + 1), item.journal))
        turn.started = True
        state = turn.state
        state.fresh, state.due = [], []
        turn.fleet.started_at = turn.now
        for worker in state.live:
            if state.live[worker]:
                turn.fleet.away[worker] = turn.now + lease_s(turn, state.workers[worker])
                turn.wake(turn.fleet.away[worker], "lease", worker)
        for run in list(state.runs.values()):
            if type(run.state) is Closed or run.aside:
                continue
            turn.focus = run.ix
            lost(turn, run)
            resume(turn, run)

    def _dismiss(self, turn: Turn, worker: int) -> None:
        record = turn.state.workers.get(worker)
        if record is None or record.gone:
            return
        session = turn.fleet.sessions.get(worker)
        if session is not None:
            turn.fleet.left(session)
            turn.command(c.Close(session.conn))
            owner_left(turn, session)
        for key in list(turn.state.live.get(worker, ())):
            run = turn.state.runs[key[0]]
            task = run.tasks[key[1]]
            attempt = task.attempt(key[2])
            assert attempt is not None
            failure = Failure("Lost", f"{record.name} left", "infra")
            end_attempt(turn, run, task, attempt, failure, Usage(), lost=True)
        turn.emit(e.WorkerForgotten(worker))
        turn.fleet.forget(worker)

    def _tick(self, turn: Turn) -> None:
        for kind, key in turn.due_timers():
            if kind == "silence":
                silent(turn, key[0])
            elif kind == "broken":
                broken(turn, key[0])
            elif kind == "lease":
                expired(turn, key[0])
            elif kind == "flush":
                pass  # the Flush after this turn looks again
            elif kind == "probe":
                probe(turn, key[0])
            elif kind == "planner":
                planner_timed_out(turn, key[0], key[1])
            elif kind == "claim":
                claim_over(turn, key[0], key[1])
            else:
                self._run_timer(turn, kind, key)

    @staticmethod
    def _run_timer(turn: Turn, kind: str, key: tuple[int, ...]) -> None:
        run = turn.state.runs.get(key[0])
        if run is None or run.aside:
            return
        turn.focus = run.ix
        if kind == "run_deadline":
            cancel_run(turn, run, "deadline", f"over its deadline of {run.settings.deadline_s:g} s", "TimedOut")
            return
        if kind == "run_wall":
            cancel_run(turn, run, "budget", f"over its budget of {run.settings.budget.wall_s:g} s", "BudgetSpent")
            return
        task = run.tasks[key[1]]
        if kind == "ready":
            enqueue(turn, run, task)
        elif kind == "displace":
            overdue(turn, run, task, key[2])
        elif kind == "due":
            turn.state.due.append((run.ix, task.ix))
        elif kind == "task_deadline":
            limit = deadline_of(run, task) if task.spec.deadline_s is not None else float("inf")
            if limit <= turn.now and not isinstance(task.state, Settled):
                cancel_task(turn, run, task, "over its deadline", code="TimedOut")
        elif (
            kind == "approval"
            and isinstance(task.state, AwaitingApproval | Waiting)
            and task.state.deadline
            and task.state.deadline <= turn.now
        ):
            if isinstance(task.state, Waiting):
                why = "its sub-plan took too long" if task.state.what == "plan" else "nobody answered in time"
                cancel_task(turn, run, task, why, code="TimedOut")
            else:
                fail(turn, run, task, "ApprovalLapsed", "nobody approved it in time")
