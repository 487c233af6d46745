"""A run's task graph in memory: tasks, attempts, edges, and the order that keeps it acyclic.

Tasks are numbered in the order they were accepted. `Wiring` is what a spec's references mean in this graph; it and
everything marked derived follows from the rest. Nothing here decides: `State.apply` changes, the machine decides.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from protocol.artifact import ArtifactRef, Value
from protocol.ids import Fence, run_name
from protocol.patch import Patch
from protocol.task import INPUT, AnyRef, FirstOf, Output, Ref, RunSettings, TaskSpec

from .lifecycle import OPEN, PENDING, RunState, Settled, TaskState
from .planner_call import PlannerCall, SubPlan
from .spend import Spend


class Attempt(msgspec.Struct, gc=False, array_like=True):
    """One execution. `ended`: "" while live, else succeeded, failed, stopped or lost."""

    number: int
    worker: int
    fence: Fence
    pin: bytes
    device: str
    at: float
    skill: str = ""
    why: str = ""
    hedge: bool = False
    ended: str = ""
    ended_at: float = 0.0
    run_s: float = -1.0
    """How long it ran at its worker; negative until it has reported."""
    code: str = ""
    message: str = ""
    began: bool = False
    """Its effect has begun (`once`)."""
    resolved: str = ""
    """What a person said of its unknown outcome: succeeded, retry, fail."""
    death: bool = False
    """It was lost because its worker's daemon died, as far as anybody knows."""
    tokens: int = 0
    """What it was lent of the run's budget."""
    price: float = 0.0

    @property
    def live(self) -> bool:
        return not self.ended


class Wiring(msgspec.Struct, frozen=True, gc=False):
    """What the references of a spec mean, by task index. Derived.

    `needs`: must have succeeded. `after`: must be final and not failed. `when`: judged by the condition alone.
    `firsts`: groups of which one must have succeeded. `chain`: maps whose elements feed ours one to one (the edge is
    satisfied by their expansion). `refs` are the argument references, in order.
    """

    refs: tuple[AnyRef, ...] = ()
    needs: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    when: tuple[int, ...] = ()
    firsts: tuple[tuple[int, ...], ...] = ()
    chain: tuple[int, ...] = ()
    ons: tuple[int, ...] = ()

    @property
    def mapped(self) -> bool:
        for ref in self.refs:  # noqa: SIM110 - each new task is asked
            if type(ref) is Ref and ref.each:
                return True
        return False

    def upstreams(self) -> set[int]:
        """Every task this one waits for to be final (chain edges apart)."""
        if not (self.after or self.when or self.ons or self.firsts):
            return set(self.needs)
        return {*self.needs, *self.after, *self.when, *self.ons, *(ix for group in self.firsts for ix in group)}


UNWIRED: Final = Wiring()


PERSON: Final = 0
"""Who wrote a task: a person."""
PLANNED: Final = 1
"""The planner, before it could see anything of the run: a part of the first plan."""
LATER: Final = 2
"""A planner that may have seen what workers say, or a task."""


CHECKPOINT: Final = "checkpoint"
"""The kind of the event that keeps one; `ctx.emit` can't take it."""


class Spawned(msgspec.Struct, array_like=True):
    """The children a task has spawned, by key, and the calls it was answered."""

    children: dict[str, int] = {}
    calls: dict[int, tuple[bytes, bytes]] = {}
    checkpoint: tuple[int, bytes] = (0, b"")
    """The last one of any attempt, JSON, and by which means (`Task.alt`) it was working."""


class Spread(msgspec.Struct, array_like=True):
    """A map's children: tasks [first, first + count), `chunk` of `items` each. `left` and `busy` are derived."""

    first: int
    count: int
    items: int
    chunk: int
    left: int = 0
    """Children not final."""
    busy: int = 0
    """Live attempts of children."""


