"""Whether a re-plan gets anywhere: the same failure again, or a graph that was there before, is no progress.

Pure functions of the graph. Ids don't count for a failure: the same work under another name is the same work.
"""

from __future__ import annotations

import hashlib

import msgspec

from .graph import Run, Task

_ENCODER = msgspec.msgpack.Encoder(order="deterministic")


def failure_digest(task: Task, code: str) -> bytes:
    """What makes a failure the same one: the skill, its arguments and how it failed."""
    return hashlib.blake2b(_ENCODER.encode((task.skill, task.spec.args, code)), digest_size=16).digest()


def graph_digest(run: Run) -> bytes:
    """What the graph is, whatever became of it so far: every task that was not taken out of it, and the outputs."""
    found = hashlib.blake2b(_ENCODER.encode(run.outputs), digest_size=16)
    for name in sorted(run.names):
        task = run.tasks[run.names[name]]
        if not (task.state_is("cancelled") and task.state.code == "Removed"):  # type: ignore[union-attr]
            found.update(_ENCODER.encode(task.spec))
    return found.digest()
