"""How an attempt ended. Exactly one of Success, Failure, Stopped."""

from __future__ import annotations

from typing import Literal

import msgspec

from .artifact import Value

FailureClass = Literal["infra", "transient", "permanent", "policy"]


class Success(msgspec.Struct, frozen=True, tag="ok", gc=False):
    """`value`: JSON bytes up to INLINE_LIMIT, or an ArtifactRef the orchestrator already holds."""

    value: Value


class Failure(msgspec.Struct, frozen=True, tag="failed", omit_defaults=True, gc=False):
    """`code` is stable (`Timeout`, `HostDied`, an exception name); `klass` drives the next means."""

    code: str
    message: str
    klass: FailureClass = "permanent"
    detail: str = ""
    hint: str = ""


class Stopped(msgspec.Struct, frozen=True, tag="stopped", gc=False):
    """The attempt ended because it was cancelled; its process is gone."""

    why: str = ""


Outcome = Success | Failure | Stopped


class Usage(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True, gc=False):
    """What the attempt took: seconds from start to end on its worker, device used, peak bytes, LLM spend.

    `bytes_in` were fetched for it; `bring_s`: how long it waited for them before its start, which `run_s` leaves out.
    """

    run_s: float = 0.0
    device: str = "cpu"
    cpu_s: float = 0.0
    peak_bytes: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    price: float = 0.0
    bytes_in: int = 0
    bring_s: float = 0.0
