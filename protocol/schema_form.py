"""Schemas written short, for skills that are described as data: `many(TEXT)`, `says(FILE, "the file")`."""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
INTEGER: Final[Schema] = {"type": "integer"}
NUMBER: Final[Schema] = {"type": "number"}
FLAG: Final[Schema] = {"type": "boolean"}
FILE: Final[Schema] = {"type": "file"}
LIST: Final[Schema] = {"type": "array"}
RECORD: Final[Schema] = {"type": "object"}
ANY: Final[Schema] = {}
TEXTS: Final[Schema] = {"type": "object", "additionalProperties": TEXT, "nullable": True}

_NONE: Final = object()


def many(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def either(*branches: Schema) -> Schema:
    return {"anyOf": list(branches)}


def says(schema: Schema, description: str, default: object = _NONE) -> Schema:
    made = {**schema, "description": description}
    if default is not _NONE:
        made["default"] = default
    return made


def record(optional: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    """An object of exactly these properties; those with a default, or named first, may be left out."""
    required = [name for name, schema in properties.items() if "default" not in schema and name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
