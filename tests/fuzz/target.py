"""What is fuzzed: every decoder of bytes that another process, another machine or a person's file can bring.

A target decodes, and says which errors are its documented refusals; any other exception is a defect, as are a hang and
a loss of memory. Where `encode` is given, what was decoded comes back from its encoding as the same value.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from protocol.errors import AsterismError

from .mutation import mutate

CORPUS: Final = Path(__file__).parent / "corpus"


class Target(msgspec.Struct, frozen=True):
    """See the module. `share`: how many executions it gets where a cheap one gets a hundred."""

    name: str
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes] | None = None
    errors: tuple[type[BaseException], ...] = (AsterismError,)
    share: int = 100
    mutate: Callable[[Random, Sequence[bytes]], bytes] = mutate

    def seeds(self) -> list[bytes]:
        """The corpus, in order of the names of its files."""
        return [path.read_bytes() for path in sorted((CORPUS / self.name).iterdir())]


class Broken(AssertionError):
    """A property of a target does not hold. `kind` is the same for defects that are likely to be one."""

    def __init__(self, target: Target, what: str, data: bytes, error: BaseException | None = None) -> None:
        frames = (
            [one for one in traceback.extract_tb(error.__traceback__) if "/site-packages/" not in one.filename]
            if error
            else []
        )
        place = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        self.kind = f"{what}: {type(error).__name__}{place}" if error is not None else what
        told = f"{self.kind}: {error!s:.200}" if error is not None else what
        super().__init__(f"{target.name}: {told}\n    {data[:160]!r}{'...' if len(data) > 160 else ''}")


def prove(target: Target, data: bytes) -> bool:
    """Whether the bytes were decoded (else refused). Raises: Broken."""
    try:
        value = target.decode(data)
    except target.errors:
        return False
    except Exception as error:
        raise Broken(target, "decoding raised", data, error) from error
    if target.encode is None:
        return True
    try:
        again = target.decode(target.encode(value))
    except Exception as error:
        raise Broken(target, "what was decoded can't be written and read again", data, error) from error
    if again != value:
        raise Broken(target, f"read again it is another value\n    {value!r:.400}\n    {again!r:.400}", data)
    return True
