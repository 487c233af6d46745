"""Which model server is used, and the key for it: from the settings, the environment and a private file.

    base URL    llm.base_url (OPENAI_BASE_URL), else OpenAI's own where there is a key
    key         OPENAI_API_KEY, else the private file secrets/OPENAI_API_KEY in Asterism's folder

Invariant: a key is in no repr, no error and no message, and leaves only in the Authorization header of requests to its
own base URL. Over plain HTTP it goes to this machine only, unless `llm.plain_key` says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from .errors import ConfigInvalid, NotFound
from .security import home, is_loopback, read_private
from .setting import LlmDefaults

KEY: Final = "OPENAI_API_KEY"
_TELLING: Final = 12
"""So many of a key's first characters are no longer a usual beginning."""
OPENAI_URL: Final = "https://api.openai.com/v1"


class Endpoint:
    """A base URL and its key. Shows the URL only."""

    __slots__ = ("_key", "base_url", "local")

    def __init__(self, base_url: str, key: str = "", plain_key: bool = False) -> None:
        """Raises: ConfigInvalid for what is no base URL, or a key that others could read on its way."""
        self.base_url = base_url.rstrip("/")
        self._key = key
        try:
            parts = urlsplit(self.base_url)
            host, port, scheme = parts.hostname or "", parts.port, parts.scheme
        except ValueError:
            host, port, scheme = "", None, ""
        if scheme not in ("http", "https") or not host or parts.query or parts.fragment:
            raise ConfigInvalid(f"{_short(base_url)!r} is no base URL of a model", hint=f"write it like {OPENAI_URL}")
        if self.base_url.endswith("/chat/completions"):
            raise ConfigInvalid(
                "llm.base_url names one page of the server", hint="leave /chat/completions out: it ends in /v1"
            )
        if "@" in parts.netloc:
            raise ConfigInvalid(
                "llm.base_url has a name or password in it, which would be shown", hint=f"put the key into {KEY}"
            )
        if key and not (key.isascii() and key.isprintable() and " " not in key):
            raise ConfigInvalid(f"{KEY} has characters that no key has", hint="copy it again, without quotes or blanks")
        self.local = is_loopback(f"{host}:{port or 80}")
        if key and scheme == "http" and not self.local and not plain_key:
            raise ConfigInvalid(
                f"the key would go to {host} over plain HTTP, where others can read it",
                hint=f"use https, unset {KEY} if that server needs none, or set llm.plain_key if the network is yours",
            )

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url!r}, {'with a key' if self._key else 'without a key'})"

    def __reduce__(self) -> str:
        raise TypeError("an endpoint stays in its process")

    @property
    def root(self) -> str:
        """Where the server's own pages are, beside the protocol's."""
        return self.base_url.removesuffix("/v1")

    @property
    def authorization(self) -> str:
        """The header's value, empty without a key."""
        return f"Bearer {self._key}" if self._key else ""

    def hide(self, text: str) -> str:
        """The text without the key, should somebody have repeated it, also where it was cut off."""
        for length in range(len(self._key), min(len(self._key), _TELLING) - 1, -1) if self._key else ():
            text = text.replace(self._key[:length], "[key]")
        return text


def find_endpoint(llm: LlmDefaults, environ: Mapping[str, str]) -> Endpoint | None:
    """The model server that is set, or None: neither a base URL nor a key.

    Raises: ConfigInvalid; NotAllowed for a key file that others can read.
    """
    key = environ.get(KEY, "").strip() or _key_file(environ)
    if not key and not llm.base_url:
        return None
    return Endpoint(llm.base_url or OPENAI_URL, key, llm.plain_key)


def _key_file(environ: Mapping[str, str]) -> str:
    chosen = environ.get("ASTERISM_HOME")
    folder = Path(chosen).expanduser().absolute() if chosen else home()
    try:
        return read_private(folder / "secrets" / KEY).decode(errors="replace").strip()
    except NotFound:
        return ""


def _short(url: str) -> str:
    """What of it may be shown: a wrong one may be anything."""
    return url.rpartition("@")[2][:80]
