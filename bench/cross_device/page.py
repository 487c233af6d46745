"""The answer of `bench cross-device` as one HTML file: figures, categories, faults, and every case as it ran.

Invariant: self-contained, no number that the answer doesn't hold, and what went wrong stands by name where it counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from ..chart import Bar, Span, bars, gantt
from ..page import Section, write_page
from .answer import APART, UFO, Answer, document, machine_words
from .case import MACHINES
from .figure import LEAST, MOST, why
from .play import Play
from .table import (
    CATEGORY_HEAD,
    FAULT_HEAD,
    PUBLISHED_HEAD,
    category_rows,
    cell,
    fault_rows,
    fault_words,
    figure_rows,
    published_rows,
)

SHOWN: Final = 4
"""Cases whose course is open from the start."""
PARTS: Final = {
    "work": "tasks at work", "bring": "inputs fetched", "link": "words under way", "planner": "a planner wrote",
    "person": "a person was asked", "again": "attempts again", "engine": "the engine",
}  # fmt: skip


def keep(found: Answer, folder: Path) -> None:
    """The answer and its page as files of this folder. Raises: UsageError when they can't be written."""
    write_suite(found, folder / "report.html")
    (folder / "answer.json").write_bytes(msgspec.json.format(msgspec.json.encode(document(found)), indent=2))


def write_suite(found: Answer, path: Path) -> None:
    """Raises: UsageError when the file can't be written."""
    order = found.suite.order
    times = f", {order.repeat} times each" if order.repeat > 1 else ""
    what = f"{found.figures.tasks} tasks, planner: {order.mode}, seed {order.seed}{times}"
    about = f"{what}. {machine_words(found.machine)}."
    write_page(path, "Tasks across five machines", about, _sections(found))


def _sections(found: Answer) -> Iterator[Section]:
    if found.problems:
        rows = [("",), *((one,) for one in found.problems)]
        yield Section("Not played, or not judged", "The rest went on without these.", rows=rows)
    if found.wrong:
        yield Section("Called a success, and wrong", ", ".join(found.wrong))
    yield Section("Figures", rows=[("", "measured", "promised", ""), *figure_rows(found)])
    yield Section("Beside published figures", f"{UFO}. {APART}", rows=[PUBLISHED_HEAD, *published_rows(found)])
    if found.figures.shares:
        shares = [Bar(PARTS[name], 100 * share, own=name == "engine") for name, share in found.figures.shares.items()]
        text = "Of the way through each run that decided when it ended, over all runs without a fault."
        chart = bars("Parts of the latency", "% of the latency", shares, bound=100 * MOST["engine_overhead"])
        yield Section("What the time went by", text, (chart,))
    yield Section("Categories", charts=tuple(_categories(found)), rows=[CATEGORY_HEAD, *category_rows(found)])
    yield from _faults(found)
    yield from _cases(found)


def _categories(found: Answer) -> Iterator[str]:
    gained = {name: one.latency_reduction for name, one in found.categories.items()}
    rows = [Bar(name, 100 * share, own=True) for name, share in gained.items() if share is not None and share >= 0]
    if rows:
        yield bars(
            "Less latency than one task after the other", "% less latency than one task after the other, median", rows,
            bound=100 * LEAST["latency_reduction"],
        )  # fmt: skip
    reached = [
        Bar(name, 100 * one.task_success_rate, own=True)
        for name, one in found.categories.items()
        if one.task_success_rate is not None
    ]
    if reached:
        yield bars("Tasks that succeeded", "% of tasks that succeeded", reached)


def _faults(found: Answer) -> Iterator[Section]:
    if not found.blows:
        return
    slower = [Bar(one.fault, one.slower, own=True) for one in found.blows if one.slower is not None]
    charts = (bars("Latency under a fault", "times the latency without it, median", slower, bound=1.0),)
    text = (
        "Each fault over the chosen tasks, beside the same tasks without it. What can't be done without a machine that "
        "is gone has to end as a partial result that names what is missing."
    )
    yield Section("Faults", text, charts if slower else (), [FAULT_HEAD, *fault_rows(found)])
    if said := [*fault_words(found)]:
        yield Section("Under a fault, by name", rows=[("fault", "task", ""), *said])


def _cases(found: Answer) -> Iterator[Section]:
    failed = [(one.category, one.case, text) for one in found.rows for text in one.why]
    if failed:
        yield Section("Not reached", rows=[("category", "task", "why"), *failed])
    pairs = _pairs(found.calm)
    titles = {case.name: case.title for case in found.suite.cases}
    open_ones = _telling(pairs)
    yield Section(
        "How they ran",
        "Lanes are machines, blocks are attempts; one colour is one task, faint is what came to nothing. "
        "Above as it ran, below the same graph with one task after the other. The first repeat of each.",
    )
    for name in sorted(pairs, key=lambda name: name not in open_ones):
        ours, twin = pairs[name]
        words = f"{ours.category}: {titles.get(name, name)}"
        yield Section(words, _course(ours, twin), tuple(_charts(ours, twin)), folded=name not in open_ones)


def _pairs(plays: Sequence[Play]) -> dict[str, tuple[Play, Play | None]]:
    twins = {one.case: one for one in reversed(plays) if one.sequential}
    return {one.case: (one, twins.get(one.case)) for one in reversed(plays) if not one.sequential}


def _telling(pairs: dict[str, tuple[Play, Play | None]]) -> set[str]:
    """The ones that gained most, one a category."""
    gained = {
        name: (ours.latency_s / twin.latency_s, ours.category)
        for name, (ours, twin) in pairs.items()
        if twin is not None and twin.latency_s and ours.succeeded and twin.succeeded
    }
    best: dict[str, str] = {}
    for name, (_, category) in sorted(gained.items(), key=lambda item: item[1]):
        best.setdefault(category, name)
    return set([*best.values()][:SHOWN])


def _course(ours: Play, twin: Play | None) -> str:
    """One case in words."""
    said = [f"{ours.case}: {ours.state or 'not played'}"]
    said += [f"{ours.latency_s:.2f} s"] if ours.latency_s else []
    said += [f"{twin.latency_s:.2f} s one task after the other"] if twin is not None and twin.latency_s else []
    shares = ours.trace.shares
    if ours.latency_s and ours.trace.spans:
        said.append(f"critical path {ours.trace.critical_path_s:.2f} s")
        said.append(f"the engine {cell('engine_overhead', shares.engine_s / ours.latency_s)}")
    if ours.partial:
        said.append(ours.partial)
    return ", ".join(said) + "".join(f". {text}" for text in why(ours))


def _charts(ours: Play, twin: Play | None) -> Iterator[str]:
    plays = [one for one in (ours, twin) if one is not None and one.trace.spans]
    end_s = max((one.latency_s for one in plays), default=0.0)
    tasks = dict.fromkeys(span.task.partition(".")[0] for one in plays for span in one.trace.spans)
    kinds = {name: at for at, name in enumerate(tasks)}
    for one in plays:
        lanes: dict[str, list[Span]] = {name: [] for name in MACHINES}
        for span in one.trace.spans:
            root = span.task.partition(".")[0]
            label = span.task if span.won else f"{span.task} ({'copy' if span.hedge else span.end})"
            lanes.setdefault(span.worker, []).append(Span(span.start_s, span.end_s, label, kinds[root], not span.won))
        title = "one task after the other" if one.sequential else "as it ran"
        yield gantt(title, [(name, spans) for name, spans in lanes.items() if spans], end_s)
