"""How long a task is expected to run, and a transfer to take: what was measured, else a prior.

Fleet knowledge, not durable by itself. Run times are learned per skill and class of devices (`history`); a device may
differ from its class (`device_factor`). A skill that no device of the class has run is scaled from another class by
their speeds; one that never ran has what it declares, else a guess. What runs beside it counts while that helps
(`crowding`); what asks a model goes by tokens where endpoints differ (`token_pace`). Transfers are learned per link
(`passage`).

Noting costs about a microsecond and changes nothing yet: `refit` takes in what came, a little at a time, so that a
hundred thousand short tasks cost no more than a hundred long ones. Of one skill and class only the last fifty runs
between two fits count. Pure: time comes in as an argument.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from protocol.profile import LinkProfile

from .crowding import Crowding
from .device_factor import DeviceFactors
from .history import FORMS, WINDOW, History
from .passage import Passages
from .score import Score, Tally
from .token_pace import TokenPace

DEFAULT_S: Final = 1.0
REFIT_S: Final = 0.1
"""A history that has settled is fitted so often at most."""
YOUNG: Final = 8
"""Runs up to which each one is taken in at once."""
_FITS: Final = 4
_REST_S: Final = 0.025
"""At most so many settled histories are fitted at a time, and then none for so long for each."""
_DRIFT: Final = 0.1
_LINK: Final = "link "
"""What an outcome without a skill begins its class with: it is a transfer's."""
_SCALED: Final = 2.0
_DECLARED: Final = 3.0
_GUESSED: Final = 10.0
"""How far the interval reaches on either side where nothing was measured on this class, as a factor."""

By = Literal["measured", "class", "skill", "declared", "default"]
"""What a prediction rests on: runs on this very device, on its class, of the skill elsewhere, a stated prior, none."""


