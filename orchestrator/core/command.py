"""Effects the core asks for, imperative. Each is idempotent at its receiver: after a crash it may be repeated.

`after_commit` commands leave only once the events of the same and all earlier decisions are on disk.
"""

from __future__ import annotations

from typing import Any

import msgspec

from protocol.artifact import ArtifactRef
from protocol.digest import Digest, Fact
from protocol.frame import ToWorker

from ..placement.predictor import Outcome


class _Command(msgspec.Struct, frozen=True, gc=False):
    pass


class Send(_Command, frozen=True):
    """Put `item` on the worker stream `conn`; dropped if that stream is gone."""

    conn: int
    item: ToWorker
    after_commit: bool = False


class Close(_Command, frozen=True):
    """End the stream after everything sent before has left."""

    conn: int
    after_commit: bool = False


class Reply(_Command, frozen=True):
    """Answer request `reply` of the engine: `value` (builtins), or `error` a wire error."""

    reply: int
    value: Any = None
    error: dict[str, Any] | None = None
    after_commit: bool = True


class Resolve(_Command, frozen=True):
    """Read an artifact's JSON at `pointer`: what="value" or "length" of the list there. Answered with Resolved."""

    run: int
    task: int
    key: str
    ref: ArtifactRef
    pointer: tuple[str, ...]
    what: str
    after_commit: bool = False


class StartPlanner(_Command, frozen=True):
    """Run the planner for `call`; `digest` describes what a re-plan needs to know (None: a first plan). `goal`,
    `trusted` and `facts` are those of the view."""

    run: int
    call: int
    request: str
    deadline: float
    digest: Digest | None = None
    goal: str = ""
    trusted: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = ()
    after_commit: bool = True


class StopPlanner(_Command, frozen=True):
    run: int
    call: int
    after_commit: bool = False


class Keep(_Command, frozen=True):
    """Store what came true of predictions: knowledge of the fleet, never state."""

    outcomes: list[Outcome]
    after_commit: bool = False


class Foresee(_Command, frozen=True):
    """Foretell the course of a run. Answered with Foreseen, or not at all."""

    run: int
    after_commit: bool = False


class Count(_Command, frozen=True):
    """Something inadmissible was dropped: a counter for people, never state."""

    name: str
    after_commit: bool = False


class Refuse(_Command, frozen=True):
    """A peer said what it may not: for the refusal desk, which counts it as `code` too. `run` 0: no run's."""

    source: str
    code: str
    message: str = ""
    run: int = 0
    task: int = -1
    after_commit: bool = False


Command = Send | Close | Reply | Resolve | StartPlanner | StopPlanner | Foresee | Count | Refuse | Keep


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What the machine concluded from one stimulus: `events` are facts for the journal, `commands` for the shell."""

    events: tuple[Any, ...]
    commands: tuple[Any, ...]
