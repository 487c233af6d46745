"""What an attempt is expected to take: the task and the device in the predictor's terms.

One place says how a task, a session and a device become its keys, so that what is noted is what is asked for.
"""

from __future__ import annotations

from protocol.artifact import ArtifactRef

from ..placement.predictor import Prediction
from .fleet import Session
from .graph import Run, Task
from .turn import Turn


def expected(turn: Turn, session: Session, skill: str, device: str, input_bytes: int = 0) -> Prediction:
    """What one attempt of the skill is expected to take there."""
    kind, speed = session.device_class.get(device, device), session.speed.get(device, 1.0)
    return turn.predictor.predict(skill, kind, session.worker, speed, input_bytes)


def noted(
    turn: Turn, session: Session, skill: str, device: str, input_bytes: int, run_s: float,
    predicted: Prediction | None = None,
) -> None:  # fmt: skip
    """An attempt of the skill has succeeded there; it was `predicted` so."""
    kind, speed = session.device_class.get(device, device), session.speed.get(device, 1.0)
    turn.predictor.note(skill, kind, session.worker, speed, input_bytes, run_s, predicted)


def input_bytes(run: Run, task: Task) -> int:
    """How large the values are that the task is given by other tasks."""
    found = 0
    for ix in task.wiring.needs:
        value = run.tasks[ix].value
        if value is not None:
            found += value.size if isinstance(value, ArtifactRef) else len(value)
    return found
