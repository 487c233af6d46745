"""What a run lost, and what it did twice: its journal and its result held against the bench's own ledger.

A result is lost if its task did not succeed, if its value is not the one that an execution which ended made, or if it
was shown to a client and is not in the journal any more. It was applied twice if a task or a run was settled twice, or
a `once` task had two effects. Invariant: pure; nothing is taken from the orchestrator that the ledger could tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from .ledger import Execution


class Account(msgspec.Struct, frozen=True):
    """Counts over one run or, added up, over many; `why` names what was lost or done twice."""

    results_lost: int = 0
    results_applied_twice: int = 0
    re_executed: int = 0
    why: tuple[str, ...] = ()

    def __add__(self, other: Account) -> Account:
        return Account(
            self.results_lost + other.results_lost,
            self.results_applied_twice + other.results_applied_twice,
            self.re_executed + other.re_executed,
            (self.why + other.why)[:20],
        )


def account(
    tasks: Mapping[str, int],
    rows: Sequence[Mapping[str, Any]],
    values: Mapping[str, Any],
    executions: Iterable[Execution],
    shown: Iterable[str] = (),
) -> Account:
    """Of one run. `tasks`: their arguments `n`; `rows`: its events from the journal; `values`: its outputs; `shown`:
    tasks that a client saw succeed at any time."""
    ran: dict[str, list[Execution]] = {name: [] for name in tasks}
    for one in executions:
        ran.setdefault(one.task, []).append(one)
    settled = Counter(str(row["task"]) for row in rows if row["kind"] == "task_settled")
    ends = {str(row["task"]): row for row in rows if row["kind"] == "task_settled"}
    succeeded = {name for name, row in ends.items() if row["state"] == "succeeded"}
    lost = [_lost(name, n, ends.get(name, {}), values.get(name), ran[name]) for name, n in tasks.items()]
    lost += [f"{name} was shown as succeeded, the journal says otherwise" for name in set(shown) - succeeded]
    twice = [f"{name} was settled {count} times" for name, count in settled.items() if count > 1]
    twice += [f"{name} had {count} effects" for name, count in _effects(ran).items() if count > 1]
    twice += ["the run was settled twice"] * (sum(row["kind"] == "run_settled" for row in rows) > 1)
    found = [text for text in lost if text]
    return Account(len(found), len(twice), sum(max(0, len(some) - 1) for some in ran.values()), (*found, *twice))


def _lost(name: str, n: int, end: Mapping[str, Any], value: Any, ran: Sequence[Execution]) -> str:
    if end.get("state") != "succeeded":
        return f"{name} is {end.get('state', 'open')}: {end.get('code', '')} {end.get('message', '')}"
    if not isinstance(value, dict) or value.get("square") != n * n:
        return f"{name} has the value {str(value)[:60]}, not {n * n}"
    if value.get("token") not in {one.token for one in ran if one.ended}:
        return f"{name} has a value that no execution made"
    return ""


def _effects(ran: Mapping[str, Sequence[Execution]]) -> dict[str, int]:
    return {name: sum(one.acted > 0 for one in some) for name, some in ran.items()}
