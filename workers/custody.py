"""What a worker's skills are kept with: the levels that hold them, the secrets they may have, what is never let out.

The access to its model is one of these: it reaches the one host that runs nobody's code but ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from protocol.builtin_model import MODEL_SKILLS
from protocol.errors import AsterismError
from protocol.setting import Settings
from protocol.skill import SkillSpec

from .model import Access, access_of
from .redaction import Redactor
from .rule import SandboxRules
from .secret import Secrets, secrets_folder


class Custody(msgspec.Struct, frozen=True):
    """One worker's."""

    rules: SandboxRules
    secrets: Secrets
    redactor: Redactor
    access: Access | None = None
    """To the worker's language model, if its settings name one."""
    no_access: str = ""
    """Why not, where what they say is wrong: the worker does its other work all the same."""


def custody_of(settings: Settings, home: Path, environ: Mapping[str, str] = os.environ) -> Custody:
    """As the settings of this machine say. Everything in the environment and at home that is a credential is known."""
    redactor = Redactor()
    redactor.add_environment(environ)
    redactor.add_home(home)
    access, no_access = None, ""
    try:
        access = access_of(settings, environ)
    except AsterismError as error:
        no_access = f"{error.message}; {error.hint}"
    if access is not None:
        redactor.add("OPENAI_API_KEY", access.key)
    said = settings.sandbox
    return Custody(
        SandboxRules(said.minimum, said.maximum, tuple(said.skills.items())),
        Secrets(settings.secrets.allow, secrets_folder(home), environ, redactor.add),
        redactor,
        access,
        no_access,
    )


def offered(specs: Iterable[SkillSpec], custody: Custody) -> tuple[SkillSpec, ...]:
    """Those of the skills that a worker with this custody can run: without a model none that asks one."""
    return tuple(spec for spec in specs if custody.access is not None or spec.name not in MODEL_SKILLS)
