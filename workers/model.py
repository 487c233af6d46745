"""The worker's language model: how its key travels from the daemon to the one host that needs it, and is opened there.

The access leaves the daemon over the pipe of the host that runs nobody's code but ours; it is in no environment, no
command line and no repr. A plan never names a model. It must not know skills or plans.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from protocol.skill import SkillSpec

if TYPE_CHECKING:
    from protocol.chat import Chat
    from protocol.setting import LlmDefaults, Settings


class Access(msgspec.Struct, frozen=True, array_like=True):
    """The settings `llm` of this machine as JSON, and the key."""

    settings: bytes
    key: str = ""

    def __repr__(self) -> str:
        return f"Access({'with' if self.key else 'without'} a key)"


def access_of(settings: Settings, environ: Mapping[str, str]) -> Access | None:
    """What these settings give access to: None without a key and a base URL. Raises: ConfigInvalid, NotAllowed."""
    from protocol.chat_endpoint import find_endpoint

    endpoint = find_endpoint(settings.llm, environ)
    if endpoint is None:
        return None
    return Access(settings.llm.model_dump_json().encode(), endpoint.authorization.removeprefix("Bearer "))


class Model:
    """The model of this worker, in the host that has the access; opened at its first use.

    `known`: the skills that an agent of this worker may use.
    """

    def __init__(self, access: Access, known: tuple[SkillSpec, ...]) -> None:
        self._access = access
        self._chat: Chat | None = None
        self.known = {spec.name: spec for spec in known}

    @cached_property
    def settings(self) -> LlmDefaults:
        from protocol.setting import LlmDefaults

        return LlmDefaults.model_validate_json(self._access.settings)

    def open(self) -> Chat:
        if self._chat is None:
            from protocol.chat_client import open_chat
            from protocol.chat_endpoint import KEY

            self._chat = open_chat(self.settings, {KEY: self._access.key} if self._access.key else {})
        return self._chat
