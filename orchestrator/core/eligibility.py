"""Which workers may run a kind of task, and why the others may not: the words of `explain`."""

from __future__ import annotations

from collections.abc import Iterable

from protocol.builtin_model import MODEL_SKILLS, NO_MODEL, NO_MODEL_FIX
from protocol.card import cards_needed
from protocol.profile import Policy, ruling
from protocol.resource import Resources
from protocol.skill import SkillSpec, Variant, holds
from protocol.task import Ref

from .fleet import Fleet, Session
from .graph import Run, Task
from .queue import Kind
from .state import State, WorkerRecord


def kind_of(state: State, run: Run, task: Task, spec: SkillSpec, file_worker: str) -> Kind:
    """What decides where this task may run. `file_worker`: whose file a local skill was given ("" if none)."""
    on = task.spec.on
    if task.at >= 0:
        words: tuple[str, ...] = (f"#{task.at}",)
    elif on:
        words = tuple(_place_of(run, word) if isinstance(word, Ref) else word for word in on)
    elif spec.place == "local":
        words = (file_worker or "here",)
    else:
        words = ("any",)
    return Kind(task.skill, words, run.home, task.spec.needs)


def _place_of(run: Run, ref: Ref) -> str:
    attempt = run.tasks[run.names[ref.source]].winner()
    return f"#{attempt.worker}" if attempt is not None else "any"


def amounts(needs: Resources | None, variant: Variant) -> dict[str, float]:
    """The variant's needs, raised by the task's. Skills say vram of one card; here it is that of all their cards."""
    found = variant.needs.amounts()
    if needs is not None:
        for name, amount in needs.amounts().items():
            found[name] = max(found.get(name, 0.0), amount)
    if found.get("gpu", 0.0) > 1.0 and "vram" in found:
        found["vram"] *= cards_needed(found["gpu"])
    return found


def named(session_name: str, kind: Kind, word: str) -> bool:
    """Whether `word` names this worker itself."""
    return word == session_name or (word == "here" and bool(kind.home) and session_name == kind.home)


def matches(session: Session, kind: Kind, word: str) -> bool:
    """Whether one word of `on` admits this worker."""
    if word in ("any", "all"):
        return True
    if word.startswith("#"):
        return session.worker == int(word[1:])
    return named(session.name, kind, word) or session.profile.has(word)


def policy_of(session: Session, spec: SkillSpec) -> Policy:
    """allow, ask or deny: the first pattern of the worker that fits, else ask for skills that ask."""
    return ruling(session.policies, spec.name) or ("ask" if spec.asks else "allow")


def deniers(state: State, home: str, skill: str) -> tuple[str, ...]:
    """Who denies it, when everybody who could serve a run with this `home` and offers the skill does."""
    offering = [
        one for one in state.workers.values()
        if not one.gone and one.serves in ("", home) and skill in one.skills
    ]  # fmt: skip
    denying = tuple(one.name for one in offering if ruling(one.policies, skill) == "deny")
    return denying if len(denying) == len(offering) else ()


Ask = tuple[str, dict[str, float], dict[str, str]]
"""(device, needs, labels) of one variant for tasks of a kind."""


def asks_of(kind: Kind, spec: SkillSpec) -> list[Ask]:
    """What each variant of the skill wants of a worker, for such tasks."""
    labels = kind.needs.labels if kind.needs is not None else {}
    return [(one.device, amounts(kind.needs, one), one.needs.labels | labels) for one in spec.variants]


def variants(session: Session, asks: list[Ask]) -> list[tuple[str, dict[str, float]]]:
    """The (device, needs) this worker could ever give such a task, free or not."""
    capacity, labels = session.capacity, session.profile.labels
    found = []
    for device, needs, wanted in asks:
        if device != "cpu" and device not in session.device and device not in labels:
            continue
        if wanted and any(labels.get(key) != value for key, value in wanted.items()):
            continue
        if all(capacity.get(name, 0.0) + 1e-9 >= amount for name, amount in needs.items()) and (
            session.cards is None or session.cards.could_ever_hold(needs.get("gpu", 0.0), needs.get("vram", 0.0))
        ):
            found.append((device, needs))
    return found


def eligible(state: State, fleet: Fleet, kind: Kind, spec: SkillSpec) -> tuple[tuple[int, str, dict[str, float]], ...]:
    """Connected workers that may run it: those of the first word of `on` that has any."""
    asks = asks_of(kind, spec)
    for word in kind.on:
        found = [
            (session.worker, device, needs)
            for session in _addressed(fleet, kind, word)
            if not _barred(state, session, kind, spec)
            for device, needs in variants(session, asks)
        ]
        if found:
            # A worker in quarantine gets only what nobody else may do; one that is tried is as good as any.
            sick = {session.worker for session in fleet.sessions.values() if session.sick and not session.probing}
            return tuple([one for one in found if one[0] not in sick] or found)
    return ()


