"""Everything that goes wrong at a model's server, against the real planner over real HTTP: does each call end, and how?

Each case is one call with short deadlines. It hangs if it hasn't ended some seconds after its deadline; it ended
wrongly if a task came out that was not in the plan, one was lost that was written before the fault, or the outcome is
none of those that the fault allows. It must not know how the planner does it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import anyio
import msgspec

from planner.llm_planner import LlmPlanner
from planner.scripted.dialogue import Fault, Turn
from planner.scripted.mishap import mishaps
from planner.scripted.server import ScriptedServer
from planner.view import PlanView
from protocol.builtin import BUILTINS
from protocol.chat_client import open_chat
from protocol.setting import LlmDefaults

from .call import Called, call
from .sample import Document, good, task_ends, text_of
from .truth import Truth, judge

DEADLINE_S: Final = 6.0
SILENT_S: Final = 1.5
AT_ONCE: Final = 8
PROFILES: Final = ("openai", "vllm", "llama.cpp", "ollama", "generic")
RATE: Final = 400.0
_TOKEN: Final = 16
"""Characters: fewer of them would make the machine the slowest part."""
_SPLIT: Final = 17
"""Bytes, where a stream is cut anywhere."""
_LATE: Final = 0.6
"""Where in the text the late faults come: after some tasks."""

HANGS: Final = "hangs"
_WHOLE: Final = frozenset({"complete"})
_NO_PLAN: Final = frozenset({"failed", "refused", "abstained", "unaffordable"})
_ALLOWED: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys(
        ("no [DONE]", "CRLF", "bytes cut anywhere", "one document though a stream was asked for",
         "stall after the last token", "cut after the last token", "no finish reason",
         "no finish reason and no [DONE]"), _WHOLE,
    ),
    **dict.fromkeys(("truncated", "filtered"), frozenset({"complete", "truncated"})),
    **dict.fromkeys(("empty", "blank", "prose", "empty plan", "endless blanks"), _NO_PLAN),
    "refusal": frozenset({"refused"}),
    "endless": frozenset({"complete", "truncated"}),
    "event of another shape": frozenset({"complete", "failed"}),
}  # fmt: skip
"""By fault: how a call may end; failed where nothing is said here."""


class Cell(msgspec.Struct, frozen=True):
    """One fault of one kind of server. `wrong`: "" or what should not be."""

    fault: str
    profile: str
    outcome: str
    message: str
    seconds: float
    tasks: int
    wrong: str = ""


class Matrix(msgspec.Struct, frozen=True):
    cases: int
    hangs: int
    wrong: int
    slowest_s: float
    deadline_s: float
    cells: tuple[Cell, ...]


def turns(plan: Document) -> Iterator[tuple[str, Turn, int]]:
    """Each fault: its name, the reply, how many tasks are surely written before it."""
    text = text_of(plan)
    base = Turn(text=text, rate=RATE, token_chars=_TOKEN, times=0)
    for name, turn in mishaps(base).items():
        yield name, msgspec.structs.replace(turn, split=min(turn.split * _SPLIT, _SPLIT)), 0
    at = int(len(text) * _LATE)
    written = sum(end <= at - base.token_chars for end in task_ends(text, plan))
    for kind in ("stall", "cut", "reset", "garbage", "error", "broken", "hollow"):
        fault = Fault(kind, at // base.token_chars)
        yield f"{kind} after {written} tasks", msgspec.structs.replace(base, faults=(fault,)), written


async def matrix(profiles: Sequence[str], *, each: bool) -> Matrix:
    """Every fault; with `each` on every profile, else each on one of them in turn."""
    plan = good(4, 6)
    cases = list(turns(plan))
    wanted = [
        (*case, profile)
        for number, case in enumerate(cases)
        for profile in (profiles if each else (profiles[number % len(profiles)],))
    ]
    cells: dict[int, Cell] = {}
    room = anyio.Semaphore(AT_ONCE)

    async def one(number: int, name: str, turn: Turn, written: int, profile: str) -> None:
        async with room:
            async with ScriptedServer(lambda asked: turn, profile) as server:
                called = await call(_planner(server.base_url), PlanView("go", skills=BUILTINS, deadline_s=DEADLINE_S))
            cells[number] = _cell(name, profile, called, plan, written)

    async with anyio.create_task_group() as group:
        for number, (name, turn, written, profile) in enumerate(wanted):
            group.start_soon(one, number, name, turn, written, profile)
    found = tuple(cells[number] for number in sorted(cells))
    return Matrix(
        cases=len(found),
        hangs=sum(cell.outcome == HANGS for cell in found),
        wrong=sum(bool(cell.wrong) for cell in found),
        slowest_s=round(max(cell.seconds for cell in found), 3),
        deadline_s=DEADLINE_S,
        cells=found,
    )


def _planner(base_url: str) -> LlmPlanner:
    """Its model may be silent for SILENT_S, and no other planner stands behind it."""
    return LlmPlanner(open_chat(LlmDefaults(base_url=base_url, first_token=SILENT_S, stall=SILENT_S), {}))


def _cell(name: str, profile: str, called: Called, plan: Document, written: int) -> Cell:
    ids = [task["id"] for task in plan["tasks"]]
    verdict = judge(Truth(plan, frozenset(ids[:written]), frozenset(ids)), called.tasks, called.outputs)
    wrong = [*verdict.false_accepts, *(f"{one}: lost" for one in verdict.lost)]
    outcome = called.outcome
    if outcome is None:
        wrong.append("it did not end")
    elif outcome.kind not in (allowed := _allowed(name, written)):
        wrong.append(f"{outcome.kind}, not {' or '.join(sorted(allowed))}")
    elif outcome.kind != "complete" and not outcome.message:
        wrong.append("nobody was told why")
    return Cell(
        fault=name,
        profile=profile,
        outcome=HANGS if outcome is None else outcome.kind,
        message="" if outcome is None else outcome.message,
        seconds=round(called.seconds, 3),
        tasks=len(called.tasks),
        wrong="; ".join(wrong),
    )


def _allowed(name: str, written: int) -> frozenset[str]:
    return frozenset({"truncated"}) if written else _ALLOWED.get(name, frozenset({"failed"}))
