"""One play of one case on the fleet: what came of it.

Invariant: a `Play` is plain data that can be written as JSON and read back. It must not know other plays.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .check import Finding


class Play(msgspec.Struct, frozen=True, kw_only=True):
    """`state`: the run's, "" if there was none; `problem`: why it couldn't be played or looked at, "" otherwise.

    `sequential`: the same graph, one task after the other. `latency_s`: from the request to the end of its run, by the
    client's clock. `report`: the run's, as `asterism result -o json` prints it. `bytes_moved` between machines.
    `critical_path_s`: the longest way through the graph by what each task ran. `recovery_s`: how long each blow of the
    fault took to make good. `partial` names what is missing of a result that can't be whole.
    """

    case: str
    category: str
    mode: str = "gold"
    sequential: bool = False
    fault: str = ""
    seed: int = 0
    repeat: int = 0
    state: str = ""
    problem: str = ""
    findings: tuple[Finding, ...] = ()
    latency_s: float = 0.0
    report: dict[str, Any] = {}
    bytes_moved: int = 0
    critical_path_s: float = 0.0
    recovery_s: tuple[float, ...] = ()
    partial: str = ""

    @property
    def succeeded(self) -> bool:
        """Every check of the real outcome holds."""
        checks = [one for one in self.findings if one.kind == "check"]
        return not self.problem and bool(checks) and all(one.ok for one in checks)
