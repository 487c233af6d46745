"""A file as skill code sees it: a path on this machine that remembers where it came from.

Inside a skill the text of a `File` is a local path, ready for `open`; `uri` is how the rest of the fleet names it
(`file://pi-1/photos/a.jpg`, `sha256:...`), empty for a file the skill has just made. Being a `str`, it passes through
code that knows nothing of it. Must not know: transfers, artifacts, the link.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from protocol.artifact import parse_file

from .descent import open_plain

if TYPE_CHECKING:
    from pydantic_core import CoreSchema


class File(str):
    """A local file. Return one (or its path, in a field declared `File`) and the fleet can read it by its URI."""

    __slots__ = ("uri",)

    uri: str

    def __new__(cls, path: object, uri: str = "") -> File:
        made = super().__new__(cls, path)
        made.uri = uri
        return made

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        return (str(self), self.uri)

    @property
    def path(self) -> Path:
        return Path(str(self))

    @property
    def name(self) -> str:
        """The file's own name: of its URI where that has one, since a cached copy is named by digest."""
        origin = parse_file(self.uri) if self.uri else None
        return Path(origin.path if origin is not None else str(self)).name

    def open(self, mode: str = "r", encoding: str | None = None, errors: str | None = None) -> IO[Any]:
        """Open it; text is UTF-8 unless told otherwise.

        One that was handed to the skill is read without following links: its path was checked, and holds none.
        """
        binary = "b" in mode
        if self.uri and mode.replace("t", "") in ("r", "rb"):
            raw = open_plain(str(self))
            return raw if binary else io.TextIOWrapper(raw, encoding or "utf-8", errors)
        return open(str(self), mode, encoding=encoding or (None if binary else "utf-8"), errors=errors)

    def read_text(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        with self.open("r", encoding, errors) as file:
            return str(file.read())

    def read_bytes(self) -> bytes:
        with self.open("rb") as file:
            return bytes(file.read())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> CoreSchema:
        """So that pydantic models may have File fields: any string is taken, a File stays the File it is."""
        from pydantic_core import core_schema

        def keep(value: object) -> File:
            if not isinstance(value, str):
                raise ValueError("a file is named by text")
            return value if isinstance(value, File) else cls(value)

        return core_schema.no_info_plain_validator_function(keep)
