"""`plan --save` and `template list | show | remove`: the saved templates of this machine, as files.

A server on this machine reads them at its next request. Invariant: nothing is replaced or removed unasked, and what is
saved was proved to serve its own request. It must not know how a request is planned.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from protocol.config import load
from protocol.errors import Conflict, NotFound
from protocol.report import SCHEMA
from protocol.security import home, private_directory, write_private

from . import show
from .option import output_option

_WHERE = ("shipped", "saved")


def saved_folder() -> Path:
    """Where templates of persons lie."""
    return Path(load().settings.home or home()).expanduser() / "templates"


def require_free(name: str) -> None:
    """Raises: Conflict where a template of that name is."""
    taken = [where for one, where in _templates()[0] if one.name == name]
    if taken:
        raise Conflict(f"there is a {taken[-1]} template {name} already", hint="choose another name, or add --force")


def save(
    name: str,
    request: str,
    plan: Mapping[str, Any],
    params: Mapping[str, str],
    inputs: Mapping[str, Any],
    *,
    doc: str = "",
) -> dict[str, Any]:
    """Make a template of a compiled request, write it down, say what it is. The document.

    Raises: UsageError and PlanRefused for what can't be one.
    """
    from planner.template_draft import draft_template

    draft = draft_template(name, request, plan, params, inputs, doc)
    folder = private_directory(saved_folder())
    path = folder / f"{name}.json"
    write_private(path, msgspec.json.format(msgspec.json.encode(draft.document), indent=1) + b"\n")
    show.say(f"saved as template:{name} in {path}")
    show.say(f'  asked for by: "{draft.document["requests"][0]}"')
    for row in draft.document["parameters"]:
        count, inside = draft.places[row["name"]]
        where = f"{show.many(count, 'place')} of the plan" + (
            "" if inside else f"; give it by --input {row['name']}=.."
        )
        show.say(f"  {row['name']}: {row['type']}, else {show.compact(row['default'])}, in {where}")
    rivals = [one.name for one, _ in _templates()[0] if one.name != name and one.matches(request) is not None]
    if rivals:
        show.say(f"  note: it also asks for {', '.join(rivals)}; what spells out more is taken, of equals the first")
    return draft.document


@click.command("list")
@output_option("json")
def list_(output: str) -> None:
    """List the templates: shipped ones, and those that were saved on this machine."""
    found, problems = _templates()
    rows = [
        {
            "name": one.name,
            "where": where,
            "requests": list(one.requests),
            "parameters": [parameter.name for parameter in one.parameters.values()],
            "doc": one.doc,
        }
        for one, where in found
    ]
    if output == "json":
        show.json_value(
            {"schema": SCHEMA, "templates": rows, "problems": [msgspec.to_builtins(one) for one in problems]}
        )
        return
    columns = (
        ("template", lambda row: row["name"]),
        ("where", lambda row: row["where"]),
        ("asked for by", lambda row: show.short(row["requests"][0], 70)),
    )
    show.table(columns, rows)
    for problem in problems:
        show.say(str(problem))


@click.command("show")
@click.argument("name")
def show_(name: str) -> None:
    """Show one template, as its file says it."""
    click.echo(_path(name).read_text(), nl=False)


@click.command()
@click.argument("name")
@output_option("json")
def remove(name: str, output: str) -> None:
    """Remove a saved template; a shipped one of the same name counts again."""
    path = _path(name, saved=True)
    path.unlink()
    if output == "json":
        show.json_value({"schema": SCHEMA, "removed": name})
    else:
        show.say(f"{name} is removed")


def _templates() -> tuple[list[tuple[Any, str]], list[Any]]:
    """Every template with where it is from, and what is wrong with files that are none."""
    from planner.template import load_templates, shipped_folder

    found: dict[str, tuple[Any, str]] = {}
    problems: list[Any] = []
    for folder, where in zip((shipped_folder(), saved_folder()), _WHERE, strict=True):
        templates, wrong = load_templates([folder])
        found |= {one.name: (one, where) for one in templates}
        problems += wrong
    return list(found.values()), problems


def _path(name: str, *, saved: bool = False) -> Path:
    """The file of a template. Raises: NotFound."""
    from planner.template import read_template, shipped_folder
    from protocol.errors import AsterismError

    for folder in (saved_folder(),) if saved else (saved_folder(), shipped_folder()):
        for path in sorted(folder.glob("*.json")):
            try:
                if read_template(path.read_bytes()).name == name:
                    return path
            except (AsterismError, OSError):
                if path.stem == name:
                    return path
    raise NotFound(f"there is no {'saved ' * saved}template {name}", hint="asterism template list")
