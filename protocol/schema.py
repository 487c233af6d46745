"""Checks values against the closed JSON Schema subset that skills announce, and finds the files inside them.

The subset (wire.md section 4): type, properties, required, additionalProperties, items, enum, const, anyOf, nullable,
default, description, minimum, maximum, maxItems, maxLength. Types are JSON's and the scalar `file` (a string: a URI
or a path). Invariant: no input, however deep or wide, overflows the stack or raises; every problem found is a value.
Must not know: skills, tasks, where files live.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from .errors import Problem

MAX_SCHEMA_BYTES: Final = 64 * 1024
MAX_SCHEMA_DEPTH: Final = 8
MAX_PROBLEMS: Final = 100
_MAX_UNION_DEPTH: Final = 16

TYPES: Final = frozenset(("object", "array", "string", "integer", "number", "boolean", "null", "file"))
_SHAPE: Final = ("type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf")
_DETAIL: Final = ("nullable", "default", "description", "minimum", "maximum", "maxItems", "maxLength")
KEYWORDS: Final = frozenset((*_SHAPE, *_DETAIL))

_RECORD: Final = {"type", "properties", "required", "additionalProperties", "description"}
_BARE: Final = {"type", "description"}
_EXACT: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,),
    "object": (dict,), "null": (type(None),),
}  # fmt: skip
"""Types of JSON values that are of such a type without a further look."""
_REMEMBERED: Final = 1024

Schema = Mapping[str, Any]
_PLAIN: Final[dict[int, tuple[Schema, dict[str, tuple[type, ...] | None] | None]]] = {}


def is_file_uri(text: str) -> bool:
    """Whether the text names a file by URI, so that it can't be mistaken for ordinary text."""
    return text.startswith(("file://", "sha256:"))


def check(schema: Schema, value: object, where: str = "", *, refs: bool = False) -> list[Problem]:
    """Every way in which `value` doesn't fit `schema`, at most MAX_PROBLEMS; empty when it fits.

    `refs`: arguments as written in a plan, where a reference `{"ref": ...}` or `{"secret": ...}` fits anything (its
    value is not known yet) and `{"literal": x}` is checked as x.
    """
    return [] if _plainly_fits(schema, value, refs) else _check(schema, value, where, refs, 0)


def _plainly_fits(schema: Schema, value: object, refs: bool) -> bool:
    """Whether it is the usual object: all that is required and nothing else, with values that their types alone tell to
    be right. Whatever this doesn't know is left to the full check."""
    found = _PLAIN.get(id(schema))
    if found is None or found[0] is not schema:
        if len(_PLAIN) >= _REMEMBERED:
            _PLAIN.clear()
        found = _PLAIN[id(schema)] = schema, _plain(schema)
    kinds = found[1]
    if kinds is None or type(value) is not dict or value.keys() != kinds.keys():
        return False
    for name, allowed in kinds.items():
        if allowed is not None:
            kind = type(value[name])
            if kind not in allowed or (refs and kind is dict):
                return False
    return True


def _plain(schema: Schema) -> dict[str, tuple[type, ...] | None] | None:
    """The types of each property of such an object (None: any); None for a schema that says more."""
    properties = schema.get("properties", {})
    if (
        not schema.keys() <= _RECORD
        or schema.get("type") != "object"
        or set(schema.get("required", ())) != set(properties)
    ):
        return None
    kinds: dict[str, tuple[type, ...] | None] = {}
    for name, one in properties.items():
        if not one.keys() <= _BARE or one.get("type", "null") not in _EXACT:
            return None
        kinds[name] = _EXACT[one["type"]] if "type" in one else None
    return kinds


def _check(root: Schema, value: object, where: str, refs: bool, depth: int) -> list[Problem]:
    problems: list[Problem] = []
    stack: list[tuple[Any, object, str]] = [(root, value, where)]
    while stack and len(problems) < MAX_PROBLEMS:
        schema, node, at = stack.pop()
        if not schema:
            continue
        if refs and isinstance(node, dict) and len(node) == 1:
            if "ref" in node or "secret" in node:
                continue
            if "literal" in node:
                node = node["literal"]
        if node is None and schema.get("nullable"):
            continue
        kind = schema.get("type")
        if kind is not None and not _is(kind, node):
            problems.append(
                Problem("SchemaType", at, f"expected {kind}, got {_name(node)}", _hint(kind, node, schema, refs))
            )
            continue
        if "anyOf" in schema:
            found = _check_union(schema["anyOf"], node, at, refs, depth)
            if found is not None:
                problems.append(found)
                continue
        if "enum" in schema and not any(_same(node, one) for one in schema["enum"]):
            allowed = ", ".join(map(_brief, schema["enum"][:20]))
            problems.append(Problem("SchemaEnum", at, f"{_brief(node)} is not allowed", f"one of {allowed}"))
        if "const" in schema and not _same(node, schema["const"]):
            problems.append(Problem("SchemaEnum", at, f"{_brief(node)} is not allowed", _brief(schema["const"])))
        if isinstance(node, dict):
            _check_object(schema, node, at, stack, problems)
        elif isinstance(node, list):
            if len(node) > schema.get("maxItems", len(node)):
                problems.append(Problem("SchemaLength", at, f"{len(node)} items, at most {schema['maxItems']}"))
            items = schema.get("items")
            if items:
                stack.extend((items, node[i], f"{at}/{i}") for i in range(len(node) - 1, -1, -1))
        elif isinstance(node, str):
            if len(node) > schema.get("maxLength", len(node)):
                problems.append(Problem("SchemaLength", at, f"{len(node)} characters, at most {schema['maxLength']}"))
        elif isinstance(node, int | float) and not isinstance(node, bool):
            if "minimum" in schema and node < schema["minimum"]:
                problems.append(Problem("SchemaRange", at, f"{node} is below {schema['minimum']}"))
            if "maximum" in schema and node > schema["maximum"]:
                problems.append(Problem("SchemaRange", at, f"{node} is above {schema['maximum']}"))
    return problems[:MAX_PROBLEMS]


