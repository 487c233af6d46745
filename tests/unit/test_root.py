"""Roots: a path is used only below an allowed tree, wherever its links lead. Issued: what was handed out, per run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from protocol.errors import NotAllowed, NotFound, UsageError
from workers.root import Issued, Root, Roots, parse_root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "deep" / "a.txt").write_text("a")
    (tmp_path / "out" / "secret").write_text("s")
    (tmp_path / "in" / "good").symlink_to(tmp_path / "in" / "deep" / "a.txt")
    (tmp_path / "in" / "bad").symlink_to(tmp_path / "out" / "secret")
    (tmp_path / "in" / "badfolder").symlink_to(tmp_path / "out")
    return tmp_path


def roots(tree: Path, read_only: bool = False) -> Roots:
    return Roots("pi-1", [Root(os.path.realpath(tree / "in"), read_only)])


def test_paths_below_the_root_are_allowed_and_relative_ones_start_there(tree: Path) -> None:
    made = roots(tree)
    assert made.allow(tree / "in" / "deep" / "a.txt") == made.allow("deep/a.txt")
    assert made.allow("not/there/yet").startswith(made.base)
    assert made.allow("good") == made.allow("deep/a.txt")


@pytest.mark.parametrize("path", ["../out/secret", "deep/../../out/secret", "bad", "badfolder/secret", "/etc/passwd"])
def test_paths_that_lead_outside_are_refused(tree: Path, path: str) -> None:
    with pytest.raises(NotAllowed):
        roots(tree).allow(path)
    with pytest.raises(NotAllowed):
        roots(tree).open(path)


def test_sibling_with_the_same_prefix_is_outside(tree: Path) -> None:
    (tree / "inner").mkdir()
    with pytest.raises(NotAllowed):
        roots(tree).allow(tree / "inner" / "x")


def test_read_only_root_is_not_written(tree: Path) -> None:
    made = roots(tree, read_only=True)
    assert made.allow("deep/a.txt")
    with pytest.raises(NotAllowed, match="read-only"):
        made.allow("deep/b.txt", write=True)


def test_open_reads_regular_files_only(tree: Path) -> None:
    made = roots(tree)
    with made.open("good") as file:
        assert file.read() == b"a"
    with pytest.raises(NotAllowed):
        made.open("deep")
    with pytest.raises(NotFound):
        made.open("deep/none")
    os.mkfifo(tree / "in" / "pipe")
    with pytest.raises(NotAllowed):
        made.open("pipe")


def test_uris_of_this_machine_only(tree: Path) -> None:
    made = roots(tree)
    uri = made.uri(tree / "in" / "deep" / "a.txt")
    assert made.local(uri) == made.allow("deep/a.txt")
    with pytest.raises(NotAllowed):
        made.local(uri.replace("pi-1", "pi-2"))
    with pytest.raises(NotFound):
        made.local(uri + "x")
    with pytest.raises(UsageError):
        made.allow("a\0b")


def test_root_flags_are_read(tree: Path) -> None:
    assert parse_root(f"{tree}/in:ro") == Root(os.path.realpath(tree / "in"), True)
    assert not parse_root(f"{tree}/in").read_only
    with pytest.raises(UsageError):
        parse_root(f"{tree}/none")


def test_issued_paths_are_remembered_per_run_and_across_restarts(tmp_path: Path) -> None:
    first, second = tmp_path / "j-r1", tmp_path / "j-r2"
    issued = Issued()
    issued.note(first, ["/a", "/b\n", "/a"])
    assert issued.holds(first, "/a")
    assert not issued.holds(second, "/a")
    again = Issued()
    assert again.holds(first, "/b\n")
    again.note(first, ["/a", "/c"])
    assert (first / ".issued").read_bytes().count(b"\0") == 3
