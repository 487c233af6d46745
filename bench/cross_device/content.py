"""What lies in a file or folder, read for a check: text, rows of a table, names and sums of an archive.

Invariant: total; what can't be read in the form that was asked for is a `Misread`, whatever the bytes. It must not know
what is expected, nor use any skill: those are what is judged.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

Content = bytes | dict[str, bytes]
"""Of a file, or of every file of a folder by its name below it."""


class Misread(Exception):
    """Why it can't be read in that form."""


def content_of(path: Path) -> Content | None:
    """None if nothing is there."""
    if path.is_dir():
        return {str(one.relative_to(path)): one.read_bytes() for one in sorted(path.rglob("*")) if one.is_file()}
    return path.read_bytes() if path.exists() else None


def read_content(content: Content, form: str, query: str = "") -> Any:
    """Raises: Misread."""
    if isinstance(content, dict) and form != "archive":
        raise Misread(f"it is a folder, not {form}")
    try:
        if form == "archive":
            return {name: digest(data) for name, data in _members(content).items()}
        assert isinstance(content, bytes)
        return _READ[form](content) if form != "sqlite" else _rows(content, query)
    except (ValueError, csv.Error, sqlite3.Error, tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error,
            RecursionError) as error:  # fmt: skip
        raise Misread(f"it is not {form}: {error}") from error


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def cell(text: str) -> int | float | str:
    """A number where the text is just how that number is written: a table of text has no other types."""
    for kind in (int, float):
        try:
            if str(kind(text)) == text:
                return kind(text)
        except ValueError:
            pass
    return text


def _table(data: bytes) -> list[dict[str, Any]]:
    table = csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True)
    return [{key: cell(value) for key, value in row.items()} for row in table]


def _rows(data: bytes, query: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(":memory:")) as base:
        base.deserialize(data)
        base.execute("PRAGMA schema_version")  # reads what was given, which no query may need to
        base.row_factory = sqlite3.Row
        return [dict(row) for row in base.execute(query)]


def _members(content: Content) -> Mapping[str, bytes]:
    if isinstance(content, dict):
        return content
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as pack:
            return {one.filename: pack.read(one) for one in pack.infolist() if not one.is_dir()}
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None:
                found[member.name] = file.read()
    return found


_READ: Final[Mapping[str, Callable[[bytes], Any]]] = {
    "bytes": lambda data: data,
    "text": lambda data: data.decode(),
    "lines": lambda data: data.decode().splitlines(),
    "json": json.loads,
    "csv": _table,
}
