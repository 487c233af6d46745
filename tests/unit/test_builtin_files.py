"""Built-in skills on files: fs.*, file.*, text.*, report.markdown, on real folders."""

from __future__ import annotations

import gzip
import io
import os
import random
import tarfile
import warnings
import zipfile
from pathlib import Path

import pytest

from protocol.errors import AsterismError, NeedsApproval, NotAllowed, SkillFailed, UsageError
from protocol.frame import Assign
from protocol.ids import AttemptId, Fence
from workers.builtin import file as file_skills
from workers.builtin import fs, report, text
from workers.builtin.glob import matcher
from workers.context import Situation, SkillContext
from workers.file import File
from workers.root import Root, Roots


class Quiet:
    """A wire on which nothing is asked."""

    def ask(self, attempt: AttemptId, k: int, what: str, body: bytes) -> bytes:
        raise AssertionError(what)

    async def ask_async(self, attempt: AttemptId, k: int, what: str, body: bytes) -> bytes:
        raise AssertionError(what)

    def note(self, attempt: AttemptId, body: bytes) -> None: ...
    def log(self, attempt: AttemptId, text: str) -> None: ...


def _context(tmp_path: Path, *, approved: bool = False) -> SkillContext:
    root, run = tmp_path / "root", tmp_path / "runs" / "r1"
    for folder in (root, run / "t.1"):
        folder.mkdir(parents=True, exist_ok=True)
    assign = Assign(AttemptId(1, 1, 1), Fence(1, 1), b"pin", b"{}", "r1/t#1", approval=b"pin" if approved else b"")
    roots = Roots("here", [Root(os.path.realpath(root))], [Root(os.path.realpath(run))])
    situation = Situation(assign, "cpu", str(run / "t.1"), str(run), roots, 1e12, lambda path: f"file://here{path}")
    return SkillContext(Quiet(), situation)


def _tree(root: Path, **files: str) -> None:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_find_lists_flat_records_in_order_of_name(tmp_path: Path) -> None:
    ctx = _context(tmp_path)
    _tree(
        tmp_path / "root" / "logs",
        b_DOT_log="xx",
        a_DOT_log="x",
        c_DOT_txt="",
        sub__d_DOT_log="xxx",
        _DOT_git__e_DOT_log="",
    )
    found = fs.find(ctx, "logs", "*.log")
    assert [(one["name"], one["bytes"]) for one in found["files"]] == [("a.log", 1), ("b.log", 2), ("sub/d.log", 3)]
    assert found["count"] == 3
    assert found["bytes"] == 6
    assert found["files"][0]["file"].path == tmp_path / "root" / "logs" / "a.log"
    assert [one["name"] for one in fs.find(ctx, "logs", "*.log", limit=2)["files"]] == ["a.log", "b.log"]
    assert [one["name"] for one in fs.find(ctx, "logs", exclude=["sub", "a.*"])["files"]] == ["b.log", "c.txt"]
    assert fs.find(ctx, "file://here" + str(tmp_path / "root" / "logs" / "a.log"))["count"] == 1


def test_find_splits_into_parts_of_about_equal_bytes_without_losing_a_file(tmp_path: Path) -> None:
    ctx = _context(tmp_path)
    for index in range(40):
        _tree(tmp_path / "root", **{f"f{index:02}": "x" * (index * 7 % 31)})
    found = fs.find(ctx, ".", parts=6)
    sizes = [part["bytes"] for part in found["parts"]]
    assert len(sizes) == 6
    assert sum(sizes) == found["bytes"]
    assert max(sizes) - min(sizes) <= 31
    names = [file for part in found["parts"] for file in part["files"]]
    assert sorted(names) == [one["file"] for one in found["files"]]
    assert len(fs.find(ctx, ".", limit=2, parts=6)["parts"]) == 2


