"""The answer of `bench cross-device` for a terminal: figures with their bounds, categories, faults, what went wrong.

Invariant: no number that the answer doesn't hold, and nothing that went wrong is left out. It must not know how
anything was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import fill
from typing import Final

from ..report import aligned
from .answer import APART, PUBLISHED, UFO, Answer, machine_words
from .figure import LEAST, MOST, Figures

SHARES: Final = ("task_success_rate", "subtask_completion_rate", "latency_reduction", "critical_path_ratio",
                 "engine_overhead", "planner_share")  # fmt: skip
WORDS: Final = {
    "tasks": "tasks", "plays": "plays", "task_success_rate": "tasks that succeeded",
    "subtask_completion_rate": "subtasks completed", "abstained": "planner abstained",
    "wrong_successes": "wrong results called a success", "mean_width": "mean width", "max_width": "largest width",
    "latency_s": "latency of all, s", "sequential_s": "one task after the other, s",
    "latency_reduction": "less latency than sequential", "twins": "  cases that it is the median of",
    "critical_path_ratio": "critical path in the latency", "engine_overhead": "engine on the critical path",
    "hop_ms": "  for each attempt on it, ms",
    "planner_share": "planner on the critical path", "bytes_moved": "bytes moved", "retries": "retries",
    "lost": "attempts lost", "hedges": "hedges", "replans": "re-plans", "recovery_s": "recovery, s",
    "recovery_max_s": "  at most, s",
}  # fmt: skip


def table(found: Answer) -> str:
    """Everything, blocks apart."""
    blocks = [_figures(found), _categories(found), _faults(found), _published(found), _failed(found)]
    wrong = f"called a success, and wrong: {', '.join(found.wrong)}" if found.wrong else ""
    problems = "\n".join(["not played, or not judged:", *(f"  {one}" for one in found.problems)])
    blocks += [wrong, problems if found.problems else "", machine_words(found.machine)]
    return "\n\n".join(filter(None, blocks))


def cell(name: str, value: float | None) -> str:
    """A figure as people read it; "-" for one that nothing was measured for."""
    if value is None:
        return "-"
    if name in SHARES:
        return f"{value:.1%}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


def bound(name: str) -> str:
    """What is promised of a figure in gold mode; "" for nothing."""
    if name in LEAST:
        return f">= {LEAST[name]:.0%}"
    return f"<= {MOST[name]:.0%}" if name in MOST else ""


def figure_rows(found: Answer) -> Iterator[tuple[str, str, str, str]]:
    """In words, the figure, its bound, and whether that was missed."""
    gold = found.suite.order.mode == "gold"
    for name, words in WORDS.items():
        value = getattr(found.figures, name)
        if value is not None and (value or name in (*SHARES, "tasks", "wrong_successes")):
            yield words, cell(name, value), bound(name) if gold else "", "missed" if name in found.missed else ""


CATEGORY: Final = ("tasks", "task_success_rate", "subtask_completion_rate", "mean_width", "max_width", "latency_s",
                   "sequential_s", "latency_reduction", "engine_overhead")  # fmt: skip
CATEGORY_HEAD: Final = ("category", "tasks", "succeeded", "subtasks", "width", "max", "latency s", "sequential s",
                        "less latency", "engine")  # fmt: skip


def category_rows(found: Answer) -> Iterator[tuple[str, ...]]:
    for name, one in [*found.categories.items(), ("all", found.figures)]:
        yield (name, *(cell(key, getattr(one, key)) for key in CATEGORY))


FAULT_HEAD: Final = ("fault", "tasks", "struck", "reached", "partial", "seconds", "without", "slower",
                     "recovery", "at most", "late", "lost", "retries", "hedges", "re-plans")  # fmt: skip


def fault_rows(found: Answer) -> Iterator[tuple[str, ...]]:
    """The fault-free row first."""
    if found.blows:
        calm = found.figures
        yield ("none", str(calm.tasks), "", cell("task_success_rate", calm.task_success_rate), "",
               cell("", calm.latency_s), "", "", "", "", "", *_made_good(calm))  # fmt: skip
    for one in found.blows:
        seen = one.figures
        slower = f"x {one.slower:.2f}" if one.slower is not None else "-"
        yield (one.fault, str(seen.tasks), str(one.struck), cell("task_success_rate", one.reached),
               str(len(one.partial)), cell("", seen.latency_s), cell("", one.beside_s), slower,
               cell("", seen.recovery_s), cell("", seen.recovery_max_s),
               str(len(one.late)), *_made_good(seen))  # fmt: skip


def fault_words(found: Answer) -> Iterator[tuple[str, str, str]]:
    """The fault, the task, and what is to be said of it."""
    for one in found.blows:
        for case, said in one.failed.items():
            yield one.fault, case, said
        for case, seconds in one.late.items():
            yield one.fault, case, f"recovered after {seconds:.2f} s, later than it may"
        for case in one.partial:
            yield one.fault, case, "ended as a named partial result, as it must"


def _made_good(found: Figures) -> tuple[str, ...]:
    return tuple(str(getattr(found, name)) for name in ("lost", "retries", "hedges", "replans"))


PUBLISHED_HEAD: Final = ("", "tasks", "succeeded", "subtasks", "width", "less latency")


def published_rows(found: Answer) -> Iterator[tuple[str, ...]]:
    """Ours beside theirs."""
    names = ("tasks", "task_success_rate", "subtask_completion_rate", "mean_width", "latency_reduction")
    yield (f"here, {found.suite.order.mode}", *(cell(name, getattr(found.figures, name)) for name in names))
    yield (UFO, *(cell(name, PUBLISHED[name]) for name in names))


def _figures(found: Answer) -> str:
    return aligned([("", "", "bound", ""), *figure_rows(found)], numbers=(1,))


def _categories(found: Answer) -> str:
    return aligned([CATEGORY_HEAD, *category_rows(found)], numbers=range(1, len(CATEGORY_HEAD)))


def _faults(found: Answer) -> str:
    if not found.blows:
        return ""
    shown = aligned([FAULT_HEAD, *fault_rows(found)], numbers=range(1, len(FAULT_HEAD)))
    return "\n".join([shown, *(f"  {fault}, {case}: {said}" for fault, case, said in fault_words(found))])


def _published(found: Answer) -> str:
    shown = aligned([PUBLISHED_HEAD, *published_rows(found)], numbers=range(1, len(PUBLISHED_HEAD)))
    return f"{shown}\n{fill(APART, 110)}"


def _failed(found: Answer) -> str:
    rows: Sequence[str] = [
        f"  {one.category}/{one.case}: {text}"
        for one in found.rows
        for text in one.why
        if not any(problem.endswith(text) for problem in found.problems)  # that is told below
    ]
    return "\n".join(["not reached:", *rows]) if rows else ""
