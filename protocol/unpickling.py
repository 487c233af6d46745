"""No pickle from the network: in the processes that hold credentials, unpickling is refused while it happens.

A pickle is a program. None of our packages reads one (a test looks), but a library might, so servers and worker daemons
hang a hook into the interpreter: the look-up of a class, which every pickle that does harm needs, raises. Skill hosts
are other processes: user code unpickles as it likes. It must not know who calls it.
"""

from __future__ import annotations

import sys
from typing import Any

from .errors import NotAllowed

_EVENT = "pickle.find_class"


def refuse_unpickling() -> None:
    """From here on, for ever, in this process and those it forks: `NotAllowed` out of whatever loads a pickle."""
    sys.addaudithook(_refuse)


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    if event == _EVENT:
        raise NotAllowed(f"a pickle wants {args[0]}.{args[1]} here", hint="nothing is ever unpickled in this process")
