"""The built-in skills as data: what planner and orchestrator know of them without ever importing a worker.

`workers/builtin` implements exactly these; a test compares the schemas derived from its signatures with the ones
here. Examples are sentences with slots named after arguments, for the catalog planner.
"""

from __future__ import annotations

from typing import Any, Final

from .resource import NOTHING, Resources
from .skill import SkillSpec, Variant

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_INTEGER: Final[Schema] = {"type": "integer"}
_NUMBER: Final[Schema] = {"type": "number"}
_FLAG: Final[Schema] = {"type": "boolean"}
_FILE: Final[Schema] = {"type": "file"}
_LIST: Final[Schema] = {"type": "array"}
_RECORD: Final[Schema] = {"type": "object"}
_ANY: Final[Schema] = {}
_TEXTS: Final[Schema] = {"type": "object", "additionalProperties": _TEXT, "nullable": True}

_NO_CPU: Final = (Variant("cpu", NOTHING),)
_WAITS: Final = (Variant("cpu", Resources(cpu=0.25)),)
_DAY_S: Final = 86400.0
_NONE: Final = object()


def _many(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def _one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def _either(*branches: Schema) -> Schema:
    return {"anyOf": list(branches)}


def _says(schema: Schema, description: str, default: object = _NONE) -> Schema:
    made = {**schema, "description": description}
    if default is not _NONE:
        made["default"] = default
    return made


def _object(optional: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    """An object of exactly these properties; those with a default, or named first, may be left out."""
    required = [name for name, schema in properties.items() if "default" not in schema and name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


BUILTINS: Final[tuple[SkillSpec, ...]] = (
    SkillSpec(
        name="fs.find",
        doc="Finds files below a folder, and can split them into parts of about equal bytes.",
        params=_object(
            path=_says(_TEXT, "the folder to look in"),
            glob=_says(_TEXT, "a file name pattern such as *.log; with / it is matched against the path below", "*"),
            limit=_says(_INTEGER, "stop after so many files", 10_000),
            parts=_says(_INTEGER, "also split the files into so many parts of about equal bytes", 0),
            exclude=_says(_many(_TEXT), "patterns of files and folders to leave out", []),
        ),
        result=_object(
            files=_many(_object(file=_FILE, name=_TEXT, bytes=_INTEGER, mtime=_NUMBER)),
            parts=_many(_object(files=_many(_FILE), bytes=_INTEGER)),
            count=_INTEGER,
            bytes=_INTEGER,
        ),
        effect="pure",
        place="local",
        examples=(
            "find {glob} in {path}",
            "find {glob} files in {path}",
            "find all files in {path}",
            "list the files in {path}",
        ),
        tags=("files", "folder", "directory", "search", "list", "glob"),
    ),
    SkillSpec(
        name="fs.read",
        doc="Reads a file as text, or as rows: JSON, CSV or lines.",
        params=_object(
            **{
                "file": _says(_FILE, "the file to read"),
                "as": _says(_one_of("text", "json", "csv", "lines"), "what to make of it", "text"),
            }
        ),
        result=_object(("text", "rows"), file=_FILE, text=_TEXT, rows=_LIST, count=_INTEGER),
        effect="pure",
        place="local",
        examples=("read {file}", "read {file} as {as}", "load {file} as {as}"),
        tags=("file", "load", "open", "json", "csv", "lines", "text"),
    ),
    SkillSpec(
        name="fs.write",
        doc="Writes text, rows (by suffix: .csv, .json, .jsonl) or a copy of a file. Asks outside the run's folder.",
        params=_object(
            path=_says(_TEXT, "where to write; a relative path is below the run's own folder"),
            data=_says(_either(_FILE, _TEXT, _LIST, _RECORD), "text, rows, an object or a file"),
        ),
        result=_object(file=_FILE, bytes=_INTEGER),
        effect="idempotent",
        place="local",
        sinks=("path",),
        examples=("write {data} to {path}", "save {data} as {path}"),
        tags=("file", "save", "store", "copy", "export"),
    ),
    SkillSpec(
        name="text.count",
        doc="Counts lines, words and bytes of a text file, and how often a pattern matches.",
        params=_object(
            file=_says(_FILE, "the text file"),
            pattern=_says(_TEXT, "a regular expression to count; matched line by line", ""),
        ),
        result=_object(file=_FILE, lines=_INTEGER, words=_INTEGER, bytes=_INTEGER, matches=_INTEGER),
        effect="pure",
        examples=(
            "count {pattern} in {file}",
            "count the lines in {file}",
            "count the words in {file}",
            "how often does {pattern} occur in {file}",
        ),
        tags=("lines", "words", "bytes", "occurrences", "matches", "grep", "wc"),
    ),
    SkillSpec(
        name="text.match",
        doc="Finds what a pattern matches, as rows: the line number and each named group.",
        params=_object(
            file=_says(_FILE, "the text file"),
            pattern=_says(_TEXT, "a regular expression; its named groups (?P<name>...) become columns"),
            limit=_says(_INTEGER, "keep so many rows; all matches are counted", 1000),
        ),
        result=_object(file=_FILE, count=_INTEGER, rows=_many(_RECORD)),
        effect="pure",
        examples=("match {pattern} in {file}", "search {file} for {pattern}", "extract {pattern} from {file}"),
        tags=("regex", "grep", "search", "extract", "parse", "lines"),
    ),
    SkillSpec(
        name="data.sql",
        doc="Runs one SELECT over tables made of rows (in-memory SQLite). Nested values are JSON text: use json_each.",
        params=_object(
            tables=_says(
                _many(_object(("field",), name=_TEXT, rows=_LIST, field=_TEXT)),
                "tables by name; field takes the rows from that list inside each row",
            ),
            sql=_says(_TEXT, "one SELECT statement"),
        ),
        result=_object(rows=_many(_RECORD), count=_INTEGER),
        effect="pure",
        examples=("query {tables} with {sql}", "run sql {sql} on {tables}"),
        tags=("sql", "select", "join", "group", "sort", "aggregate", "filter", "table"),
    ),
    SkillSpec(
        name="file.hash",
        doc="The SHA-256 and size of a file.",
        params=_object(file=_says(_FILE, "the file")),
        result=_object(file=_FILE, sha256=_TEXT, bytes=_INTEGER),
        effect="pure",
        examples=("hash {file}", "checksum {file}", "compute the sha256 of {file}"),
        tags=("sha256", "checksum", "digest", "fingerprint", "duplicates"),
    ),
    SkillSpec(
        name="file.pack",
        doc="Packs files into one archive, byte for byte the same for the same files.",
        params=_object(
            files=_says(_many(_FILE), "the files"),
            name=_says(_TEXT, "the archive's name: .tar.gz, .tgz or .zip", "files.tar.gz"),
        ),
        result=_object(file=_FILE, sha256=_TEXT, bytes=_INTEGER),
        effect="pure",
        examples=("pack {files} into {name}", "archive {files} as {name}", "zip {files}"),
        tags=("archive", "tar", "zip", "compress", "bundle"),
    ),
    SkillSpec(
        name="file.unpack",
        doc="Unpacks an archive; links, absolute names and oversized contents are refused.",
        params=_object(file=_says(_FILE, "a .tar.gz, .tgz, .tar or .zip file")),
        result=_object(files=_many(_FILE), count=_INTEGER),
        effect="pure",
        examples=("unpack {file}", "extract the archive {file}", "unzip {file}"),
        tags=("archive", "tar", "zip", "extract", "decompress"),
    ),
    SkillSpec(
        name="http.get",
        doc="Fetches a URL. A host that is down or an error status is a result with ok: false, not a failure.",
        params=_object(
            url=_says(_TEXT, "an http or https URL"),
            max_bytes=_says(_INTEGER, "stop reading there", 8 * 1024 * 1024),
            headers=_says(_TEXTS, "request headers; a secret by reference, never as text", None),
        ),
        result=_object(
            ok=_FLAG,
            status=_INTEGER,
            url=_TEXT,
            text=_TEXT,
            file={**_FILE, "nullable": True},
            bytes=_INTEGER,
            seconds=_NUMBER,
            error=_TEXT,
        ),
        effect="pure",
        variants=_WAITS,
        timeout_s=120.0,
        tainted=True,
        sinks=("url",),
        examples=("fetch {url}", "download {url}", "check {url}", "get {url}"),
        tags=("web", "download", "request", "url", "health", "site"),
        network=True,
    ),
    SkillSpec(
        name="http.send",
        doc="Sends JSON to a URL.",
        params=_object(
            method=_says(_one_of("POST", "PUT", "PATCH", "DELETE"), "the HTTP method"),
            url=_says(_TEXT, "an http or https URL"),
            json=_says(_ANY, "the body", None),
            headers=_says(_TEXTS, "request headers; a secret by reference, never as text", None),
        ),
        result=_object(status=_INTEGER, text=_TEXT),
        effect="once",
        variants=_WAITS,
        timeout_s=120.0,
        retry_max=0,
        cached=False,
        tainted=True,
        sinks=("url", "json"),
        examples=("post {json} to {url}", "send {json} to {url}"),
        tags=("web", "post", "webhook", "request", "notify"),
        network=True,
    ),
    SkillSpec(
        name="process.run",
        doc="Runs a program with a list of arguments (never a shell string).",
        params=_object(
            argv=_says(_many(_either(_FILE, _TEXT)), "the program and its arguments; files become local paths"),
            stdin=_says(_TEXT, "text for its standard input", ""),
            cwd=_says(_TEXT, "the folder to run in; an own empty one if not given", ""),
            ok=_says(_many(_INTEGER), "exit statuses that count as success", [0]),
            collect=_says(_many(_TEXT), "patterns of files it makes in its folder", []),
            env=_says(_TEXTS, "variables of its environment, where a secret may stand", None),
        ),
        result=_object(exit=_INTEGER, stdout=_TEXT, stderr=_TEXT, files=_many(_FILE)),
        effect="once",
        place="local",
        retry_max=0,
        cached=False,
        asks=True,
        sinks=("argv",),
        examples=("run the command {argv}", "execute {argv}"),
        tags=("command", "program", "shell", "exec", "binary"),
    ),
    SkillSpec(
        name="sys.info",
        doc="What this machine is and has free: cores, load, memory, disk, gpu.",
        params=_object(),
        result=_object(
            worker=_TEXT,
            host=_TEXT,
            os=_TEXT,
            arch=_TEXT,
            python=_TEXT,
            cores=_INTEGER,
            load=_NUMBER,
            mem_total=_INTEGER,
            mem_free=_INTEGER,
            disk_total=_INTEGER,
            disk_free=_INTEGER,
            gpu=_INTEGER,
            gpu_name=_TEXT,
            vram_total=_INTEGER,
            vram_free=_INTEGER,
            uptime_s=_NUMBER,
        ),
        effect="pure",
        place="local",
        timeout_s=60.0,
        cached=False,
        examples=("show the system information", "how much memory is free", "how much disk is free", "system info"),
        tags=("memory", "disk", "cpu", "load", "cores", "gpu", "machine", "hardware", "facts"),
    ),
    SkillSpec(
        name="human.ask",
        doc="Asks a person and waits for the answer.",
        params=_object(
            question=_says(_TEXT, "what to ask"),
            choices=_says(_many(_TEXT), "the allowed answers, if only these", []),
        ),
        result=_object(answer=_ANY, by=_TEXT),
        effect="once",
        variants=_NO_CPU,
        timeout_s=_DAY_S,
        retry_max=0,
        cached=False,
        tainted=True,
        begin_effect="own",
        examples=("ask me {question}", "ask a person {question}"),
        tags=("question", "confirm", "decide", "person", "approval"),
    ),
    SkillSpec(
        name="report.markdown",
        doc="Writes a report of named parts, each rows (a table) or text.",
        params=_object(
            title=_says(_TEXT, "the heading"),
            parts=_says(
                _many(_object(("rows", "text"), name=_TEXT, rows=_LIST, text=_either(_TEXT, _NUMBER, _FLAG))),
                "the parts in order",
            ),
        ),
        result=_object(file=_FILE, text=_TEXT),
        effect="pure",
        examples=("write a report {title} of {parts}", "make a markdown report called {title}"),
        tags=("markdown", "report", "table", "summary", "document"),
    ),
    SkillSpec(
        name="flow.echo",
        doc="Gives back its value.",
        params=_object(value=_says(_ANY, "any value")),
        result=_object(value=_ANY),
        effect="pure",
        variants=_NO_CPU,
        inline=True,
        examples=("echo {value}", "say {value}"),
        tags=("value", "constant", "identity"),
    ),
    SkillSpec(
        name="flow.list",
        doc="Gives back its items, so that a map can run over a list that was written down.",
        params=_object(items=_says(_LIST, "the items")),
        result=_object(items=_LIST),
        effect="pure",
        variants=_NO_CPU,
        inline=True,
        examples=("list {items}", "for each of {items}"),
        tags=("items", "values", "each", "array"),
    ),
    SkillSpec(
        name="flow.check",
        doc="Succeeds if `left op right` holds, fails if not.",
        params=_object(
            left=_says(_ANY, "a value"),
            op=_says(_one_of("==", "!=", "<", "<=", ">", ">=", "in"), "how they are compared"),
            right=_says(_ANY, "a value"),
        ),
        result=_object(ok=_FLAG),
        effect="pure",
        variants=_NO_CPU,
        inline=True,
        examples=("check that {left} {op} {right}", "assert {left} {op} {right}"),
        tags=("assert", "compare", "condition", "verify", "guard"),
    ),
    SkillSpec(
        name="flow.sleep",
        doc="Waits, holding no cpu, then gives back its value.",
        params=_object(
            seconds=_says(_NUMBER, "how long"),
            value=_says(_ANY, "any value", None),
        ),
        result=_object(value=_ANY),
        effect="pure",
        variants=_NO_CPU,
        timeout_s=_DAY_S,
        inline=True,
        examples=("sleep {seconds}", "wait {seconds} seconds"),
        tags=("wait", "delay", "pause", "timer"),
    ),
    SkillSpec(
        name="flow.fail",
        doc="Fails its first attempts in a chosen way, then gives back its value: for trying out recovery.",
        params=_object(
            times=_says(_INTEGER, "how many attempts fail", 1),
            how=_says(_one_of("error", "exit", "hang"), "an error, the death of its process, or no end", "error"),
            value=_says(_ANY, "what it gives in the end", None),
        ),
        result=_object(value=_ANY),
        effect="pure",
        variants=_NO_CPU,
        timeout_s=60.0,
        examples=("fail {times} times",),
        tags=("fault", "error", "crash", "test"),
    ),
)

BY_NAME: Final = {spec.name: spec for spec in BUILTINS}
