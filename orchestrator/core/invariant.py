"""The invariants of graph.md, G1 to G10, as far as one instant of the durable state shows them.

G5 (replay equals live) compares two states, G6 and G9 (nothing lost, applied twice or inadmissible) compare two
instants: the tests do that with `State.snapshot`. G7 is the fleet's (`Session.check`).
"""

from __future__ import annotations

from .graph import Run, Task
from .lifecycle import AwaitingApproval, Closed, Expanded, Open, Pending, Ready, Running, Settled, Unknown, Waiting


class _Story:
    """What a broken invariant tells of its task; put into words only then."""

    __slots__ = ("run", "task")

    def __init__(self, run: Run, task: Task) -> None:
        self.run = run
        self.task = task

    def __str__(self) -> str:
        return f"{self.run.name}/{self.run.name_of(self.task)} {self.task.state} {self.task.attempts}"


def check_run(run: Run) -> None:
    """Raises: AssertionError with the invariant, the task and its story."""
    unsettled = 0
    for task in run.tasks:
        story = _Story(run, task)
        unsettled += not task.final
        _order(run, task, story)
        _life(run, task, story)
        waits = _waits(run, task)
        assert task.waits == waits or type(task.state) is not Pending, f"G2: waits {task.waits}, not {waits}: {story}"
    assert run.unsettled == unsettled, f"G8: {run.name} counts {run.unsettled} open tasks, has {unsettled}"
    spend, budget = run.spend, run.settings.budget
    assert spend.lent_tokens == sum(one.tokens for task in run.tasks for one in task.live()), f"G10: {run.name} lends"
    if not run.cancelled and type(run.state) is not Closed:  # over it: it is being stopped
        for what, left in (("tokens", spend.tokens_left(budget)), ("price", spend.price_left(budget))):
            assert left is None or left >= -1e-6, f"G10: {run.name} is over its {what} by {-left:g}"
    if type(run.state) is Closed:
        assert not unsettled, f"G8: {run.name} is settled with {unsettled} open tasks"
    elif type(run.state) is Open:
        assert not run.tasks or not run.planned or run.calls or unsettled, f"G8: {run.name} has stalled"


def _order(run: Run, task: Task, story: _Story) -> None:
    wiring = task.wiring
    for up in (*wiring.upstreams(), *wiring.chain):
        assert run.order[up] < run.order[task.ix] or task.parent >= 0, f"G1: {run.tasks[up].spec.id} not before {story}"


def _waits(run: Run, task: Task) -> int:
    wiring = task.wiring
    if task.parent >= 0:
        return 0 if not wiring.chain else task.waits
    waits = sum(not run.tasks[up].final for up in wiring.upstreams())
    return waits + sum(not (run.tasks[up].final or run.tasks[up].spread) for up in wiring.chain)


def _life(run: Run, task: Task, story: _Story) -> None:
    live = task.live()
    state = task.state
    kind = type(state)
    if kind in (Pending, Expanded):
        assert not live, f"G2: runs before its upstreams are final: {story}"
    if kind in (Ready, Running, Waiting, AwaitingApproval, Unknown) and task.parent < 0:
        assert all(run.tasks[up].final for up in task.wiring.upstreams()), f"G2: upstreams are open: {story}"
    if kind is Running:
        assert task.attempts, f"G8: runs without an attempt: {story}"
        assert live, f"G8: runs without a live attempt: {story}"
    assert len([one for one in live if not one.hedge]) <= 1 or isinstance(state, Settled), f"G3: two lives: {story}"
    if isinstance(state, Settled) and state.state == "succeeded" and state.winner:
        winner = task.attempt(state.winner)
        assert winner is not None, f"G3: its winner is missing: {story}"
        assert winner.ended == "succeeded", f"G3: its winner did not succeed: {story}"
    if len(task.attempts) < 2:
        return
    fences = [attempt.fence for attempt in task.attempts]
    assert len(set(fences)) == len(fences), f"G6: a fence was issued twice: {story}"
