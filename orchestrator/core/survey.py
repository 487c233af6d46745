"""The fleet as sites of a problem: one for each kind of device of each worker that somebody's tasks may run on, with
the slots that such tasks find there, its link, what it costs, and when each slot is free of what it holds now.

Tasks that hold no cpu (inline skills) have a site of their own beside the others: they take no slot. What other runs
still have to do is ahead of this one as far as fair sharing lets it be. Read from a Turn, changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Final

from protocol.profile import LinkProfile
from protocol.skill import SkillSpec

from ..placement.predictor import Prediction
from ..placement.problem import Site
from .eligibility import eligible, kind_of
from .expectation import expected
from .fleet import LIGHT_WINDOW, Session
from .graph import Run, Task
from .lifecycle import Open
from .outlook import Outlook, outlook
from .precedent import Precedent
from .queue import Kind
from .turn import Turn

MOST_SITES: Final = 16
"""In a fleet of more, devices that are alike make one site: what moves between them is taken to be there."""
_LARGE: Final = 16_000_000
"""Bytes of a transfer of which latency is no part to speak of."""
_SAMPLE: Final = 64
"""Tasks of another run from which its mean task is guessed."""
Place = tuple[int, str, bool]
"""(worker, device, whether for tasks that hold no cpu)"""


def look_ahead(turn: Turn, run: Run, now_s: float, *, merged: bool = False) -> Outlook:
    """What is left of a run, submitted or only sketched, on the fleet as it is. `merged`: in a large fleet devices that
    are alike make one site."""
    survey = _Survey(turn, run, now_s, merged)
    past = turn.past
    if past is None:
        newest = (turn.state.runs[number] for number in sorted(turn.state.runs, reverse=True))
        past = turn.past = Precedent(newest)
    return outlook(
        run,
        survey.sites(),
        turn.contract,
        survey.allowed,
        survey.predict,
        at={(worker, device): site for (worker, device, _), site in survey.places.items()},
        now_s=now_s,
        items=past.items,
        value_bytes=past.value_bytes,
        out_bytes=past.out_bytes,
        hop_s=lambda site: past.hop_s + survey.latency_s(site),
    )


class _Survey:
    def __init__(self, turn: Turn, run: Run, now_s: float, merged: bool) -> None:
        self.turn, self.run, self.now_s = turn, run, now_s
        self.kinds: dict[Kind, tuple[tuple[int, str, dict[str, float]], ...]] = {}
        self.wanted: dict[Place, list[tuple[dict[str, float], int]]] = {}
        """Place -> (needs, how many tasks need that)."""
        counts: dict[Kind, int] = {}
        for task in run.tasks:
            spec = turn.contract(task)
            if spec is None or spec.place == "engine" or task.final:
                continue
            kind = kind_of(turn.state, run, task, spec, "")
            counts[kind] = counts.get(kind, 0) + 1
            if kind not in self.kinds:
                self.kinds[kind] = eligible(turn.state, turn.fleet, kind, spec)
        for kind, count in counts.items():
            for worker, device, needs in self.kinds[kind]:
                self.wanted.setdefault((worker, device, not needs.get("cpu")), []).append((needs, count))
        alike: dict[object, int] = {}
        many = merged and len(self.wanted) > MOST_SITES
        self.places = {
            place: alike.setdefault(self._alike(place) if many else place, len(alike)) for place in self.wanted
        }
        """Place -> its site."""

    def _alike(self, place: Place) -> object:
        """What a place has in common with those that make one site with it."""
        session, device = self.turn.fleet.sessions[place[0]], place[1]
        profile, link = session.device.get(device), session.profile.link
        price = (profile.price_per_s, profile.watts) if profile is not None else ()
        return session.device_class.get(device, device), session.speed.get(device), link.bandwidth, price, place[1:]

    def allowed(self, task: Task, spec: SkillSpec) -> Mapping[int, float]:
        """See outlook.Allowed."""
        found: dict[int, float] = {}
        for worker, device, needs in self.kinds.get(kind_of(self.turn.state, self.run, task, spec, ""), ()):
            site = self.places.get((worker, device, not needs.get("cpu")))
            if site is not None:
                found[site] = needs.get(device, needs.get("cpu", 0.0))
        return found

    def predict(self, skill: str, site: int, size: int) -> Prediction:
        """See outlook.Predict."""
        worker, device, _ = self._at[site]
        return expected(self.turn, self.turn.fleet.sessions[worker], skill, device, size)

    def latency_s(self, site: int) -> float:
        """There and back again."""
        return 2.0 * self.turn.fleet.sessions[self._at[site][0]].profile.link.latency_s

    def sites(self) -> tuple[Site, ...]:
        """In the order in which `allowed` numbers them."""
        members: dict[int, list[Place]] = {}
        for place, site in self.places.items():
            members.setdefault(site, []).append(place)
        self._at = [places[0] for places in members.values()]
        slots = {place: self._slots(place) for place in self.places}
        heavy = sum(count for place, count in slots.items() if not place[2])
        ahead = self._ahead_s() / heavy if heavy else 0.0
        return tuple(self._site(places, slots, ahead) for places in members.values())

    def _slots(self, place: Place) -> int:
        """How many of the tasks that want it may run there at once, if they need as much as they do on average."""
        session, wanted = self.turn.fleet.sessions[place[0]], self.wanted[place]
        if place[2]:
            return min(LIGHT_WINDOW, sum(count for _, count in wanted))
        capacity = session.profile.capacity.amounts()
        most = float(session.profile.slots)
        tasks = sum(count for _, count in wanted)
        for name in {name: None for needs, _ in wanted for name in needs}:
            mean = sum(needs.get(name, 0.0) * count for needs, count in wanted) / tasks
            if mean > 0 and name != "memory":
                most = min(most, capacity.get(name, 0.0) / mean)
        return max(1, int(most + 1e-9))

    def _site(self, places: list[Place], slots: dict[Place, int], ahead_s: float) -> Site:
        worker, device, light = places[0]
        sessions = [self.turn.fleet.sessions[place[0]] for place in places]
        profile, one = sessions[0].device.get(device), sessions[0].profile
        free = [
            at for place, session in zip(places, sessions, strict=True)
            for at in (() if light else self._free_s(session, slots[place], ahead_s))
        ]  # fmt: skip
        return Site(
            sessions[0].name if len(places) == 1 else f"{len(places)} like {sessions[0].name}",
            kind=self.places[places[0]],
            worker=worker if len(places) == 1 else -1,
            device=device,
            speed=sessions[0].speed.get(device, 1.0),
            slots=sum(slots[place] for place in places),
            bandwidth=self._bandwidth(sessions[0]),
            price_per_s=profile.price_per_s if profile is not None else 0.0,
            watts=profile.watts if profile is not None else 0.0,
            memory=float(one.capacity.memory) or float("inf"),
            free_s=tuple(free),
        )

    def _bandwidth(self, session: Session) -> float:
        """Bytes/s of its link: as declared, else as measured. What was measured may have shared the link already."""
        link, transfer_s = session.profile.link, self.turn.predictor.transfer_s
        if link.bandwidth != LinkProfile().bandwidth:
            return link.bandwidth
        bytes_s = transfer_s(session.worker, link, _LARGE) - transfer_s(session.worker, link, 0)
        return _LARGE / bytes_s if bytes_s > 0 else link.bandwidth

    def _free_s(self, session: Session, slots: int, ahead_s: float) -> tuple[float, ...]:
        """When each slot is expected to be free of what the session holds, this run's own included (the problem's past
        takes no slot), and of the share of others' work."""
        now = self.now_s
        left, queued = [], []
        for load in session.loads.values():
            if load.paused or not load.needs.get("cpu"):
                continue
            run_s = (load.predicted or expected(self.turn, session, load.skill, load.device)).run_s
            passed = now - load.at
            if load.started:
                left.append(max(run_s - passed, 0.1 * run_s, passed - run_s))
            else:
                queued.append(run_s)
        free = sorted([*left, *[0.0] * max(0, slots - len(left))])[:slots]
        for run_s in queued:
            free[0] += run_s
            free.sort()
        return tuple(now + at + ahead_s for at in free)

    def _ahead_s(self) -> float:
        """Seconds of others' work that is not given to a worker yet and comes before ours, in all.

        Runs of our priority take turns: each is at most as far ahead as our own work reaches.
        """
        own, ahead = self._left_s(self.run), 0.0
        for other in self.turn.state.runs.values():
            if other.ix == self.run.ix or type(other.state) is not Open or not other.unsettled:
                continue
            more = other.settings.priority - self.run.settings.priority
            ahead += self._left_s(other) if more > 0 else min(own, self._left_s(other)) if more == 0 else 0.0
        return ahead

    def _left_s(self, run: Run) -> float:
        """The predicted work of a run that nobody has begun, from some of its tasks."""
        turn, total, count, waiting = self.turn, 0.0, 0, 0
        for task in islice((task for task in reversed(run.tasks) if not task.final), _SAMPLE):
            count += 1
            if task.live():
                continue
            waiting += 1
            spec = turn.contract(task)
            if spec is not None and any(variant.needs.cpu for variant in spec.variants):
                total += turn.predictor.measured(task.skill) or 0.0
        return total / count * run.unsettled if count else 0.0
