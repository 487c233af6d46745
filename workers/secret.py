"""Secrets by reference: `{"secret": "NAME"}` in a plan becomes its value on the worker, at the start of an attempt.

A value comes from `ASTERISM_SECRET_NAME` or the private file `ASTERISM_HOME/secrets/NAME`. Invariant: a secret is
handed to skills that the settings of this machine name for it, and to nobody else. It must not know plans or links.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from protocol.errors import AsterismError, NotAllowed, NotFound, SecretDenied, SecretMissing
from protocol.security import read_private

VARIABLE: Final = "ASTERISM_SECRET_"
MODEL_KEY: Final = "OPENAI_API_KEY"
SHORTEST: Final = 6
"""A shorter value could not be told from ordinary text, so it could not be kept out of logs."""
_MOST_BYTES: Final = 64 * 1024


class Secrets:
    """What this worker can hand out. `known` hears of each value once it is read, before anybody has it."""

    def __init__(
        self,
        allow: Mapping[str, Iterable[str]],
        folder: Path,
        environ: Mapping[str, str],
        known: Callable[[str, str], None] = lambda name, value: None,
    ) -> None:
        self._allow = {name: tuple(patterns) for name, patterns in allow.items()}
        self._folder = folder
        self._given = {
            name.removeprefix(VARIABLE): value for name, value in environ.items() if name.startswith(VARIABLE)
        }
        self._known = known
        for name, value in self._given.items():
            known(name, value)

    def of(self, names: Iterable[str], skill: str) -> dict[str, str]:
        """The values. Raises: SecretDenied, SecretMissing."""
        return {name: self._one(name, skill) for name in names}

    def _one(self, name: str, skill: str) -> str:
        if not any(fnmatchcase(skill, pattern) for pattern in self._allow.get(name, ())):
            raise SecretDenied(
                f"{skill} may not have the secret {name} on this worker",
                hint=f'allow it in ~/.config/asterism/config.toml there: secrets.allow = {{{name} = ["{skill}"]}}',
            )
        value = self._given.get(name) or self._from_file(name)
        if len(value) < SHORTEST:
            raise SecretDenied(f"the secret {name} is too short to be kept out of logs", hint="use a longer one")
        if "\0" in value:
            raise SecretDenied(f"the secret {name} holds a NUL byte")
        self._known(name, value)
        return value

    def _from_file(self, name: str) -> str:
        try:
            data = read_private(self._folder / name)
        except NotFound:
            raise SecretMissing(
                f"this worker has no secret {name}", hint=f"write it to {self._folder / name} there, mode 0600"
            ) from None
        except NotAllowed as error:
            raise SecretDenied(error.message, hint=error.hint) from None
        except OSError as error:
            raise SecretMissing(f"the secret {name} can't be read: {error.strerror}") from None
        if len(data) > _MOST_BYTES:
            raise SecretDenied(f"the secret {name} has {len(data)} bytes, at most {_MOST_BYTES} are handed out")
        try:
            return data.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise SecretDenied(f"the secret {name} is not UTF-8 text", hint="keep it base64-encoded") from None


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for children of the worker: nothing by which it got in, nothing that it hands out itself."""
    own = ("ASTERISM_JOIN", "ASTERISM_TOKEN", MODEL_KEY)
    return {name: value for name, value in environ.items() if name not in own and not name.startswith(VARIABLE)}


def is_refusal(error: AsterismError) -> bool:
    return isinstance(error, SecretDenied | SecretMissing)


def secrets_folder(home: Path) -> Path:
    return Path(os.path.realpath(home)) / "secrets"
