"""Work for a thread that computes for long beside the loop, which goes first meanwhile.

Both share one interpreter, and the loop lets go of it whenever it reads, writes or polls, several times a message. To
get it back from a thread that computes takes Python 5 ms each time: every message of a run waited 10 to 25 ms while
its forecast was played. Invariant: the interpreter's own interval is back once nothing of it is under way.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final, TypeVar

import anyio.to_thread

SWITCH_S: Final = 0.0001
"""So long a thread goes on once the loop has something to do."""
_USUAL_S: Final = sys.getswitchinterval()

T = TypeVar("T")
_under_way = 0


async def computed(work: Callable[..., T], *args: object, abandon_on_cancel: bool = False) -> T:
    """`work(*args)`, in a thread."""
    global _under_way
    _under_way += 1
    sys.setswitchinterval(SWITCH_S)
    try:
        return await anyio.to_thread.run_sync(work, *args, abandon_on_cancel=abandon_on_cancel)
    finally:
        _under_way -= 1
        if not _under_way:
            sys.setswitchinterval(_USUAL_S)
