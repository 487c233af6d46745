"""Built-in skills on one machine's own files: fs.find, fs.read, fs.write.

Invariant: nothing outside the worker's roots is listed, read or written; a link is followed only to where its real
place is allowed (ctx.open_path decides). Must not know: which other machine wants the result.
"""

from __future__ import annotations

import csv
import heapq
import io
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, NotRequired, TypedDict

from protocol.artifact import parse_file
from protocol.builtin import BY_NAME
from protocol.errors import AsterismError, NeedsApproval, NotAllowed, NotFound, SkillFailed, UsageError
from workers.context import SkillContext
from workers.descent import open_folder, replace_plain
from workers.file import File
from workers.skill import skill

from .glob import Matcher, matcher, wants_hidden

MAX_READ_BYTES: Final = 64 * 1024 * 1024
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)?(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3})?")


class Found(TypedDict):
    file: File
    name: str
    bytes: int
    mtime: float


class Part(TypedDict):
    files: list[File]
    bytes: int


class FindResult(TypedDict):
    files: list[Found]
    parts: list[Part]
    count: int
    bytes: int


@skill(spec=BY_NAME["fs.find"])
def find(
    ctx: SkillContext,
    path: str,
    glob: str = "*",
    limit: int = 10_000,
    parts: int = 0,
    exclude: Sequence[str] = (),
) -> FindResult:
    """Finds files below a folder, in order of name; `name` is the path below that folder."""
    top = allowed_path(ctx, path)
    if not top.exists():
        raise SkillFailed(f"there is no {path}", hint=f"give a path below {ctx.worker}'s roots")
    wanted, unwanted = matcher((glob,)), matcher(exclude)
    found: list[Found] = []
    for file, name, about in _walk(ctx, top, wanted, unwanted, wants_hidden(glob)):
        if len(found) >= limit:
            break
        found.append(Found(file=File(file), name=name, bytes=about.st_size, mtime=round(about.st_mtime, 3)))
    return FindResult(
        files=found, parts=_split(found, parts), count=len(found), bytes=sum(one["bytes"] for one in found)
    )


def _walk(
    ctx: SkillContext, top: Path, wanted: Matcher, unwanted: Matcher, hidden: bool
) -> Iterator[tuple[Path, str, os.stat_result]]:
    """Wanted files below `top` with their relative names, in order; a link counts if its real place is allowed."""
    if top.is_file():
        if wanted(top.name):
            yield top, shown(top.name), top.stat()
        return
    waiting: list[tuple[str, str]] = [(str(top), "")]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            fd = open_folder(folder)
        except (NotAllowed, NotFound):
            continue  # not for us to read, or no folder any more
        deeper: list[tuple[str, str]] = []
        try:
            with os.scandir(fd) as entries:
                here = sorted(entries, key=lambda entry: entry.name)
            for entry in here:
                name = prefix + entry.name
                if (entry.name.startswith(".") and not hidden) or unwanted(name):
                    continue
                path = f"{folder.rstrip('/')}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    deeper.append((path, name + "/"))
                elif not wanted(name):
                    continue
                elif entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):
                        yield Path(path), shown(name), entry.stat(follow_symlinks=False)
                elif entry.is_symlink() and (real := _behind(ctx, path)) is not None:
                    yield real, shown(name), real.stat()
        finally:
            os.close(fd)
        waiting.extend(reversed(deeper))


