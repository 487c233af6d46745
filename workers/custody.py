"""What a worker's skills are kept with: the levels that hold them, the secrets they may have, what is never let out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from protocol.config import Settings

from .redaction import Redactor
from .rule import SandboxRules
from .secret import Secrets, secrets_folder


class Custody(msgspec.Struct, frozen=True):
    """One worker's."""

    rules: SandboxRules
    secrets: Secrets
    redactor: Redactor


def custody_of(settings: Settings, home: Path, environ: Mapping[str, str] = os.environ) -> Custody:
    """As the settings of this machine say. Everything in the environment and at home that is a credential is known."""
    redactor = Redactor()
    redactor.add_environment(environ)
    redactor.add_home(home)
    said = settings.sandbox
    return Custody(
        SandboxRules(said.minimum, said.maximum, tuple(said.skills.items())),
        Secrets(settings.secrets.allow, secrets_folder(home), environ, redactor.add),
        redactor,
    )
