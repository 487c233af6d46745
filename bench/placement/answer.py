"""What `asterism bench schedule` answers: the promised figures at the top, below them the cases they were drawn from.

Invariant: a figure that was not measured is null, and a bound stands beside what it bounds. It must not know how
anything was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import fmean, geometric_mean
from typing import Any, Final

import msgspec

from orchestrator.placement.forecast import PORTFOLIO
from protocol.report import SCHEMA

from ..report import aligned
from .case import POLICIES, Row
from .decision import Decision
from .foretold import Foretold
from .hedging import Hedged, Hedging
from .learning import Learning
from .sharing import Sharing

MOST: Final = {
    "online_geomean_lb2": 1.065, "online_worst_best_known": 1.15, "noise_geomean_lb": 1.24, "heft_max_deviation": 0.005,
    "bytes_against_random": 0.60, "bytes_makespan": 1.03, "portfolio_regret": 0.05, "hedging_extra": 0.10,
    "decision_us": 15.0, "decision_1000_us": 20.0, "forecast_median_error": 0.05, "forecast_p95_error": 0.15,
}  # fmt: skip
_PLAYED: Final = {"heft": "online"}
"""What a member of the portfolio is called in the futures of a row, if otherwise."""
LEAST: Final = {"hedging_shorter": 0.35, "prediction_covered": 0.94}


class Core(msgspec.Struct, frozen=True):
    """What was measured of the real core; `hedging_live`, `forecast` and `sharing` by real processes, `learning` of
    the predictor on the recorded workflows."""

    decisions: tuple[Decision, ...] = ()
    hedging: Hedging | None = None
    hedging_live: Hedged | None = None
    forecast: Foretold | None = None
    learning: Learning | None = None
    sharing: Sharing | None = None

    def figures(self) -> dict[str, float | None]:
        """The promised ones; None where nothing was measured."""
        cost = {one.devices: one.median_us for one in self.decisions}
        return {
            "decision_us": cost.get(100),
            "decision_1000_us": cost.get(1000),
            "hedging_shorter": self.hedging.shorter if self.hedging is not None else None,
            "hedging_extra": self.hedging.extra if self.hedging is not None else None,
            "forecast_median_error": self.forecast.median_error if self.forecast is not None else None,
            "forecast_p95_error": self.forecast.p95_error if self.forecast is not None else None,
            "prediction_error": self.learning.error if self.learning is not None else None,
            "prediction_error_p90": self.learning.error_p90 if self.learning is not None else None,
            "prediction_covered": self.learning.covered if self.learning is not None else None,
            "sharing_error": self.sharing.error if self.sharing is not None else None,
            "sharing_alone_error": self.sharing.alone_error if self.sharing is not None else None,
        }


class Answer(msgspec.Struct, frozen=True):
    """Of one call of the bench. `decodes` and `futures`: see case.Job."""

    rows: tuple[Row, ...]
    core: Core
    decodes: int
    futures: int
    processes: int
    seconds: float

    @property
    def real(self) -> list[Row]:
        """Workflows that somebody has run."""
        return [row for row in self.rows if not row.synthetic]

    def figures(self) -> dict[str, float | None]:
        """The promised ones; None where nothing was measured."""
        real, known = self.real, [row for row in self.rows if row.known is not None]
        return {
            "online_geomean_lb2": _mean(row.online_s / row.lb2_s for row in real),
            "online_worst_best_known": _most(row.online_s / row.known.best_s for row in real if row.known is not None),
            "noise_geomean_lb": self.noise("online"),
            "heft_max_deviation": _most(abs(row.heft_s / row.known.heft_s - 1) for row in known if row.known),
            "bytes_against_random": fmean(shares) if (shares := list(_shares(real, "frugal"))) else None,
            "bytes_makespan": _most(row.frugal_s / row.heft_s for row in real),
            "portfolio_regret": self.regret(),
            "shared_links_heft_worst": _most(
                row.shared["heft"] / row.shared["portfolio"] for row in real if row.shared
            ),
            "search_gain": 1 - gain if (gain := _mean(row.searched_s / row.heft_s for row in real)) else None,
            **self.core.figures(),
        }

    def noise(self, course: str) -> float | None:
        """Makespan over the bound with wrong predictions, over all cases and futures."""
        return _mean(ratio for row in self.real for ratio in row.noise.get(course, ()))

    def regret(self) -> float | None:
        """How much longer, in the worst case, the forecast's pick of {heft, eft, fastest} takes than the best of them,
        on average over futures that nobody knew. None where they are so few that luck would be taken for regret."""
        worst = None
        for row in self.real:
            if row.pick:
                took = {name: geometric_mean(row.noise[_PLAYED.get(name, name)]) for name in PORTFOLIO}
                worst = max(worst or 0.0, took[row.pick] / min(took.values()) - 1)
        return worst

    def missed(self) -> dict[str, float]:
        """What is over, or under, its bound."""
        return {
            name: seen
            for name, seen in self.figures().items()
            if seen is not None and (seen > MOST.get(name, seen) or seen < LEAST.get(name, seen))
        }

    def document(self) -> dict[str, Any]:
        """What `-o json` prints."""
        head = {"schema": SCHEMA, "bench": "schedule", **self.figures(), "missed": self.missed()}
        rest = msgspec.to_builtins(self)
        return {**head, "instances": rest.pop("rows"), **rest.pop("core"), **rest}


def table(answer: Answer) -> str:
    """A line a figure, its bound beside it; then a line a case, makespans over the tighter bound."""
    missed = answer.missed()
    figures = [
        (name, "-" if seen is None else f"{seen:.4g}", bounded(name), "missed" if name in missed else "")
        for name, seen in answer.figures().items()
    ]
    head = ("instance", "fleet", "tasks", "best", "online", "heft", *POLICIES, "noise", "static", "bytes")
    cases = aligned([head, *_cases(answer)], numbers=range(2, len(head)))
    return f"{aligned([('', '', 'bound', ''), *figures], numbers=(1,))}\n\n{cases}"


def bounded(name: str) -> str:
    """What is promised of a figure; "" for one of which nothing is."""
    return f"<= {MOST[name]:g}" if name in MOST else f">= {LEAST[name]:g}" if name in LEAST else ""


def _cases(answer: Answer) -> Iterator[tuple[str, ...]]:
    for row in answer.real:
        late = [row.policies.get(name, 0.0) for name in POLICIES]
        ends = [row.known.best_s if row.known else 0.0, row.online_s, row.heft_s, *late]
        noise = [f"{mean:.3f}" if (mean := _mean(row.noise.get(name, ()))) else "-" for name in ("online", "static")]
        shares = [f"{share:.2f}" for share in _shares([row], "frugal")]
        ratios = [f"{end / row.lb2_s:.3f}" if end else "-" for end in ends]
        yield row.instance, row.fleet, str(row.tasks), *ratios, *noise, *(shares or ["-"])


def _shares(rows: Iterable[Row], plan: str) -> Iterator[float]:
    return (row.bytes[plan] / row.bytes["random"] for row in rows if row.bytes.get("random"))


def _mean(ratios: Iterable[float]) -> float | None:
    found = list(ratios)
    return geometric_mean(found) if found else None


def _most(values: Iterable[float]) -> float | None:
    return max(values, default=None)
