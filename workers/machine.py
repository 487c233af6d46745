"""The worker's decisions: frames, outcomes and ticks in -> frames, starts and kills out.

Invariants: an attempt runs at most once here per (attempt, fence) it was assigned under; a report is spooled before it
is offered and forgotten only by Ack or DROP; after its lease the worker starts no `once` attempt and grants no
`begin_effect`. Silence of the orchestrator stops nothing else. Pure: `now` is an argument, the shell (`worker`) does
all I/O, the simulator runs the same machine on a virtual clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from protocol.errors import Unavailable
from protocol.frame import (
    Ack,
    Assign,
    Bye,
    Call,
    Cancel,
    Drain,
    Drained,
    Goodbye,
    Heartbeat,
    HeartbeatAck,
    Held,
    HeldVerdict,
    Hello,
    Rejected,
    Report,
    Return,
    Stage,
    Welcome,
)
from protocol.ids import AttemptId
from protocol.outcome import Failure, Outcome, Stopped, Success

from . import instruction as do
from . import stimulus as on
from .agenda import Agenda
from .attempt import Live
from .capacity import Capacity
from .setting import MachineSettings
from .spool import Spool, Spooled, Spools
from .work import Works, refused_by_policy

PAUSING: Final = frozenset({"join", "ask", "propose"})
RESEND_S: Final = 2.0
KILL_GRACE_S: Final = 2.0
SILENCE_LEASES: Final = 3.0
"""Without any frame for so many leases the stream is given up, whatever the transport believes."""


class Machine:
    """One worker. `handle` is its only entry; `attempts` and `spool` are for looking, not for touching."""

    def __init__(self, settings: MachineSettings, spools: Spools | None = None) -> None:
        self.settings = settings
        self.attempts: dict[AttemptId, Live] = {}
        self.spool = Spool(spools or Spools(), settings.spool_count, settings.spool_bytes)
        self.online = False
        self._capacity = Capacity(settings.profile.slots, settings.profile.capacity)
        self._works = Works(settings.profile, self._capacity.could_ever_hold)
        self._agenda = Agenda(self._capacity, self.attempts)
        self._resend: deque[tuple[float, AttemptId, int]] = deque()
        self._beat_s, self._lease_s = 1.0, 5.0
        self._next_beat = 0.0
        self._hello_at = self._heard_at = 0.0
        self._lease_until = float("-inf")
        self._drain_until: float | None = None
        self._draining_here = self._handed_back = self._left = False

    # The one entry

    def handle(self, stimulus: on.Stimulus, now: float) -> list[do.Instruction]:
        """Instructions in the order in which they must be done. Stale or repeated input yields nothing."""
        out: list[do.Instruction] = []
        match stimulus:
            case on.Received(items):
                self._heard_at = now
                for item in items:
                    _RECEIVE[type(item)](self, item, now, out)
            case on.Ended(results):
                self._ended(results, now, out)
            case on.Asked():
                self._asked(stimulus, now, out)
            case on.Saved(attempts):
                for attempt in attempts:
                    if (saved := self.spool.entries.get(attempt)) is not None:
                        saved.unsaved = False
                        self._offer_ready(attempt, saved, now, out)
            case on.Stored(attempt):
                if (stored := self.spool.entries.get(attempt)) is not None:
                    stored.unstored = False
                    self._offer_ready(attempt, stored, now, out)
            case on.Connected():
                self._connected(now, out)
            case on.Broken():
                self.online = False
                self._resend.clear()
            case on.FileStaged(staged):
                if self.online:
                    out.append(do.Send(staged))
            case on.DrainRequested(deadline_s):
                self._draining_here = True
                self._drain(now + deadline_s, out)
            case on.Tick():
                self._tick(now, out)
        if not self._agenda.is_empty:
            self._fill(now, out)
        if self._drain_until is not None:
            self._maybe_leave(now, out)
        return out

    def next_wake(self) -> float | None:
        """When it wants a Tick at the latest."""
        found = [limit] if (limit := self._agenda.next_limit) is not None else []
        if self.online:
            found.append(self._next_beat)
            if self._resend:
                found.append(self._resend[0][0])
        if self._drain_until is not None and not self._handed_back:
            found.append(self._drain_until)
        return min(found, default=None)

    def fenced(self, now: float) -> bool:
        """The lease is over: the orchestrator may have given `once` work to somebody else."""
        return now >= self._lease_until

    # The link

    def _connected(self, now: float, out: list[do.Instruction]) -> None:
        self.online = False
        self._hello_at = self._heard_at = now
        running = tuple(
            Held(live.assign.attempt, live.assign.fence, live.assign.pin)
            for live in self.attempts.values()
            if not live.orphan
        )
        spool = self.spool
        spooled = tuple(one.owed.held for one in spool.entries.values())
        profile = self.settings.profile
        out.append(
            do.Send(
                Hello(
                    self.settings.worker, self.settings.boot_id, profile, spool.journal, spool.epoch, running, spooled
                )
            )
        )

    def _welcome(self, item: Welcome, now: float, out: list[do.Instruction]) -> None:
        if item.journal != self.spool.journal:
            for attempt, live in list(self.attempts.items()):
                live.orphan = True
                self._stop(attempt, live, 0.0, Stopped("another journal"), now, out)
            self._agenda.clear()
            self.spool.enter(item.journal)
        self.spool.epoch = max(self.spool.epoch, item.epoch)
        out.append(do.Adopt(item.journal, self.spool.epoch))
        self.online = True
        self._beat_s, self._lease_s = item.heartbeat_s, item.lease_s
        self._lease_until = self._hello_at + item.lease_s
        self._next_beat = now + item.heartbeat_s
        self._resend.clear()
        for spooled in self.spool.entries.values():
            spooled.on_hold = False
        for live in self.attempts.values():
            live.on_hold = False
        self._judge(item.verdicts, now, out)
        judged = {one.attempt for one in item.verdicts}  # of these, what is wanted was offered just now
        self._offer([key for key, one in self.spool.entries.items() if one.ready and key not in judged], now, out)
        for attempt, one in self.spool.entries.items():
            if one.unstored and one.owed.ref is not None:
                out.append(do.Store(attempt, one.owed.ref))
        for live in self.attempts.values():
            if not live.on_hold:
                for call in live.calls.values():
                    self._send_call(call, now, out)

    def _heartbeat_ack(self, item: HeartbeatAck, now: float, out: list[do.Instruction]) -> None:
        self._lease_until = max(self._lease_until, item.at + self._lease_s)
        self._judge(item.verdicts, now, out)

    def _judge(self, verdicts: tuple[HeldVerdict, ...], now: float, out: list[do.Instruction]) -> None:
        for one in verdicts:
            attempt, verdict = one.attempt, one.verdict
            live, spooled = self.attempts.get(attempt), self.spool.entries.get(attempt)
            if live is not None:
                live.on_hold = verdict == "hold"
                if verdict in ("kill", "drop"):
                    self._stop(attempt, live, KILL_GRACE_S, Stopped("no longer wanted"), now, out)
            elif spooled is not None:
                spooled.on_hold = verdict == "hold"
                if verdict in ("drop", "kill"):
                    self._forget((attempt,), out)
                else:
                    self._offer_ready(attempt, spooled, now, out)

    def _bye(self, item: Bye, now: float, out: list[do.Instruction]) -> None:
        self.online = False
        if item.retry_after_s < 0:
            self._left = True
            out.append(do.Leave(item.code or "Refused", item.reason))
        else:
            out.append(do.HangUp(item.retry_after_s))

    # Work

    def _assign(self, item: Assign, now: float, out: list[do.Instruction]) -> None:
        attempt = item.attempt
        known = self.attempts.get(attempt)
        if known is not None:
            if item.fence > known.assign.fence:  # the orchestrator forgot the old one and gave its number anew
                known.successor = item
                if known.phase != "stopping":
                    self._stop(attempt, known, KILL_GRACE_S, Stopped("superseded"), now, out)
            return
        spooled = self.spool.entries.get(attempt)
        if spooled is not None:
            if item.fence == spooled.owed.held.fence:
                self._offer_ready(attempt, spooled, now, out)
                return
            self._forget((attempt,), out)
        work = self._works.read(item.spec)
        refusal = ""
        if isinstance(work, str):
            refusal = work
        elif self._drain_until is not None:
            refusal = "Draining"
        elif self.spool.is_full:
            refusal = "OutboxFull"
        elif work.spec.effect == "once" and self.fenced(now):
            refusal = "Fenced"
        if refusal or isinstance(work, str):
            code, _, message = refusal.partition(": ")
            out.append(do.Send(Rejected(attempt, code, message)))
            return
        live = self.attempts[attempt] = Live(item, work)
        if work.policy == "deny" or (work.policy == "ask" and not item.approved):
            self._ended((on.Result(attempt, refused_by_policy(work)),), now, out)
        elif work.skill.inline:
            self._start(attempt, live, now, out)
        else:
            self._agenda.queue(attempt)

    def _fill(self, now: float, out: list[do.Instruction]) -> None:
        for attempt, live in self._agenda.going_on(now):
            out.extend(do.Answer(attempt, *answer) for answer in live.answers)
            live.answers.clear()
        fenced = self.fenced(now)
        for attempt, live in self._agenda.starting(lambda one: not (fenced and one.work.spec.effect == "once")):
            self._start(attempt, live, now, out)

    def _start(self, attempt: AttemptId, live: Live, now: float, out: list[do.Instruction]) -> None:
        live.move("started")
        self._agenda.limit(attempt, live, now)
        out.append(do.Start(live.assign, live.work.spec, live.work.skill))

    def _cancel(self, item: Cancel, now: float, out: list[do.Instruction]) -> None:
        live = self.attempts.get(item.attempt)
        if live is None or (item.if_not_started and live.phase != "queued"):
            return
        self._stop(item.attempt, live, item.grace_s, Stopped("cancelled"), now, out)

    def _stop(
        self, attempt: AttemptId, live: Live, grace_s: float, verdict: Outcome, now: float, out: list[do.Instruction]
    ) -> None:
        """End it with `verdict`: at once while it is queued, else by a Kill whose Ended follows."""
        if live.phase == "queued":
            self._ended((on.Result(attempt, verdict),), now, out)
            return
        if live.verdict is None:
            live.verdict = verdict
        live.move("stopped")
        out.append(do.Kill(attempt, grace_s))

    # Ends and reports

    def _ended(self, results: tuple[on.Result, ...], now: float, out: list[do.Instruction]) -> None:
        successors: list[Assign] = []
        plain: list[Report] = []
        durable: list[Report] = []
        for result in results:
            live = self.attempts.pop(result.attempt, None)
            if live is None:
                continue
            live.move("ended")
            self._agenda.release(live)
            if live.successor is not None:
                successors.append(live.successor)
            if live.orphan or live.successor is not None:
                continue
            outcome = result.outcome
            if live.verdict is not None and not isinstance(outcome, Success):
                outcome = live.verdict
            assign = live.assign
            report = Report(result.attempt, assign.fence, assign.pin, outcome, result.usage)
            once = live.work.spec.effect == "once"
            self.spool.add(report, unsaved=once, on_hold=live.on_hold)
            (durable if once else plain).append(report)
        for reports, is_durable in ((plain, False), (durable, True)):
            if reports:
                out.append(do.Append(tuple(reports), is_durable))
        for report in plain + durable:
            spooled = self.spool.entries[report.attempt]
            if spooled.owed.ref is not None:
                out.append(do.Store(report.attempt, spooled.owed.ref))
            elif spooled.ready and self.online:
                out.append(do.Send(report))
                self._resend.append((now + RESEND_S, report.attempt, 0))
        for item in successors:
            self._assign(item, now, out)

    def _offer_ready(self, attempt: AttemptId, spooled: Spooled, now: float, out: list[do.Instruction]) -> None:
        if spooled.ready and self.online:
            self._offer([attempt], now, out)

    def _offer(self, attempts: list[AttemptId], now: float, out: list[do.Instruction]) -> None:
        if attempts:
            out.append(do.Offer(tuple(attempts)))
            self._resend.extend((now + RESEND_S, attempt, 0) for attempt in attempts)

    def _ack(self, item: Ack, now: float, out: list[do.Instruction]) -> None:
        self._forget(item.attempts, out)

    def _forget(self, attempts: tuple[AttemptId, ...], out: list[do.Instruction]) -> None:
        gone, spilled = self.spool.drop(attempts)
        if gone:
            out.append(do.Forget(gone, spilled))
        while self._resend and not self._resend[0][2] and self._resend[0][1] not in self.spool.entries:
            self._resend.popleft()  # acknowledged: no reason to wake

    # Calls of running attempts

    def _asked(self, item: on.Asked, now: float, out: list[do.Instruction]) -> None:
        live = self.attempts.get(item.attempt)
        if live is None or live.phase in ("queued", "stopping") or item.k in live.calls:
            return
        if item.what == "begin_effect" and self.fenced(now):
            out.append(do.Answer(item.attempt, item.k, error=_FENCED))
            return
        call = Call(item.attempt, live.assign.fence, item.k, item.what, item.body)  # type: ignore[arg-type]
        live.calls[item.k] = call
        if item.what in PAUSING and live.phase == "running" and live.grip == "full":
            self._agenda.pause(live, now)
        if self.online and not live.on_hold:
            self._send_call(call, now, out)

    def _send_call(self, call: Call, now: float, out: list[do.Instruction]) -> None:
        out.append(do.Send(call))
        self._resend.append((now + RESEND_S, call.attempt, call.k))

    def _return(self, item: Return, now: float, out: list[do.Instruction]) -> None:
        live = self.attempts.get(item.attempt)
        call = live.calls.pop(item.k, None) if live is not None else None
        if live is None or call is None:
            return
        error = item.error
        if call.what == "begin_effect" and self.fenced(now):
            error = _FENCED
        if call.what in PAUSING and live.phase == "waiting":
            self._agenda.resume(item.attempt, live)
            live.answers.append((item.k, item.value, error))
        elif live.phase == "resuming":
            live.answers.append((item.k, item.value, error))
        else:
            out.append(do.Answer(item.attempt, item.k, item.value, error))

    def _stage(self, item: Stage, now: float, out: list[do.Instruction]) -> None:
        out.append(do.Upload(item))

    # Time

    def _tick(self, now: float, out: list[do.Instruction]) -> None:
        for attempt, live in self._agenda.overdue(now):
            work = live.work.spec
            late = Failure("Timeout", f"{work.skill} was stopped after {work.timeout_s:g} s", "transient")
            self._stop(attempt, live, KILL_GRACE_S, late, now, out)
        if self.online:
            if now - self._heard_at > SILENCE_LEASES * self._lease_s:
                self.online = False
                out.append(do.HangUp(0.0))
                return
            while self._resend and self._resend[0][0] <= now:
                _, attempt, k = self._resend.popleft()
                self._again(attempt, k, now, out)
            if now >= self._next_beat:
                self._next_beat = now + self._beat_s
                held = tuple(key for key, one in self.attempts.items() if not one.orphan) + tuple(self.spool.entries)
                free = 0 if self.spool.is_full else self._capacity.free_slots
                out.append(do.Send(Heartbeat(at=now, inventory=held, free=float(free))))
        if self._drain_until is not None and now >= self._drain_until and not self._handed_back:
            self._handed_back = True
            handed = Failure("HandedBack", "the worker was told to leave", "infra")
            for attempt, live in list(self.attempts.items()):
                if live.phase != "stopping":
                    self._stop(attempt, live, KILL_GRACE_S, handed, now, out)

    def _again(self, attempt: AttemptId, k: int, now: float, out: list[do.Instruction]) -> None:
        if k:
            live = self.attempts.get(attempt)
            call = live.calls.get(k) if live is not None and not live.on_hold else None
            if call is not None:
                self._send_call(call, now, out)
            return
        spooled = self.spool.entries.get(attempt)
        if spooled is not None:
            self._offer_ready(attempt, spooled, now, out)

    # Leaving

    def _drain_item(self, item: Drain, now: float, out: list[do.Instruction]) -> None:
        self._drain(now + item.deadline_s, out)

    def _drain(self, until: float, out: list[do.Instruction]) -> None:
        self._drain_until = until if self._drain_until is None else min(until, self._drain_until)
        for attempt in self._agenda.clear():
            del self.attempts[attempt]
            if self.online:
                out.append(do.Send(Rejected(attempt, "Draining")))

    def _maybe_leave(self, now: float, out: list[do.Instruction]) -> None:
        if self._left or self.attempts:
            return
        flushed = not self.spool.entries and self.online
        given_up = self._draining_here and (not self.online or now >= (self._drain_until or now))
        if flushed or given_up:
            self._left = True
            if self.online:
                out.extend((do.Send(Drained()), do.Send(Goodbye("drained"))))
            out.append(do.Leave())


_FENCED: Final = msgspec.json.encode(
    Unavailable("the lease of this worker is over: its once-only work may be elsewhere by now").to_wire()
)
_RECEIVE: Final[dict[type, Callable[[Machine, Any, float, list[do.Instruction]], None]]] = {
    Welcome: Machine._welcome,
    HeartbeatAck: Machine._heartbeat_ack,
    Assign: Machine._assign,
    Cancel: Machine._cancel,
    Ack: Machine._ack,
    Return: Machine._return,
    Stage: Machine._stage,
    Drain: Machine._drain_item,
    Bye: Machine._bye,
}
