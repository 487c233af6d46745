"""Files are reached without following links: while somebody swaps folders for links, and whatever stands there."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from protocol.artifact import FileUri, parse_file
from protocol.errors import NotAllowed, NotFound
from workers.descent import open_folder, open_plain, replace_plain
from workers.file import File


@pytest.fixture
def top(tmp_path: Path) -> Path:
    folder = Path(os.path.realpath(tmp_path))
    (folder / "in" / "deep").mkdir(parents=True)
    (folder / "in" / "deep" / "a.txt").write_text("inside")
    (folder / "out").mkdir()
    (folder / "out" / "a.txt").write_text("outside")
    return folder


def test_links_pipes_and_devices_are_refused_and_nothing_is_waited_for(top: Path) -> None:
    (top / "in" / "link").symlink_to(top / "out")
    (top / "in" / "file").symlink_to(top / "in" / "deep" / "a.txt")
    os.mkfifo(top / "in" / "pipe")
    for path in ("in/link/a.txt", "in/file", "in/pipe", "in/deep", "in/deep/a.txt/x"):
        with pytest.raises(NotAllowed):
            open_plain(str(top / path))
    with pytest.raises(NotAllowed):
        open_plain("/dev/zero")
    with pytest.raises(NotFound):
        open_plain(str(top / "in" / "none"))
    with pytest.raises(NotAllowed):
        open_folder(str(top / "in" / "link"))


def test_written_file_is_whole_or_absent_and_leads_nowhere_else(top: Path) -> None:
    target = str(top / "in" / "new" / "b.txt")
    assert replace_plain(target, lambda out: out.write(b"first")) == 5

    def fail(out: object) -> None:
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        replace_plain(target, fail)
    assert Path(target).read_text() == "first"
    assert os.listdir(top / "in" / "new") == ["b.txt"]
    (top / "in" / "link").symlink_to(top / "out")
    with pytest.raises(NotAllowed):
        replace_plain(str(top / "in" / "link" / "a.txt"), lambda out: out.write(b"x"))
    (top / "in" / "away").symlink_to(top / "out" / "a.txt")
    os.mkfifo(top / "in" / "pipe")
    for name in ("away", "pipe"):
        with pytest.raises(NotAllowed, match="no regular file"):
            replace_plain(str(top / "in" / name), lambda out: out.write(b"x"))
    assert (top / "out" / "a.txt").read_text() == "outside"


def test_folder_that_is_swapped_for_a_link_meanwhile_leads_to_no_other_file(top: Path) -> None:
    """What is read is the inside or nothing, what is written is never outside, while another thread swaps."""
    deep, aside, stop = top / "in" / "deep", top / "in" / "aside", threading.Event()

    def swap() -> None:
        while not stop.is_set():
            with suppress(OSError):
                deep.rename(aside)
                deep.symlink_to(top / "out")
                deep.unlink()
                aside.rename(deep)

    thread = threading.Thread(target=swap)
    thread.start()
    read = refused = 0
    try:
        for _ in range(1500):
            with suppress(NotAllowed, NotFound):
                with open_plain(str(deep / "a.txt")) as file:
                    assert file.read() == b"inside"
                    read += 1
                continue
            refused += 1
            with suppress(NotAllowed, NotFound, OSError):
                replace_plain(str(deep / "b.txt"), lambda out: out.write(b"x"))
    finally:
        stop.set()
        thread.join()
    assert read + refused == 1500
    assert os.listdir(top / "out") == ["a.txt"]


def test_file_that_was_handed_to_a_skill_is_read_without_following_links(top: Path) -> None:
    path = top / "in" / "deep" / "a.txt"
    given = File(path, f"file://pi-1{path}")
    assert (given.read_text(), given.read_bytes()) == ("inside", b"inside")
    path.unlink()
    path.symlink_to(top / "out" / "a.txt")
    with pytest.raises(NotAllowed):
        given.read_text()
    assert File(path).read_text() == "outside", "a path of the skill's own is its own affair"


@pytest.mark.parametrize("name", [b"\xff\xfe.txt", b"new\nline", b"\x1b[2J", b"a b%20c", "ü".encode(), b"\xed\xa0\x80"])
def test_uri_names_any_file_there_can_be(top: Path, name: bytes) -> None:
    path = os.path.join(os.fsencode(top), name)
    Path(os.fsdecode(path)).write_text("x")
    uri = str(FileUri("pi-1", os.fsdecode(path)))
    assert uri.isascii()
    assert uri.isprintable()
    found = parse_file(uri)
    assert found is not None
    assert os.fsencode(found.path) == path
