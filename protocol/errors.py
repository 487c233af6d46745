"""The one error tree: what happened, why, and what to do about it.

    AsterismError                 .code .hint .exit_code .where .partial
    +-- UsageError                2   bad input: nothing was changed
    |   +-- PlanRefused           2   .problems: every problem of a plan or patch at once
    |   +-- PlannerAbstained      2   no skill serves the request
    |   +-- SchemaMismatch        2   a value does not fit its schema
    |   +-- ConfigInvalid         2
    |   +-- CalledWhileLoading    2   run() at import time of a skill module
    +-- PlannerFailed             1   the planner gave no plan: its model is away, silent or out of its mind
    +-- NotFound                  3
    +-- NotAllowed                4   no credential, wrong role, refused by policy
    |   +-- NotYours              4   a worker reads what no attempt at it needs
    +-- ServerUnreachable         5
    +-- VersionMismatch           9
    +-- Conflict                  2   an optimistic edit lost the race
    +-- RunFailed                 1   .partial: the report of what was reached
    |   +-- NoEligibleWorker      6
    |   +-- DeadlineTooShort      6   said before the start; .partial: the forecast
    |   +-- BudgetSpent           7
    |   +-- AwaitingApproval      8
    |   +-- TimedOut              124
    |   +-- Interrupted           130
    +-- SkillFailed               1   what a skill raises: its `klass` decides the next means (permanent: the next alt)
    |   +-- TryAgain              1   klass transient: another attempt may do better
    |   +-- NeedsApproval         1   klass policy: a person has to allow it first
    |   +-- SecretDenied          1   the worker's settings hand this skill no such secret
    |   +-- SecretMissing         1   the worker has no secret of that name
    |   +-- ModelUnavailable      1   klass transient: the model's server is busy, silent, cut off or broken
    |   +-- ModelUnusable         1   the worker's settings name a model that can't be asked: key, name, URL
    |   +-- ModelRefused          1   the model, or its server, will not answer this
    |   +-- AnswerInvalid         1   a model's answer does not fit, also after it was told why
    |   +-- ContextExceeded       1   more than a model takes at once
    |   +-- AgentStuck            1   an agent makes the same call again and again
    +-- WireError                 5   a frame that can't be decoded or is out of place
    +-- JournalCorrupt            1   a record whose checksum is wrong: names its seq
    +-- JournalBusy               5   another server owns the journal
    +-- Unavailable               5   the far side can't do it now (disk full, draining)
    |   +-- Overloaded            5   it could in a moment: its disk is behind
    |   +-- DiskFull              5   a disk of this machine takes no more
    +-- InternalError             1   a defect of ours: nothing was changed; names a reference

Errors cross processes as `to_wire` / `from_wire` dictionaries; the tree and the codes are the contract.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

import msgspec


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One defect of a plan, patch or argument: `code` is stable, `where` a path into the document."""

    code: str
    where: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        fix = f" (fix: {self.fix})" if self.fix else ""
        return f"{self.code} at {self.where}: {self.message}{fix}"


class AsterismError(Exception):
    """Base of every error a person or a caller may see.

    `message` says what and why, `hint` what to do; `code` is stable and documented; `partial` is what was
    reached before the error (a report), if anything.
    """

    code: ClassVar[str] = "Error"
    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        ref: str = "",
        where: str = "",
        problems: Sequence[Problem] = (),
        partial: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.ref = ref
        self.where = where
        self.problems = tuple(problems)
        self.partial = partial

    def __str__(self) -> str:
        lines = [self.message, *(f"  - {problem}" for problem in self.problems)]
        if self.hint:
            lines.append(f"  fix: {self.hint}")
        return "\n".join(lines)

    def to_wire(self) -> dict[str, Any]:
        """The `error` object of cli.md; also what travels between processes."""
        wire: dict[str, Any] = {"code": self.code, "ref": self.ref, "message": self.message, "hint": self.hint}
        if self.where:
            wire["where"] = self.where
        if self.problems:
            wire["problems"] = [msgspec.to_builtins(problem) for problem in self.problems]
        return wire


class UsageError(AsterismError):
    code = "Usage"
    exit_code = 2


class PlanRefused(UsageError):
    code = "PlanRefused"


class PlanTooLarge(PlanRefused):
    code = "PlanTooLarge"


class PlannerAbstained(UsageError):
    code = "PlannerAbstained"


