"""What the catalog planner promises to understand: every pattern of its page, with the exact graph it stands for.

The graphs are written by hand. `asterism bench planner` and the tests hold the planner against them; the page may show
no request that isn't here. It must not know how the planner reads them.
"""

from __future__ import annotations

from typing import Any, Final

FILE: Final = {"ref": "find/files[]/file"}
LOGS: Final[tuple[str, str, dict[str, Any]]] = ("find", "fs.find", {"path": "logs", "glob": "*.log"})
ONE_PART: Final[tuple[str, str, dict[str, Any]]] = ("find", "fs.find", {"path": "logs", "glob": "*.log", "parts": 1})
COUNT: Final[tuple[str, str, dict[str, Any]]] = ("count", "text.count", {"file": FILE, "pattern": "ERROR"})
HASH: Final[tuple[str, str, dict[str, Any]]] = ("hash", "file.hash", {"file": FILE})


FLEET: Final = ("pi-1", "pi-2")
"""Machines that are there."""
ON_1: Final = ("on", ["pi-1"])
ON_2: Final = ("on", ["pi-2"])


def _plan(*tasks: tuple[Any, ...]) -> dict[str, Any]:
    """(id, skill, args) each, with (key, value) pairs behind."""
    return {"tasks": [{"id": one[0], "skill": one[1], "args": one[2], **dict(one[3:])} for one in tasks]}


def _one(skill: str, *more: tuple[str, Any], **args: Any) -> dict[str, Any]:
    """A plan of one task, called as its skill."""
    return _plan((skill.rpartition(".")[2], skill, args, *more))


def _report(title: str, *parts: str) -> tuple[Any, ...]:
    rows = [{"name": part, "rows": {"ref": part}} for part in parts]
    return ("markdown", "report.markdown", {"title": title, "parts": rows})


def _when(ref: str, op: str, value: Any) -> tuple[str, list[dict[str, Any]]]:
    return ("when", [{"ref": ref, "op": op, "value": value}])


