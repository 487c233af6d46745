"""The worker's decisions: frames, outcomes and ticks in -> frames, starts and kills out.

Invariants: an attempt runs at most once here per (attempt, fence) it was assigned under; a report is spooled before it
is offered and forgotten only by Ack or DROP; after its lease the worker starts no `once` attempt and grants no
`begin_effect`. Silence of the orchestrator stops nothing else. Pure: `now` is an argument, the shell (`worker`) does
all I/O, the simulator runs the same machine on a virtual clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from protocol.card import cards_of, without
from protocol.errors import Unavailable
from protocol.frame import (
    FEATURES,
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
from .argument import digests
from .attempt import Live
from .capacity import Capacity
from .delivery import Delivery
from .lease import Lease
from .setting import MachineSettings
from .spool import Spool, Spools
from .work import Works, refused_by_policy

PAUSING: Final = frozenset({"join", "ask", "propose"})
KILL_GRACE_S: Final = 2.0


class Machine:
    """One worker. `handle` is its only entry; `attempts` and `spool` are for looking, not for touching."""

    def __init__(self, settings: MachineSettings, spools: Spools | None = None) -> None:
        self.settings = settings
        self.attempts: dict[AttemptId, Live] = {}
        self.spool = Spool(spools or Spools(), settings.spool_count, settings.spool_bytes)
        self._whole = profile = settings.profile
        self._gone: frozenset[int] = frozenset()
        self._capacity = Capacity(profile.slots, profile.capacity, cards_of(profile.devices, profile.capacity))
        self._works = Works(settings.profile, self._capacity.could_ever_hold)
        self._agenda = Agenda(self._capacity, self.attempts)
        self._delivery = Delivery(self.spool, self.attempts)
        self._lease = Lease()
        self._drain_until: float | None = None
        self._awaits: list[Live] = []
        """What was assigned in this turn, and names artifacts."""
        self._draining_here = self._handed_back = self._left = False

    # The one entry

    def handle(self, stimulus: on.Stimulus, now: float) -> list[do.Instruction]:
        """Instructions in the order in which they must be done. Stale or repeated input yields nothing."""
        out: list[do.Instruction] = []
        match stimulus:
            case on.Received(items):
                self._lease.heard(now)
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
                        self._delivery.ready(attempt, now, out)
            case on.Stored(attempt):
                if (stored := self.spool.entries.get(attempt)) is not None:
                    stored.unstored = False
                    self._delivery.ready(attempt, now, out)
            case on.Connected():
                self._connected(now, out)
            case on.Broken():
                self._hung_up()
            case on.FileStaged(staged):
                if self.online:
                    out.append(do.Send(staged))
            case on.DrainRequested(deadline_s):
                self._draining_here = True
                self._drain(now + deadline_s, out)
            case on.Slept(seconds):
                self._agenda.shift(seconds)
            case on.DiskFilled(full):
                self.spool.disk_full = full
                self._lease.hasten(now)
            case on.CardsLost(gone):
                self._lost_cards(gone, now, out)
            case on.Tick():
                self._tick(now, out)
        if not self._agenda.is_empty:
            self._fill(now, out)
        if self._awaits:
            out.extend(do.Fetch(live.assign) for live in self._awaits if live.phase == "queued")
            self._awaits.clear()
        if self._drain_until is not None:
            self._maybe_leave(now, out)
        return out

    def next_wake(self) -> float | None:
        """When it wants a Tick at the latest."""
        found = [limit] if (limit := self._agenda.next_limit) is not None else []
        if self._lease.greeting:
            found.append(self._lease.silent_at)
        if self.online:
            found.append(self._lease.next_beat)
            if (again := self._delivery.next_at) is not None:
                found.append(again)
        if self._drain_until is not None and not self._handed_back:
            found.append(self._drain_until)
        return min(found, default=None)

    def fenced(self, now: float) -> bool:
        """The lease is over: the orchestrator may have given `once` work to somebody else."""
        return self._lease.over(now)

    @property
    def online(self) -> bool:
        """Welcomed on the current stream."""
        return self._delivery.online

    # The link

    def _connected(self, now: float, out: list[do.Instruction]) -> None:
        self._delivery.end()
        self._lease.greeted(now)
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
                    self.settings.worker,
                    self.settings.boot_id,
                    profile,
                    spool.journal,
                    spool.epoch,
                    running,
                    spooled,
                    features=FEATURES,
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
        self._lease.welcomed(item, now)
        for spooled in self.spool.entries.values():
            spooled.on_hold = False
        for live in self.attempts.values():
            live.on_hold = False
        self._judge(item.verdicts, now, out)
        self._delivery.begin(now, out)

    def _heartbeat_ack(self, item: HeartbeatAck, now: float, out: list[do.Instruction]) -> None:
        self._lease.acknowledged(item.at, now)
        told = {one.attempt for one in item.verdicts}
        # A hold is said again with every answer: what is not held any more may go on, though the verdict got lost.
        held = [key for key, live in self.attempts.items() if live.on_hold]
        held += [key for key, spooled in self.spool.entries.items() if spooled.on_hold]
        over = tuple([HeldVerdict(key, "keep") for key in held if key not in told])
        self._judge(item.verdicts + over, now, out)

    def _judge(self, verdicts: tuple[HeldVerdict, ...], now: float, out: list[do.Instruction]) -> None:
        for one in verdicts:
            attempt, verdict = one.attempt, one.verdict
            live, spooled = self.attempts.get(attempt), self.spool.entries.get(attempt)
            if live is not None:
                held, live.on_hold = live.on_hold, verdict == "hold"
                if verdict in ("kill", "drop"):
                    self._stop(attempt, live, KILL_GRACE_S, Stopped("no longer wanted"), now, out)
                for call in live.calls.values() if held and verdict == "keep" else ():
                    self._delivery.call(call, now, out)  # what it asked meanwhile
            elif spooled is not None:
                self._delivery.settle(
                    attempt, spooled, wanted=verdict not in ("drop", "kill"), on_hold=verdict == "hold", now=now,
                    out=out,
                )  # fmt: skip

    def _hung_up(self) -> None:
        self._delivery.end()
        self._lease.ended()

    def _bye(self, item: Bye, now: float, out: list[do.Instruction]) -> None:
        self._hung_up()
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
                self._delivery.ready(attempt, now, out)
                return
            self._delivery.forget((attempt,), out)
        work = self._works.read(item.spec)
        refusal = ""
        if isinstance(work, str):
            refusal = work
        elif self._drain_until is not None:
            refusal = "Draining"
        elif self.spool.short:
            refusal = self.spool.short
        elif work.spec.effect == "once" and self.fenced(now):
            refusal = "Fenced"
        if refusal or isinstance(work, str):
            code, _, message = refusal.partition(": ")
            out.append(do.Send(Rejected(attempt, code, message)))
            return
        if work.by_name:
            item = msgspec.structs.replace(item, approval=item.pin)
        live = self.attempts[attempt] = Live(item, work)
        if work.policy == "deny" or (work.policy == "ask" and not item.approved):
            self._ended((on.Result(attempt, refused_by_policy(work)),), now, out)
        elif work.skill.inline:
            self._start(attempt, live, now, out)
        else:
            self._agenda.queue(attempt)
            if digests(item):
                self._awaits.append(live)

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
        out.append(do.Start(live.assign, live.work.spec, live.work.skill, live.dealt))

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
        reports: list[tuple[Report, bool, bool]] = []
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
            reports.append((report, live.work.spec.effect == "once", live.on_hold))
        self._delivery.add(reports, now, out)
        for item in successors:
            self._assign(item, now, out)

    def _ack(self, item: Ack, now: float, out: list[do.Instruction]) -> None:
        self._delivery.forget(item.attempts, out)

    # Calls of running attempts

    def _asked(self, item: on.Asked, now: float, out: list[do.Instruction]) -> None:
        live = self.attempts.get(item.attempt)
        if live is None or live.phase == "queued" or item.k in live.calls:
            return
        if live.phase == "stopping" and item.what != "checkpoint":  # as far as it came is worth keeping
            return
        if item.what == "begin_effect" and self.fenced(now):
            out.append(do.Answer(item.attempt, item.k, error=_FENCED))
            return
        call = Call(item.attempt, live.assign.fence, item.k, item.what, item.body)  # type: ignore[arg-type]
        live.calls[item.k] = call
        if item.what in PAUSING and live.phase == "running" and live.grip == "full":
            self._agenda.pause(live, now)
        if self.online and not live.on_hold:
            self._delivery.call(call, now, out)

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
        if (self.online or self._lease.greeting) and self._lease.silent(now):
            self._hung_up()
            out.append(do.HangUp(0.0))
            return
        if self.online:
            self._delivery.again(now, out)
            if self._lease.beats(now):
                held = tuple(key for key, one in self.attempts.items() if not one.orphan) + tuple(self.spool.entries)
                short = "Draining" if self._drain_until is not None else self.spool.short
                free = 0.0 if short else float(self._capacity.free_slots)
                out.append(do.Send(Heartbeat(at=now, inventory=held, free=free, short=short)))
        if self._drain_until is not None and now >= self._drain_until and not self._handed_back:
            self._handed_back = True
            handed = Failure("HandedBack", "the worker was told to leave", "infra")
            for attempt, live in list(self.attempts.items()):
                if live.phase != "stopping":
                    self._stop(attempt, live, KILL_GRACE_S, handed, now, out)

    # Devices

    def _lost_cards(self, gone: frozenset[int], now: float, out: list[do.Instruction]) -> None:
        """What ran there is over, and what waits for more than is left; the orchestrator hears it by a new Hello."""
        if gone <= self._gone:
            return
        self._gone |= gone
        self.settings = msgspec.structs.replace(self.settings, profile=without(self._whole, self._gone))
        self._capacity.lose(self._gone, self.settings.profile.capacity)
        self._works.forget()
        lost = Failure("DeviceLost", "its card does not answer any more", "infra")
        for attempt, live in self._agenda.stranded(self._gone):
            self._stop(attempt, live, KILL_GRACE_S, lost, now, out)
        if self.online:
            self._hung_up()
            out.append(do.HangUp(0.0))

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
