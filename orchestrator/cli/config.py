"""`config view`: every setting and where its value comes from. It must not know what settings mean."""

from __future__ import annotations

import click

from protocol.config import load
from protocol.report import SCHEMA

from . import show
from .option import output_option


@click.command()
@click.option("--sources", is_flag=True, help="Say where each value comes from.")
@output_option("json")
def view(sources: bool, output: str) -> None:
    """Show the settings that hold here: flags, environment, files, defaults merged."""
    found = load()
    if output == "json":
        rows = {key: {"value": value, "source": source} if sources else value for key, value, source in found.leaves()}
        show.json_value({"schema": SCHEMA, "settings": rows})
        return
    columns: list[show.Column] = [
        ("setting", lambda row: row[0]),
        ("value", lambda row: show.compact(row[1]) if row[1] not in ("", None) else "-"),
    ]
    if sources:
        columns.append(("source", lambda row: row[2]))
    show.table(columns, found.leaves())
