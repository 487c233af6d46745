"""workers/registry.py and workers/tool.py: loading skills from modules, files and TOML."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.builtin import BUILTINS
from protocol.errors import CalledWhileLoading, UsageError
from protocol.loading import loading
from protocol.schema import check
from protocol.skill import SkillSpec
from workers.file import File
from workers.registry import Registry
from workers.skill import skill
from workers.tool import Tool


@pytest.fixture(autouse=True)
def _own_modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


SKILLS = """
    from workers.skill import skill
    import neighbour

    @skill(effect="pure")
    def one(a: int) -> int:
        return a + neighbour.MORE

    again = one

    @one.on("gpu")
    def _(a: int) -> int:
        return -a

    @skill(name="my.two")
    async def two() -> str:
        return __name__

    if __name__ == "__main__":
        raise SystemExit("never loaded as a script")
"""


def _bare(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _bare(value) for key, value in schema.items() if key != "description" or isinstance(value, dict)}
    return [_bare(one) for one in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("spec", [one for one in BUILTINS if one.place != "engine"], ids=lambda spec: spec.name)
def test_the_signature_of_every_built_in_is_its_data(spec: SkillSpec) -> None:
    entry = Registry().get(spec.name)
    assert entry is not None
    assert entry.spec == spec
    assert entry.signature.params == _bare(spec.params)
    assert entry.signature.result == _bare(spec.result)
    assert entry.kind == ("inline" if spec.inline else "python")


def test_announcing_the_built_ins_imports_none_of_them() -> None:
    code = (
        "import sys; from workers.registry import Registry; r = Registry(); assert len(r.specs()) > 15;"
        "r.get('flow.echo');"
        "print([m for m in sys.modules if m in ('httpx', 'sqlite3', 'psutil', 'pydantic')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_file_is_loaded_under_its_own_name_with_its_neighbours(tmp_path: Path) -> None:
    _write(tmp_path / "neighbour.py", "MORE = 10")
    path = _write(tmp_path / "my_skills.py", SKILLS)
    registry = Registry()
    entries = registry.load(str(path))
    assert [entry.spec.name for entry in entries] == ["one", "my.two"]
    one = registry.get("one")
    two = registry.get("my.two")
    assert one is not None
    assert two is not None
    assert one.call["cpu"](1) == 11
    assert one.pick("gpu")(1) == -1
    assert one.pick("edge")(1) == 11
    assert two.is_async
    assert not one.is_async
    assert one.source.kind == "file"
    assert one.source.where == str(path.resolve())
    assert sys.modules["my_skills"].__name__ == "my_skills"
    assert registry.load(str(path))[0].spec == one.spec
    assert "one" in registry.names()
    assert registry.get("nope") is None


def test_a_file_of_a_package_is_loaded_by_its_dotted_name(tmp_path: Path) -> None:
    _write(tmp_path / "outer_pkg" / "__init__.py", "")
    _write(tmp_path / "outer_pkg" / "near.py", "X = 3")
    path = _write(
        tmp_path / "outer_pkg" / "inside.py",
        """
        from workers.skill import skill
        from .near import X

        @skill
        def deep() -> int:
            return X
        """,
    )
    registry = Registry(builtins=False)
    registry.load(str(path))
    deep = registry.get("deep")
    assert deep is not None
    assert deep.call["cpu"]() == 3
    assert "outer_pkg.inside" in sys.modules
    assert Registry().load("outer_pkg.inside")[0].source.kind == "module"


def test_a_file_named_like_a_library_module_takes_nothing_from_it(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "colorsys.py", "from workers.skill import skill\n@skill\ndef mine() -> int:\n    return 1\n"
    )
    Registry().load(str(path))
    import colorsys

    assert hasattr(colorsys, "rgb_to_hsv")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def broken(:", "line 1"),
        ("import sys\n\nraise ValueError('no luck')", "ValueError: no luck (skills_file.py, line 3)"),
        ("import not_there_at_all", "needs not_there_at_all"),
        ("raise SystemExit(3)", "calls exit"),
        ("x = 1", "has no skills"),
        ("from workers.skill import skill\n@skill(name='fs.find')\ndef f() -> int: ...", "built-in"),
        ("from workers.skill import skill\n@skill(inline=True)\ndef f() -> int: ...", "can't be inline"),
    ],
)
def test_a_bad_module_is_a_clear_error_and_leaves_nothing(tmp_path: Path, text: str, why: str) -> None:
    path = _write(tmp_path / "skills_file.py", text)
    with pytest.raises(UsageError) as error:
        Registry().load(str(path))
    assert why in str(error.value)
    assert error.value.hint


def test_a_missing_file_or_module_says_what_to_give() -> None:
    for missing in ("nowhere/skills.py", "no_such_module_here", "not a name", "__main__"):
        with pytest.raises(UsageError) as error:
            Registry().load(missing)
        assert error.value.hint


def test_a_module_can_tell_that_it_is_being_loaded(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "calls_run.py",
        """
        from protocol.errors import CalledWhileLoading
        from protocol.loading import loading

        if loading():
            raise CalledWhileLoading(f"run was called while {loading()} is loaded")
        """,
    )
    with pytest.raises(CalledWhileLoading, match="calls_run"):
        Registry().load(str(path))
    assert loading() == ""


def test_one_name_means_one_skill(tmp_path: Path) -> None:
    text = "from workers.skill import skill\n@skill\ndef same() -> int: ...\n"
    registry = Registry()
    registry.load(str(_write(tmp_path / "first_file.py", text)))
    with pytest.raises(UsageError, match="two skills are called same"):
        registry.load(str(_write(tmp_path / "second_file.py", text)))


@skill
def of_this_file(n: int) -> int:
    return n


def test_only_decorated_functions_with_a_file_can_be_added() -> None:
    registry = Registry()
    assert registry.add(of_this_file).spec.name == "of_this_file"
    with pytest.raises(UsageError, match="no skill"):
        registry.add(lambda: 1)  # type: ignore[arg-type]


TOOLS = """
    [skills.render]
    argv = ["blender", "-b", "{scene}", "-f", "{frame}", "--", "{words}"]
    args = { scene = "file", frame = "integer", words = "string[]?" }
    collect = ["*.png"]
    effect = "pure"
    needs = { gpu = 1, vram = "2GiB" }
    timeout = "5m"
    takes = 90
    doc = "Renders one frame."

    [skills.img.resize]
    argv = ["convert", "{file}", "{mode}"]
    args = { file = "file", mode = ["fast", "slow"] }
    defaults = { mode = "fast" }
