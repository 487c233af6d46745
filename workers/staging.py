"""Files of other machines that an attempt's arguments name: found among its values, so that they can be brought here.

A file list may stand inside an artifact that only the worker reads, so the worker asks for what it needs (docs/adr
0001). Invariant: a file of this machine is never asked for. It moves nothing itself.
"""

from __future__ import annotations

import contextlib
import os

from protocol.artifact import parse_file
from protocol.errors import AsterismError
from protocol.frame import Assign, WorkSpec
from protocol.schema import files_in, has_files
from protocol.skill import SkillSpec

from .argument import Locate, calls
from .root import Roots


def may_be_foreign(assign: Assign, work: WorkSpec, skill: SkillSpec) -> bool:
    """Whether looking closer is worth it: the skill takes files, and some value may name one."""
    if not has_files(skill.params):
        return False
    return bool(assign.inputs or assign.items) or b"file://" in bytes(work.args)


def foreign(assign: Assign, work: WorkSpec, skill: SkillSpec, worker: str, locate: Locate) -> list[str]:
    """The `file://` URIs of other machines in the arguments' file places, each once, without those already staged.

    Arguments that can't be made yield none: the runner reports what is wrong with them.
    """
    staged = {one.uri for one in assign.files}
    found = []
    for text in _named(assign, work, skill, locate):
        uri = parse_file(text)
        if uri is not None and uri.worker != worker and text not in staged:
            found.append(text)
    return found


def own(assign: Assign, work: WorkSpec, skill: SkillSpec, roots: Roots, locate: Locate) -> list[str]:
    """The real paths of this machine's own files in the arguments' file places, as far as the roots allow them."""
    staged = {one.uri for one in assign.files}
    found = []
    for text in _named(assign, work, skill, locate):
        uri = parse_file(text)
        mine = uri.path if uri is not None and uri.worker == roots.worker else text
        if text not in staged and (uri is None or uri.worker == roots.worker) and not text.startswith("sha256:"):
            with contextlib.suppress(AsterismError):  # the host says what is wrong with it
                real = roots.allow(mine)
                if os.path.isfile(real):
                    found.append(real)
    return found


def _named(assign: Assign, work: WorkSpec, skill: SkillSpec, locate: Locate) -> list[str]:
    """What stands in the file places of the arguments, each text once."""
    try:
        written = calls(assign, work, skill, locate)
    except (AsterismError, ValueError):
        return []
    return list(dict.fromkeys(text for args in written for text in files_in(skill.params, args)))
