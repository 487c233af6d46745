"""From a Python signature to the schemas of a skill, and between JSON values and what the function takes.

One walk over each annotation makes both its schema and the loader that turns JSON into it, so that they can't
disagree. Understood: str int float bool None Any, File, list dict tuple set, Optional and unions, Literal, Enum,
Annotated[.., "doc"], TypedDict, dataclasses, pydantic models, msgspec structs. A parameter annotated `SkillContext`
is filled in and left out of the schema; a trailing underscore (`as_`) is dropped from the JSON name.
Must not know: devices, needs, where a skill runs.
"""

from __future__ import annotations

import collections.abc
import inspect
import keyword
import re
import textwrap
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, Final

import msgspec

from protocol.errors import UsageError
from protocol.schema import check_schema, has_files, is_file_uri, map_files

from .file import File
from .shape import Local, Shape, shape_of

_SECTION: Final = re.compile(r"(Args|Arguments|Parameters|Returns|Raises|Yields|Example|Examples|Note|Notes):\s*$")
_ARGUMENT: Final = re.compile(r"\s{1,8}(\w+)(?:\s*\([^)]*\))?:\s*(.+)$")
CONTEXT: Final = "SkillContext"


class Signature:
    """The JSON side of one function: what it takes (`params`), what it gives (`result`), and the way between."""

    def __init__(self, function: Callable[..., Any], *, batched: bool = False) -> None:
        self.doc, described = _read_doc(function)
        self.context = ""
        """Name of the parameter that takes the SkillContext, or empty."""
        self.params: dict[str, Any] = {
            "type": "object",
            "properties": {},
            "required": [],
            "additionalProperties": False,
        }
        self._shapes: dict[str, tuple[str, Shape]] = {}
        hints = _hints(function)
        for parameter in inspect.signature(function).parameters.values():
            hint = hints.get(parameter.name, Any)
            if _is_context(hint):
                self.context = parameter.name
                continue
            if batched:
                hint = _entry(hint, f"{_title(function)}({parameter.name})")
            self._add(function, parameter, hint, described)
        returned = hints.get("return", Any)
        if batched:
            returned = _succeeded(_entry(returned, f"the result of {_title(function)}"))
        self.result: dict[str, Any] = shape_of(returned, f"the result of {_title(function)}").schema
        self._result_files = has_files(self.result)
        for schema, of in ((self.params, "arguments"), (self.result, "result")):
            if problems := check_schema(schema):
                raise UsageError(f"the {of} of {_title(function)} can't be described", problems=problems)

    def _add(
        self, function: Callable[..., Any], parameter: inspect.Parameter, hint: Any, described: Mapping[str, str]
    ) -> None:
        if parameter.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
            raise UsageError(
                f"{_title(function)}: parameter {parameter} has no name of its own",
                hint="a skill takes named arguments only; take a list or a dict instead",
            )
        name = json_name(parameter.name)
        shape = shape_of(hint, f"{_title(function)}({parameter.name})")
        schema = dict(shape.schema)
        if parameter.name in described and "description" not in schema:
            schema["description"] = described[parameter.name]
        if parameter.default is inspect.Parameter.empty:
            self.params["required"].append(name)
        else:
            if parameter.default is None and schema and "anyOf" not in schema:
                schema["nullable"] = True
            plain = _plain_default(parameter.default)
            if plain is not _NO_DEFAULT:
                schema["default"] = plain
        self.params["properties"][name] = schema
        self._shapes[name] = (parameter.name, shape)

    def load(self, args: Mapping[str, Any], local: Local) -> dict[str, Any]:
        """Keyword arguments for the function. `local` maps a file's URI or path to the `File` on this machine.

        Raises: UsageError when a value can't become what the function takes.
        """
        loaded: dict[str, Any] = {}
        for name, value in args.items():
            found = self._shapes.get(name)
            if found is None:
                raise UsageError(
                    f"there is no argument {name}", hint=f"it takes {', '.join(self._shapes) or 'nothing'}"
                )
            python_name, shape = found
            if shape.load is not None and value is not None:
                try:
                    value = shape.load(value, local)
                except (ValueError, TypeError) as error:
                    raise UsageError(f"argument {name}: {error}") from error
            loaded[python_name] = value
        return loaded

    def dump(self, value: Any, uri: Callable[[str], str]) -> Any:
        """The JSON value of what the function returned. `uri` names a path of this machine for the fleet."""
        return dump(value, self.result if self._result_files else {}, uri)


