"""Commands as typed skills, from a TOML table: the safe way to hand a tool to a planner.

    [skills.render]
    argv = ["blender", "-b", "{scene}", "-f", "{frame}"]
    args = { scene = "file", frame = "integer" }
    collect = ["*.png"]

Invariant: a slot is a whole argument, so no value can become two arguments, and a text that begins with `-` is
refused, so none can become an option. Must not know: hosts, the link.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.builtin import BY_NAME
from protocol.errors import UsageError
from protocol.resource import span_s
from protocol.schema import check
from protocol.skill import LEVELS, SkillSpec, Variant
from protocol.task import EFFECT_ORDER
from protocol.toml_text import read_toml

from .builtin.process import Ran, run_process
from .file import File
from .kind import schema_of
from .shape import Local
from .signature import dump
from .skill import DEVICES, resources, stated

_SLOT: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*")
_TYPES: Final = ("string", "integer", "number", "boolean", "file")
_RUN: Final = ("argv", "args", "defaults", "collect", "ok", "stdin", "cwd", "env")
_SPEC: Final = ("doc", "effect", "needs", "device", "timeout", "retry", "local", "asks", "examples", "tags",
                "sandbox", "network", "takes")  # fmt: skip
_KEYS: Final = frozenset((*_RUN, *_SPEC))
_KINDS: Final[dict[str, tuple[Any, str]]] = {
    **dict.fromkeys(("args", "defaults", "needs"), (dict, "a table")),
    **dict.fromkeys(("doc", "effect", "device", "stdin", "cwd"), (str, "a text")),
    "timeout": (str | int | float, "a duration"),
    "retry": (int, "a number of further attempts"),
}


RESULT: Final[dict[str, Any]] = BY_NAME["process.run"].result
"""What every tool gives back: exit, stdout, stderr and the collected files."""


class Tool(msgspec.Struct, frozen=True):
    """One command skill. `argv` as written; `stdin` may name an argument whose text is fed to it."""

    spec: SkillSpec
    argv: tuple[str, ...]
    collect: tuple[str, ...] = ()
    ok: tuple[int, ...] = (0,)
    stdin: str = ""
    cwd: str = ""
    env: dict[str, str] = {}

    def command(self, args: dict[str, Any]) -> list[str]:
        """The argument list for these values. A list fills its slot with as many arguments; None drops it.

        Raises: UsageError for a text that would be read as an option.
        """
        words: list[str] = []
        guarded = True
        for word in self.argv:
            slot = _SLOT.fullmatch(word)
            if slot is None:
                guarded = guarded and word != "--"
                words.append(word)
                continue
            value = self._value(args, slot[1])
            for one in value if isinstance(value, list) else () if value is None else (value,):
                words.append(_word(slot[1], one, guarded))
        return words

    def run(self, ctx: Any, **args: Any) -> Ran:
        stdin = str(args.get(self.stdin, "")) if self.stdin else ""
        env = {}
        for name, text in self.env.items():
            slot = _SLOT.fullmatch(text)
            value = self._value(args, slot[1]) if slot is not None else text
            if value is not None:
                env[name] = str(value)
        return run_process(
            ctx, self.command(args), stdin=stdin, cwd=self.cwd, ok=self.ok, collect=self.collect, env=env
        )

    def _value(self, args: Mapping[str, Any], name: str) -> Any:
        return args.get(name, self.spec.params["properties"][name].get("default"))


class ToolSignature:
    """The JSON side of a tool; the same face as workers/signature.py shows for a function."""

    context: Final = "ctx"

    def __init__(self, spec: SkillSpec) -> None:
        self.params = spec.params
        self.result = spec.result

    def load(self, args: Mapping[str, Any], local: Local) -> dict[str, Any]:
        if problems := check(self.params, args):
            raise UsageError("the arguments don't fit", problems=problems)
        loaded = {}
        for name, value in args.items():
            schema = self.params["properties"][name]
            if schema.get("type") == "file":
                value = local(value)
            elif schema.get("items", {}).get("type") == "file":
                value = [local(one) for one in value]
            loaded[name] = value
        return loaded

    def dump(self, value: Any, uri: Any) -> Any:
        return dump(value, self.result, uri)


def read_tools(path: Path) -> tuple[Tool, ...]:
    """The tools of a TOML file. Raises: UsageError naming the table and the fix."""
    try:
        document = read_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}", hint="give the path of a .toml file") from error
    except ValueError as error:
        raise UsageError(f"{path} is no TOML: {error}") from error
    tables = document.get("skills")
    if not isinstance(tables, dict) or not tables:
        raise UsageError(
            f"{path} has no skills", hint='write tables such as [skills.render] with argv = ["blender", ...]'
        )
    return tuple(_read(f"{path.name} [skills.{name}]", name, table) for name, table in _flatten(tables))


def _flatten(tables: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """`[skills.img.render]` is the skill img.render: a table without argv is a family."""
    found: list[tuple[str, Any]] = []
    for name, table in tables.items():
        if (
            isinstance(table, dict)
            and "argv" not in table
            and table
            and all(isinstance(v, dict) for v in table.values())
        ):
            found += _flatten(table, f"{prefix}{name}.")
        else:
            found.append((prefix + name, table))
    return found


def _read(where: str, name: str, table: Any) -> Tool:
    if _NAME.fullmatch(name) is None:
        raise UsageError(f"{where}: {name!r} is no name for a skill", hint="lower case letters, digits, _ and dots")
    if not isinstance(table, dict):
        raise UsageError(f"{where}: is no table", hint='write [skills.name] and argv = ["program", ...] below it')
    if unknown := sorted(set(table) - _KEYS):
        raise UsageError(f"{where}: {', '.join(unknown)} is not known", hint=f"known: {', '.join(sorted(_KEYS))}")
    for key, (kind, what) in _KINDS.items():
        if key in table and (not isinstance(table[key], kind) or type(table[key]) is bool):
            raise UsageError(f"{where}: {key} is {what}", hint=f"known: {', '.join(sorted(_KEYS))}")
    argv = _texts(where, table, "argv")
    if not argv or _SLOT.fullmatch(argv[0]):
        raise UsageError(f"{where}: argv names no program", hint="begin with the program's own name, not with a slot")
    params = _params(where, table)
    properties = params["properties"]
    stdin = table.get("stdin", "")
    env = table.get("env", {})
    if not isinstance(env, dict) or not all(isinstance(text, str) for text in env.values()):
        raise UsageError(f"{where}: env is a table of texts", hint='env = {API_TOKEN = "{token}"}')
    words = (*argv, *env.values())
    used = {slot[1] for word in words if (slot := _SLOT.fullmatch(word))} | ({stdin} if stdin else set())
    for word in argv:
        if _SLOT.fullmatch(word) is None and _SLOT.search(word):
            raise UsageError(f"{where}: {word!r} has a slot inside an argument", hint="a slot is a whole argument")
    if unknown := sorted(used - set(properties)):
        raise UsageError(f"{where}: no type for {', '.join(unknown)}", hint='give it in args: args = {scene = "file"}')
    if unused := sorted(set(properties) - used):
        raise UsageError(f"{where}: {', '.join(unused)} is not used", hint="put {name} into argv, or drop it")
    effect = table.get("effect", "once")
    if effect not in EFFECT_ORDER:
        raise UsageError(f"{where}: effect {effect!r} is unknown", hint="pure, idempotent or once")
    device = table.get("device", "gpu" if table.get("needs", {}).get("gpu") else "cpu")
    if device not in DEVICES:
        raise UsageError(f"{where}: there is no device kind {device!r}", hint=f"one of {', '.join(DEVICES)}")
    sandbox = table.get("sandbox", "")
    if sandbox and sandbox not in LEVELS[1:]:
        raise UsageError(f"{where}: there is no sandbox level {sandbox!r}", hint=f"one of {', '.join(LEVELS[1:])}")
    takes, run_s = stated(where, table.get("takes", ""))
    if takes and takes not in properties:
        raise UsageError(f"{where}: takes names {takes!r:.40}", hint="name one of its args, or write seconds")
    spec = SkillSpec(
        name=name,
        doc=str(table.get("doc", f"Runs {argv[0]}.")),
        params=params,
        result=RESULT,
        effect=effect,
        place="local" if table.get("local") else "any",
        variants=(Variant(device, resources(table.get("needs", {}))),),
        timeout_s=span_s(table.get("timeout", "1h")),
        retry_max=int(table.get("retry", 0 if effect == "once" else 2)),
        cached=effect == "pure",
        asks=bool(table.get("asks", False)),
        examples=_texts(where, table, "examples"),
        tags=_texts(where, table, "tags"),
        sandbox=sandbox,
        network=bool(table.get("network", False)),
        takes=takes,
        run_s=run_s,
    )
    ok = table.get("ok", [0])
    if not isinstance(ok, list) or not all(type(status) is int for status in ok):
        raise UsageError(f"{where}: ok is a list of exit statuses", hint="ok = [0, 1]")
    return Tool(spec, argv, _texts(where, table, "collect"), tuple(ok), stdin, str(table.get("cwd", "")), env)


def _texts(where: str, table: dict[str, Any], key: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise UsageError(f"{where}: {key} is a list of texts", hint=f'{key} = ["...", "..."]')
    return tuple(value)


def _params(where: str, table: dict[str, Any]) -> dict[str, Any]:
    """`scene = "file"`, `frames = "integer[]"`, `mode = ["fast", "slow"]`, `name = "string?"` -> a schema."""
    args, defaults = table.get("args", {}), table.get("defaults", {})
    properties: dict[str, Any] = {}
    required: list[str] = []
    for name, kind in args.items():
        schema, optional = schema_of(where, name, kind, _TYPES)
        if name in defaults:
            if problems := check(schema, defaults[name], name):
                raise UsageError(f"{where}: the default of {name} doesn't fit", problems=problems)
            schema["default"] = defaults[name]
        elif not optional:
            required.append(name)
        properties[name] = schema
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _word(name: str, value: Any, guarded: bool) -> str:
    """One argument. Options must not come out of data: after a `--` in argv anything goes."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value)
    if "\0" in text:
        raise UsageError(f"{name} holds a NUL byte")
    if guarded and text.startswith("-") and not isinstance(value, int | float | File):
        raise UsageError(
            f"{name} begins with -, so the program would read it as an option", hint="put -- before the slot"
        )
    return text
