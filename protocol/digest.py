"""What a planner is told of a run under way: typed state, never a word that a worker wrote.

Invariant: whatever workers report, a digest holds only ids and names that people and planners chose, skills of the
catalog, words of closed sets (states, types, codes), numbers, and values that a skill's result schema declares as
enum, number or bool. It is rendered in orchestrator.core.digest and capped there; it must not know runs.
"""

from __future__ import annotations

import builtins
from typing import Any, Final, Literal

import msgspec

from .errors import CODES

Kind = Literal["plan", "replan", "review", "propose", "next"]
MOST_TASKS: Final = 64
MOST_BYTES: Final = 16 * 1024
"""JSON of a whole digest; tasks that don't fit are counted as omitted."""
MOST_WORDS: Final = 64
"""Characters of an enum value: a longer one is a text, whoever declared it."""
Scalar = bool | int | float | str

_FAILURES: Final = frozenset((
    "ApprovalLapsed", "ArtifactUnreadable", "BadReport", "BadResult", "BadSpec", "BadValue", "CallRefused",
    "Cancelled", "Draining", "Fenced", "HandedBack", "HostDied", "HostFailed", "Lost", "MapTooLarge", "MapType",
    "NoSandbox", "NoSuchSkill", "NotApproved", "OutboxFull", "Poison", "PolicyDenied", "RefMissing", "Rejected",
    "Stopped", "SubPlanFailed", "Timeout", "UnknownOutcome", "UnknownSkill", "UpstreamFailed", "ValueTooLarge",
    "WhenType", "ConditionNotHeld", "ElementSkipped", "Removed",
))  # fmt: skip
_RAISED: Final = frozenset(
    name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, Exception)
)


def known_code(code: str) -> str:
    """The code if it is one of ours or of Python's own exceptions; any other is a worker's word: SkillFailed."""
    return code if not code or code in CODES or code in _FAILURES or code in _RAISED else "SkillFailed"


class ResultDigest(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came out of a task. `type` is a JSON type, `size` in bytes; `items` of a list, `fields` as declared."""

    type: str
    size: int = 0
    items: int = -1
    fields: dict[str, Scalar] = {}


class TaskDigest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One task. `held`: claimed for this call, so that it may be replaced, retried or given up. `needs`: the tasks that
    it waits for; `alt`: fallback skills not tried yet; `children` of a map, by state."""

    id: str
    skill: str
    state: str
    code: str = ""
    attempts: int = 0
    held: bool = False
    needs: tuple[str, ...] = ()
    alt: tuple[str, ...] = ()
    children: dict[str, int] = {}
    result: ResultDigest | None = None


class OutputDigest(msgspec.Struct, frozen=True):
    """An output that is wanted, where it comes from, and the state of that task."""

    name: str
    ref: str
    state: str


class Fact(msgspec.Struct, frozen=True, omit_defaults=True):
    """A value that plan.next hands on, to be named as `input/NAME`. `value` (JSON) only where it may be shown."""

    name: str
    type: str
    size: int = 0
    items: int = -1
    value: bytes | None = None


class Digest(msgspec.Struct, frozen=True, omit_defaults=True):
    """What happened, and what is left.

    `kind`: plan (a first plan that a restart cut off: go on with it), replan (`failed` are open failures), review
    (nothing has failed; how far it is), propose (a running task asked for more), next (a further round of plan.next).
    `base` is the version to write against. `states` counts all tasks of the run. What is left is None without a cap.
    """

    kind: Kind
    base: int
    failed: tuple[str, ...] = ()
    tasks: tuple[TaskDigest, ...] = ()
    omitted: int = 0
    states: dict[str, int] = {}
    outputs: tuple[OutputDigest, ...] = ()
    rounds_left: int = 0
    edits_left: int = 0
    tasks_left: int = 0
    attempts_left: int | None = None
    wall_left_s: float | None = None

    def document(self) -> dict[str, Any]:
        """As plain JSON values, for a prompt."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found
