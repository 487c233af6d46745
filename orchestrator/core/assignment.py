"""What an attempt is sent as: its work, its inputs, its fence and pin, and the approval it has. Pure."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from protocol.frame import Assign, WorkSpec
from protocol.ids import AttemptId, Fence
from protocol.skill import SkillSpec
from protocol.task import Effect

from .binding import Bound
from .graph import Attempt, Run, Task
from .turn import Turn

_ENCODER: Final = msgspec.json.Encoder()
_KINDS: Final = 256


def assign(
    turn: Turn, run: Run, task: Task, spec: SkillSpec, number: int, fence: Fence, bound: Bound, device: str,
    needs: dict[str, float],
) -> Assign:  # fmt: skip
    """The Assign of one attempt; also what is sent once more when the first got lost."""
    effect = turn.stricter(spec, task)
    head, tail = _around(turn, task, spec, device, effect, task.attempt(number), needs)
    key = ""
    if effect != "pure":
        key = hashlib.sha256(f"{turn.state.journal}/{run.ix}/{task.ix}/".encode() + bound.pin).hexdigest()[:32]
    approval = task.approved if task.approved == bound.pin else b""
    return Assign(
        AttemptId(run.ix, task.ix, number), fence, bound.pin, head + task.spec.args + tail,
        f"r{run.ix}/{task.spec.id if task.parent < 0 else run.name_of(task)}#{number}", bound.inputs, bound.items, (),
        key, approval,
    )  # fmt: skip


def _around(
    turn: Turn, task: Task, spec: SkillSpec, device: str, effect: Effect, attempt: Attempt | None,
    needs: dict[str, float],
) -> tuple[bytes, bytes]:  # fmt: skip
    """What stands before and behind the arguments in the task's WorkSpec: all of a kind share it."""
    skill, timeout_s = task.skill, min(spec.timeout_s, task.spec.timeout_s or spec.timeout_s)
    digest = turn.state.digests[skill]
    tokens, price = (attempt.tokens, attempt.price) if attempt is not None else (0, 0.0)
    key = skill, digest, device, effect, timeout_s, tokens, price, id(needs)
    found = turn.around.get(key)
    if found is None or found[0] is not needs:
        data = _ENCODER.encode(
            WorkSpec(
                skill, digest, msgspec.Raw(b"null"), device, effect, timeout_s, needs.get("cpu", 0.0),
                int(needs.get("memory", 0)), needs.get("gpu", 0.0), int(needs.get("vram", 0)), tokens, price,
            )
        )  # fmt: skip
        head, name, rest = data.partition(b',"args":')  # in no text of JSON is a quote without a backslash
        if len(turn.around) >= _KINDS:
            turn.around.clear()
        found = turn.around[key] = needs, head + name, rest.removeprefix(b"null")
    return found[1:]
