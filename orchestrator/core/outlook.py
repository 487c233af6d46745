"""A run as a problem of placement: its tasks, the devices that may run each, what each is expected to take.

Made of a Run, submitted or not, and of what the caller says of skills, devices and predictions, so that the same words
serve the plan that nobody has started, the run under way and the guide of placement. What can't be known before it
happens is assumed, and said: a map over a list that is not there yet counts as `MAP_ITEMS` says or as one, conditions
hold, whatever a task spawns is not there. It must not know sessions, clocks or policies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from protocol.artifact import ArtifactRef
from protocol.pointer import MISSING, descend
from protocol.skill import SkillSpec
from protocol.task import INPUT, Ref

from ..placement.forecast import Spread
from ..placement.predictor import Prediction
from ..placement.problem import INF, Placed, Problem, Site
from .expectation import stated_s
from .graph import Run, Task, is_map
from .lifecycle import Settled

WIDE: Final = math.log(4.0)
"""The spread (of the logarithm) of a prediction that rests on nothing measured."""
_DEVIATIONS: Final = 2.926
"""How many of them the 95th percentile is from the 10th."""

SpecOf = Callable[[Task], SkillSpec | None]
Allowed = Callable[[Task, SkillSpec], Mapping[int, float]]
"""Site -> how many of its units (cores, cards) the task takes there; only sites that may run it."""
Predict = Callable[[str, int, int], Prediction]
"""(skill, site, input bytes) -> what one attempt is expected to take."""


class Outlook(msgspec.Struct, frozen=True):
    """See the module. `tasks[i]`: the index in the run of the problem's task i, and `names[i]` what people call it.
    `units[i]`: cores or cards it holds. `unknown`: skills about which nothing is known, with how many tasks they have:
    they count as nothing, so that the rest is a lower bound. `nowhere`: tasks that no device may run now. `assumed`:
    what had to be assumed, in words."""

    problem: Problem
    spread: Spread
    tasks: tuple[int, ...]
    names: tuple[str, ...]
    units: tuple[float, ...]
    unknown: dict[str, int]
    nowhere: tuple[str, ...]
    assumed: tuple[str, ...]


def outlook(
    run: Run,
    sites: Sequence[Site],
    spec_of: SpecOf,
    allowed: Allowed,
    predict: Predict,
    *,
    at: Mapping[tuple[int, str], int],
    now_s: float = 0.0,
    items: Callable[[str], int] = lambda skill: 1,
    value_bytes: Callable[[str], float] = lambda skill: 0.0,
    out_bytes: Callable[[str], float] = lambda skill: 0.0,
    hop_s: Callable[[int], float] = lambda site: 0.0,
) -> Outlook:
    """What is left of the run, as a Problem. `at`: the site of a device of a worker.

    While nobody knows, `items` says how many elements a map of a skill is taken to have, `value_bytes` how large a
    skill's result is, `out_bytes` what of that is too large for a message. `hop_s`: what dispatch and report add to
    each attempt at a site; the sites' latencies belong there, since small values travel with these messages.
    """
    made = _Making(run, sites, at, spec_of, allowed, predict, now_s, items, value_bytes, out_bytes, hop_s)
    for task in run.roots():
        made.take(task)
    for ix in sorted(made.found, key=lambda ix: run.order[ix]):
        made.wire(run.tasks[ix])
    return made.outlook()


class _Making:
    def __init__(
        self,
        run: Run,
        sites: Sequence[Site],
        at: Mapping[tuple[int, str], int],
        spec_of: SpecOf,
        allowed: Allowed,
        predict: Predict,
        now_s: float,
        items: Callable[[str], int],
        value_bytes: Callable[[str], float],
        out_bytes: Callable[[str], float],
        hop_s: Callable[[int], float],
    ) -> None:
        self.run, self.sites, self.now_s = run, tuple(sites), now_s
        self.spec_of, self.allowed, self.predict = spec_of, allowed, predict
        self.items, self.value_bytes, self.out_bytes, self.hop_s = items, value_bytes, out_bytes, hop_s
        self.found: dict[int, list[int]] = {}
        """Root task of the run -> its tasks of the problem: the elements of a map, else one."""
        self.run_s: list[list[float]] = []
        self.own: list[float] = []
        self.group: list[int] = []
        self.units: list[float] = []
        self.memory: list[float] = []
        self.tasks: list[int] = []
        self.names: list[str] = []
        self.size: list[float] = []
        self.parents: list[list[tuple[int, float]]] = []
        self.children: list[list[tuple[int, float]]] = []
        self.placed: dict[int, Placed] = {}
        self.rows: dict[tuple[Any, ...], tuple[list[float], float, float]] = {}
        self.groups: dict[str, int] = {}
        self.shared: list[float] = []
        self.unknown: dict[str, int] = {}
        self.nowhere: dict[str, None] = {}
        self.assumed: dict[str, None] = {}
        self.at = at

    # tasks

    def take(self, task: Task) -> None:
        """A task as written: itself, or its elements."""
        run = self.run
        if task.spread is not None:
            self.found[task.ix] = [self.add(run.tasks[ix], run.tasks[ix]) for ix in run.children(task)]
        elif is_map(task) and not task.final:
            self.found[task.ix] = [self.add(task, None) for _ in range(self.count(task))]
        else:
            self.found[task.ix] = [self.add(task, task)]
        if task.spawned is not None:
            for ix in task.spawned.children.values():
                self.found[ix] = [self.add(run.tasks[ix], run.tasks[ix])]

    def count(self, task: Task) -> int:
        """How many elements a map will have."""
        if task.spec.on == ("all",):
            spec = self.spec_of(task)
            return max(1, len(self.allowed(task, spec))) if spec is not None else 1
        chunk = max(1, task.spec.map.chunk)
        for ref in task.wiring.refs:
            if type(ref) is not Ref or not ref.each:
                continue
            if ref.source != INPUT:
                source = self.run.names[ref.source]
                if not ref.path and source in self.found and is_map(self.run.tasks[source]):
                    return max(1, -(-len(self.found[source]) // chunk))
                value = self.run.tasks[source].value
            else:
                value = self.run.inputs.get(ref.path[0])
            path = ref.listed[1:] if ref.source == INPUT else ref.listed
            if isinstance(value, bytes):
                listed = descend(msgspec.json.decode(value), path)
                if listed is not MISSING and isinstance(listed, list):
                    return max(1, -(-len(listed) // chunk))
        count = max(1, -(-self.items(task.skill) // chunk))
        self.assumed[f"{task.spec.id} is spread over a list that is not there yet: counted as {count}"] = None
        return count

    def add(self, task: Task, life: Task | None) -> int:
        """One task of the problem; `life` None for an element that does not exist yet."""
        spec = self.spec_of(task)
        number = len(self.tasks)
        size = self.result_bytes(task)
        row, own, units = self.row(task, spec, size)
        self.run_s.append(row)
        self.own.append(own)
        self.group.append(self.groups[task.skill])
        self.units.append(units)
        self.memory.append(float(self.needs_memory(task, spec)))
        self.tasks.append(task.ix)
        self.names.append(self.run.name_of(task) if life is not None else f"{task.spec.id}[]")
        self.size.append(size)
        self.parents.append([])
        self.children.append([])
        if life is not None:
            self.past(number, life, row)
        if number not in self.placed and min(row, default=INF) == INF and (spec is None or spec.place != "engine"):
            self.nowhere[self.names[-1]] = None
        return number

    def past(self, number: int, task: Task, row: list[float]) -> None:
        """What has happened of it."""
        attempt = task.winner()
        if task.final:
            assert isinstance(task.state, Settled)
            site = self.at.get((attempt.worker, attempt.device), 0) if attempt is not None else 0
            self.placed[number] = Placed(site, min(task.state.at, self.now_s))
            return
        live = [one for one in task.attempts if one.live]
        site = self.at.get((live[-1].worker, live[-1].device), -1) if live else -1
        if site >= 0 and row[site] < INF:
            passed = self.now_s - live[-1].at
            self.placed[number] = Placed(site, self.now_s + max(row[site] - passed, 0.1 * row[site]))

    def row(self, task: Task, spec: SkillSpec | None, size: float) -> tuple[list[float], float, float]:
        """Seconds by site until its result is at the orchestrator, its deviation, its units; alike tasks share them."""
        stated = stated_s(task, spec)
        given = _roughly(sum(self.given_bytes(self.run.tasks[ix]) for ix in task.wiring.needs))
        calls = max(1, task.spec.map.chunk) if task.parent >= 0 or is_map(task) else 1
        needs = task.spec.needs and msgspec.json.encode(task.spec.needs)
        key = (task.skill, task.spec.on, task.at, needs, stated, size, given, calls)
        found = self.rows.get(key)
        if found is not None:
            if task.skill in self.unknown:
                self.unknown[task.skill] += 1
            return found
        self.groups.setdefault(task.skill, len(self.shared))
        if len(self.groups) > len(self.shared):
            self.shared.append(0.0)
        row, own, most, best = [INF] * len(self.sites), 0.0, 0.0, INF
        if spec is not None and spec.place == "engine":
            row = [0.0] * len(self.sites)
            self.assumed[f"{task.skill} is served at once"] = None
        sites = self.allowed(task, spec) if spec is not None and spec.place != "engine" else {}
        group = self.groups[task.skill]
        for site, units in sites.items():
            said = self.predict(task.skill, site, given).times(calls)
            run_s, deviation, shared = said.run_s, _deviation(said), WIDE
            if stated is not None:
                run_s, deviation, shared = stated / (self.sites[site].speed or 1.0), 0.0, 0.0
            elif said.n:
                shared = deviation / math.sqrt(said.n)
            elif said.by == "default":  # nobody knows: what is known beside it is the least that the run takes
                run_s, deviation, shared = 0.0, 0.0, 0.0
                if spec is not None and not spec.inline:
                    self.unknown.setdefault(task.skill, 0)
            row[site] = run_s + self.hop_s(site) + size / self.sites[site].bandwidth
            if row[site] < best:
                best, most, own, self.shared[group] = row[site], units, deviation, shared
        if task.skill in self.unknown:
            self.unknown[task.skill] += 1
        self.rows[key] = row, own, most or 1.0
        return self.rows[key]

    def needs_memory(self, task: Task, spec: SkillSpec | None) -> int:
        """What it takes at least: a variant that needs more than a machine has must not keep the others from it."""
        own = task.spec.needs.memory if task.spec.needs is not None else 0
        return max(own, min((variant.needs.memory for variant in spec.variants), default=0) if spec is not None else 0)

    def result_bytes(self, task: Task) -> float:
        """What is passed on from it: as large as it is, else as large as such results are. Small values travel with the
        orchestrator's messages."""
        if task.final:
            return float(task.value.size) if isinstance(task.value, ArtifactRef) else 0.0
        return self.out_bytes(task.skill)

    def given_bytes(self, task: Task) -> float:
        """As the predictor counts inputs: values that travel with messages too."""
        if task.value is None:
            return self.value_bytes(task.skill)
        return float(task.value.size if isinstance(task.value, ArtifactRef) else len(task.value))

    # edges

    def wire(self, task: Task) -> None:
        run, mine = self.run, self.found[task.ix]
        wiring = task.wiring
        if task.parent >= 0 and task.parent in self.found:  # spawned: it was there when its parent ran
            return
        data = dict.fromkeys((*wiring.needs, *(ix for group in wiring.firsts for ix in group)))
        for ix in {**data, **dict.fromkeys(wiring.upstreams())}:
            for up in self.found.get(ix, ()):
                for down in mine:
                    self.edge(up, down, self.size[up] if ix in data else 0.0)
        for ix in wiring.chain:
            ups = self.found.get(ix, [])
            for k, down in enumerate(mine):
                for up in ups if len(ups) != len(mine) else ups[k : k + 1]:
                    self.edge(up, down, self.size[up])
        if task.owner >= 0 and task.owner in self.found and not run.tasks[task.owner].final:
            for up in self.found[task.owner]:
                self.edge(up, mine[0], 0.0)

    def edge(self, up: int, down: int, size: float) -> None:
        if down not in self.placed:
            self.parents[down].append((up, size))
            self.children[up].append((down, size))

    def outlook(self) -> Outlook:
        problem = Problem(
            self.sites,
            self.run_s,
            self.parents,
            self.children,
            memory=self.memory if any(self.memory) else (),
            doubt=self.own if any(self.own) else (),
            placed=self.placed,
            now_s=self.now_s,
            contention="shared",
            relayed=True,
        )
        spread = Spread(tuple(self.own), tuple(self.group), tuple(self.shared))
        return Outlook(
            problem,
            spread,
            tuple(self.tasks),
            tuple(self.names),
            tuple(self.units),
            self.unknown,
            tuple(self.nowhere),
            tuple(self.assumed),
        )


def _roughly(size: float) -> int:
    """To an eighth: inputs that are alike make one row, whatever their last bytes are."""
    found = int(size)
    return found >> (dropped := max(0, found.bit_length() - 4)) << dropped


def _deviation(said: Prediction) -> float:
    """Of the logarithm of the run time, from the interval that was predicted."""
    if said.n == 0 or said.run_s <= 0:
        return WIDE
    return min(WIDE, max(0.0, math.log(max(said.p95_s, 1e-9) / max(said.low_s, 1e-9)) / _DEVIATIONS))
