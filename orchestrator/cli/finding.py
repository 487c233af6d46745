"""What a check found, and how findings are shown: one line each with its one fix, or one JSON value.

It must not know what is checked.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import click
import msgspec

from protocol.report import SCHEMA

from . import show

Level = Literal["ok", "warning", "error"]
_SIGNS: Final = {"ok": ("ok", "green"), "warning": ("warn", "yellow"), "error": ("FAIL", "red")}


class Check(msgspec.Struct, frozen=True):
    """What was looked at, how it is, and the one fix if it is not well."""

    name: str
    level: Level
    found: str
    fix: str = ""


def tell(check: Check) -> None:
    """A finding for reading."""
    sign, colour = _SIGNS[check.level]
    shown = click.style(f"{sign:<5}", fg=colour) if show.coloured(sys.stdout) else f"{sign:<5}"
    click.echo(f"{shown} {check.name}: {check.found}")
    if check.fix:
        click.echo(f"      fix: {check.fix}")


def conclude(checks: Sequence[Check], output: str, more: Mapping[str, Any] | None = None) -> None:
    """End the command, with 1 if something is broken; with `-o json` after all findings and `more` beside them."""
    broken = any(check.level == "error" for check in checks)
    if output == "json":
        rows = [msgspec.to_builtins(check) for check in checks]
        show.json_value({"schema": SCHEMA, "ok": not broken, "checks": rows, **(more or {})})
    click.get_current_context().exit(int(broken))
