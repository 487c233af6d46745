"""TOML text to plain values, within bounds: plan files, settings and tool tables are read here and nowhere else.

Invariant: total and quick. tomllib takes the square of the length of a dotted key and recurses into brackets, so both
are bounded before anybody walks what comes out. It must not know what the tables mean.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

MOST_LEVELS: Final = 64
_LONG_KEY: Final = re.compile(rf"(?m)(?:^|[\[{{,])[ \t]*(?:[A-Za-z0-9_\"'-]+[ \t]*\.[ \t]*){{{MOST_LEVELS}}}")


def read_toml(text: str) -> dict[str, Any]:
    """Raises: ValueError saying what is wrong with it, and nothing else."""
    if _LONG_KEY.search(text):
        raise ValueError(f"a key of more than {MOST_LEVELS} parts")
    try:
        found = tomllib.loads(text)
    except RecursionError:
        raise ValueError("arrays and tables are nested too deep") from None
    level: list[Any] = [found]
    for _ in range(MOST_LEVELS):
        level = [inner for node in level for inner in (node.values() if isinstance(node, dict) else node)]
        level = [node for node in level if isinstance(node, dict | list)]
        if not level:
            return found
    raise ValueError(f"arrays and tables are nested deeper than {MOST_LEVELS} levels")