class PlannerFailed(AsterismError):
    code = "PlannerFailed"


class SchemaMismatch(UsageError):
    code = "SchemaMismatch"


class ConfigInvalid(UsageError):
    code = "ConfigInvalid"


class CalledWhileLoading(UsageError):
    code = "CalledWhileLoading"


class Conflict(UsageError):
    code = "Conflict"


class NotFound(AsterismError):
    code = "NotFound"
    exit_code = 3


class NotAllowed(AsterismError):
    code = "NotAllowed"
    exit_code = 4


class NotYours(NotAllowed):
    code = "NotYours"


class ServerUnreachable(AsterismError):
    code = "ServerUnreachable"
    exit_code = 5


class SkillFailed(AsterismError):
    """A skill's own failure. `klass` is one of outcome.FailureClass and drives what happens next."""

    code = "SkillFailed"
    klass: ClassVar[str] = "permanent"


class TryAgain(SkillFailed):
    code = "TryAgain"
    klass = "transient"


class NeedsApproval(SkillFailed):
    code = "NeedsApproval"
    klass = "policy"


class SecretDenied(SkillFailed):
    code = "SecretDenied"


class SecretMissing(SkillFailed):
    code = "SecretMissing"


class ModelUnavailable(TryAgain):
    code = "ModelUnavailable"


class ModelUnusable(SkillFailed):
    code = "ModelUnusable"


class ModelRefused(SkillFailed):
    code = "ModelRefused"


class AnswerInvalid(SkillFailed):
    code = "AnswerInvalid"


class ContextExceeded(SkillFailed):
    code = "ContextExceeded"


class AgentStuck(SkillFailed):
    code = "AgentStuck"


class WireError(AsterismError):
    code = "WireError"
    exit_code = 5


class JournalBusy(AsterismError):
    code = "JournalBusy"
    exit_code = 5


class Unavailable(AsterismError):
    code = "Unavailable"
    exit_code = 5


class DiskFull(Unavailable):
    code = "DiskFull"


class InternalError(AsterismError):
    code = "InternalError"


class Overloaded(Unavailable):
    code = "Overloaded"


class JournalCorrupt(AsterismError):
    code = "JournalCorrupt"


class VersionMismatch(AsterismError):
    code = "VersionMismatch"
    exit_code = 9


class RunFailed(AsterismError):
    code = "RunFailed"


class NoEligibleWorker(RunFailed):
    code = "NoEligibleWorker"
    exit_code = 6


class DeadlineTooShort(RunFailed):
    """A deadline that can't be met, said before anything starts. `partial` is the forecast (protocol/forecast_row)."""

    code = "DeadlineTooShort"
    exit_code = 6

    def to_wire(self) -> dict[str, Any]:
        return {**super().to_wire(), "forecast": self.partial}


class BudgetSpent(RunFailed):
    code = "BudgetSpent"
    exit_code = 7


class AwaitingApproval(RunFailed):
    code = "AwaitingApproval"
    exit_code = 8


class TimedOut(RunFailed):
    code = "TimedOut"
    exit_code = 124


class Interrupted(RunFailed):
    code = "Interrupted"
    exit_code = 130


def _tree(root: type[AsterismError]) -> dict[str, type[AsterismError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


CODES = frozenset(_tree(AsterismError))
"""Every code of the tree."""


def from_wire(wire: object) -> AsterismError:
    """Rebuild an error that `to_wire` made; an unknown code becomes the base class with the code in its text.

    Total: whatever the far side wrote there, it becomes an error.
    """
    if not isinstance(wire, Mapping):
        return AsterismError(f"an error that can't be read: {wire!r:.200}")
    kind = _tree(AsterismError).get(str(wire.get("code", "")))
    message = str(wire.get("message", "unknown error"))
    problems: list[Problem] = []
    listed = wire.get("problems")
    for problem in listed if isinstance(listed, list | tuple) else ():
        with suppress(msgspec.ValidationError):
            problems.append(msgspec.convert(problem, Problem))
    if kind is None:
        kind, message = AsterismError, f"{wire.get('code')}: {message}"
    return kind(
        message,
        hint=str(wire.get("hint", "")),
        ref=str(wire.get("ref", "")),
        where=str(wire.get("where", "")),
        problems=problems,
        partial=forecast if isinstance(forecast := wire.get("forecast"), Mapping) else None,
    )