def _addressed(fleet: Fleet, kind: Kind, word: str) -> Iterable[Session]:
    """Connected workers that one word of `on` admits."""
    if word.startswith("#"):
        session = fleet.sessions.get(int(word[1:]))
        return () if session is None else (session,)
    return [session for session in fleet.sessions.values() if matches(session, kind, word)]


def refusal(state: State, session: Session, kind: Kind, spec: SkillSpec) -> str:
    """Why this connected worker can never run it, whatever is free: "" if it can."""
    why = _barred(state, session, kind, spec)
    if why or variants(session, asks_of(kind, spec)):
        return why
    least = min((amounts(kind.needs, v) for v in spec.variants), key=lambda needs: sum(needs.values()), default={})
    have = session.capacity
    short = [f"{name}>={_said(name, amount)} (has {_said(name, have.get(name, 0.0))})"
             for name, amount in least.items() if have.get(name, 0.0) < amount]  # fmt: skip
    if not short and least.get("vram", 0.0):
        short = [f"a card with vram>={_said('vram', least['vram'] / cards_needed(least.get('gpu', 0.0)))}"]
    return "lacks " + (", ".join(short) or f"a device for {kind.skill}")


def _barred(state: State, session: Session, kind: Kind, spec: SkillSpec) -> str:
    """Why it may not run it, whatever it has."""
    if session.profile.serves not in ("", kind.home):
        return "serves only its own client's runs"
    digest = state.workers[session.worker].skills.get(kind.skill)
    if digest is None:
        return NO_MODEL if kind.skill in MODEL_SKILLS else f"doesn't offer {kind.skill}"
    if digest != state.digests.get(kind.skill):
        return f"offers another version of {kind.skill}"
    if policy_of(session, spec) == "deny":
        return f"denies {kind.skill}"
    if not holds(session.profile.sandbox, spec.sandbox):
        return f"holds skills at sandbox level {session.profile.sandbox}; {kind.skill} needs {spec.sandbox}"
    if session.phase == "draining":
        return "is draining"
    return ""


def _said(name: str, amount: float) -> str:
    return f"{amount / 2**30:.3g}GiB" if name in ("memory", "vram", "disk") and amount else f"{amount:g}"


def where(state: State, kind: Kind) -> str:
    """The words of `on` for people: a worker that is meant by its number goes by its name, also when it is gone."""
    return " or ".join(state.workers[int(word[1:])].name if word.startswith("#") else word for word in kind.on)


def lacking(state: State, fleet: Fleet, kind: Kind, spec: SkillSpec) -> str:
    """Why no connected worker can run it, in a sentence."""
    if "here" in kind.on and not kind.home:
        return f"{kind.skill} runs `here` by default and this run has no `here`; name a worker with on"
    whys = [
        f"{session.name} {why}"
        for session in sorted(fleet.sessions.values(), key=lambda one: one.name)
        if any(matches(session, kind, word) for word in kind.on) and (why := refusal(state, session, kind, spec))
    ]
    fix = f"; fix: {NO_MODEL_FIX}" if kind.skill in MODEL_SKILLS else ""
    if whys:
        return f"no worker can run {kind.skill}: {'; '.join(whys[:3])}" + ("; ..." if len(whys) > 3 else "") + fix
    return f"no worker offers {kind.skill} on {where(state, kind)}; see asterism explain"


def could_return(state: State, fleet: Fleet, kind: Kind, spec: SkillSpec) -> list[WorkerRecord]:
    """Enrolled workers that are away and would be eligible: the task waits for them rather than fail."""
    digest = state.digests.get(kind.skill)
    found = []
    for record in state.workers.values():
        if record.gone or record.ix in fleet.sessions or record.skills.get(kind.skill) != digest:
            continue
        if record.serves not in ("", kind.home):
            continue
        if not _could_hold(record, kind, spec):
            continue
        for word in kind.on:
            key, equals, value = word.partition("=")
            label = record.labels.get(key) == value if equals else word in record.labels or word in record.devices
            if word in ("any", "all") or word == f"#{record.ix}" or named(record.name, kind, word) or label:
                found.append(record)
                break
    return found


def _could_hold(record: WorkerRecord, kind: Kind, spec: SkillSpec) -> bool:
    """Whether a worker that is away has announced enough of everything, and does not deny the skill."""
    if ruling(record.policies, spec.name) == "deny":
        return False
    capacity = record.capacity.amounts()
    labels = kind.needs.labels if kind.needs is not None else {}
    for variant in spec.variants:
        if variant.device not in ("cpu", *record.devices) and variant.device not in record.labels:
            continue
        wanted = variant.needs.labels | labels
        needs = amounts(kind.needs, variant)
        if all(record.labels.get(key) == value for key, value in wanted.items()) and all(
            capacity.get(name, 0.0) + 1e-9 >= amount for name, amount in needs.items()
        ):
            return True
    return False
