"""The figures of a suite, from its plays: each as docs/benchmarks.md writes its formula.

Invariant: pure; a figure that nothing was measured for is None, never zero. It must not know how a play was made, nor
how a figure is shown.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from protocol.errors import PlannerAbstained

from .case import CATEGORIES
from .check import STATE
from .play import Play
from .trace import Shares

LEAST: Final = {"task_success_rate": 1.0, "subtask_completion_rate": 1.0, "latency_reduction": 0.31}
MOST: Final = {"engine_overhead": 0.03}
"""What is promised of the gold suite without faults."""
_RECOVERED: Final = ("retries", "lost", "hedges", "replans")
WIDE: Final = 1
"""A case counts for the latency beside its twin if more of its attempts than this ran at once."""


class Figures(msgspec.Struct, frozen=True):
    """Of some plays, twins left out but for `latency_reduction`. Times are seconds.

    `tasks`: cases that were played, `plays` of them. Rates are shares of 1. `abstained`: the planner said it can't;
    `wrong_successes`: runs that were called a success though a check doesn't hold. `mean_width`: attempts at work on
    average over a run, `max_width` at most. `engine_overhead`: of the way that decided when a run ended, what was
    neither work, nor transfer, nor link, planner, person or a repetition, and `hop_ms` the same for each attempt on it.
    `shares`: all of those, of that way.
    """

    tasks: int = 0
    plays: int = 0
    task_success_rate: float | None = None
    abstained: int = 0
    wrong_successes: int = 0
    subtask_completion_rate: float | None = None
    mean_width: float | None = None
    max_width: int = 0
    latency_s: float | None = None
    sequential_s: float | None = None
    latency_reduction: float | None = None
    twins: int = 0
    """Cases with a width above one that were also played one task after the other."""
    critical_path_ratio: float | None = None
    engine_overhead: float | None = None
    hop_ms: float | None = None
    planner_share: float | None = None
    bytes_moved: int = 0
    retries: int = 0
    lost: int = 0
    hedges: int = 0
    replans: int = 0
    recovery_s: float | None = None
    recovery_max_s: float | None = None
    shares: dict[str, float] = {}


class Row(msgspec.Struct, frozen=True):
    """One case: the medians over its repeats. `why` names what it did not reach."""

    case: str
    category: str
    succeeded: int
    plays: int
    latency_s: float | None
    sequential_s: float | None
    figures: Figures
    why: tuple[str, ...] = ()


class Blow(msgspec.Struct, frozen=True):
    """A fault beside the same cases without it.

    `struck`: plays in which its moment came. `partial`: cases that can't be done without the machine that was lost, and
    ended as a partial result that names what is missing, as they must; `reached`: the share of the other plays that
    succeeded. `slower`: the median of latency over the fault-free one, case by case. `late`: recoveries above their
    bound, by case. `failed`: why, by case.
    """

    fault: str
    figures: Figures
    struck: int
    reached: float | None
    partial: tuple[str, ...]
    beside_s: float | None
    slower: float | None
    late: dict[str, float]
    failed: dict[str, str]


def figures(plays: Iterable[Play]) -> Figures:
    """Of plays of one mode and one fault, with their twins."""
    made = list(plays)
    ours = [one for one in made if not one.sequential]
    timed = [one for one in ours if one.trace.spans and not one.problem]
    subtasks = [found for one in ours for found in one.findings if found.kind == "subtask"]
    cases = _by_case(ours)
    twins = _by_case(one for one in made if one.sequential)
    sound = {
        name: plays
        for name, plays in cases.items()
        if all(one.succeeded for one in (*plays, *twins.get(name, ()))) and (name in twins or not twins)
    }
    reductions = list(reduction(made).values())
    recovered = [seconds for one in ours for seconds in one.recovery_s]
    total_s = math.fsum(one.latency_s for one in timed)
    return Figures(
        tasks=len(cases),
        plays=len(ours),
        task_success_rate=_share(sum(one.succeeded for one in ours), len(ours)),
        abstained=sum(map(abstained, ours)),
        wrong_successes=sum(map(is_wrong, ours)),
        subtask_completion_rate=_share(sum(one.ok for one in subtasks), len(subtasks)),
        mean_width=_mean([width(one) for one in timed]),
        max_width=max(map(at_once, timed), default=0),
        latency_s=_total(sound.values()),
        sequential_s=_total(twins[name] for name in sound if name in twins),
        latency_reduction=_median(reductions),
        twins=len(reductions),
        critical_path_ratio=_median(one.trace.critical_path_s / one.latency_s for one in timed if one.latency_s),
        engine_overhead=_share(math.fsum(map(engine_s, timed)), total_s),
        hop_ms=_share(1000 * math.fsum(map(engine_s, timed)), sum(len(one.trace.way) for one in timed)),
        planner_share=_share(math.fsum(one.trace.shares.planner_s for one in timed), total_s),
        bytes_moved=sum(one.trace.bytes_moved for one in ours),
        **{name: sum(int(one.report.get("recovered", {}).get(name, 0)) for one in ours) for name in _RECOVERED},
        recovery_s=_median(recovered),
        recovery_max_s=max(recovered, default=None),
        shares=_shares(timed),
    )


def abstained(play: Play) -> bool:
    """Its planner said that it can't."""
    code = (play.report.get("error") or {}).get("code", "")
    return play.state == "abstained" or code == PlannerAbstained.code


def is_wrong(play: Play) -> bool:
    """It was called a success, and its outcome is not what was asked for: the worst that there is."""
    wrong = any(one.kind == "check" and one.id != STATE and not one.ok and not one.broken for one in play.findings)
    return play.state == "succeeded" and not play.problem and wrong


