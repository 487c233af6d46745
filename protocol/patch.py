"""A patch: an atomic, versioned edit of a task graph. Plans, re-plans, spawns and live edits are all patches."""

from __future__ import annotations

from typing import Literal

import msgspec

from .task import Output, TaskSpec


class Edit(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of `edits`. `alt` only with retry: the skill to try instead. `note` is kept and shown."""

    op: Literal["retry", "cancel", "remove", "finish", "give_up"]
    id: str = ""
    note: str = ""
    alt: str = ""


class Patch(msgspec.Struct, frozen=True, omit_defaults=True):
    """What somebody proposes.

    `author`: "planner", "person:NAME" or "task:ID". `base` is the version it was written against (-1: not optimistic,
    as the parts of a first plan). A task with the id of one not yet dispatched replaces it. `links` and `unlinks` are
    `after` edges (upstream, downstream). `outputs` None leaves them; `parent` names the spawning task, whose id
    prefixes the children's. `relies`: ids that were only read.
    """

    author: str
    tasks: tuple[TaskSpec, ...] = ()
    why: str = ""
    base: int = -1
    relies: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    unlinks: tuple[tuple[str, str], ...] = ()
    outputs: tuple[Output, ...] | None = None
    parent: str = ""
