"""Who goes first: weighted dominant resource fairness between users, and between the runs of one user.

A share is the largest part of any one resource of the fleet (cpu, gpu, memory, the price of its devices) that somebody
has had lately, divided by his weight (Ghodsi et al., NSDI 2011). Lately: what an attempt has used decays with a
half-life, and what is under way counts for as much as it is going to add. Invariant: `at` and `held` of an account only
move by hold() and use(); shares order, they never forbid, so what somebody leaves idle is lent to the others.
It must not know runs, queues or sessions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import exp, floor, log, log2
from typing import Final

from protocol.profile import WorkerProfile

RESOURCES: Final = ("cpu", "gpu", "memory", "price")
Amounts = tuple[float, float, float, float]
"""One of each of RESOURCES: cores, cards, bytes, price a second."""
LIGHT_CPU: Final = 0.001
"""What an attempt that needs no cpu counts as: many of them still are a load."""
MOST_ABSENT: Final = 1_000
"""Users without an open run of whom is remembered what they had."""
_FADED: Final = 14.0
"""After so many memories less than _LEAST is left of anything."""
_STEPS: Final = 8.0
_LEAST: Final = 1e-6
_FRESH: Final = 0.01
"""A step is good for so much of the memory: everybody's fade alike meanwhile."""


class Account:
    """What one user, or one run, has had."""

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.held = [0.0, 0.0, 0.0, 0.0]
        """Amounts under way, each times the part of the memory that it is going to fill."""
        self.used = [0.0, 0.0, 0.0, 0.0]
        """Amounts times seconds, decayed to `at`."""
        self.at = 0.0
        self._seen = (-1.0, 0)
        """Until when the step that was computed is good, and that step; any change forgets it."""

    def changed(self) -> None:
        self._seen = (-1.0, 0)


class Fairness:
    """See the module. `weights`: by user; who has none gets 1. `half_life_s`: of what was used."""

    def __init__(self, weights: Mapping[str, float], half_life_s: float) -> None:
        self.weights = dict(weights)
        self.memory_s = half_life_s / log(2.0)
        """Use of one core for ever adds up to one core times this."""
        self.capacity: Amounts = (0.0, 0.0, 0.0, 0.0)
        self.users: dict[str, Account] = {}
        self.runs: dict[int, tuple[Account, Account]] = {}
        """Run -> its account and its user's."""

    def measure(self, fleet: Iterable[WorkerProfile]) -> None:
        """What there is to share."""
        cpu = gpu = memory = price = 0.0
        for profile in fleet:
            capacity = profile.capacity
            cpu, gpu, memory = cpu + capacity.cpu, gpu + capacity.gpu, memory + capacity.memory
            price += sum(one.price_per_s * one.count for one in profile.devices)
        self.capacity = cpu, gpu, memory, price

    def open(self, run: int, user: str) -> tuple[Account, Account]:
        """The run's account and its user's; made when they are new."""
        found = self.runs.get(run)
        if found is None:
            of_user = self.users.get(user)
            if of_user is None:
                of_user = self.users[user] = Account(self.weights.get(user, 1.0))
            found = self.runs[run] = (Account(1.0), of_user)
        return found

    def clear(self, closed: Iterable[int], now: float) -> None:
        """Nothing is under way as far as anybody has counted; closed runs are forgotten, and so are users without any
        whose use has faded; beyond MOST_ABSENT those who have used something last are kept."""
        for run in closed:
            del self.runs[run]
        present = {id(of_user) for _, of_user in self.runs.values()}
        absent = [user for user, account in self.users.items() if id(account) not in present]
        absent.sort(key=lambda user: -self.users[user].at)
        for n, user in enumerate(absent):
            if n >= MOST_ABSENT or self.users[user].at + _FADED * self.memory_s < now:
                del self.users[user]
        for account in (*self.users.values(), *(one for one, _ in self.runs.values())):
            account.held = [0.0, 0.0, 0.0, 0.0]
            account.changed()

    def part(self, run_s: float) -> float:
        """How much of the memory work of `run_s` seconds fills."""
        return min(1.0, run_s / self.memory_s)

    def hold(self, run: int, amounts: Amounts, part: float, sign: int) -> None:
        """An attempt of an open run begins (1), or is over (-1) with the same amounts and part."""
        for account in self.runs[run]:
            held = account.held
            for n in range(4):
                if amounts[n]:
                    held[n] += sign * part * amounts[n]
            account.changed()

    def use(self, run: int, amounts: Amounts, run_s: float, price: float, now: float) -> None:
        """An attempt of an open run has used the amounts for `run_s` seconds, and has paid `price` besides."""
        for account in self.runs[run]:
            fade = exp((account.at - now) / self.memory_s)
            used = account.used
            for n in range(4):
                used[n] = used[n] * fade + amounts[n] * run_s
            used[3] += price
            account.at = now
            account.changed()

    def dominant(self, account: Account, now: float) -> tuple[str, float]:
        """(resource, part of the fleet's) that the account has had most of; not divided by its weight."""
        fade = exp((account.at - now) / self.memory_s) / self.memory_s
        return self.largest([held + used * fade for held, used in zip(account.held, account.used, strict=True)])

    def largest(self, amounts: Sequence[float]) -> tuple[str, float]:
        """(resource, part of the fleet's) of the amount that is the largest part."""
        best, found = 0, 0.0
        for n, capacity in enumerate(self.capacity):
            if capacity > 0 and amounts[n] > found * capacity:
                best, found = n, amounts[n] / capacity
        return RESOURCES[best], found

    def share(self, user: str, amounts: Sequence[float]) -> float:
        """The weighted share that these amounts alone are."""
        return self.largest(amounts)[1] / self.weights.get(user, 1.0)

    def step(self, account: Account, now: float) -> int:
        """The weighted share in steps of a tenth: within one, deadlines decide."""
        until, step = account._seen
        if now > until:
            share = self.dominant(account, now)[1] / account.weight
            step = floor(log2(max(share, _LEAST)) * _STEPS)
            account._seen = (now + self.memory_s * _FRESH, step)
        return step