def _check_object(
    schema: Schema, node: dict[str, Any], at: str, stack: list[tuple[Any, object, str]], problems: list[Problem]
) -> None:
    properties: Mapping[str, Any] = schema.get("properties", {})
    extra = schema.get("additionalProperties", True)
    for name in schema.get("required", ()):
        if name not in node:
            problems.append(Problem("SchemaRequired", f"{at}/{name}", "is required", f"give {name}"))
    for name in reversed(node):
        known = properties.get(name)
        if known is not None:
            stack.append((known, node[name], f"{at}/{name}"))
        elif extra is False:
            names = ", ".join(properties) or "nothing"
            problems.append(Problem("SchemaUnknown", f"{at}/{name}", "is not known", f"known here: {names}"))
        elif isinstance(extra, Mapping):
            stack.append((extra, node[name], f"{at}/{name}"))


def _check_union(branches: list[Any], node: object, at: str, refs: bool, depth: int) -> Problem | None:
    if depth >= _MAX_UNION_DEPTH:
        return Problem("SchemaDepth", at, "the schema nests too many alternatives", "flatten its anyOf")
    closest: list[Problem] = []
    for branch in branches:
        found = _check(branch, node, at, refs, depth + 1)
        if not found:
            return None
        # The branch that fails deepest is the one the author meant.
        if not closest or len(found[0].where) > len(closest[0].where):
            closest = found
    kinds = " or ".join(dict.fromkeys(str(branch.get("type", "any")) for branch in branches))
    if closest and (closest[0].where != at or closest[0].code == "SchemaDepth"):
        return closest[0]
    return Problem("SchemaType", at, f"expected {kinds}, got {_name(node)}")


def _is(kind: object, node: object) -> bool:
    match kind:
        case "string":
            return isinstance(node, str)
        case "file":
            return isinstance(node, str) and bool(node) and "\0" not in node
        case "integer":
            if isinstance(node, float):
                return node.is_integer()
            return isinstance(node, int) and not isinstance(node, bool)
        case "number":
            if isinstance(node, float):
                return node - node == 0.0  # neither infinite nor NaN: JSON has no such number
            return isinstance(node, int) and not isinstance(node, bool)
        case "object":
            return isinstance(node, dict)
        case "array":
            return isinstance(node, list)
        case "boolean":
            return isinstance(node, bool)
        case "null":
            return node is None
    return False


def _same(left: object, right: object) -> bool:
    """JSON equality: 1 equals 1.0, but true is not 1."""
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def _name(node: object) -> str:
    match node:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string" if node else "an empty string"
        case dict():
            return "object"
        case list():
            return "array"
    return type(node).__name__


def _brief(node: object) -> str:
    """A short JSON text of any value; never the whole of a large one."""
    if isinstance(node, dict | list):
        return f"{_name(node)} of {len(node)}"
    text = f'"{node[:60]}"' if isinstance(node, str) else str(node)
    return {"True": "true", "False": "false", "None": "null"}.get(text, text[:64])


def _hint(kind: object, node: object, schema: Schema, refs: bool) -> str:
    if refs and isinstance(node, dict) and "ref" in node:
        return 'a reference is {"ref": "task/path"} and nothing beside it'
    if kind == "array" and not isinstance(node, dict):
        return "wrap it in a list"
    if kind in ("integer", "number") and isinstance(node, str):
        return "write the number without quotes"
    if node is None:
        return "leave it out"
    return str(schema.get("description", ""))[:120]


# Schemas as announced


