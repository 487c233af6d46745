"""When the core raises: a defect of ours that must cost no more than the one thing it happened on.

Each fault gets a reference. The peer that asked is told it, the journal has it (`DecisionFailed`), standard error has
the whole story beside it. The first fault over a run is taken back and tried again, the next one sets the run aside.
Faults over no run known make the engine pause, longer each time. It judges nothing else, and touches no state.
"""

from __future__ import annotations

import secrets
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import Final

import msgspec

from protocol.errors import InternalError

from ..core import stimulus as s

PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 5.0


class Fault(msgspec.Struct, frozen=True):
    """One of them. `run` 0: not known. `conn`: a worker stream that has to go with it (0: none)."""

    reference: str
    stimulus: str
    error: str
    run: int = 0
    aside: bool = False
    conn: int = 0
    pause_s: float = 0.0

    def told(self) -> InternalError:
        """What the peer hears whose request it was."""
        return InternalError(
            f"the server failed to decide on this ({self.reference}); nothing was changed",
            hint="asterism events --fleet shows it, the server's log has the story: report both",
            ref=self.reference,
        )


class Faults:
    """Counts them by run, and by worker stream where no run is known."""

    def __init__(self) -> None:
        self._by_run: Counter[int] = Counter()
        self._by_worker: Counter[int] = Counter()
        self._blameless = 0

    def note(self, stimulus: s.Stimulus, error: Exception, run: int) -> Fault:
        """A stimulus made the core raise while it was busy with `run`."""
        reference = secrets.token_hex(4)
        kind = type(stimulus).__name__
        where = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__} at {Path(where.filename).stem}:{where.lineno}"
        sys.stderr.write(f"asterism server: failed to decide on {kind} ({reference})\n")
        traceback.print_exception(error)
        conn, pause_s = 0, 0.0
        if run:
            self._by_run[run] += 1
        else:
            self._blameless += 1
            pause_s = min(LONGEST_PAUSE_S, PAUSE_S * 2.0 ** min(self._blameless, 10))
        if isinstance(stimulus, s.WorkerJoined | s.WorkerGone):
            conn = stimulus.conn
        elif isinstance(stimulus, s.WorkerSent) and not run:
            self._by_worker[stimulus.worker] += 1
            conn = stimulus.conn if self._by_worker[stimulus.worker] > 1 else 0
        return Fault(reference, kind, said, run, self._by_run[run] > 1 if run else False, conn, pause_s)
