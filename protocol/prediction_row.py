"""Predictions and how well they did, as people and programs read them."""

from __future__ import annotations

import msgspec


class Accuracy(msgspec.Struct, frozen=True):
    """Of the last `n` predictions that came true: the median of the absolute error as a share of what came true, its
    90th percentile, and the share of runs that took no longer than the predicted 95th percentile."""

    n: int = 0
    error: float = 0.0
    error_p90: float = 0.0
    covered: float = 0.0


class Predicted(msgspec.Struct, frozen=True):
    """What was said of one attempt, in seconds: expected, 10th and 95th percentile. `n`: the runs it rested on; `by`:
    measured (on that device), class (of devices), skill (on other devices), declared, default (a guess)."""

    run_s: float
    low_s: float
    p95_s: float
    n: int
    by: str


class SkillPace(msgspec.Struct, frozen=True):
    """What is known of a skill on a class of devices. `form`: what predicts it; `changes`: how often its past was
    forgotten because its pace had changed. `run_s` is for an input of the usual size, one element of a map. `slows`:
    what each other task that is on the device when it begins multiplies its time with; 1 where that isn't seen to."""

    skill: str
    device_class: str
    runs: int
    run_s: float
    low_s: float
    p95_s: float
    form: str
    changes: int
    accuracy: Accuracy
    slows: float = 1.0


class TokenUse(msgspec.Struct, frozen=True):
    """What one run of a skill asks of a model: the median of the tokens read and written, and of those written the 90th
    percentile."""

    skill: str
    runs: int
    tokens_in: float
    tokens_out: float
    tokens_out_p90: float


class ModelPace(msgspec.Struct, frozen=True):
    """How fast the model of a worker is: seconds before the first token, tokens a second read and written (null: not to
    be told from the rest)."""

    worker: str
    runs: int
    latency_s: float
    reads_s: float | None
    writes_s: float


class LinkPace(msgspec.Struct, frozen=True):
    """What is known of the link to a worker, from the files that went over it."""

    worker: str
    transfers: int
    latency_s: float
    bytes_s: float
    accuracy: Accuracy
