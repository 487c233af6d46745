"""What this worker still owes the orchestrator, and when it says so again: reports until their Ack, calls until their
Return.

Invariant: nothing leaves before it may (`Spooled.ready`), each thing is said again every `RESEND_S` for as long as it
is owed, and nothing is forgotten but by Ack or DROP. Pure: it adds instructions, the shell carries them out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from protocol.frame import Call, Report
from protocol.ids import AttemptId

from . import instruction as do
from .attempt import Live
from .spool import Spool, Spooled

RESEND_S: Final = 2.0

Out = list[do.Instruction]


class Delivery:
    """`attempts` belong to the machine. Nothing is said while not `online`."""

    def __init__(self, spool: Spool, attempts: Mapping[AttemptId, Live]) -> None:
        self.spool = spool
        self.online = False
        self._attempts = attempts
        self._again: deque[tuple[float, AttemptId, int]] = deque()
        """When each attempt's report (0) or k-th call is due again; each is in it at most once."""
        self._due: set[tuple[AttemptId, int]] = set()

    def begin(self, now: float, out: Out) -> None:
        """A stream was welcomed, its verdicts are known: say everything that may be said."""
        self.online = True
        self.offer([attempt for attempt, one in self.spool.entries.items() if one.ready], now, out)
        for attempt, one in self.spool.entries.items():
            if one.unstored and one.owed.ref is not None:
                out.append(do.Store(attempt, one.owed.ref))
        for live in self._attempts.values():
            if not live.on_hold:
                for call in live.calls.values():
                    self.call(call, now, out)

    def end(self) -> None:
        """There is nobody to say anything to; the next stream begins anew."""
        self.online = False
        self._again.clear()
        self._due.clear()

    @property
    def next_at(self) -> float | None:
        return self._again[0][0] if self._again and self.online else None

    def add(self, reports: Iterable[tuple[Report, bool, bool]], now: float, out: Out) -> None:
        """Attempts have ended: (report, whether it must be fsynced before it leaves, whether it is on hold)."""
        plain: list[Report] = []
        durable: list[Report] = []
        for report, once, on_hold in reports:
            self.spool.add(report, unsaved=once, on_hold=on_hold)
            (durable if once else plain).append(report)
        for some, is_durable in ((plain, False), (durable, True)):
            if some:
                out.append(do.Append(tuple(some), is_durable))
        for report in plain + durable:
            spooled = self.spool.entries[report.attempt]
            if spooled.owed.ref is not None:
                out.append(do.Store(report.attempt, spooled.owed.ref))
            elif spooled.ready and self.online:
                out.append(do.Send(report))
                self._remember(report.attempt, 0, now)

    def ready(self, attempt: AttemptId, now: float, out: Out) -> None:
        """Something that held the report back may be over."""
        spooled = self.spool.entries.get(attempt)
        if spooled is not None and spooled.ready and self.online:
            self.offer([attempt], now, out)

    def offer(self, attempts: list[AttemptId], now: float, out: Out) -> None:
        if attempts:
            out.append(do.Offer(tuple(attempts)))
            for attempt in attempts:
                self._remember(attempt, 0, now)

    def call(self, call: Call, now: float, out: Out) -> None:
        out.append(do.Send(call))
        self._remember(call.attempt, call.k, now)

    def forget(self, attempts: tuple[AttemptId, ...], out: Out) -> None:
        """The orchestrator has them, or will never want them."""
        gone, spilled = self.spool.drop(attempts)
        if gone:
            out.append(do.Forget(gone, spilled))
        while self._again and not self._again[0][2] and self._again[0][1] not in self.spool.entries:
            _, attempt, k = self._again.popleft()  # acknowledged: no reason to wake
            self._due.discard((attempt, k))

    def again(self, now: float, out: Out) -> None:
        """Say again what is still owed."""
        while self._again and self._again[0][0] <= now:
            _, attempt, k = self._again.popleft()
            self._due.discard((attempt, k))
            if not k:
                self.ready(attempt, now, out)
                continue
            live = self._attempts.get(attempt)
            call = live.calls.get(k) if live is not None and not live.on_hold else None
            if call is not None:
                self.call(call, now, out)

    def settle(
        self, attempt: AttemptId, spooled: Spooled, *, wanted: bool, on_hold: bool, now: float, out: Out
    ) -> None:
        """The verdict on a report."""
        spooled.on_hold = on_hold
        if wanted:
            self.ready(attempt, now, out)
        else:
            self.forget((attempt,), out)

    def _remember(self, attempt: AttemptId, k: int, now: float) -> None:
        if (attempt, k) not in self._due:
            self._due.add((attempt, k))
            self._again.append((now + RESEND_S, attempt, k))
