"""Built-in skills that act or steer: process.run, http.*, sys.info, flow.*, human.ask, with real processes."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio
import msgspec
import pytest

from protocol.errors import NotAllowed, SkillFailed, TryAgain, UsageError
from protocol.frame import Assign
from protocol.ids import AttemptId, Fence
from workers.builtin import flow, http, process
from workers.builtin import sys as sys_skills
from workers.context import AsyncSkillContext, Situation, SkillContext
from workers.file import File
from workers.registry import Registry
from workers.root import Root, Roots


class Scripted:
    """A wire that gives one answer to whatever is asked, and remembers the question."""

    def __init__(self, answer: object = None) -> None:
        self.answer = msgspec.json.encode(answer)
        self.asked: list[tuple[str, bytes]] = []

    def ask(self, attempt: AttemptId, k: int, what: str, body: bytes) -> bytes:
        self.asked.append((what, body))
        return self.answer

    async def ask_async(self, attempt: AttemptId, k: int, what: str, body: bytes) -> bytes:
        return self.ask(attempt, k, what, body)

    def note(self, attempt: AttemptId, body: bytes) -> None: ...
    def log(self, attempt: AttemptId, text: str) -> None: ...


def _situation(tmp_path: Path, number: int = 1) -> Situation:
    folder = tmp_path / "run" / "t.1"
    folder.mkdir(parents=True, exist_ok=True)
    assign = Assign(AttemptId(1, 1, number), Fence(1, 1), b"", b"{}", f"r1/t#{number}", idempotency_key="key-1")
    roots = Roots("here", [Root(os.path.realpath(tmp_path))])
    return Situation(assign, "cpu", str(folder), str(folder.parent), roots, 1e12, lambda path: f"file://here{path}")


@pytest.fixture
def ctx(tmp_path: Path) -> SkillContext:
    return SkillContext(Scripted(), _situation(tmp_path))


def test_a_program_gets_its_arguments_as_they_are(ctx: SkillContext, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("from a file")
    ran = process.run(ctx, ["sh", "-c", 'cat "$0"; echo "$1" >&2; cat', File(tmp_path / "in.txt"), "$HOME; x"], "typed")
    assert ran["stdout"] == "from a filetyped"
    assert ran["stderr"] == "$HOME; x\n"
    assert ran["exit"] == 0


def test_collected_files_come_from_the_attempts_own_folder(ctx: SkillContext) -> None:
    ran = process.run(ctx, ["sh", "-c", "mkdir out; echo 1 > out/a.png; echo 2 > b.txt"], collect=["*.png"])
    assert [one.path.relative_to(ctx.folder).as_posix() for one in ran["files"]] == ["out/a.png"]


def test_the_exit_status_decides(ctx: SkillContext) -> None:
    with pytest.raises(SkillFailed, match=r"sh ended with status 3: broken") as error:
        process.run(ctx, ["sh", "-c", "echo broken >&2; exit 3"])
    assert error.value.klass == "permanent"
    assert process.run(ctx, ["sh", "-c", "exit 3"], ok=[0, 3])["exit"] == 3
    with pytest.raises(SkillFailed, match="SIGKILL"):
        process.run(ctx, ["sh", "-c", "kill -9 $$"])


def test_output_is_capped_with_its_beginning_and_end(ctx: SkillContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MAX_OUTPUT_BYTES", 1000)
    ran = process.run(ctx, ["sh", "-c", "echo begin; yes | head -c 100000; echo end"])
    assert ran["stdout"].startswith("begin\ny\n")
    assert ran["stdout"].endswith("y\nend\n")
    assert len(ran["stdout"]) < 1100
    assert "99010 bytes left out" in ran["stdout"]


def test_what_a_program_leaves_running_is_ended_with_it(ctx: SkillContext) -> None:
    ran = process.run(ctx, ["sh", "-c", "sleep 1000 > /dev/null 2>&1 & echo $!"])
    pid = int(ran["stdout"])
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        pass  # SIGKILL is on its way; the suite's timeout bounds this


def test_bad_commands_are_usage_errors(ctx: SkillContext, tmp_path: Path) -> None:
    for argv in ([], [""], ["a\0b"], ["no-such-program-here"], [str(tmp_path)]):
        with pytest.raises(UsageError):
            process.run(ctx, list(argv))
    with pytest.raises(NotAllowed):
        process.run(ctx, ["true"], cwd="/etc")


def test_programs_see_no_secrets(ctx: SkillContext, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ASTERISM_JOIN", "GITHUB_TOKEN", "DB_PASSWORD"):
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("HARMLESS", "seen")
    out = process.run(ctx, ["env"])["stdout"]
    assert "canary" not in out
    assert "HARMLESS=seen" in out


def test_a_tool_runs_with_its_files_and_gives_what_it_made(ctx: SkillContext, tmp_path: Path) -> None:
    (tmp_path / "tools.toml").write_text(
        '[skills.both]\nargv = ["cp", "{a}", "out.txt"]\nargs = {a = "file"}\ncollect = ["*.txt"]\neffect = "pure"\n'
    )
    (tmp_path / "a").write_text("content")
    registry = Registry()
    [entry] = registry.load(str(tmp_path / "tools.toml"))
    bound = entry.bind({"a": "file://here/a"}, ctx, lambda uri: File(tmp_path / "a", uri))
    ran = entry.dump(entry.pick("cpu")(**bound), lambda path: f"file://here{path}")
    assert ran["files"] == [f"file://here{ctx.folder}/out.txt"]
    assert (ctx.folder / "out.txt").read_text() == "content"
    with pytest.raises(UsageError):
        entry.bind({"b": 1}, ctx, File)


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.seen.append(self.headers["host"])  # type: ignore[attr-defined]
        match self.path.partition("?")[0]:
            case "/redirect":
                self._answer(302, b"", location="/page")
            case "/loop":
                self._answer(302, b"", location="/loop")
            case "/away":
                self._answer(302, b"", location="http://10.0.0.1/")
            case "/big":
                self._answer(200, b"x" * 5000, kind="text/plain")
            case "/zip":
                self._answer(200, gzip.compress(b"y" * 5000), encoding="gzip", kind="text/plain")
            case "/charset":
                self._answer(200, b"plain", kind="text/plain; charset=klingon")
            case "/image":
                self._answer(200, b"\x89PNG\0", kind="image/png")
            case "/missing":
                self._answer(404, b"not here", kind="text/plain")
            case _:
                self._answer(200, "hällo".encode(), kind="text/html; charset=utf-8")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append((body, self.headers["idempotency-key"]))  # type: ignore[attr-defined]
        self._answer(int(self.path[1:]), b"got it", kind="text/plain")

    def _answer(self, status: int, body: bytes, *, kind: str = "", encoding: str = "", location: str = "") -> None:
        self.send_response(status)
        for name, value in (("content-type", kind), ("content-encoding", encoding), ("location", location)):
            if value:
                self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setenv("ASTERISM_HTTP__ALLOW", "127.0.0.0/8,::1")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        server.seen = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _url(site: ThreadingHTTPServer, path: str) -> str:
    return f"http://localhost:{site.server_port}{path}"


def test_get_gives_text_and_file(ctx: SkillContext, site: ThreadingHTTPServer) -> None:
    page = http.get(ctx, _url(site, "/page.html?q=1"))
    assert (page["ok"], page["status"], page["text"], page["error"]) == (True, 200, "hällo", "")
    assert page["file"] is not None
    assert page["file"].name == "page.html"
    assert page["file"].read_text() == "hällo"
    assert site.seen == [f"localhost:{site.server_port}"]  # type: ignore[attr-defined]
    assert http.get(ctx, _url(site, "/image"))["text"] == ""
    assert http.get(ctx, _url(site, "/charset"))["text"] == "plain"


def test_get_follows_redirects_a_few_times(ctx: SkillContext, site: ThreadingHTTPServer) -> None:
    assert http.get(ctx, _url(site, "/redirect"))["url"] == _url(site, "/page")
    assert http.get(ctx, _url(site, "/loop"))["error"] == "more than 5 redirects"


def test_get_stops_at_its_limit_after_decompression(ctx: SkillContext, site: ThreadingHTTPServer) -> None:
    for path in ("/big", "/zip"):
        page = http.get(ctx, _url(site, path), max_bytes=1000)
        assert (page["ok"], page["bytes"], page["error"]) == (False, 1000, "cut at 1000 bytes")
    assert http.get(ctx, _url(site, "/zip"))["text"] == "y" * 5000


def test_a_dead_host_or_an_error_status_is_a_result(ctx: SkillContext, site: ThreadingHTTPServer) -> None:
    page = http.get(ctx, _url(site, "/missing"))
    assert (page["ok"], page["status"], page["text"], page["error"]) == (False, 404, "not here", "status 404")
    site.server_close()
    site.shutdown()
    dead = http.get(ctx, _url(site, "/"))
    assert (dead["ok"], dead["status"], dead["file"]) == (False, 0, None)
    assert "ConnectError" in dead["error"]
    assert not http.get(ctx, "http://no-such-host.invalid/")["ok"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "10.1.2.3", "169.254.169.254", "0.0.0.0", "192.168.1.1"]
)
def test_private_addresses_are_refused(ctx: SkillContext, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASTERISM_HTTP__ALLOW", raising=False)
    with pytest.raises(NotAllowed, match="not a public address") as error:
        http.get(ctx, f"http://{host}/")
    assert "http.allow" in error.value.hint


def test_every_redirect_is_checked_anew(ctx: SkillContext, site: ThreadingHTTPServer) -> None:
    with pytest.raises(NotAllowed, match=r"10\.0\.0\.1"):
        http.get(ctx, _url(site, "/away"))


@pytest.mark.parametrize("url", ["ftp://a/b", "file:///etc/passwd", "http://", "nonsense", "http://user:pw@host/"])
def test_only_plain_http_urls_are_taken(ctx: SkillContext, url: str) -> None:
    with pytest.raises(UsageError):
        http.get(ctx, url)


def test_send_carries_the_idempotency_key_and_fails_by_class(ctx: SkillContext, site: ThreadingHTTPServer) -> None:
    assert http.send(ctx, "POST", _url(site, "/201"), {"a": 1}) == {"status": 201, "text": "got it"}
    assert site.seen == [(b'{"a":1}', "key-1")]  # type: ignore[attr-defined]
    with pytest.raises(TryAgain):
        http.send(ctx, "POST", _url(site, "/503"), 1)
    with pytest.raises(SkillFailed) as error:
        http.send(ctx, "POST", _url(site, "/400"), 1)
    assert error.value.klass == "permanent"


def test_info_says_what_this_machine_has(ctx: SkillContext) -> None:
    info = sys_skills.info(ctx)
    assert info["worker"] == "here"
    assert info["cores"] >= 1
    assert 0 < info["mem_free"] <= info["mem_total"]
    assert 0 < info["disk_free"] <= info["disk_total"]


def test_flow_gives_back_what_it_got() -> None:
    assert flow.echo({"a": [1]}) == {"value": {"a": [1]}}
    assert flow.items([1, 2]) == {"items": [1, 2]}
    assert anyio.run(flow.sleep, 0, "x") == {"value": "x"}


def test_check_fails_where_it_does_not_hold() -> None:
    assert flow.check(3, ">", 2) == {"ok": True}
    assert flow.check("a", "in", ["a"]) == {"ok": True}
    with pytest.raises(SkillFailed, match="1 == 2 does not hold"):
        flow.check(1, "==", 2)
    with pytest.raises(UsageError, match="can't be compared"):
        flow.check(1, "<", "a")


def test_fail_fails_its_first_attempts_only(tmp_path: Path) -> None:
    for number in (1, 2):
        with pytest.raises(TryAgain):
            flow.fail(SkillContext(Scripted(), _situation(tmp_path, number)), 2, "error", "v")
    assert flow.fail(SkillContext(Scripted(), _situation(tmp_path, 3)), 2, "hang", "v") == {"value": "v"}


def test_fail_can_take_its_process_along(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        flow.fail(SkillContext(Scripted(), _situation(tmp_path)), 1, "exit")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_ask_passes_the_question_on(tmp_path: Path) -> None:
    wire = Scripted({"answer": "yes", "by": "ana"})
    ctx = AsyncSkillContext(wire, _situation(tmp_path))
    assert anyio.run(flow.ask, ctx, "Go?", ["yes", "no"]) == {"answer": "yes", "by": "ana"}
    assert wire.asked == [("ask", b'{"question":"Go?","choices":["yes","no"]}')]
