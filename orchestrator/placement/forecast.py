"""What a run will come to before it runs: the placement's own code on the virtual clock, as often as there is doubt.

`forecast` plays a problem as predicted and then `samples` times with times drawn from the predictions' spread, seeded,
and gives the 10th, 50th and 90th percentile of the makespan, cost, energy and who does what when. `foremost` does it
for several ways to place, over the same futures, and takes the best: what is best if everything goes as predicted need
not be best where it doesn't. Pure and deterministic. It must not know runs or where predictions come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from .clock import Played, Took, play
from .dice import Dice
from .eft import Eft
from .fastest import Fastest
from .guided import Guided
from .heft import heft
from .late_binding import LateBinding
from .policy import Policy
from .problem import INF, Problem, Schedule
from .rank import runs, upward
from .thrift import SPARED, Prefer

WORK: Final = 30_000
"""Tasks that are played in all, on a few sites: a large problem is played less often."""
SITES: Final = 4
"""So many sites more make a task as much work again."""
MOST: Final = 40
LEAST: Final = 3
"""How often one is played, at most and at least."""
LEAST_TOLD: Final = 8
"""Futures that can tell which of several ways is better."""
CLEARLY: Final = 0.98
"""One way is better than another if it takes less than this part of its time."""

_INSTANT: Final = 1e-9

T = TypeVar("T")
Course = Callable[[Problem, Took | None], Played]
"""A way to run a problem, with what really happens."""


class Spread(msgspec.Struct, frozen=True):
    """How far run times may be from the prediction, as deviations of the logarithm. `own`: each task's by itself.
    `shared`: that of all tasks of one `group` together, whom one estimate serves."""

    own: tuple[float, ...]
    group: tuple[int, ...]
    shared: tuple[float, ...]


class Forecast(msgspec.Struct, frozen=True):
    """`makespan_s` is the median of what was played, `low_s` and `high_s` the 10th and 90th percentile, from the
    problem's now. `price` and `energy_j` are medians too, `mean_s` is the geometric mean. `course`: everything as
    predicted. `policy`: whose it is."""

    policy: str
    makespan_s: float
    low_s: float
    high_s: float
    price: float
    energy_j: float
    samples: int
    course: Played
    mean_s: float


def _once(make: Callable[[Problem], T]) -> Callable[[Problem], T]:
    """What is the same in all futures of a problem, made for the first; also where threads play several at once."""
    last: tuple[Problem, T] | None = None

    def known(problem: Problem) -> T:
        nonlocal last
        seen = last
        if seen is None or seen[0] is not problem:
            seen = last = problem, make(problem)
        return seen[1]

    return known


@_once
def _planned(problem: Problem) -> tuple[list[float], Schedule]:
    """Its ranks, which are those of all that is ever left of it, and its first plan."""
    rank = upward(problem)
    return rank, heft(problem, rank)


def bound_late(policy: Callable[[], Policy] = Eft, *, prefer: Prefer = "time", deadline_s: float = INF) -> Course:
    """As the orchestrator places: ready tasks by upward rank, each when a device has room. `prefer`: what is spared as
    far as the deadline, a time on the problem's clock, allows."""

    @_once
    def known(problem: Problem) -> tuple[list[float], Sequence[float]]:
        return upward(problem), ends_by(problem, deadline_s) if prefer != "time" else ()

    def course(problem: Problem, took: Took | None) -> Played:
        rank, due = known(problem)
        return play(problem, LateBinding(policy(), rank, prefer=prefer, due_s=due), took=took)

    return course


def ends_by(problem: Problem, deadline_s: float) -> list[float]:
    """When each task must end, so that what hangs on it still ends in time on the fastest devices."""
    if deadline_s == INF:
        return [INF] * problem.size
    end = problem.now_s + SPARED * (deadline_s - problem.now_s)
    best = upward(problem, "best")
    return [end - rank + run for rank, run in zip(best, runs(problem, "best"), strict=True)]


def guided(problem: Problem, took: Took | None) -> Played:
    """As the orchestrator does by a plan of the whole run that is made again when the facts have left it."""
    rank, first = _planned(problem)
    return play(problem, Guided(lambda rest: heft(rest, rank), first), took=took)


