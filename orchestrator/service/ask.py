"""The bodies of client requests, read strictly: `run` is a number (0: the last one), `task` a name as people use it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec


class _Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Nothing(_Ask, frozen=True):
    pass


class OfRun(_Ask, frozen=True):
    run: int = 0


class OfTask(_Ask, frozen=True):
    task: str
    run: int = 0


class Tasks(_Ask, frozen=True):
    run: int = 0
    children: bool = False


class Get(_Ask, frozen=True):
    run: int = 0
    task: str = ""
    pointer: str = ""


class Graph(_Ask, frozen=True):
    run: int = 0
    version: int | None = None


class Events(_Ask, frozen=True):
    """`after` -1: only what comes from now on. `kinds` empty: all of them; `states`: of settled tasks, only these.
    With `fleet` those about the server and its workers, whatever `run` is."""

    run: int = 0
    fleet: bool = False
    after: int = 0
    follow: bool = False
    kinds: tuple[str, ...] = ()
    states: tuple[str, ...] = ()


class Logs(_Ask, frozen=True):
    run: int = 0
    task: str | None = None
    after: int = 0
    follow: bool = False


class Patch(_Ask, frozen=True):
    document: dict[str, Any]
    run: int = 0


class Plan(_Ask, frozen=True):
    request: str
    inputs: dict[str, Any] = {}
    planner: str = ""
    home: str = ""


class Cancel(_Ask, frozen=True):
    run: int = 0
    task: str | None = None
    why: str = ""


class Decide(_Ask, frozen=True):
    """`task` left out: everything of the run that awaits approval."""

    run: int = 0
    task: str | None = None
    message: str = ""


class Answer(_Ask, frozen=True):
    task: str
    value: Any
    run: int = 0


class Resolve(_Ask, frozen=True):
    task: str
    how: Literal["succeeded", "retry", "fail"]
    value: Any = None
    run: int = 0


class Fork(_Ask, frozen=True):
    """`from_failed` is what `retry` says of itself; a fork always reuses what succeeded."""

    run: int = 0
    at: int | None = None
    key: str = ""
    home: str = ""
    from_failed: bool = True


class Undo(_Ask, frozen=True):
    version: int
    run: int = 0


class Enroll(_Ask, frozen=True):
    """`csr`: a certificate request, which a server with TLS wants and another leaves aside."""

    name: str
    serves: str = ""
    csr: str = ""


class Connect(_Ask, frozen=True):
    name: str
    csr: str = ""


class Renew(_Ask, frozen=True):
    csr: str


class Echo(_Ask, frozen=True):
    """`padding` is read and thrown away, `size` bytes come back: what a worker measures its link by."""

    size: Annotated[int, msgspec.Meta(ge=0, le=1 << 20)] = 0
    padding: str = ""


class Preflight(_Ask, frozen=True):
    """What a peer would come with: its `certificate` if it has one, its clock, the link versions that it speaks."""

    versions: tuple[int, int]
    certificate: str = ""
    at: float = 0.0


class NewToken(_Ask, frozen=True):
    """`uses` 0: any number; `ttl_s` 0: for ever."""

    role: Literal["viewer", "submitter", "approver", "admin", "worker"] = "worker"
    uses: Annotated[int, msgspec.Meta(ge=0)] = 1
    ttl_s: Annotated[float, msgspec.Meta(ge=0)] = 86400.0


class OfToken(_Ask, frozen=True):
    token: int


class Collect(_Ask, frozen=True):
    """`dry`: only say what would be removed."""

    grace_s: Annotated[float, msgspec.Meta(ge=0)] = 3600.0
    dry: bool = False


class Drain(_Ask, frozen=True):
    worker: str
    deadline_s: float = 60.0


class OfWorker(_Ask, frozen=True):
    worker: str


class Stage(_Ask, frozen=True):
    """A worker names `uris`, a client one `uri`."""

    run: int = 0
    uri: str = ""
    uris: tuple[str, ...] = ()


def pointer_parts(pointer: str) -> tuple[str, ...]:
    """`/files/0` -> ("files", "0"); with or without the leading slash, escapes of JSON Pointer undone."""
    text = pointer.removeprefix("/")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text.split("/")) if text else ()
