"""The durable state: everything the orchestrator knows that must survive it. One mutator, `State.apply(event)`.

Live and in recovery the same events in the same order make the same state, byte for byte (`snapshot`). Counters and
lists that follow from the rest (`waits`, `due`, `fresh`, `live`) are kept here too, so that a settled task costs its
downstreams one decrement each. This module decides nothing and knows no fleet.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import msgspec

from protocol.builtin import BUILTINS
from protocol.profile import Policy
from protocol.resource import Resources
from protocol.skill import SkillSpec

from . import event as e
from .envelope import widen
from .graph import LATER, Run
from .growth import origins_of
from .invariant import check_run
from .lifecycle import OPEN, PAUSED, RUN, Closed, Ready, next_state
from .planner_call import PlannerCall
from .progress import Progress
from .spend import Spend
from .token import Client, TokenRecord

PART_VERSION: Final = 1
"""To be raised when `apply` comes to mean something else though no field changes."""


class WorkerRecord(msgspec.Struct, array_like=True):
    """An enrolled identity and what it last announced."""

    ix: int
    name: str
    secret_hash: str
    serves: str = ""
    gone: bool = False
    skills: dict[str, str] = {}
    """Skill name -> digest of the contract it announced."""
    labels: dict[str, str] = {}
    devices: tuple[str, ...] = ()
    capacity: Resources = Resources(cpu=0.0)
    policies: tuple[tuple[str, Policy], ...] = ()
    lost: bool = False
    """Given up, and not back yet."""
    token: int = 0
    """What it bought its credential with."""
    edge: bool = False


class _Head(msgspec.Struct, array_like=True):
    epoch: int
    journal: str
    runs_made: int
    workers: dict[int, WorkerRecord]
    catalog: dict[str, SkillSpec]
    keys: dict[str, int]
    digests: dict[str, str]
    tokens: dict[int, TokenRecord] = {}
    restored: str = ""


BUILT_IN = frozenset(skill.name for skill in BUILTINS)
_DIGESTS = tuple((skill.digest(), skill) for skill in BUILTINS)
_OURS = frozenset(digest for digest, _ in _DIGESTS)
_APPLIERS = {
    kind: "_" + "".join("_" + c.lower() if c.isupper() else c for c in kind.__name__).lstrip("_")
    for kind in e.Event.__args__
}
_ENCODER = msgspec.msgpack.Encoder()
_HEAD = msgspec.msgpack.Decoder(_Head)
_RUN = msgspec.msgpack.Decoder(Run)


class State(Progress):
    """See the module."""

    def __init__(self, epoch: int = 0, journal: str = "") -> None:
        super().__init__()
        self.epoch = epoch
        self.journal = journal
        self.restored = ""
        """The worker that knew more of this journal than the journal itself: it is a copy."""
        self.runs_made = 0
        self.workers: dict[int, WorkerRecord] = {}
        self.catalog: dict[str, SkillSpec] = {}
        """Digest -> every contract ever announced."""
        self.digests: dict[str, str] = {}
        """Skill name -> the digest that runs pin: what most workers announce, the newest on a tie."""
        self._votes: dict[str, dict[str, int]] = {}
        """Skill name -> digest -> how many workers have it: derived, so that a fleet that joins costs what it says."""
        self._fingerprints: dict[str, tuple[SkillSpec, int]] = {}
        self._know_built_ins()
        self.keys: dict[str, int] = {}
        self.tokens: dict[int, TokenRecord] = {}
        self.changed: set[int] = set()
        """Parts (0, or a run) changed since the last snapshot."""
        self._appliers: dict[type, Callable[[Any], None]] = {
            kind: getattr(self, name) for kind, name in _APPLIERS.items()
        }

    def apply(self, event: e.Event) -> int:
        """The only way state changes. Returns its run, or 0. Raises: InvalidTransition, KeyError: no such kind."""
        run: int = getattr(event, "run", 0)
        self.changed.add(run)
        self._appliers[type(event)](event)
        return run

    # The orchestrator and its fleet

    def _epoch_started(self, event: e.EpochStarted) -> None:
        self.epoch, self.journal = event.epoch, event.journal
        self.restored = event.restored or self.restored

    def _worker_enrolled(self, event: e.WorkerEnrolled) -> None:
        known = self.workers.get(event.worker)
        if event.secret_hash.startswith("key:"):
            self._bought(event.secret_hash)
        if known is not None:  # a new credential: what it announced, and a stream it may have, stay
            known.secret_hash, known.serves, known.gone = event.secret_hash, event.serves, False
            known.token = event.token
        else:
            self.workers[event.worker] = WorkerRecord(
                event.worker, event.name, event.secret_hash, event.serves, token=event.token
            )

    def _worker_forgotten(self, event: e.WorkerForgotten) -> None:
        record = self.workers[event.worker]
        record.gone, record.secret_hash = True, ""
        self._announce(record, {})

    def _skills_announced(self, event: e.SkillsAnnounced) -> None:
        record = self.workers[event.worker]
        record.labels, record.devices, record.capacity = event.labels, event.devices, event.capacity
        record.policies, record.edge = event.policies, event.edge
        skills: dict[str, str] = {}
        for skill in event.skills:
            digest = skills[skill.name] = skill.digest()
            if digest not in _OURS:  # a worker may describe its skills, not ours
                self.catalog[digest] = skill
        self._announce(record, skills)

    def _worker_lost(self, event: e.WorkerLost) -> None:
        self.workers[event.worker].lost = True

    def _worker_returned(self, event: e.WorkerReturned) -> None:
        self.workers[event.worker].lost = False

    def _peer_refused(self, event: e.PeerRefused | e.WorkerQuarantined | e.WorkerCleared) -> None:
        pass

    _worker_quarantined = _worker_cleared = _peer_refused  # what people are told; the fleet itself knows it

    def _know_built_ins(self) -> None:
        for digest, skill in _DIGESTS:
            self.catalog[digest] = skill
            self.digests[skill.name] = digest

    def _announce(self, record: WorkerRecord, skills: dict[str, str]) -> None:
        """The worker has these now (name -> digest); runs use what most workers have, and ours of what is built in."""
        before, record.skills = record.skills, skills
        changed = [name for name in {**before, **skills} if before.get(name) != skills.get(name)]
        for name in changed:
            votes = self._votes.setdefault(name, {})
            for digest, more in ((before.get(name), -1), (skills.get(name), 1)):
                if digest is not None:
                    votes[digest] = votes.get(digest, 0) + more
            chosen = [digest for digest, count in votes.items() if count]
            if chosen and name not in BUILT_IN:
                order = list(self.catalog) if len(chosen) > 1 else chosen
                self.digests[name] = max(chosen, key=lambda digest: (votes[digest], order.index(digest)))

    def skill(self, name: str) -> SkillSpec | None:
        """The contract of `name` that runs use; None if nobody ever announced it."""
        digest = self.digests.get(name)
        return self.catalog[digest] if digest else None

    def fingerprint(self, name: str) -> int:
        """Of all that is said of a known skill, its contract and its words; 0 if nobody ever announced it."""
        spec = self.skill(name)
        known = self._fingerprints.get(name)
        if spec is None or (known is not None and known[0] is spec):
            return known[1] if spec is not None and known is not None else 0
        found = int.from_bytes(hashlib.sha256(msgspec.json.encode(spec, order="deterministic")).digest()[:7], "big")
        self._fingerprints[name] = spec, found
        return found

    def _token_created(self, event: e.TokenCreated) -> None:
        self.tokens[event.token] = TokenRecord(
            event.token, event.secret_hash, event.role, event.uses, event.until, event.by, event.at
        )

    def _token_used(self, event: e.TokenUsed) -> None:
        record = self.tokens[event.token]
        record.used += 1
        if event.secret_hash:
            self._bought(event.secret_hash)
            record.clients.append(Client(event.name, event.secret_hash, event.at))

    def _bought(self, secret_hash: str) -> None:
        """The same key once more: whatever it had before counts no longer, nor that it was revoked."""
        for token in self.tokens.values():
            token.clients = [client for client in token.clients if client.secret_hash != secret_hash]
            token.ended = [kept for kept in token.ended if kept != secret_hash]

    def _token_revoked(self, event: e.TokenRevoked) -> None:
        record = self.tokens[event.token]
        bought = [worker for worker in self.workers.values() if worker.token == event.token and worker.secret_hash]
        record.ended = [client.secret_hash for client in record.clients] + [worker.secret_hash for worker in bought]
        record.revoked, record.clients = True, []
        for worker in bought:
            worker.secret_hash = ""

    # Runs and graphs

    def _run_submitted(self, event: e.RunSubmitted) -> None:
        self.runs_made = max(self.runs_made, event.run)
        self.runs[event.run] = Run(
            ix=event.run,
            request=event.request,
            key=event.key,
            author=event.author,
            settings=event.settings,
            inputs=event.inputs,
            home=event.home,
            submitted_at=event.at,
            fork_of=event.fork_of,
            labels=event.labels,
        )
        if event.key:
            self.keys[event.key] = event.run
        self.changed.add(0)

    def _patch_accepted(self, event: e.PatchAccepted) -> None:
        super()._patch_accepted(event)
        run = self.runs[event.run]
        origin = origins_of(run, event)
        for spec in event.patch.tasks:
            if origin(spec.id) != LATER:
                widen(run.envelope, spec, self.skill)

    def _patch_refused(self, event: e.PatchRefused) -> None:
        pass

    def _plan_closed(self, event: e.PlanClosed) -> None:
        run = self.runs[event.run]
        run.planned, run.partial = True, event.partial
        run.plan_error = (event.code, event.message)

    def _file_pinned(self, event: e.FilePinned) -> None:
        self.runs[event.run].files[event.uri] = event.ref

    # Persons, planners, budgets

    def _cancel_asked(self, event: e.CancelAsked) -> None:
        run = self.runs[event.run]
        if event.task < 0:
            run.cancelled, run.stop_code, run.aside = True, event.code, ""
        else:
            task = run.tasks[event.task]
            task.cancelling, task.stop_code = True, event.code

    def _claim_taken(self, event: e.ClaimTaken) -> None:
        self.runs[event.run].claims[event.claim] = (event.tasks, event.deadline)

    def _claim_released(self, event: e.ClaimReleased) -> None:
        run = self.runs[event.run]
        tasks, _ = run.claims.pop(event.claim, ((), 0.0))
        self.fresh.extend((run.ix, ix) for ix in tasks if type(run.tasks[ix].state) is Ready)

    def _budget_reserved(self, event: e.BudgetReserved) -> None:
        spend = self.runs[event.run].spend
        spend.reserved[event.call], spend.priced[event.call] = event.tokens, event.price

    def _budget_spent(self, event: e.BudgetSpent) -> None:
        spend = self.runs[event.run].spend
        spend.reserved.pop(event.call, None)
        spend.priced.pop(event.call, None)
        spend.calls += max(0, event.calls - 1)  # the first one counts since it was opened
        self._planner_used(spend, event.tokens_in, event.tokens_out, event.price)

    @staticmethod
    def _planner_used(spend: Spend, tokens_in: int, tokens_out: int, price: float) -> None:
        spend.tokens_in += tokens_in
        spend.tokens_out += tokens_out
        spend.price += price
        spend.planner_in += tokens_in
        spend.planner_out += tokens_out
        spend.planner_price += price

    def _planner_call_opened(self, event: e.PlannerCallOpened) -> None:
        run = self.runs[event.run]
        if not run.spend.calls:
            run.described = {name: self.fingerprint(name) for name in self.digests if name not in BUILT_IN}
        run.calls[event.call] = PlannerCall(
            event.call, event.kind, event.claim, event.deadline, event.why, event.at, event.task, event.number, event.k,
            event.failed,
        )  # fmt: skip
        run.spend.calls += 1
        run.called = event.call
        run.planner = event.planner or run.planner
        run.rounds += event.kind == "replan"
        run.proposals += event.kind == "propose"
        if event.kind == "review":
            run.reviewed = event.settled
        if event.graph and event.graph not in run.graphs:
            run.graphs.append(event.graph)
        plan = run.tasks[event.task].plan if event.task >= 0 else None
        if plan is not None:
            plan.rounds, plan.added = plan.rounds + 1, 0

    def _planner_call_closed(self, event: e.PlannerCallClosed) -> None:
        run = self.runs[event.run]
        call = run.calls.pop(event.call)
        if event.planner and call.kind == "plan":
            run.planner = event.planner
        if event.first_task_s >= 0 and run.spend.first_task_s < 0:
            run.spend.first_task_s = event.first_task_s
        run.failures.extend(one for one in call.failed.values() if one not in run.failures)
        if event.graph:
            run.stuck = run.stuck or event.graph in run.graphs
            run.graphs.append(event.graph)
        plan = run.tasks[call.task].plan if call.task >= 0 else None
        if plan is not None:
            plan.ended, plan.added = (event.outcome, event.message), call.edits + len(call.added)

    def _planner_call_lost(self, event: e.PlannerCallLost) -> None:
        run = self.runs[event.run]
        call = run.calls.pop(event.call)
        run.rounds -= call.kind == "replan"  # it is asked again
        run.proposals -= call.kind == "propose"
        run.lost_plans += call.kind == "plan"
        plan = run.tasks[call.task].plan if call.task >= 0 else None
        if plan is not None:
            plan.rounds -= 1
        spend = run.spend  # nobody knows what it has used: all that it was lent counts
        self._planner_used(spend, spend.reserved.pop(event.call, 0), 0, spend.priced.pop(event.call, 0.0))

    def _run_paused(self, event: e.RunPaused) -> None:
        run = self.runs[event.run]
        next_state(RUN, run.state, event, run.name)
        run.state = PAUSED

    def _run_resumed(self, event: e.RunResumed) -> None:
        run = self.runs[event.run]
        next_state(RUN, run.state, event, run.name)
        run.state, run.aside = OPEN, ""
        self.fresh.extend((run.ix, task.ix) for task in run.tasks if type(task.state) is Ready)

    def _run_detached(self, event: e.RunDetached) -> None:
        self.runs[event.run].detached = True

    def _run_set_aside(self, event: e.RunSetAside) -> None:
        run = self.runs[event.run]
        next_state(RUN, run.state, event, run.name)
        run.state, run.aside = PAUSED, event.reference

    def _decision_failed(self, event: e.DecisionFailed) -> None:
        pass

    def _run_settled(self, event: e.RunSettled) -> None:
        run = self.runs[event.run]
        next_state(RUN, run.state, event, run.name)
        run.state = Closed(event.state, event.code, event.message)
        run.settled_at = event.at

    def _run_removed(self, event: e.RunRemoved) -> None:
        run = self.runs.pop(event.run)
        self.keys.pop(run.key, None)
        self.changed.add(0)

    # Copies and checks

    def check(self) -> None:
        """The invariants of graph.md that one instant shows. Raises: AssertionError with the story."""
        for run in self.runs.values():
            check_run(run)

    def become(self, other: State) -> None:
        """Take over what `other` knows, and stay the object that everybody refers to; `other` is used up."""
        for name, value in vars(other).items():
            if name != "_appliers":
                setattr(self, name, value)

    def snapshot(self) -> dict[int, bytes]:
        """Every part: 0 is all but the runs, N is run N. Equal states give equal bytes."""
        return {0: self.part(0), **{run: self.part(run) for run in self.runs}}

    def part(self, part: int) -> bytes:
        """One part of `snapshot`."""
        if part:
            return _ENCODER.encode(self.runs[part])
        head = _Head(
            self.epoch, self.journal, self.runs_made, self.workers, self.catalog, self.keys, self.digests,
            self.tokens, self.restored,
        )  # fmt: skip
        return _ENCODER.encode(head)

    @staticmethod
    def layout() -> str:
        """Names the form of the parts: with another one (a field more, another built-in skill) what a snapshot holds
        may not be what its events would make today."""
        kinds = re.sub(r" at 0x[0-9a-f]+", "", repr(msgspec.inspect.multi_type_info([_Head, Run])))
        skills = sorted(skill.digest() for skill in BUILTINS)
        return f"{PART_VERSION}-{zlib.crc32(' '.join([kinds, *skills]).encode()):08x}"

    @classmethod
    def restore(cls, parts: Mapping[int, bytes], removed: Collection[int] = ()) -> State:
        """The state that `snapshot` copied, without the runs that were removed since, whose numbers stay used.

        Raises: msgspec.DecodeError for anything else.
        """
        state = cls()
        if 0 in parts:
            head = _HEAD.decode(parts[0])
            state.epoch, state.journal, state.runs_made = head.epoch, head.journal, head.runs_made
            state.workers, state.catalog, state.keys = head.workers, head.catalog, head.keys
            state.digests, state.tokens, state.restored = head.digests, head.tokens, head.restored
            state._know_built_ins()  # an upgrade may have changed them
            for record in state.workers.values():
                for name, digest in record.skills.items():
                    votes = state._votes.setdefault(name, {})
                    votes[digest] = votes.get(digest, 0) + 1
        if removed:
            state.keys = {key: run for key, run in state.keys.items() if run not in removed}
            state.runs_made = max(state.runs_made, *removed)
        for number in sorted(part for part in parts if part and part not in removed):
            run = state.runs[number] = _RUN.decode(parts[number])
            for task in run.tasks:
                for ix in run.children(task):  # one spec for all elements of a map, as when it was expanded
                    run.tasks[ix].spec, run.tasks[ix].wiring = task.spec, task.wiring
                for attempt in task.attempts:
                    if not attempt.ended:
                        state.live.setdefault(attempt.worker, {})[run.ix, task.ix, attempt.number] = None
        return state
