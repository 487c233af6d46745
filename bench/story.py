"""What happened in a demo run, read from its event stream: moves, deaths, recoveries, rewrites.

A fold over event rows (protocol/report) and the few facts only the demo knows: what it killed, and when. Invariant:
every number of `lines` comes from a row or from such a fact; nothing is assumed to have worked. It must not know
clients, processes or terminals.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

_PARTS: Final = "measure"
_MIB: Final = 1024 * 1024


class Killed(msgspec.Struct):
    """A process the demo killed: when (Unix time), what it had finished and what it held, and when it was back."""

    name: str
    at: float
    finished: int = 0
    holding: tuple[str, ...] = ()
    back_at: float = 0.0
    settled: frozenset[str] = frozenset()


class Task:
    """One task (or child of a map) as the events tell it."""

    __slots__ = ("attempts", "ended", "lost", "message", "skill", "started", "state", "worker")

    def __init__(self) -> None:
        self.state = "pending"
        self.worker = ""
        self.skill = ""
        self.message = ""
        self.attempts: list[tuple[float, str, str]] = []
        """(when, worker, why) of each dispatch, in order."""
        self.lost: list[tuple[float, str]] = []
        self.started = 0.0
        self.ended = 0.0


class Story:
    """Feed it rows in order; ask it at any time."""

    def __init__(self, home: str = "here") -> None:
        self._home = home
        self.tasks: dict[str, Task] = {}
        self.began = 0.0
        self.now = 0.0
        self.state = "planning"
        self.versions: list[tuple[int, str, str, tuple[str, ...], float]] = []
        self.first_ids: tuple[str, ...] = ()
        self.killed: list[Killed] = []
        self.reasons: dict[str, str] = {}
        self.first: tuple[float, str] | None = None
        """When the first task was given out, and which."""
        self.maps: dict[str, tuple[float, int]] = {}
        """When each map was expanded, and into how many."""
        self.asked: list[float] = []
        """When the planner was called for the first plan; again after a crash."""
        self.planned: tuple[float, str, int] | None = None
        """When the first plan was over, what was wrong with it, and how many tasks had settled by then."""
        self.planner = ""
        self.written = 0
        """Tokens of it."""
        self._pinned: Counter[str] = Counter()
        self._sizes: dict[str, int] = {}
        self._on: dict[tuple[str, int], str] = {}

    def name(self, worker: str) -> str:
        """`here` is called here, whatever its identity."""
        return "here" if worker == self._home else worker

    def feed(self, row: Mapping[str, Any]) -> None:
        self.now = float(row["at"])
        self.began = self.began or self.now
        kind = row["kind"]
        if kind == "patch_accepted":
            self._accepted(row)
        elif kind == "file_pinned":
            self._pinned[row["uri"]] += 1
            self._sizes[row["uri"]] = int(row["ref"]["size"])
        elif kind == "planner_call_opened" and self.planned is None:
            self.asked.append(self.now)
        elif kind == "budget_spent" and self.planned is None:
            self.written = int(row["tokens_out"])
        elif kind == "plan_closed":
            wrong = str(row.get("message", "")) if row.get("code") or row.get("partial") else ""
            self.planned = (self.now, wrong, len(self.settled()))
        elif kind == "planner_call_closed" and self.planned is None:
            self.planner = str(row.get("planner", ""))
        elif kind == "run_settled":
            self.state = str(row["state"])
        elif row.get("task"):
            self._task(kind, row, self.tasks.setdefault(row["task"], Task()))

    def _accepted(self, row: Mapping[str, Any]) -> None:
        self.state = "open"
        ids = tuple(row.get("ids", ()))
        for name in ids:
            self.tasks.setdefault(name, Task())
        version = int(row.get("version", 1))
        if version <= 1 or (row.get("author") == "planner" and self.planned is None):
            self.first_ids += ids
        else:
            self.versions.append((version, row.get("author", ""), row.get("why", ""), ids, self.now))

    def _task(self, kind: str, row: Mapping[str, Any], task: Task) -> None:
        worker = self.name(str(row.get("worker", "")))
        number = int(row.get("attempt", 0))
        if kind == "attempt_dispatched":
            task.state, task.worker = "running", worker
            task.skill = row.get("skill") or task.skill
            task.started = task.started or self.now
            task.attempts.append((self.now, worker, row.get("why", "")))
            self.first = self.first or (self.now, row["task"])
            self._on[row["task"], number] = worker
        elif kind == "attempt_ended" and row.get("lost"):
            task.lost.append((self.now, self._on.get((row["task"], number), "")))
        elif kind == "attempt_ended":
            task.worker = self._on.get((row["task"], number), task.worker)
        elif kind == "map_expanded":
            task.state = "running"
            task.started = self.now
            self.maps[row["task"]] = (self.now, int(row["items"]))
        elif kind == "task_requeued":
            task.state, task.message = "ready", row.get("why", "")
        elif kind == "task_settled":
            task.state, task.ended = str(row["state"]), self.now
            task.message = row.get("message", "")
            winner = int(row.get("winner", 0))
            task.worker = self._on.get((row["task"], winner), task.worker)

    def saw_reason(self, name: str, why: str) -> None:
        """Why a task waits, in the server's words, while its machine is away."""
        self.reasons[name] = why

    # What the demo asks while it runs

    def finished_on(self, worker: str) -> int:
        """Parts that this worker has finished."""
        return sum(1 for name, task in self._parts() if task.state == "succeeded" and task.worker == worker)

    def held_by(self, worker: str) -> tuple[str, ...]:
        """What this worker has been given and not given back."""
        return tuple(
            name for name, task in self.tasks.items() if task.state == "running" and self._last_worker(task) == worker
        )

    def parts_done(self) -> int:
        return sum(1 for _, task in self._parts() if task.state == "succeeded")

    def settled(self) -> frozenset[str]:
        return frozenset(name for name, task in self.tasks.items() if task.ended)

    def _parts(self) -> Iterator[tuple[str, Task]]:
        return ((name, task) for name, task in self.tasks.items() if name.startswith(f"{_PARTS}."))

    def _last_worker(self, task: Task) -> str:
        return task.attempts[-1][1] if task.attempts else ""

    # The story

    def lines(self, report: Mapping[str, Any]) -> list[tuple[str, str]]:
        """(time since submission, what happened), about twelve of them. `report` is the run's own (cli.md)."""
        found = [*self._planned(), *self._measured()]
        for killed in self.killed:
            found += self._death(killed)
        for version, author, why, ids, at in self.versions:
            total = len(self.first_ids) + sum(len(row[3]) for row in self.versions if row[0] <= version)
            text = f"rewritten while running, version {version} by {author}: {why}; {_list(ids)} added, {total} tasks"
            found.append((at - self.began, text))
        found += self._branches()
        found += self._copied()
        found.sort(key=lambda row: row[0])
        rows = [(f"{max(0.0, at):.2f} s", text) for at, text in found]
        rows.append((f"{report['makespan_s']:.2f} s", self._end(report)))
        return rows

    def _planned(self) -> Iterator[tuple[float, str]]:
        """The plan's way from the first task to its last word."""
        for at in self.asked[1:]:
            yield (
                at - self.began,
                "the planner's call was lost: it is asked for what is missing",
            )
        if self.first is not None:
            yield self.first[0] - self.began, f"first task: {self.first[1]}{self._writing(self.first[0])}"
        for name, (at, items) in self.maps.items():
            yield at - self.began, f"map running: {name}, {items} parts{self._writing(at)}"
        if self.planned is not None:
            at, wrong, settled = self.planned
            text = f"plan complete: {len(self.first_ids)} tasks by {self.planner}, {self.written} tokens"
            by_then = f"{settled} tasks and parts had settled by then"
            yield at - self.began, f"the plan ended early: {wrong}" if wrong else f"{text}; {by_then}"

    def _writing(self, at: float) -> str:
        return ", while the plan is being written" if self.planned is None or at < self.planned[0] else ""

    def _measured(self) -> Iterator[tuple[float, str]]:
        where = Counter(task.worker for _, task in self._parts() if task.state == "succeeded")
        if not where:
            return
        last = max(task.ended for _, task in self._parts())
        split = ", ".join(f"{number} on {worker}" for worker, number in where.most_common())
        moved = sum(self._sizes.values())
        text = f"{sum(where.values())} parts measured: {split}"
        if moved:
            text += f"; {len(self._pinned)} files, {moved / _MIB:.1f} MiB moved to where they were read"
        yield last - self.began, text

    def _death(self, killed: Killed) -> Iterator[tuple[float, str]]:
        at = killed.at - self.began
        if not killed.holding and killed.settled:
            again = [
                name for name in killed.settled if self.tasks[name].attempts[-1:] and self._ran_after(name, killed)
            ]
            yield at, f"{killed.name} killed (SIGKILL) with {len(killed.settled)} tasks settled"
            if killed.back_at:
                gone = killed.back_at - killed.at
                ran = f"{_list(again)} ran again" if again else "no settled task ran again"
                yield killed.back_at - self.began, f"{killed.name} back after {gone:.2f} s, from its journal; {ran}"
            return
        yield at, (f"{killed.name} killed (SIGKILL): {killed.finished} parts finished, holding {_list(killed.holding)}")
        elsewhere: dict[str, list[str]] = defaultdict(list)
        noticed: list[float] = []
        for name in killed.holding:
            task = self.tasks[name]
            noticed += [when for when, worker in task.lost if worker == killed.name and when >= killed.at]
            after = [(when, worker) for when, worker, _ in task.attempts if when > killed.at]
            if after:
                noticed.append(after[0][0])
                elsewhere[after[-1][1]].append(name)
        if noticed:
            moves = "; ".join(f"{_list(names)} to {worker}" for worker, names in elsewhere.items())
            first = min(noticed)
            yield (
                first - self.began,
                f"noticed {first - killed.at:.2f} s after the kill; given out again: {moves or '-'}",
            )
        if killed.back_at:
            text = f"{killed.name} started again {killed.back_at - killed.at:.2f} s after the kill"
            waited = [
                f"{name} ran there after {self._waited(name, killed):.2f} s{self._reason(name)}"
                for name in killed.holding
                if self.tasks[name].attempts[-1][1] == killed.name and self._ran_after(name, killed)
            ]
            yield killed.back_at - self.began, "; ".join([text, *waited])

    def _ran_after(self, name: str, killed: Killed) -> bool:
        return any(when > killed.at for when, _, _ in self.tasks[name].attempts)

    def _reason(self, name: str) -> str:
        return f" ({self.reasons[name]})" if name in self.reasons else ""

    def _waited(self, name: str, killed: Killed) -> float:
        return next(when for when, _, _ in self.tasks[name].attempts if when > killed.at) - killed.at

    def _branches(self) -> Iterator[tuple[float, str]]:
        """The two outcomes of the condition: one ran, the other was skipped."""
        calls, clean = self.tasks.get("calls"), self.tasks.get("clean")
        if calls is None or clean is None or not (calls.ended and clean.ended):
            return
        ran, left = ("calls", "clean") if calls.state == "succeeded" else ("clean", "calls")
        yield (
            max(calls.ended, clean.ended) - self.began,
            f"condition on calls of eval and exec: `{ran}` ran, `{left}` was skipped",
        )

    def _copied(self) -> Iterator[tuple[float, str]]:
        copy, same = self.tasks.get("copy"), self.tasks.get("same")
        if copy is None or same is None or same.state != "succeeded":
            return
        yield same.ended - self.began, f"archive of the hardest modules kept on {copy.worker}, its hash checked there"

    def _end(self, report: Mapping[str, Any]) -> str:
        states = Counter(str(row["state"]) for row in report["tasks"].values())
        recovered = report["recovered"]
        width = report["width"]
        counts = ", ".join(f"{number} {state}" for state, number in states.most_common()) or "no task"
        made_good = ", ".join(f"{number} {what}" for what, number in recovered.items() if number) or "nothing"
        return (
            f"{report['state']}: {counts}; task time {report['task_s']:.2f} s, width {width['mean']:.1f} mean, "
            f"{width['max']} at most; made good: {made_good}"
        )


def _list(names: Any) -> str:
    found = sorted(names)
    return ", ".join(found[:4]) + (f" and {len(found) - 4} more" if len(found) > 4 else "") if found else "nothing"