class Task(msgspec.Struct, gc=False, array_like=True):
    """A task of a run. `k` is its place under `parent` (a map, an `all` or a spawn), else -1."""

    ix: int
    spec: TaskSpec
    version: int
    state: TaskState = PENDING
    parent: int = -1
    k: int = -1
    key: str = ""
    alt: int = 0
    """0: the skill itself, n: `spec.alt[n - 1]`."""
    tries: int = 0
    """Counted attempts of the current skill that failed."""
    losses: int = 0
    attempts: tuple[Attempt, ...] = ()
    value: Value | None = None
    at: int = -1
    """The worker this one must run on (a child of `all`)."""
    judged: bool = False
    by: str = ""
    cancelling: bool = False
    stop_code: str = ""
    """Why it is stopped, when that makes it failed rather than cancelled (TimedOut)."""
    approved: bytes = b""
    """The pin a person has allowed: any other asks again."""
    ready_at: float = -1.0
    reused: bool = False
    """Its value was taken over from the run this one was forked from."""
    spawned: Spawned | None = None
    spread: Spread | None = None
    wiring: Wiring = UNWIRED
    waits: int = 0
    down: list[int] | None = None
    chained: list[int] | None = None
    origin: int = PERSON
    """Who wrote its spec: PERSON, PLANNED or LATER."""
    owner: int = -1
    """The plan.next task whose sub-plan it is a part of."""
    plan: SubPlan | None = None

    @property
    def skill(self) -> str:
        return self.spec.skill if self.alt == 0 else self.spec.alt[self.alt - 1]

    @property
    def final(self) -> bool:
        """Settled, and not open to a retry."""
        return type(self.state) is Settled and not self.state.open

    @property
    def succeeded(self) -> bool:
        return type(self.state) is Settled and self.state.state == "succeeded"

    def state_is(self, word: str) -> bool:
        """Settled as `word`."""
        return type(self.state) is Settled and self.state.state == word

    @property
    def bad(self) -> bool:
        """Failed or cancelled: what comes `after` it does not run."""
        return type(self.state) is Settled and self.state.state in ("failed", "cancelled")

    @property
    def deaths(self) -> int:
        """How many daemons died while they had an attempt of it."""
        return sum(one.death for one in self.attempts)

    def live(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if not attempt.ended]

    def attempt(self, number: int) -> Attempt | None:
        for attempt in self.attempts:
            if attempt.number == number:
                return attempt
        return None

    def winner(self) -> Attempt | None:
        """The winning attempt, else the last one."""
        if type(self.state) is Settled and self.state.winner:
            return self.attempt(self.state.winner)
        return self.attempts[-1] if self.attempts else None


class Version(msgspec.Struct, array_like=True):
    """One numbered version of the graph: its patches, in order, and who wrote them."""

    number: int
    author: str
    why: str
    patches: list[Patch]
    at: float


class Expected(msgspec.Struct, frozen=True, array_like=True):
    """What was foretold of a run, in seconds from its submission."""

    policy: str
    makespan_s: float
    low_s: float
    high_s: float
    price: float
    energy_j: float


class Run(msgspec.Struct, array_like=True):
    """One request and its graph. What stands below `# derived` follows from the rest."""

    ix: int
    request: str
    key: str
    author: str
    settings: RunSettings
    inputs: dict[str, bytes]
    home: str
    submitted_at: float
    fork_of: int = 0
    labels: dict[str, str] = {}
    state: RunState = OPEN
    planned: bool = False
    """No more parts of the first plan will come."""
    plan_error: tuple[str, str] = ("", "")
    planner: str = ""
    tasks: list[Task] = []
    names: dict[str, int] = {}
    outputs: tuple[Output, ...] = ()
    versions: list[Version] = []
    files: dict[str, ArtifactRef] = {}
    calls: dict[int, PlannerCall] = {}
    claims: dict[int, tuple[tuple[int, ...], float]] = {}
    spend: Spend = msgspec.field(default_factory=Spend)
    reuse: dict[bytes, Value] = {}
    rounds: int = 0
    settled_at: float = 0.0
    cancelled: bool = False
    stop_code: str = ""
    # derived
    order: list[int] = []
    rank: list[float] = []
    unsettled: int = 0
    spawned: int = 0
    # appended later
    detached: bool = False
    """Somebody let it go on without a watcher."""
    aside: str = ""
    """Nothing is decided for it, because that failed; the reference of the failure."""
    failures: list[bytes] = []
    """What has failed before a re-plan: the same again is not re-planned."""
    graphs: list[bytes] = []
    """What the graph was, before and after re-plans."""
    stuck: bool = False
    """A re-plan has made a graph that was there before: there are no more."""
    reviewed: int = 0
    """How many tasks were settled at the last review."""
    called: int = 0
    """The number of its last planner call."""
    proposals: int = 0
    lost_plans: int = 0
    sub_plans: dict[int, int] = {}
    """How often a task has had something planned: each time under names of its own."""
    said: list[tuple[int, str, str]] = []
    """(task, person, text) of the last rejections: what a planner is told in a person's name."""
    partial: bool = False
    """The first plan ended before it was whole."""
    described: dict[str, int] = {}
    """Announced skills in the words that they had when its planner was first asked (`State.fingerprint`)."""
    envelope: dict[str, bool] = {}
    """The skills of the first plan and of persons; False: only where the task asks for approval, or acts
    under a condition."""
    expected: Expected | None = None

    @property
    def version(self) -> int:
        return self.versions[-1].number if self.versions else 0

    @property
    def name(self) -> str:
        return run_name(self.ix)

    def name_of(self, task: Task) -> str:
        """`count`, or `count.3` for a child."""
        if task.parent < 0:
            return task.spec.id
        return f"{self.name_of(self.tasks[task.parent])}.{task.key or task.k}"

    def find(self, name: str) -> Task | None:
        """The task a person calls `name`; None if there is none."""
        ix = self.names.get(name)
        if ix is not None:
            return self.tasks[ix]
        head, dot, key = name.rpartition(".")
        parent = self.find(head) if dot else None
        if parent is None:
            return None
        if parent.spawned and key in parent.spawned.children:
            return self.tasks[parent.spawned.children[key]]
        children = self.children(parent)
        return self.tasks[children[int(key)]] if key.isdigit() and int(key) < len(children) else None

    def children(self, task: Task) -> range:
        """The indices of a map's children; empty for other tasks."""
        spread = task.spread
        return range(spread.first, spread.first + spread.count) if spread else range(0)

    def next_attempt(self, task: Task) -> int:
        """The number of the task's next attempt; numbers may have gaps after a crash."""
        return task.attempts[-1].number + 1 if task.attempts else 1

    def held(self, ix: int) -> bool:
        """A re-plan has claimed this task."""
        for tasks, _ in self.claims.values():  # sorted
            place = bisect_left(tasks, ix)
            if place < len(tasks) and tasks[place] == ix:
                return True
        return False

    def roots(self) -> Iterator[Task]:
        """Tasks as written: no children of maps or spawns."""
        return (task for task in self.tasks if task.parent < 0)


