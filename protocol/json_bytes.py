"""JSON that travels as bytes: checked once where it enters, then carried as it is.

What passes is one JSON value in UTF-8 that msgspec and Python's json both read, of bounded depth, and that can be
written out again. It must not know what the value means or how large it may be.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from .errors import WireError

DEPTH_LIMIT: Final = 128
"""How deep a JSON value may nest."""

_RAW: Final = msgspec.json.Decoder(msgspec.Raw)
_LARGE: Final = re.compile(rb"[eE][+]?[0-9]{3}|[0-9]{200}")
"""What a number must have to be out of range; skipping through doesn't tell."""
_FAULTS: Final = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)


def read_json(data: bytes | str, kind: Any = Any) -> Any:
    """`data` as a value of `kind`. Total: what is no such JSON, no UTF-8 or nested too deep is refused in one way.

    Raises: WireError.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except _FAULTS as error:
        raise WireError(str(error)) from None


def check_json(data: bytes) -> None:
    """That `data` is one JSON value in UTF-8, without lone surrogates, no deeper than DEPTH_LIMIT.

    Raises: WireError. The usual value is only skipped through; building it is left to values that could break a rule.
    """
    try:
        if not data.isascii():
            data.decode()
        if b"\\u" not in data and data.count(b"[") + data.count(b"{") <= DEPTH_LIMIT and not _LARGE.search(data):
            _RAW.decode(data)
            return
        level: list[Any] = [msgspec.json.decode(data)]
    except _FAULTS as error:
        raise WireError(f"a value is not JSON: {error}") from None
    for _ in range(DEPTH_LIMIT + 1):
        level = [node for node in level if isinstance(node, dict | list)]
        if not level:
            return
        level = [inner for node in level for inner in (node.values() if isinstance(node, dict) else node)]
    raise WireError(f"a value nests deeper than {DEPTH_LIMIT} levels", hint="flatten it, or put it in a file")
