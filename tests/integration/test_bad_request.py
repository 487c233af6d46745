"""Whatever a client sends, it hears a typed refusal: every method of the service under wrong types, unknown fields,
huge numbers and texts, names that are nobody's. The server goes on, and its core never raised."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator.service.service import _METHODS, methods
from protocol.errors import AsterismError, InternalError
from tests.integration.hand_worker import ask, client, submit
from tests.integration.test_server import chain, server

LEAVES: tuple[Any, ...] = (
    None, True, 0, 1, -1, 7, 2**31, 2**63, 2**70, -(2**70), 1.5, 1e308, "", "a", "r1/a", "last", "../..", "x" * 70_000,
    "\x00", "\u202e", "file:///etc/passwd", "file://nobody/x", "sha256:00", [], {}, [[[[]]]], {"ref": "a"},
    {"tasks": []},
    {"tasks": [{"id": "a", "skill": "flow.echo", "args": {"value": 1}}]}, {"edits": [{"op": "retry", "id": "a"}]},
    {"base": 10**20, "tasks": [{"id": "b", "skill": "flow.echo", "needs": {"cpu": 1e300}}]}, "succeeded",
    "admin", "retry",
)  # fmt: skip
RAW = (b"", b"null", b"[]", b"{", b"\xff\xfe", b'{"run":1e999}', b"[" * 5000, b'{"a":' * 5000, b'{"run":0,"run":1}')
QUIET = frozenset({"shutdown", "events", "logs"})
"""Methods that end the server, and streams."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def bodies(method: str, count: int) -> Iterator[bytes]:
    luck = random.Random(f"bad-request/{method}")
    fields = _METHODS[method][0].__struct_fields__
    yield from RAW
    yield msgspec.json.encode({"nonsense": 1})
    texts = [leaf for leaf in LEAVES if isinstance(leaf, str)]
    for _ in range(count):
        body = {key: luck.choice(LEAVES) for key in fields if luck.random() < 0.8}
        for key in body:  # what fits gets further than what does not
            if key in ("task", "name", "worker", "why", "how", "role", "uri", "pointer", "key", "home", "serves"):
                body[key] = luck.choice(texts) if luck.random() < 0.8 else body[key]
            elif key == "run":
                body[key] = luck.choice((0, 1, 1, 99, 2**63, None))
        yield msgspec.json.encode(body)


@pytest.mark.anyio
async def test_every_method_answers_whatever_it_is_sent_or_refuses_it_typed(tmp_path: Path) -> None:
    wrong: list[tuple[str, bytes, AsterismError]] = []
    async with server(tmp_path) as (_, file), client(file) as channel:
        await submit(channel, chain(1, 2), detach=True)
        for method in sorted(methods() - QUIET):
            for body in bodies(method, 40):
                try:
                    await channel.invoke(method, body)
                except AsterismError as error:
                    if isinstance(error, InternalError) or type(error) is AsterismError:
                        wrong.append((method, body[:200], error))
        info = await ask(channel, "info")
    assert not wrong, wrong[:5]
    assert "decision_failed" not in info["dropped"]