"""


def _tool(tmp_path: Path, name: str) -> Tool:
    registry = Registry()
    registry.load(str(_write(tmp_path / "tools.toml", TOOLS)))
    entry = registry.get(name)
    assert entry is not None
    assert entry.tool is not None
    assert entry.kind == "command"
    return entry.tool


def test_toml_commands_become_typed_skills(tmp_path: Path) -> None:
    tool = _tool(tmp_path, "render")
    assert tool.spec.params["required"] == ["scene", "frame"]
    assert tool.spec.params["properties"]["words"] == {"type": "array", "items": {"type": "string"}}
    assert tool.spec.variants[0].device == "gpu"
    assert tool.spec.variants[0].needs.vram == 2 * 1024**3
    assert tool.spec.effect == "pure"
    assert tool.spec.timeout_s == 300.0
    assert tool.spec.run_s == 90.0
    assert check(tool.spec.params, {"scene": "a.blend", "frame": "1"})
    resize = _tool(tmp_path, "img.resize")
    assert resize.spec.effect == "once"
    assert resize.command({"file": File("/a")}) == ["convert", "/a", "fast"]


def test_a_slot_is_one_whole_argument_and_never_an_option(tmp_path: Path) -> None:
    tool = _tool(tmp_path, "render")
    words = ["a b; rm -rf /", "-x", "$(id)"]
    assert tool.command({"scene": File("/s.blend"), "frame": -2.0, "words": words}) == [
        *("blender", "-b", "/s.blend", "-f", "-2", "--"),
        *words,
    ]
    assert tool.command({"scene": File("/s"), "frame": 1})[-1] == "--"
    unguarded = _tool(tmp_path, "img.resize")
    with pytest.raises(UsageError, match="begins with -"):
        unguarded.command({"file": File("/a"), "mode": "-o"})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("skills = 1", "has no skills"),
        ("[skills.a\n", "no TOML"),
        ("[skills.a]\nargv = []", "no program"),
        ('[skills.a]\nargv = ["p"]\ntakes = "x"', "takes names 'x'"),
        ('[skills.a]\nargv = ["p"]\ntakes = 0', "takes is 0"),
        ('[skills.a]\nargv = ["{x}"]', "no program"),
        ('[skills.a]\nargv = ["p", "{x}"]', "no type for x"),
        ('[skills.a]\nargv = ["p", "--o={x}"]\nargs = {x = "string"}', "inside an argument"),
        ('[skills.a]\nargv = ["p"]\nargs = {x = "string"}', "not used"),
        ('[skills.a]\nargv = ["p", "{x}"]\nargs = {x = "date"}', "no type 'date'"),
        ('[skills.a]\nargv = ["p"]\nshell = true', "shell is not known"),
        ('[skills.A]\nargv = ["p"]', "no name for a skill"),
        ('[skills.a]\nargv = "p -x"', "list of texts"),
        ('[skills.a]\nargv = ["p"]\neffect = "sometimes"', "effect"),
    ],
)
def test_a_bad_table_is_named_with_the_fix(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "tools.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        Registry().load(str(path))
    assert why in str(error.value)