def shown(name: str) -> str:
    """The name as text: bytes that are no UTF-8 can't stand in JSON."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _behind(ctx: SkillContext, link: str) -> Path | None:
    try:
        real = Path(ctx.roots.allow(link))
    except AsterismError:
        return None
    return real if real.is_file() else None


def _split(found: Sequence[Found], parts: int) -> list[Part]:
    """Parts of about equal bytes: the largest file first, always to the lightest part. None is empty."""
    if parts <= 0:
        return []
    heap: list[tuple[int, int, list[int]]] = [(0, index, []) for index in range(min(parts, len(found)))]
    for at in sorted(range(len(found)), key=lambda at: (-found[at]["bytes"], at)):
        size, index, members = heapq.heappop(heap)
        members.append(at)
        # Every file costs something, so that many empty ones don't all end in one part.
        heapq.heappush(heap, (size + found[at]["bytes"] + 1, index, members))
    chosen = [sorted(members) for _, _, members in sorted(heap, key=lambda part: part[1])]
    return [
        Part(files=[found[at]["file"] for at in members], bytes=sum(found[at]["bytes"] for at in members))
        for members in chosen
    ]


class ReadResult(TypedDict):
    file: File
    text: NotRequired[str]
    rows: NotRequired[list[Any]]
    count: int


@skill(spec=BY_NAME["fs.read"])
def read(file: File, as_: Literal["text", "json", "csv", "lines"] = "text") -> ReadResult:
    """Reads a file: `text` as a whole, or `rows`; `count` is characters or rows."""
    with file.open("rb") as handle:
        data = handle.read(MAX_READ_BYTES + 1)
        if len(data) > MAX_READ_BYTES:
            size = os.fstat(handle.fileno()).st_size
            hint = "use text.match, or a smaller file"
            raise SkillFailed(f"{file.name} has {size} bytes, at most {MAX_READ_BYTES} are read", hint=hint)
    text = io.StringIO(data.decode("utf-8-sig", "replace"), newline=None).read()
    if as_ == "text":
        return ReadResult(file=file, text=text, count=len(text))
    if as_ == "json":
        rows = read_json(text, file.name)
    elif as_ == "csv":
        rows = read_csv(text)
    else:
        rows = [{"line": number, "text": line} for number, line in enumerate(text.splitlines(), 1)]
    return ReadResult(file=file, rows=rows, count=len(rows))


def read_json(text: str, name: str) -> list[Any]:
    """Rows of a JSON document, or of one document a line; what is no list is one row."""
    try:
        value = json.loads(text)
    except ValueError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        try:
            return [json.loads(line) for line in lines]
        except ValueError:
            raise SkillFailed(f"{name} is no JSON: {error}", hint="read it as text or lines") from None
    return value if isinstance(value, list) else [value]


def read_csv(text: str) -> list[Any]:
    """Rows by column name. A column becomes numbers only if every cell of it is one; empty cells are null then."""
    head = text.partition("\n")[0]
    delimiter = max(",;\t|", key=head.count)
    table = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    if not table:
        return []
    names: list[str] = []
    for index, name in enumerate(table[0], 1):
        name = name.strip() or f"column_{index}"
        names.append(name if name not in names else f"{name}_{index}")
    columns = [_column([row[at] if at < len(row) else "" for row in table[1:] if row]) for at in range(len(names))]
    return [dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _column(cells: list[str]) -> list[Any]:
    present = [cell for cell in cells if cell]
    if present and all(_INTEGER.fullmatch(cell) for cell in present):
        return [int(cell) if cell else None for cell in cells]
    if present and all(_NUMBER.fullmatch(cell) and cell[-1:].isdigit() for cell in present):
        return [float(cell) if cell else None for cell in cells]
    return list(cells)


class WriteResult(TypedDict):
    file: File
    bytes: int


@skill(spec=BY_NAME["fs.write"])
def write(ctx: SkillContext, path: str, data: File | str | list[Any] | dict[str, Any]) -> WriteResult:
    """Writes a file whole or not at all; running it again gives the same file."""
    target = _target(ctx, path)
    if target.is_dir():
        raise UsageError(f"{path} is a folder", hint="name the file to write")

    def write_to(out: BinaryIO) -> None:
        if isinstance(data, File):
            with data.open("rb") as source:
                shutil.copyfileobj(source, out, 1 << 20)
        else:
            out.write((data if isinstance(data, str) else render(data, target.suffix)).encode())

    size = replace_plain(str(target), write_to)
    return WriteResult(file=File(target), bytes=size)


def _target(ctx: SkillContext, path: str) -> Path:
    """Where to write: freely below the run's folder, elsewhere below a writable root once a person has allowed it."""
    uri = parse_file(path)
    given = Path(uri.path if uri is not None else path).expanduser()
    run = Path(os.path.realpath(ctx.run_folder))
    if not given.is_absolute():
        target = Path(os.path.realpath(run / given))
        if not target.is_relative_to(run):
            raise UsageError(f"{path} leads out of the run's folder", hint="give an absolute path to write elsewhere")
        return target
    target = allowed_path(ctx, str(given), write=True)
    if not target.is_relative_to(run) and not ctx.approved:
        raise NeedsApproval(
            f"fs.write wants to write {target}, outside the run's folder",
            hint="approve it, give a relative path, or start the worker with --allow fs.write",
        )
    return target


def allowed_path(ctx: SkillContext, text: str, *, write: bool = False) -> Path:
    """A path below the worker's roots, its links followed; a file:// URI of this worker is its path."""
    uri = parse_file(text)
    if uri is not None and uri.worker != ctx.worker:
        raise UsageError(f"{text} is on {uri.worker}, not on {ctx.worker}", hint=f'run it there: on = ["{uri.worker}"]')
    return Path(ctx.roots.allow(uri.path if uri is not None else text, write=write))


def render(data: list[Any] | dict[str, Any], suffix: str) -> str:
    """Rows as CSV (.csv, .tsv), one document a line (.jsonl, .ndjson), lines (.txt, .md) or JSON."""
    rows = data if isinstance(data, list) else [data]
    match suffix.lower():
        case ".csv" | ".tsv":
            names = list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row)) or ["value"]
            out = io.StringIO()
            table = csv.writer(out, delimiter="\t" if suffix.lower() == ".tsv" else ",", lineterminator="\n")
            table.writerow(names)
            for row in rows:
                cells = [row.get(name) for name in names] if isinstance(row, dict) else [row]
                table.writerow([json.dumps(cell) if isinstance(cell, dict | list) else cell for cell in cells])
            return out.getvalue()
        case ".jsonl" | ".ndjson":
            return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        case ".txt" | ".md" if all(isinstance(row, str) for row in rows):
            return "".join(f"{row}\n" for row in rows)
    return json.dumps(data, ensure_ascii=False, indent=2) + "\n"
