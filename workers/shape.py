"""The shape of one annotation: its JSON schema, and the loader from JSON to it (None where JSON already is it).

Invariant: what a shape's loader accepts is what its schema describes. Nesting is bounded by the depth that schemas
may have, so a recursive type is refused with a sentence instead of a stack overflow.
Must not know: functions, parameters, skills.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Any, Final

import msgspec

from protocol.errors import UsageError
from protocol.schema import MAX_SCHEMA_DEPTH, check

from .file import File

Local = Callable[[str], File]
"""Maps the text of a file argument (URI or path) to the file on this machine."""
Loader = Callable[[Any, Local], Any]

_LISTS: Final = (
    list,
    collections.abc.Sequence,
    collections.abc.Iterable,
    collections.abc.Collection,
    collections.abc.MutableSequence,
)
_DICTS: Final = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_REFUSED: Final = {bytes: "a str or a File", PurePath: "File", complex: "two floats"}


class Shape(typing.NamedTuple):
    schema: dict[str, Any]
    load: Loader | None = None


_SCALARS: Final[dict[Any, Shape]] = {
    Any: Shape({}),
    object: Shape({}),
    str: Shape({"type": "string"}),
    int: Shape({"type": "integer"}, lambda value, local: int(value)),
    float: Shape({"type": "number"}, lambda value, local: float(value)),
    bool: Shape({"type": "boolean"}),
    type(None): Shape({"type": "null"}),
    None: Shape({"type": "null"}),
    File: Shape({"type": "file"}, lambda value, local: local(value)),
    list: Shape({"type": "array"}),
    dict: Shape({"type": "object"}),
    tuple: Shape({"type": "array"}, lambda value, local: tuple(value)),
}


def shape_of(hint: Any, where: str, depth: int = 1) -> Shape:
    """The shape of an annotation. Raises: UsageError for what JSON can't carry, naming `where` and the fix."""
    if depth > MAX_SCHEMA_DEPTH:
        raise UsageError(f"{where}: the type nests deeper than {MAX_SCHEMA_DEPTH}, or in itself", hint="use dict there")
    try:
        scalar = _SCALARS.get(hint)
    except TypeError:
        scalar = None
    if scalar is not None:
        return scalar
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _annotated(shape_of(inner[0], where, depth), inner[1:])
    if origin in (typing.Required, typing.NotRequired):
        return shape_of(inner[0], where, depth)
    if origin is typing.Literal:
        return Shape(_enumerated(list(inner)))
    if origin is typing.Union or isinstance(hint, types.UnionType):
        return _union(inner or typing.get_args(hint), where, depth)
    if origin in _LISTS:
        return _list(shape_of(inner[0], where, depth + 1), list)
    if origin in (set, frozenset):
        return _list(shape_of(inner[0], where, depth + 1), origin)
    if origin is tuple:
        if len(inner) == 2 and inner[1] is Ellipsis:
            return _list(shape_of(inner[0], where, depth + 1), tuple)
        raise UsageError(f"{where}: a tuple of fixed length has no schema", hint="use a dataclass, or list[...]")
    if origin in _DICTS:
        if inner[0] is not str:
            raise UsageError(f"{where}: JSON objects have text keys", hint="use dict[str, ...]")
        return _dict(shape_of(inner[1], where, depth + 1))
    if typing.is_typeddict(hint):
        return _typed_dict(hint, where, depth)
    if isinstance(hint, type):
        return _class(hint, where, depth)
    if hasattr(hint, "__supertype__"):
        return shape_of(hint.__supertype__, where, depth)
    raise UsageError(f"{where}: {hint!r} has no schema", hint="use JSON types, File, Literal, a dataclass or a model")


def _annotated(shape: Shape, metadata: tuple[Any, ...]) -> Shape:
    """Adds docs and bounds: plain strings, and whatever carries ge, le, max_length or description."""
    schema = dict(shape.schema)
    for note in metadata:
        for part in (note, *getattr(note, "metadata", ())):
            description = part if isinstance(part, str) else getattr(part, "description", None)
            if isinstance(description, str):
                schema["description"] = description
            for attribute, keyword in (("ge", "minimum"), ("le", "maximum")):
                bound = getattr(part, attribute, None)
                if isinstance(bound, int | float) and not isinstance(bound, bool):
                    schema[keyword] = bound
            longest = getattr(part, "max_length", None)
            if isinstance(longest, int):
                schema["maxItems" if schema.get("type") == "array" else "maxLength"] = longest
    return Shape(schema, shape.load)


def _enumerated(values: list[Any]) -> dict[str, Any]:
    kinds = {type(value) for value in values}
    if len(kinds) == 1 and (only := kinds.pop()) in (str, int, bool, float):
        return {"type": _SCALARS[only].schema["type"], "enum": values}
    return {"enum": values}