def as_it_must(play: Play, needs: Collection[str]) -> bool:
    """It could not be done without the machine that was lost, and says by name what is missing."""
    return play.lost in needs and play.state == "failed" and play.lost in play.partial and not play.problem


def width(play: Play) -> float:
    """Seconds of all winning attempts over the run's own."""
    return float(play.report["width"]["mean"])


def at_once(play: Play) -> int:
    """How many winning attempts ran side by side, at most."""
    return int(play.report["width"]["max"])


def engine_s(play: Play) -> float:
    """Ours of the way that decided when the run ended, and what the client waited around the run."""
    shares = play.trace.shares
    return shares.engine_s + max(0.0, play.latency_s - shares.total_s)


def reduction(plays: Iterable[Play]) -> dict[str, float]:
    """1 - parallel / sequential by case, of the medians of its repeats: of those that succeeded both ways, and in which
    more than one attempt ran at once."""
    made = list(plays)
    parallel = _by_case(one for one in made if not one.sequential)
    twins = _by_case(one for one in made if one.sequential)
    return {
        name: 1 - _middle(ours) / _middle(twins[name])
        for name, ours in parallel.items()
        if name in twins and all(one.succeeded for one in (*ours, *twins[name])) and max(map(at_once, ours)) > WIDE
    }


def by_category(plays: Sequence[Play]) -> dict[str, Figures]:
    """Those that have plays, in the suite's order."""
    found: dict[str, list[Play]] = defaultdict(list)
    for one in plays:
        found[one.category].append(one)
    order = [*(name for name in CATEGORIES if name in found), *sorted(found.keys() - set(CATEGORIES))]
    return {name: figures(found[name]) for name in order}


def rows(plays: Sequence[Play]) -> tuple[Row, ...]:
    """A row a case, in the order of the plays."""
    found: dict[str, list[Play]] = defaultdict(list)
    for one in plays:
        found[one.case].append(one)
    return tuple(_row(name, made) for name, made in found.items())


def blows(plays: Sequence[Play], needs: Mapping[str, Collection[str]]) -> tuple[Blow, ...]:
    """Each fault over all its cases, beside what the same cases did without it; `needs`: the machines without which a
    case can't be done."""
    calm = _by_case(one for one in plays if not one.fault and not one.sequential)
    names = dict.fromkeys(one.fault for one in plays if one.fault)
    return tuple(_blow(name, [one for one in plays if one.fault == name], calm, needs) for name in names)


def why(play: Play) -> tuple[str, ...]:
    """What kept it from success, in words; the problem first."""
    if abstained(play):
        return (f"the planner abstained: {play.partial}",)
    partly = f": {play.partial}" if play.partial else ""
    said = [f"{one.kind} {one.id}: {one.why}{partly * (one.id == STATE)}" for one in play.findings if not one.ok]
    return tuple(" ".join(text.split()) for text in (play.problem, *said) if text)


def missed(found: Figures) -> dict[str, float]:
    """What is over, or under, its bound."""
    seen = {name: getattr(found, name) for name in (*LEAST, *MOST)}
    return {
        name: value
        for name, value in seen.items()
        if value is not None and (value < LEAST.get(name, value) or value > MOST.get(name, value))
    }


def _row(name: str, made: Sequence[Play]) -> Row:
    ours = [one for one in made if not one.sequential]
    said = dict.fromkeys(text for one in made for text in why(one))
    succeeded = sum(one.succeeded for one in ours)
    found = figures(made)
    return Row(name, made[0].category, succeeded, len(ours), found.latency_s, found.sequential_s, found, tuple(said))


def _blow(
    name: str, made: Sequence[Play], calm: Mapping[str, Sequence[Play]], needs: Mapping[str, Collection[str]]
) -> Blow:
    cases = _by_case(made)
    partial = [one for one in made if not one.succeeded and as_it_must(one, needs.get(one.case, ()))]
    failed = [one for one in made if not one.succeeded and one not in partial]
    sound = {case for case, plays in cases.items() if all(one.succeeded for one in plays)}
    beside = {case: calm[case] for case in cases if case in calm and case in sound}
    slower = [_middle(cases[case]) / _middle(without) for case, without in beside.items() if _middle(without)]
    return Blow(
        name,
        figures(made),
        sum(bool(one.struck) for one in made),
        _share(len(made) - len(partial) - len(failed), len(made) - len(partial)),
        tuple(sorted({one.case for one in partial})),
        _total(beside.values()),
        _median(slower),
        {
            one.case: max(one.recovery_s)
            for one in made
            if one.recovery_s and one.bound_s is not None and max(one.recovery_s) > one.bound_s
        },
        {one.case: "; ".join(why(one)) for one in failed},
    )


def _by_case(plays: Iterable[Play]) -> dict[str, list[Play]]:
    found: dict[str, list[Play]] = defaultdict(list)
    for one in plays:
        found[one.case].append(one)
    return dict(found)


def _middle(plays: Iterable[Play]) -> float:
    return statistics.median(one.latency_s for one in plays)


def _total(cases: Iterable[Sequence[Play]]) -> float | None:
    """Of each case the median, of those the sum."""
    found = [_middle(plays) for plays in cases]
    return math.fsum(found) if found else None


def _shares(plays: Sequence[Play]) -> dict[str, float]:
    total_s = math.fsum(one.latency_s for one in plays)
    if not total_s:
        return {}
    parts: dict[str, Callable[[Play], float]] = {
        name: (lambda play, name=name: float(getattr(play.trace.shares, name)))  # type: ignore[misc]
        for name in Shares.__struct_fields__
    }
    parts["engine_s"] = engine_s
    return {name.removesuffix("_s"): math.fsum(map(of, plays)) / total_s for name, of in parts.items()}


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) if found else None
