"""Logs of services: `logs` writes one file for each service, a line for each request; `days` does so for some days."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from orchestrator.placement.dice import Dice

from .draw import Generator, between, hashes, pick, written

_NAMES: Final = ("auth", "billing", "cart", "catalog", "gateway", "mail", "orders", "search")
_LEVELS: Final = ("DEBUG", "INFO", "INFO", "INFO", "INFO", "WARN", "WARN", "ERROR")
_STATUS: Final = {"DEBUG": (200,), "INFO": (200, 201, 204), "WARN": (404, 429), "ERROR": (500, 502, 503)}
_REASONS: Final = ("timeout", "refused", "overload", "corrupt")
SLOW_MS: Final = 900


def logs(folder: Path, dice: Dice, *, files: int = 6, lines: int = 400, users: int = 12, pad: int = 0) -> Any:
    """`pad`: so many further characters on each line, for files that take a while to move.

    A line: `2026-05-04T06:00:03Z ERROR billing took=345 status=503 user=u07 reason=timeout`; a reason only with ERROR.
    """
    every: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for at in range(files):
        service = _NAMES[at % len(_NAMES)] + (f"-{at // len(_NAMES)}" if at >= len(_NAMES) else "")
        lean = dice.below(4)  # some services fail more than others
        made = [_line(dice, service, number, lean, users) for number in range(lines)]
        text = "".join(_text(one, pad) for one in made)
        rows.append(
            {
                **written(folder / f"{service}.log", text.encode()),
                "service": service,
                "lines": lines,
                "errors": sum(one["level"] == "ERROR" for one in made),
                "warnings": sum(one["level"] == "WARN" for one in made),
                "slow": sum(one["took"] >= SLOW_MS for one in made),
                "slowest": max(one["took"] for one in made),
            }
        )
        every += made
    rows.sort(key=lambda row: str(row["name"]))
    wrong = [one for one in every if one["level"] == "ERROR"]
    worst = min(rows, key=lambda row: (-row["errors"], row["name"]))
    return {
        "files": rows,
        "names": [row["name"] for row in rows],
        "hashes": hashes(rows),
        "sha256": [row["sha256"] for row in rows],
        "sizes": [row["bytes"] for row in rows],
        "table": [{"name": row["name"], "errors": row["errors"]} for row in rows],
        "errors_per_file": [row["errors"] for row in rows],
        "warnings_per_file": [row["warnings"] for row in rows],
        "lines": files * lines,
        "bytes": sum(row["bytes"] for row in rows),
        "errors": len(wrong),
        "warnings": sum(row["warnings"] for row in rows),
        "slow": sum(row["slow"] for row in rows),
        "slowest": max(one["took"] for one in every),
        "per_service": [{"service": row["service"], "errors": row["errors"]} for row in rows],
        "worst_reasons": _tally([one for one in wrong if one["service"] == worst["service"]], "reason"),
        "worst": worst,
        "reasons": _tally(wrong, "reason"),
        "statuses": _tally(every, "status"),
        "users_with_errors": _tally(wrong, "user"),
    }


def days(folder: Path, dice: Dice, *, days: int = 3, files: int = 5, lines: int = 100, below: str = ".") -> Any:
    """The logs of each day in a folder of its own, and index.json, which names one of them: `below` is before its name.

    The truth is that of the logs of this day, `day`.
    """
    names = [f"day-{number}" for number in range(1, days + 1)]
    chosen, truths = pick(dice, names), {}
    for name in names:
        (folder / name).mkdir(exist_ok=True)
        truths[name] = logs(folder / name, dice, files=files, lines=lines)
    (folder / "index.json").write_text(json.dumps({"day": chosen, "folder": f"{below}/{chosen}"}))
    return {**truths[chosen], "day": chosen}


def _line(dice: Dice, service: str, number: int, lean: int, users: int) -> dict[str, Any]:
    level = "ERROR" if dice.below(40) < lean else pick(dice, _LEVELS)
    found = {
        "at": f"2026-05-04T{6 + number // 3600 % 18:02d}:{number // 60 % 60:02d}:{number % 60:02d}Z",
        "level": level,
        "service": service,
        "took": between(dice, 3, 1000),
        "status": pick(dice, _STATUS[level]),
        "user": f"u{dice.below(users):02d}",
    }
    return {**found, "reason": pick(dice, _REASONS)} if level == "ERROR" else found


def _text(one: dict[str, Any], pad: int) -> str:
    at, level, service, *more = one
    tail = "".join(f" {key}={one[key]}" for key in more)
    return f"{one[at]} {one[level]} {one[service]}{tail}{' ' + 'x' * pad if pad else ''}\n"


def _tally(lines: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """How often each value occurs, by value."""
    found = sorted({one[key] for one in lines})
    return [{key: value, "n": sum(one[key] == value for one in lines)} for value in found]


GENERATORS: Final[dict[str, Generator]] = {"days": days, "logs": logs}