PATTERNS: Final[dict[str, dict[str, Any]]] = {
    # the notation: names, arguments by place and by name
    "echo(7)": _one("flow.echo", value=7),
    "flow.echo(value=7)": _one("flow.echo", value=7),
    'echo("a, b")': _one("flow.echo", value="a, b"),
    "echo({\"a\": [1, 2]})": _one("flow.echo", value={"a": [1, 2]}),
    "find(logs)": _one("fs.find", path="logs"),
    "find(logs, *.log)": _one("fs.find", path="logs", glob="*.log"),
    "find(glob=*.log, path=logs)": _one("fs.find", path="logs", glob="*.log"),
    "find(logs, *.log, limit=5)": _one("fs.find", path="logs", glob="*.log", limit=5),
    "hash(a.txt)": _one("file.hash", file="a.txt"),
    "check(1, <=, 2)": _one("flow.check", left=1, op="<=", right=2),
    # the notation: sequence, parallel, groups, maps, ids, places
    "find(logs, *.log) -> count(ERROR) each": _plan(LOGS, COUNT),
    "find(logs, *.log) → count(ERROR) each": _plan(LOGS, COUNT),
    "find(logs, *.log) -> count(ERROR) each -> markdown(Errors)": _plan(LOGS, COUNT, _report("Errors", "count")),
    "find(logs, *.log) -> count(ERROR) each & hash each": _plan(LOGS, COUNT, HASH),
    "find(logs, *.log) -> count(ERROR) each & hash each -> markdown(Both)": _plan(
        LOGS, COUNT, HASH, _report("Both", "count", "hash")
    ),
    "find(logs, *.log) -> (count(ERROR) each -> markdown(Errors)) & hash each": _plan(
        LOGS, COUNT, _report("Errors", "count"), HASH
    ),
    "find(logs, *.log) -> pack(name=logs.zip)": _plan(
        ONE_PART, ("pack", "file.pack", {"files": {"ref": "find/parts/0/files"}, "name": "logs.zip"})
    ),
    "hash(a.txt) & hash(b.txt)": _plan(
        ("hash", "file.hash", {"file": "a.txt"}), ("hash_2", "file.hash", {"file": "b.txt"})
    ),
    "hash(a.txt); sleep(1)": _plan(("hash", "file.hash", {"file": "a.txt"}), ("sleep", "flow.sleep", {"seconds": 1})),
    "sleep(1) -> echo(2)": _plan(
        ("sleep", "flow.sleep", {"seconds": 1}), ("echo", "flow.echo", {"value": 2}, ("after", ["sleep"]))
    ),
    "find(logs, *.log) as scan -> hash each as sums": _plan(
        ("scan", "fs.find", {"path": "logs", "glob": "*.log"}),
        ("sums", "file.hash", {"file": {"ref": "scan/files[]/file"}})
    ),
    "hash(a.txt) on gpu, any": _one("file.hash", ("on", ["gpu", "any"]), file="a.txt"),
    "info() on all": _one("sys.info", ("on", ["all"])),
    "get(https://example.com) -> write(page.html)": _plan(
        ("get", "http.get", {"url": "https://example.com"}),
        ("write", "fs.write", {"path": "page.html", "data": {"ref": "get/file"}}),
    ),
    # sentences: the examples of the skills
    "find *.log in logs": _plan(LOGS),
    "find *.log files in logs": _plan(LOGS),
    "find all files in logs": _one("fs.find", path="logs"),
    "list the files in logs": _one("fs.find", path="logs"),
    "read notes.txt": _one("fs.read", file="notes.txt"),
    "read data.csv as csv": _one("fs.read", **{"file": "data.csv", "as": "csv"}),
    "load data.json as json": _one("fs.read", **{"file": "data.json", "as": "json"}),
    'write "hello" to hello.txt': _one("fs.write", data="hello", path="hello.txt"),
    'save "hello" as hello.txt': _one("fs.write", data="hello", path="hello.txt"),
    "count ERROR in a.log": _one("text.count", pattern="ERROR", file="a.log"),
    'count "out of memory" in a.log': _one("text.count", pattern="out of memory", file="a.log"),
    "count the word error in a.log": _one("text.count", pattern="error", file="a.log"),
    "how many lines are in a.log?": _one("text.count", file="a.log"),
    "count the number of lines in a.log": _one("text.count", file="a.log"),
    "how many times does ERROR occur in a.log": _one("text.count", pattern="ERROR", file="a.log"),
    "search for TODO in main.py": _one("text.match", pattern="TODO", file="main.py"),
    "grep TODO in main.py": _one("text.match", pattern="TODO", file="main.py"),
    "what is the sha256 of a.bin?": _one("file.hash", file="a.bin"),
    "show the contents of a.txt": _one("fs.read", file="a.txt"),
    "list *.log in logs": _plan(LOGS),
    "show the files in logs": _one("fs.find", path="logs"),
    "wait for 5 seconds": _one("flow.sleep", seconds=5),
    "count the lines in a.log": _one("text.count", file="a.log"),
    "count the words in a.log": _one("text.count", file="a.log"),
    'how often does "timeout" occur in a.log?': _one("text.count", pattern="timeout", file="a.log"),
    'match "v[0-9]+" in a.log': _one("text.match", pattern="v[0-9]+", file="a.log"),
    'search a.log for "timeout"': _one("text.match", pattern="timeout", file="a.log"),
    'extract "[0-9]+ ms" from a.log': _one("text.match", pattern="[0-9]+ ms", file="a.log"),
    'query [{"name": "t", "rows": [{"n": 1}]}] with "select n from t"': _one(
        "data.sql", tables=[{"name": "t", "rows": [{"n": 1}]}], sql="select n from t"
    ),
    "hash a.bin": _one("file.hash", file="a.bin"),
    "checksum a.bin": _one("file.hash", file="a.bin"),
    "compute the sha256 of a.bin": _one("file.hash", file="a.bin"),
    "pack a.txt, b.txt and c.txt into out.tar.gz": _one(
        "file.pack", files=["a.txt", "b.txt", "c.txt"], name="out.tar.gz"
    ),
    "archive a.txt and b.txt as out.zip": _one("file.pack", files=["a.txt", "b.txt"], name="out.zip"),
    "zip a.txt and b.txt": _one("file.pack", files=["a.txt", "b.txt"]),
    "unpack a.zip": _one("file.unpack", file="a.zip"),
    "extract the archive a.tar.gz": _one("file.unpack", file="a.tar.gz"),
    "unzip a.zip": _one("file.unpack", file="a.zip"),
    "fetch https://example.com": _one("http.get", url="https://example.com"),
    "download https://example.com/a.zip": _one("http.get", url="https://example.com/a.zip"),
    "check https://example.com": _one("http.get", url="https://example.com"),
    "get https://example.com": _one("http.get", url="https://example.com"),
    'post {"a": 1} to https://example.com/hook': _one(
        "http.send", method="POST", url="https://example.com/hook", json={"a": 1}
    ),
    'run the command "ls -la"': _one("process.run", argv=["ls", "-la"]),
    'execute ["ls", "-la"]': _one("process.run", argv=["ls", "-la"]),
    "show the system information": _one("sys.info"),
    "how much memory is free?": _one("sys.info"),
    "how much disk is free?": _one("sys.info"),
    'ask me "Deploy now?"': _one("human.ask", question="Deploy now?"),
    'ask a person "Deploy now?"': _one("human.ask", question="Deploy now?"),
    "echo hello": _one("flow.echo", value="hello"),
    "check that 3 < 5": _one("flow.check", left=3, op="<", right=5),
    "sleep 2": _one("flow.sleep", seconds=2),
    "wait 5 seconds": _one("flow.sleep", seconds=5),
    # courtesies, quotes, case
    "Could you please hash a.bin?": _one("file.hash", file="a.bin"),
    "please unzip a.zip, thanks": _one("file.unpack", file="a.zip"),
    "I'd like to fetch https://example.com": _one("http.get", url="https://example.com"),
    'HASH "my file.bin"': _one("file.hash", file="my file.bin"),
    # clauses: folders and patterns for files, then, and, each, parallel, places
    "count ERROR in logs/*.log": _plan(LOGS, COUNT),
    "hash logs/*.log": _plan(LOGS, HASH),
    "zip logs/*.log": _plan(ONE_PART, ("pack", "file.pack", {"files": {"ref": "find/parts/0/files"}})),
    "find *.log in logs and count ERROR in each": _plan(LOGS, COUNT),
    "find *.log in logs, then count ERROR in each": _plan(LOGS, COUNT),
    "find *.log in logs; count ERROR in each": _plan(LOGS, COUNT),
    "Find *.log in logs. Then count ERROR in each.": _plan(LOGS, COUNT),
    "for each *.log in logs, count ERROR": _plan(LOGS, COUNT),
    "for each *.log in logs, hash it": _plan(LOGS, HASH),
    "hash every file in logs": _plan(("find", "fs.find", {"path": "logs", "glob": "*"}), HASH),
    "count ERROR in all files in logs": _plan(("find", "fs.find", {"path": "logs", "glob": "*"}), COUNT),
    "find *.log in logs, hash each, count ERROR in each and write a report called Both": _plan(
        LOGS, HASH, COUNT, _report("Both", "hash", "count")
    ),
    "for each file in logs, hash it": _plan(("find", "fs.find", {"path": "logs", "glob": "*"}), HASH),
    "find *.log in logs, then count ERROR in each and hash each": _plan(LOGS, COUNT, HASH),
    "find *.log in logs, then count ERROR in each, then write a report called Errors": _plan(
        LOGS, COUNT, _report("Errors", "count")
    ),
    "find *.log in logs, then count ERROR in each and hash each, then write a report called Both": _plan(
        LOGS, COUNT, HASH, _report("Both", "count", "hash")
    ),
    "find *.log in logs then pack them into logs.zip": _plan(
        ONE_PART, ("pack", "file.pack", {"files": {"ref": "find/parts/0/files"}, "name": "logs.zip"})
    ),
    "unzip a.zip, then hash each file": _plan(
        ("unpack", "file.unpack", {"file": "a.zip"}), ("hash", "file.hash", {"file": {"ref": "unpack/files[]"}})
    ),
    "fetch https://example.com and save it as page.html": _plan(
        ("get", "http.get", {"url": "https://example.com"}),
        ("write", "fs.write", {"path": "page.html", "data": {"ref": "get/file"}}),
    ),
    'read data.csv as csv then query it with "select count(*) as n from read"': _plan(
        ("read", "fs.read", {"file": "data.csv", "as": "csv"}),
        (
            "sql",
            "data.sql",
            {"tables": [{"name": "read", "rows": {"ref": "read/rows"}}], "sql": "select count(*) as n from read"},
        ),
    ),
    "hash a.txt and count the lines in b.txt in parallel": _plan(
        ("hash", "file.hash", {"file": "a.txt"}), ("count", "text.count", {"file": "b.txt"})
    ),
    "sleep 2 then count ERROR in logs/*.log": _plan(
        ("sleep", "flow.sleep", {"seconds": 2}), (*LOGS, ("after", ["sleep"])), (*COUNT, ("after", ["sleep"]))
    ),
    "sleep 2 then echo done": _plan(
        ("sleep", "flow.sleep", {"seconds": 2}), ("echo", "flow.echo", {"value": "done"}, ("after", ["sleep"]))
    ),
    "hash a.bin on the gpu": _one("file.hash", ("on", ["gpu"]), file="a.bin"),
    "hash a.bin locally": _one("file.hash", ("on", ["here"]), file="a.bin"),
    "show the system information on all machines": _one("sys.info", ("on", ["all"])),
    # machines by name (the fleet is FLEET): of their files, before, inside, in a list; what is saved
    "count ERROR in logs/*.log on pi-1": _plan((*LOGS, ON_1), (*COUNT, ON_1)),
    "count ERROR in logs/*.log from pi-1": _plan((*LOGS, ON_1), COUNT),
    "On pi-1, count ERROR in logs/*.log": _plan((*LOGS, ON_1), (*COUNT, ON_1)),
    "hash every file in logs on pi-1": _plan(("find", "fs.find", {"path": "logs", "glob": "*"}, ON_1), (*HASH, ON_1)),
    "pack logs/*.log on pi-1 into logs.zip, then unpack it on pi-2": _plan(
        (*ONE_PART, ON_1),
        ("pack", "file.pack", {"files": {"ref": "find/parts/0/files"}, "name": "logs.zip"}, ON_1),
        ("unpack", "file.unpack", {"file": {"ref": "pack/file"}}, ON_2),
    ),
    "find *.log in logs on pi-1 and pi-2, then count ERROR in each of them, then write a report called Errors": _plan(
        (*LOGS, ON_1),
        ("find_2", *LOGS[1:], ON_2),
        COUNT,
        ("count_2", "text.count", {"file": {"ref": "find_2/files[]/file"}, "pattern": "ERROR"}),
        _report("Errors", "count", "count_2"),
    ),
    "count ERROR in logs/*.log on pi-2, then write a report called Errors and save it as errors.md on pi-1": _plan(
        (*LOGS, ON_2), (*COUNT, ON_2), _report("Errors", "count"),
        ("write", "fs.write", {"path": "errors.md", "data": {"ref": "markdown/file"}}, ON_1),
    ),
    "hash a.txt on pi-1 and save it as sum.json on pi-2": _plan(
        ("hash", "file.hash", {"file": "a.txt"}, ON_1),
        ("write", "fs.write", {"path": "sum.json", "data": {"ref": "hash"}}, ON_2),
    ),
    "read a.conf on pi-1, then save it as b.conf on pi-1 and save it as b.conf on pi-2": _plan(
        ("read", "fs.read", {"file": "a.conf"}, ON_1),
        ("write", "fs.write", {"path": "b.conf", "data": {"ref": "read/text"}}, ON_1),
        ("write_2", "fs.write", {"path": "b.conf", "data": {"ref": "read/text"}}, ON_2),
    ),
    # files from one machine to another
    "copy a.log to b.log": _plan(
        ("original", "file.hash", {"file": "a.log"}),
        ("write", "fs.write", {"path": "b.log", "data": {"ref": "original/file"}}),
    ),
    "copy a.log on pi-1 to b.log on pi-2, then hash it": _plan(
        ("original", "file.hash", {"file": "a.log"}, ON_1),
        ("write", "fs.write", {"path": "b.log", "data": {"ref": "original/file"}}, ON_2),
        ("hash", "file.hash", {"file": {"ref": "write/file"}}),
    ),
    "copy a.log from pi-1 to b.log": _plan(
        ("original", "file.hash", {"file": "a.log"}, ON_1),
        ("write", "fs.write", {"path": "b.log", "data": {"ref": "original/file"}}),
    ),
    "unpack a.zip from pi-1 on pi-2": _plan(
        ("original", "file.hash", {"file": "a.zip"}, ON_1),
        ("unpack", "file.unpack", {"file": {"ref": "original/file"}}, ON_2),
    ),
    "pack logs/*.log on pi-1 into logs.zip on pi-2": _plan(
        (*ONE_PART, ON_1),
        ("pack", "file.pack", {"files": {"ref": "find/parts/0/files"}, "name": "logs.zip"}, ON_2),
    ),
    "pack a.txt on pi-1 and pi-2 into a.zip, then unpack each": _plan(
        ("pack", "file.pack", {"files": ["a.txt"], "name": "a.zip"}, ON_1),
        ("pack_2", "file.pack", {"files": ["a.txt"], "name": "a.zip"}, ON_2),
        ("unpack", "file.unpack", {"file": {"ref": "pack/file"}}),
        ("unpack_2", "file.unpack", {"file": {"ref": "pack_2/file"}}),
    ),
    # what is pointed to by what it is, or by a name
    "find *.log in logs, then pack them into logs.zip and hash each, then unpack the archive": _plan(
        ONE_PART,
        ("pack", "file.pack", {"files": {"ref": "find/parts/0/files"}, "name": "logs.zip"}),
        HASH,
        ("unpack", "file.unpack", {"file": {"ref": "pack/file"}}),
    ),
    "hash a.txt and call it old, hash b.txt and call it new, then write a report called Both of old and new": _plan(
        ("old", "file.hash", {"file": "a.txt"}),
        ("new", "file.hash", {"file": "b.txt"}),
        ("markdown", "report.markdown", {"title": "Both", "parts": [
            {"name": "old", "rows": [{"ref": "old"}]}, {"name": "new", "rows": [{"ref": "new"}]},
        ]}),
    ),
    # queries: tables by the task, or by the file they were read from; columns that are files
    'read orders.csv as csv and read people.csv as csv, then query them with "select name, sum(amount) as amount from '
    'orders join people using (id) group by name"': _plan(
        ("read", "fs.read", {"file": "orders.csv", "as": "csv"}),
        ("read_2", "fs.read", {"file": "people.csv", "as": "csv"}),
        ("sql", "data.sql", {
            "tables": [
                {"name": "orders", "rows": {"ref": "read/rows"}}, {"name": "people", "rows": {"ref": "read_2/rows"}},
            ],
            "sql": "select name, sum(amount) as amount from orders join people using (id) group by name",
        }),
    ),
    'find *.log in logs, then hash each, then query them with "select name from find join hash using (file)"': _plan(
        LOGS,
        HASH,
        ("sql", "data.sql", {
            "tables": [{"name": "find", "rows": {"ref": "find/files"}}, {"name": "hash", "rows": {"ref": "hash"}}],
            "sql": "select name from find join hash using (file)",
        }),
    ),
    'find *.log in logs, then count ERROR in each, then query them with "select file from count order by matches desc '
    'limit 10", then hash each': _plan(
        LOGS,
        COUNT,
        ("sql", "data.sql", {
            "tables": [{"name": "count", "rows": {"ref": "count"}}],
            "sql": "select file from count order by matches desc limit 10",
        }),
        ("hash", "file.hash", {"file": {"ref": "sql/rows[]/file"}}),
    ),
    # conditions
    'find *.log in logs. If count is 0, ask me "No logs. What now?"': _plan(
        LOGS,
        ("ask", "human.ask", {"question": "No logs. What now?"}, _when("find/count", "==", 0), ("after", ["find"])),
    ),
    "hash a.bin. If bytes is over 1000, copy a.bin to big.bin, otherwise copy a.bin to small.bin. Then hash it": _plan(
        ("hash", "file.hash", {"file": "a.bin"}),
        ("original", "file.hash", {"file": "a.bin"}, _when("hash/bytes", ">", 1000), ("after", ["hash"])),
        ("write", "fs.write", {"path": "big.bin", "data": {"ref": "original/file"}}, _when("hash/bytes", ">", 1000),
         ("after", ["hash"])),
        ("original_2", "file.hash", {"file": "a.bin"}, _when("hash/bytes", "<=", 1000), ("after", ["hash"])),
        ("write_2", "fs.write", {"path": "small.bin", "data": {"ref": "original_2/file"}},
         _when("hash/bytes", "<=", 1000), ("after", ["hash"])),
        ("hash_2", "file.hash", {"file": {"ref": ["write/file", "write_2/file"]}}),
    ),
    "hash a.bin. If bytes is at least 1000, copy a.bin to big.bin. In any case, unpack b.zip": _plan(
        ("hash", "file.hash", {"file": "a.bin"}),
        ("original", "file.hash", {"file": "a.bin"}, _when("hash/bytes", ">=", 1000), ("after", ["hash"])),
        ("write", "fs.write", {"path": "big.bin", "data": {"ref": "original/file"}}, _when("hash/bytes", ">=", 1000),
         ("after", ["hash"])),
        ("unpack", "file.unpack", {"file": "b.zip"}, ("after", ["write"])),
    ),
    "hash a.bin and call it old, hash b.bin and call it new. If bytes of new is below 9, unpack c.zip": _plan(
        ("old", "file.hash", {"file": "a.bin"}),
        ("new", "file.hash", {"file": "b.bin"}),
        ("unpack", "file.unpack", {"file": "c.zip"}, _when("new/bytes", "<", 9), ("after", ["old", "new"])),
    ),
    # what a person has to allow
    'save "hello" as hello.txt once I have approved it': _one(
        "fs.write", ("approve", True), data="hello", path="hello.txt"
    ),
    "read a.conf on pi-1, then save it as b.conf on pi-2, but ask me first": _plan(
        ("read", "fs.read", {"file": "a.conf"}, ON_1),
        ("write", "fs.write", {"path": "b.conf", "data": {"ref": "read/text"}}, ON_2, ("approve", True)),
    ),
    'ask me "Where to?" with the choices ["left", "right"]. If the answer is "left", echo 1, otherwise echo 2': _plan(
        ("ask", "human.ask", {"question": "Where to?", "choices": ["left", "right"]}),
        ("echo", "flow.echo", {"value": 1}, _when("ask/answer", "==", "left"), ("after", ["ask"])),
        ("echo_2", "flow.echo", {"value": 2}, _when("ask/answer", "!=", "left"), ("after", ["ask"])),
    ),
}  # fmt: skip
"""By request."""
