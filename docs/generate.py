"""Fills the generated parts of docs/reference from the code: `python docs/generate.py` (or `make docs`).

A page is prose with places of the form `<!-- generated: NAME -->` ... `<!-- end -->`; what stands between is replaced
by what NAME makes. tests/architecture/test_docs.py asserts that every page is fresh, so a flag, event, skill or setting
that is new can't stay undocumented. Errors and plan codes are written by hand: their pages say what to do.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click

DOCS: Final = Path(__file__).parent
PLACE: Final = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def commands() -> str:
    """Every command: what it does, how it is called, its options."""
    return "\n".join(_command(path, command) for path, command in every_command())


def every_command() -> Iterator[tuple[str, click.Command]]:
    """(its words, the command), in the order of `asterism --help`."""
    import asterism

    root = asterism.command()
    context = click.Context(root, info_name="asterism")
    stack: list[tuple[list[str], click.Command]] = [([], root)]
    while stack:
        path, command = stack.pop()
        if isinstance(command, click.Group):
            found = [(name, command.get_command(context, name)) for name in command.list_commands(context)]
            stack.extend(([*path, name], child) for name, child in reversed(found) if child is not None)
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield " ".join(path), command


def _command(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"asterism {path}")
    lines = [f"### asterism {path}", "", inspect.cleandoc(command.help or ""), ""]
    lines += ["```text", command.get_usage(context).removeprefix("Usage: "), "```", ""]
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    if options:
        lines += ["| option | meaning |", "|---|---|"]
        for one in options:
            record = one.get_help_record(context)
            names, text = record if record is not None else (", ".join(one.opts), "")
            lines.append(f"| `{_cell(names)}` | {_cell(text)} |")
        lines.append("")
    return "\n".join(lines)


def skills() -> str:
    """Every built-in skill with its arguments and result."""
    from protocol.builtin import BUILTINS

    lines: list[str] = []
    for spec in BUILTINS:
        where = {"local": "acts on one machine's own files, `here` unless `on` says otherwise", "any": "runs anywhere"}
        facts = [spec.effect, where.get(spec.place, "served by the orchestrator")]
        facts += ["asks for approval"] if spec.asks else []
        facts += ["runs inside the daemon"] if spec.inline else []
        lines += [f"### {spec.name}", "", spec.doc, "", f"{'; '.join(facts)}.", ""]
        properties: Mapping[str, Any] = spec.params["properties"]
        if properties:
            lines += ["| argument | type | meaning |", "|---|---|---|"]
            for name, schema in properties.items():
                default = f" (default `{_literal(schema['default'])}`)" if "default" in schema else ""
                lines.append(f"| `{name}` | {_type(schema)} | {_cell(schema.get('description', ''))}{default} |")
            lines.append("")
        fields = ", ".join(f"`{name}`: {_type(schema)}" for name, schema in spec.result.get("properties", {}).items())
        lines += [f"Result: {fields or 'any value'}.", ""]
    return "\n".join(lines)


def events() -> str:
    """Every kind of event with its fields."""
    import typing

    from orchestrator.core import event

    lines = ["| kind | fields | meaning |", "|---|---|---|"]
    for cls in typing.get_args(event.Event):
        kind = kind_of(cls.__name__)
        hidden = {"run", "task", "number", "at", "pin", "secret_hash", "reused", "outcome", "patch", "avoid"}
        names = ["purpose" if name == "kind" else name for name in cls.__struct_fields__ if name not in hidden]
        fields = ", ".join(f"`{name}`" for name in (["body"] if kind == "emitted" else names))
        written = cls.__doc__ if cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}(") else ""
        lines.append(f"| `{kind}` | {fields or '-'} | {_cell(written or _WORDS[kind])} |")
    return "\n".join(lines) + "\n"


def kind_of(name: str) -> str:
    """`TaskSettled` -> `task_settled`, as protocol/event_row shows it (a test compares the two)."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


_WORDS: Final = {
    "patch_refused": "An edit was refused; `problems` names every one.",
    "when_judged": "The condition of a task was judged.",
    "task_resumed": "A waiting attempt goes on.",
    "approval_given": "A person allowed the task.",
    "approval_refused": "A person refused the task.",
    "claim_released": "A re-plan holds its tasks no longer.",
    "budget_reserved": "Tokens were set aside for a planner call.",
    "budget_spent": "What a planner call cost.",
    "planner_call_closed": "A planner call ended.",
    "planner_call_lost": "A planner call was open when the orchestrator died.",
    "run_paused": "Nothing new starts in this run.",
    "run_resumed": "The run goes on.",
    "run_settled": "The run is final.",
    "run_removed": "The run was forgotten.",
}


def settings() -> str:
    """Every setting with its default and its environment variable."""
    from protocol.config import PREFIX
    from protocol.setting import Settings

    lines = ["| key | default | environment |", "|---|---|---|"]
    for key, value in _leaves(Settings().model_dump(mode="json")):
        variable = PREFIX + key.upper().replace(".", "__")
        lines.append(f"| `{key}` | `{_literal(value)}` | `{variable}` |")
    return "\n".join(lines) + "\n"


def lifecycle() -> str:
    """The tables of orchestrator/core/lifecycle as diagrams."""
    from orchestrator.core.lifecycle import RUN, TASK

    parts = []
    for title, table in (("A task", TASK), ("A run", RUN)):
        edges: dict[tuple[str, str], list[str]] = {}
        for (state, fact), after in table.items():
            edges.setdefault((state.__name__, after.__name__), []).append(fact.__name__)
        rows = [f"  {start} --> {end}: {', '.join(facts)}" for (start, end), facts in edges.items() if start != end]
        kept = [f"| {start} | {', '.join(facts)} |" for (start, end), facts in edges.items() if start == end and facts]
        parts += [f"## {title}", "", "```mermaid", "stateDiagram-v2", *rows, "```", ""]
        if kept:
            parts += ["Facts that are noted and change no state:", "", "| state | facts |", "|---|---|", *kept, ""]
    return "\n".join(parts)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(branch) for branch in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        inner = _type(schema["items"]) if schema.get("items") else "any"
        return f"list of {inner}"
    if schema.get("type") == "object" and schema.get("properties"):
        return "{" + ", ".join(schema["properties"]) + "}"
    return str(schema.get("type", "any"))


def _literal(value: Any) -> str:
    import json

    return json.dumps(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


MAKERS: Final[dict[str, Callable[[], str]]] = {
    "commands": commands,
    "skills": skills,
    "events": events,
    "settings": settings,
    "lifecycle": lifecycle,
}


def filled(text: str) -> str:
    """The page with every place filled in. Raises: KeyError for a place that nothing makes."""
    return PLACE.sub(lambda found: f"{found[1]}\n{MAKERS[found[2]]().rstrip()}\n\n{found[3]}", text)


def pages() -> list[Path]:
    """The pages that have generated parts."""
    return [path for path in sorted((DOCS / "reference").glob("*.md")) if "<!-- generated:" in path.read_text("utf-8")]


def main() -> None:
    for path in pages():
        text = path.read_text("utf-8")
        fresh = filled(text)
        if fresh != text:
            path.write_text(fresh, "utf-8")
            sys.stderr.write(f"wrote {path.relative_to(DOCS.parent)}\n")


if __name__ == "__main__":
    main()