def _union(members: Iterable[Any], where: str, depth: int) -> Shape:
    present = [member for member in members if member is not type(None)]
    optional = len(present) < len(tuple(members))
    if len(present) == 1:
        only = shape_of(present[0], where, depth)
        return Shape({**only.schema, "nullable": True}, only.load) if optional and only.schema else only
    shapes = [shape_of(member, where, depth + 1) for member in present]
    # A file is told from text by its URI (protocol/schema.py), so it is tried first.
    shapes.sort(key=lambda shape: shape.schema.get("type") != "file")
    schema: dict[str, Any] = {"anyOf": [shape.schema for shape in shapes]}
    if optional:
        schema["nullable"] = True
    if all(shape.load is None for shape in shapes):
        return Shape(schema)

    def load(value: Any, local: Local) -> Any:
        for shape in shapes:
            if shape.schema.get("type") == "file":
                if isinstance(value, str) and value.startswith(("file://", "sha256:")):
                    return local(value)
            elif not check(shape.schema, value):
                return shape.load(value, local) if shape.load is not None else value
        return value

    return Shape(schema, load)


def _list(item: Shape, make: Callable[[Iterable[Any]], Any]) -> Shape:
    schema = {"type": "array", "items": item.schema} if item.schema else {"type": "array"}
    one = item.load
    if one is None:
        return Shape(schema, None if make is list else lambda value, local: make(value))
    return Shape(schema, lambda value, local: make(one(part, local) for part in value))


def _dict(item: Shape) -> Shape:
    schema: dict[str, Any] = {"type": "object"}
    if item.schema:
        schema["additionalProperties"] = item.schema
    one = item.load
    if one is None:
        return Shape(schema)
    return Shape(schema, lambda value, local: {key: one(part, local) for key, part in value.items()})


class _Field(typing.NamedTuple):
    name: str
    shape: Shape
    required: bool
    default: Any = msgspec.NODEFAULT
    attribute: str = ""


def _object(fields: Iterable[_Field], make: Callable[[dict[str, Any]], Any] | None, extra: bool = False) -> Shape:
    properties: dict[str, Any] = {}
    required: list[str] = []
    loaders: dict[str, Loader] = {}
    names: dict[str, str] = {}
    for field in fields:
        schema = dict(field.shape.schema)
        if field.default is not msgspec.NODEFAULT:
            try:
                schema["default"] = msgspec.to_builtins(field.default, str_keys=True)
            except TypeError:
                pass  # a default that is no JSON value still is one: it is only not shown
        properties[field.name] = schema
        names[field.name] = field.attribute or field.name
        if field.required:
            required.append(field.name)
        if field.shape.load is not None:
            loaders[field.name] = field.shape.load
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": extra}
    if make is None and not loaders:
        return Shape(schema)

    def load(value: Any, local: Local) -> Any:
        parts = {
            names.get(name, name): loaders[name](part, local) if name in loaders and part is not None else part
            for name, part in value.items()
        }
        return make(parts) if make is not None else parts

    return Shape(schema, load)


def _typed_dict(hint: Any, where: str, depth: int) -> Shape:
    required: frozenset[str] = hint.__required_keys__
    fields = []
    for name, member in typing.get_type_hints(hint, include_extras=True).items():
        needed = name in required and typing.get_origin(member) is not typing.NotRequired
        fields.append(_Field(name, shape_of(member, f"{where}.{name}", depth + 1), needed))
    return _object(fields, None)


def _class(hint: type, where: str, depth: int) -> Shape:
    if issubclass(hint, enum.Enum):
        return Shape(_enumerated([member.value for member in hint]), lambda value, local: hint(value))
    if issubclass(hint, msgspec.Struct):
        hints = typing.get_type_hints(hint, include_extras=True)
        return _object(
            [
                _Field(
                    field.encode_name,
                    shape_of(hints[field.name], f"{where}.{field.name}", depth + 1),
                    field.required,
                    field.default,
                    field.name,
                )
                for field in msgspec.structs.fields(hint)
            ],
            lambda parts: hint(**parts),
        )
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint, include_extras=True)
        return _object(
            [
                _Field(
                    field.name,
                    shape_of(hints[field.name], f"{where}.{field.name}", depth + 1),
                    field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
                    msgspec.NODEFAULT if field.default is dataclasses.MISSING else field.default,
                )
                for field in dataclasses.fields(hint)
                if field.init
            ],
            lambda parts: hint(**parts),
        )
    if hasattr(hint, "model_fields") and hasattr(hint, "model_validate"):
        return _model(hint, where, depth)
    for refused, instead in _REFUSED.items():
        if issubclass(hint, refused):
            raise UsageError(f"{where}: {hint.__name__} is no JSON type", hint=f"use {instead}")
    raise UsageError(
        f"{where}: {hint.__name__} has no schema", hint="use JSON types, File, Literal, a dataclass or a pydantic model"
    )


def _model(hint: Any, where: str, depth: int) -> Shape:
    """A pydantic model, read from its fields: its own JSON schema uses $ref, which skills may not."""
    from pydantic_core import PydanticUndefined

    fields: list[_Field] = []
    described: Mapping[str, Any] = hint.model_fields
    for name, field in described.items():
        shape = _annotated(shape_of(field.annotation, f"{where}.{name}", depth + 1), (field,))
        default = msgspec.NODEFAULT if field.default is PydanticUndefined else field.default
        fields.append(_Field(field.alias or name, shape, field.is_required(), default))

    def make(parts: dict[str, Any]) -> Any:
        return hint.model_validate(parts)  # a ValidationError is a ValueError: it becomes a UsageError with its text

    return _object(fields, make, extra=hint.model_config.get("extra") == "allow")
