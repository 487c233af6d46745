"""What a plan will come to, before it is submitted or as it starts: its outlook on the fleet, played in a thread.

What the fleet looks like is read on the loop, at once; playing takes a thread, which the loop outlives. A plan over
MOST_TASKS gets no forecast: placement, not people, would wait for it. Nothing is changed by asking.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from protocol.errors import DeadlineTooShort
from protocol.forecast_row import ForecastRow, LaneRow
from protocol.task import RunSettings, TaskSpec

from ..computation import computed
from ..core.command import Foresee
from ..core.machine import Machine
from ..core.outlook import Outlook
from ..core.sketch import sketch
from ..core.stimulus import Foreseen, Stimulus
from ..placement.forecast import PORTFOLIO, WORK, Forecast, bound_late, forecast, foremost, guided
from ..placement.problem import INF, Problem
from ..placement.selection import policy_named
from ..placement.thrift import Prefer

MOST_TASKS: Final = 20_000
QUIET_WORK: Final = 6_000
"""As forecast.WORK, of what nobody waits for: the loop shares the interpreter with it."""
_PLANNING: Final = frozenset({"auto", "heft"})
_LEAST: Final = 3
_PLANNED: Final = 200
"""Tasks that a plan is made of; a larger one is foretold as if each task were placed by itself."""
MOST_SPANS: Final = 500
"""Of a timeline, for all devices together."""


class ForecastDesk:
    """One per server."""

    def __init__(self, machine: Machine, clock: Callable[[], float], count: Callable[[str], None]) -> None:
        self._machine = machine
        self._clock = clock
        self._count = count

    async def of(
        self, tasks: tuple[TaskSpec, ...], settings: RunSettings, inputs: dict[str, bytes], home: str
    ) -> ForecastRow | None:
        """Of a plan that the core finds sound; None where it is too large, or empty."""
        if not 0 < len(tasks) <= MOST_TASKS:
            return None
        now, home = self._clock(), home or settings.home
        run = await computed(sketch, tasks, settings, inputs, home, now)
        seen = self._machine.look_ahead(run, now)
        found = await computed(self._play, seen, settings, now)
        return row(seen, found, home)

    async def foresee(self, command: Foresee, post: Callable[[Stimulus], None]) -> None:
        """Serve the core: post what is expected of a run, unless nobody knows."""
        run = self._machine.state.runs.get(command.run)
        if run is None:
            return
        now, since = self._clock(), run.submitted_at
        try:
            seen = self._machine.look_ahead(run, now)
            found = await computed(self._play, seen, run.settings, since, QUIET_WORK)
        except Exception:  # noqa: BLE001 a defect in looking ahead costs a forecast, never the orchestrator
            self._count("forecast_failed")
            return
        if not seen.unknown and found.high_s < INF:
            spent = now - since
            low_s, middle_s, high_s = (spent + one for one in (found.low_s, found.makespan_s, found.high_s))
            post(Foreseen(command.run, found.policy, middle_s, low_s, high_s, found.price, found.energy_j))

    def _play(self, seen: Outlook, settings: RunSettings, since: float, work: int = WORK) -> Forecast:
        """As the server places it; `since`: when the run was submitted. Where what the run prefers would make it late,
        haste is what is foretold (see `hastened`)."""
        name, limit = self._machine.placement, settings.deadline_s
        end = since + limit if limit else INF
        found = self._course(seen, name, settings.prefer, end, work)
        if settings.prefer != "time" and found.makespan_s > end - seen.problem.now_s:
            found = self._course(seen, name, "time", end, work)
        return found

    @staticmethod
    def _course(seen: Outlook, name: str, prefer: Prefer, end: float, work: int) -> Forecast:
        course = bound_late(lambda: policy_named(name), prefer=prefer, deadline_s=end)
        shown = policy_named(name).name if prefer == "time" else prefer
        if prefer == "time" and name in _PLANNING and _worth_a_plan(seen.problem):
            if name == "auto":
                return foremost(seen.problem, PORTFOLIO, seen.spread, units=seen.units, work=work)
            course, shown = guided, "heft"
        return forecast(seen.problem, course, seen.spread, policy=shown, units=seen.units, work=work)


def _worth_a_plan(problem: Problem) -> bool:
    """As core.guidance has it: some tasks, unlike devices, and not so much that a plan would cost more than it wins."""
    unlike = {(site.device, site.speed, site.bandwidth, site.price_per_s) for site in problem.sites}
    return _LEAST <= problem.size <= _PLANNED and len(unlike) > 1


def hastened(found: ForecastRow | None, settings: RunSettings) -> RunSettings:
    """What a run prefers to time counts only while its deadline can be met so."""
    if found is None or settings.prefer == "time" or found.policy == settings.prefer:
        return settings
    return msgspec.structs.replace(settings, prefer="time")


def refuse_late(found: ForecastRow | None, settings: RunSettings) -> None:
    """Raises: DeadlineTooShort where nine futures in ten miss the deadline, or what is known alone does."""
    limit = settings.deadline_s
    if found is None or not limit or settings.best_effort or found.least_s <= limit:
        return
    takes = f"{found.makespan_s:.3g} s" if found.makespan_s is not None else f"at least {found.least_s:.3g} s"
    raise DeadlineTooShort(
        f"a deadline of {limit:g} s can't be met: the plan is expected to take {takes}",
        hint="give it more time, attach a faster worker, or start it with --best-effort",
        partial=msgspec.to_builtins(found),
    )


def row(seen: Outlook, found: Forecast, home: str = "") -> ForecastRow:
    """The forecast as people read it. `home`: the worker that they call `here`."""
    ends = found.low_s < INF and not seen.unknown
    schedule, start = found.course.schedule, seen.problem.now_s
    least = max((end - start for end in schedule.finish_s if end < INF), default=0.0)
    return ForecastRow(
        policy=found.policy,
        tasks=len(seen.tasks),
        makespan_s=_shown(found.makespan_s) if ends else None,
        low_s=_shown(found.low_s) if ends else None,
        high_s=_shown(found.high_s) if ends else None,
        least_s=_shown(found.low_s if found.low_s < INF else least),
        price=_shown(found.price),
        energy_j=_shown(found.energy_j),
        moved_bytes=round(found.course.moved_bytes),
        samples=found.samples,
        unknown=seen.unknown,
        nowhere=seen.nowhere,
        assumed=seen.assumed,
        devices=_lanes(seen, found, home),
    )


def _lanes(seen: Outlook, found: Forecast, home: str) -> tuple[LaneRow, ...]:
    schedule, start = found.course.schedule, seen.problem.now_s
    spans: list[list[tuple[str, float, float]]] = [[] for _ in seen.problem.sites]
    for task in schedule.order:
        begin, end = schedule.start_s[task] - start, schedule.finish_s[task] - start
        spans[schedule.site[task]].append((seen.names[task], _shown(begin), _shown(end)))
    used = [n for n, done in enumerate(spans) if done]
    each = max(1, MOST_SPANS // max(1, len(used)))
    return tuple(
        LaneRow(
            worker="here" if home and seen.problem.sites[n].name == home else seen.problem.sites[n].name,
            device=seen.problem.sites[n].device,
            slots=seen.problem.sites[n].slots,
            tasks=len(spans[n]),
            busy_s=_shown(sum(end - begin for _, begin, end in spans[n])),
            spans=tuple(spans[n][:each]),
        )
        for n in used
    )


def _shown(seconds: float) -> float:
    return round(seconds, 6)


def document(found: ForecastRow) -> dict[str, Any]:
    """What travels to clients."""
    shown: dict[str, Any] = msgspec.to_builtins(found)
    return shown
