"""Pointers into values, and what `*` gathers, wherever a value is read."""

from pathlib import Path

import pytest

from orchestrator.artifacts.store import ArtifactStore
from protocol.errors import NotFound
from protocol.frame import Input
from protocol.pointer import MISSING, descend
from protocol.task import parse_reference
from workers.argument import values

ROWS = [{"n": 1, "tags": ["a", "b"]}, {"n": 2, "tags": []}]


@pytest.mark.parametrize(
    ("value", "pointer", "found"),
    [
        (ROWS, "*/n", [1, 2]),
        (ROWS, "*/tags/*", [["a", "b"], []]),
        (ROWS, "1/n", 2),
        (ROWS, "*", ROWS),
        ([], "*/n", []),
        ({"*": 3}, "*", 3),
        (ROWS, "*/m", MISSING),
        (ROWS, "*/tags/0", MISSING),
        (ROWS, "-1", MISSING),
        (3, "*", MISSING),
    ],
)
def test_a_star_is_every_element_of_a_list_and_a_name_in_an_object(value, pointer, found):
    assert descend(value, pointer.split("/")) == found


@pytest.mark.parametrize(
    ("text", "listed", "item"),
    [
        ("m[]/n", "", "4/n"),
        ("m/files[]", "files", "files/4"),
        ("m/*/n[]", "", "4/n"),
        ("m/files/*/n[]/x", "files", "files/4/n/x"),
    ],
)
def test_once_per_element_of_what_is_gathered_is_once_per_element_of_its_list(text, listed, item):
    ref = parse_reference(text)
    assert ("/".join(ref.listed), "/".join(ref.item(4))) == (listed, item)
    assert str(ref) == text


def test_a_worker_gathers_from_a_manifest(tmp_path: Path):
    parts = (b'[{"n":1}]', b'[{"n":2}]')
    given = Input("m/*/n", b"null", ("*", "n"), parts, True)
    assert values([given], str) == {"m/*/n": [1, 2]}
    with pytest.raises(NotFound, match=r"m/\*/x: there is no /\*/x"):
        values([Input("m/*/x", b"null", ("*", "x"), parts, True)], str)


def test_the_store_gathers_from_an_artifact(tmp_path: Path):
    store = ArtifactStore(tmp_path)
    digest = store.put(b'{"rows": [{"n": 1.50}, {"n": [2]}, {"n": "x"}]}').digest
    assert store.json_at(digest, ("rows", "*", "n")) == b'[1.5,[2],"x"]'
    assert store.length_at(digest, ("rows", "*", "n")) == 3
    with pytest.raises(NotFound, match="not every element has /m"):
        store.json_at(digest, ("rows", "*", "m"))
