"""What one skill took on one class of devices: the last fifty runs, four forms of prediction, and how each has erred.

The forms are the median, a moving mean (EMA), and the Theil-Sen lines over the input's size, plain and log-log. Each
one predicts every run before it is learned from; the one with the least error over the last fifty is believed, and its
errors are the interval (as in split conformal prediction: Lei et al., JASA 2018). A two-sided CUSUM (Page, Biometrika
1954) over these errors notices a change: then what came before it is forgotten.

Runs are given as if their device were the average of its class; of devices it knows nothing. Pure.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from .regression import line, median, quantile

WINDOW: Final = 50
FLOOR_S: Final = 1e-6
"""Shorter runs are taken for this long: errors are ratios."""
_WEIGHT: Final = 0.3
_LEAST: Final = 4
"""Predictions of a form before it may be believed."""
_WIDE: Final = 1.0
"""Natural logarithm of how far an interval reaches beyond what was seen, divided by the number of errors seen."""
_SLACK: Final = 1.0
_ALARM: Final = 8.0
"""The CUSUM forgets so many deviations per run, and a sum of so many is a change."""
_STILL: Final = 0.05
"""Deviation, as a logarithm, below which errors are noise however alike they are."""

MEDIAN, EMA, LINE, POWER = range(4)
FORMS: Final = ("median", "ema", "theil-sen", "log-log")


class History:
    """See the module. `learn` what came, then `fit`; `centre` and `interval` say what is expected."""

    def __init__(self) -> None:
        self.form = MEDIAN
        self.low = self.high = 1.0
        """The 10th and the 95th percentile, as shares of the expected seconds."""
        self.typical = 0.0
        """The expected seconds for an input of the usual size."""
        self.changes = 0
        """How often what came before a change was forgotten."""
        self._runs: deque[tuple[int, float]] = deque(maxlen=WINDOW)
        self._errors: deque[tuple[float | None, ...]] = deque(maxlen=WINDOW)
        self._median = self._mean = 0.0
        self._line: tuple[float, float] | None = None
        self._power: tuple[float, float] | None = None
        self._scale = _STILL
        self._over = self._under = 0.0
        self._since_over = self._since_under = 0
        """Runs since that sum was last 0."""

    @property
    def runs(self) -> int:
        """In the window."""
        return len(self._runs)

    def centre(self, input_bytes: int) -> float:
        """The expected seconds."""
        found = self._by(self.form, input_bytes)
        return self._median if found is None else found

    def learn(self, input_bytes: int, run_s: float) -> float:
        """One more run. Returns the logarithm of what it took over what was expected (0 for the first)."""
        run_s = max(run_s, FLOOR_S)
        error = 0.0
        if self._runs:
            said = [self._by(form, input_bytes) for form in range(len(FORMS))]
            errors = tuple(None if one is None else math.log(run_s / one) for one in said)
            own = errors[self.form]
            error = own if own is not None else errors[MEDIAN] or 0.0
            self._errors.append(errors)
            self._mean += _WEIGHT * (run_s - self._mean)
            self._watch(error)
        else:
            self._mean = self._median = run_s
        self._runs.append((input_bytes, run_s))
        return error

    def fit(self) -> None:
        """Take what was learned into account."""
        if self._over > _ALARM or self._under > _ALARM:
            self._forget()
        sizes = [float(size) for size, _ in self._runs]
        seconds = [run_s for _, run_s in self._runs]
        self._median = median(seconds)
        self._line = self._power = None
        if len(self._runs) >= _LEAST and min(sizes) != max(sizes):
            self._line = line(sizes, seconds)
            if min(sizes) > 0.0:
                self._power = line([math.log(size) for size in sizes], [math.log(run_s) for run_s in seconds])
        self.form = self._best()
        self.typical = self.centre(int(median(sizes)))
        self._spread()

    # the forms

    def _by(self, form: int, input_bytes: int) -> float | None:
        if form == MEDIAN:
            return self._median
        if form == EMA:
            return self._mean
        if form == LINE:
            if self._line is None:
                return None
            return max(self._line[0] + self._line[1] * input_bytes, self._median * 0.05)
        if self._power is None or input_bytes <= 0:
            return None
        exponent = self._power[0] + self._power[1] * math.log(input_bytes)
        return math.exp(min(max(exponent, -20.0), 20.0))

    def _best(self) -> int:
        best, least = MEDIAN, math.inf
        for form in range(len(FORMS)):
            if self._by(form, 1) is None:
                continue
            errors = [min(abs(one), 1.5) for found in self._errors if (one := found[form]) is not None]
            if len(errors) < max(_LEAST, len(self._errors) // 2):
                continue
            score = sum(errors) / len(errors)
            if score < least:
                best, least = form, score
        return best

    def _spread(self) -> None:
        """The interval is that of the errors of the form that is believed: a little wider while there are few."""
        found = sorted(one for errors in self._errors if (one := errors[self.form]) is not None)
        low, high, self._scale = -_WIDE, _WIDE, _WIDE
        if found:
            rank = math.ceil((len(found) + 1) * 0.95)
            beyond = _WIDE / len(found)
            high = max(found[rank - 1] if rank <= len(found) else found[-1] + beyond, 0.0)
            low = min(quantile(found, 0.1) - (beyond if len(found) < 10 else 0.0), 0.0)
            self._scale = max(_STILL, 1.4826 * median([abs(one) for one in found]))
        self.low, self.high = math.exp(low), math.exp(high)

    # change

    def _watch(self, error: float) -> None:
        deviation = min(max(error / self._scale, -4.0), 4.0)  # one run that took for ever is no change
        self._over = max(0.0, self._over + deviation - _SLACK)
        self._under = max(0.0, self._under - deviation - _SLACK)
        self._since_over = self._since_over + 1 if self._over else 0
        self._since_under = self._since_under + 1 if self._under else 0

    def _forget(self) -> None:
        since = self._since_over if self._over > _ALARM else self._since_under
        kept = list(self._runs)[-since:]
        if len(kept) < len(self._runs):
            self._runs = deque(kept, maxlen=WINDOW)
            self._errors.clear()
            self._mean = median([run_s for _, run_s in kept])
            self.changes += 1
        self._over = self._under = 0.0
        self._since_over = self._since_under = 0
