"""Values and where they live: inline bytes, or a content-addressed artifact; files as URIs.

A value is JSON. Up to INLINE_LIMIT bytes it travels inline; larger ones are artifacts named by digest. A file is a
URI string: `file://WORKER/absolute/path` stays where it is and moves when needed, `sha256:HEX` names content.
"""

from __future__ import annotations

import hashlib
from typing import Final
from urllib.parse import quote, unquote

import msgspec

INLINE_LIMIT: Final = 64 * 1024
CHUNK_BYTES: Final = 512 * 1024
SMALL_BYTES: Final = 256 * 1024
"""Contents up to this size may travel several a message."""


class ArtifactRef(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Content by digest (`sha256:` + 64 hex). `media` is a MIME type, `size` in bytes."""

    digest: str
    media: str
    size: int


class Content(msgspec.Struct, frozen=True, gc=False):
    """A small content on its way, whole: `data` is what its digest says only once somebody has checked."""

    digest: str
    media: str
    data: bytes


Value = bytes | ArtifactRef
"""An inline value is `bytes` of JSON, at most INLINE_LIMIT; an ArtifactRef stands for anything larger."""

NULL: Final = b"null"


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def is_digest(text: str) -> bool:
    return len(text) == 71 and text.startswith("sha256:") and not text[7:].strip("0123456789abcdef")


class FileUri(msgspec.Struct, frozen=True):
    """`file://worker/path`, split. `path` is absolute on that worker; what is no UTF-8 in it is as `os.fsdecode`."""

    worker: str
    path: str

    def __str__(self) -> str:
        return f"file://{quote(self.worker)}{quote(self.path, errors='surrogateescape')}"


def parse_file(text: str) -> FileUri | None:
    """Read a `file://` URI; None when the text is none (a digest, say)."""
    if not text.startswith("file://"):
        return None
    worker, slash, path = text[7:].partition("/")
    if not worker or not slash:
        return None
    return FileUri(worker=unquote(worker), path=unquote("/" + path, errors="surrogateescape"))