def dump(value: Any, schema: Mapping[str, Any], uri: Callable[[str], str]) -> Any:
    """Plain JSON values; a File keeps its URI, other paths at places declared a file get one from `uri`."""

    def known(text: str) -> str:
        return text if is_file_uri(text) else uri(text)

    def plain(part: Any) -> Any:
        if isinstance(part, File):
            return part.uri or known(str(part))
        if isinstance(part, str):
            return str.__str__(part)
        if isinstance(part, PurePath):
            return known(str(part))
        if hasattr(part, "model_dump"):
            return part.model_dump(by_alias=True)
        if hasattr(part, "tolist"):
            return part.tolist()  # arrays and scalars of the numeric libraries
        raise UsageError(
            f"a skill can't return {type(part).__name__}",
            hint="return JSON values, File, a dataclass, a pydantic model or a msgspec struct",
        )

    try:
        # Through JSON and back: what is checked is what will be sent, tuples and sets as lists, NaN as null.
        written = msgspec.json.encode(value, enc_hook=plain)
    except (UnicodeEncodeError, OverflowError, RecursionError) as error:
        raise UsageError(f"the result is no JSON: {error}", hint="return JSON values") from error
    value = msgspec.json.decode(written)
    return map_files(schema, value, known) if schema else value


def json_name(python_name: str) -> str:
    """`as_` -> `as`: only where Python itself forces the underscore."""
    bare = python_name.removesuffix("_")
    return bare if keyword.iskeyword(bare) or bare in ("type", "id", "filter", "format") else python_name


def _title(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))


def _is_context(hint: Any) -> bool:
    if isinstance(hint, str):
        return hint.split("|")[0].strip().endswith(CONTEXT)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return any(map(_is_context, typing.get_args(hint)))
    return isinstance(hint, type) and any(base.__name__ == CONTEXT for base in hint.__mro__)


def _entry(hint: Any, where: str) -> Any:
    """What a list holds: the signature of a batched skill is that of one element, in lists."""
    if typing.get_origin(hint) not in (list, collections.abc.Sequence):
        raise UsageError(f"{where}: a batched skill takes and returns lists", hint="list[...], one entry per element")
    return typing.get_args(hint)[0]


def _succeeded(hint: Any) -> Any:
    """An entry of the result without the exceptions it may be instead of a value."""
    if not (isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union):
        return hint
    kept = [one for one in typing.get_args(hint) if not (isinstance(one, type) and issubclass(one, Exception))]
    return typing.Union[tuple(kept)]  # noqa: UP007 - made at run time


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations, evaluated; a SkillContext imported only for type checkers stays text."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError:
        pass
    raw = dict(getattr(function, "__annotations__", {}))
    without = {name: text for name, text in raw.items() if not (isinstance(text, str) and _is_context(text))}
    probe = types.SimpleNamespace(__annotations__=without)
    names = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        known = typing.get_type_hints(probe, globalns=names, include_extras=True)
    except NameError as error:
        raise UsageError(
            f"{_title(function)}: annotation {error.name} is not known where the skill is defined",
            hint="import the type at module level, outside TYPE_CHECKING",
        ) from error
    return {**raw, **known}


_NO_DEFAULT: Final = object()


def _plain_default(value: Any) -> Any:
    """The default as JSON, or _NO_DEFAULT when it has no short one."""
    if isinstance(value, File):
        value = str(value)
    try:
        written = msgspec.json.encode(value)
        return msgspec.json.decode(written) if len(written) <= 1024 else _NO_DEFAULT
    except (TypeError, ValueError):
        return _NO_DEFAULT


def _read_doc(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """The first paragraph of the docstring as one line, and what its Args section says of each parameter."""
    text = textwrap.dedent(inspect.cleandoc(function.__doc__ or ""))
    head: list[str] = []
    described: dict[str, str] = {}
    section = ""
    last = ""
    for line in text.splitlines():
        if match := _SECTION.match(line):
            section = match[1]
        elif section in ("Args", "Arguments", "Parameters"):
            if argument := _ARGUMENT.match(line):
                last = argument[1]
                described[last] = argument[2].strip()
            elif last and line.strip():
                described[last] += " " + line.strip()
        elif not section and not (head and not line.strip()):
            head.append(line.strip())
        elif not section:
            section = "body"
    return " ".join(head).strip(), described