def wire(spec: TaskSpec, refs: tuple[AnyRef, ...], names: dict[str, int], tasks: list[Task]) -> Wiring:
    """What `refs`, the references of the arguments of `spec`, and its other fields mean. Every name must be known
    (core.edit has checked). Raises: KeyError."""
    ons = tuple(names[on.source] for on in spec.on if type(on) is Ref)
    if not spec.when and not spec.after and not ons:
        if not refs:
            return UNWIRED
        if all(type(ref) is Ref and not ref.each for ref in refs):
            return Wiring(refs, tuple(dict.fromkeys([names[ref.source] for ref in refs if ref.source != INPUT])))  # type: ignore[union-attr]
    judged = tuple(dict.fromkeys(names[line.ref.source] for line in spec.when if line.ref.source != INPUT))
    needs: dict[int, None] = {}
    chain: dict[int, None] = {}
    firsts: list[tuple[int, ...]] = []
    for ref in refs:
        if type(ref) is FirstOf:
            firsts.append(tuple(names[one.source] for one in ref.refs if one.source != INPUT))
        elif type(ref) is Ref and ref.source != INPUT:
            ix = names[ref.source]
            if ref.each and not ref.path and is_map(tasks[ix]):
                chain[ix] = None
            elif ix not in judged:
                needs[ix] = None
    after = tuple(dict.fromkeys(names[name] for name in spec.after if names[name] not in judged))
    firm = {*needs, *after, *judged, *ons, *(ix for group in firsts for ix in group)}
    chained = tuple(ix for ix in chain if ix not in firm)  # elsewhere needed as a whole: then no element starts early
    if len(chained) < len(chain):
        needs.update((ix, None) for ix in chain if ix in firm and ix not in judged)
    return Wiring(refs, tuple(needs), after, judged, tuple(firsts), chained, ons)


def is_map(task: Task) -> bool:
    """Whether it spreads into children: `[]` references or `on: ["all"]`."""
    return task.parent < 0 and (task.wiring.mapped or task.spec.on == ("all",))


def would_cycle(run: Run, up: int, down: int) -> bool:
    """Add the edge up -> down to the order of `run`; True (and nothing changed) if that closes a cycle.

    Pearce and Kelly's dynamic topological order (JEA 2006): an edge that agrees with the order costs nothing, any
    other reorders only the region between the two. Iterative, so depth is no limit.
    """
    order = run.order
    low, high = order[down], order[up]
    if up == down:
        return True
    if high < low:
        return False
    forward = _reach(down, lambda ix: _downstreams(run.tasks[ix]), order, lambda place: place <= high)
    if up in forward:
        return True
    backward = _reach(up, lambda ix: _upstreams(run.tasks[ix]), order, lambda place: place >= low)
    moved = sorted(backward, key=order.__getitem__) + sorted(forward, key=order.__getitem__)
    for ix, place in zip(moved, sorted(order[ix] for ix in moved), strict=True):
        order[ix] = place
    return False


def _downstreams(task: Task) -> Iterable[int]:
    return [*(task.down or ()), *(task.chained or ())]


def _upstreams(task: Task) -> Iterable[int]:
    return task.wiring.upstreams() | set(task.wiring.chain)


def _reach(
    start: int, edges: Callable[[int], Iterable[int]], order: list[int], within: Callable[[int], bool]
) -> set[int]:
    seen = {start}
    stack = [start]
    while stack:
        for ix in edges(stack.pop()):
            if ix not in seen and within(order[ix]):
                seen.add(ix)
                stack.append(ix)
    return seen