def test_find_never_leaves_the_roots(tmp_path: Path) -> None:
    ctx = _context(tmp_path)
    outside = tmp_path / "outside"
    _tree(outside, secret="s")
    _tree(tmp_path / "root", inside="i", sub__x="x")
    (tmp_path / "root" / "link_dir").symlink_to(outside)
    (tmp_path / "root" / "link_file").symlink_to(outside / "secret")
    (tmp_path / "root" / "link_in").symlink_to(tmp_path / "root" / "inside")
    assert [one["name"] for one in fs.find(ctx, ".")["files"]] == ["inside", "link_in", "sub/x"]
    for path in ("..", str(outside), "link_dir", "/etc"):
        with pytest.raises(NotAllowed):
            fs.find(ctx, path)
    with pytest.raises(UsageError, match="is on pi-1"):
        fs.find(ctx, "file://pi-1/etc")
    with pytest.raises(SkillFailed, match="there is no"):
        fs.find(ctx, "missing")


@pytest.mark.parametrize(
    ("pattern", "fits", "fails"),
    [
        ("*.py", ["a.py", "x/a.py"], ["a.pyc"]),
        ("**/*.py", ["a.py", "x/y/a.py"], ["a.txt"]),
        ("src/*.py", ["src/a.py"], ["a.py", "src/x/a.py"]),
        ("src/**", ["src/a", "src/b/c"], ["srcs/a"]),
        ("*.{js,ts}", ["a.js", "b.ts"], ["a.jts", "c.{js,ts}"]),
        ("[!a]?.txt", ["bc.txt"], ["ab.txt", "b.txt"]),
        ("a+b(1).txt", ["a+b(1).txt"], ["aab1.txt"]),
    ],
)
def test_patterns(pattern: str, fits: list[str], fails: list[str]) -> None:
    matches = matcher([pattern])
    assert [path for path in fits if not matches(path)] == []
    assert [path for path in fails if matches(path)] == []


def test_read_makes_text_or_rows(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("name;n;size;zip;x\na;1;1.5;01234;\nb;;2;04321;y\n\n")
    assert fs.read(File(path), "csv")["rows"] == [
        {"name": "a", "n": 1, "size": 1.5, "zip": "01234", "x": ""},
        {"name": "b", "n": None, "size": 2.0, "zip": "04321", "x": "y"},
    ]
    assert fs.read(File(path))["count"] == len(path.read_text())
    assert fs.read(File(path), "lines")["rows"][1] == {"line": 2, "text": "a;1;1.5;01234;"}
    path.write_text('{"a": 1}')
    assert fs.read(File(path), "json")["rows"] == [{"a": 1}]
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    assert fs.read(File(path), "json")["rows"] == [{"a": 1}, {"a": 2}]
    path.write_text("no json")
    with pytest.raises(SkillFailed, match="is no JSON"):
        fs.read(File(path), "json")


def test_write_is_whole_repeatable_and_stays_in_the_run_unless_allowed(tmp_path: Path) -> None:
    ctx = _context(tmp_path)
    rows = [{"a": 1, "b": [1]}, {"a": "x,y"}]
    written = fs.write(ctx, "out/rows.csv", rows)["file"]
    assert written.read_text() == 'a,b\n1,[1]\n"x,y",\n'
    assert Path(written).is_relative_to(tmp_path / "runs" / "r1")
    assert fs.write(ctx, "rows.jsonl", rows)["file"].read_text().count("\n") == 2
    assert fs.write(ctx, "copy", File(written))["file"].read_text() == written.read_text()
    assert fs.write(ctx, "copy", "new")["bytes"] == 3
    target = tmp_path / "root" / "report.txt"
    with pytest.raises(NeedsApproval) as error:
        fs.write(ctx, str(target), "x")
    assert error.value.klass == "policy"
    assert not target.exists()
    fs.write(_context(tmp_path, approved=True), str(target), "x")
    assert target.read_text() == "x"
    for path in ("../r2/x", str(tmp_path / "outside"), "/etc/passwd"):
        with pytest.raises(AsterismError):
            fs.write(_context(tmp_path, approved=True), path, "x")
    (tmp_path / "runs" / "r1" / "out" / "away").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="leads out"):
        fs.write(ctx, "out/away/x", "x")
    assert list((tmp_path / "root").glob(".*")) == []


