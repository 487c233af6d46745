"""What one placement costs in the real core: microseconds to decide which of so many unlike devices a task goes to.

The machine, its queue and its rosters are real; the workers are simulated sessions whose attempts end when this says
so, in an order drawn from a seed. 100,000 tasks wait. Only deciding is timed (`offering.choice`): what follows, an
event and an Assign, is the hot path's, whoever was chosen.
"""

from __future__ import annotations

import gc
import heapq
import time
from collections.abc import Sequence
from random import Random
from typing import Any, Final

import msgspec

from orchestrator.core import command as c
from orchestrator.core import stimulus as s
from orchestrator.core.machine import Machine
from orchestrator.core.offering import choice
from orchestrator.core.setting import CoreSettings
from orchestrator.core.state import State
from orchestrator.core.turn import Turn
from protocol.frame import Assign, Hello, Report
from protocol.ids import AttemptId
from protocol.outcome import Success, Usage
from protocol.patch import Patch
from protocol.profile import DeviceProfile, LinkProfile, WorkerProfile
from protocol.resource import Resources
from protocol.skill import SkillSpec
from protocol.task import RunSettings, TaskSpec

SKILL: Final = SkillSpec("bench.work", effect="pure")
SLOTS: Final = 4
_VALUE: Final = b"1"


class Decision(msgspec.Struct, frozen=True):
    """Microseconds of a decision among so many devices. `offers`: how many were looked at, on average."""

    devices: int
    tasks: int
    median_us: float
    p99_us: float
    offers: float


def decision(devices: int, tasks: int = 100_000, samples: int = 2000, seed: int = 0, policy: str = "eft") -> Decision:
    """Decide `samples` times on a fleet in full swing; some attempts end and others begin between any two."""
    fleet = _Fleet(devices, tasks, seed, policy)
    fleet.swing(3 * devices)
    spent: list[float] = []
    looked = 0
    gc.disable()
    try:
        for _ in range(samples):
            took, offers = fleet.decide()
            spent.append(took * 1e6)
            looked += offers
            fleet.swing(1)
    finally:
        gc.enable()
    spent.sort()
    return Decision(devices, tasks, spent[samples // 2], spent[samples * 99 // 100], looked / samples)


def fit(rows: Sequence[Decision]) -> tuple[float, float]:
    """(microseconds, microseconds for each device more) of the straight line closest to the medians."""
    n = len(rows)
    mean_x, mean_y = sum(row.devices for row in rows) / n, sum(row.median_us for row in rows) / n
    slope = sum((row.devices - mean_x) * (row.median_us - mean_y) for row in rows)
    slope /= sum((row.devices - mean_x) ** 2 for row in rows) or 1.0
    return mean_y - slope * mean_x, slope


class _Fleet:
    """A machine with unlike simulated sessions, and one run whose tasks are all ready."""

    def __init__(self, devices: int, tasks: int, seed: int, policy: str) -> None:
        self.luck = Random(seed)
        self.machine = Machine(State(), CoreSettings(placement=policy, prefetch_target_s=0.0))
        self.now = 0.0
        self.began: dict[AttemptId, float] = {}
        self.running: list[tuple[float, int, int, Assign]] = []
        """(when it ends, number, conn, attempt): a heap."""
        self._hand_in(s.Started(1, "bench"))
        for worker in range(1, devices + 1):
            self._hand_in(s.Enrolled(0, f"w{worker}", f"hash{worker}"))
            self._hand_in(s.WorkerJoined(worker, worker, Hello(f"w{worker}", "boot", self._profile())))
            self._hand_in(s.WorkerSent(worker, worker, ()))
        specs = tuple(TaskSpec(f"t{n}", SKILL.name) for n in range(tasks))
        self._hand_in(s.Submitted(0, "bench", "", "bench", RunSettings(), patch=Patch("person:bench", specs)))
        self.turn: Turn = self.machine._turn
        self._hand_in(s.Flush())

    def _profile(self) -> WorkerProfile:
        """Four generations of processors, behind three sorts of links; the speed of each is measured, so all differ."""
        speed = self.luck.choice([0.25, 1.0, 2.0, 8.0]) * self.luck.uniform(0.95, 1.05)
        link = LinkProfile(self.luck.choice([1e6, 1e8, 1e9]), self.luck.choice([0.0005, 0.02]))
        device = DeviceProfile("cpu", "simulated", SLOTS, speed=speed, simulated=True)
        return WorkerProfile(SLOTS, Resources(cpu=float(SLOTS)), (device,), skills=(SKILL,), link=link)

    def swing(self, count: int) -> None:
        """So many attempts end, each when its time has come, and as many begin."""
        for _ in range(min(count, len(self.running))):
            self.now, _, conn, assign = heapq.heappop(self.running)
            usage = Usage(self.now - self.began[assign.attempt])
            report = Report(assign.attempt, assign.fence, assign.pin, Success(_VALUE), usage)
            self._hand_in(s.WorkerSent(conn, conn, (report,)))
            if self.luck.random() < 0.5:  # else there is room when the next decision is timed
                self._hand_in(s.Flush())

    def decide(self) -> tuple[float, int]:
        """(seconds, offers) of one decision on the fleet as it is."""
        turn = self.turn
        turn.now = self.now
        bucket = turn.queue.waiting()[0]
        first = bucket.roster.next(0) or bucket.roster.up[0]
        entry = next(iter(bucket.lanes.values())).heap[0]
        run = turn.state.runs[entry[4]]
        start = time.perf_counter()
        _, offers, _ = choice(turn, run, run.tasks[entry[5]], bucket, first, bucket.roster.asking, 0)
        return time.perf_counter() - start, len(offers)

    def _hand_in(self, stimulus: s.Stimulus) -> None:
        for command in self.machine.handle(stimulus, self.now).commands:
            item: Any = command.item if isinstance(command, c.Send) else None
            if isinstance(item, Assign):
                took = self.luck.lognormvariate(0.0, 0.3) / self.machine.fleet.by_conn[command.conn].speed["cpu"]
                self.began[item.attempt] = self.now
                heapq.heappush(self.running, (self.now + took, len(self.began), command.conn, item))
