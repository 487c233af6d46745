"""What users and runs have of the fleet, kept only while several runs wait: then placement.fairness orders them.

Nobody is charged for what nobody else wanted, and a fleet that serves one run pays nothing for fairness. Fleet
knowledge, never journaled: it is counted again from the sessions' books when it is needed, and whenever the fleet has
changed. Invariant: `Load.counted` is what the accounts hold an attempt with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..placement.fairness import LIGHT_CPU, Amounts, Fairness
from .fleet import Fleet, Key, Load, Session
from .graph import Run
from .lifecycle import Closed
from .state import State

Expect = Callable[[Load], float]
"""How many seconds an attempt is expected to run."""


class Ledger:
    """See the module."""

    def __init__(self, state: State, weights: Mapping[str, float], half_life_s: float) -> None:
        self._state = state
        self.fairness = Fairness(weights, half_life_s)
        self.counts = False
        """Somebody waits for a turn, or did lately."""
        self._expect: Expect = lambda load: 0.0
        self._counted_at = self._wanted_at = 0.0
        self._seen = -1
        self._now = 0.0

    def follow(self, fleet: Fleet, expect: Expect, now: float) -> None:
        """Several runs wait now: who has what must be right."""
        self._now = self._wanted_at = now
        # From time to time all the same: differences of fractions leave something behind.
        if not self.counts or self._seen != fleet.changes or now > self._counted_at + self.fairness.memory_s:
            self._expect = expect
            self._count(fleet)

    def rest(self, fleet: Fleet, now: float) -> None:
        """Nobody waits for another one; the counting goes on for a while, as somebody may again soon."""
        if now > self._wanted_at + self.fairness.memory_s:
            self.counts = False
            for session in fleet.sessions.values():
                session.tell = None

    def open(self, run: Run) -> None:
        """The run is going to be asked for its turn."""
        self.fairness.open(run.ix, run.author)

    def step_of_user(self, user: str) -> int:
        return self.fairness.step(self.fairness.users[user], self._now)

    def step_of_run(self, run: int) -> int:
        return self.fairness.step(self.fairness.runs[run][0], self._now)

    def used(self, run: Run, session: Session, load: Load, run_s: float, price: float, now: float) -> None:
        """An attempt that was on the session's books has run for so long, and has paid `price` to others."""
        self.open(run)
        amounts = load.counted[0] if load.counted is not None else amounts_of(session, load)
        self.fairness.use(run.ix, amounts, run_s, price, now)

    def _count(self, fleet: Fleet) -> None:
        fairness = self.fairness
        fairness.clear([ix for ix in fairness.runs if ix not in self._state.runs or self._closed(ix)], self._now)
        fairness.measure(session.profile for session in fleet.sessions.values())
        for session in fleet.sessions.values():
            session.tell = self._told
            for key, load in session.loads.items():
                self._told(session, key, load, 1)
        self.counts, self._seen, self._counted_at = True, fleet.changes, self._now

    def _closed(self, run: int) -> bool:
        return type(self._state.runs[run].state) is Closed

    def _told(self, session: Session, key: Key, load: Load, sign: int) -> None:
        """An attempt got onto the session's books (1), or is off them (-1)."""
        run = self._state.runs.get(key[0])
        if sign > 0 and run is not None:
            self.open(run)
            load.counted = amounts_of(session, load), self.fairness.part(self._expect(load))
        if run is not None and load.counted is not None:
            self.fairness.hold(run.ix, *load.counted, sign)


def amounts_of(session: Session, load: Load) -> Amounts:
    """What the attempt holds, in the order of placement.fairness.RESOURCES."""
    needs = load.needs
    cpu, gpu = needs.get("cpu", 0.0), needs.get("gpu", 0.0)
    device = session.device.get(load.device)
    price = device.price_per_s * (gpu if load.device == "gpu" else cpu) if device is not None else 0.0
    return cpu or LIGHT_CPU, gpu, needs.get("memory", 0.0), price
