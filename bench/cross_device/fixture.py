"""Fixtures: data made from a seed, with the truth about it, which is known because it was made so.

Invariant: `make` is pure given its dice: equal dice and arguments write equal bytes and give an equal truth, whatever
was made before. A truth comes from what was drawn, never from Asterism's skills, whose results it is to judge. How much
is made depends on the arguments alone: a graph has its width for every seed. It must not know cases or machines.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from orchestrator.placement.dice import Dice
from protocol.errors import UsageError

from .generator import estate, frail, gauge, image, log, number, shop, source, text, vault, watch
from .generator.draw import Generator


def gathered(modules: Iterable[ModuleType]) -> dict[str, Generator]:
    """Those that each module lists, by name. Raises: UsageError for a name that two of them give."""
    found: dict[str, tuple[str, Generator]] = {}
    for module in modules:
        for name, generator in module.GENERATORS.items():
            if name in found:
                first, second = found[name][0], module.__name__
                raise UsageError(f"{first} and {second} both have a generator {name!r}", hint="rename one of them")
            found[name] = module.__name__, generator
    return {name: generator for name, (_, generator) in found.items()}


# A generator takes (folder, dice, *, its arguments by name); each module of `generator` lists those it has.
GENERATORS: Final[dict[str, Generator]] = gathered(
    (estate, frail, gauge, image, log, number, shop, source, text, vault, watch)
)


def dice_of(seed: int, *names: str) -> Dice:
    """The draws of one fixture: names (case, fixture, machine) keep it independent of what else is made."""
    return Dice(int.from_bytes(sha256("\0".join((str(seed), *names)).encode()).digest()[:8], "big"))


def make(kind: str, folder: Path, args: Mapping[str, Any], dice: Dice) -> Any:
    """Write the data of this kind into `folder`, which is made; its truth, as JSON has it.

    Raises: UsageError for a kind that isn't there, or arguments that it doesn't take.
    """
    generator = GENERATORS.get(kind)
    if generator is None:
        raise UsageError(f"no generator is called {kind!r}", hint=f"there are {', '.join(sorted(GENERATORS))}")
    _check(kind, generator, args)
    folder.mkdir(parents=True, exist_ok=True)
    return generator(folder, dice, **args)


def _check(kind: str, generator: Generator, args: Mapping[str, Any]) -> None:
    """A truth made with a wrong argument would blame the skill that is judged by it."""
    hints = typing.get_type_hints(generator)
    known = {
        name: hints[name]
        for name, one in inspect.signature(generator).parameters.items()
        if one.kind is inspect.Parameter.KEYWORD_ONLY
    }
    for name, value in args.items():
        if name not in known:
            raise UsageError(f"{kind} takes no {name!r}", hint=f"it takes {', '.join(known)}")
        wanted = typing.get_origin(known[name]) or known[name]
        if not isinstance(value, wanted):
            raise UsageError(f"{name} of {kind} is {value!r}", hint=f"it is a {wanted.__name__}")