class Prediction(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Seconds of one attempt: the expected ones, the 10th and the 95th percentile. `n`: the runs it rests on."""

    run_s: float
    low_s: float
    p95_s: float
    n: int = 0
    by: By = "default"

    def times(self, factor: float) -> Prediction:
        """The same of so many attempts, one after the other."""
        return Prediction(self.run_s * factor, self.low_s * factor, self.p95_s * factor, self.n, self.by)


class Outcome(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What came true of a prediction. `of`: (run, task, attempt). `tokens_in`, `tokens_out`: what it asked of a model.
    `beside`: how many others ran on its device when it began; -1: nobody knows."""

    skill: str
    device_class: str
    worker: int
    speed: float
    input_bytes: int
    run_s: float
    predicted: Prediction | None = None
    of: tuple[int, int, int] = (0, 0, 0)
    tokens_in: int = 0
    tokens_out: int = 0
    beside: int = -1


class _Cell:
    """One skill on one class of devices. `anchor`: the typical run time when its last drift was counted. `asks`: it
    uses a model's tokens, so its pace is the endpoint's and says nothing of the device."""

    def __init__(self) -> None:
        self.history = History()
        self.crowding = Crowding()
        self.fresh: deque[Outcome] = deque(maxlen=WINDOW)
        self.workers: dict[int, None] = {}
        self.tally = Tally()
        self.count = 0
        self.fitted_at = -math.inf
        self.speed = 1.0
        self.anchor = 0.0
        self.asks = False

    def typical(self) -> Prediction:
        """For an input of the usual size, on the average device of the class."""
        run_s, history = self.history.typical, self.history
        return Prediction(run_s, run_s * history.low, run_s * history.high, history.runs, "class")


class Known(msgspec.Struct, frozen=True):
    """What is known of one skill on one class of devices, for people."""

    skill: str
    device_class: str
    runs: int
    typical: Prediction
    form: str
    changes: int
    score: Score
    slows: float


class Predictor:
    """See the module. `keep`: what came true is handed out by `outcomes` for whoever stores it."""

    def __init__(self, *, keep: bool = False) -> None:
        self.drifts = 0
        """Counts run times that moved by more than a tenth: what was planned with them may be planned again."""
        self.fits = 0
        """Counts how often anything was learned: what was predicted stays so until then."""
        self.crowded = False
        """Of some skill it counts what runs beside it."""
        self.passages = Passages()
        self.token_pace = TokenPace()
        self._cells: dict[tuple[str, str], _Cell] = {}
        self._skills: dict[str, dict[str, _Cell]] = {}
        self._typical: dict[str, float] = {}
        self._declared: dict[str, float] = {}
        self._factors = DeviceFactors()
        self._dirty: dict[tuple[str, str], _Cell] = {}
        self._young = False
        self._rests_until = -math.inf
        self._due_at = math.inf
        """When the first of what was noted may be taken in."""
        self._outcomes: deque[Outcome] | None = deque(maxlen=10_000) if keep else None

    # what happened

    def note(
        self, skill: str, device_class: str, worker: int, speed: float, input_bytes: int, run_s: float,
        predicted: Prediction | None = None, of: tuple[int, int, int] = (0, 0, 0), tokens_in: int = 0,
        tokens_out: int = 0, beside: int = -1,
    ) -> None:  # fmt: skip
        """A successful attempt took `run_s` seconds, on a device of relative `speed`; it was `predicted` so."""
        key = (skill, device_class)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = self._skills.setdefault(skill, {})[device_class] = _Cell()
        if not cell.fresh:
            self._dirty[key] = cell
            self._due_at = min(self._due_at, cell.fitted_at + REFIT_S)
        cell.count += 1
        if cell.count <= YOUNG:
            self._young = True
        cell.fresh.append(
            Outcome(
                skill, device_class, worker, speed, input_bytes, run_s, predicted, of, tokens_in, tokens_out, beside
            )
        )
        if tokens_in or tokens_out:
            self.token_pace.note(skill, worker, tokens_in, tokens_out, run_s)

    def note_transfer(self, worker: int, link: LinkProfile, size_bytes: int, seconds: float) -> None:
        """That many bytes took so long over the worker's link."""
        if self._outcomes is not None:
            said = self.transfer_s(worker, link, size_bytes)
            said_of = Prediction(said, said, said, self.passages.count(worker), "measured")
            alike = f"{_LINK}{link.bandwidth!r} {link.latency_s!r}"
            self._outcomes.append(Outcome("", alike, worker, 1.0, size_bytes, seconds, said_of))
        self.passages.note(worker, link, size_bytes, seconds)

    def declare(self, skill: str, run_s: float) -> None:
        """What the skill's author reckons: seconds on a device of speed 1. 0: nothing."""
        if self._declared.get(skill, 0.0) != run_s:
            self._declared[skill] = run_s
            self.fits += 1

    def due(self, now: float) -> bool:
        """Whether `refit` has something to take in."""
        return bool(self._dirty) and (self._young or now >= max(self._rests_until, self._due_at))

    def refit(self, now: float | None = None) -> None:
        """Take in what was noted, as far as it is due; without `now` all of it."""
        if not self._dirty or not (now is None or self.due(now)):
            return
        left = _FITS
        for key, cell in list(self._dirty.items()):
            young = cell.count <= YOUNG or cell.fitted_at == -math.inf
            if now is not None and not young and (now < cell.fitted_at + REFIT_S or not left):
                continue
            left -= not young
            del self._dirty[key]
            self._fit(key[0], cell)
            if now is not None:
                cell.fitted_at = now
        self._young = False
        self._due_at = min((cell.fitted_at + REFIT_S for cell in self._dirty.values()), default=math.inf)
        if now is not None:
            self._rests_until = now + (_FITS - left) * _REST_S

    def outcomes(self) -> list[Outcome]:
        """What came true since this was asked last: at most the last fifty of a skill and class between two fits."""
        if not self._outcomes:
            return []
        found = list(self._outcomes)
        self._outcomes.clear()
        return found

    def recall(self, outcomes: Iterable[Outcome]) -> None:
        """Learn from what an earlier server has kept; it is not handed out again."""
        for one in outcomes:
            if one.skill:
                self.note(*msgspec.structs.astuple(one))
            elif one.device_class.startswith(_LINK):
                self.passages.note(one.worker, _link(one.device_class), one.input_bytes, one.run_s)
        self.refit()
        self.outcomes()

    # what is expected

    def predict(
        self, skill: str, device_class: str, worker: int, speed: float = 1.0, input_bytes: int = 0, beside: int = -1
    ) -> Prediction:
        """What one attempt on that device is expected to take, with so many others beside it (-1: as usual)."""
        cell = self._cells.get((skill, device_class))
        if cell is None:
            return self._by_tokens(skill, worker) or self._elsewhere(skill, speed, input_bytes)
        if not cell.history.runs:
            self._fit(skill, cell)
        if cell.asks and (len(cell.workers) > 1 or worker not in cell.workers):
            found = self._by_tokens(skill, worker)
            if found is not None:
                return found
        return self._said(cell, device_class, worker, input_bytes, beside)

    def measured(self, skill: str) -> float | None:
        """The typical run time of the skill on the class that was fitted last; None before the first."""
        return self._typical.get(skill)

    def transfer_s(self, worker: int, link: LinkProfile, size_bytes: int) -> float:
        """Expected seconds until that many bytes have reached the worker, or left it."""
        return self.passages.seconds(worker, link, size_bytes)

    def drifted(self, since: int) -> bool:
        """Whether a run time has moved by more than a tenth since `drifts` was `since`."""
        return self.drifts > since

    def known(self) -> list[Known]:
        """Everything that was ever measured, by skill and class."""
        return [
            Known(
                skill, device_class, cell.count, cell.typical(), FORMS[cell.history.form], cell.history.changes,
                cell.tally.score(), cell.crowding.slows,
            )
            for (skill, device_class), cell in sorted(self._cells.items())
        ]  # fmt: skip

    # inside

    def _said(self, cell: _Cell, device_class: str, worker: int, input_bytes: int, beside: int) -> Prediction:
        history = cell.history
        run_s = history.centre(input_bytes) * self._factors.of(device_class, worker) * cell.crowding.factor(beside)
        by: By = "measured" if worker in cell.workers else "class"
        return Prediction(run_s, run_s * history.low, run_s * history.high, history.runs, by)

    def _by_tokens(self, skill: str, worker: int) -> Prediction | None:
        """A skill that asks a model, at an endpoint that is known from others."""
        found = self.token_pace.run_s(skill, worker)
        if found is None:
            return None
        run_s, most_s, n = found
        return Prediction(run_s, run_s / _SCALED, max(most_s, run_s) * _SCALED, n, "skill")

    def _elsewhere(self, skill: str, speed: float, input_bytes: int) -> Prediction:
        """Nothing was measured on this class."""
        speed = speed or 1.0
        by: By
        cells = self._skills.get(skill)
        if cells:
            cell = max(cells.values(), key=lambda one: min(one.count, WINDOW))
            if not cell.history.runs:
                self._fit(skill, cell)
            run_s, n, reach, by = cell.history.centre(input_bytes) * cell.speed, cell.history.runs, _SCALED, "skill"
            run_s /= speed
            return Prediction(run_s, run_s * cell.history.low / reach, run_s * cell.history.high * reach, n, by)
        declared = self._declared.get(skill, 0.0)
        run_s, reach, by = (declared, _DECLARED, "declared") if declared > 0.0 else (DEFAULT_S, _GUESSED, "default")
        return Prediction(run_s / speed, run_s / speed / reach, run_s / speed * reach, 0, by)

    def _fit(self, skill: str, cell: _Cell) -> None:
        history, factors, crowding, kept = cell.history, self._factors, cell.crowding, self._outcomes
        self.fits += 1
        for fact in cell.fresh:
            cell.asks = cell.asks or fact.tokens_out > 0
            factor = factors.of(fact.device_class, fact.worker)
            said = fact.predicted
            if history.runs and (said is None or not said.n):  # nobody asked, or it was a guess
                said = self._said(cell, fact.device_class, fact.worker, fact.input_bytes, fact.beside)
            if said is not None and said.n:
                cell.tally.add(said.run_s, said.p95_s, fact.run_s)
            if kept is not None:
                kept.append(fact if fact.predicted else msgspec.structs.replace(fact, predicted=said))
            slower = crowding.factor(fact.beside)
            error = history.learn(fact.input_bytes, fact.run_s / (factor * slower))
            if history.runs > 1:
                crowding.note(fact.beside, error + math.log(slower))
                if not cell.asks:
                    factors.note(fact.device_class, fact.worker, error + math.log(factor))
            cell.workers[fact.worker] = None
            cell.speed = fact.speed or 1.0
        cell.fresh.clear()
        history.fit()
        crowding.fit()
        self.crowded = self.crowded or crowding.counts
        typical = self._typical[skill] = history.typical
        if not cell.anchor or abs(typical - cell.anchor) > _DRIFT * cell.anchor:
            cell.anchor = typical
            self.drifts += 1


def _link(text: str) -> LinkProfile:
    """The link as an outcome's class has it; where that is not to be read, one as good as another."""
    bandwidth, _, latency_s = text.removeprefix(_LINK).partition(" ")
    try:
        found = LinkProfile(float(bandwidth), float(latency_s))
    except ValueError:
        return LinkProfile()
    return found if found.bandwidth > 0.0 and found.latency_s >= 0.0 else LinkProfile()