def test_count_agrees_with_wc_and_counts_matches(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("ERROR a ERROR\nok\nError b")
    counted = text.count(File(path, "file://pi/log"), "ERROR")
    assert (counted["lines"], counted["words"], counted["bytes"], counted["matches"]) == (3, 6, 24, 2)
    assert counted["file"].uri == "file://pi/log"
    assert text.count(File(path), "(?i)error")["matches"] == 3
    assert text.count(File(path), "^ok$")["matches"] == 1
    assert text.count(File(path))["matches"] == 0
    path.write_text("")
    assert text.count(File(path), "x")["lines"] == 0


def test_counting_by_blocks_and_by_lines_agree(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_text("one two three\n" * 100_000 + "tail")
    blocks, lines = text.count(File(path), "two"), text.count(File(path), "t[w]o")
    assert blocks == lines
    assert blocks["matches"] == 100_000
    assert blocks["lines"] == 100_001


def test_match_gives_rows_of_named_groups(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("GET /a 200\nbad\nGET /b 500\n")
    found = text.match(File(path), r"GET (?P<path>\S+) (?P<status>\d+)", limit=1)
    assert found["count"] == 2
    assert found["rows"] == [{"line": 1, "path": "/a", "status": "200"}]
    assert text.match(File(path), "b[a-z]+")["rows"] == [{"line": 2, "text": "bad"}]
    with pytest.raises(UsageError, match="no regular expression"):
        text.match(File(path), "(")
    with pytest.raises(UsageError, match="at most"):
        text.match(File(path), "x" * 2000)


def test_hash_names_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    made = file_skills.hash(File(path))
    assert made["sha256"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert made["bytes"] == 3


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x.zip"])
def test_packing_is_deterministic_and_unpacking_gives_the_files_back(tmp_path: Path, name: str) -> None:
    ctx = _context(tmp_path)
    _tree(tmp_path / "root", b="bb", sub__a="a")
    files = [File(tmp_path / "root" / "b"), File(tmp_path / "root" / "sub" / "a")]
    first = file_skills.pack(ctx, files, name)
    os.utime(files[0], (1, 1))
    again = file_skills.pack(ctx, list(reversed(files)), name)
    assert first["sha256"] == again["sha256"]
    unpacked = file_skills.unpack(ctx, again["file"])
    assert [one.path.relative_to(ctx.folder / "unpacked").as_posix() for one in unpacked["files"]] == ["b", "sub/a"]
    assert unpacked["files"][0].read_text() == "bb"


def test_files_of_several_machines_are_packed_by_their_own_names(tmp_path: Path) -> None:
    ctx = _context(tmp_path)
    _tree(tmp_path, cached1="1", cached2="2")
    files = [File(tmp_path / "cached1", "file://a/x/log.txt"), File(tmp_path / "cached2", "file://b/y/log.txt")]
    with tarfile.open(file_skills.pack(ctx, files)["file"]) as archive:
        assert archive.getnames() == ["log-2.txt", "log.txt"]
    with pytest.raises(UsageError, match="no kind of archive"):
        file_skills.pack(ctx, files, "x.rar")
    with pytest.raises(UsageError, match="plain file name"):
        file_skills.pack(ctx, files, "../x.zip")


def _tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> File:
    with tarfile.open(path, "w:gz") as archive:
        for about, content in members:
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return File(path)


def _info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    about = tarfile.TarInfo(name)
    about.type = kind
    about.linkname = link
    return about


@pytest.mark.parametrize(
    "about",
    [
        _info("/etc/x"),
        _info("../x"),
        _info("a/../../x"),
        _info("link", tarfile.SYMTYPE, "/etc/passwd"),
        _info("hard", tarfile.LNKTYPE, "ok"),
        _info("fifo", tarfile.FIFOTYPE),
        _info("device", tarfile.CHRTYPE),
        _info("sparse", tarfile.GNUTYPE_SPARSE),
        _info("ok"),
        _info("ok/below"),
        _info("a\nb"),
        _info("\udcff"),
        _info("n" * 300),
        _info("/".join("a" * 100)),
        _info("C:\\x"),
        _info("a\\..\\..\\x"),
    ],
    ids=lambda about: about.name,
)
def test_a_hostile_archive_is_refused_and_leaves_nothing(tmp_path: Path, about: tarfile.TarInfo) -> None:
    ctx = _context(tmp_path)
    archive = _tar(tmp_path / "bad.tar.gz", (_info("ok"), b"fine"), (about, b""))
    with pytest.raises(SkillFailed):
        file_skills.unpack(ctx, archive)
    assert not (ctx.folder / "unpacked").exists()


def test_a_hostile_zip_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    link, plain = zipfile.ZipInfo("link"), zipfile.ZipInfo("ok")
    link.external_attr = 0o120777 << 16
    for number, names in enumerate((["../x"], ["/etc/x"], [link], ["a\x1b[2Jb"], [plain, plain])):
        ctx = _context(tmp_path)
        path = tmp_path / f"bad{number}.zip"
        with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a name is there twice
            for name in names:
                archive.writestr(name, "/etc/passwd")
        with pytest.raises(SkillFailed):
            file_skills.unpack(ctx, File(path))
        assert not (ctx.folder / "unpacked").exists()


def test_header_that_claims_gigabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    about = tarfile.TarInfo("././@PaxHeader")
    about.type, about.size = tarfile.XHDTYPE, 4 << 30
    path = tmp_path / "header.tar.gz"
    with gzip.open(path, "wb") as out:
        out.write(about.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 20))
    with pytest.raises(SkillFailed, match="claims to have"):
        file_skills.unpack(_context(tmp_path), File(path))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_archives_of_every_packing_are_read(tmp_path: Path, mode: str) -> None:
    with tarfile.open(tmp_path / "a.tar", mode) as archive:  # type: ignore[call-overload]
        for n in range(3):
            about = _info(f"d/{n}.txt")
            about.size = 1
            archive.addfile(about, io.BytesIO(b"x"))
    made = file_skills.unpack(_context(tmp_path), File(tmp_path / "a.tar"))
    assert [one.path.name for one in made["files"]] == ["0.txt", "1.txt", "2.txt"]


def test_any_broken_archive_is_read_or_refused(tmp_path: Path) -> None:
    """Seeded, so that a failure comes again."""
    seeds = []
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode=mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
            for name in ("a.txt", "d/é.txt", "l" * 120):
                about = _info(name)
                about.size = 5
                archive.addfile(about, io.BytesIO(b"hello"))
        seeds.append(made.getvalue())
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", kind) as packed:
            packed.writestr("a.txt", "hello" * 20)
        seeds.append(made.getvalue())
    luck, ctx, refused = random.Random(7), _context(tmp_path), 0
    for _ in range(600):
        data = bytearray(luck.choice(seeds))
        for _ in range(luck.choice((1, 1, 3))):
            at = luck.randrange(min(len(data), 1500))
            data[at] = luck.choice((0, 255, luck.randrange(256)))
        path = tmp_path / "broken"
        path.write_bytes(data[: luck.randrange(len(data))] if luck.random() < 0.2 else data)
        try:
            file_skills.unpack(ctx, File(path))
        except SkillFailed:
            refused += 1
    assert refused > 100


def test_a_bomb_is_cut_by_what_it_really_unpacks_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_skills, "MAX_UNPACKED_BYTES", 1 << 20)
    ctx = _context(tmp_path)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", b"\0" * (8 << 20))
    with pytest.raises(SkillFailed, match="more than"):
        file_skills.unpack(ctx, File(path))
    path.write_bytes(b"PK no archive at all")
    with pytest.raises(SkillFailed, match="can't be unpacked"):
        file_skills.unpack(ctx, File(path))


def test_a_report_is_markdown_whose_cells_cannot_break_it(tmp_path: Path) -> None:
    ctx = _context(tmp_path)
    made = report.markdown(
        ctx,
        "Top | errors",
        [
            {"name": "Table", "rows": [{"file": "a|b\n# no", "n": 3, "d": {"x": 1}}, {"file": None, "n": 2.5}]},
            {"name": "Words", "text": "free *text*"},
            {"name": "List", "rows": [1, "two"]},
            {"name": "Empty", "rows": []},
        ],
    )
    assert made["file"].name == "top-errors.md"
    assert made["file"].read_text() == made["text"]
    assert made["text"] == (
        "# Top \\| errors\n\n## Table\n\n"
        '| file | n | d |\n| --- | ---: | --- |\n| a\\|b # no | 3 | {"x": 1} |\n|  | 2.5 |  |\n\n'
        "## Words\n\nfree *text*\n\n## List\n\n| value |\n| --- |\n| 1 |\n| two |\n\n## Empty\n\n(none)\n"
    )
