"""Which planner a run gets, by its name: that of a model, the catalog's, or the server's own choice.

    ""           planner.default; without that the model's if a base URL or a key is set, else the catalog's
    llm          the model's, or a template that a person has saved for just this; `llm:NAME` once it knows its model
    catalog      no model
    template:X   how a plan from a template is called: the server's own choice again

Invariant: settings and environment are the server's own, read when it started; a model is opened once, so that its
server is asked only once who it is. Planners are loaded when they are first wanted. It must not know runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from planner.planner import Planner
from protocol.chat import Chat
from protocol.errors import AsterismError, UsageError
from protocol.security import home
from protocol.setting import LlmDefaults, PlannerDefaults

if TYPE_CHECKING:
    from protocol.chat_endpoint import Endpoint


class PlannerChoice:
    """Call it with a name. Raises: UsageError, ConfigInvalid; NotAllowed for a key file that others can read."""

    def __init__(self, llm: LlmDefaults, planner: PlannerDefaults, environ: Mapping[str, str]) -> None:
        self._llm = llm
        self._planner = planner
        self._environ = environ
        self._chat: Chat | None = None

    def __call__(self, name: str) -> Planner:
        kind = name.partition(":")[0]
        if kind in ("", "template"):
            kind = self._own()
        if kind == "llm":
            return self._model()
        if kind == "catalog":
            return _catalog()
        raise UsageError(f"there is no planner {name}", hint="the planners are: llm, catalog")

    def describe(self) -> str:
        """The server's own choice, in words: `llm:NAME at URL`, `catalog`."""
        try:
            endpoint = self._endpoint()
            if self._own() == "catalog" or endpoint is None:
                return self._own()
        except AsterismError as error:
            return f"none: {error.message}"
        name = self._chat.name if self._chat is not None else self._llm.model
        return f"llm{name and ':'}{name} at {endpoint.base_url}"

    def _own(self) -> str:
        return self._planner.default or ("llm" if self._endpoint() is not None else "catalog")

    def _endpoint(self) -> Endpoint | None:
        from protocol.chat_endpoint import find_endpoint

        return find_endpoint(self._llm, self._environ)

    def _model(self) -> Planner:
        from planner.catalog_planner import CatalogPlanner
        from planner.llm_planner import LlmPlanner
        from planner.saved_planner import SavedPlanner
        from planner.template import load_templates
        from protocol.chat_client import open_chat

        self._chat = self._chat or open_chat(self._llm, self._environ)
        fallback = _catalog() if self._planner.fallback == "catalog" else None
        prices = self._llm.price_in, self._llm.price_out
        shown = self._planner
        asking = LlmPlanner(self._chat, fallback, shortlist=shown.shortlist, pinned=shown.pinned, prices=prices)
        saved = CatalogPlanner(load_templates((home() / "templates",))[0])
        return SavedPlanner(saved, asking) if saved.templates else asking


def _catalog() -> Planner:
    from planner.catalog_planner import CatalogPlanner
    from planner.template import load_templates, shipped_folder

    return CatalogPlanner(load_templates((shipped_folder(), home() / "templates"))[0])
