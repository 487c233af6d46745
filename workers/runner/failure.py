"""What an exception of a skill means for its attempt."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path
from typing import Final

from protocol.errors import AsterismError, ServerUnreachable, Unavailable
from protocol.outcome import Failure, FailureClass

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_OF_A_CARD: Final = ("AcceleratorError", "CUDARuntimeError", "CUDADriverError")
"""What torch and cupy raise when a card does not answer, or answers nonsense; they are not here to be asked."""
_DETAIL: Final = 8 * 1024
_HERE: Final = str(Path(__file__).parent)


def failure_of(error: BaseException) -> Failure:
    """Exceptions are permanent, unless they say `transient = True` or are a timeout or a connection that failed.

    A full disk or a card that fails is this machine's, not the skill's: infra. An exception may also carry `klass`
    (infra, transient, permanent, policy). The traceback goes into `detail`, without the frames of the runner itself.
    """
    klass: FailureClass = "permanent"
    said = getattr(error, "klass", None)
    if said in ("infra", "transient", "permanent", "policy"):
        klass = said
    elif isinstance(error, ServerUnreachable | Unavailable):
        klass = "infra"  # this worker's link or lease, not the skill: another worker may do it
    elif isinstance(error, OSError) and error.errno in _FULL:
        klass = "infra"  # this machine's disk, not the skill
    elif type(error).__name__ in _OF_A_CARD or str(error).startswith("CUDA error"):
        klass = "infra"  # this machine's card: another may do it, and this one is seen to go wrong
    elif getattr(error, "transient", False) is True or isinstance(error, TimeoutError | ConnectionError):
        klass = "transient"
    code = error.code if isinstance(error, AsterismError) else type(error).__name__
    message = error.message if isinstance(error, AsterismError) else str(error)
    hint = error.hint if isinstance(error, AsterismError) else ""
    if isinstance(error, AsterismError) and error.problems:
        message = "\n".join([message, *(f"  - {problem}" for problem in error.problems)])
    return Failure(_sound(code), _sound(message[:_DETAIL]), klass, _sound(_story(error)), _sound(hint[:_DETAIL]))


def _sound(text: str) -> str:
    """Names of files may hold bytes that are no text; what travels is text."""
    return text.encode("utf-8", "replace").decode()


def _story(error: BaseException) -> str:
    if isinstance(error, AsterismError):
        return ""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_HERE)]
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames)] if frames else []
    return "".join([*lines, *traceback.format_exception_only(error)])[-_DETAIL:]
