"""The skills that `asterism bench faults` runs: each execution signs the bench's ledger as it starts and ends.

The ledger is a file that orchestrator and workers know nothing of, so what really ran can be held against what the
journal says. A value is a function of its arguments plus a token that only this execution had. Workers load this module
by name; it must not know who runs it.
"""

from __future__ import annotations

import os
import secrets
import time
from typing import TypedDict

from workers.context import SkillContext
from workers.skill import skill


class Worked(TypedDict):
    n: int
    square: int
    token: str


class _Signature:
    """One execution's lines in the ledger: `what token attempt worker pid time`, each written in one append."""

    def __init__(self, ledger: str, ctx: SkillContext) -> None:
        self.token = secrets.token_hex(8)
        self._who = f"{self.token} {ctx.attempt} {ctx.worker} {os.getpid()}"
        self._path = ledger

    def sign(self, what: str) -> None:
        line = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(line, f"{what} {self._who} {time.time():.6f}\n".encode())
        finally:
            os.close(line)


@skill(name="faults.work", effect="pure", timeout="2m")
def work(n: int, ledger: str, ctx: SkillContext, seconds: float = 0.0, until: str = "") -> Worked:
    """Takes `seconds`, then until the file `until` is there; returns the square of `n` and the execution's token."""
    signature = _Signature(ledger, ctx)
    signature.sign("start")
    _wait(seconds, until)
    signature.sign("end")
    return Worked(n=n, square=n * n, token=signature.token)


@skill(name="faults.act", effect="once", timeout="2m", begin_effect="own")
def act(n: int, ledger: str, ctx: SkillContext, seconds: float = 0.0, until: str = "") -> Worked:
    """Prepares as long as `faults.work` works, then has an effect: a line that must never be there twice for a task."""
    signature = _Signature(ledger, ctx)
    signature.sign("start")
    _wait(seconds, until)
    ctx.begin_effect()
    signature.sign("effect")
    signature.sign("end")
    return Worked(n=n, square=n * n, token=signature.token)


def _wait(seconds: float, until: str) -> None:
    time.sleep(seconds)
    while until and not os.path.exists(until):
        time.sleep(0.01)


@skill(name="faults.fill", effect="pure", timeout="2m")
def fill(n: int, size: int, ledger: str, ctx: SkillContext) -> dict[str, object]:
    """Returns `size` bytes of text besides what `faults.work` returns: what fills a disk."""
    signature = _Signature(ledger, ctx)
    signature.sign("start")
    found: dict[str, object] = {"n": n, "square": n * n, "token": signature.token, "text": "x" * size}
    signature.sign("end")
    return found
