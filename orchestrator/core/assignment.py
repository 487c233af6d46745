"""What an attempt is sent as: its work, its inputs, its fence and pin, and the approval it has. Pure."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from protocol.frame import Assign, WorkSpec
from protocol.ids import AttemptId, Fence
from protocol.skill import SkillSpec

from .binding import Bound
from .graph import Run, Task
from .turn import Turn

_ENCODER: Final = msgspec.json.Encoder()


def assign(
    turn: Turn, run: Run, task: Task, spec: SkillSpec, number: int, fence: Fence, bound: Bound, device: str,
    needs: dict[str, float],
) -> Assign:  # fmt: skip
    """The Assign of one attempt; also what is sent once more when the first got lost."""
    skill, timeout_s = task.skill, min(spec.timeout_s, task.spec.timeout_s or spec.timeout_s)
    effect = turn.stricter(spec, task)
    work = _ENCODER.encode(
        WorkSpec(
            skill, turn.state.digests[skill], msgspec.Raw(task.spec.args), device, effect, timeout_s,
            needs.get("cpu", 0.0), int(needs.get("memory", 0)), needs.get("gpu", 0.0), int(needs.get("vram", 0)),
            *((attempt.tokens, attempt.price) if (attempt := task.attempt(number)) is not None else ()),
        )
    )  # fmt: skip
    key = ""
    if effect != "pure":
        key = hashlib.sha256(f"{turn.state.journal}/{run.ix}/{task.ix}/".encode() + bound.pin).hexdigest()[:32]
    ident = AttemptId(run.ix, task.ix, number)
    name = turn.name(run, task, number)
    approval = task.approved if task.approved == bound.pin else b""
    return Assign(ident, fence, bound.pin, work, name, bound.inputs, bound.items, (), key, approval)
