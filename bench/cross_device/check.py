"""Whether what was claimed is so: a finding for each subtask and each check of a case.

Invariant: a finding is either true of what was really there, or says why it isn't; nothing is taken for granted. It
must not know how a case is played.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """`id` names the claim: a task, an output or a file, with the pointer into it. `why` is "" if it is so."""

    kind: Literal["subtask", "check"]
    id: str
    ok: bool
    why: str = ""