def check_schema(schema: object, where: str = "") -> list[Problem]:
    """Every reason why an announced schema is refused: size, depth, unknown keywords, malformed values."""
    try:
        size = len(msgspec.json.encode(schema))
    except (TypeError, ValueError, RecursionError, OverflowError):
        return [Problem("SchemaInvalid", where, "is not JSON", "use plain JSON values only")]
    if size > MAX_SCHEMA_BYTES:
        return [Problem("SchemaTooLarge", where, f"{size} bytes, at most {MAX_SCHEMA_BYTES}", "describe less")]
    problems: list[Problem] = []
    stack: list[tuple[object, str, int]] = [(schema, where, 1)]
    while stack and len(problems) < MAX_PROBLEMS:
        node, at, depth = stack.pop()
        if not isinstance(node, Mapping):
            problems.append(Problem("SchemaInvalid", at, f"a schema is an object, got {_name(node)}"))
            continue
        if depth > MAX_SCHEMA_DEPTH:
            problems.append(Problem("SchemaDepth", at, f"nested deeper than {MAX_SCHEMA_DEPTH}", "flatten it"))
            continue
        for keyword, given in node.items():
            if keyword not in KEYWORDS:
                allowed = ", ".join(sorted(KEYWORDS))
                problems.append(Problem("SchemaKeyword", f"{at}/{keyword}", "is not supported", f"use only {allowed}"))
            elif not _well_formed(keyword, given):
                problems.append(Problem("SchemaInvalid", f"{at}/{keyword}", f"{_brief(given)} is not valid here"))
        properties = node.get("properties")
        required = node.get("required")
        if isinstance(required, list) and isinstance(properties, Mapping):
            for name in required:
                if not isinstance(name, str) or name not in properties:
                    problems.append(Problem("SchemaInvalid", f"{at}/required", f"{_brief(name)} is not a property"))
        stack.extend((child, f"{at}/{path}", depth + 1) for path, child in _children(node))
    return problems[:MAX_PROBLEMS]


def _children(node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    properties = node.get("properties")
    if isinstance(properties, Mapping):
        for name, child in properties.items():
            yield f"properties/{name}", child
    if isinstance(node.get("additionalProperties"), Mapping):
        yield "additionalProperties", node["additionalProperties"]
    if "items" in node:
        yield "items", node["items"]
    branches = node.get("anyOf")
    if isinstance(branches, list):
        for index, child in enumerate(branches):
            yield f"anyOf/{index}", child


def _well_formed(keyword: str, given: object) -> bool:
    match keyword:
        case "type":
            return isinstance(given, str) and given in TYPES
        case "properties":
            return isinstance(given, Mapping) and all(isinstance(name, str) for name in given)
        case "required":
            return isinstance(given, list) and all(isinstance(name, str) for name in given)
        case "additionalProperties":
            return isinstance(given, bool | Mapping)
        case "enum" | "anyOf":
            return isinstance(given, list) and bool(given)
        case "nullable":
            return isinstance(given, bool)
        case "description":
            return isinstance(given, str)
        case "minimum" | "maximum":
            return isinstance(given, int | float) and not isinstance(given, bool)
        case "maxItems" | "maxLength":
            return isinstance(given, int) and not isinstance(given, bool) and given >= 0
    return True  # items is checked as a schema of its own; default and const are any JSON


# Files inside values


def has_files(schema: Schema) -> bool:
    """Whether any place of the schema is declared a file."""
    stack: list[Any] = [schema]
    while stack:
        node = stack.pop()
        if isinstance(node, Mapping):
            if node.get("type") == "file":
                return True
            stack.extend(child for _, child in _children(node))
    return False


def files_in(schema: Schema, value: object) -> list[str]:
    """The texts at the places declared a file, in document order. References inside are passed over."""
    found: list[str] = []

    def note(text: str) -> str:
        found.append(text)
        return text

    map_files(schema, value, note)
    return found


def map_files(schema: Schema, value: Any, change: Callable[[str], Any]) -> Any:
    """The value with the text at each place declared a file replaced by `change(text)`; the rest is shared, not copied.

    In an `anyOf`, a string is a file only if it is a file URI: plain text beside a file stays text. Places that
    don't fit the schema are left alone.
    """
    if not schema:
        return value
    branches = schema.get("anyOf")
    if branches is not None:
        for branch in branches:
            if branch.get("type") == "file":
                if isinstance(value, str) and is_file_uri(value):
                    return change(value)
            elif has_files(branch) and not check(branch, value):
                return map_files(branch, value, change)
        return value
    kind = schema.get("type")
    if kind == "file":
        return change(value) if isinstance(value, str) and value else value
    if isinstance(value, list):
        items = schema.get("items")
        return [map_files(items, one, change) for one in value] if items and has_files(items) else value
    if isinstance(value, dict) and has_files(schema):
        properties = schema.get("properties", {})
        extra = schema.get("additionalProperties")
        other = extra if isinstance(extra, Mapping) else {}
        return {name: map_files(properties.get(name, other), one, change) for name, one in value.items()}
    return value
