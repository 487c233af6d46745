"""Gauges on a bus: a JSON file with what each of them measures, which simulated gauges are read from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from orchestrator.placement.dice import Dice

from .draw import Generator, between, some


def gauges(folder: Path, dice: Dice, *, count: int = 16, hot: int = 3) -> Any:
    """bus.json: degrees by gauge g01, g02, ...; `hot` of them are above 80, the others below 60."""
    names = [f"g{number:02d}" for number in range(1, count + 1)]
    warm = some(dice, names, hot)
    degrees = {name: between(dice, 81, 99) if name in warm else between(dice, 12, 59) for name in names}
    (folder / "bus.json").write_text(json.dumps(degrees))
    return {
        "names": names,
        "degrees": degrees,
        "list": [degrees[name] for name in names],
        "hot": warm,
        "hottest": max(degrees.values()),
        "sum": sum(degrees.values()),
    }


GENERATORS: Final[dict[str, Generator]] = {"gauges": gauges}