PORTFOLIO: Final[Mapping[str, Course]] = {
    "heft": guided, "eft": bound_late(), "fastest": bound_late(Fastest),
}  # fmt: skip
"""What `auto` may place by: a plan that is revised, each task by itself, each task on the fastest device. Every one of
them has graphs on which it is far off (PISA; see portfolio)."""


def forecast(
    problem: Problem,
    course: Course,
    spread: Spread,
    *,
    policy: str = "",
    units: Sequence[float] = (),
    seed: int = 0,
    work: int = WORK,
) -> Forecast:
    """Play it. `units`: cores or cards that each task holds, 1 if left out; `work`: as often as WORK is meant.

    A problem with a task that may run nowhere ends at INF: leave such tasks out before.
    """
    expected = course(problem, None)
    most = max(LEAST, min(MOST, work // max(1, problem.size * (1 + len(problem.sites) // SITES))))
    if not any(spread.own) and not any(spread.shared):
        most = 0
    courses = [course(problem, _drawn(problem, spread, Dice(seed * 1_000_003 + n))) for n in range(most)] or [expected]
    spans = sorted(one.schedule.makespan_s - problem.now_s for one in courses)
    costs = [cost(problem, one, units) for one in courses]
    return Forecast(
        policy,
        quantile(spans, 0.5),
        quantile(spans, 0.1),
        quantile(spans, 0.9),
        quantile(sorted(price for price, _ in costs), 0.5),
        quantile(sorted(energy for _, energy in costs), 0.5),
        len(courses),
        expected,
        math.exp(sum(math.log(max(span, _INSTANT)) for span in spans) / len(spans)),
    )


def foremost(
    problem: Problem,
    courses: Mapping[str, Course],
    spread: Spread,
    *,
    units: Sequence[float] = (),
    seed: int = 0,
    work: int = WORK,
) -> Forecast:
    """The forecast of the way that is expected to end first, over the same futures for all of them, who share `work`.

    Another than the first must end clearly sooner, by the median and by the mean: the one says that it mostly does, the
    other that it is not paid for by a few futures in which it takes for ever. Few futures can't tell.
    """
    found = [
        forecast(problem, course, spread, policy=name, units=units, seed=seed, work=work // len(courses))
        for name, course in courses.items()
    ]
    best = found[0]
    for one in found[1:]:
        told = one.samples >= LEAST_TOLD or one.low_s == one.high_s
        if told and max(one.makespan_s / max(best.makespan_s, _INSTANT), one.mean_s / best.mean_s) < CLEARLY:
            best = one
    return best


def cost(problem: Problem, played: Played, units: Sequence[float] = ()) -> tuple[float, float]:
    """Price and energy (J) of what ran: the seconds that each task held its cores or cards. What is under way at the
    problem's now counts as a whole, as predicted; what had ended does not."""
    price = energy = 0.0
    schedule = played.schedule
    spans = [(task, schedule.finish_s[task] - schedule.start_s[task]) for task in schedule.order]
    for task, past in problem.placed.items():
        if past.finish_s > problem.now_s:
            spans.append((task, problem.run(task, past.site)))
    for task, span in spans:
        site = problem.sites[schedule.site[task]]
        held = span * (units[task] if units else 1.0)
        price += held * site.price_per_s
        energy += held * site.watts
    return price, energy


def quantile(ordered: Sequence[float], part: float) -> float:
    """Linear between the neighbours (Hyndman and Fan's 7th)."""
    at = part * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    if ordered[low] == ordered[high]:
        return ordered[low]
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def _drawn(problem: Problem, spread: Spread, dice: Dice) -> Took:
    """One future: each task's factor on its prediction, wherever it runs."""
    shared = [math.exp(deviation * dice.normal()) for deviation in spread.shared]
    factor = [
        shared[group] * (math.exp(own * dice.normal()) if own else 1.0)
        for own, group in zip(spread.own, spread.group, strict=True)
    ]
    run_s, kind = problem.run_s, [site.kind for site in problem.sites]

    def took(task: int, site: int) -> float:
        return run_s[task][kind[site]] * factor[task]

    return took
