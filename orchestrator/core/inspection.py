"""What is wrong with a task by itself: its skill and arguments, who would let it run, its places, its files.

Whom it names is judged with its graph (core.edit). Verdicts that many tasks of a patch share are found once.
"""

from __future__ import annotations

from typing import Final

import msgspec

from protocol.artifact import parse_file
from protocol.document import nearest
from protocol.errors import Problem
from protocol.schema import check, files_in
from protocol.task import EFFECT_ORDER, Ref, TaskSpec

from .eligibility import deniers
from .graph import Run
from .turn import Turn

_NAMED: Final = 8
_WORDS: Final = frozenset(("any", "here", "all", "cpu", "gpu", "edge"))


class Inspection:
    """Of the tasks of one patch, within one decision: what it remembers is true only for so long."""

    def __init__(self, turn: Turn, run: Run) -> None:
        self._turn = turn
        self._run = run
        self._machines: dict[str, bool] = {}
        self._denials: dict[str, str] = {}

    def look(self, spec: TaskSpec, where: str, found: list[Problem]) -> None:
        """Add what is wrong with it."""
        turn = self._turn
        _check_skill(turn, spec, where, found)
        self._check_policy(spec, where, found)
        if b"file://" in spec.args:
            self._check_files(spec, where, found)
        for word in spec.on:
            if not isinstance(word, Ref) and word not in _WORDS and not _known_place(turn, word):
                message = f"no worker is called or labelled {word}"
                found.append(Problem("UnknownPlace", f"{where}/on", message, _near_worker(turn, word)))

    def _check_policy(self, spec: TaskSpec, where: str, found: list[Problem]) -> None:
        """Nobody would ever be allowed to run it: said at once, with who denies it."""
        for n, name in enumerate((spec.skill, *spec.alt)):
            message = self._denials.get(name)
            if message is None:
                message = self._denials[name] = denied(self._turn, self._run, name)
            if message:
                at = f"{where}/skill" if n == 0 else f"{where}/alt/{n - 1}"
                found.append(Problem("PolicyDenied", at, message, "use another skill, or have this one allowed"))

    def _check_files(self, spec: TaskSpec, where: str, found: list[Problem]) -> None:
        """A file is on a machine that somebody knows."""
        turn, machines = self._turn, self._machines
        skill = turn.state.skill(spec.skill)
        for text in files_in(skill.params, msgspec.json.decode(spec.args)) if skill is not None else ():
            uri = parse_file(text)
            if uri is None or uri.worker == "here" or text in self._run.files:
                continue
            if uri.worker not in machines:
                known = turn.state.workers.values()
                machines[uri.worker] = any(one.name == uri.worker and not one.gone for one in known)
            if not machines[uri.worker]:
                message = f"no worker is called {uri.worker}, so nobody has {text}"
                found.append(Problem("UnknownPlace", f"{where}/args", message, _near_worker(turn, uri.worker)))


def denied(turn: Turn, run: Run, skill: str) -> str:
    """Who denies the skill, in words; "" when somebody may run it."""
    if turn.ruling(skill) == "deny":
        return f"this server's policy denies {skill}"
    names = deniers(turn.state, run.home, skill)
    return f"{' and '.join(names[:_NAMED])}, the only ones to offer {skill}, deny it" if names else ""


def _check_skill(turn: Turn, spec: TaskSpec, where: str, found: list[Problem]) -> None:
    args = msgspec.json.decode(spec.args)
    for n, name in enumerate((spec.skill, *spec.alt)):
        at = f"{where}/skill" if n == 0 else f"{where}/alt/{n - 1}"
        skill = turn.state.skill(name)
        if skill is None:
            fix = nearest(name, turn.state.digests) or "see asterism skills"
            found.append(Problem("UnknownSkill", at, f"no worker ever announced {name}", fix))
            continue
        found.extend(check(skill.params, args, f"{where}/args", refs=True))
        if spec.effect is not None and EFFECT_ORDER[spec.effect] < EFFECT_ORDER[skill.effect]:
            message = f"{name} is {skill.effect}; a plan may tighten that, not loosen it to {spec.effect}"
            found.append(Problem("Loosens", f"{where}/effect", message, "leave effect out"))
        effect = spec.effect or skill.effect
        if effect == "once" and spec.retry is not None and spec.retry.max > 0:
            message = f"{name} runs once; it is never retried by itself"
            found.append(Problem("Loosens", f"{where}/retry", message, "leave retry out"))
        if skill.place == "local":
            machines = {uri.worker for text in files_in(skill.params, args) if (uri := parse_file(text))}
            if len(machines) > 1:
                message = f"{name} acts on one machine's files, these are of {' and '.join(sorted(machines))}"
                found.append(Problem("FilesOnTwoMachines", f"{where}/args", message, "use one task for each machine"))


def _known_place(turn: Turn, word: str) -> bool:
    key, equals, value = word.partition("=")
    for record in turn.state.workers.values():
        if record.gone:
            continue
        if equals and record.labels.get(key) == value:
            return True
        if not equals and (word == record.name or word in record.labels or word in record.devices):
            return True
    return False


def _near_worker(turn: Turn, word: str) -> str:
    names = [record.name for record in turn.state.workers.values() if not record.gone and not record.serves]
    known = f"known: {', '.join(names[:_NAMED])}" if names else "see asterism workers"
    return nearest(word, names) or known
