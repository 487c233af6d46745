"""Files of other machines that an attempt's arguments name: found among its values, so that they can be brought here.

A file list may stand inside an artifact that only the worker reads, so the worker asks for what it needs (docs/adr
0001). Invariant: a file of this machine is never asked for. It moves nothing itself.
"""

from __future__ import annotations

from protocol.artifact import parse_file
from protocol.errors import AsterismError
from protocol.frame import Assign, WorkSpec
from protocol.schema import files_in, has_files
from protocol.skill import SkillSpec

from .argument import Locate, calls


def may_be_foreign(assign: Assign, work: WorkSpec, skill: SkillSpec) -> bool:
    """Whether looking closer is worth it: the skill takes files, and some value may name one."""
    if not has_files(skill.params):
        return False
    return bool(assign.inputs or assign.items) or b"file://" in bytes(work.args)


def foreign(assign: Assign, work: WorkSpec, skill: SkillSpec, worker: str, locate: Locate) -> list[str]:
    """The `file://` URIs of other machines in the arguments' file places, each once, without those already staged.

    Arguments that can't be made yield none: the runner reports what is wrong with them.
    """
    try:
        written = calls(assign, work, skill, locate)
    except (AsterismError, ValueError):
        return []
    staged = {one.uri for one in assign.files}
    found: dict[str, None] = {}
    for args in written:
        for text in files_in(skill.params, args):
            uri = parse_file(text)
            if uri is not None and uri.worker != worker and text not in staged:
                found[text] = None
    return list(found)
