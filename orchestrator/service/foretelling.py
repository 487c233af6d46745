"""What was expected of a run beside what came true: the `forecast` of its report."""

from __future__ import annotations

from protocol.forecast_row import ForetoldRow

from ..core.eligibility import amounts
from ..core.fleet import Fleet
from ..core.graph import Attempt, Run, Task
from ..core.lifecycle import Closed
from ..core.state import State


def foretold(run: Run, state: State, fleet: Fleet) -> ForetoldRow | None:
    """What was expected of the run, and what came true; None where nothing was."""
    found = run.expected
    if found is None:
        return None
    took = run.settled_at - run.submitted_at if isinstance(run.state, Closed) else None
    paid = used = 0.0
    for task in run.tasks:
        attempt = task.winner() if task.succeeded and not task.reused else None
        session = fleet.sessions.get(attempt.worker) if attempt is not None else None
        device = session.device.get(attempt.device) if session is not None and attempt is not None else None
        if attempt is None or device is None or attempt.run_s < 0:
            continue
        held = attempt.run_s * _units(state, task, attempt)
        paid += held * device.price_per_s
        used += held * device.watts
    return ForetoldRow(
        found.policy,
        found.makespan_s,
        found.low_s,
        found.high_s,
        found.price,
        found.energy_j,
        error=took / found.makespan_s - 1.0 if took is not None and found.makespan_s > 0 else None,
        paid=paid if took is not None else None,
        used_j=used if took is not None else None,
    )


def _units(state: State, task: Task, attempt: Attempt) -> float:
    """Cores or cards that an attempt held."""
    spec = state.skill(attempt.skill or task.skill)
    variant = next((one for one in spec.variants if one.device == attempt.device), None) if spec is not None else None
    needs = amounts(task.spec.needs, variant) if variant is not None else {}
    return needs.get(attempt.device, needs.get("cpu", 0.0))
