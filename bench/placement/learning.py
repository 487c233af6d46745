"""How well run times are predicted: recorded workflows, each task predicted before it is learned from.

The predictor is the server's own. Tasks of a kind are a skill, in the order of their levels and shuffled within one, as
a fleet would run them; tasks that are the first of their kind are not judged, for nobody could know them. Beside it a
moving mean (EMA, 0.5), which other runtimes go by, predicts the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from orchestrator.placement.dice import Dice
from orchestrator.placement.predictor import Predictor
from orchestrator.placement.regression import median, quantile

from .workflow import Workflow

_WEIGHT = 0.5


class Learning(msgspec.Struct, frozen=True):
    """Of `predictions`: the median and the 90th percentile of the absolute error as a share of what came true, and the
    share that took no longer than the 95th percentile said. `ema_` the same of the moving mean."""

    predictions: int
    error: float
    error_p90: float
    covered: float
    ema_error: float
    ema_error_p90: float


def learning(workflows: Iterable[Workflow], seed: int = 1) -> Learning | None:
    """None where there is nothing to predict."""
    errors: list[float] = []
    means: list[float] = []
    within = 0
    for workflow in workflows:
        predictor, mean = Predictor(), dict[str, float]()
        for task in _order(workflow, seed):
            kind, size, took = workflow.kinds[task], round(workflow.reads[task]), workflow.work_s[task]
            if took <= 0.0:
                continue
            if (known := mean.get(kind)) is not None:
                said = predictor.predict(kind, "cpu", 0, 1.0, size)
                errors.append(abs(said.run_s - took) / took)
                means.append(abs(known - took) / took)
                within += took <= said.p95_s
            predictor.note(kind, "cpu", 0, 1.0, size, took)
            predictor.refit()
            mean[kind] = took if known is None else known + _WEIGHT * (took - known)
    if not errors:
        return None
    errors.sort()
    means.sort()
    return Learning(
        len(errors), median(errors), quantile(errors, 0.9), within / len(errors), median(means), quantile(means, 0.9)
    )


def _order(workflow: Workflow, seed: int) -> Iterator[int]:
    waits = [len(parents) for parents in workflow.parents]
    ready = [task for task, count in enumerate(waits) if not count]
    dice = Dice(seed)
    while ready:
        following: list[int] = []
        luck = {task: dice.uniform() for task in ready}
        for task in sorted(ready, key=luck.__getitem__):
            yield task
            for child, _ in workflow.children[task]:
                waits[child] -= 1
                if not waits[child]:
                    following.append(child)
        ready = following
