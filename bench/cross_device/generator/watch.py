"""What a monitor looks at: samples of a level over time, and services that go up and down."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from orchestrator.placement.dice import Dice

from .draw import Generator, between, table


def samples(folder: Path, dice: Dice, *, count: int = 60, peak: int = 50) -> Any:
    """samples.csv: a level by minute, once at `peak` or up to nine above, else at least ten below."""
    levels = [between(dice, 1, peak - 10) for _ in range(count)]
    at = between(dice, 0, count - 1)
    levels[at] = between(dice, peak, peak + 9)
    table(folder / "samples.csv", [{"minute": minute, "level": level} for minute, level in enumerate(levels)])
    return {"highest": {"minute": at, "level": levels[at]}, "last": levels[-1], "sum": sum(levels), "count": count}


def services(folder: Path, dice: Dice, *, count: int = 8, lines: int = 60) -> Any:
    """NAME.log of each service: a line a minute, `7 UP` or `7 DOWN`; how often each went down is in `falls`."""
    falls: dict[str, int] = {}
    down: dict[str, int] = {}
    for number in range(1, count + 1):
        name, up, said, fell = f"service-{number:02d}", True, [], 0
        for minute in range(lines):
            was, up = up, dice.below(5) > 0 if up else dice.below(2) > 0
            fell += was and not up
            said.append(f"{minute} {'UP' if up else 'DOWN'}")
        (folder / f"{name}.log").write_text("\n".join(said) + "\n")
        falls[name], down[name] = fell, sum(line.endswith("DOWN") for line in said)
    return {"names": [*falls], "falls": falls, "down": [*down.values()], "ranked": sorted(down.values(), reverse=True)}


GENERATORS: Final[dict[str, Generator]] = {"samples": samples, "services": services}
