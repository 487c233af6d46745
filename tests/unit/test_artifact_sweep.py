"""What the sweep removes and what it leaves."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from orchestrator.artifacts.store import COMPLETE, ArtifactStore
from orchestrator.artifacts.sweep import MARK, closure, sweep

OLD = 1_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def put(store: ArtifactStore, value: object, at: float = OLD) -> str:
    digest = store.put(json.dumps(value).encode()).digest
    os.utime(store.path(digest), (at, at))
    return digest


def test_what_is_needed_or_fresh_stays(store: ArtifactStore) -> None:
    needed, unneeded, fresh = put(store, "needed"), put(store, "unneeded"), put(store, "fresh", OLD + 100)
    freed = sweep(store, {needed}, OLD + 50)
    assert (freed.artifacts, freed.artifact_bytes, freed.kept) == (1, len(json.dumps("unneeded")), 2)
    assert [store.path(one).exists() for one in (needed, unneeded, fresh)] == [True, False, True]


def test_what_a_needed_content_names_is_needed_too_at_any_depth(store: ArtifactStore) -> None:
    leaf = put(store, "leaf")
    listed = put(store, {"files": [leaf, "file://here-123abc/a/b.txt"]})
    top = put(store, ["x" * 600_000, {"list": listed}])
    found = closure(store, {top})
    assert {leaf, listed, top, "file://here-123abc"} == found
    assert sweep(store, found, OLD + 50).artifacts == 0


def test_who_asks_for_a_content_makes_it_fresh(store: ArtifactStore) -> None:
    digest = put(store, "asked for")
    assert store.has(digest) == COMPLETE
    assert sweep(store, set(), OLD + 50).artifacts == 0


def test_broken_uploads_go_too_and_a_dry_sweep_only_counts(store: ArtifactStore) -> None:
    digest = put(store, "value")
    part = store.partial_path("sha256:" + "0" * 64)
    part.write_bytes(b"half")
    os.utime(part, (OLD, OLD))
    would = sweep(store, set(), OLD + 50, dry=True)
    assert (would.artifacts, would.partial, would.partial_bytes) == (1, 1, 4)
    assert store.path(digest).exists()
    assert sweep(store, set(), OLD + 50) == would
    assert not part.exists()
    assert sweep(store, set(), OLD + 50).artifacts == 0


def test_a_mark_is_a_whole_digest_or_the_machine_of_a_file() -> None:
    text = b"sha256:" + b"a" * 64 + b" sha256:abc file://pi-1/x.txt file://nowhere"
    assert MARK.findall(text) == [b"sha256:" + b"a" * 64, b"file://pi-1"]
